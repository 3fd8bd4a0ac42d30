"""A task is handed to a worker just as that falls asleep (DISPATCH 3, 9).

1. A worker found no task. It is about to put itself into the stack, has done so, or sleeps.
2. A submitter with a key wants that worker.
3. In the stack, it is taken out, and woken once; the look that the worker still does wakes another,
   or nobody. Not in the stack: the task is queued, and the worker sees it, as any other.
"""

import threading

import pytest
from forcing import (
    PATIENCE,
    SpiedWakes,
    Steps,
    asleep,
    elsewhere,
    once,
    run_one,
    serves_on,
    until,
    wait,
    with_idle,
    workers,
)


@pytest.mark.parametrize("place", ["after finding none", "before publishing", "after publishing"])
def test_it_is_not_stranded(place, new_pool):
    pool = new_pool(1)
    steps, late, come = Steps(pool._engine.dispatch), [], threading.Event()

    def submit():
        late.append(elsewhere(pool.options(key="key").submit, threading.get_ident))
        come.set()

    steps.once(place, submit)
    first = run_one(pool)
    wait(come)
    assert late[0].result(PATIENCE) == first.result(PATIENCE)
    asleep(pool, 1)
    (worker,) = workers(pool)
    assert not worker.wake.acquire(False), "it was woken twice for one time in the stack"
    serves_on(pool, 1)


def test_a_task_without_a_key_comes_as_well(new_pool):
    """The worker has published itself; it is handed one task, and another is queued.

    Its own look finds nobody in the stack: it runs both.
    """
    pool = new_pool(1)
    steps, late, come = Steps(pool._engine.dispatch), [], threading.Event()

    def submit():
        late.append(elsewhere(pool.options(key="key").submit, int, "1"))
        late.append(elsewhere(pool.submit, int, "2"))
        come.set()

    steps.once("after publishing", submit)
    run_one(pool)
    wait(come)
    assert [future.result(PATIENCE) for future in late] == [1, 2]
    serves_on(pool, 1)


def test_whom_two_want_one_gets(new_pool):
    """Just before a worker is taken out for a key, another submitter wakes it."""
    pool = new_pool(1)
    steps, go, others = Steps(pool._engine.dispatch), threading.Event(), []
    with_idle(pool, 1)

    def take_it():
        others.append(elsewhere(pool.submit, lambda: (wait(go), threading.get_ident())[1]))

    steps.once("before taking out", take_it)
    mine = pool.options(key="key").submit(threading.get_ident)
    assert not mine.done()
    go.set()
    assert mine.result(PATIENCE) == others[0].result(PATIENCE)
    serves_on(pool, 1)


def test_two_keys_meet_at_one_worker(new_pool):
    """Just before it is taken out for one key, it is handed the task of another."""
    pool = new_pool(1)
    steps, order = Steps(pool._engine.dispatch), []
    with_idle(pool, 1)
    inner = []

    def hand_another():
        inner.append(elsewhere(pool.options(key="other").submit, order.append, "other"))

    steps.once("before taking out", hand_another)
    mine = pool.options(key="key").submit(order.append, "mine")
    inner[0].result(PATIENCE)
    mine.result(PATIENCE)
    assert sorted(order) == ["mine", "other"]
    serves_on(pool, 1)


def test_who_was_handed_a_task_takes_no_queued_one(new_pool):
    """A worker that was handed a task has not gone on yet, and another task is queued.

    That needs a worker of its own, and there is room for one: it must not wait for the first.
    """
    locks, go = [], threading.Event()

    pool, other = with_idle(new_pool(2, backend=SpiedWakes(locks), min_workers=1), 1), []
    (worker,) = workers(pool)
    handed = pool._new_task(lambda: (wait(go), threading.get_ident())[1])

    def submit_another():
        other.append(elsewhere(pool.submit, threading.get_ident))

    locks[0].before_release = once(submit_another)
    assert pool._engine.dispatch.hand(handed, worker)
    try:
        ran_in = other[0].result(PATIENCE / 10)
    finally:
        go.set()
    assert ran_in != handed.result(PATIENCE)
    serves_on(pool)


def test_the_pool_is_not_idle_while_a_worker_holds_a_task(new_pool):
    """It was handed one, and has not gone on: wait_idle() waits for that."""
    locks, answers = [], []

    pool = with_idle(new_pool(1, backend=SpiedWakes(locks)), 1)
    locks[0].before_release = once(lambda: answers.append(elsewhere(pool.wait_idle, 0.02)))
    pool.options(key="key").submit(int)
    assert answers == [False]
    until(lambda: elsewhere(pool.wait_idle, PATIENCE))
    serves_on(pool, 1)
