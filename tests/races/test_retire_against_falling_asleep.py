"""A worker is retired just as it falls asleep.

1. The worker found no task. It is about to put itself into the idle stack / has done so / sleeps.
2. Another thread retires it: it sets the mark, then tries to take the worker out of the stack.
3. Either that finds it there and wakes it; or the worker, which reads its mark after it has
   published itself, finds the mark. It leaves, in each case.
4. A successor serves, and the retired one's turn to be woken was not used up.
"""

import threading

import pytest
from forcing import (
    PATIENCE,
    SpiedWakes,
    Steps,
    elsewhere,
    run_one,
    serves_on,
    wait,
    with_idle,
    workers,
)

from recyclepool import Reason


def retired(pool, worker):
    """The engine's order, from its start to its end."""
    elsewhere(pool._engine.retire, worker, Reason.TASKS)


@pytest.mark.parametrize(
    "place", ["after finding none", "before publishing", "after publishing", "asleep"]
)
def test_it_leaves(place, new_pool):
    pool = new_pool(1)
    steps, come, seen = Steps(pool._engine.dispatch), threading.Event(), []

    def retire():
        seen.append(workers(pool)[0])
        retired(pool, seen[0])
        come.set()

    if place == "asleep":
        with_idle(pool, 1)
        retire()
    else:
        steps.once(place, retire)
        run_one(pool)
    wait(come)
    worker = seen[0]
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive(), "it sleeps, marked"
    assert worker.wake not in pool._engine.dispatch.idle
    serves_on(pool, 1)


def test_the_mark_is_set_before_it_is_taken_out(new_pool):
    """retire() tries to take the worker out, and finds it not there.

    The worker publishes itself, reads its mark, and sleeps. retire() goes on. Had it not set the
    mark before, nobody would wake the worker.
    """
    locks = []

    pool = new_pool(1, backend=SpiedWakes(locks))
    steps = Steps(pool._engine.dispatch)
    may_publish, about_to = threading.Event(), threading.Event()
    about_to_sleep = threading.Event()

    def hold_it():
        about_to.set()
        wait(may_publish)

    def let_it_sleep():
        locks[0].before_acquire = about_to_sleep.set
        may_publish.set()
        wait(about_to_sleep)
        raise ValueError  # as list.remove found it: not there

    steps.once("before publishing", hold_it)
    run_one(pool)
    wait(about_to)
    worker = workers(pool)[0]
    steps.once("before taking out", let_it_sleep)
    retired(pool, worker)
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive(), "it sleeps, marked"
    serves_on(pool, 1)


def test_a_retired_worker_that_was_woken_for_a_task(new_pool):
    """It was taken out of the stack for a task, and is retired before it runs on.

    It leaves without the task; its successor takes that.
    """
    pool = with_idle(new_pool(1), 1)
    dispatch, worker = pool._engine.dispatch, workers(pool)[0]
    wake_one, late = dispatch.wake_one, []

    def retire_first():
        dispatch.wake_one = wake_one
        worker.leaving = Reason.TASKS  # the mark; the rest of the order follows
        wake_one()

    dispatch.wake_one = retire_first
    late.append(pool.submit(int))
    retired(pool, worker)
    assert late[0].result(PATIENCE) == 0
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive()
    serves_on(pool, 1)
