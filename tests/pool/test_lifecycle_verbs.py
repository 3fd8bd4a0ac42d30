"""Every verb, two at a time, in every state of the table: they end, with what the table allows.

The older verbs stand in test_lifecycle.py, with more of their details; pauses of dispatch in
test_lifecycle_pause.py. A schedule that fires is a verb: its pool's wall clock is a day later.
"""

import gc
from itertools import combinations_with_replacement

import pytest
from listening import no_lingering  # noqa: F401
from scheduling import DAY
from stages import (  # noqa: F401
    ABORTED,
    ABORTS,
    CANCELLED,
    CLOSED,
    ENDS,
    PAUSE_ONLY,
    SHUTDOWNS,
    Stage,
    allowed,
    alone,
    called,
    quiet,
    staged,
)
from stages import VERBS as ALL_VERBS
from staging import WAIT, until

from recyclepool import CloseReport, PoolClosedError, PoolState


@pytest.fixture
def new_stage():
    yield from staged(Stage)


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
VERBS = [verb for verb in ALL_VERBS if verb not in PAUSE_ONLY]


def call_together(stage, verbs, state):
    """What comes of them. Nobody here holds the pool when that is over."""
    pool, task, calls = stage.pool, stage.task, stage.call_together(verbs)
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


PLACES = {"resize", "recycle", "soft_restart", "cancel", "fire"}  # these make one
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
    if {"fire"} < {*verbs} <= {"fire", *ENDS}:
        _check_nothing_fires(stage)
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


def _check_nothing_fires(stage):
    """An end is over, or begins to be: a schedule starts nobody then, and opens no pool."""
    engine = stage.pool._engine
    until(lambda: not engine.roster.workers, "all go")
    started = engine.roster.generations.copy()
    stage.wall.jump(DAY)
    assert engine.roster.generations == started
    assert not engine.roster.workers
    assert stage.too_late == []


def _resized(stats):
    """A resize in a pool that closes is refused; which was first is not known."""
    return stats.max_workers == 3
