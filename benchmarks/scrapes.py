"""What a scrape costs the tasks, and how long one takes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter

from prometheus_client import CollectorRegistry, generate_latest

from recyclepool import RecyclePool, metrics

from .loads import burst, noop

MANY, SLOTS = 50, 32  # pools, and what each may have of workers
EVERY = 0.25  # seconds: Prometheus scrapes every 15, or every minute


@contextmanager
def scraped(registry: CollectorRegistry, every: float) -> Iterator[list[float]]:
    """Have it scraped by another thread. The seconds that each scrape took."""
    took: list[float] = []
    over = threading.Event()

    def scrape() -> None:
        while True:
            start = perf_counter()
            generate_latest(registry)
            took.append(perf_counter() - start)
            if over.wait(every):
                return

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()


def registered() -> CollectorRegistry:
    """A registry that shows all pools."""
    registry = CollectorRegistry()
    metrics.register(registry)
    return registry


def scraped_burst(pool: RecyclePool, tasks: int, registry: CollectorRegistry | None) -> float:
    """Microseconds a task, of ten bursts, meanwhile scraped or not."""
    with ExitStack() as stack:
        if registry is not None:
            stack.enter_context(scraped(registry, EVERY))
        return sum(burst(pool, tasks // 10) for _ in range(10)) / 10


@contextmanager
def many_pools() -> Iterator[list[RecyclePool]]:
    """With all their workers, each of which has run some tasks."""
    with ExitStack() as stack:
        pools = [stack.enter_context(RecyclePool(SLOTS, min_workers=SLOTS)) for _ in range(MANY)]
        for pool in pools:
            pool.start().result()
            burst(pool, 5 * SLOTS)
        yield pools


def milliseconds(action: Callable[[], object]) -> float:
    """That it takes."""
    start = perf_counter()
    action()
    return (perf_counter() - start) * 1e3


def collecting(registry: CollectorRegistry) -> Callable[[], float]:
    """Milliseconds in which all figures are there as samples."""
    return partial(milliseconds, lambda: list(registry.collect()))


def a_page(registry: CollectorRegistry) -> Callable[[], float]:
    """Milliseconds in which they are there as text, too: that prometheus_client writes."""
    return partial(milliseconds, partial(generate_latest, registry))


def longest_trip(pool: RecyclePool, registry: CollectorRegistry) -> tuple[float, float]:
    """Milliseconds of the longest round trip of a task during one scrape; and of that scrape."""
    longest = 0.0
    with scraped(registry, threading.TIMEOUT_MAX) as took:
        while not took:
            longest = max(longest, milliseconds(lambda: pool.submit(noop).result()))
    return longest, took[0] * 1e3
