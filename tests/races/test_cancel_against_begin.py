"""pool.cancel() comes as a worker begins a task, or ends it.

1. A worker has taken a task out of the queue (it is about to show it / to begin it), has just begun
   it, or has just ended it.
2. Another thread cancels it.
3. Not yet begun: it is cancelled, and never runs. Begun: its future has TaskAbortedError at once,
   and its worker, which runs nothing of it or stops it, goes. Ended: cancel() says no, and the
   result stays. The callbacks run once, and the figures agree.
"""

import pytest
from forcing import (
    PATIENCE,
    Spied,
    Steps,
    elsewhere,
    once,
    serves_on,
    until,
    wait,
    with_idle,
    workers,
)
from watching import Task, balanced, let_go, told

from recyclepool import TaskAbortedError
from recyclepool._future import Future
from recyclepool._intake import accept


def submitted_with(pool, task, rig):
    """Submitted; `rig` is called with the future before it is in the queue."""
    future = Future(task, (), None, None)
    rig(future)
    accept(pool._engine, future)
    return future


def cancelled(pool, future, answers):
    def cancel():
        answers.append(elsewhere(pool.cancel, future))

    return once(cancel)


@pytest.mark.parametrize("place", ["taken", "about to begin"])
def test_it_has_not_begun(place, new_pool):
    pool, task, answers, calls = new_pool(1), Task(), [], []
    steps = Steps(pool._engine.dispatch)
    with_idle(pool, 1)
    (worker,) = workers(pool)

    def rig(future):
        cancel = cancelled(pool, future, answers)
        future.add_done_callback(calls.append)
        if place == "taken":
            steps.once("after taking a task", cancel)
        else:
            future._lock = lock = Spied(future._lock)

            def seen():
                if worker.gate.task is future:
                    cancel()

            lock.before_acquire = seen

    with let_go(task):
        future = submitted_with(pool, task, rig)
        until(lambda: answers, "the worker")
        assert answers == [True]
        assert future.cancelled()
        assert pool.submit(int).result(PATIENCE) == 0
        assert not task.started.is_set()
        assert workers(pool) == [worker]
        told(pool, 1, calls)
        assert balanced(pool).cancelled == 1
    serves_on(pool, 1)


def test_it_has_just_begun(new_pool):
    """It runs, and none of its code was called yet."""
    pool, task, answers, calls = with_idle(new_pool(1), 1), Task(), [], []
    (worker,) = workers(pool)

    def rig(future):
        future.add_done_callback(calls.append)
        future._lock = lock = Spied(future._lock)
        cancel = cancelled(pool, future, answers)

        def seen():
            if future.running():
                cancel()

        lock.after_release = seen

    with let_go(task):
        future = submitted_with(pool, task, rig)
        assert isinstance(future.exception(PATIENCE), TaskAbortedError)
        until(lambda: answers, "the answer")
        assert answers == [True]
        worker.thread.join(PATIENCE)
        assert not worker.thread.is_alive()
        assert not task.go.is_set()
        told(pool, 1, calls)
        stats = balanced(pool)
        assert (stats.aborted, stats.completed) == (1, 1)
        assert stats.recycles == {"manual": 1}
    serves_on(pool, 1)


@pytest.mark.parametrize("place", ["before_acquire", "after_release"])
def test_it_has_just_ended(place, new_pool):
    """The worker is about to settle it: too late, as it shows no task any more. Or it has."""
    pool, task, answers, calls = with_idle(new_pool(1), 1), Task(), [], []
    (worker,) = workers(pool)
    with let_go(task):
        future = pool.submit(task)
        future.add_done_callback(calls.append)
        wait(task.started)
        future._lock = lock = Spied(future._lock)
        cancel = cancelled(pool, future, answers)
        setattr(lock, place, lambda: worker.gate.task is None and cancel())
        task.go.set()
        assert future.result(PATIENCE) == "done"
        until(lambda: answers, "the answer")
        assert answers == [False]
        told(pool, 1, calls)
        assert pool.submit(int).result(PATIENCE) == 0
        assert workers(pool) == [worker]
        assert balanced(pool).completed == 3
    serves_on(pool, 1)


def test_it_ends_as_it_is_settled(new_pool):
    """cancel() has found who runs it; before it settles, the task ends, and the next begins."""
    pool, task, other, calls = with_idle(new_pool(1), 1), Task(), Task(), []
    (worker,) = workers(pool)
    with let_go(task, other):
        future = pool.submit(task)
        future.add_done_callback(calls.append)
        wait(task.started)
        following = pool.submit(other)
        settle = future.settle

        class Late(Future):
            __slots__ = ()

            def settle(self, result, exception):
                if isinstance(exception, TaskAbortedError):
                    task.go.set()
                    wait(other.started)
                return super().settle(result, exception)

        assert settle
        future.__class__ = Late
        assert not elsewhere(pool.cancel, future)
        assert future.result(PATIENCE) == "done"
        assert following.running()
        assert worker.leaving is None
        other.go.set()
        assert following.result(PATIENCE) == "done"
        told(pool, 1, calls)
        assert balanced(pool).completed == 3
    serves_on(pool, 1)


def test_it_ends_as_it_is_cut_off(new_pool):
    """cancel() has settled it; before its worker is told to stop it, that has gone on."""
    pool, task, other, calls = with_idle(new_pool(1), 1), Task(), Task(), []
    engine, (worker,) = pool._engine, workers(pool)
    with let_go(task, other):
        future = pool.submit(task)
        future.add_done_callback(calls.append)
        wait(task.started)
        following = pool.submit(other)
        with engine._orders._lock:  # its order waits
            assert elsewhere(pool.cancel, future)
            task.go.set()
            wait(other.started)
        engine.look()
        assert isinstance(future.exception(PATIENCE), TaskAbortedError)
        assert following.running()
        assert worker.leaving is None
        other.go.set()
        assert following.result(PATIENCE) == "done"
        told(pool, 1, calls)
        stats = balanced(pool)
        assert (stats.completed, stats.aborted) == (2, 1)
    serves_on(pool, 1)
