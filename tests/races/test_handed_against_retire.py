"""A task is handed to a worker just as that is retired (DISPATCH 9).

1. A submitter with a key has chosen the worker. It is about to take it out of the stack, give it
   the task and wake it, in one C call.
2. Another thread retires the worker: before that call, or after it, when the worker has not gone on
   yet.
3. Before: the worker is not in the stack any more, and the task goes another way. After: the worker
   has it, and runs it before it leaves, as if it had been faster.
4. The task runs once, in each case.
"""

import threading
from concurrent.futures import CancelledError

import pytest
from forcing import (
    PATIENCE,
    Elsewhere,
    SpiedWakes,
    Steps,
    asleep,
    elsewhere,
    once,
    serves_on,
    until,
    wait,
    with_idle,
    workers,
)

from recyclepool import Limits, Reason, TaskAbortedError


def retire(pool, worker):
    """The engine's order, from its start to its end."""
    elsewhere(pool._engine.retire, worker, Reason.TASKS)


class Counted:
    """A task that counts its runs, and tells who ran it."""

    def __init__(self):
        self.runs = []

    def __call__(self):
        self.runs.append(threading.current_thread())
        return self.runs[-1]


def test_retired_before_it_is_taken_out(new_pool):
    """The submitter does not find it, and queues the task: its successor runs it."""
    pool = new_pool(1)
    steps = Steps(pool._engine.dispatch)
    with_idle(pool, 1)
    (worker,), task = workers(pool), Counted()
    steps.once("before taking out", lambda: retire(pool, worker))
    ran_in = pool.options(key="key").submit(task).result(PATIENCE)
    assert ran_in is not worker.thread
    assert len(task.runs) == 1
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive(), "it sleeps, marked"
    serves_on(pool, 1)


def test_retired_before_it_is_taken_out_beside_an_idle_one(new_pool):
    """The next best is asked then: none waits for a successor beside an idle worker."""
    pool = new_pool(2)
    steps = Steps(pool._engine.dispatch)
    with_idle(pool, 2)
    view, chosen = pool.options(key="key"), []
    who = view.submit(Counted()).result(PATIENCE)
    asleep(pool, 2)
    chosen += [worker for worker in workers(pool) if worker.thread is who]
    (other,) = (worker for worker in workers(pool) if worker.thread is not who)
    steps.once("before taking out", lambda: retire(pool, chosen[0]))
    task = Counted()
    assert view.submit(task).result(PATIENCE) is other.thread
    assert len(task.runs) == 1
    serves_on(pool)


def test_retired_when_it_has_the_task_and_has_not_gone_on(new_pool):
    """It runs the task, and leaves then."""
    locks = []

    pool = with_idle(new_pool(1, backend=SpiedWakes(locks)), 1)
    (worker,), task = workers(pool), Counted()
    locks[0].before_release = once(lambda: retire(pool, worker))
    future = pool.options(key="key").submit(task)
    assert future.result(PATIENCE) is worker.thread, "it was accepted: it had a worker"
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive(), "it forgot that it is to leave"
    assert len(task.runs) == 1
    serves_on(pool, 1)


def test_retired_when_it_has_woken_and_not_looked(new_pool):
    """The mark is there before the worker looks at what it was handed: that comes first."""
    locks = []

    pool, awake = with_idle(new_pool(1, backend=SpiedWakes(locks)), 1), threading.Event()
    (worker,), task = workers(pool), Counted()

    def retire_it():
        retire(pool, worker)
        awake.set()

    locks[0].after_acquire = once(retire_it)
    future = pool.options(key="key").submit(task)
    wait(awake)
    assert future.result(PATIENCE) is worker.thread
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive()
    assert len(task.runs) == 1
    serves_on(pool, 1)


def test_its_limit_of_tasks_is_reached_by_the_handed_one(new_pool):
    """It runs that as its last, and what was queued behind it goes to the successor."""
    pool = with_idle(new_pool(1, limits=Limits(tasks=2)), 1)
    (worker,), go = workers(pool), threading.Event()
    first = pool.options(key="key").submit(lambda: (wait(go), threading.current_thread())[1])
    second = pool.options(key="key").submit(threading.current_thread)
    go.set()
    assert first.result(PATIENCE) is worker.thread
    assert second.result(PATIENCE) is not worker.thread
    serves_on(pool, 1)


def test_handed_just_as_the_pool_is_destroyed(new_pool):
    """The worker has the task and has not begun it: that is cancelled, and nobody runs it."""
    locks, entered, go_on = [], threading.Event(), threading.Event()

    pool, task = with_idle(new_pool(1, backend=SpiedWakes(locks)), 1), Counted()
    dispatch, told = pool._engine.dispatch, []

    def stay():
        entered.set()
        wait(go_on)

    locks[0].after_acquire = once(stay)
    future = pool.options(key="key").submit(task)
    future.add_done_callback(lambda f: told.append(f.cancelled()))
    wait(entered)
    destroying = Elsewhere(pool.destroy, PATIENCE)
    try:
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
    finally:
        go_on.set()
    report = destroying.result()
    assert (report.completed, report.cancelled, report.aborted) == (0, 1, 0)
    assert dispatch.ended.done()
    assert told == [True]
    assert not task.runs
    serves_on(pool, 1)


def test_taken_up_just_as_the_pool_is_destroyed(new_pool):
    """It is neither in what the worker was handed nor in its hands: the destroy looks again."""
    between, go_on = threading.Event(), threading.Event()

    class Handed(list):
        def pop(self):
            task = super().pop()
            between.set()
            wait(go_on)
            return task

    pool = with_idle(new_pool(1), 1)
    (worker,), dispatch = workers(pool), pool._engine.dispatch
    worker.handed = Handed()

    def endless():
        while True:
            for _ in range(50):
                pass

    future = pool.options(key="key").submit(endless)
    wait(between)
    destroying = Elsewhere(pool.destroy, PATIENCE)
    until(lambda: dispatch.closing, "destroy to begin")
    go_on.set()
    report = destroying.result()
    assert isinstance(future.exception(0), TaskAbortedError)
    assert (report.cancelled, report.aborted, report.abandoned) == (0, 1, ())
    serves_on(pool, 1)
