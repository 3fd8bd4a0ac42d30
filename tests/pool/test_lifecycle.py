"""The life of a pool: its table of states and verbs, alone and two at a time; its end's report."""

import gc
import logging
import threading
import time
import weakref
from concurrent.futures import CancelledError
from itertools import combinations_with_replacement

import pytest
from staging import WAIT, in_thread, until

from recyclepool import (
    BrokenRecyclePool,
    CloseReport,
    Limits,
    PoolClosedError,
    PoolState,
    RecyclePool,
    TaskAbortedError,
    WorkerStartError,
    backends,
    current_worker,
    per_worker,
)


@pytest.fixture
def quiet(caplog):
    """No log lines on the terminal for workers that are made to fail."""
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")


# -- the table ------------------------------------------------------------------------------------


class Stage:
    """A pool in one of its states, with a task in it where the state needs one."""

    def __init__(self, new_pool, spin):
        self.failing = []
        self.spin = spin
        self.pool = new_pool(2, min_workers=1, initializer=self._initialize)
        self.running = None
        self.pending = None

    def _initialize(self):
        if self.failing:
            raise OSError("no initializer today")

    def fresh(self):
        pass

    def idle(self):
        assert self.pool.submit(int).result(WAIT) == 0

    def busy(self):
        self.running = self.pool.submit(self.spin, "spun")
        self.spin.wait_started()

    def closing(self):
        self.busy()
        self.pending = in_thread(self.pool.close)
        until(lambda: self.pool.stats().state is PoolState.CLOSING)

    def shutting_down(self):
        self.busy()
        self.pool.shutdown(wait=False)

    def shut_down(self):
        self.pool.shutdown()

    def broken(self):
        self.failing.append(True)
        assert isinstance(self.pool.submit(int).exception(WAIT), BrokenRecyclePool)

    def recover(self):
        self.failing.clear()


VERBS = {
    "submit": lambda pool: pool.submit(divmod, 7, 2),
    "start": lambda pool: pool.start(),
    "close": lambda pool: pool.close(),
    "close_in_time": lambda pool: pool.close(0.02),
    "destroy": lambda pool: pool.destroy(WAIT),
    "shutdown": lambda pool: pool.shutdown(),
    "shutdown_cancel": lambda pool: pool.shutdown(cancel_futures=True),
    "shutdown_later": lambda pool: pool.shutdown(wait=False),
}
ENDS = {verb for verb in VERBS if verb not in ("submit", "start")}
SHUTDOWNS = {"shutdown", "shutdown_cancel", "shutdown_later"}
STATES = ["fresh", "idle", "busy", "closing", "shutting_down", "shut_down", "broken"]

CLOSED = "PoolClosedError"
BROKEN = "BrokenRecyclePool"
# What each verb comes to when it is alone, in each state.
ALONE = {
    ("submit", "fresh"): (3, 1),
    ("submit", "idle"): (3, 1),
    ("submit", "busy"): (3, 1),
    ("submit", "closing"): CLOSED,
    ("submit", "shutting_down"): CLOSED,
    ("submit", "shut_down"): CLOSED,
    ("submit", "broken"): BROKEN,
    ("start", "fresh"): 1,
    ("start", "idle"): 1,
    ("start", "busy"): 1,
    ("start", "closing"): CLOSED,
    ("start", "shutting_down"): CLOSED,
    ("start", "shut_down"): CLOSED,
    ("start", "broken"): BROKEN,
}


def _outcome(call):
    """What came of a verb: a value, or the name of the error."""
    outcome = call.outcome()
    if hasattr(outcome, "exception"):
        try:
            outcome = outcome.result(WAIT)
        except (CancelledError, Exception) as error:
            outcome = error
    return type(outcome).__name__ if isinstance(outcome, BaseException) else outcome


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", VERBS)
def test_the_table(new_pool, new_spin, quiet, verb, state):
    stage = Stage(new_pool, new_spin())
    getattr(stage, state)()
    pool = stage.pool
    waits = verb in ENDS and state in ("busy", "closing", "shutting_down")
    calling = in_thread(VERBS[verb], pool)
    if waits and verb in ("close", "shutdown", "shutdown_cancel"):
        until(lambda: pool.stats().state is PoolState.CLOSING)
        assert not calling.is_over()  # it drains
        stage.spin.release()
    outcome = _outcome(calling)
    stage.spin.release()
    if verb in ENDS:
        if verb in SHUTDOWNS:
            assert outcome is None
        else:
            assert isinstance(outcome, CloseReport)
    else:
        assert outcome == ALONE[verb, state]
    if stage.pending is not None:
        stage.pending.result()
    terminal = verb in SHUTDOWNS or state in ("shutting_down", "shut_down")
    if state == "broken" and verb not in ENDS:
        assert pool.stats().state is PoolState.BROKEN
    elif terminal:
        pool.shutdown()
        assert pool.stats().state is PoolState.SHUTDOWN
        with pytest.raises(PoolClosedError):
            pool.submit(int)
    else:
        until(lambda: pool.stats().state is PoolState.OPEN)
        stage.recover()
        assert pool.submit(int).result(WAIT) == 0
    if stage.running is not None:
        assert stage.running.done() or verb not in ENDS
        killed = verb == "destroy" or (verb == "close_in_time" and waits)
        wanted = TaskAbortedError if killed else type(None)
        assert isinstance(stage.running.exception(WAIT), wanted)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verbs", [*combinations_with_replacement(VERBS, 2)], ids="+".join)
def test_two_verbs_at_once(new_pool, new_spin, quiet, verbs, state):
    """They end, each with an outcome that the table allows, and the pool is what it should be."""
    stage = Stage(new_pool, new_spin())
    getattr(stage, state)()
    pool, together = stage.pool, threading.Barrier(2)

    def call(verb):
        together.wait(WAIT)
        return VERBS[verb](pool)

    calls = [in_thread(call, verb) for verb in verbs]
    if not any(verb in ("destroy", "close_in_time") for verb in verbs):
        stage.spin.release()
    outcomes = [_outcome(call) for call in calls]
    stage.spin.release()
    for verb, other, outcome in zip(verbs, verbs[::-1], outcomes, strict=True):
        assert _is_allowed(verb, other, state, outcome), (verb, other, state, outcome)
    if stage.pending is not None:
        stage.pending.result()
    if SHUTDOWNS & {*verbs} or state in ("shutting_down", "shut_down"):
        pool.shutdown()
        assert pool.stats().state is PoolState.SHUTDOWN
        with pytest.raises(PoolClosedError):
            pool.submit(int)
    elif ENDS & {*verbs}:
        stage.recover()
        pool.close()
        assert pool.stats().state is PoolState.OPEN
        assert pool.submit(int).result(WAIT) == 0
    if stage.running is not None and ENDS & {*verbs}:
        assert stage.running.done()


def _is_allowed(verb, other, state, outcome):
    if verb in SHUTDOWNS:
        return outcome is None
    if verb in ENDS:
        return isinstance(outcome, CloseReport)
    allowed = {ALONE[verb, state]}
    if other in ENDS:  # it may come before, amid, or after it
        allowed |= {CLOSED}
        if state in ("closing", "broken"):
            allowed |= {ALONE[verb, "fresh"], BROKEN}
        if state == "broken" and verb == "start":
            allowed |= {"WorkerStartError"}
        if verb == "submit" and other in ("destroy", "close_in_time", "shutdown_cancel"):
            allowed |= {"CancelledError", "TaskAbortedError"}
    if state == "closing" and verb in ("submit", "start"):
        allowed |= {ALONE[verb, "fresh"]}  # after the end, in the next epoch
    return outcome in allowed


# -- what an end tells ----------------------------------------------------------------------------


def test_the_report_of_a_drain(new_pool, new_spin):
    pool, spin = new_pool(1), new_spin()
    pool.submit(int).result(WAIT)  # before: not counted
    good = pool.submit(spin)
    bad = pool.submit(divmod, 1, 0)
    cancelled = pool.submit(int)
    spin.wait_started()
    assert cancelled.cancel()
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    spin.release()
    report = closing.result()
    assert good.done()
    assert isinstance(bad.exception(0), ZeroDivisionError)
    assert (report.completed, report.cancelled, report.aborted) == (2, 1, 0)
    assert (report.abandoned, report.timed_out) == ((), False)
    assert 0 < report.seconds < WAIT


def test_the_report_of_a_destroy(new_pool, new_spin, new_hold):
    pool, spin, hold = new_pool(2), new_spin(), new_hold()

    def stuck():
        hold()

    pool.submit(spin)
    pool.submit(stuck)
    spin.wait_started()
    hold.wait_started()
    queued = [pool.submit(int) for _ in range(3)]
    report = pool.destroy(0.1)
    assert (report.completed, report.cancelled, report.aborted) == (0, 3, 2)
    assert not report.timed_out
    (worker,) = report.abandoned
    assert worker.task_name.endswith("stuck")
    assert "in stuck" in worker.stack
    assert worker.generation == 1
    assert all(future.cancelled() for future in queued)
    assert pool.stats().abandoned == 1
    hold.release()
    until(lambda: pool.stats().abandoned == 0)


def test_a_close_that_runs_out_of_time(new_pool, new_spin):
    """It returns within its deadline and half a second, and tells; the pool is usable again."""
    pool, spin = new_pool(1), new_spin()
    running = pool.submit(spin)
    queued = pool.submit(int)
    spin.wait_started()
    began = time.monotonic()
    report = pool.close(0.1)
    assert 0.1 <= time.monotonic() - began < 0.1 + 0.5 + WAIT / 2
    assert report.timed_out
    assert (report.cancelled, report.aborted, report.abandoned) == (1, 1, ())
    assert queued.cancelled()
    assert isinstance(running.exception(0), TaskAbortedError)
    assert pool.submit(int).result(WAIT) == 0


def test_one_deadline_for_all_workers(new_pool, new_hold):
    """They are waited for in parallel: four that end together need no more than one (A3)."""
    pool, hold, together = new_pool(4), new_hold(), threading.Barrier(4)
    futures = [pool.submit(lambda: (hold(), together.wait(WAIT))) for _ in range(4)]
    hold.wait_started(4)
    closing = in_thread(pool.close, WAIT)
    hold.release()
    report = closing.result()
    assert (report.completed, report.timed_out) == (4, False)
    assert all(future.exception(0) is None for future in futures)


@pytest.mark.parametrize("timeout", [0, 0.0, -1])
def test_a_close_without_patience(new_pool, new_spin, timeout):
    pool, spin = new_pool(1), new_spin()
    future = pool.submit(spin)
    spin.wait_started()
    assert pool.close(timeout).timed_out
    assert isinstance(future.exception(0), TaskAbortedError)


def test_the_report_of_nothing(new_pool):
    pool = new_pool(1)
    pool.shutdown()
    assert pool.close() == pool.destroy() == CloseReport()


def test_an_end_is_one_for_the_pool_and_no_more(new_pool):
    """Epoch after epoch, by turns; generations go on, so no worker is taken for another."""
    pool = new_pool(1)
    for epoch in range(1, 11):
        assert pool.submit(lambda: current_worker().generation).result(WAIT) == epoch
        (pool.close if epoch % 2 else pool.destroy)()
        assert pool.stats().state is PoolState.OPEN


def test_shutdown_that_meets_the_end_of_a_close_is_not_lost(new_pool, monkeypatch):
    """1. shutdown has looked at the pool; 2. a close ends; 3. shutdown goes on."""
    pool = new_pool(1)
    pool.submit(int).result(WAIT)
    engine = pool._engine
    order = engine._order

    def between(verb, *args):
        if verb.__name__ == "_close" and threading.current_thread().name == "shutdown":
            monkeypatch.undo()
            pool.close()
        order(verb, *args)

    monkeypatch.setattr(engine, "_order", between)
    thread = threading.Thread(target=pool.shutdown, name="shutdown")
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert pool.stats().state is PoolState.SHUTDOWN
    with pytest.raises(PoolClosedError):
        pool.submit(int)


def test_shutdown_leaves_what_is_accepted_to_finish(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    futures = [pool.submit(hold, n) for n in range(3)]
    hold.wait_started()
    pool.shutdown(wait=False)
    assert pool.stats().state is PoolState.CLOSING
    hold.release()
    assert [future.result(WAIT) for future in futures] == [0, 1, 2]
    until(lambda: pool.stats().state is PoolState.SHUTDOWN)


def test_shutdown_may_cancel_what_is_queued(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    running, queued = pool.submit(hold, "ran"), [pool.submit(int) for _ in range(3)]
    hold.wait_started()
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in queued)
    hold.release()
    pool.shutdown()
    assert running.result(0) == "ran"
    assert pool.stats().cancelled == 3


def test_with_is_shutdown(new_pool):
    with new_pool(2) as pool:
        futures = [pool.submit(divmod, n, 3) for n in range(10)]
    assert [future.result(0) for future in futures] == [divmod(n, 3) for n in range(10)]
    assert pool.stats().state is PoolState.SHUTDOWN


# -- start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [0, 1, 3])
def test_start_warms_up(new_pool, least):
    pool = new_pool(3, min_workers=least)
    assert pool.start().result(WAIT) == least
    assert len(pool.stats().workers) == least
    assert pool.start().result(WAIT) == least  # it is there already
    until(lambda: len(pool._engine.dispatch.idle) == least)
    threads = pool._threads
    if least:
        assert pool.submit(threading.current_thread).result(WAIT) in threads


def test_start_is_settled_only_when_all_are_ready(new_pool, new_hold):
    hold, calls = new_hold(), []

    def initializer():
        calls.append(1)
        if len(calls) == 3:
            hold()

    pool = new_pool(3, min_workers=3, initializer=initializer)
    starts = [pool.start() for _ in range(2)]
    hold.wait_started()
    until(lambda: pool._engine.roster.serving() == 2)
    assert not any(start.done() for start in starts)
    hold.release()
    assert [start.result(WAIT) for start in starts] == [3, 3]


@pytest.mark.parametrize(
    ("end", "error"), [("close", PoolClosedError), ("destroy", PoolClosedError)]
)
def test_start_that_is_overtaken(new_pool, new_hold, end, error):
    hold = new_hold()
    pool = new_pool(1, min_workers=1, initializer=hold)
    start = pool.start()
    hold.wait_started()
    ending = in_thread(getattr(pool, end))
    assert isinstance(start.exception(WAIT), error)
    hold.release()
    ending.result()


def test_start_that_fails(new_pool, quiet):
    failing = [True]

    def initializer():
        if failing:
            raise OSError("database is away")

    pool = new_pool(2, min_workers=2, initializer=initializer)
    error = pool.start().exception(WAIT)
    assert isinstance(error, (WorkerStartError, BrokenRecyclePool))
    assert "database is away" in str(error)
    until(lambda: pool.stats().state is PoolState.BROKEN)
    assert isinstance(pool.start().exception(WAIT), BrokenRecyclePool)
    failing.clear()
    pool.close()
    assert pool.start().result(WAIT) == 2


def test_the_least_number_is_kept(new_pool):
    """With the first task, not with the pool; and again after each replacement."""
    pool = new_pool(4, min_workers=3, limits=Limits(tasks=2))
    assert pool.stats().workers == ()
    for n in range(20):
        assert pool.submit(divmod, n, 3).result(WAIT) == divmod(n, 3)
    until(lambda: pool._engine.roster.serving() == 3)
    pool.close()
    assert pool.stats().workers == ()


# -- broken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "destroy"])
def test_a_broken_pool(new_pool, new_hold, caplog, end):
    """What is queued is told, submits are refused, the log has the reason; after an end, again."""
    caplog.set_level(logging.ERROR, "concurrent.futures")
    failing, hold = [True], new_hold()

    def initializer():
        hold()
        if failing:
            raise OSError("database is away")

    pool = new_pool(2, initializer=initializer)
    futures = [pool.submit(int) for _ in range(4)]
    hold.release()
    for future in futures:
        error = future.exception(WAIT)
        assert isinstance(error, BrokenRecyclePool)
        assert "database is away" in str(error)
        cause = error.__cause__
        assert isinstance(cause if isinstance(cause, OSError) else cause.__cause__, OSError)
    assert pool._broken
    with pytest.raises(BrokenRecyclePool, match=r"close\(\) or destroy\(\) it"):
        pool.submit(int)
    assert "Exception in initializer" in caplog.text
    failing.clear()
    getattr(pool, end)()
    assert not pool._broken
    assert pool.submit(int).result(WAIT) == 0
    pool.close()
    stats = pool.stats()
    assert (stats.failed, stats.completed, stats.rejected) == (4, 1, 1)


def test_a_pool_that_has_served_survives_a_failing_start(new_pool, quiet):
    """Four in a row; the fifth breaks it if nobody serves."""
    calls, failing = [], []

    def initializer():
        calls.append(1)
        if failing and failing.pop():
            raise OSError("for a while")

    pool = new_pool(1, initializer=initializer, limits=Limits(tasks=1))
    assert pool.submit(int).result(WAIT) == 0
    until(lambda: pool._engine.roster.serving() == 1)
    failing.extend([True] * 4)
    assert [pool.submit(divmod, n, 3).result(WAIT) for n in range(5)] == [
        divmod(n, 3) for n in range(5)
    ]
    assert pool.stats().failed_starts == 4
    failing.extend([True] * 50)
    outcomes = [pool.submit(int) for _ in range(3)]
    errors = [future.exception(WAIT) for future in outcomes]
    assert any(isinstance(error, BrokenRecyclePool) for error in errors)
    assert pool.stats().state is PoolState.BROKEN
    failing.clear()
    pool.destroy()
    assert pool.submit(int).result(WAIT) == 0


# -- a pool's own tasks ---------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["task", "callback", "initializer", "finalizer", "per_worker"])
@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("close()", lambda pool: pool.close()),
        ("close()", lambda pool: pool.close(1)),
        ("destroy()", lambda pool: pool.destroy()),
        ("shutdown(wait=True)", lambda pool: pool.shutdown()),
    ],
    ids=["close", "close_in_time", "destroy", "shutdown"],
)
def test_s21_ends_from_an_own_task_are_refused(new_pool, new_hold, place, verb, call):
    seen, hold = [], new_hold()

    def attempt(*_):
        hold()
        try:
            call(pool)
        except RuntimeError as error:
            seen.append(str(error))

    def teardown():
        yield
        attempt()

    pool = new_pool(
        1,
        initializer=attempt if place == "initializer" else None,
        finalizer=attempt if place == "finalizer" else None,
        name="own",
    )
    future = pool.submit({"task": attempt, "per_worker": per_worker(teardown)}.get(place, int))
    if place == "callback":
        hold.release()
        before = pool.submit(hold)
        before.add_done_callback(attempt)
        before.result(WAIT)
    hold.release()
    future.result(WAIT)
    pool.close()
    (message,) = seen
    assert message.startswith(f"{verb} was called from one of the tasks or callbacks of <Recycle")
    assert "'own'" in message
    assert message.endswith("Call it from another thread, or shutdown(wait=False)")


def test_s21_a_callback_told_by_a_destroy_may_not_end_its_pool_either(new_pool, new_spin):
    """A cancelled future's callback runs on no worker: there they raise, or end."""
    pool, spin, outcomes = new_pool(1), new_spin(), []
    pool.submit(spin)
    queued = pool.submit(int)
    spin.wait_started()

    def callback(_):
        for verb in (pool.close, pool.destroy):
            try:
                outcomes.append(verb())
            except RuntimeError as error:
                outcomes.append(str(error))

    queued.add_done_callback(callback)
    pool.destroy(WAIT / 4)
    until(lambda: len(outcomes) == 2)
    for outcome in outcomes:
        assert isinstance(outcome, CloseReport) or "it would wait for itself" in outcome


def test_shutdown_without_waiting_is_allowed_to_an_own_task(new_pool):
    pool = new_pool(1)
    future = pool.submit(lambda: pool.shutdown(wait=False))
    future.result(WAIT)
    with pytest.raises(PoolClosedError):
        pool.submit(int)
    until(lambda: pool.stats().state is PoolState.SHUTDOWN)


# -- dropped pools, abandoned workers -------------------------------------------------------------


def test_a_dropped_pool_drains_and_ends(new_hold):
    hold = new_hold()
    pool = RecyclePool(2)
    futures = [pool.submit(hold, n) for n in range(5)]
    hold.wait_started(2)
    threads, watched = pool._threads, weakref.ref(pool)
    del pool
    gc.collect()
    assert watched() is None
    hold.release()
    assert [future.result(WAIT) for future in futures] == list(range(5))
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_a_pool_dropped_by_its_own_task_ends(new_hold):
    """The last reference goes in the worker itself."""
    hold, box = new_hold(), []
    box.append(RecyclePool(1))
    future = box[0].submit(lambda: (hold(), box.pop(), gc.collect())[0])
    hold.wait_started()
    (thread,) = box[0]._threads
    hold.release()
    future.result(WAIT)
    thread.join(WAIT)
    assert not thread.is_alive()
    assert not box


def test_an_idle_dropped_pool_ends():
    pool = RecyclePool(3, min_workers=3)
    pool.start().result(WAIT)
    threads = pool._threads
    assert len(threads) == 3
    del pool
    gc.collect()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_an_abandoned_worker_is_counted_and_its_late_result_goes_nowhere(new_pool, new_hold):
    finalized = []
    pool = new_pool(
        1,
        backend=backends.Thread(interrupt=False),
        finalizer=lambda: finalized.append(current_worker().generation),
    )
    hold = new_hold()
    future, callbacks = pool.submit(hold, "late"), []
    future.add_done_callback(callbacks.append)
    hold.wait_started()
    (thread,) = pool._threads
    pool.destroy(0.05)
    stats = pool.stats()
    assert (stats.abandoned, stats.aborted, stats.completed) == (1, 1, 0)
    assert "1 abandoned" in repr(pool)
    (shown,) = [worker for worker in stats.workers if worker.state == "abandoned"]
    assert (shown.slot, shown.generation) == (0, 1)
    assert finalized == []
    hold.release()
    thread.join(WAIT)
    assert isinstance(future.exception(0), TaskAbortedError)
    assert callbacks == [future]
    assert finalized == [1]  # late, but it runs
    stats = pool.stats()
    assert (stats.abandoned, stats.aborted, stats.completed, stats.submitted) == (0, 1, 0, 1)


def test_a_worker_that_hangs_in_a_callback_is_given_up(new_pool, new_hold):
    """Its task is settled long since; it runs none that could be named."""
    pool, callback = new_pool(1), new_hold()
    hold = new_hold()
    future = pool.submit(hold, "settled")
    future.add_done_callback(callback)
    hold.release()
    callback.wait_started()
    report = pool.destroy(0.05)
    (stuck,) = report.abandoned
    assert stuck.task_name is None
    assert "_invoke_callbacks" in stuck.stack
    assert (report.aborted, report.timed_out) == (0, False)
    assert future.result(0) == "settled"
    assert pool.submit(int).result(WAIT) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_callbacks_that_a_destroy_tells_do_not_depend_on_each_other(new_pool, new_spin, new_hold):
    """One hangs, one raises what ends a thread: the others run, and destroy returns."""
    pool, spin, hang, told = new_pool(1), new_spin(), new_hold(), []
    pool.submit(spin)
    queued = [pool.submit(int) for _ in range(6)]
    spin.wait_started()

    def leave(_):
        raise SystemExit

    queued[0].add_done_callback(leave)
    queued[5].add_done_callback(hang)
    for future in queued[1:5]:
        future.add_done_callback(told.append)
    pool.destroy(1.0)
    until(lambda: told == queued[1:5])
    hang.wait_started()
    assert pool.submit(int).result(WAIT) == 0


def test_thread_that_is_not_to_be_interrupted(new_pool):
    """Nothing is ever raised in its tasks: `stopping` is set, and a task may look at it."""
    pool = new_pool(1, backend=backends.Thread(interrupt=False))
    started, seen = threading.Event(), []

    def polite():
        me = current_worker()
        assert not me.stopping.is_set()
        started.set()
        try:
            seen.append(me.stopping.wait(WAIT))
        except BaseException as error:
            seen.append(error)
            raise

    future = pool.submit(polite)
    assert started.wait(WAIT)
    report = pool.destroy(WAIT)
    assert seen == [True]
    assert report.abandoned == ()
    assert isinstance(future.exception(0), TaskAbortedError)


@pytest.mark.parametrize("interrupt", [True, False])
def test_a5_stopping_may_be_waited_for_in_a_thread_of_the_task(new_pool, interrupt):
    pool = new_pool(1, backend=backends.Thread(interrupt=interrupt))
    flushed = threading.Event()

    def task():
        stopping = current_worker().stopping
        threading.Thread(target=lambda: stopping.wait(WAIT) and flushed.set()).start()

    pool.submit(task).result(WAIT)
    assert not flushed.is_set()
    report = pool.close(WAIT)
    assert flushed.wait(WAIT)
    assert not report.timed_out


# -- finalizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "destroy", "shutdown"])
def test_a4_the_finalizer_runs_once_per_worker(new_pool, end):
    initialized, finalized = [], []
    name = threading.current_thread

    pool = new_pool(
        3,
        min_workers=3,
        initializer=lambda: initialized.append(name()),
        finalizer=lambda: finalized.append(name()),
    )
    pool.start().result(WAIT)
    getattr(pool, end)()
    assert len(finalized) == 3
    assert set(finalized) == set(initialized)


def test_a4_a_worker_that_was_never_ready_has_no_finalizer(new_pool, quiet):
    finalized = []

    def initializer():
        raise ValueError("never")

    pool = new_pool(1, initializer=initializer, finalizer=lambda: finalized.append(1))
    assert isinstance(pool.submit(int).exception(WAIT), BrokenRecyclePool)
    pool.close()
    assert finalized == []


def test_a4_teardown_errors_are_logged_and_reach_no_task(new_pool, caplog):
    def teardown():
        yield 5
        raise ValueError("in the teardown")

    def finalizer():
        raise OSError("in the finalizer")

    pool = new_pool(1, finalizer=finalizer)
    assert pool.submit(per_worker(teardown)).result(WAIT) == 5
    pool.close()
    until(lambda: "in the teardown" in caplog.text, "the teardown's error to be told")
    assert "in the finalizer" in caplog.text
