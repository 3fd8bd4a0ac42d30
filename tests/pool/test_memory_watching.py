"""What it costs to watch the memory of workers, and where they cannot be watched."""

import threading

import pytest
from staging import WAIT, until
from weighing import MIB, Watched, do, generation, keep, soon, used, worker_of

from recyclepool import Limits, _owned, _probe, current_worker

# ==== what it costs ==============================================================================


def has_memory_thread(pool):
    name = f"{pool._engine.settings.thread_names}_memory"
    return name in [thread.name for thread in threading.enumerate()]


class CountedLock:
    """A wake lock; the timeouts with which it was waited for."""

    def __init__(self, real):
        self.release = real.release
        self.waits = []
        self._acquire = real.acquire

    def acquire(self, blocking=True, timeout=-1):
        self.waits.append(timeout if blocking else None)
        return self._acquire(blocking, timeout) if blocking else self._acquire(False)


def test_an_idle_worker_that_was_looked_at_does_not_wake_again(new_pool):
    pool, _ = used(new_pool, soon())

    def count():
        worker = worker_of(pool)
        worker.wake = CountedLock(worker.wake)

    do(pool, count)
    lock = worker_of(pool).wake
    until(lambda: -1 in lock.waits, "it sleeps for good")
    assert len([wait for wait in lock.waits if wait is not None]) == 2  # one look
    assert lock.waits[-1] == -1


@pytest.mark.parametrize("limits", [None, Limits(), Limits(tasks=9, age=9, hang=9)])
def test_without_a_limit_nobody_looks(new_pool, monkeypatch, limits):
    def look(*args, **kwargs):
        raise AssertionError("somebody looked")

    monkeypatch.setattr(_probe, "Pass", look)
    monkeypatch.setattr(_probe, "process_rss", look)
    pool = new_pool(1, limits=limits)
    do(pool, keep, 1)
    assert worker_of(pool).probe is None
    assert pool._engine.relief is None
    stats = pool.stats()
    assert (stats.memory, stats.workers[0].memory, stats.paused) == (None, None, False)
    assert not has_memory_thread(pool)


def test_with_a_limit_of_workers_only_no_thread_waits_for_anything(new_pool):
    pool, _ = used(new_pool, soon())
    assert not has_memory_thread(pool)
    assert pool.stats().memory is None


def test_a_task_that_comes_while_an_idle_worker_looks_is_not_delayed(new_pool, monkeypatch):
    pool, _ = used(new_pool, soon("1GiB", sample_every=0.3))  # so it is asleep by then
    watched = Watched(monkeypatch)
    do(pool, lambda: current_worker().cache.update(numbers=[float(n) for n in range(300_000)]))
    assert watched.begun.wait(WAIT), "nobody looked"
    task = pool.submit(generation)
    watched.go_on.set()
    assert task.result(WAIT) == 1
    assert watched.dropped == 1


# ==== where nothing can be proven ================================================================


def test_a_free_threaded_build_is_refused(new_pool, monkeypatch):
    monkeypatch.setattr(_owned, "SUPPORTED", False)
    with pytest.raises(ValueError, match="free-threaded") as caught:
        new_pool(1, limits=Limits(memory="10%"))
    assert str(caught.value) == (
        "Limits(memory='10%'): what a thread owns is proven by reference counts, and a "
        "free-threaded build does not keep them in one place. Write pool_memory= for the whole "
        "process, or run on a build with a GIL"
    )


def test_a_free_threaded_build_may_limit_the_process(new_pool, monkeypatch):
    monkeypatch.setattr(_owned, "SUPPORTED", False)
    monkeypatch.setattr(_probe, "SUPPORTED", False)
    pool = new_pool(1, limits=Limits(pool_memory="1TiB", sample_every=0.01))
    do(pool, keep, 1)
    assert worker_of(pool).probe is None
    assert has_memory_thread(pool)
    until(lambda: pool.stats().memory is not None)
    reading = pool.stats().memory
    assert (reading.kind, reading.is_bound) == ("rss", False)
    assert reading.bytes > MIB
    assert pool.stats().workers[0].memory is None
