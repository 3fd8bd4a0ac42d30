"""WATCH: what time asks for, and the one thread that sleeps until then.

``next_deadline`` says what time asks of one worker; pure. After each order, with its lock held, the
engine has the ``Watchdog`` look at all of them, and do what is due, each thing once. The watchdog's
thread only sleeps until the soonest deadline, and orders a look: it decides nothing and runs no
foreign code. There is no thread while there is no deadline.

A worker that falls idle or takes its next task tells nobody. Its deadlines are found all the same:

1. ``sleep`` sets ``until`` to infinity, THEN looks at the workers, then sets ``until`` to the
   soonest deadline. For a worker that is busy that is at most ``patience`` from now, whatever it
   runs by then: a task that starts later has a later deadline.
2. A worker that was idle shows that it is not (``resting``), THEN reads ``until``
   (``busy_from``), and has the engine look if that is later than its first task's deadline. One of
   the two sees the other. So an idle pool has no wake-ups, and a busy one has no cost: a worker
   that goes from task to task reads nothing.
3. A task with a deadline of its own shows it, THEN reads ``until`` in the same way (``expect``).
4. The thread sleeps on a lock, until ``until``. It says how long it will sleep AFTER it read
   ``until``, and infinity before that; who sets an earlier ``until`` THEN reads what it said, and
   wakes it. Each thread has a lock of its own, and the one whose lock is not the right one ends.
5. Who left an order, and has no time to carry it out, sets ``called``, THEN wakes the thread; the
   thread takes ``called`` back, THEN orders a look, which carries out all. A thread that ends was
   told to with the engine's lock held, and who held that looks at the orders afterwards.
"""

import threading
from enum import Enum, auto
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from recyclepool._future import Future, name_of
from recyclepool._gate import Flag, here, new_lock, wake
from recyclepool._news import News
from recyclepool._orders import daemons_allowed
from recyclepool._roster import Roster
from recyclepool._rules import Rules
from recyclepool._worker import Worker
from recyclepool.errors import TaskTimeoutError, WorkerStartError
from recyclepool.states import PoolState, Reason, State
from recyclepool.units import format_duration

if TYPE_CHECKING:
    from recyclepool._timetable import Timetable

__all__ = ["Act", "Deadline", "Watchdog", "next_deadline"]

LINGER = 1.0  # seconds for which a thread without a deadline stays
FAILED_PAUSE = 1.0  # seconds until the next look after one that failed
FAR_FUTURE = 1e11  # seconds since 1970: a wall clock that says more is wrong
LEAST_PAUSE = 0.001  # seconds until the next look at what could not be done at once


class Act(Enum):
    """What time asks for."""

    LOOK = auto()  # nothing: look again
    NOT_READY = auto()  # it takes too long to start
    TIMEOUT = auto()
    HANG = auto()
    NUDGE = auto()  # its task was told to end, and is told again
    GIVE_UP = auto()  # its task was told to end, and does not
    TEARDOWN = auto()  # it takes too long to go
    AGE = auto()
    IDLE = auto()


class Deadline(NamedTuple):
    """When something is asked for, what, and for which task."""

    when: float
    act: Act
    task: Any = None
    started: float = 0.0  # the task


def next_deadline(
    worker: Worker, rules: Rules, now: float, *, aging: bool, shrinking: bool
) -> Deadline:
    """What time asks of this worker next, and when. Reads only.

    `aging`: may workers be replaced for their age; `shrinking`: may an idle one go?
    """
    if not worker.opened and not worker.vacated:  # also one that was retired while it starts
        timeless = worker.reported == inf
        return Deadline(inf if timeless else worker.born + rules.start_timeout, Act.NOT_READY)
    if worker.state is State.STARTING:
        return Deadline(inf, Act.LOOK)  # it waits for the end of another's task
    if worker.vacated or worker.undoing:
        return Deadline(worker.vacated_at + rules.teardown, Act.TEARDOWN)
    task, doom = worker.gate.task, worker.doom
    started = worker.task_started  # read after the task: never that of the task before
    if doom is not None and task is doom.task:
        if doom.deadline <= doom.nudge_at:
            return Deadline(doom.deadline, Act.GIVE_UP, task)
        return Deadline(doom.nudge_at, Act.NUDGE, task)
    deadlines = [_task_deadline(worker, task, started, rules, now)]
    if worker.state is State.SERVING and worker.due is None:
        if aging:
            deadlines.append(Deadline(worker.expires, Act.AGE))
        if shrinking and not worker.resting:
            deadlines.append(Deadline(now + rules.idle, Act.LOOK))
        elif shrinking and worker.reported < worker.idle_since:
            deadlines.append(Deadline(worker.idle_since + rules.idle, Act.IDLE))
    return min(deadlines, key=_when)


def _task_deadline(worker: Worker, task: Any, started: float, rules: Rules, now: float) -> Deadline:
    if worker.resting:
        return Deadline(inf, Act.LOOK)
    if task is None or not task.running():
        return Deadline(now + rules.patience, Act.LOOK)
    own = Deadline(task.deadline, Act.TIMEOUT, task, started)
    if worker.reported >= started:
        return own  # report_only told of it
    limit = Deadline(started + rules.task_timeout, Act.TIMEOUT, task, started)
    silence = Deadline(max(started, worker.heartbeat) + rules.hang, Act.HANG, task, started)
    return min(own, limit, silence, key=_when)


def _when(deadline: Deadline) -> float:
    return deadline.when


class Host(Protocol):
    """What the watchdog asks of its engine."""

    settings: Any
    rules: Rules
    roster: Roster
    news: News
    paused: Flag | None

    def look(self) -> None:
        """Order a look. Any thread; the rest is for who holds the lock."""

    def start_pause(self) -> float:
        """How long to wait until a start that failed is tried again."""

    def demand(self) -> None:
        """Look at the queue."""

    def make_due(self, worker: Worker, reason: Reason, why: str) -> None:
        """It is to be replaced."""

    def restart_by_schedule(self, slot: int | None, schedule: str) -> None:
        """Have all workers replaced, or that of a slot."""

    def retire_now(self, worker: Worker, reason: Reason, why: str = "") -> None:
        """It goes."""

    def stop(
        self, worker: Worker, task: Future[Any], error: Exception, reason: Reason, why: str
    ) -> None:
        """Its task has its end, and it goes."""

    def nudge(self, worker: Worker) -> None:
        """Tell its task again."""

    def give_up(self, worker: Worker, start_error: WorkerStartError | None = None) -> None:
        """It does not end, or does not start."""


class _Sleep:
    """Of one thread: the lock that it sleeps on, and for how long it said it would."""

    def __init__(self) -> None:
        self.lock = new_lock()
        self.lock.acquire()
        self.until = inf
        self.over = False  # there is nothing to come for: the thread ends
        self.called = False  # somebody left an order: WATCH 5


class Watchdog:
    """The timer thread of a pool, which is there only while there is a deadline."""

    def __init__(self, engine: Host) -> None:
        self.until = inf  # when it looks at the latest; written with the engine's lock held
        # Of its last look that did not fail: the wall clock, and when it was to look next.
        self.looked_at, self.due = time(), inf
        self._engine = engine
        self._patience = engine.rules.patience
        self._clock = engine.settings.clock
        self._resume_at = inf  # when starts that failed are tried again
        self.timetable: Timetable | None = None  # there while somebody is who may be replaced
        self._schedule_pause = inf  # seconds until it is to be asked
        self._fails = self._told = False
        self._sleep: _Sleep | None = None  # of the thread that is the right one
        self._thread: threading.Thread | None = None
        self._lingers_until = inf

    # -- any thread -------------------------------------------------------------------------------

    def busy_from(self, now: float) -> None:
        """By a worker that was idle (WATCH 2)."""
        if now + self._patience < self.until:
            self._engine.look()

    def expect(self, deadline: float) -> None:
        """By a worker whose task has a deadline of its own (WATCH 3)."""
        if deadline < self.until:
            self._engine.look()

    def come(self) -> None:
        """By who left an order (WATCH 5)."""
        sleep = self._sleep
        if sleep is None or sleep.over:
            self._engine.look()
        else:
            sleep.called = True
            wake(sleep.lock)

    # -- with the engine's lock held --------------------------------------------------------------

    def act(self) -> None:
        """Do what is due by now, once: what cannot be done yet is looked at again in a moment."""
        try:
            now = self._clock()
            self._resume(now)
            self._keep_schedules()
            for worker in self._engine.roster.workers.copy():
                deadline = self._next_deadline(worker, now)
                if deadline.when <= now:
                    self._act(worker, deadline, now)
        except Exception as error:
            self._report(error)

    def sleep(self) -> None:
        """Come again when there is something to do."""
        self.until = inf  # WATCH 1
        now = monotonic()
        try:
            now = self._clock()
            self._note_pause(now)
            deadlines = [self._next_deadline(w, now).when for w in self._engine.roster.workers]
            soonest = min([self._resume_at, now + self._schedule_pause, *deadlines])
        except Exception as error:
            soonest = now
            self._report(error)
        until = max(soonest, now + (FAILED_PAUSE if self._fails else LEAST_PAUSE))
        if not self._fails:
            self.looked_at, self.due = time(), until
        self._fails = False
        self._sleep_until(until, now)

    def _report(self, error: Exception) -> None:
        """A clock or a policy fails. That is told once, and tried again and again."""
        self._fails = True
        self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            self._engine.news.watchdog_failed(error)

    def _note_pause(self, now: float) -> None:
        """Starts that failed are tried again after a while: from the first that failed."""
        if not self._engine.roster.held_back:
            self._resume_at = inf
        elif self._resume_at == inf:
            self._resume_at = now + self._engine.start_pause()

    def _resume(self, now: float) -> None:
        self._note_pause(now)
        if self._resume_at <= now:
            self._engine.roster.resume()
            self._engine.demand()
            self._resume_at = inf

    def _keep_schedules(self) -> None:
        """Have those replaced whose time has come. A wall clock that fails stops nothing else."""
        engine, settings, roster = self._engine, self._engine.settings, self._engine.roster
        self._schedule_pause = inf
        if not settings.schedules:
            return
        if roster.state is not PoolState.OPEN or not roster.workers:
            self.timetable = None  # who comes next is as good as new
            return
        wall = self._wall()
        if wall is None:
            self._schedule_pause = FAILED_PAUSE
            return
        table = self.timetable
        if table is None:
            from recyclepool._timetable import Timetable

            table = self.timetable = Timetable(settings.schedules, settings.name, wall)
        table.meet(roster.holders(), wall)
        for slot, schedule in table.due(wall):
            engine.restart_by_schedule(slot, str(schedule))
        table.take(wall)
        self._schedule_pause = table.delay(wall)

    def _wall(self) -> float | None:
        """What the wall clock says; None: it fails, which is told once."""
        try:
            wall = float(self._engine.settings.wall())
            if 0.0 <= wall < FAR_FUTURE:
                return wall
            raise ValueError(f"the wall clock says {wall!r}")
        except Exception as error:
            self._tell(error)
            return None

    def _next_deadline(self, worker: Worker, now: float) -> Deadline:
        roster = self._engine.roster
        rules, aging = self._engine.rules, roster.state is PoolState.OPEN
        shrinking = rules.idle < inf and roster.may_shrink()  # which counts all workers
        return next_deadline(worker, rules, now, aging=aging, shrinking=shrinking)

    def _act(self, worker: Worker, deadline: Deadline, now: float) -> None:
        engine, act = self._engine, deadline.act
        if act is Act.NOT_READY:
            self._give_up_start(worker)
        elif act is Act.TIMEOUT or act is Act.HANG:
            self._time_out(worker, deadline, now)
        elif act is Act.NUDGE:
            engine.nudge(worker)
        elif act is Act.GIVE_UP or act is Act.TEARDOWN:
            engine.give_up(worker)
        elif act is Act.AGE:
            worker.expires = inf
            engine.make_due(worker, Reason.AGE, f"{format_duration(now - worker.born)} old")
        elif act is Act.IDLE:
            self._let_go(worker)

    def _give_up_start(self, worker: Worker) -> None:
        """It takes too long to start. One that is ready by now, and about to say so, stays."""
        engine = self._engine
        allowed = format_duration(engine.rules.start_timeout)
        error = WorkerStartError(f"a worker was not ready after {allowed}")
        if engine.rules.report_only:
            worker.reported = inf
            engine.news.start_failed(worker, str(error), engine.roster.failures, None)
        elif worker.claim_start("watchdog"):
            engine.give_up(worker, error)

    def _let_go(self, worker: Worker) -> None:
        """An idle worker goes, and nobody follows. One that is about to take a task stays."""
        engine, why = self._engine, f"idle for {format_duration(self._engine.rules.idle)}"
        if engine.rules.report_only:
            worker.reported = worker.idle_since
            engine.news.due(worker, Reason.IDLE, why, report_only=True)
        elif worker.dispatch.rouse(worker) or engine.paused is not None:  # or it waits for that
            engine.roster.shrink()
            engine.retire_now(worker, Reason.IDLE, why)

    def _time_out(self, worker: Worker, deadline: Deadline, now: float) -> None:
        engine, task, rules = self._engine, deadline.task, self._engine.rules
        hangs, own = deadline.act is Act.HANG, task.deadline <= now
        reason = Reason.HANG if hangs else Reason.TIMEOUT
        name = name_of(task) or "the task"
        if rules.report_only and not own:
            worker.reported = deadline.started
            engine.news.timed_out(worker, name, reason, now - deadline.started, True)
        elif hangs:
            why = f"{name} gave no sign of life for {format_duration(rules.hang)}"
            engine.stop(worker, task, TaskTimeoutError(why), reason, why)
        else:
            allowed = task.timeout if own else rules.task_timeout
            why = f"{name} ran longer than {format_duration(allowed)}"
            engine.stop(worker, task, TaskTimeoutError(why), reason, why)

    def _sleep_until(self, until: float, now: float) -> None:
        """Come again then; ``inf``: there is nothing to come for. Again and again harmless."""
        sleep = self._sleep
        if until < inf:
            self._lingers_until = inf
            sleep = self._stand_by()
        elif sleep is not None:
            # Where workers come and go, the next deadline is near: no thread for each of them.
            self._lingers_until = min(self._lingers_until, now + LINGER)
            if now < self._lingers_until and self._engine.roster.workers:
                until = self._lingers_until
            else:
                sleep.over = True
        self.until = until
        if sleep is not None and (until < sleep.until or sleep.over):
            wake(sleep.lock)
        if sleep is not None and sleep.over:
            self._sleep = None  # at last: an interrupt before this has it woken again

    def _stand_by(self) -> _Sleep | None:
        sleep, thread = self._sleep, self._thread
        if sleep is not None and not sleep.over and thread is not None and thread.is_alive():
            return sleep
        settings = self._engine.settings
        name = f"{settings.thread_names}_watchdog"
        sleep = _Sleep()
        # First: an interrupt leaves a thread that is not alive, and the next look makes another.
        self._thread = settings.new_thread(
            target=self._run, args=(sleep,), name=name, daemon=daemons_allowed()
        )
        self._sleep = sleep
        try:
            self._thread.start()
        except RuntimeError:
            self._sleep = None  # no thread is to be had: the next order tries again
        return self._sleep

    # -- its thread -------------------------------------------------------------------------------

    def _run(self, sleep: _Sleep) -> None:
        here.inside += 1
        while self._sleep is sleep and not sleep.over:
            sleep.until = inf  # first: who sets `until` from here on wakes us (WATCH 4)
            until = self.until
            left = until - self._now()
            if left > 0 and not sleep.called:
                sleep.until = until
                sleep.lock.acquire(True, min(left, threading.TIMEOUT_MAX))
            else:
                sleep.called = False
                self._engine.look()
                # That ends in _sleep_until, which wakes us: in another thread, if that is at it.
                sleep.lock.acquire(True, LINGER)

    def _now(self) -> float:
        try:
            return float(self._clock())
        except Exception:
            return monotonic()  # the engine tells of a clock that fails, and comes back in a second
