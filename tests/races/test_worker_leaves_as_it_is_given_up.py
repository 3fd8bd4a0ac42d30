"""A worker leaves just as the watchdog gives it up.

1. A teardown, or a start, takes longer than it may: the watchdog is about to give the worker up.
2. Just then it comes to its end: its thread has left its last order, and is gone. That order waits,
   because the watchdog's look is under way.
3. Nobody is given up who has left; the look comes to its end, and the order is carried out.
"""

import threading

import pytest
from forcing import PATIENCE, Elsewhere, serves_on, until, wait, with_idle, workers
from watching import install, watchdog_of

from recyclepool import Limits, Reason, WorkerStartError


def test_its_teardown_ends(new_pool, monkeypatch):
    install(monkeypatch)
    go, inside = threading.Event(), threading.Event()

    def finalizer():
        inside.set()
        assert go.wait(PATIENCE)

    limits = Limits(grace=10 * PATIENCE, start_timeout=None)
    pool = with_idle(new_pool(1, limits=limits, finalizer=finalizer), 1)
    engine, (worker,) = pool._engine, workers(pool)
    engine.retire(worker, Reason.TASKS)
    wait(inside)
    until(lambda: worker.vacated, "its teardown")

    def leave():
        go.set()
        worker.thread.join(PATIENCE)
        assert not worker.thread.is_alive()

    worker.vacated_at = -1000 * PATIENCE
    watchdog_of(pool).once("before acting", leave)
    looking = Elsewhere(engine.look)
    looking.thread.join(PATIENCE / 4)
    assert not looking.thread.is_alive(), "the look never ends"
    until(lambda: worker not in workers(pool), "its end")
    assert not engine.roster.abandoned
    assert pool.stats().recycles == {"tasks": 1}
    serves_on(pool, 1)


@pytest.mark.parametrize("outcome", ["fails", "succeeds"])
def test_its_start_ends(outcome, new_pool, monkeypatch):
    install(monkeypatch)
    go, inside, calls = threading.Event(), threading.Event(), []

    def initializer():
        calls.append(threading.current_thread())
        if len(calls) == 2:
            inside.set()
            assert go.wait(PATIENCE)
            if outcome == "fails":
                raise ValueError("it is as late as that")

    pool = with_idle(new_pool(1, initializer=initializer, limits=Limits(start_timeout=10_000)), 1)
    engine = pool._engine
    replaced = pool.recycle(0)
    wait(inside)
    worker = workers(pool)[-1]

    def end():
        go.set()
        if outcome == "fails":
            calls[1].join(PATIENCE)
            assert not calls[1].is_alive()
        else:
            until(lambda: worker._start, "its claim")

    worker.born = -100_000.0
    watchdog_of(pool).once("before acting", end)
    looking = Elsewhere(engine.look)
    looking.thread.join(PATIENCE / 4)
    assert not looking.thread.is_alive(), "the look never ends"
    assert not engine.roster.abandoned
    if outcome == "succeeds":
        assert replaced.result(PATIENCE) == 1
    else:
        assert isinstance(replaced.exception(PATIENCE), WorkerStartError)
        assert pool.stats().failed_starts == 1
    serves_on(pool, 1)
