"""A worker has been idle for long enough, and is needed just now.

1. The watchdog finds that a worker has been idle for as long as it may.
2. Before it takes the worker out of the stack, a submit does so: the worker is not marked, and
   runs the task. Or the watchdog is the first, and the submit finds the stack empty: the worker,
   which is awake and not yet marked, takes the task and goes after it; or another is started.
3. No task is lost or waits; whoever carries the order out comes to its end, also where it is the
   worker itself, which cannot show that it does not rest before it returns.
"""

import threading

import pytest
from forcing import (
    PATIENCE,
    Elsewhere,
    SpiedWakes,
    Steps,
    elsewhere,
    noop,
    once,
    run_one,
    serves_on,
    until,
    wait,
    with_idle,
    workers,
)
from watching import Task, install, let_go, unwatched, watchdog_of

from recyclepool import Limits, State

IDLE = Limits(idle=100 * PATIENCE, start_timeout=None)


def expired(worker):
    """It has been idle for too long."""
    worker.idle_since = -1000.0 * PATIENCE


def look_ends(pool):
    looking = Elsewhere(pool._engine.look)
    looking.thread.join(PATIENCE / 4)
    assert not looking.thread.is_alive(), "the look never ends"
    looking.result()


def test_the_submit_is_first(new_pool, monkeypatch):
    install(monkeypatch)
    pool, task, future = with_idle(new_pool(1, limits=IDLE), 1), Task(), []
    (worker,) = workers(pool)

    def come():
        future.append(elsewhere(pool.submit, task))
        wait(task.started)

    with let_go(task):
        expired(worker)
        watchdog_of(pool).once("before acting", come)
        look_ends(pool)
        assert worker.state is State.SERVING
        assert worker.leaving is None
    assert future[0].result(PATIENCE) == "done"
    assert not pool.stats().recycles
    serves_on(pool, 1)


def test_the_submit_took_it_out_and_it_did_not_wake_yet(new_pool, monkeypatch):
    """It still says that it rests, and its time is over; it is about to take the task."""
    install(monkeypatch)
    locks, may_wake, future = [], threading.Event(), []

    pool = with_idle(new_pool(1, limits=IDLE, backend=SpiedWakes(locks)), 1)
    (worker,) = workers(pool)
    locks[0].after_acquire = once(lambda: wait(may_wake))
    expired(worker)
    try:
        future.append(elsewhere(pool.submit, int))
        assert worker.resting
        look_ends(pool)
        assert worker.leaving is None
    finally:
        may_wake.set()
    assert future[0].result(PATIENCE) == 0
    assert workers(pool) == [worker]
    locks[0].after_acquire = noop
    serves_on(pool, 1)


@pytest.mark.parametrize("by", ["its look at the queue", "its call of on_rest"])
def test_the_worker_itself_looks(by, new_pool, monkeypatch):
    """It has put itself into the stack, a submit takes it out; then it carries an order out."""
    install(monkeypatch)
    pool = new_pool(1, limits=IDLE)
    engine, future = pool._engine, []
    steps, over = Steps(engine.dispatch), threading.Event()
    with_idle(pool, 1)
    (worker,) = workers(pool)

    def come():
        expired(worker)
        future.append(elsewhere(pool.submit, int))
        assert worker.resting
        assert not engine.dispatch.idle
        if by == "its look at the queue":
            engine.look()  # as from Dispatch.look, for a vacancy
        else:
            engine.rest()
        over.set()

    steps.once("after publishing", come)
    run_one(pool)
    assert over.wait(PATIENCE / 4), "it never comes to its end"
    assert future[0].result(PATIENCE) == 0
    serves_on(pool, 1)


@pytest.mark.parametrize("surge", [0, 1])
@pytest.mark.parametrize("place", ["before the mark", "after the mark", "after the retirement"])
def test_the_watchdog_is_first(place, surge, new_pool, monkeypatch):
    install(monkeypatch)
    limits = Limits(idle=100 * PATIENCE, start_timeout=None, max_surge=surge)
    pool, future = with_idle(new_pool(1, limits=limits), 1), []
    engine, (worker,) = pool._engine, workers(pool)
    retire_now, retire = engine.retire_now, engine.roster.retire

    def come():
        future.append(elsewhere(pool.submit, int))

    def late(*args):
        if place == "before the mark":
            come()
            future[0].result(PATIENCE)  # it is awake, and takes it
        retire_now(*args)
        if place == "after the retirement":
            come()

    def marked(*args):
        if place == "after the mark" and not future:
            come()
        retire(*args)

    engine.retire_now, engine.roster.retire = late, marked
    expired(worker)
    look_ends(pool)
    engine.retire_now, engine.roster.retire = retire_now, retire
    assert future[0].result(PATIENCE) == 0
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive()
    until(lambda: worker not in workers(pool), "its end")
    assert pool.stats().recycles == {"idle": 1}
    serves_on(pool, 1)


def test_a_thousand_times(new_pool, monkeypatch):
    """Each task finds a worker that has just been let go, or is about to be."""
    install(monkeypatch)
    limits = Limits(idle=1e-6, start_timeout=None)
    pool = new_pool(2, limits=limits)
    for n in range(1000):
        assert pool.submit(int, n).result(PATIENCE) == n
    until(lambda: not workers(pool), "all to go")
    unwatched(pool)
    stats = pool.stats()
    assert stats.completed == 1000
    assert stats.recycles["idle"] > 0
    elsewhere(pool.close)


def test_the_least_number_stays(new_pool, monkeypatch):
    """All have been idle for too long at once: each that goes is one more than it keeps."""
    install(monkeypatch)
    pool = with_idle(new_pool(4, limits=IDLE, min_workers=2), 4)
    for worker in workers(pool):
        expired(worker)
    look_ends(pool)
    until(lambda: len(workers(pool)) == 2, "two to go")
    assert pool.stats().recycles == {"idle": 2}
    for worker in workers(pool):
        expired(worker)
    look_ends(pool)
    assert len(workers(pool)) == 2
    serves_on(pool, 2)
