"""A worker leaves with a task queued and nobody awake.

1. Two workers sleep. A submit takes the first out of the stack, for its task, and wakes it.
2. Before that one looks for the task, it is marked to leave. It leaves without taking it.
3. Nobody is awake now who would take the task, and no successor is ready. Whoever retires a worker
   looks afterwards: the second is woken, and runs it.
"""

import threading

import pytest
from forcing import PATIENCE, elsewhere, noop, serves_on, wait, with_idle, workers

from recyclepool import Limits, Reason


def test_a_sleeper_takes_what_the_leaver_left(new_pool):
    may_open = threading.Event()
    may_open.set()
    pool = with_idle(new_pool(2, initializer=may_open.wait, initargs=(10 * PATIENCE,)), 2)
    engine = pool._engine
    dispatch = engine.dispatch
    first = next(w for w in workers(pool) if w.wake is dispatch.idle[-1])
    may_open.clear()  # its successor will not be ready
    wake_one = dispatch.wake_one

    def mark_first():
        dispatch.wake_one = wake_one
        first.leaving = Reason.TASKS
        wake_one()

    dispatch.wake_one = mark_first
    try:
        assert pool.submit(int).result(PATIENCE) == 0
    finally:
        may_open.set()
    serves_on(pool)


@pytest.mark.parametrize("size", [1, 2])
def test_a_closing_pool_is_drained_by_successors(size, new_pool):
    """Each worker leaves after one task, and has a successor started for the rest."""
    pool = new_pool(size, limits=Limits(tasks=1))
    go, started, ran = threading.Event(), threading.Event(), []

    def hold():
        started.set()
        assert go.wait(PATIENCE)

    pool.submit(hold)
    wait(started)
    tasks = [pool.submit(ran.append, n) for n in range(3)]
    dispatch = pool._engine.dispatch
    pool._engine.end(dispatch)
    go.set()
    assert dispatch.ended.wait(PATIENCE), "nobody takes them"
    assert sorted(ran) == [0, 1, 2]
    assert all(task.done() for task in tasks)
    elsewhere(pool.close)


def test_a_task_that_came_while_there_was_no_vacancy(new_pool):
    """The only worker runs, and its successor waits for the slot: nobody can be started.

    It runs when the first has left.
    """
    pool = new_pool(1, limits=Limits(tasks=1))
    go, started = threading.Event(), threading.Event()
    pool.submit(lambda: (started.set(), go.wait(PATIENCE)))
    wait(started)
    late = [elsewhere(pool.submit, noop) for _ in range(3)]
    go.set()
    for task in late:
        assert task.exception(PATIENCE) is None
    serves_on(pool, 1)
