"""Every verb, two at a time, in every state of the table: they end, with what the table allows.

The older verbs stand in test_lifecycle.py, with more of their details.
"""

import asyncio
import gc
import logging
import threading
import weakref
from concurrent.futures import CancelledError
from itertools import combinations_with_replacement

import pytest
from listening import Obedient, Stuck, no_lingering  # noqa: F401
from staging import WAIT, in_thread, until

from recyclepool import (
    BrokenRecyclePool,
    CloseReport,
    Limits,
    PoolClosedError,
    PoolState,
    PoolStats,
    RecyclePool,
    TaskAbortedError,
    _endings,
)
from recyclepool._future import Future

LIMITS = Limits(age="1h", idle="1h", task_timeout="1h", hang="1h", grace=WAIT, max_abandoned=9)


@pytest.fixture(autouse=True)
def quiet(caplog, monkeypatch):
    """No log lines for workers that are made to fail; no long wait for what is given up."""
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    monkeypatch.setattr(_endings, "ESCALATION", 0.03)


@pytest.fixture
def new_stage():
    made, before = [], set(threading.enumerate())

    def make():
        made.append(Stage())
        return made[-1]

    yield make
    for stage in made:
        stage.take_down()
    # Spares each test a garbage collection. (One that is just being started cannot be joined.)
    until(lambda: not set(threading.enumerate()) - before)


class Stage:
    """A pool in one of its states. It alone holds the pool: `drop` drops it."""

    def __init__(self):
        self.failing = False
        self._make(2)
        self.task = Future()  # that the pool runs, or ran
        self.task.set_result(None)
        self.stuck = Stuck()
        self.pending = None

    def _make(self, size, **options):
        options |= {"initializer": self._initialize, "limits": LIMITS}
        self.pool = RecyclePool(size, min_workers=1, **options)
        self.watched = weakref.ref(self.pool)

    def _initialize(self):
        if self.failing:
            raise OSError("no initializer today")

    def take_down(self):
        self.stuck.release()
        self.failing = False
        if self.pool is not None:
            self.pool.destroy(WAIT)
            self.pool.shutdown()

    # The states.

    def open_empty(self):
        pass

    def open_idle(self):
        self.task = self.pool.submit(int)
        assert self.task.result(WAIT) == 0

    def open_busy(self):
        task = Obedient()
        self.task = self.pool.submit(task)
        task.wait_started()

    def open_full(self):
        """Busy, its queue full, and submitters wait for a place."""
        self.pool.shutdown()
        self._make(1, max_queue=1)
        self.open_busy()
        pool, dispatch = self.pool, self.pool._engine.dispatch
        self.queued = pool.submit(divmod, 7, 2)
        self.blocked = [
            in_thread(pool.submit, divmod, 7, 2),
            in_thread(pool.options(timeout=WAIT).submit, divmod, 7, 2),
            in_thread(lambda: next(pool.map(divmod, [7], [2]))),
            in_thread(lambda: asyncio.run(pool.run(divmod, 7, 2))),
        ]
        until(lambda: len(dispatch.waiting) == len(self.blocked))

    def closing(self):
        self.open_busy()
        self.pending = in_thread(self.pool.close)
        until(lambda: self.pool.stats().state is PoolState.CLOSING)

    def closing_overdue(self):
        """It escalates: somebody does not end, and is about to be given up."""
        self.task = self.pool.submit(self.stuck)
        self.stuck.wait_started()
        self.pending = in_thread(self.pool.close, 0.0)
        until(lambda: self.pool._engine.roster.aborting or self.pending.is_over())

    def destroyed_reopened(self):
        self.open_busy()
        self.pool.destroy(WAIT)
        assert self.pool.start().result(WAIT) == 1

    def broken(self):
        self.failing = True
        self.task = self.pool.submit(int)
        assert isinstance(self.task.exception(WAIT), BrokenRecyclePool)

    def shutdown(self):
        self.open_idle()
        self.pool.shutdown()


STATES = [
    "open_empty",
    "open_idle",
    "open_busy",
    "closing",
    "closing_overdue",
    "destroyed_reopened",
    "broken",
    "shutdown",
]
VERBS = {
    "submit": lambda pool, stage: pool.submit(divmod, 7, 2),
    "options_submit": lambda pool, stage: pool.options(timeout=WAIT).submit(divmod, 7, 2),
    "start": lambda pool, stage: pool.start(),
    "resize": lambda pool, stage: pool.resize(3),
    "recycle": lambda pool, stage: pool.recycle(0),
    "soft_restart": lambda pool, stage: pool.soft_restart(),
    "cancel": lambda pool, stage: pool.cancel(stage.task),
    "wait_idle": lambda pool, stage: pool.wait_idle(0.01),
    "stats": lambda pool, stage: pool.stats(),
    "close": lambda pool, stage: pool.close(),
    "close_in_time": lambda pool, stage: pool.close(0.01),
    "destroy": lambda pool, stage: pool.destroy(WAIT if stage.pending is None else 0.01),
    "shutdown": lambda pool, stage: pool.shutdown(),
    "shutdown_later": lambda pool, stage: pool.shutdown(wait=False),
    "drop": lambda pool, stage: setattr(stage, "pool", None),
}
TASKS = {"submit", "options_submit"}
WORKERS = {"start", "recycle", "soft_restart"}  # a future of these
SHUTDOWNS = {"shutdown", "shutdown_later"}
ABORTS = {"close_in_time", "destroy"}
CLOSES = {"close", *ABORTS}
ENDS = CLOSES | SHUTDOWNS

CLOSED, BROKEN, CANCELLED, ABORTED = (
    PoolClosedError.__name__,
    BrokenRecyclePool.__name__,
    CancelledError.__name__,
    TaskAbortedError.__name__,
)
# What may come of a verb that is alone, in each kind of state; an end's is a report or None.
IN_STATE = {
    "open": {
        "submit": {"done"},
        "options_submit": {"done"},
        "start": {"number"},
        "resize": {"None"},
        "recycle": {"number"},
        "soft_restart": {"number"},
        "cancel": {"yes", "no"},
        "wait_idle": {"yes", "no"},
        "stats": {"stats"},
    },
    "closing": {
        "submit": {CLOSED},
        "options_submit": {CLOSED},
        "start": {CLOSED},
        "resize": {CLOSED},
        "recycle": {CLOSED},
        "soft_restart": {CLOSED},
        "cancel": {"yes", "no"},
        "wait_idle": {"yes", "no"},
        "stats": {"stats"},
    },
    "broken": {
        "submit": {BROKEN},
        "options_submit": {BROKEN},
        "start": {BROKEN},
        "resize": {BROKEN},
        "recycle": {BROKEN},
        "soft_restart": {BROKEN},
        "cancel": {"no"},
        "wait_idle": {"yes"},
        "stats": {"stats"},
    },
}
KIND = {
    "open_empty": {"open"},
    "open_idle": {"open"},
    "open_busy": {"open"},
    "destroyed_reopened": {"open"},
    "closing": {"closing", "open"},  # it may end meanwhile
    "closing_overdue": {"closing", "open"},
    "broken": {"broken"},
    "shutdown": {"closing"},
}
# More precise: what is known when nothing else happens.
KNOWN = {
    ("cancel", "open_empty"): {"no"},
    ("cancel", "open_idle"): {"no"},
    ("cancel", "open_busy"): {"yes"},
    ("cancel", "destroyed_reopened"): {"no"},
    ("cancel", "closing_overdue"): {"no"},
    ("cancel", "shutdown"): {"no"},
    ("wait_idle", "open_empty"): {"yes"},
    ("wait_idle", "open_idle"): {"yes"},
    ("wait_idle", "open_busy"): {"no"},
    ("wait_idle", "destroyed_reopened"): {"yes"},
    ("wait_idle", "shutdown"): {"yes"},
    ("recycle", "open_empty"): {"number"},
}


def alone(verb, state):
    if verb in CLOSES:
        return {"report"}
    if verb in SHUTDOWNS or verb == "drop":
        return {"None"}
    if (verb, state) in KNOWN:
        return KNOWN[verb, state]
    return set().union(*(IN_STATE[kind][verb] for kind in KIND[state]))


def allowed(verb, other, state):
    """What may come of a verb while the other goes on: before it, amid it, or after it."""
    outcomes = set(alone(verb, state))
    if verb in ENDS or verb in ("drop", "stats"):
        return outcomes
    if verb in ("cancel", "wait_idle"):
        harmless = {"stats", "resize", "start", "recycle", "soft_restart", "drop"}
        return outcomes if other in harmless else {"yes", "no"}
    if other in ENDS:
        outcomes |= {CLOSED}
        if state in ("broken", "closing", "closing_overdue"):  # it is open, or broken, again
            outcomes |= IN_STATE["open"][verb]
        if state == "broken":
            outcomes |= {BROKEN, "WorkerStartError"}
    if other in ABORTS and verb in TASKS:
        outcomes |= {CANCELLED, ABORTED}
    if other == "drop" and verb in WORKERS:
        outcomes |= {CLOSED}  # it ends before that is settled
    return outcomes


def called(outcome):
    """What came of a verb, in one word."""
    if isinstance(outcome, Future):
        try:
            outcome = outcome.result(WAIT)
        except (CancelledError, Exception) as error:
            outcome = error
    if isinstance(outcome, BaseException):
        return type(outcome).__name__
    if isinstance(outcome, bool):
        return "yes" if outcome else "no"
    kinds = {int: "number", PoolStats: "stats", CloseReport: "report"}
    if outcome == (3, 1):
        return "done"
    return kinds.get(type(outcome), str(outcome))


def call_together(stage, verbs, state):
    """What comes of them. Nobody here holds the pool when that is over."""
    pools = [stage.pool for _ in verbs]  # each call drops its own
    task, together = stage.task, threading.Barrier(len(verbs) + 1)

    def run(verb):
        pool = pools.pop()
        together.wait(WAIT)
        return VERBS[verb](pool, stage)

    pool = stage.pool
    calls = [in_thread(run, verb) for verb in verbs]
    together.wait(WAIT)
    if not ABORTS & {*verbs} and state in ("open_busy", "closing"):
        if {"close", "shutdown"} >= {*verbs}:
            until(lambda: pool.stats().state is PoolState.CLOSING)
            assert not any(call.is_over() for call in calls)  # they drain
        for call, verb in zip(calls, verbs, strict=True):
            if verb == "wait_idle":
                call.outcome()
        while not task.done() and "cancel" not in verbs:  # what keeps those that drain
            pool.cancel(task)
    return [called(call.outcome()) for call in calls]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", VERBS)
def test_alone(new_stage, verb, state):
    stage = new_stage()
    getattr(stage, state)()
    (outcome,) = call_together(stage, [verb], state)
    assert outcome in alone(verb, state)
    _check_end(stage, [verb], state)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verbs", [*combinations_with_replacement(VERBS, 2)], ids="+".join)
def test_two_verbs_at_once(new_stage, verbs, state):
    stage = new_stage()
    getattr(stage, state)()
    outcomes = call_together(stage, verbs, state)
    for verb, other, outcome in zip(verbs, verbs[::-1], outcomes, strict=True):
        assert outcome in allowed(verb, other, state), (verb, other, outcome)
    _check_end(stage, verbs, state)


PLACES = {"resize", "recycle", "soft_restart", "cancel"}  # these make one
WITH_BLOCKED = [
    verbs
    for verbs in combinations_with_replacement([verb for verb in VERBS if verb != "drop"], 2)
    if ENDS & {*verbs}
]


@pytest.mark.parametrize("verbs", WITH_BLOCKED, ids="+".join)
def test_two_verbs_at_once_with_blocked_submitters(new_stage, verbs):
    """Those who wait for a place are told at once that there will be none, and never stranded."""
    stage = new_stage()
    stage.open_full()
    outcomes = call_together(stage, verbs, "open_busy")
    told = [called(call.outcome()) for call in stage.blocked]
    if PLACES & {*verbs}:
        assert {*told} <= {CLOSED, "done", CANCELLED, ABORTED}
    elif ABORTS & {*verbs} or {"close", "shutdown"} >= {*verbs}:
        assert {*told} == {CLOSED}
    else:  # beside another verb the stage's task may be over before the end begins
        assert {*told} <= {CLOSED, "done"}
    for verb, other, outcome in zip(verbs, verbs[::-1], outcomes, strict=True):
        assert outcome in allowed(verb, other, "open_busy"), (verb, other, outcome)
    assert called(stage.queued) in ({"done", CANCELLED, ABORTED} if ABORTS & {*verbs} else {"done"})
    pool = stage.pool
    if SHUTDOWNS & {*verbs}:
        pool.shutdown()
        assert pool.stats().state is PoolState.SHUTDOWN
    else:
        pool.close(WAIT)
        assert [pool.submit(abs, -n).result(WAIT) for n in range(3)] == [0, 1, 2]
        assert pool.wait_idle(WAIT)
    stats = pool.stats()
    assert (stats.queued, stats.rejected_full) == (0, 0)
    assert stats.rejected >= told.count(CLOSED)
    assert not pool._engine.dispatch.waiting


def _check_end(stage, verbs, state):
    """The pool is what it should be after these verbs, and everything is settled."""
    if stage.pending is not None:
        pending, stage.pending = stage.pending, None
        assert isinstance(pending.result(), CloseReport)
        del pending  # it knows the pool
    pool = stage.pool
    if pool is None:
        until(lambda: gc.collect() is not None and stage.watched() is None)
    elif SHUTDOWNS & {*verbs} or state == "shutdown":
        pool.shutdown()
        assert pool.stats().state is PoolState.SHUTDOWN
        assert pool.stats().queued == 0
        with pytest.raises(PoolClosedError):
            pool.submit(int)
    else:
        if state == "broken" and not ENDS & {*verbs}:
            assert pool.stats().state is PoolState.BROKEN
        stage.failing = False
        pool.cancel(stage.task)
        pool.close(WAIT)
        assert pool.stats().state is PoolState.OPEN
        assert [pool.submit(abs, -n).result(WAIT) for n in range(3)] == [0, 1, 2]
        assert pool.wait_idle(WAIT)
        stats = pool.stats()
        assert stats.max_workers == (3 if "resize" in verbs and _resized(stats) else 2)
    if state != "open_empty":
        assert stage.task.done() or state == "open_busy"


def _resized(stats):
    """A resize in a pool that closes is refused; which was first is not known."""
    return stats.max_workers == 3
