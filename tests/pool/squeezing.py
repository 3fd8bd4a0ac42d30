"""A process whose memory a test says, pools with a limit for it, and pauses of their dispatch."""

import threading
import weakref
from collections import Counter

import pytest
from listening import Events
from staging import WAIT, until

from recyclepool import (
    Limits,
    MemoryPressure,
    MemoryRelieved,
    _census,
    _floor,
    _probe,
    _relief,
    current_worker,
    per_worker,
)

MB = 1_000_000
BASE, LIMIT = 100 * MB, 120 * MB
FLOOD = 2000 * MB  # far more than any module has


class Process:
    """What the pool is told of its process: what others take, and the blobs that are alive."""

    def __init__(self) -> None:
        self.others = BASE
        self._blobs: list[weakref.ref[Blob]] = []

    def rss(self) -> int:
        return self.others + sum(len(blob() or b"") for blob in self._blobs.copy())

    def new_blob(self, size: int) -> "Blob":
        blob = Blob(size)
        self._blobs.append(weakref.ref(blob))
        return blob


class Blob(bytearray):
    """Memory that is seen while it is alive."""


@pytest.fixture
def process(monkeypatch):
    """The pools' process. What is measured is true at once, with a noise of 1 MB."""
    process = Process()
    monkeypatch.setattr(_relief, "process_rss", process.rss)
    monkeypatch.setattr(_probe, "process_rss", process.rss)
    monkeypatch.setattr(_relief.Relief, "_floor", lambda self: process.rss())
    monkeypatch.setattr(_floor.Floor, "noise", lambda self: MB)
    monkeypatch.setattr(_census, "_is_skipped", lambda *_: True)  # pytest's are of another process
    monkeypatch.setattr(_relief, "SPAN", 0.001)
    monkeypatch.setattr(_relief, "TRIM_PAUSE", 0.0)
    return process


@pytest.fixture
def new_limited(new_pool, process):
    """A pool with a limit of 120 MB, in a process of 100 MB; and its events."""

    def make(size=2, *, limits=None, **kwargs):
        chosen = {
            "pool_memory": LIMIT,
            "memory_samples": 1,
            "sample_every": 0.02,
            "min_age": 0,
            "jitter": 0,
        }
        pool = new_pool(size, limits=Limits(**(chosen | (limits or {}))), **kwargs)
        return pool, Events(pool)

    return make


@per_worker
def kept():
    """Grows with the worker."""
    return []


def where():
    return current_worker().slot


def on_all(pool, task=where, count=2):
    """Have each of its workers run it; what they return, by slot."""
    barrier = threading.Barrier(count)

    def together():
        barrier.wait(WAIT)
        return where(), task()

    return dict(each.result(WAIT) for each in [pool.submit(together) for _ in range(count)])


def owning(pool, slot, least):
    """Wait until a look has found that it owns so much."""

    def owns():
        found = next((w for w in pool.stats().workers if w.slot == slot), None)
        return found is not None and found.memory is not None and found.memory.bytes >= least

    until(owns, f"{slot} is seen to own {least}")


def pause(pool, process, events):
    """Have nothing help, until dispatch pauses."""
    process.others = FLOOD
    events.wait_for(MemoryPressure, paused=True)
    assert pool.stats().paused


def go_on(pool, process, events):
    """It is small again."""
    process.others = BASE
    events.wait_for(MemoryRelieved)
    assert not pool.stats().paused


def memory_threads(pool):
    name = f"{pool._engine.settings.thread_names}_memory"
    return [thread for thread in threading.enumerate() if thread.name == name]


def the_memory_thread(pool):
    until(lambda: memory_threads(pool), "the thread")
    (thread,) = memory_threads(pool)
    return thread


class Tasks:
    """Tasks that each run once."""

    def __init__(self, pool):
        self.ran = Counter()
        self._pool = pool
        self.futures = []

    def submit(self, count=5):
        for _ in range(count):
            self.futures.append(self._pool.submit(self._run, len(self.futures)))

    def _run(self, number):
        self.ran[number] += 1
        return number

    def none_has_run(self):
        return not self.ran

    def all_run_once(self):
        numbers = list(range(len(self.futures)))
        assert [future.result(WAIT) for future in self.futures] == numbers
        assert self.ran == Counter(numbers)


def has_looked(pool, times=3):
    """Wait until the process was looked at again: meanwhile a task would have started."""
    relief, samples = pool._engine.relief, set()
    until(lambda: samples.add(relief.sample.at) or len(samples) > times, "looks")
