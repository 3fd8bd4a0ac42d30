"""A deadline is found to have come for a task, but the worker has gone on to the next.

1. The watchdog finds that the deadline of task T1 has come.
2. Before it acts (before it looks whether T1 still runs / after that, before it marks the worker),
   T1 ends, and the worker takes T2, and begins it.
3. T2 is not touched: it is neither settled nor told to end. (Where the worker was marked already it
   goes after T2.)
4. T2's own deadline, the end of the pool and cancel() still find T2, which is the one that runs.
"""

import threading

import pytest
from forcing import (
    PATIENCE,
    Elsewhere,
    Rigged,
    elsewhere,
    serves_on,
    until,
    wait,
    with_idle,
    workers,
)
from watching import Task, balanced, install, let_go, overdue, watchdog_of

from recyclepool import Limits, TaskAbortedError, TaskTimeoutError
from recyclepool._gate import Gate

PLACES = ["before it looks", "before it marks"]


def gone_on(place, pool, first, second):
    """Both are submitted; the worker goes from the first to the second at that place."""
    engine, submit = pool._engine, pool.options(timeout=100 * PATIENCE).submit
    one = submit(first)
    wait(first.started)
    two = submit(second)

    def go_on():
        first.go.set()
        wait(second.started)

    if place == "before it looks":
        watchdog_of(pool).once("before acting", go_on)
    else:
        retire_now = engine.retire_now

        def late(*args):
            engine.retire_now = retire_now
            go_on()
            retire_now(*args)

        engine.retire_now = late
    overdue(one)
    engine.look()
    assert second.started.is_set()
    assert one.result(PATIENCE) == "done"
    return two


@pytest.fixture
def pool(new_pool, monkeypatch):
    install(monkeypatch)
    return with_idle(new_pool(1, limits=Limits(grace=100 * PATIENCE, start_timeout=None)), 1)


@pytest.mark.parametrize("place", PLACES)
def test_the_next_task_is_not_touched(place, pool):
    first, second = Task(), Task()
    (worker,) = workers(pool)
    with let_go(first, second):
        two = gone_on(place, pool, first, second)
        assert two.running()
        assert not worker.gate.wishes
        assert not worker.gate.aborted
        assert worker.leaving is None or place == "before it marks"
        second.go.set()
        assert two.result(PATIENCE) == "done"
    stats = balanced(pool)
    assert (stats.timed_out, stats.aborted, stats.completed) == (0, 0, 3)
    serves_on(pool, 1)


@pytest.mark.parametrize("place", PLACES)
def test_the_next_task_has_a_deadline_too(place, pool):
    first, second = Task(), Task()
    with let_go(first, second):
        two = gone_on(place, pool, first, second)
        overdue(two)
        Elsewhere(pool._engine.look)  # it may never return
        assert isinstance(two.exception(PATIENCE / 4), TaskTimeoutError)
        wait(second.ended)
        assert not second.go.is_set(), "nobody told it"
    serves_on(pool, 1)


@pytest.mark.parametrize("place", PLACES)
def test_the_pool_is_destroyed_then(place, pool):
    first, second = Task(), Task()
    with let_go(first, second):
        two = gone_on(place, pool, first, second)
        report = elsewhere(pool.destroy, PATIENCE / 4)
        assert isinstance(two.exception(0), TaskAbortedError)
        assert not report.abandoned
        assert not second.go.is_set(), "nobody told it"
    serves_on(pool, 1)


@pytest.mark.parametrize("place", PLACES)
def test_the_next_task_is_cancelled_then(place, pool):
    first, second = Task(), Task()
    with let_go(first, second):
        two = gone_on(place, pool, first, second)
        assert pool.cancel(two)
        assert isinstance(two.exception(PATIENCE), TaskAbortedError)
        until(second.ended.is_set, "its end: nobody told it")
        assert not second.go.is_set()
    balanced(pool)
    serves_on(pool, 1)


def test_a_start_that_is_read_is_never_that_of_the_task_before(new_pool, monkeypatch):
    """T1 began long ago. When T2 is shown to run, it is shown already when it started.

    So whoever reads the task first, and the start after it, does not judge T2 by T1's start.
    """
    install(monkeypatch)
    seen = []

    class Shown(Gate):
        __slots__ = ("worker",)

        @property
        def task(self):
            return Gate.task.__get__(self)

        @task.setter
        def task(self, task):
            Gate.task.__set__(self, task)
            if task is not None and task.fn is second:
                seen.append(self.worker.task_started)
                elsewhere(engine.look)

    def rig(worker):
        worker.gate = Shown()
        worker.gate.worker = worker

    limits = Limits(task_timeout=100 * PATIENCE, start_timeout=None)
    first, second = Task(), Task()
    pool = with_idle(new_pool(1, limits=limits, backend=Rigged(rig)), 1)
    engine, (worker,) = pool._engine, workers(pool)
    with let_go(first, second):
        one = pool.submit(first)
        wait(first.started)
        worker.task_started = before = -1000.0 * PATIENCE  # its limit came; and it ends just now
        two = pool.submit(second)
        first.go.set()
        assert one.result(PATIENCE) == "done"
        wait(second.started)
        assert seen[0] > before
        assert worker.leaving is None
    assert two.result(PATIENCE) == "done"
    serves_on(pool, 1)


def test_report_only_tells_of_both(new_pool, monkeypatch):
    """What is told of T1, as the worker goes on to T2, is no reason not to tell of T2."""
    install(monkeypatch)
    limits = Limits(task_timeout=10 * PATIENCE, start_timeout=None, report_only=True)
    pool = with_idle(new_pool(1, limits=limits), 1)
    (worker,), first, second, events = workers(pool), Task(), Task(), []
    told = threading.Semaphore(0)

    def tell(event):
        if type(event).__name__ == "TaskTimedOut":
            events.append(event)
            told.release()

    pool.subscribe(tell)
    with let_go(first, second):
        one = pool.submit(first)
        wait(first.started)
        two = pool.submit(second)

        def go_on():
            first.go.set()
            wait(second.started)

        worker.task_started -= 20 * PATIENCE
        watchdog_of(pool).once("before acting", go_on)
        pool._engine.look()
        assert told.acquire(timeout=PATIENCE)
        assert events[0].seconds > 19 * PATIENCE, "that is how long T2 runs"
        worker.task_started -= 20 * PATIENCE
        pool._engine.look()
        assert told.acquire(timeout=PATIENCE / 4), "nobody tells of T2"
        second.go.set()
    assert one.result(PATIENCE) == two.result(PATIENCE) == "done"
    serves_on(pool, 1)
