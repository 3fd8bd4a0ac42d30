"""The pools that are measured, and the loads put on them."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import ContextVar
from time import perf_counter, process_time

from recyclepool import Limits, RecyclePool, current_worker

OURS = "ours"
STDLIB = "stdlib"
RAW = "two raw lock hand-overs"


def watched(workers: int) -> RecyclePool:
    """A pool that looks after the age of its workers and after tasks that hang."""
    return RecyclePool(workers, limits=Limits(age="6h", hang="2m"))


def fill_cache() -> None:
    """50 000 objects that the worker owns: there is something to look at."""
    records = [{"number": 1000 + i, "name": f"name {i}"} for i in range(12_500)]
    current_worker().cache.put("records", records, size="1MiB")


def weighed(workers: int) -> RecyclePool:
    """A pool with all that is watched, and caches that hold something."""
    limits = Limits(age="6h", hang="2m", memory="512MiB")
    return RecyclePool(workers, initializer=fill_cache, limits=limits)


def unwatched(workers: int) -> RecyclePool:
    """The same without limits."""
    return RecyclePool(workers, initializer=fill_cache)


POOLS: dict[str, Callable[[int], Executor]] = {OURS: RecyclePool, STDLIB: ThreadPoolExecutor}
WATCHED_POOLS: dict[str, Callable[[int], Executor]] = {**POOLS, OURS: watched}

# Who submits has a variable set, as programs do: an empty context costs a pool nothing to carry.
REQUEST: ContextVar[int] = ContextVar("request")


def noop() -> None:
    pass


def spin(loops: int) -> None:
    """Python that waits for nothing: 1 000 loops take about 25 us."""
    for _ in range(loops):
        pass


def burst(pool: Executor, tasks: int) -> float:
    """Microseconds a task, from the first submit to the last result."""
    REQUEST.set(1)
    start = perf_counter()
    futures = [pool.submit(noop) for _ in range(tasks)]
    for future in futures:
        future.result()
    return (perf_counter() - start) / tasks * 1e6


def trips(pool: Executor, count: int) -> float:
    """Microseconds from a submit to its result, one task at a time."""
    REQUEST.set(1)
    start = perf_counter()
    for _ in range(count):
        pool.submit(noop).result()
    return (perf_counter() - start) / count * 1e6


def hand_overs(count: int) -> float:
    """Microseconds for two hand-overs of a bare lock: what no pool can go below."""
    there, back = threading.Lock(), threading.Lock()
    there.acquire()
    back.acquire()

    def answer() -> None:
        for _ in range(count):
            there.acquire()
            back.release()

    thread = threading.Thread(target=answer)
    thread.start()
    start = perf_counter()
    for _ in range(count):
        there.release()
        back.acquire()
    seconds = perf_counter() - start
    thread.join()
    return seconds / count * 1e6


def cpu(pool: Executor, tasks: int) -> float:
    """Microseconds of CPU time a task: those of the whole process, for tasks of 50 to 200 us."""
    REQUEST.set(1)
    loops = itertools.cycle((2_000, 4_000, 8_000))
    start = process_time()
    futures = [pool.submit(spin, next(loops)) for _ in range(tasks)]
    for future in futures:
        future.result()
    return (process_time() - start) / tasks * 1e6
