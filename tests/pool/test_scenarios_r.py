"""Scenarios R: what other pools get wrong."""

import logging
import os
import threading
import time
from concurrent.futures import CancelledError, wait

import pytest
from staging import WAIT, abort, in_thread, until

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    PoolClosedError,
    PoolState,
    TaskAbortedError,
    TaskTimeoutError,
    WorkerStartError,
    backends,
    current_worker,
)
from recyclepool.backends.thread import ThreadBackend


class Mortal(backends.Thread):
    """Thread workers whose drivers die after each task, of an error that is not the task's."""

    __slots__ = ()

    def __call__(self, worker, hooks):
        return MortalBackend(worker, hooks, True)


class MortalBackend(ThreadBackend):
    def _run(self, *args):
        super()._run(*args)
        raise MemoryError("not the task's")


@pytest.fixture
def quiet(caplog):
    """No log lines on the terminal for workers that are made to fail."""
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")


@pytest.mark.parametrize("workers", [2, 5])
def test_r1_close_with_unequal_running_tasks(new_pool, new_hold, workers):
    pool = new_pool(workers)
    holds = [new_hold() for _ in range(workers)]
    futures = [pool.submit(hold, n) for n, hold in enumerate(holds)]
    for hold in holds:
        hold.wait_started()
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    for n, (hold, future) in enumerate(zip(holds, futures, strict=True)):
        assert not closing.is_over()
        hold.release()
        assert future.result(WAIT) == n
    assert closing.result().completed == workers


def test_r2_close_while_workers_start(new_pool, new_hold):
    """What is queued is still run, by the workers that were starting for it."""
    starting = new_hold()
    pool = new_pool(3, initializer=starting)
    futures = [pool.submit(divmod, n, 2) for n in range(6)]
    starting.wait_started(3)
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    starting.release()
    assert closing.result().completed == 6
    assert [future.result(0) for future in futures] == [divmod(n, 2) for n in range(6)]


def test_r2_close_while_the_least_workers_start(new_pool, new_hold):
    """Nobody needs them any more: what waits for them is told, and they go."""
    starting = new_hold()
    pool = new_pool(3, min_workers=3, initializer=starting)
    started = pool.start()
    starting.wait_started(3)
    closing = in_thread(pool.close)
    assert isinstance(started.exception(WAIT), PoolClosedError)
    starting.release()
    closing.result()
    assert pool.stats().workers == ()


def test_r3_a_worker_dies_during_close(new_pool, new_hold, quiet):
    """A thread dies only between tasks, of an error in the pool's own code: successors finish."""
    pool, hold = new_pool(2, backend=Mortal()), new_hold()
    futures = [pool.submit(hold, n) for n in range(10)]
    hold.wait_started(2)
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    hold.release()
    assert closing.result().completed == 10
    assert [future.result(0) for future in futures] == list(range(10))
    assert pool.stats().recycles["lost"] == 10


def test_r4_a_task_is_aborted_during_close(new_pool, new_spin):
    pool, spin = new_pool(2), new_spin()
    stuck = pool.submit(spin)
    other = new_spin()
    well = pool.submit(other, "well")
    spin.wait_started()
    other.wait_started()
    queued = [pool.submit(divmod, n, 2) for n in range(5)]
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    assert abort(pool, stuck, TaskTimeoutError("too long"))
    assert isinstance(stuck.exception(0), TaskTimeoutError)
    assert [future.result(WAIT) for future in queued] == [divmod(n, 2) for n in range(5)]
    other.release()
    report = closing.result()
    assert well.result(0) == "well"
    assert not report.timed_out


def test_r5_destroy_during_close_makes_close_return(new_pool, new_hold):
    """Even with a worker that has to be given up."""
    pool, hold = new_pool(1), new_hold()
    stuck = pool.submit(hold)
    queued = pool.submit(int)
    hold.wait_started()
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    report = pool.destroy(0.05)
    closed = closing.result()
    assert len(report.abandoned) == 1
    assert closed.aborted == 1
    assert queued.cancelled()
    assert isinstance(stuck.exception(0), TaskAbortedError)
    assert pool.submit(int).result(WAIT) == 0


@pytest.mark.parametrize("first", ["close", "destroy"])
@pytest.mark.parametrize("second", ["close", "destroy"])
def test_r6_two_ends_at_once(new_pool, new_spin, first, second):
    pool = new_pool(2)
    for _ in range(20):
        spin = new_spin()
        futures = [pool.submit(spin, n) for n in range(4)]
        spin.wait_started(2)
        calls = [in_thread(getattr(pool, verb)) for verb in (first, second)]
        spin.release()
        for call in calls:
            call.result()
        assert all(future.done() for future in futures)
        assert pool.stats().workers == ()


def _open(pool, hold):
    pool.submit(int).result(WAIT)


def _closing(pool, hold):
    pool.submit(hold)
    hold.wait_started()
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    return closing


def _shutting_down(pool, hold):
    pool.submit(hold)
    hold.wait_started()
    pool.shutdown(wait=False)


def _broken(pool, hold):
    pool._engine.settings.initargs[0].append("fails")
    assert isinstance(pool.submit(int).exception(WAIT), BrokenRecyclePool)


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (lambda pool, hold: None, None),
        (_open, None),
        (lambda pool, hold: pool.close(), None),
        (lambda pool, hold: pool.destroy(), None),
        (_closing, PoolClosedError),
        (_shutting_down, PoolClosedError),
        (lambda pool, hold: pool.shutdown(), PoolClosedError),
        (_broken, BrokenRecyclePool),
    ],
    ids=["fresh", "open", "closed", "destroyed", "closing", "shutting_down", "shutdown", "broken"],
)
def test_r7_r8_submit_in_every_state(new_pool, new_hold, quiet, prepare, error):
    """It settles, or it raises, and then never runs."""
    failing, ran = [], []

    def initializer(failing):
        if failing:
            raise ValueError(failing.pop())

    hold = new_hold()
    pool = new_pool(2, initializer=initializer, initargs=(failing,))
    pending = prepare(pool, hold)
    if error is None:
        pool.submit(ran.append, 1).result(WAIT)
    else:
        with pytest.raises(error):
            pool.submit(ran.append, 1)
        assert pool.stats().rejected == 1
    hold.release()
    if prepare is _closing:
        pending.result()
    pool.close()
    pool.shutdown()
    assert ran == ([1] if error is None else [])


def _descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts descriptors by /proc")
def test_r10_a_reused_pool_leaks_nothing(new_pool):
    """1 000 cycles: threads and descriptors are flat, and its minimum is restored each time."""
    pool = new_pool(2, min_workers=2)
    descriptors, threads, books = [], [], []
    for cycle in range(1_000):
        if cycle % 2:
            assert pool.start().result(WAIT) == 2
        else:
            assert pool.submit(int).result(WAIT) == 0
            assert len(pool._engine.roster.workers) == 2
        (pool.destroy if cycle % 3 else pool.close)()
        if cycle % 100 == 50:
            until(lambda: not any(t.name.startswith(pool.name) for t in threading.enumerate()))
            descriptors.append(_descriptors())
            threads.append(threading.active_count())
            books.append(len(pool._engine.books.open))
    assert len(set(threads)) == len(set(descriptors)) == len(set(books)) == 1


def test_r11_a_recycle_hurts_no_other(new_pool, new_spin):
    """Workers come and go beside one that works on."""
    pool, spin = new_pool(2, limits=Limits(tasks=3)), new_spin()
    long = pool.submit(lambda: (current_worker().generation, spin("long")))
    spin.wait_started()
    assert [pool.submit(divmod, n, 3).result(WAIT) for n in range(60)] == [
        divmod(n, 3) for n in range(60)
    ]
    assert not long.done()
    spin.release()
    assert long.result(WAIT) == (1, "long")
    pool.close()
    stats = pool.stats()
    assert (stats.completed, stats.failed, stats.aborted) == (61, 0, 0)


def test_r12_a_result_does_not_wait_for_teardown(new_pool, new_hold):
    """Neither that of the last task of a worker, nor those that come after it."""
    teardown = new_hold()
    pool = new_pool(1, limits=Limits(tasks=2), finalizer=teardown)
    assert [pool.submit(divmod, n, 2).result(WAIT) for n in range(2)] == [(0, 0), (0, 1)]
    teardown.wait_started()
    assert pool.submit(int).result(WAIT) == 0  # while the teardown stays
    teardown.release()


@pytest.mark.parametrize("full", [False, True])
def test_r17_utilisation_is_1_when_all_workers_are_busy(new_pool, new_hold, full):
    pool, hold = new_pool(3, max_queue=2), new_hold()
    seen = [pool.stats().utilization]
    for _ in range(3):
        pool.submit(hold)
        hold.wait_started()
        seen.append(pool.stats().utilization)
    assert seen == [0.0, 1 / 3, 2 / 3, 1.0]
    queued = [pool.submit(int) for _ in range(2 * full)]
    restarted = pool.soft_restart()
    until(lambda: pool.stats().recycles)
    assert pool.stats().utilization == 1.0  # the old ones run on, and their successors wait
    pool.resize(1)
    assert pool.stats().utilization == 1.0  # and not 3
    hold.release()
    assert [future.result(WAIT) for future in queued] == [0] * len(queued)
    assert pool.wait_idle(WAIT)
    assert restarted.result(WAIT) <= 3
    assert pool.stats().utilization == 0.0


@pytest.mark.parametrize("error", [ValueError("teardown"), SystemExit(3), KeyboardInterrupt()])
def test_r13_teardown_that_raises(new_pool, caplog, error):
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")

    def finalizer():
        raise error

    pool = new_pool(1, finalizer=finalizer, limits=Limits(tasks=1))
    assert [pool.submit(divmod, n, 2).result(WAIT) for n in range(4)] == [
        divmod(n, 2) for n in range(4)
    ]
    report = pool.close()
    assert (report.abandoned, report.timed_out) == ((), False)
    stats = pool.stats()
    assert (stats.completed, stats.failed) == (4, 0)


def test_r13_teardown_that_hangs(new_pool, new_hold):
    """The close that has a deadline returns, tells of it, and the pool is usable again."""
    teardown = new_hold()
    pool = new_pool(1, finalizer=teardown)
    assert pool.submit(int).result(WAIT) == 0
    began = time.monotonic()
    report = pool.close(0.05)
    assert time.monotonic() - began < 0.05 + 0.5 + WAIT / 2
    assert report.timed_out
    (stuck,) = report.abandoned
    assert (stuck.slot, stuck.generation, stuck.task_name) == (0, 1, None)
    assert "staging" in stuck.stack
    teardown.release()
    assert pool.submit(int).result(WAIT) == 0


def test_r14_no_task_starts_twice_and_none_is_lost(new_pool):
    """While it is closed and destroyed under the submitters, and workers are replaced."""
    pool = new_pool(3, limits=Limits(tasks=5))
    started, accepted = [], []
    over = threading.Event()

    def submit():
        while not over.is_set():
            for _ in range(20):
                token = object()
                try:
                    accepted.append((token, pool.submit(started.append, token)))
                except PoolClosedError:
                    break
            wait([future for _, future in accepted[-20:]], WAIT)

    submitters = [in_thread(submit) for _ in range(2)]
    try:
        for n in range(30):
            (pool.destroy if n % 2 else pool.close)()
    finally:
        over.set()
    for submitter in submitters:
        submitter.result()
    pool.close()
    assert len(set(started)) == len(started)
    ran = set(started)
    for token, future in accepted:
        assert future.done()
        if future.cancelled():
            assert token not in ran
        elif future.exception() is None:
            assert token in ran
        else:
            assert isinstance(future.exception(), TaskAbortedError)
    assert ran <= {token for token, _ in accepted}


def test_r15_submit_during_destroy_leaves_no_worker(new_pool):
    """After destroy has returned nobody starts for what came while it went on."""
    pool = new_pool(2)
    for _ in range(100):
        barrier = threading.Barrier(2)
        dispatch = pool._engine.dispatch
        pool.submit(int)

        def submit(barrier=barrier):
            barrier.wait(WAIT)
            return [pool.submit(int) for _ in range(5)]

        call = in_thread(submit)
        barrier.wait(WAIT)
        pool.destroy()
        outcome = call.outcome()
        assert not any(worker.dispatch is dispatch for worker in pool._engine.roster.workers)
        if isinstance(outcome, list):
            for future in outcome:
                try:
                    assert future.result(WAIT) == 0
                except (CancelledError, TaskAbortedError):
                    pass
        else:
            assert isinstance(outcome, PoolClosedError)
    pool.destroy()
    assert pool.stats().workers == ()
    until(lambda: not any(t.name.startswith(pool.name) for t in threading.enumerate()))


@pytest.mark.parametrize("end", ["close", "destroy"])
def test_r16_failing_initializer_then_recovery(new_pool, quiet, end):
    failing = [True]

    def initializer():
        if failing:
            raise OSError("database is away")

    pool = new_pool(2, initializer=initializer)
    future = pool.submit(int)
    error = future.exception(WAIT)
    assert isinstance(error, BrokenRecyclePool)
    assert "database is away" in str(error)
    assert pool.stats().state is PoolState.BROKEN
    with pytest.raises(BrokenRecyclePool, match="database is away"):
        pool.submit(int)
    failing.clear()
    getattr(pool, end)()
    assert pool.stats().state is PoolState.OPEN
    assert pool.submit(int).result(WAIT) == 0


def test_r19_every_future_settles_when_a_worker_dies(new_pool, new_hold, quiet):
    """A thread worker dies idle of nothing, and of nothing that a task does. What can kill it is an
    error in the pool's own code between two tasks (here), or a callback's BaseException (below);
    while it starts, its initializer."""
    pool, hold = new_pool(2, backend=Mortal()), new_hold()
    futures = [pool.submit(hold, n) for n in range(20)]
    hold.release()
    assert [future.result(WAIT) for future in futures] == list(range(20))
    until(lambda: pool.stats().recycles.get("lost") == 20)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_r19_a_callback_that_kills_its_worker(new_pool, new_hold, quiet, error):
    pool, hold = new_pool(1), new_hold()

    def callback(_):
        raise error

    first = pool.submit(hold, "first")
    first.add_done_callback(callback)
    others = [pool.submit(divmod, n, 2) for n in range(5)]
    hold.release()
    assert first.result(WAIT) == "first"
    assert [future.result(WAIT) for future in others] == [divmod(n, 2) for n in range(5)]
    until(lambda: pool.stats().recycles.get("lost") == 1)


def test_r19_a_worker_dies_while_it_starts(new_pool, new_hold, quiet):
    """The pool that has served lives on; with a worker beside it nobody notices."""
    pool, hold, calls = new_pool(2, initializer=lambda: initialize()), new_hold(), []

    def initialize():
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("only this one")

    first = pool.submit(hold, "first")
    hold.wait_started()
    second = pool.submit(int)
    until(lambda: pool.stats().failed_starts == 1)
    hold.release()
    assert first.result(WAIT) == "first"
    assert second.result(WAIT) == 0


def test_r20_an_idle_pool_starts_no_workers(new_pool):
    before = threading.active_count()
    pool = new_pool(4, min_workers=2)
    pool.stats()
    repr(pool)
    assert threading.active_count() == before
    pool.submit(int).result(WAIT)
    until(lambda: len(pool._engine.dispatch.idle) == 2)
    pool.close()
    until(lambda: threading.active_count() == before)
    pool.stats()
    assert pool.stats().workers == ()
    assert threading.active_count() == before
    pool.destroy()
    assert threading.active_count() == before


def test_r20_reading_does_not_start_workers(new_pool):
    """One task needs one worker, and another task a second only if the first is busy."""
    pool = new_pool(4)
    for _ in range(20):
        pool.submit(int).result(WAIT)
        until(lambda: len(pool._engine.dispatch.idle) == 1)
    assert len(pool.stats().workers) == 1


def test_r_a_callback_may_wait_for_its_own_pool(new_pool, new_hold):
    """A worker that runs a callback is nobody who will take the next task."""
    pool, hold, seen = new_pool(2), new_hold(), []

    def callback(future):
        seen.append(pool.submit(divmod, 7, 2).result(WAIT / 4))

    first = pool.submit(hold)
    first.add_done_callback(callback)
    hold.release()
    first.result(WAIT)
    until(lambda: seen)
    assert seen == [(3, 1)]


def test_r_two_tasks_that_need_each_other_both_start(new_pool, new_hold):
    """A worker that has just taken a task is nobody who will take the next one."""
    pool, hold = new_pool(2), new_hold()
    pool.submit(int).result(WAIT)
    until(lambda: len(pool._engine.dispatch.idle) == 1)
    first = type(pool.submit(int))(hold, ("first",))
    until(lambda: len(pool._engine.dispatch.idle) == 1)
    with first._condition:  # 1. the worker takes the task, and cannot begin it
        pool._engine.dispatch.put(first)
        until(lambda: not pool._engine.dispatch.queue)
        second = pool.submit(divmod, 7, 2)  # 2. nobody else is here: a second worker starts
    assert second.result(WAIT / 4) == (3, 1)
    hold.release()
    assert first.result(WAIT) == "first"


def test_r_a_start_that_finds_no_thread_strands_nothing(new_pool, new_hold):
    """The last worker goes, and there is no thread for its successor: what is queued is told."""
    pool, hold = new_pool(1, limits=Limits(tasks=1)), new_hold()
    failing = []

    class Thread(threading.Thread):
        def start(self):
            if failing:
                raise RuntimeError("can't start new thread")
            super().start()

    engine = pool._engine
    engine.settings = engine.settings._replace(new_thread=Thread)
    first = pool.submit(hold)
    hold.wait_started()
    failing.append(True)
    futures = [pool.submit(int) for _ in range(4)]
    hold.release()
    first.result(WAIT)
    for future in futures:
        try:
            future.result(WAIT / 4)
        except (BrokenRecyclePool, WorkerStartError):
            pass
    failing.clear()
    assert pool.submit(int).result(WAIT) == 0
