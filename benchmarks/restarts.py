"""The loads for pools whose workers are replaced: a soft restart under load, and one recycle."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from random import Random
from statistics import median, quantiles
from time import perf_counter, sleep

from recyclepool import RecyclePool

from .loads import REQUEST, spin

AT_REST = "itself at rest"
BARE_THREAD = "one bare thread"
SECOND_THREAD = "one beside the one before"

WORKERS = 4
RATE = 0.5 * WORKERS / 1.15e-3  # tasks a second that keep half of the workers busy
ARRIVALS = 300  # in one window of about 170 ms
PAUSE = 2e-3  # before a worker or thread is started: the one before has come to its end


def restartable() -> RecyclePool:
    """A warm pool whose workers have something to initialize, though not much."""
    pool = RecyclePool(WORKERS, initializer=spin, initargs=(1_000,), min_workers=WORKERS)
    pool.start().result()
    return pool


def request() -> float:
    """A task such as servers have: 50 us of Python, 1 ms of waiting. Returns when it started."""
    started = perf_counter()
    spin(2_000)
    sleep(1e-3)
    return started


def all_replaced(restarted: Future[int]) -> None:
    if restarted.result() != WORKERS:
        raise RuntimeError(f"{restarted.result()} of {WORKERS} workers were replaced")


def saturated(pool: RecyclePool, tasks: int, restart: bool) -> float:
    """Microseconds a task, all queued at once; with `restart`, half-way and to its end."""
    REQUEST.set(1)
    start = perf_counter()
    futures = [pool.submit(request) for _ in range(tasks)]
    futures[tasks // 2].result()
    if restart:
        all_replaced(pool.soft_restart())
    for future in futures:
        future.result()
    return (perf_counter() - start) / tasks * 1e6


def p99_wait(pool: RecyclePool, seeds: Iterator[int], restart: bool) -> float:
    """Microseconds from submit to start that one task in a hundred exceeds, at half load.

    A seed stands for the times at which tasks arrive. With `restart`, from the 75th on.
    """
    REQUEST.set(1)
    random = Random(next(seeds))
    submitted, futures = [], []
    restarted = None
    due = perf_counter()
    for number in range(ARRIVALS):
        due += random.expovariate(RATE)
        sleep(max(0.0, due - perf_counter()))
        if restart and number == ARRIVALS // 4:
            restarted = pool.soft_restart()
        submitted.append(perf_counter())
        futures.append(pool.submit(request))
    waits = [future.result() - at for future, at in zip(futures, submitted, strict=True)]
    if restarted is not None:
        all_replaced(restarted)
    return quantiles(waits, n=100)[-1] * 1e6


class Ready:
    """Somebody that started says when it was ready."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> None:
        self.at = perf_counter()


def recycle(pool: RecyclePool, ready: Ready) -> float:
    """Seconds from the decision to the end of the successor's initializer, which is `ready.now`."""
    start = perf_counter()
    if pool.recycle(0).result() != 1:
        raise RuntimeError("nobody was replaced")
    return ready.at - start


def start_thread(ready: Ready) -> float:
    """Seconds from the decision to the first line of a bare thread."""
    start = perf_counter()
    thread = threading.Thread(target=ready.now)
    thread.start()
    thread.join()
    return ready.at - start


class Succession:
    """Bare threads, each of which starts beside the one before it, as a worker's successor does.

    What a thread leaves behind at its end (a stack, an arena) is warm for the next that starts:
    after it, not beside it.
    """

    def __init__(self) -> None:
        self._ready = Ready()
        self._go: threading.Event | None = None

    def start_thread(self) -> float:
        """Seconds from the decision to the first line of the thread."""
        start = perf_counter()
        go, ready = threading.Event(), threading.Event()
        threading.Thread(target=self._live, args=(go, ready)).start()
        ready.wait()
        self.end()
        self._go = go
        return self._ready.at - start

    def _live(self, go: threading.Event, ready: threading.Event) -> None:
        self._ready.now()
        ready.set()
        go.wait()

    def end(self) -> None:
        """The last one goes."""
        if self._go is not None:
            self._go.set()


def latency(action: Callable[[], float], count: int) -> float:
    """Microseconds that it takes, each time after a pause: the median."""
    seconds = []
    for _ in range(count):
        sleep(PAUSE)
        seconds.append(action())
    return median(seconds) * 1e6
