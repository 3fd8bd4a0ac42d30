"""Limits(memory=) against tasks and values that are out to break it. Each was found to, once."""

import threading

import pytest
from listening import Events
from staging import WAIT, until
from weighing import MIB, SOON, do, keep, kept, recycles, soon

from recyclepool import Limits, _relief, current_worker, memory
from recyclepool._host_memory import process_rss
from recyclepool.events import (
    MemoryLimitTooLow,
    MemoryNotOwned,
    MemoryReturned,
    WatchdogFailed,
    WorkerAbandoned,
    WorkerLost,
)


@pytest.fixture(autouse=True)
def no_pause_between_trims(monkeypatch):
    monkeypatch.setattr(_relief, "TRIM_PAUSE", 0.0)


def test_a_limit_that_is_too_low_is_noticed_with_the_shortest_of_tasks(new_pool):
    """They are over before the cheap signs are looked at again."""
    pool = new_pool(1, limits=Limits(memory="1KiB", sample_every=0.01, memory_samples=1))
    events = Events(pool)

    def task(_):
        if not kept():
            kept().append(bytes(10_000))

    for _ in pool.map(task, range(5_000)):
        pass
    events.wait_for(MemoryLimitTooLow)
    assert recycles(pool) <= 1
    assert len(events.of(MemoryLimitTooLow)) == 1


def test_no_number_of_limits_too_low_costs_a_worker(new_pool):
    pool = new_pool(1, limits=soon())
    pool._engine.too_low = 5_000
    events = Events(pool)
    do(pool, keep, 12)
    do(pool, keep, 1)
    until(lambda: pool.stats().workers[0].memory, "a look")
    assert not events.of(WorkerLost)


def test_an_interval_of_ages(new_pool):
    pool = new_pool(1, limits=Limits(memory="1MiB", sample_every=1e11))
    do(pool, int)
    until(lambda: pool.stats().workers[0].memory, "a look")
    assert [do(pool, int, n) for n in range(10)] == [*range(10)]
    assert not pool.stats().lost


def test_a_teardown_that_hangs_is_given_up_though_its_worker_left_in_haste(new_pool):
    hold, torn_down = threading.Event(), []

    def finalizer():
        torn_down.append(1)
        if len(torn_down) == 1:
            hold.wait(WAIT)

    pool = new_pool(1, limits=soon(grace=0.05), finalizer=finalizer)
    events = Events(pool)
    do(pool, keep, 5)
    do(pool, keep, 40)  # far over the limit
    assert do(pool, int, 7) == 7
    events.wait_for(WorkerAbandoned)
    hold.set()


def test_report_only_gives_nothing_back_at_its_end(new_pool, monkeypatch):
    trims = []
    monkeypatch.setattr(_relief, "release_free_memory", lambda: trims.append(1))
    pool = new_pool(1, limits=soon(report_only=True))
    do(pool, keep, 5)
    do(pool, keep, 40)
    until(lambda: pool.stats().workers[0].memory.bytes > 40 * MIB, "a look")
    pool.close()
    assert not trims


class Key:
    """Its hash raises, later."""

    broken = False

    def __hash__(self):
        if self.broken:
            raise RuntimeError("no hash")
        return id(self) >> 4


def test_a_cache_that_cannot_be_trimmed_is_recycled(new_pool):
    pool = new_pool(1, limits=soon())
    events = Events(pool)

    def task():
        for _ in range(12):
            current_worker().cache.put(Key(), bytearray(MIB), size=MIB)
        Key.broken = True

    do(pool, int)
    do(pool, task)
    try:
        events.wait_for(MemoryReturned)
    finally:
        Key.broken = False
    assert not events.of(WorkerLost)


def test_a_reader_that_raises_anything_costs_no_worker(new_pool):
    class Kind(list):
        pass

    def read(_):
        raise KeyboardInterrupt

    memory.register(Kind, read)
    pool = new_pool(1, limits=soon())
    events = Events(pool)
    do(pool, int)
    do(pool, lambda: kept().append(Kind()))
    do(pool, int)
    until(lambda: events.of(WatchdogFailed) or pool.stats().workers[0].memory, "a look")
    assert [do(pool, int, n) for n in range(100)] == [*range(100)]
    assert not pool.stats().lost


class Node:
    """A cycle."""

    def __init__(self):
        self.own = self
        self.data = b"x" * 200_000


def test_a_leak_in_cycles_is_found_again_and_again(new_pool):
    """Only the second phase sees it, which is not run at each look."""
    pool = new_pool(1, limits=Limits(memory="20MiB", **{**SOON, "sample_every": 0.02}))
    base = process_rss()
    events = Events(pool)
    for _ in pool.map(lambda _: kept().append(Node()), range(2_000)):  # 400 MB in all
        pass
    events.wait_for(MemoryReturned)
    assert recycles(pool) >= 2
    assert process_rss() - base < 300 * MIB


class Element:
    """Of a tree: each knows its parent."""

    def __init__(self, parent, text):
        self.parent = parent
        self.text = text
        self.children = []


def tree(number):
    """Some 3 000 small objects."""
    root = Element(None, "")
    for n in range(30):
        child = Element(root, f"{number}.{n}")
        root.children.append(child)
        child.children += [Element(child, f"{number}.{n}.{m}" * 10) for m in range(30)]
    return root


def test_so_is_one_of_many_small_objects(new_pool):
    """To decide takes more objects than a look between two tasks may look at."""
    pool = new_pool(1, limits=Limits(memory="16MiB", **{**SOON, "sample_every": 0.02}))
    events = Events(pool)
    for _ in pool.map(lambda n: kept().append(tree(n)), range(600)):  # 150 MB in all
        pass
    assert recycles(pool) >= 3
    assert not events.of(MemoryNotOwned)
