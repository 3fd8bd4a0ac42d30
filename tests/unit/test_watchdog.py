"""What time asks for, and when its thread is there. Clock, threads and engine are the test's own.

Each takes the module from a fixture, so that the mutation check can run it on sabotaged copies.
"""

import threading
from math import inf
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from recyclepool import _watchdog
from recyclepool._gate import here
from recyclepool._rules import Rules
from recyclepool.errors import TaskTimeoutError, WorkerStartError
from recyclepool.schedule import Schedule
from recyclepool.states import PoolState, Reason, State

NOW = 1000.0
WALL = 1_700_000_000.0 - NOW  # so that the wall clock says that much
RULES = Rules(age=100.0, idle=30.0, task_timeout=20.0, hang=10.0, start_timeout=60.0, teardown=5.0)


@pytest.fixture
def module() -> ModuleType:
    return _watchdog


class Task:
    """As much of a future as the watchdog sees."""

    name: str | None = None

    def __init__(self, deadline: float = inf, *, running: bool = True) -> None:
        self.deadline = deadline
        self.timeout = 7.0
        self.is_running = running
        self.fn = work

    def running(self) -> bool:
        return self.is_running


def work() -> None:
    """What a task is to do."""


class FakeWorker(SimpleNamespace):
    """As much of a worker as the watchdog sees; idle for a second if nothing else is said."""

    def __init__(self, **facts: Any) -> None:
        self.slot, self.generation = 0, 1
        self.state = State.SERVING
        self.opened, self.vacated, self.resting = True, False, True
        self.undoing = False
        self.due = self.doom = self.leaving = None
        self.reported = -inf
        self.expires = inf
        self.born = NOW - 50.0
        self.vacated_at = self.task_started = self.heartbeat = self.born
        self.idle_since = NOW - 1.0
        self.claims: list[str] = []
        self.claimed = False
        self.gate = SimpleNamespace(task=facts.pop("task", None))
        self.dispatch = SimpleNamespace(rouse=lambda worker: worker.in_stack)
        self.in_stack = True
        if self.gate.task is not None:
            self.resting, self.task_started, self.heartbeat = False, NOW - 2.0, self.born
        vars(self).update(facts)

    def claim_start(self, who: str) -> bool:
        self.claims.append(who)
        return not self.claimed


def doom(task: Any, deadline: float, nudge_at: float) -> Any:
    return SimpleNamespace(task=task, deadline=deadline, nudge_at=nudge_at)


# ---- next_deadline ------------------------------------------------------------------------------


def asked(module: ModuleType, worker: Any, rules: Rules = RULES, *, aging=True, shrinking=True):
    """The name of the act, when, and for which task."""
    deadline = module.next_deadline(worker, rules, NOW, aging=aging, shrinking=shrinking)
    return deadline.act.name, deadline.when, deadline.task


TASK = Task()
LATE = Task(deadline=NOW + 3.0)
OTHER = Task()

DEADLINES: dict[str, tuple[dict[str, Any], str, float, Any]] = {
    # It starts.
    "it starts": ({"state": State.STARTING, "opened": False}, "NOT_READY", NOW + 10, None),
    "it has started, and waits for its slot": ({"state": State.STARTING}, "LOOK", inf, None),
    "it was retired while it starts": (
        {"state": State.RETIRING, "opened": False},
        "NOT_READY",
        NOW + 10,
        None,
    ),
    "it starts, and report_only told of it": (
        {"state": State.STARTING, "opened": False, "reported": inf},
        "NOT_READY",
        inf,
        None,
    ),
    # It goes.
    "it undoes what it made": (
        {"state": State.RETIRING, "vacated": True, "vacated_at": NOW - 1},
        "TEARDOWN",
        NOW + 4,
        None,
    ),
    "it undoes what it made, before anybody takes its place": (
        {"state": State.RETIRING, "undoing": True, "vacated_at": NOW - 1},
        "TEARDOWN",
        NOW + 4,
        None,
    ),
    "its start failed, and it undoes that": (
        {"state": State.RETIRING, "opened": False, "vacated": True, "vacated_at": NOW - 1},
        "TEARDOWN",
        NOW + 4,
        None,
    ),
    # It runs a task.
    "its task gives no sign of life": ({"task": TASK}, "HANG", NOW + 8, TASK),
    "it gave one": (
        {"task": TASK, "heartbeat": NOW - 0.5},
        "HANG",
        NOW + 9.5,
        TASK,
    ),
    "its task's own deadline": ({"task": LATE}, "TIMEOUT", NOW + 3, LATE),
    "it has run for long, with signs of life": (
        {"task": TASK, "task_started": NOW - 18, "heartbeat": NOW},
        "TIMEOUT",
        NOW + 2,
        TASK,
    ),
    "report_only told of this task": (
        {"task": TASK, "reported": NOW - 2.0, "due": Reason.AGE},
        "TIMEOUT",
        inf,
        TASK,
    ),
    "report_only told of it, its own deadline holds": (
        {"task": LATE, "reported": NOW - 2.0},
        "TIMEOUT",
        NOW + 3,
        LATE,
    ),
    "report_only told of the task before": (
        {"task": TASK, "reported": NOW - 2.1},
        "HANG",
        NOW + 8,
        TASK,
    ),
    "it retires, and its task has its limits": (
        {"task": TASK, "state": State.RETIRING},
        "HANG",
        NOW + 8,
        TASK,
    ),
    "its task is about to begin": (
        {"task": Task(NOW, running=False), "due": Reason.AGE},
        "LOOK",
        NOW + 10,
        None,
    ),
    "it is between two tasks": ({"resting": False, "due": Reason.AGE}, "LOOK", NOW + 10, None),
    # Its task was told to end.
    "its task is told again": (
        {"task": TASK, "doom": doom(TASK, NOW + 5, NOW + 1)},
        "NUDGE",
        NOW + 1,
        TASK,
    ),
    "its grace is over first": (
        {"task": TASK, "doom": doom(TASK, NOW + 5, NOW + 5.1)},
        "GIVE_UP",
        NOW + 5,
        TASK,
    ),
    "both at once": (
        {"task": TASK, "doom": doom(TASK, NOW + 5, NOW + 5)},
        "GIVE_UP",
        NOW + 5,
        TASK,
    ),
    "an end gives it up, if anybody does": (
        {"task": TASK, "doom": doom(TASK, inf, inf)},
        "GIVE_UP",
        inf,
        TASK,
    ),
    "it was the task before that was told": (
        {"task": TASK, "state": State.RETIRING, "doom": doom(OTHER, NOW, NOW)},
        "HANG",
        NOW + 8,
        TASK,
    ),
    "the one that was told is over": (
        {"resting": False, "state": State.RETIRING, "doom": doom(OTHER, NOW, NOW)},
        "LOOK",
        NOW + 10,
        None,
    ),
    # It is idle.
    "it is idle": ({}, "IDLE", NOW + 29, None),
    "it is idle, and report_only told of it": ({"reported": NOW - 1.0}, "LOOK", inf, None),
    "it is idle again since": ({"reported": NOW - 1.1}, "IDLE", NOW + 29, None),
    "it is idle, and due": ({"due": Reason.MANUAL}, "LOOK", inf, None),
    "it is idle, and goes": ({"state": State.RETIRING}, "LOOK", inf, None),
    # It grows old.
    "it is old before it is idle for long": ({"expires": NOW + 28}, "AGE", NOW + 28, None),
    "it is old before its task is": (
        {"task": TASK, "expires": NOW + 1},
        "AGE",
        NOW + 1,
        None,
    ),
    "it is old and due": (
        {"task": TASK, "expires": NOW + 1, "due": Reason.AGE},
        "HANG",
        NOW + 8,
        TASK,
    ),
    "it is old and goes": (
        {"task": TASK, "expires": NOW + 1, "state": State.RETIRING},
        "HANG",
        NOW + 8,
        TASK,
    ),
}


@pytest.mark.parametrize("case", DEADLINES)
def test_next_deadline(case, module):
    facts, act, when, task = DEADLINES[case]
    assert asked(module, FakeWorker(**facts)) == (act, when, task)


@pytest.mark.parametrize("case", DEADLINES)
def test_it_only_reads(case, module):
    worker = FakeWorker(**DEADLINES[case][0])
    before = vars(worker).copy()
    asked(module, worker)
    assert vars(worker) == before


def test_no_limit_no_deadline(module):
    """But a look after a while at what is no task: in a pool without limits, never."""
    none = Rules()
    for facts, act, _, _ in DEADLINES.values():
        if act in ("NUDGE", "GIVE_UP") or facts.get("task") is LATE or "expires" in facts:
            continue
        assert asked(module, FakeWorker(**facts), none)[1] == inf, facts


def test_nobody_ages_where_nobody_may_be_replaced(module):
    worker = FakeWorker(expires=NOW + 1)
    assert asked(module, worker, aging=False) == ("IDLE", NOW + 29, None)
    assert asked(module, worker, aging=False, shrinking=False) == ("LOOK", inf, None)


def test_nobody_is_too_many_where_the_pool_keeps_all(module):
    assert asked(module, FakeWorker(), shrinking=False)[1] == inf
    busy = FakeWorker(task=Task())
    only_idle = Rules(idle=30.0)
    assert asked(module, busy, only_idle) == ("LOOK", NOW + 30, None)
    assert asked(module, busy, only_idle, shrinking=False)[1] == inf


def test_a_deadline_knows_when_its_task_started(module):
    worker = FakeWorker(task=TASK)
    for rules in (Rules(hang=10.0), Rules(task_timeout=10.0), Rules()):
        deadline = module.next_deadline(worker, rules, NOW, aging=False, shrinking=False)
        assert deadline.started == NOW - 2.0


def test_the_start_is_read_after_the_task(module):
    """So a task that comes between the two reads is not judged by the start of the one before."""
    reads = []

    class Worker(FakeWorker):
        def __getattribute__(self, name: str) -> Any:
            if name in ("gate", "task_started"):
                reads.append(name)
            return super().__getattribute__(name)

    worker = Worker(task=TASK)
    reads.clear()
    asked(module, worker)
    assert reads == ["gate", "task_started"]


# ---- the watchdog -------------------------------------------------------------------------------


class Sleep:
    """A thread's lock: to acquire it is to sleep. The thread is the test's own."""

    def __init__(self) -> None:
        self.held = False
        self.sleeps: list[float] = []
        self.on_sleep = lambda: None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        assert blocking
        if self.held:
            self.sleeps.append(timeout)
            self.on_sleep()
        taken = not self.held
        self.held = True
        return taken

    def release(self) -> None:
        if not self.held:
            raise RuntimeError("release unlocked lock")
        self.held = False


class Thread:
    """One that never runs but when the test says so."""

    def __init__(self, made: list[Any], error: Exception | None, **what: Any) -> None:
        self.target, self.args = what["target"], what["args"]
        self.name, self.daemon = what["name"], what["daemon"]
        self.alive = False
        self._error = error
        made.append(self)

    def start(self) -> None:
        if self._error is not None:
            raise self._error
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive

    @property
    def sleep(self) -> Any:
        return self.args[0]

    def run(self, *, until: Any = None) -> None:
        """Until it ends, or sleeps; `until`: or as that says."""

        class Asleep(Exception):
            pass

        def on_sleep() -> None:
            if until is None or until():
                raise Asleep

        self.sleep.lock.on_sleep = on_sleep
        outer = here.inside  # ours: this is the test's thread
        try:
            self.target(*self.args)
            self.alive = False
        except Asleep:
            pass
        finally:
            self.inside, here.inside = here.inside, outer


class Engine:
    """Writes down what it is asked for; a look is carried out at once."""

    def __init__(self, module: ModuleType, monkeypatch: Any, rules: Rules = RULES) -> None:
        monkeypatch.setattr(module, "new_lock", Sleep)
        self.now = NOW
        self.threads: list[Thread] = []
        self.thread_error: Exception | None = None
        self.settings = SimpleNamespace(
            clock=lambda: self.clock(),
            wall=lambda: self.wall(),
            schedules=(),
            new_thread=self._new_thread,
            thread_names="pool",
            name="pool",
        )
        self.wall = lambda: WALL + self.now
        self.paused = None
        self.clock = lambda: self.now
        self.rules = rules
        self.asked: list[Any] = []
        self.workers: list[Any] = []
        self.looks = 0
        self.between = lambda: None
        self.shrinking, self.pause = True, 0.5
        self.roster = SimpleNamespace(
            workers=self.workers,
            holders=lambda: dict.fromkeys(self.slots),
            state=PoolState.OPEN,
            failures=3,
            held_back=False,
            may_shrink=lambda: self.shrinking,
            resume=self._resume,
            shrink=lambda: self.asked.append("shrink"),
        )
        self.news = SimpleNamespace(
            watchdog_failed=lambda error: self._note("watchdog_failed", error),
            start_failed=lambda *what: self._note("news of a start", *what),
            due=lambda *what, **more: self._note("news of due", *what, more),
            timed_out=lambda *what: self._note("news of a timeout", *what),
        )
        self.slots = range(2)  # that are held
        self.watchdog = module.Watchdog(self)

    def _new_thread(self, **what: Any) -> Thread:
        return Thread(self.threads, self.thread_error, **what)

    def _note(self, *what: Any) -> None:
        self.asked.append(what)

    def _resume(self) -> None:
        self.roster.held_back = False
        self._note("resume")

    def look(self) -> None:
        """An order of a thread's: as the engine has its watchdog look."""
        self.looks += 1
        self.order()

    def order(self) -> None:
        self.watchdog.act()
        self.between()  # here the roster is reconciled
        self.watchdog.sleep()

    def start_pause(self) -> float:
        return self.pause

    def demand(self) -> None:
        self._note("demand")

    def make_due(self, *what: Any) -> None:
        self._note("make_due", *what)

    def restart_by_schedule(self, *what: Any) -> None:
        self._note("restart_by_schedule", *what)

    def retire_now(self, *what: Any) -> None:
        self._note("retire_now", *what)

    def stop(self, *what: Any) -> None:
        self._note("stop", *what)

    def nudge(self, *what: Any) -> None:
        self._note("nudge", *what)

    def give_up(self, worker: Any, *what: Any) -> None:
        self._note("give_up", worker, *what)


@pytest.fixture
def engine(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(module, monkeypatch)


def alive(engine: Engine) -> list[Thread]:
    return [thread for thread in engine.threads if thread.alive]


# -- when its thread is there


def test_without_a_deadline_there_is_no_thread(engine):
    assert engine.watchdog.until == inf
    engine.workers.append(FakeWorker(due=Reason.MANUAL))
    engine.order()
    assert not engine.threads
    assert engine.watchdog.until == inf


def test_a_thread_comes_with_the_first_deadline(engine):
    engine.workers += [FakeWorker(idle_since=NOW - 3), FakeWorker(idle_since=NOW - 7)]
    engine.order()
    (thread,) = alive(engine)
    assert (thread.name, thread.daemon) == ("pool_watchdog", True)
    assert engine.watchdog.until == NOW + 23  # the soonest
    thread.run()
    assert thread.sleep.until == NOW + 23
    assert thread.sleep.lock.sleeps == [23.0]
    assert thread.inside == 1  # a finalizer on it does not wait for a place in a queue
    assert not engine.looks
    engine.order()
    assert len(engine.threads) == 1


def test_it_looks_when_its_time_has_come(engine):
    worker = FakeWorker()
    engine.workers.append(worker)
    engine.order()
    (thread,) = engine.threads
    engine.now = NOW + 29
    worker.due = Reason.MANUAL  # now there is nothing to do, and it lingers
    thread.run()
    assert engine.looks == 1
    assert thread.sleep.lock.sleeps == [1.0]


def test_until_is_infinite_while_it_looks(engine, monkeypatch):
    """WATCH 1: who falls busy meanwhile has it look again."""
    seen = []
    engine.workers.append(FakeWorker())
    engine.order()
    next_deadline = engine.watchdog._next_deadline

    def spy(worker, now):
        seen.append(engine.watchdog.until)
        return next_deadline(worker, now)

    monkeypatch.setattr(engine.watchdog, "_next_deadline", spy)
    engine.order()
    assert seen[-1] == inf


def test_it_says_how_long_it_will_sleep_after_it_read_until(engine):
    """WATCH 4. And infinity before that."""
    engine.workers.append(FakeWorker())
    engine.order()
    (thread,) = engine.threads
    thread.run()
    said = []

    def wake_once():
        said.append(thread.sleep.until)
        if len(said) == 1:
            engine.clock = lambda: said.append(thread.sleep.until) or NOW
            thread.sleep.lock.release()
            return False
        return True

    thread.run(until=wake_once)
    assert said == [NOW + 29, inf, NOW + 29]


def test_it_lingers_and_ends(engine, module):
    worker = FakeWorker()
    engine.workers.append(worker)
    engine.order()
    (thread,) = engine.threads
    worker.due = Reason.MANUAL
    engine.order()
    assert engine.watchdog.until == NOW + module.LINGER
    engine.now = NOW + 0.9
    engine.order()  # that does not prolong it
    assert engine.watchdog.until == NOW + module.LINGER
    thread.run()
    assert thread.alive
    engine.now = NOW + module.LINGER
    thread.run()
    assert not thread.alive
    assert engine.looks == 1
    assert engine.watchdog.until == inf
    assert not alive(engine)


def test_it_does_not_linger_where_nobody_is_left(engine):
    worker = FakeWorker()
    engine.workers.append(worker)
    engine.order()
    (thread,) = engine.threads
    engine.workers.clear()
    engine.order()
    assert engine.watchdog.until == inf
    assert not thread.sleep.lock.held  # it was woken
    thread.run()
    assert not thread.alive


def test_a_deadline_that_comes_while_it_lingers_keeps_it(engine):
    worker = FakeWorker()
    engine.workers.append(worker)
    engine.order()
    worker.due = Reason.MANUAL
    engine.order()
    worker.due = None
    engine.now = NOW + 0.5
    engine.order()
    assert engine.watchdog.until == NOW + 29
    assert len(engine.threads) == 1
    engine.now = NOW + 20
    worker.due = Reason.MANUAL
    engine.order()
    assert engine.watchdog.until == NOW + 21  # it lingers from now on, and not from before


def test_after_its_end_another_comes(engine):
    worker = FakeWorker()
    engine.workers.append(worker)
    engine.order()
    engine.workers.clear()
    engine.order()
    old = engine.threads[0]
    engine.workers.append(worker)
    engine.order()  # before the old one has seen that it is to end
    assert len(engine.threads) == 2
    new = engine.threads[1]
    assert new.sleep is not old.sleep
    old.run()
    assert not old.alive, "two of them sleep"
    new.run()
    assert new.alive


def test_one_that_died_is_replaced(engine):
    engine.workers.append(FakeWorker())
    engine.order()
    engine.threads[0].alive = False
    engine.order()
    assert alive(engine) == [engine.threads[1]]


@pytest.mark.parametrize(
    ("idle_since", "woken"), [(NOW - 2.0, True), (NOW - 0.5, False), (NOW - 1.0, False)]
)
def test_it_is_woken_for_an_earlier_deadline_only(idle_since, woken, engine):
    worker = FakeWorker()
    engine.workers.append(worker)
    engine.order()
    (thread,) = engine.threads
    thread.run()
    assert thread.sleep.lock.held
    worker.idle_since = idle_since
    engine.order()
    assert engine.watchdog.until == idle_since + 30
    assert thread.sleep.lock.held is not woken


def test_it_is_woken_where_it_has_not_said_how_long_it_sleeps(engine):
    engine.workers.append(FakeWorker())
    engine.order()
    (thread,) = engine.threads
    assert thread.sleep.until == inf
    assert not thread.sleep.lock.held  # a token: its first sleep is none
    engine.order()  # to wake it twice is harmless


def test_it_sleeps_no_longer_than_a_thread_can(engine):
    engine.rules = Rules(idle=1e300)
    engine.workers.append(FakeWorker())
    engine.order()
    (thread,) = engine.threads
    thread.run()
    assert thread.sleep.lock.sleeps == [threading.TIMEOUT_MAX]


def test_after_it_had_the_engine_look_it_waits_for_what_came_of_it(engine):
    """Another thread may be at it: that one wakes it."""
    engine.workers.append(FakeWorker())
    engine.order()
    (thread,) = engine.threads
    thread.sleep.lock.held = True
    engine.now = NOW + 30
    engine.look = lambda: None  # it only leaves an order
    thread.run()
    assert thread.sleep.lock.sleeps == [1.0]
    assert thread.sleep.until == inf


def test_no_thread_is_to_be_had(engine):
    engine.thread_error = RuntimeError("can't start new thread")
    engine.workers.append(FakeWorker())
    engine.order()
    assert engine.watchdog.until == NOW + 29
    assert not alive(engine)
    engine.thread_error = None
    engine.order()  # the next order tries again
    assert len(alive(engine)) == 1
    assert not engine.asked


# -- who has it look


@pytest.mark.parametrize(("until", "looks"), [(NOW + 9, 0), (NOW + 10, 0), (NOW + 11, 1), (inf, 1)])
def test_a_worker_that_was_idle(until, looks, engine):
    """Its first task's limit comes at NOW + 10 at the earliest (WATCH 2)."""
    engine.watchdog.until = until
    engine.watchdog.busy_from(NOW)
    assert engine.looks == looks


@pytest.mark.parametrize(("until", "looks"), [(NOW + 2, 0), (NOW + 3, 0), (NOW + 4, 1), (inf, 1)])
def test_a_task_with_its_own_deadline(until, looks, engine):
    engine.watchdog.until = until
    engine.watchdog.expect(NOW + 3)
    assert engine.looks == looks


def test_who_has_left_an_order_calls_its_thread(engine):
    """WATCH 5: it looks, though nothing is due, once."""
    engine.workers.append(FakeWorker())
    engine.order()
    (thread,) = engine.threads
    thread.run()  # it sleeps
    engine.watchdog.come()
    assert not thread.sleep.lock.held, "it sleeps on"
    assert not engine.looks  # the caller has no time for it
    thread.run()
    assert engine.looks == 1
    assert thread.sleep.until == NOW + 29
    thread.run()
    assert engine.looks == 1


def test_who_calls_it_as_it_is_about_to_look_is_seen(engine):
    """`called` is taken back BEFORE the look: what is left as it looks leads to another."""
    engine.workers.append(FakeWorker())
    engine.order()
    (thread,) = engine.threads

    def look():
        engine.looks += 1
        if engine.looks == 1:
            engine.watchdog.come()

    engine.look = look
    engine.watchdog.come()
    thread.run(until=lambda: engine.looks == 2)
    assert engine.looks == 2


@pytest.mark.parametrize("gone", ["there is none", "it ends"])
def test_where_its_thread_is_gone_who_calls_it_looks(gone, engine):
    if gone == "it ends":
        engine.workers.append(FakeWorker())
        engine.order()
        engine.threads[0].sleep.over = True
    engine.watchdog.come()
    assert engine.looks == 1


# -- what it does


def looked(engine: Engine, worker: Any, now: float) -> list[Any]:
    """What it asked for, when it looked at that time."""
    if worker not in engine.workers:
        engine.workers.append(worker)
    engine.now = now
    engine.asked.clear()
    engine.order()
    return engine.asked.copy()


def test_nothing_is_done_before_its_time(engine):
    cases = {name: case for name, case in DEADLINES.items() if NOW < case[2] < inf}
    for name, (facts, _, when, _) in cases.items():
        worker = FakeWorker(**facts)
        if facts.get("resting") is False or (worker.gate.task and not worker.gate.task.running()):
            continue  # a look that is put off with the clock
        engine.workers[:] = [worker]
        assert not looked(engine, worker, when - 0.01), name
        assert engine.watchdog.until == pytest.approx(when), name


def test_a_start_takes_too_long(engine):
    worker = FakeWorker(state=State.STARTING, opened=False)
    ((verb, given_up, error),) = looked(engine, worker, NOW + 10)
    assert (verb, given_up) == ("give_up", worker)
    assert isinstance(error, WorkerStartError)
    assert str(error) == "a worker was not ready after 1m"
    assert worker.claims == ["watchdog"]


def test_it_has_started_just_now(engine, module):
    """It says so in an order that is about to be done: nothing was done, and soon it is asked."""
    worker = FakeWorker(state=State.STARTING, opened=False, claimed=True)
    assert not looked(engine, worker, NOW + 10)
    assert engine.watchdog.until == NOW + 10 + module.LEAST_PAUSE


def test_a_task_runs_too_long(engine):
    task = Task()
    worker = FakeWorker(task=task, heartbeat=NOW + 17)
    ((verb, *told),) = looked(engine, worker, NOW + 18)
    assert verb == "stop"
    who, what, error, reason, why = told
    assert (who, what, reason) == (worker, task, Reason.TIMEOUT)
    assert isinstance(error, TaskTimeoutError)
    assert str(error) == why == "work ran longer than 20 s"


def test_a_tasks_own_deadline(engine):
    task = Task(deadline=NOW + 3)
    ((verb, _, what, error, reason, why),) = looked(engine, FakeWorker(task=task), NOW + 3)
    assert (verb, what, reason) == ("stop", task, Reason.TIMEOUT)
    assert str(error) == why == "work ran longer than 7 s"


def test_a_task_hangs(engine):
    task = Task(deadline=NOW + 9)
    ((verb, _, what, error, reason, why),) = looked(engine, FakeWorker(task=task), NOW + 8)
    assert (verb, what, reason) == ("stop", task, Reason.HANG)
    assert isinstance(error, TaskTimeoutError)
    assert str(error) == why == "work gave no sign of life for 10 s"


def test_a_task_without_a_name(engine):
    task = Task()
    task.fn = None
    ((*_, why),) = looked(engine, FakeWorker(task=task), NOW + 8)
    assert why == "the task gave no sign of life for 10 s"


def test_a_task_is_told_again(engine, module):
    worker = FakeWorker(task=TASK, doom=doom(TASK, NOW + 5, NOW + 1))
    assert looked(engine, worker, NOW + 1) == [("nudge", worker)]
    assert engine.watchdog.until == NOW + 1 + module.LEAST_PAUSE
    worker.doom.nudge_at = NOW + 3  # as it is after that
    engine.order()
    assert engine.watchdog.until == NOW + 3


def test_grace_is_over(engine):
    worker = FakeWorker(task=TASK, doom=doom(TASK, NOW + 5, NOW + 6))
    assert looked(engine, worker, NOW + 5) == [("give_up", worker)]


def test_a_teardown_takes_too_long(engine):
    worker = FakeWorker(state=State.RETIRING, vacated=True, vacated_at=NOW)
    assert looked(engine, worker, NOW + 5) == [("give_up", worker)]


@pytest.mark.parametrize(
    "facts",
    [
        {"state": State.RETIRING, "vacated": True, "vacated_at": NOW - 100},
        {"state": State.STARTING, "opened": False, "born": NOW - 1000},
        {"task": TASK, "doom": doom(TASK, NOW - 1, NOW)},
        {"idle_since": NOW - 100, "in_stack": False},
        {"task": Task(deadline=NOW - 1)},
    ],
)
def test_what_cannot_be_done_yet_is_tried_again_in_a_moment(facts, engine, module):
    """A worker has just left, or gone on, and says so in an order to come: not again at once."""
    looked(engine, FakeWorker(**facts), NOW)
    assert engine.watchdog.until == NOW + module.LEAST_PAUSE
    assert len(engine.asked) <= 1


def test_a_worker_is_old(engine):
    worker = FakeWorker(expires=NOW + 10, born=NOW - 80)
    assert looked(engine, worker, NOW + 10) == [("make_due", worker, Reason.AGE, "1m 30s old")]
    assert worker.expires == inf  # once
    assert not looked(engine, worker, NOW + 11)


@pytest.mark.parametrize("state", [PoolState.CLOSING, PoolState.BROKEN, PoolState.SHUTDOWN])
def test_nobody_is_old_in_a_pool_that_is_not_open(state, engine):
    engine.roster.state = state
    assert not looked(engine, FakeWorker(expires=NOW), NOW + 1)


def test_a_worker_is_idle_for_too_long(engine):
    worker = FakeWorker()
    assert looked(engine, worker, NOW + 29) == [
        "shrink",
        ("retire_now", worker, Reason.IDLE, "idle for 30 s"),
    ]


def test_an_idle_worker_that_is_about_to_take_a_task_stays(engine, module):
    worker = FakeWorker(in_stack=False)
    assert not looked(engine, worker, NOW + 29)
    assert engine.watchdog.until == NOW + 29 + module.LEAST_PAUSE


def test_one_more_than_the_pool_keeps(engine):
    """After the first has gone no other may."""
    one, other = FakeWorker(), FakeWorker()
    engine.workers += [one, other]

    def retire_now(worker, *rest):
        engine.asked.append(worker)
        worker.state, worker.vacated = State.RETIRING, True
        worker.vacated_at = engine.now
        engine.shrinking = False

    engine.retire_now = retire_now
    assert looked(engine, one, NOW + 29) == ["shrink", one]
    assert other.state is State.SERVING


def test_all_are_looked_at(engine):
    workers = [FakeWorker(expires=NOW + 1 + n) for n in range(3)]
    engine.workers += workers
    assert len(looked(engine, workers[0], NOW + 2)) == 2
    assert engine.watchdog.until == NOW + 3


def test_what_comes_after_it_has_acted_is_waited_for(engine):
    """The roster is reconciled between the two: a worker is started, another goes."""
    engine.between = lambda: engine.workers.append(FakeWorker(state=State.STARTING, opened=False))
    engine.order()
    assert engine.watchdog.until == NOW + 10


def test_who_leaves_the_roster_as_it_is_looked_at(engine):
    workers = [FakeWorker(state=State.RETIRING, vacated=True, vacated_at=NOW - 9) for _ in range(3)]
    engine.workers += workers

    def give_up(worker, *rest):
        engine.asked.append(worker)
        engine.workers.remove(worker)

    engine.give_up = give_up
    engine.order()
    assert engine.asked == workers
    assert engine.watchdog.until == inf


# -- report_only


@pytest.fixture
def told_only(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(module, monkeypatch, RULES._replace(report_only=True))


def test_of_a_start_it_is_told_once(told_only):
    engine, worker = told_only, FakeWorker(state=State.STARTING, opened=False)
    told = ("news of a start", worker, "a worker was not ready after 1m", 3, None)
    assert looked(engine, worker, NOW + 10) == [told]
    assert not looked(engine, worker, NOW + 11)
    assert not worker.claims


def test_of_a_task_it_is_told_once(told_only):
    engine, worker = told_only, FakeWorker(task=Task())
    told = ("news of a timeout", worker, "work", Reason.HANG, 10.0, True)
    assert looked(engine, worker, NOW + 8) == [told]
    assert not looked(engine, worker, NOW + 100)
    worker.gate.task, worker.task_started = Task(), NOW + 100
    told = ("news of a timeout", worker, "work", Reason.HANG, 11.0, True)
    assert looked(engine, worker, NOW + 111) == [told]


def test_of_a_task_that_ran_too_long_it_is_told(told_only):
    worker = FakeWorker(task=Task(), heartbeat=NOW + 18)
    told = ("news of a timeout", worker, "work", Reason.TIMEOUT, 20.0, True)
    assert looked(told_only, worker, NOW + 18) == [told]


def test_what_is_told_is_the_start_that_was_judged(told_only):
    """The worker may have gone on meanwhile."""
    engine, worker = told_only, FakeWorker(task=Task())
    act = engine.watchdog._act

    def late(worker, deadline, now):
        worker.task_started = now
        return act(worker, deadline, now)

    engine.watchdog._act = late
    assert looked(engine, worker, NOW + 8)[0][4] == 10.0
    assert worker.reported == NOW - 2.0


def test_a_tasks_own_deadline_holds_all_the_same(told_only):
    task = Task(deadline=NOW + 3)
    ((verb, *_),) = looked(told_only, FakeWorker(task=task), NOW + 3)
    assert verb == "stop"


def test_of_an_idle_worker_it_is_told_once(told_only):
    engine, worker = told_only, FakeWorker()
    told = ("news of due", worker, Reason.IDLE, "idle for 30 s", {"report_only": True})
    assert looked(engine, worker, NOW + 29) == [told]
    assert not looked(engine, worker, NOW + 100)
    worker.idle_since = NOW + 100
    assert looked(engine, worker, NOW + 130) == [told]


# -- starts that failed


def test_starts_are_tried_again_after_a_pause(engine):
    engine.roster.held_back = True
    engine.order()
    assert engine.watchdog.until == NOW + 0.5
    engine.now = NOW + 0.4
    engine.pause = 100.0  # it is asked for once
    engine.order()
    assert engine.watchdog.until == NOW + 0.5
    engine.now = NOW + 0.5
    engine.order()
    assert engine.asked == [("resume",), ("demand",)]
    engine.roster.held_back = True  # it failed again
    engine.order()
    assert engine.watchdog.until == NOW + 100.5


def test_one_that_succeeds_meanwhile_ends_the_pause(engine):
    engine.roster.held_back = True
    engine.order()
    engine.roster.held_back = False
    engine.order()
    engine.now = NOW + 100
    engine.roster.held_back = True
    engine.order()
    assert engine.watchdog.until == NOW + 100.5


def test_one_that_succeeds_just_before_the_pause_is_over(engine):
    engine.roster.held_back = True
    engine.order()
    engine.roster.held_back = False
    engine.now = NOW + 100
    engine.order()
    assert not engine.asked
    assert engine.watchdog.until == inf


def test_the_next_try_fails_at_once(engine):
    engine.roster.held_back = True
    engine.order()
    engine.now = NOW + 0.5
    engine.between = lambda: setattr(engine.roster, "held_back", True)
    engine.order()
    assert engine.asked == [("resume",), ("demand",)]
    assert engine.watchdog.until == NOW + 1.0


@pytest.mark.parametrize("when", ["as it acts", "after it has acted"])
def test_a_start_that_fails_as_the_engine_is_at_it(when, engine):
    """It is given up, or there is no thread for it."""

    def fail(*what):
        engine.roster.held_back = True

    if when == "as it acts":
        engine.give_up = fail
        worker = FakeWorker(state=State.STARTING, opened=False, born=NOW - 100)
        engine.workers.append(worker)
        engine.watchdog.act()
        engine.workers.clear()
    else:
        engine.watchdog.act()
        fail()
    engine.watchdog.sleep()
    assert engine.watchdog.until == NOW + 0.5
    engine.now = NOW + 0.5
    engine.order()
    assert engine.asked == [("resume",), ("demand",)]


# -- what fails


def test_a_clock_that_fails_is_told_of_once_and_tried_again(engine, module, monkeypatch):
    monkeypatch.setattr(module, "monotonic", lambda: 77.0)
    worker, error = FakeWorker(), ZeroDivisionError()

    def clock():
        raise error

    engine.workers.append(worker)
    engine.clock = clock
    engine.order()
    assert engine.asked == [("watchdog_failed", error)]
    assert engine.watchdog.until == 78.0
    (thread,) = alive(engine)
    thread.run()
    assert thread.sleep.lock.sleeps == [1.0]
    engine.order()
    assert len(engine.asked) == 1
    engine.clock = lambda: NOW
    engine.order()
    assert engine.watchdog.until == NOW + 29  # it survives
    thread.run()
    assert thread.alive


def test_a_clock_that_fails_as_it_is_to_sleep(engine, module, monkeypatch):
    monkeypatch.setattr(module, "monotonic", lambda: 77.0)
    engine.workers.append(FakeWorker())
    engine.watchdog.act()
    engine.clock = lambda: 1 / 0
    engine.watchdog.sleep()
    assert [verb for verb, _ in engine.asked] == ["watchdog_failed"]
    assert engine.watchdog.until == 78.0


def test_a_policy_that_fails_is_told_of_once_and_tried_again(engine, module):
    worker = FakeWorker(task=Task())

    def stop(*what):
        engine.tries += 1
        raise ZeroDivisionError

    stop_well, engine.stop, engine.tries = engine.stop, stop, 0
    ((verb, error),) = looked(engine, worker, NOW + 8)
    assert verb == "watchdog_failed"
    assert isinstance(error, ZeroDivisionError)
    assert NOW + 8.1 <= engine.watchdog.until <= NOW + 9  # not a thousand times a second
    assert not looked(engine, worker, NOW + 9)
    assert engine.tries == 2
    engine.stop = stop_well
    assert looked(engine, worker, NOW + 10)[0][0] == "stop"
    assert engine.watchdog.until == NOW + 10 + module.LEAST_PAUSE


def test_an_interrupt_is_none_of_its_business(engine):
    """The order that it is part of is done again."""

    def clock():
        raise KeyboardInterrupt

    engine.clock = clock
    with pytest.raises(KeyboardInterrupt):
        engine.order()
    assert not engine.asked


def test_the_last_look_that_did_not_fail(engine, module, monkeypatch):
    """When it was, by the wall clock, and when it was to look next."""

    def seen(at):
        monkeypatch.setattr(module, "time", lambda: at)
        engine.order()
        return engine.watchdog.looked_at, engine.watchdog.due

    monkeypatch.setattr(module, "time", lambda: 5.0)
    new = module.Watchdog(engine)
    assert (new.looked_at, new.due) == (5.0, inf)
    engine.workers.append(FakeWorker())
    assert seen(6.0) == (6.0, NOW + 29)
    engine.clock = lambda: 1 / 0
    assert seen(7.0) == (6.0, NOW + 29)
    engine.clock = lambda: NOW + 1
    assert seen(8.0) == (8.0, NOW + 29)
    engine.workers.clear()
    assert seen(9.0) == (9.0, inf)


# -- schedules

HOUR = 3600.0
MIDNIGHT = 1_699_920_000.0 - WALL  # by the engine's clock, at whose NOW it is 22:13:20 UTC
HOURLY, DAILY, SEVEN_MINUTES = "@hourly", "@daily", "every 7m"
HOURLY_FIRED = ("restart_by_schedule", None, "0 * * * * (UTC)")
ELEVEN = MIDNIGHT + 23 * HOUR  # when HOURLY fires next


def scheduled(engine: Engine, *schedules: str, workers: int = 1) -> Engine:
    """With schedules, and workers to whom nothing else happens."""
    engine.settings.schedules = Schedule.parse(schedules)
    engine.workers += [FakeWorker(due=Reason.MANUAL) for _ in range(workers)]
    engine.order()
    return engine


def fired(engine: Engine, now: float) -> list[Any]:
    """What was asked for when a look came at that time."""
    engine.asked.clear()
    engine.now = now
    engine.order()
    return engine.asked.copy()


def test_without_a_schedule_no_wall_clock_is_read(engine):
    engine.wall = lambda: 1 / 0
    engine.workers.append(FakeWorker(due=Reason.MANUAL))
    engine.order()
    assert not engine.asked
    assert engine.watchdog.timetable is None
    assert not engine.threads


def test_a_schedule_fires_at_its_time_and_once(engine):
    scheduled(engine, HOURLY)
    assert not fired(engine, ELEVEN - 0.01)
    assert engine.watchdog.until == pytest.approx(ELEVEN)
    assert fired(engine, ELEVEN) == [HOURLY_FIRED]
    assert not fired(engine, ELEVEN)
    assert not fired(engine, ELEVEN + HOUR - 1)
    assert fired(engine, ELEVEN + HOUR) == [HOURLY_FIRED]


def test_it_looks_at_the_wall_clock_once_a_minute(engine):
    """And no more often: so it sees that somebody has set it."""
    scheduled(engine, DAILY)
    assert engine.watchdog.until == NOW + 60
    assert not fired(engine, NOW + 60)
    assert engine.watchdog.until == NOW + 120
    (thread,) = alive(engine)
    thread.run()
    assert thread.sleep.lock.sleeps == [60.0]


def test_a_schedule_does_not_hide_a_workers_deadline(engine):
    scheduled(engine, DAILY)
    worker = FakeWorker(expires=NOW + 5)
    engine.workers.append(worker)
    engine.order()
    assert engine.watchdog.until == NOW + 5
    engine.workers.remove(worker)
    engine.order()
    assert engine.watchdog.until == NOW + 60


def test_nobody_is_there_and_nothing_is_to_come_for(engine):
    """What is missed until somebody comes replaces nobody: who comes is new."""
    scheduled(engine, HOURLY, workers=0)
    assert engine.watchdog.timetable is None
    assert engine.watchdog.until == inf
    assert not engine.threads
    assert not fired(engine, ELEVEN + 3 * HOUR)
    engine.workers.append(FakeWorker(due=Reason.MANUAL))
    assert not fired(engine, ELEVEN + 3.5 * HOUR)
    assert fired(engine, ELEVEN + 4 * HOUR) == [HOURLY_FIRED]
    engine.workers.clear()
    assert not fired(engine, ELEVEN + 5 * HOUR)
    assert engine.watchdog.timetable is None
    assert not alive(engine) or engine.watchdog.until == inf


@pytest.mark.parametrize("state", [PoolState.CLOSING, PoolState.BROKEN, PoolState.SHUTDOWN])
def test_a_pool_that_is_not_open_fires_nothing(state, engine):
    scheduled(engine, HOURLY)
    engine.roster.state = state
    assert not fired(engine, ELEVEN)
    assert engine.watchdog.timetable is None
    engine.roster.state = PoolState.OPEN  # reopened: what was missed is not made up for
    assert not fired(engine, ELEVEN + 1)
    assert fired(engine, ELEVEN + HOUR) == [HOURLY_FIRED]


def test_intervals_come_to_each_slot(engine):
    scheduled(engine, SEVEN_MINUTES)
    asked = fired(engine, NOW + 420)
    assert sorted(asked) == [("restart_by_schedule", slot, "every 7m") for slot in (0, 1)]
    engine.slots = range(3)
    assert not fired(engine, NOW + 420)
    assert len(fired(engine, NOW + 840)) == 3
    engine.slots = range(1)
    assert fired(engine, NOW + 1260) == [("restart_by_schedule", 0, "every 7m")]


def test_what_was_missed_fires_once(engine):
    """The wall clock jumps; the other does not: the machine slept."""
    scheduled(engine, HOURLY, DAILY)
    engine.wall = lambda: WALL + engine.now + 72 * HOUR + 1800
    asked = fired(engine, NOW + 1)
    assert asked == [HOURLY_FIRED, ("restart_by_schedule", None, "0 0 * * * (UTC)")]
    assert not fired(engine, NOW + 60)


def test_a_clock_that_is_set_back_fires_nothing_twice(engine):
    scheduled(engine, HOURLY)
    assert fired(engine, ELEVEN + 1)
    back = 0.0
    engine.wall = lambda: WALL + engine.now - back
    for back in (30.0, 0.0, 1800.0):  # noqa: B007 (the clock reads it)
        assert not fired(engine, ELEVEN + 2)
    assert not fired(engine, ELEVEN + HOUR)  # it is half past eleven again
    assert fired(engine, ELEVEN + 1.5 * HOUR) == [HOURLY_FIRED]


def test_one_reading_of_the_clock_is_what_a_look_goes_by(engine):
    """It is set, or it goes on, as the look is at it: nothing is taken that was not told."""
    readings = iter(range(10**6))
    scheduled(engine, HOURLY)
    engine.wall = lambda: WALL + NOW + next(readings) * 1500.0
    asked = []
    for _ in range(40):
        asked += fired(engine, NOW)
    hours = next(readings) * 1500 / 3600
    assert hours - 2 <= len(asked) <= hours + 1


def test_no_firing_is_lost_to_an_interrupt(engine):
    """The order that it is part of is done again."""
    scheduled(engine, HOURLY, DAILY)

    def broken_off(*what):
        engine.asked.append(what)
        if len(engine.asked) == 2:
            raise KeyboardInterrupt

    engine.restart_by_schedule = broken_off
    engine.now = ELEVEN + HOUR
    with pytest.raises(KeyboardInterrupt):
        engine.order()
    engine.order()
    assert [schedule for _, schedule in engine.asked] == ["0 * * * * (UTC)", "0 0 * * * (UTC)"] * 2


def test_no_firing_is_lost_where_it_cannot_be_carried_out(engine):
    scheduled(engine, HOURLY)
    restart, engine.restart_by_schedule = engine.restart_by_schedule, lambda *_: 1 / 0
    ((verb, _),) = fired(engine, ELEVEN)
    assert verb == "watchdog_failed"
    assert engine.watchdog.until == ELEVEN + 1
    engine.restart_by_schedule = restart
    assert fired(engine, ELEVEN + 1) == [HOURLY_FIRED]


@pytest.mark.parametrize("when", ["at first", "later"])
def test_a_wall_clock_that_fails_is_told_once_and_read_again(when, engine):
    engine.settings.schedules = Schedule.parse(HOURLY)
    engine.workers.append(FakeWorker(due=Reason.MANUAL))
    if when == "later":
        engine.order()
    wall, engine.wall = engine.wall, lambda: 1 / 0
    ((verb, error),) = fired(engine, NOW + 1)
    assert (verb, type(error)) == ("watchdog_failed", ZeroDivisionError)
    assert NOW + 1 < engine.watchdog.until <= NOW + 61
    assert not fired(engine, NOW + 2)
    engine.wall = wall
    assert not fired(engine, NOW + 60)
    assert fired(engine, ELEVEN) == [HOURLY_FIRED]


def test_a_wall_clock_that_fails_stops_no_deadline(engine):
    """It is for schedules only. A task's time is up when it is up."""
    scheduled(engine, HOURLY)
    worker = FakeWorker(task=Task(deadline=NOW + 0.25))
    engine.workers.append(worker)
    engine.wall = lambda: 1 / 0
    engine.order()
    assert engine.watchdog.until == NOW + 0.25
    asked = fired(engine, NOW + 0.25)
    assert [what[:2] for what in asked if what[0] == "stop"] == [("stop", worker)]


@pytest.mark.parametrize("nonsense", [inf, -inf, float("nan"), -1.0, 1e12, None, "noon"])
def test_a_wall_clock_that_tells_nonsense_fires_nothing(nonsense, engine):
    scheduled(engine, HOURLY, SEVEN_MINUTES)
    wall, engine.wall = engine.wall, lambda: nonsense
    ((verb, _),) = fired(engine, NOW + 1)
    assert verb == "watchdog_failed"
    assert engine.watchdog.until == NOW + 2
    engine.wall = wall
    assert not fired(engine, NOW + 2)


def test_in_a_pause_of_dispatch_an_idle_worker_goes_from_where_it_waits(engine):
    """It is in no idle stack that it could be taken out of."""
    worker = FakeWorker(in_stack=False, idle_since=NOW - 1e6)
    engine.workers.append(worker)
    engine.order()
    assert not engine.asked, "it is about to take a task"
    engine.paused = object()
    engine.order()
    assert ("retire_now", worker, Reason.IDLE) in [what[:3] for what in engine.asked]
