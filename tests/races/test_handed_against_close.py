"""A task is handed to a worker just as the pool closes (DISPATCH 5, 9).

1. A submitter with a key has read that the pool is open, and has chosen an idle worker.
2. Another thread begins to close the pool: all are woken, and taken out of the stack with that.
3. If that was first, the submitter finds nobody, tries the queue, and is refused, or a worker that
   looks for the last time takes it. If it was later, the worker runs what it was handed.
4. Never is a task accepted that nobody runs.
"""

import threading

import pytest
from forcing import (
    PATIENCE,
    Elsewhere,
    SpiedWakes,
    Steps,
    elsewhere,
    once,
    serves_on,
    wait,
    with_idle,
    workers,
)

from recyclepool import PoolClosedError


def begin_to_close(pool):
    """The engine's order, from its start to its end. Does not wait for the epoch's end."""
    engine = pool._engine
    elsewhere(engine.end, engine.dispatch)


def test_closed_before_the_worker_is_taken_out(new_pool):
    pool = new_pool(1)
    dispatch = pool._engine.dispatch
    steps = Steps(dispatch)
    with_idle(pool, 1)
    runs = []
    steps.once("before taking out", lambda: begin_to_close(pool))
    with pytest.raises(PoolClosedError):
        pool.options(key="key").submit(runs.append, 1)
    assert dispatch.ended.wait(PATIENCE)
    assert not runs
    assert pool.stats().rejected == 1
    serves_on(pool, 1)


def test_closed_when_the_worker_has_the_task(new_pool):
    """It is accepted, so the close waits for it."""
    locks = []

    pool = with_idle(new_pool(2, backend=SpiedWakes(locks)), 2)
    dispatch, runs = pool._engine.dispatch, []
    for lock in locks:
        lock.before_release = once(lambda: begin_to_close(pool))
    future = pool.options(key="key").submit(runs.append, 1)
    assert future.result(PATIENCE) is None
    assert dispatch.ended.wait(PATIENCE)
    assert runs == [1]
    serves_on(pool)


@pytest.mark.parametrize("verb", ["close", "shutdown"])
def test_closed_when_the_worker_has_woken_and_not_looked(verb, new_pool):
    locks, entered, go_on = [], threading.Event(), threading.Event()

    def stay():
        entered.set()
        wait(go_on)

    pool = with_idle(new_pool(1, backend=SpiedWakes(locks)), 1)
    dispatch, runs = pool._engine.dispatch, []
    locks[0].after_acquire = once(stay)
    future = pool.options(key="key").submit(runs.append, 1)
    wait(entered)
    closing = Elsewhere(
        *((pool.close,) if verb == "close" else (lambda: pool.shutdown(cancel_futures=True),))
    )
    try:
        assert not dispatch.ended.wait(0.02), "it did not wait for what a worker was handed"
    finally:
        go_on.set()
    assert future.result(PATIENCE) is None, "a handed task counts as held"
    closing.result()
    assert runs == [1]
    assert dispatch.ended.done()
    assert not workers(pool)


def test_handed_as_the_next_epoch_has_begun(new_pool):
    """A submitter that is late finds the old epoch, and nobody in it: it is refused."""
    pool = with_idle(new_pool(1), 1)
    old = pool._engine.dispatch
    elsewhere(pool.close)
    with_idle(pool, 1)
    (worker,) = workers(pool)
    assert pool._engine.dispatch is not old
    task = pool._new_task(int)
    assert not pool._engine.hand(old, task, 1)
    assert not old.put(task)
    assert not worker.handed
    serves_on(pool, 1)
