# ruff: noqa: F401, F811 (fixtures are imported)
"""Scenarios R5, R6 and R13: ends that meet each other, and teardowns, in pools with limits."""

import logging
import threading
import time

import pytest
from listening import Events, Obedient, Stuck, new_stuck, no_lingering
from staging import WAIT, in_thread, until

from recyclepool import (
    CloseReport,
    Limits,
    PoolClosedError,
    PoolState,
    Reason,
    State,
    TaskAbortedError,
    TaskTimeoutError,
    TeardownFailed,
    WorkerAbandoned,
    WorkerRetired,
    current_worker,
)

SLACK = WAIT / 4  # what a busy machine may add to a bound

LIMITS = Limits(age="1h", idle="1h", task_timeout="1h", hang="1h", grace="1h")


@pytest.fixture(autouse=True)
def quiet(caplog):
    """No log lines on the terminal for what is made to fail."""
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")


def close_and_wait_for_it(pool, *args):
    closing = in_thread(pool.close, *args)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    return closing


@pytest.mark.parametrize("stuck", [False, True])
@pytest.mark.parametrize("times", [1, 3])
def test_r5_destroy_during_close_makes_close_return(new_pool, new_stuck, stuck, times):
    """Whatever the grace of the limits; who waits for anything else of the pool is told."""
    pool, task = new_pool(2, limits=LIMITS), new_stuck() if stuck else Obedient()
    running = [pool.submit(task), pool.options(timeout="1h").submit(task)]
    task.wait_started(2)
    queued = [pool.submit(int) for _ in range(3)]
    restart, idle = pool.soft_restart(), in_thread(pool.wait_idle)
    closes = [close_and_wait_for_it(pool) for _ in range(times)]
    began = time.monotonic()
    report = pool.destroy(0.1 if stuck else WAIT)
    reports = [closing.result() for closing in closes]
    assert time.monotonic() - began < 0.1 + SLACK
    for each in reports:
        assert isinstance(each, CloseReport)
        assert not each.timed_out
        assert each.aborted == 2
        assert each.cancelled == 3
    assert len(report.abandoned) == (2 if stuck else 0)
    assert all(future.cancelled() for future in queued)
    assert all(isinstance(future.exception(0), TaskAbortedError) for future in running)
    assert isinstance(restart.exception(WAIT), PoolClosedError)
    assert idle.result() is True
    assert pool.submit(int).result(WAIT) == 0
    if stuck:
        task.release()
        until(lambda: pool.stats().abandoned == 0)


def test_r5_a_timeout_during_a_close(new_pool, new_stuck):
    """A deadline goes on while the pool drains: the stuck worker is given up, close returns."""
    pool, stuck = new_pool(1, limits=Limits(task_timeout=0.1, grace=0.05)), new_stuck()
    late = pool.submit(stuck)
    queued = [pool.submit(divmod, n, 2) for n in range(3)]
    stuck.wait_started()
    closing = close_and_wait_for_it(pool)
    report = closing.result()
    assert isinstance(late.exception(0), TaskTimeoutError)
    assert [future.result(0) for future in queued] == [divmod(n, 2) for n in range(3)]
    assert (report.completed, report.aborted, report.timed_out) == (3, 1, False)
    (worker,) = report.abandoned
    assert worker.task_name == "Stuck"
    assert pool.submit(int).result(WAIT) == 0


def test_r5_a_cancel_during_a_close(new_pool):
    pool, endless = new_pool(1), Obedient()
    running, queued = pool.submit(endless), pool.submit(int)
    endless.wait_started()
    closing = close_and_wait_for_it(pool)
    assert pool.cancel(running)
    report = closing.result()
    assert (report.completed, report.aborted) == (1, 1)
    assert queued.result(0) == 0
    assert isinstance(running.exception(0), TaskAbortedError)


@pytest.mark.parametrize("order", ["patient_first", "impatient_first"])
def test_r6_the_earliest_deadline_of_two_closes_wins(new_pool, order):
    """They are one operation: both return."""
    pool, endless = new_pool(1, limits=LIMITS), Obedient()
    running = pool.submit(endless)
    endless.wait_started()
    began = time.monotonic()
    timeouts = (None, 0.1) if order == "patient_first" else (0.1, None)
    first = close_and_wait_for_it(pool, timeouts[0])
    second = in_thread(pool.close, timeouts[1])
    reports = [first.result(), second.result()]
    assert 0.1 <= time.monotonic() - began < 0.1 + 0.5 + SLACK
    assert sum(report.timed_out for report in reports) in (1, 2)
    assert isinstance(running.exception(0), TaskAbortedError)
    assert pool.submit(int).result(WAIT) == 0


@pytest.mark.parametrize("first", ["close", "destroy", "soft_restart", "resize", "recycle"])
@pytest.mark.parametrize("second", ["close", "destroy", "shutdown"])
def test_r6_ends_and_replacements_at_once(new_pool, first, second):
    """All return, all futures settle, nobody is left."""
    for n in range(10):
        pool = new_pool(2, min_workers=1, limits=LIMITS)
        assert pool.start().result(WAIT) == 1
        futures = [pool.submit(divmod, n, 2) for _ in range(4)]
        call = {
            "close": pool.close,
            "destroy": lambda pool=pool: pool.destroy(WAIT),
            "shutdown": pool.shutdown,
            "soft_restart": pool.soft_restart,
            "resize": lambda pool=pool: pool.resize(1),
            "recycle": lambda pool=pool: pool.recycle(0),
        }
        calls = [in_thread(call[verb]) for verb in (first, second)]
        outcomes = [each.outcome() for each in calls]
        for outcome in outcomes:
            if hasattr(outcome, "exception"):
                error = outcome.exception(WAIT)
                assert error is None or isinstance(error, PoolClosedError)
            elif isinstance(outcome, BaseException):
                assert isinstance(outcome, PoolClosedError)
        assert all(future.done() for future in futures)
        assert pool.stats().workers == ()


@pytest.mark.parametrize("error", [ValueError("teardown"), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("verb", ["recycle", "soft_restart"])
def test_r13_teardown_that_raises_in_a_replacement(new_pool, verb, error):
    def finalizer():
        if current_worker().generation == 1:
            raise error

    pool = new_pool(1, finalizer=finalizer)
    events = Events(pool)
    assert pool.submit(int).result(WAIT) == 0
    replaced = pool.recycle(0) if verb == "recycle" else pool.soft_restart()
    assert replaced.result(WAIT) == 1
    (failed,) = events.wait_for(TeardownFailed)
    assert (failed.slot, failed.generation) == (0, 1)
    assert type(error).__name__ in failed.error
    (event,) = events.wait_for(WorkerRetired)
    assert event.reason is Reason.MANUAL
    assert pool.submit(lambda: current_worker().generation).result(WAIT) == 2
    assert pool.close().abandoned == ()


@pytest.mark.parametrize("surge", [0, 1])
def test_r13_teardown_that_hangs_in_a_replacement(new_pool, new_stuck, surge):
    """It is given up after the grace; the other slots are replaced all the same."""
    teardown = new_stuck()

    def finalizer():
        me = current_worker()
        if (me.slot, me.generation) == (0, 1):
            teardown()

    pool = new_pool(2, finalizer=finalizer, limits=Limits(grace=0.1, max_surge=surge))
    together, events = threading.Barrier(2), Events(pool)
    for future in [pool.submit(together.wait, WAIT) for _ in range(2)]:
        future.result(WAIT)
    assert pool.soft_restart().result(WAIT) == 2
    (event,) = events.wait_for(WorkerAbandoned)
    assert (event.slot, event.generation, event.reason) == (0, 1, Reason.MANUAL)
    assert pool.stats().abandoned == 1
    serving = [w for w in pool.stats().workers if w.state is State.SERVING]
    assert [(w.slot, w.generation) for w in serving] == [(0, 2), (1, 2)]
    teardown.release()
    until(lambda: pool.stats().abandoned == 0)
    assert [w.generation for w in pool.stats().workers] == [2, 2]


def test_r13_a_close_does_not_wait_longer_than_the_grace_for_a_teardown(new_pool):
    """With limits even a close without a timeout gives it up."""
    teardown = Stuck()
    pool = new_pool(1, finalizer=teardown, limits=Limits(grace=0.1))
    try:
        assert pool.submit(int).result(WAIT) == 0
        report = pool.close()
        (worker,) = report.abandoned
        assert worker.task_name is None
        assert "listening.py" in worker.stack
        assert not report.timed_out
    finally:
        teardown.release()
    assert pool.submit(int).result(WAIT) == 0
