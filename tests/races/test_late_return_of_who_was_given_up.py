"""The code of a worker that was given up returns, long after.

1. A worker is given up: its task did not end within its grace, or at the end of an epoch; or its
   initializer did not return in time.
2. The pool goes on without it, in the same epoch or in the next.
3. Its code returns. It takes no task of anybody's, settles nothing, and changes nobody's slot; it
   leaves, and is no longer counted as abandoned.
"""

import threading

import pytest
from forcing import PATIENCE, elsewhere, serves_on, until, wait, with_idle, workers
from watching import balanced, install, overdue

from recyclepool import Limits, State, TaskAbortedError, TaskTimeoutError, WorkerStartError


class Deaf:
    """A task that no abort gets through to, until it is let go."""

    def __init__(self, ends="well"):
        self.started, self.go = threading.Event(), threading.Event()
        self.ends = ends

    def __call__(self):
        self.started.set()
        self.go.wait(10 * PATIENCE)  # one C call after the other: the abort waits
        if self.ends == "badly":
            raise ValueError
        return "late"


@pytest.fixture
def deaf_limits():
    return Limits(grace=0, start_timeout=None)


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_a_task_in_the_same_epoch(ends, new_pool, monkeypatch, deaf_limits):
    install(monkeypatch)
    pool = with_idle(new_pool(1, limits=deaf_limits), 1)
    (old,), task, calls = workers(pool), Deaf(ends), []
    lock = threading.Lock()
    lock.acquire()

    def deaf():
        task.started.set()
        lock.acquire()  # one C call
        return task()

    task.go.set()
    future = pool.options(timeout=100 * PATIENCE).submit(deaf)
    future.add_done_callback(calls.append)
    wait(task.started)
    overdue(future)
    try:
        pool._engine.look()
        assert isinstance(future.exception(PATIENCE), TaskTimeoutError)
        until(lambda: old.state is State.ABANDONED, "its end")
        assert pool.stats().abandoned == 1
        assert pool.submit(int).result(PATIENCE) == 0
        before = pool.stats()
    finally:
        lock.release()
    old.thread.join(PATIENCE)
    assert not old.thread.is_alive()
    until(lambda: pool.stats().abandoned == 0, "it to be seen")
    after = pool.stats()
    assert isinstance(future.exception(0), TaskTimeoutError)
    assert calls == [future]
    assert (after.completed, after.failed, after.timed_out) == (before.completed, 0, 1)
    assert [(w.slot, w.generation, w.state) for w in after.workers] == [(0, 2, "serving")]
    assert old.state is State.ABANDONED
    assert old.wake not in pool._engine.dispatch.idle
    balanced(pool)
    serves_on(pool, 1)


def test_a_task_in_the_next_epoch(new_pool):
    """Its pool was destroyed, and is in use again, with tasks that wait, and a waiter for rest."""
    pool, lock, started = with_idle(new_pool(2), 2), threading.Lock(), threading.Event()
    lock.acquire()
    go, running = threading.Event(), threading.Semaphore(0)

    def deaf():
        started.set()
        lock.acquire()
        return "late"

    def busy():
        running.release()
        assert go.wait(PATIENCE)

    future = pool.submit(deaf)
    wait(started)
    old = next(w for w in workers(pool) if w.gate.task is future)
    try:
        report = elsewhere(pool.destroy, 0.0)
        assert [w.slot for w in report.abandoned] == [old.slot]
        assert isinstance(future.exception(0), TaskAbortedError)
        holding = [pool.submit(busy) for _ in range(2)]
        for _ in holding:
            assert running.acquire(timeout=PATIENCE)
        queued = [pool.submit(threading.get_ident) for _ in range(20)]
        dispatch, before = pool._engine.dispatch, workers(pool)
        assert dispatch is not old.dispatch
    finally:
        lock.release()
    old.thread.join(PATIENCE)
    assert not old.thread.is_alive()
    assert len(dispatch.queue) == 20, "it took one"
    assert workers(pool) == before
    until(lambda: not pool._engine.roster.abandoned, "it to be seen")
    go.set()
    idents = {each.result(PATIENCE) for each in queued}
    assert old.thread.ident not in idents or old.thread.ident in {w.thread.ident for w in before}
    assert isinstance(future.exception(0), TaskAbortedError)
    assert elsewhere(pool.wait_idle, PATIENCE)
    balanced(pool)
    serves_on(pool)


@pytest.mark.parametrize("scene", ["recycled", "retired as it starts"])
@pytest.mark.parametrize("returns", ["well", "with an error"])
def test_an_initializer(returns, scene, new_pool, monkeypatch):
    """The worker before it serves on all the time."""
    install(monkeypatch)
    go, inside, calls, undone = threading.Event(), threading.Event(), [], []

    def initializer():
        calls.append(threading.current_thread())
        if len(calls) == 2:
            inside.set()
            assert go.wait(PATIENCE)
            if returns == "with an error":
                raise ValueError("late")

    limits = Limits(start_timeout=1000 * PATIENCE, jitter=0.0)
    finalizer = lambda: undone.append(threading.current_thread())  # noqa: E731
    pool = with_idle(new_pool(1, limits=limits, initializer=initializer, finalizer=finalizer), 1)
    engine, (holder,) = pool._engine, workers(pool)
    replaced = pool.recycle(0)
    wait(inside)
    hung = workers(pool)[-1]
    try:
        if scene == "retired as it starts":
            engine.end(engine.dispatch)  # nobody is replaced any more
            until(lambda: hung.state is State.RETIRING and not holder.thread.is_alive(), "both")
        hung.born = -10_000.0 * PATIENCE
        engine.look()
        assert hung.state is State.ABANDONED
        expected = WorkerStartError if scene == "recycled" else RuntimeError
        assert isinstance(replaced.exception(PATIENCE), expected)
        if scene == "recycled":
            assert pool.submit(int).result(PATIENCE) == 0
            assert holder.state is State.SERVING
        else:
            elsewhere(pool.close)  # it does not wait for that
            with_idle(pool, 1)
        assert pool.stats().abandoned == 1
        before = workers(pool)
    finally:
        go.set()
    calls[1].join(PATIENCE)
    assert not calls[1].is_alive()
    until(lambda: pool.stats().abandoned == 0, "it to be seen")
    assert hung.state is State.ABANDONED
    assert hung not in workers(pool)
    assert before[0] in workers(pool) or before[0].due
    assert (calls[1] in undone) is (returns == "well")  # a finalizer answers to an initializer
    assert pool.submit(int).result(PATIENCE) == 0
    serves_on(pool, 1)


def test_one_that_no_watchdog_gave_up_in_time_is_not_waited_for(new_pool):
    """destroy() gives it up in its start; the epoch that follows has a worker in its slot."""
    go, inside, calls = threading.Event(), threading.Event(), []

    def initializer():
        calls.append(threading.current_thread())
        if len(calls) == 1:
            inside.set()
            assert go.wait(PATIENCE)

    pool = new_pool(1, initializer=initializer)
    early = pool.submit(int)
    wait(inside)
    try:
        report = elsewhere(pool.destroy, 0.0)
        assert len(report.abandoned) == 1
        assert early.cancelled()
        assert pool.submit(int).result(PATIENCE) == 0
        (worker,) = workers(pool)
    finally:
        go.set()
    calls[0].join(PATIENCE)
    assert not calls[0].is_alive()
    until(lambda: pool.stats().abandoned == 0, "it to be seen")
    assert workers(pool) == [worker]
    serves_on(pool, 1)
