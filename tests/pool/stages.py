"""Pools in each of their states, the verbs, and what may come of these: the lifecycle's table."""

import asyncio
import logging
import threading
import weakref
from concurrent.futures import CancelledError

import pytest
from listening import Obedient, Stuck
from scheduling import DAY, Wall
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

LIMITS = {"age": "1h", "idle": "1h", "task_timeout": "1h", "hang": "1h", "grace": WAIT}


@pytest.fixture(autouse=True)
def quiet(caplog, monkeypatch):
    """No log lines for workers that are made to fail; no long wait for what is given up."""
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    monkeypatch.setattr(_endings, "ESCALATION", 0.03)


def staged(make):
    """A fixture's: what makes stages, which are taken down when the test is over."""
    made, before = [], set(threading.enumerate())

    def new():
        made.append(make())
        return made[-1]

    yield new
    for stage in made:
        stage.take_down()
    # Spares each test a garbage collection. (One that is just being started cannot be joined.)
    until(lambda: not set(threading.enumerate()) - before)


class Stage:
    """A pool in one of its states. It alone holds the pool: `drop` drops it."""

    limits = Limits(**LIMITS, max_abandoned=9)

    def __init__(self):
        self.failing = False
        self._make(2)
        self.task = Future()  # that the pool runs, or ran
        self.task.set_result(None)
        self.stuck = Stuck()
        self.pending = None

    def _make(self, size, **options):
        options |= {"initializer": self._initialize, "limits": self.limits}
        self.pool = RecyclePool(size, min_workers=1, schedule="@daily", **options)
        self.wall = Wall(self.pool)  # it stands still until the schedule is to fire
        self.watched = weakref.ref(self.pool)
        roster, self.too_late = self.pool._engine.roster, []  # slots of who is made after destroy
        new_worker = roster._new_worker

        def watched(slot, generation):
            if roster.aborting:
                self.too_late.append(slot)
            return new_worker(slot, generation)

        roster._new_worker = watched

    def _initialize(self):
        if self.failing:
            raise OSError("no initializer today")

    def take_down(self):
        self.stuck.release()
        self.failing = False
        if self.pool is not None:
            self.pool.destroy(WAIT)
            self.pool.shutdown()

    def call_together(self, verbs):
        """Each in a thread of its own, at once. Only these calls hold the pool meanwhile."""
        pools = [self.pool for _ in verbs]  # each call drops its own
        together = threading.Barrier(len(verbs) + 1)

        def run(verb):
            pool = pools.pop()
            together.wait(WAIT)
            return VERBS[verb](pool, self)

        calls = [in_thread(run, verb) for verb in verbs]
        together.wait(WAIT)
        return calls

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
    "shrink": lambda pool, stage: pool.resize(1),
    "cancel_queued": lambda pool, stage: pool.cancel([*stage.queued, stage.task][0]),
    "relieve": lambda pool, stage: stage.relieve(),
    "fire": lambda pool, stage: stage.wall.jump(DAY),
}
PAUSE_ONLY = {"shrink", "cancel_queued", "relieve"}
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
        "shrink": {"None"},
        "relieve": {"None"},
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
    "paused_idle": {"open"},
    "paused_queued": {"open"},
    "paused_busy": {"open"},
    "paused_full": {"open"},
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
    ("cancel", "paused_idle"): {"no"},
    ("cancel", "paused_queued"): {"no"},
    ("cancel", "paused_busy"): {"yes"},
    ("cancel", "paused_full"): {"no"},
    ("cancel_queued", "paused_idle"): {"no"},
    ("cancel_queued", "paused_queued"): {"yes"},
    ("cancel_queued", "paused_busy"): {"yes"},
    ("cancel_queued", "paused_full"): {"yes"},
    ("wait_idle", "paused_idle"): {"yes"},
    ("wait_idle", "paused_queued"): {"no"},
    ("wait_idle", "paused_busy"): {"no"},
    ("wait_idle", "paused_full"): {"no"},
}


def alone(verb, state):
    if verb in CLOSES:
        return {"report"}
    if verb in SHUTDOWNS or verb in ("drop", "fire"):
        return {"None"}  # what is no time of a schedule's is none: that is no error
    if (verb, state) in KNOWN:
        return KNOWN[verb, state]
    return set().union(*(IN_STATE[kind][verb] for kind in KIND[state]))


def allowed(verb, other, state):
    """What may come of a verb while the other goes on: before it, amid it, or after it."""
    outcomes = set(alone(verb, state))
    if verb in ENDS or verb in ("drop", "stats", "fire"):
        return outcomes
    if verb in ("cancel", "cancel_queued", "wait_idle"):
        harmless = {"stats", "resize", "shrink", "start", "recycle", "soft_restart", "fire"}
        if not state.startswith("paused"):
            harmless.add("drop")  # there it ends the pause
        if other in harmless:
            return outcomes
        return {"yes", "no"} if verb == "wait_idle" else outcomes | {"no"}
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
