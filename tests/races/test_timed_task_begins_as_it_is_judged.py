"""A task with a deadline of its own begins while the watchdog looks (WATCH 3).

1. The watchdog looks at the worker: it is idle / it runs the task, whose deadline is not set yet.
2. Before it writes down what it found, the task's deadline is set, and ``until`` read after that.
   (Or the whole look lies between the task's begin and its deadline.)
3. The watchdog writes that there is nothing to wait for.
4. The worker has it look again: the deadline is found.
"""

from time import monotonic

import pytest
from forcing import PATIENCE, elsewhere, once, serves_on, wait, with_idle
from watching import Task, install, let_go, unwatched, watchdog_of

from recyclepool import TaskTimeoutError, _future
from recyclepool._intake import accept


def watched_once(new_pool, monkeypatch):
    """A pool that has a watchdog, because a task once had a deadline."""
    install(monkeypatch)
    pool = with_idle(new_pool(1), 1)
    assert pool.options(timeout=10 * PATIENCE).submit(int).result(PATIENCE) == 0
    return unwatched(pool)


@pytest.mark.parametrize("timeout", [0.05, 10 * PATIENCE])
@pytest.mark.parametrize("place", ["after judging", "before writing", "after writing"])
def test_the_worker_was_idle_when_it_was_judged(place, timeout, new_pool, monkeypatch):
    pool, task, future = watched_once(new_pool, monkeypatch), Task(), []
    watchdog = watchdog_of(pool)

    def come():
        future.append(pool.options(timeout=timeout).submit(task))
        wait(task.started)

    with let_go(task):
        watchdog.once(place, come)
        pool._engine.look()
        if timeout > 1:
            assert watchdog.until <= monotonic() + timeout
            assert watchdog._thread.is_alive()
        else:
            assert isinstance(future[0].exception(PATIENCE), TaskTimeoutError)
    serves_on(pool, 1)


@pytest.mark.parametrize("timeout", [0.05, 10 * PATIENCE])
def test_a_look_between_its_begin_and_its_deadline(timeout, new_pool, monkeypatch):
    pool, task = watched_once(new_pool, monkeypatch), Task()
    watchdog, seen = watchdog_of(pool), []

    def look():
        elsewhere(pool._engine.look)
        seen.append(watchdog.until)

    def late_monotonic():
        if future and future[0].running() and future[0].deadline == float("inf"):
            look_once()
        return monotonic()

    look_once, future = once(look), []
    monkeypatch.setattr(_future, "monotonic", late_monotonic)
    expect = pool._engine.expect
    future.append(_future.OptionedFuture(task, (), {}, None, None, expect, timeout))
    with let_go(task):
        accept(pool._engine, future[0])
        wait(task.started)
        assert seen == [float("inf")]  # it saw no deadline
        if timeout > 1:
            assert watchdog.until == future[0].deadline
        else:
            assert isinstance(future[0].exception(PATIENCE), TaskTimeoutError)
    serves_on(pool, 1)


def test_the_first_deadline_of_a_pool_without_a_watchdog(new_pool, monkeypatch):
    """The worker itself has it made, while another thread holds the engine's lock."""
    install(monkeypatch)
    pool, task = with_idle(new_pool(1), 1), Task()
    engine = pool._engine
    assert engine.watchdog is None
    with let_go(task):
        with engine._orders._lock:
            future = pool.options(timeout=0.05).submit(task)
            wait(task.started)
        engine.look()
        assert isinstance(future.exception(PATIENCE), TaskTimeoutError)
    serves_on(pool, 1)
