"""A task's deadline comes as its result does.

1. A task runs. The watchdog finds that its deadline has come, and that it runs: it is about to
   settle the future (about to take its lock / it holds it / it has let it go).
2. There the task returns, or raises, and its worker settles the future too.
3. Exactly one of them does: the figures agree with it, and the callbacks run once. The worker goes.
"""

import threading
import time
from collections import Counter

import pytest
from forcing import (
    PATIENCE,
    Spied,
    elsewhere,
    noop,
    once,
    serves_on,
    until,
    wait,
    with_idle,
    workers,
)
from watching import Task, balanced, install, let_go, overdue, told

from recyclepool import TaskTimeoutError


@pytest.mark.parametrize("ends", ["well", "with an error"])
@pytest.mark.parametrize("place", ["before_acquire", "after_acquire", "after_release"])
def test_one_of_them_settles_it(place, ends, new_pool, monkeypatch):
    class Failing(Task):
        def __call__(self):
            super().__call__()
            raise ValueError

    install(monkeypatch)
    task = Task() if ends == "well" else Failing()
    pool, calls, arrived = with_idle(new_pool(1), 1), [], threading.Event()
    (worker,) = workers(pool)
    with let_go(task):
        future = pool.options(timeout=100 * PATIENCE).submit(task)
        future.add_done_callback(calls.append)
        wait(task.started)
        future._lock = lock = Spied(future._lock)

        def the_worker_comes():
            arrived.set()
            if place == "before_acquire":
                setattr(lock, place, noop)

        def come():
            lock.before_acquire = the_worker_comes
            task.go.set()
            wait(task.ended if place == "after_release" else arrived)
            if place == "before_acquire":
                until(future.done)

        setattr(lock, place, once(come))
        overdue(future)
        pool._engine.look()
        lock.before_acquire = noop
        error = future.exception(PATIENCE)
        told(pool, 1, calls)
        worker.thread.join(PATIENCE)
        assert not worker.thread.is_alive()
        stats = balanced(pool)
        if place == "before_acquire":
            assert not isinstance(error, TaskTimeoutError)
            assert (stats.timed_out, stats.completed + stats.failed) == (0, 2)
        else:
            assert isinstance(error, TaskTimeoutError)
            assert (stats.timed_out, stats.completed, stats.failed) == (1, 1, 0)
        assert stats.run.count == stats.wait.count == 2
    serves_on(pool, 1)


def test_the_task_is_told_and_ends_of_it(new_pool, monkeypatch):
    """The abort that surfaces in it is nobody's error any more: it was counted as timed out."""
    install(monkeypatch)
    pool, calls, task = with_idle(new_pool(1), 1), [], Task()
    with let_go(task):
        future = pool.options(timeout=100 * PATIENCE).submit(task)
        future.add_done_callback(calls.append)
        wait(task.started)
        overdue(future)
        pool._engine.look()
        assert isinstance(future.exception(0), TaskTimeoutError)  # at once
        told(pool, 1, calls)
        wait(task.ended)
        until(lambda: pool.stats().run.count == 2, "its end")
        stats = balanced(pool)
        assert (stats.timed_out, stats.completed, stats.aborted) == (1, 1, 0)
        assert not task.go.is_set()
    serves_on(pool, 1)


def test_five_hundred_times_by_chance(new_pool):
    """Each task works for just as long as it may."""
    pool, calls = with_idle(new_pool(2), 2), Counter()

    def work(until):
        while time.monotonic() < until:
            pass
        return until

    futures = []
    for n in range(500):
        seconds = 0.0003 + n % 7 * 0.0001
        future = pool.options(timeout=seconds).submit(lambda s=seconds: work(time.monotonic() + s))
        future.add_done_callback(lambda each: calls.update([id(each)]))
        futures.append(future)
    ends = Counter(type(each.exception(PATIENCE)) for each in futures)
    assert set(ends) <= {type(None), TaskTimeoutError}
    until(lambda: len(calls) == 500 and not pool._engine.teller._telling, "callbacks")
    assert set(calls.values()) == {1}
    until(lambda: not pool._engine.roster.abandoned, "the end of all")
    assert elsewhere(pool.wait_idle, PATIENCE)
    stats = balanced(pool)
    assert (stats.timed_out, stats.completed) == (ends[TaskTimeoutError], ends[type(None)] + 2)
    serves_on(pool)
