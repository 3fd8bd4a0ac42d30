"""Scenarios C: interrupting those who wait; closing, destroying and reopening."""

import logging
import threading
from concurrent.futures import as_completed, wait

import pytest
from staging import WAIT, in_thread, until

from recyclepool import (
    BrokenRecyclePool,
    CloseReport,
    PoolClosedError,
    PoolState,
    TaskAbortedError,
    TaskTimeoutError,
    backends,
)


def race_submit_against_close(pool, rounds, submitters=2):
    """Each submit is refused at once, or its future completes; what is refused never runs."""
    ran = []
    accepted, refused = [], []
    gate = threading.Barrier(submitters + 1)

    def submit(own):
        for number in range(rounds):
            gate.wait(WAIT)
            for part in range(3):
                token = (own, number, part)
                try:
                    accepted.append((token, pool.submit(ran.append, token)))
                except PoolClosedError:
                    refused.append(token)

    calls = [in_thread(submit, own) for own in range(submitters)]
    for _ in range(rounds):
        assert pool.submit(int).result(WAIT) == 0  # an idle worker waits
        gate.wait(WAIT)
        pool.close()
    for call in calls:
        call.result()
    for _, future in accepted:
        assert future.result(WAIT) is None
    pool.close()
    assert sorted(ran) == sorted(token for token, _ in accepted)
    assert len(accepted) + len(refused) == rounds * submitters * 3
    return len(refused)


def test_c1_submit_races_close(new_pool):
    race_submit_against_close(new_pool(2), 500)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_c1_submit_races_close_soak(new_pool):
    assert race_submit_against_close(new_pool(2), 50_000)  # by two submitters


def test_c3_destroy_escalates_a_running_close(new_pool, new_spin):
    pool, spin = new_pool(1), new_spin()
    running = pool.submit(spin)
    queued = [pool.submit(int) for _ in range(3)]
    spin.wait_started()
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    assert not closing.is_over()
    destroyed = pool.destroy(WAIT)
    closed = closing.result()
    assert all(future.cancelled() for future in queued)
    assert isinstance(running.exception(0), TaskAbortedError)
    for report in destroyed, closed:
        assert (report.cancelled, report.aborted, report.abandoned) == (3, 1, ())
    assert not closed.timed_out
    assert pool.submit(int).result(WAIT) == 0


@pytest.mark.parametrize("asker", ["wait", "as_completed", "result", "callback"])
def test_c4_after_destroy_nothing_is_pending_and_waiters_are_told(new_pool, new_spin, asker):
    pool, spin = new_pool(1), new_spin()
    running = pool.submit(spin)
    queued = [pool.submit(int) for _ in range(3)]
    spin.wait_started()
    futures = [running, *queued]
    told = []
    if asker == "callback":
        for future in futures:
            future.add_done_callback(told.append)
        asking = in_thread(int)
    elif asker == "result":
        waiting = [in_thread(future.result, WAIT) for future in futures]
        until(lambda: all(future._sleepers for future in futures))
        asking = in_thread(told.extend, futures)
    elif asker == "wait":
        asking = in_thread(lambda: told.extend(wait(futures, WAIT).done))
        until(lambda: all(future._waiters for future in futures))
    else:
        asking = in_thread(lambda: told.extend(as_completed(futures, WAIT)))
        until(lambda: all(future._waiters for future in futures))
    pool.destroy(WAIT)
    assert all(future.done() for future in futures)
    assert all(future.cancelled() for future in queued)
    assert isinstance(running.exception(0), TaskAbortedError)
    asking.result()
    until(lambda: len(told) == len(futures))
    assert set(told) == set(futures)
    if asker == "result":
        names = [type(call.outcome()).__name__ for call in waiting]
        assert names == ["TaskAbortedError", *["CancelledError"] * 3]


def test_c4_a_running_task_that_ends_first_keeps_its_result(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    future = pool.submit(hold, "kept")
    hold.wait_started()
    hold.release()
    assert future.result(WAIT) == "kept"
    pool.destroy()
    assert future.result(0) == "kept"


def test_c5_a_late_result_touches_nothing(new_pool, new_hold):
    """An abandoned thread ends in the next epoch: its result, its exit, its place."""
    pool, hold = new_pool(1, backend=backends.Thread(interrupt=False)), new_hold()
    late = pool.submit(hold, "late")
    hold.wait_started()
    (thread,) = pool._threads
    report = pool.destroy(0.05)
    assert len(report.abandoned) == 1
    assert pool.stats().abandoned == 1

    second = new_hold()
    now = pool.submit(second, "now")
    second.wait_started()
    hold.release()
    thread.join(WAIT)
    assert not thread.is_alive()
    stats = pool.stats()
    assert (stats.abandoned, stats.completed, stats.aborted) == (0, 0, 1)
    assert len(stats.workers) == 1
    assert stats.workers[0].generation == 2
    assert stats.workers[0].task_name
    second.release()
    assert now.result(WAIT) == "now"
    assert isinstance(late.exception(0), TaskAbortedError)
    until(lambda: pool.stats().completed == 1)


def test_c5_a_late_start_touches_nothing(new_pool, new_hold, caplog):
    """A worker given up in its initializer becomes ready in the next epoch: that one is as new."""
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    hold, calls = new_hold(), []

    def initializer():
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("wrong from now on")
        hold()

    pool = new_pool(1, initializer=initializer)
    pool.submit(int)
    hold.wait_started()
    (thread,) = pool._threads
    assert len(pool.destroy(0.05).abandoned) == 1
    hold.release()
    thread.join(WAIT)
    assert isinstance(pool.submit(int).exception(WAIT), BrokenRecyclePool)
    assert len(calls) == 2, "the first failing initializer of an epoch breaks the pool"


def test_c5_a_late_failing_start_touches_nothing(new_pool, new_hold, caplog):
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    first, second, calls = new_hold(), new_hold(), []

    def initializer():
        calls.append(1)
        if len(calls) == 1:
            first()
            raise ValueError("late")
        second()

    pool = new_pool(1, min_workers=1, initializer=initializer)
    pool.submit(int)
    first.wait_started()
    (thread,) = pool._threads
    pool.destroy(0.05)
    started = pool.start()
    second.wait_started()
    first.release()
    thread.join(WAIT)
    assert not started.done()
    second.release()
    assert started.result(WAIT) == 1
    assert pool.submit(int).result(WAIT) == 0


def test_c5_a_late_timeout_touches_nothing(new_pool, new_spin):
    """A deadline that strikes after its task's epoch finds the task settled, and harms nobody."""
    pool, spin = new_pool(1), new_spin()
    old = pool.submit(spin)
    spin.wait_started()
    (worker,) = pool._engine.roster.workers
    pool.destroy(WAIT)
    second = new_spin()
    new = pool.submit(second, "new")
    second.wait_started()
    assert not old.settle(None, TaskTimeoutError("late"))
    assert not worker.gate.request_abort(old)
    pool._engine.retire(worker, worker.leaving)
    second.release()
    assert new.result(WAIT) == "new"
    assert isinstance(old.exception(0), TaskAbortedError)


@pytest.mark.parametrize("callers", [2, 8])
def test_c6_concurrent_closes_join(new_pool, new_hold, callers):
    pool, hold = new_pool(2), new_hold()
    futures = [pool.submit(hold, n) for n in range(4)]
    hold.wait_started(2)
    calls = [in_thread(pool.close) for _ in range(callers)]
    until(lambda: pool.stats().state is PoolState.CLOSING)
    assert not any(call.is_over() for call in calls)
    hold.release()
    reports = [call.result() for call in calls]
    assert [future.result(0) for future in futures] == [0, 1, 2, 3]
    assert not any(report.timed_out or report.abandoned for report in reports)
    assert max(report.completed for report in reports) == 4
    assert pool.submit(int).result(WAIT) == 0


def test_c6_close_of_a_pool_that_never_started_returns_at_once(new_pool):
    pool = new_pool(4)
    report = pool.close()
    assert isinstance(report, CloseReport)
    assert (report.completed, report.cancelled, report.aborted) == (0, 0, 0)
    assert report.seconds < WAIT / 2
    assert pool.close().seconds < WAIT / 2
    assert pool.submit(int).result(WAIT) == 0


def test_c6_the_earliest_deadline_wins(new_pool, new_spin):
    pool, spin = new_pool(1), new_spin()
    future = pool.submit(spin)
    spin.wait_started()
    patient = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    hasty = pool.close(0.05)
    assert hasty.timed_out
    assert not patient.result().timed_out
    assert isinstance(future.exception(0), TaskAbortedError)
