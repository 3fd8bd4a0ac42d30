"""How tasks, workers and the pool's life interleave: a model of one thread that takes single steps.

Roster, dispatch and engine are the real ones. Submitters and drivers are generators that stop
before each step of the proof in ``_dispatch.py``, so hypothesis may interleave them in any way. A
wake lock is a flag that notes its release, and a thread is an entry in a list: nothing here runs
at the same time as anything else, and nothing ever sleeps. While the model holds the engine's
lock, orders wait, as they do when some thread is in the middle of carrying one out. The clock is a
number, and the watchdog's thread is an event that sets it forward to when that would wake.

After each step the invariants hold; at rest (nobody can go on but tasks that run and initializers)
no task and no caller waits for whom it need not, and the watchdog wakes in time; when all is calm,
who waited has the answer; and each run ends with a close that comes to its end.
"""

from collections import Counter
from collections.abc import Generator
from math import inf
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from recyclepool import _roster
from recyclepool._dispatch import Dispatch
from recyclepool._engine import Engine, Settings
from recyclepool._future import Future
from recyclepool._rules import Rules
from recyclepool._waits import Rested, Started, Wait
from recyclepool._watchdog import next_deadline
from recyclepool._worker import Worker
from recyclepool.backends import Hooks
from recyclepool.errors import BrokenRecyclePool, WorkerStartError
from recyclepool.states import PoolState, Reason, State

Steps = Generator[str, Any, Any]

MANY = 5_000  # steps: whoever takes more never ends

# What may follow a worker's state.
GROWTH = {
    State.STARTING: {State.SERVING, State.RETIRING, State.STOPPED, State.ABANDONED},
    State.SERVING: {State.RETIRING, State.STOPPED, State.ABANDONED},
    State.RETIRING: {State.STOPPED, State.ABANDONED},
    State.STOPPED: set(),
    State.ABANDONED: set(),
}


class WouldSleep(Exception):
    """A wake lock was taken that nobody has released."""


class Wake:
    """The wake lock of a worker: as the real one, but it raises where that would sleep."""

    def __init__(self) -> None:
        self.released = False

    def acquire(self) -> None:
        if not self.released:
            raise WouldSleep
        self.released = False

    def release(self) -> None:
        assert not self.released, "woken twice for once idle"
        self.released = True


class Admission:
    """What a driver waits for before it serves. To release it more than once is fine."""

    def __init__(self) -> None:
        self.released = False

    def acquire(self) -> None:
        assert self.released
        self.released = False

    def release(self) -> None:
        if self.released:
            raise RuntimeError("release unlocked lock")
        self.released = True


class Died(BaseException):
    """What a driver dies of."""


class Actor:
    """Somebody who takes steps. `at` is the one that comes next; None: it has ended."""

    def __init__(self) -> None:
        self.steps = self.live()
        self.at: str | None = next(self.steps)

    def live(self) -> Steps:
        raise NotImplementedError

    def step(self, choice: bool = True) -> None:
        try:
            self.at = self.steps.send(choice)
        except StopIteration:
            self.at = None

    def can_step(self) -> bool:
        return self.at is not None


class Submitter(Actor):
    """A thread in submit(): Dispatch.put, step by step, or as a whole."""

    def __init__(self, model: "Model", *, whole: bool) -> None:
        self.model, self.engine, self.whole = model, model.engine, whole
        self.task: Future[Any] = Future(int)
        self.appended = self.accepted = False
        self.dispatch = self.engine.dispatch
        super().__init__()

    def live(self) -> Steps:
        yield "append"
        try:
            if self.whole:
                self.append()
                self.accepted = self.dispatch.put(self.task)
            else:
                self.accepted = yield from self.put()
        except WorkerStartError:
            self.accepted = not self.dispatch.take_back(self.task)
        if not self.accepted:
            self.engine.reject()

    def append(self) -> None:
        self.appended = True

    def put(self) -> Steps:
        dispatch = self.dispatch
        if dispatch.closing:
            return False
        yield "append for good"
        self.append()
        dispatch.queue.append(self.task)
        yield "look"
        if dispatch.idle:
            yield "wake"
            try:
                dispatch.wake_one()
            except IndexError:
                dispatch.look()
        elif dispatch.vacancies:
            yield "want"
            dispatch.look()
        yield "closing?"
        return not dispatch.closing or not dispatch.take_back(self.task)

    def looks(self) -> bool:
        """Is its look still to come?"""
        return self.at in ("look", "wake", "want")


class Driver(Actor):
    """A worker's thread: drive, serve and fall_asleep, step by step."""

    def __init__(self, model: "Model", worker: Worker) -> None:
        self.model, self.worker = model, worker
        self.state = worker.state  # as it was after the last step
        self.held: Future[Any] | None = None
        self.dies = False
        super().__init__()

    def live(self) -> Steps:
        worker, engine = self.worker, self.model.engine
        if not (yield "open"):
            engine.start_failed(worker, ValueError("the initializer fails"))
            return
        lost = None
        if worker.claim_start("driver"):
            yield "be ready"
            engine.ready(worker)
            yield "be admitted"
            worker.admission.acquire()
            try:
                yield from self.serve()
            except Died as error:
                self.held, lost = None, error
        yield "vacate"
        engine.vacate(worker, lost)
        yield "leave"
        engine.left(worker)

    def serve(self) -> Steps:
        worker, dispatch = self.worker, self.worker.dispatch
        yield "serve"
        last_look = worker.resting = False
        yield from self.be_busy()
        while True:
            yield "mark"
            if worker.leaving is not None:
                return
            yield "pop"
            try:
                self.held = dispatch.queue.popleft()
            except IndexError:
                if last_look:
                    return
                worker.idle_since = self.model.now
                last_look = yield from self.fall_asleep()
                yield from self.be_busy()
                continue
            yield "show it"
            worker.task_started = self.model.now
            worker.gate.task = self.held
            yield "begin"
            if self.held.begin():
                yield from self.run(self.held)
            else:
                worker.gate.task = None
            self.held = None

    def be_busy(self) -> Steps:
        if self.worker.watch is not None:
            yield "be busy"
            self.worker.watch.busy_from(self.model.now)

    def run(self, task: Future[Any]) -> Steps:
        worker = self.worker
        worker.tasks += 1
        self.model.runs[task] += 1
        if worker.tasks == worker.last_task:
            yield "last task"
            self.model.hooks.on_last_task(worker)
        yield "end"
        worker.gate.task = None
        yield "settle"
        task.settle(None, None)  # a destroy, a deadline or a cancel may have been faster
        yield "call back"
        if self.dies:
            raise Died

    def fall_asleep(self) -> Steps:
        worker, dispatch = self.worker, self.worker.dispatch
        if (yield "fall asleep"):  # as a whole, by the real one
            try:
                return dispatch.fall_asleep(worker)
            except WouldSleep:
                yield "sleep"
        else:
            if dispatch.closing:
                return True
            worker.resting = True
            yield "publish"
            dispatch.idle.append(worker.wake)
            yield "look"
            if worker.leaving is not None or dispatch.closing:
                yield "rouse"
                dispatch.rouse(worker)
            elif dispatch.queue:
                yield "wake"
                dispatch.look()
            elif dispatch.on_rest is not None:
                yield "tell of rest"
                (dispatch.on_rest or int)()
            yield "sleep"
        worker.wake.acquire()
        yield "woken"
        worker.resting = False
        return dispatch.closing

    def can_step(self) -> bool:
        if self.at == "sleep":
            return self.worker.wake.released
        if self.at == "be admitted":
            return self.worker.admission.released
        return self.at is not None

    def is_here(self) -> bool:
        """Is its thread the pool's?"""
        return self.at is not None and self.worker.state is not State.ABANDONED

    def looks(self) -> bool:
        """Is its look still to come?"""
        return self.at in ("look", "rouse", "wake")

    def will_pop(self) -> bool:
        """Is it awake, and its next step, whatever else is done, a popleft?"""
        if self.at == "pop":
            return True
        if self.at in ("look", "rouse", "wake", "tell of rest", "sleep"):
            awake = self.worker.wake.released
        elif self.at == "be admitted":
            awake = self.worker.admission.released
        else:
            awake = self.at in ("serve", "mark", "woken", "be busy")
        return awake and self.worker.leaving is None


class Thread:
    """A host thread: an entry in the model's list."""

    def __init__(self, model: "Model", worker: Worker) -> None:
        self.model, self.worker = model, worker

    def start(self) -> None:
        model, worker = self.model, self.worker
        if model.no_threads:
            raise RuntimeError("can't start new thread")
        assert worker.dispatch not in model.destroyed, "a worker starts after destroy"
        if worker.dispatch.closing:
            assert worker.dispatch.queue, "a worker starts for a drain that needs none"
        self.driver = Driver(model, worker)
        model.drivers.append(self.driver)

    def is_alive(self) -> bool:
        return self.driver.at is not None


class WatchThread:
    """The watchdog's thread: the model does what it would do (`pass_time`)."""

    def __init__(self, model: "Model") -> None:
        self.model = model

    def start(self) -> None:
        if self.model.no_threads:
            raise RuntimeError("can't start new thread")

    def is_alive(self) -> bool:
        return True


# Steps for which time stands still: what is timed has begun, and does not show it yet.
BRIEF = ("begin", "fall asleep", "publish", "look", "rouse", "wake", "tell of rest")

# What may happen, and how often.
EVENTS = {
    "nothing": 10,
    "calm": 4,
    "work": 6,
    "come_to_rest": 6,
    "retire": 4,
    "fail_to_open": 3,
    "have_no_threads": 2,
    "hold_the_lock": 2,
    "cancel": 1,
    "cut": 2,
    "die": 1,
    "start": 2,
    "replace": 4,
    "request": 2,
    "resize": 2,
    "rest": 2,
    "pass_time": 8,
    "close": 1,
    "destroy": 1,
    "give_up": 1,
}


class Model(RuleBasedStateMachine):
    """The pool, everybody in it and around it."""

    roster_class: ClassVar[type[_roster.Roster]] = _roster.Roster

    @initialize(
        size=st.integers(1, 3),
        min_workers=st.integers(0, 2),
        surge=st.integers(0, 2),
        tasks=st.sampled_from([0, 0, 1, 2]),
        max_abandoned=st.sampled_from([None, 0, 1, 9, 9]),
        limits=st.fixed_dictionaries(
            {
                "age": st.sampled_from([inf, inf, 25.0]),
                "idle": st.sampled_from([inf, inf, 15.0, 2.0]),
                "task_timeout": st.sampled_from([inf, inf, 10.0]),
                "start_timeout": st.sampled_from([inf, 20.0]),
                "teardown": st.sampled_from([inf, 3.0]),
                "grace": st.sampled_from([5.0, 0.05]),
            }
        ),
    )
    def make(
        self,
        size: int,
        min_workers: int,
        surge: int,
        tasks: int,
        max_abandoned: int | None = None,
        limits: dict[str, float] | None = None,
    ) -> None:
        self.surge, self.now = surge, 0.0
        rules = Rules(tasks=tasks, surge=surge, max_abandoned=max_abandoned, jitter=0.0)
        self.settings = Settings(
            name="model",
            size=size,
            min_workers=min(min_workers, size),
            thread_names="model",
            backend=self,  # type: ignore[arg-type]
            isolated=False,
            rules=rules._replace(**(limits or {})),
            cache=1,
            clock=lambda: self.now,
            new_thread=self.new_thread,
        )
        self.open()

    def new_thread(self, args: Any, **_: Any) -> Any:
        return Thread(self, args[0]) if isinstance(args[0], Worker) else WatchThread(self)

    def open(self) -> None:
        self.drivers: list[Driver] = []
        self.submitters: list[Submitter] = []  # whose task has not its end
        self.runs: Counter[Future[Any]] = Counter()  # how often a task was begun
        self.waits: list[Wait] = []
        self.destroyed: list[Dispatch] = []
        self.ending: list[Dispatch] = []  # those that were closed or destroyed
        self.no_threads = False
        self.locked = False  # somebody carries an order out
        self.engine = Engine(self.settings)
        roster = self.engine.roster
        self.engine.roster = self.roster_class(
            roster.size,
            self.engine._new_worker,
            min_workers=roster.min_workers,
            surge=self.surge,
            max_abandoned=roster.max_abandoned,
        )
        self.real_retire, self.engine.retire_now = self.engine.retire_now, self.retire_now
        self.engine.news._note = lambda *told: None  # type: ignore[method-assign]
        self.engine.news.watchdog_failed = self.watchdog_failed  # type: ignore[method-assign]

    def watchdog_failed(self, error: Any) -> None:
        raise error

    def retire_now(self, worker: Worker, reason: Reason, why: str = "") -> None:
        """The engine's; first, one that is due and serves has to have a successor that is ready."""
        superseded = reason is worker.due and not why and worker.leaving is None
        if superseded and worker.state is State.SERVING:
            others = [w for w in self.engine.roster.workers if w is not worker]
            if self.surge:
                ready = [w for w in others if w.slot == worker.slot and w.opened]
                assert any(w.state is State.STARTING for w in ready), "it goes before its successor"
            else:
                assert all(w.state is State.SERVING for w in others), "two leave at a time"
        self.real_retire(worker, reason, why)

    def reopen(self) -> None:
        """What was shut down stays so; the next pool."""
        self.teardown()
        self.open()

    def __call__(self, worker: Worker, hooks: Hooks) -> Any:
        """A backend: it cannot interrupt a task."""
        self.hooks = hooks
        worker.wake = Wake()  # type: ignore[assignment]
        worker.admission = Admission()  # type: ignore[assignment]
        return SimpleNamespace(interrupt=lambda task: self.interrupt(worker, task))

    def interrupt(self, worker: Worker, task: Any) -> bool:
        assert worker.leaving is not None, "a worker that is aborted may take another task"
        assert task.done(), "a task is interrupted, and its future waits for that"
        return False

    # -- steps ------------------------------------------------------------------------------------

    def here(self) -> list[Driver]:
        return [d for d in self.drivers if d.is_here()]

    def submit(self, *, whole: bool) -> Submitter:
        """A task comes: its submitter reads the closing flag, or does it all."""
        submitter = Submitter(self, whole=whole)
        self.submitters.append(submitter)
        self.take(submitter, 1 + whole)
        return submitter

    def take(self, actor: Actor, steps: int = 1, choice: bool = True) -> None:
        """Have somebody take some steps; the invariants hold after each."""
        for _ in range(steps):
            if not actor.can_step():
                return
            actor.step(choice)
            self.check()

    @rule(
        event=st.sampled_from([name for name, weight in EVENTS.items() for _ in range(weight)]),
        which=st.integers(0, 5),
        moves=st.lists(st.integers(0, 63), max_size=16),
    )
    def happen(self, event: str, which: int, moves: list[int]) -> None:
        """Something happens, and then everybody goes on, step by step."""
        if self.engine.roster.state is PoolState.SHUTDOWN:
            self.reopen()
        getattr(self, event)(which)
        self.interleave(moves)
        if self.locked:
            self.release_the_lock()
        self.no_threads = False
        self.check()

    def interleave(self, moves: list[int]) -> None:
        """Tasks come, and everybody goes on, in the order that the numbers give."""
        for move in moves:
            actors: list[Actor] = [*self.submitters, *self.drivers]
            able = [a for a in actors if a.can_step()]
            whole, which = move % 2 == 0, move // 2
            if move == 63:
                self.pass_time(0)
            elif not able or which % (24 if self.engine.dispatch.closing else 6) == 0:
                self.submit(whole=whole)
            else:
                actor = able[which % len(able)]
                self.take(actor, choice=whole or actor.at == "open")

    def nothing(self, which: int) -> None:
        pass

    def calm(self, which: int) -> None:
        """All that was to be done is done: who is here is idle, and who waited has the answer."""
        self.calm_down()
        roster = self.engine.roster
        if roster.state is PoolState.OPEN:
            assert not self.engine.dispatch.queue
            assert all(w.state is State.SERVING for w in roster.workers), "somebody comes or goes"
            assert all(w.due is None for w in roster.workers), "somebody waits to be replaced"
            assert len(roster.workers) == roster.wanted, "more or fewer are here than are wanted"
        assert all(wait.done() for wait in self.waits), "somebody waits in vain"

    def calm_down(self) -> None:
        self.go_on()
        for _ in range(20):
            if not self.engine.roster.held_back or self.engine.roster.state is PoolState.BROKEN:
                return
            if self.wakes_at() == inf:
                self.engine.look()  # there was no thread for the watchdog: any order tries again
            self.pass_time(0)
            self.go_on()
        raise AssertionError("starts are held back for ever")

    def pass_time(self, which: int) -> None:
        """The watchdog's thread wakes: in time, or late."""
        late = (0.0, 0.0, 0.0, 0.5, 5.0, 50.0)[which]
        for driver in self.drivers.copy():  # no thread stands still there for seconds
            while driver.at in BRIEF:
                self.take(driver)
        if self.wakes_at() < inf:
            self.now = max(self.now, self.wakes_at()) + late
            self.engine.look()
        else:
            self.now += 1.0 + late
        self.check()

    def wakes_at(self) -> float:
        """When the watchdog's thread will look. None there: never."""
        watchdog = self.engine.watchdog
        return inf if watchdog is None or watchdog._sleep is None else watchdog.until

    def work(self, which: int) -> None:
        """One worker goes on for a while."""
        able = [d for d in self.drivers if d.can_step()]
        if able:
            self.take(able[which % len(able)], 12)

    def retire(self, which: int) -> None:
        """Retire a worker: one in two times, one that is about to fall asleep or to serve."""
        here = self.here()
        if which % 2:
            between = ("open", "be admitted", "fall asleep", "publish", "look")
            here = [d for d in here if d.at in between] or here
        if here:
            self.engine.retire(here[which % len(here)].worker, Reason.TASKS)

    def cancel(self, which: int) -> None:
        if self.submitters:
            self.submitters[which % len(self.submitters)].task.cancel()

    def cut(self, which: int) -> None:
        """A task that runs is cancelled."""
        running = [d.held for d in self.drivers if d.held is not None and d.held.running()]
        if running:
            task = running[which % len(running)]
            if self.engine.cancel(task):
                assert task.done()

    def die(self, which: int) -> None:
        """A driver dies after its task."""
        here = self.here()
        if here:
            here[which % len(here)].dies = True

    def replace(self, which: int) -> None:
        """A soft restart, or a slot is recycled; a successor may fail to open."""
        slot = which if which < self.engine.roster.size else None
        before = self.drivers.copy()
        self.waits.append(self.engine.replace(slot, "by the model"))
        if which % 2:
            for driver in self.drivers:
                if driver not in before and driver.at == "open":
                    self.take(driver, choice=False)

    def request(self, which: int) -> None:
        """A task wants its worker to be replaced."""
        here = self.here()
        if here:
            self.engine.request_recycle(here[which % len(here)].worker, "by the model")

    def resize(self, which: int) -> None:
        if self.engine.roster.state is PoolState.OPEN:
            self.engine.resize(max(1, self.settings.min_workers, which))

    def rest(self, which: int) -> None:
        """Somebody waits until there is nothing to do."""
        self.waits.append(self.engine.rest())

    def start(self, which: int) -> None:
        self.waits.append(self.engine.start())
        if which < 2:
            self.fail_to_open(which)

    def fail_to_open(self, which: int) -> None:
        """Some starts fail. As a rule none that would break the pool at once."""
        if self.engine.roster._once_ready or not which:
            self.submit(whole=True)
            for driver in self.here()[-1 - which :]:
                if driver.at == "open":
                    self.take(driver, choice=False)

    def have_no_threads(self, which: int) -> None:
        self.no_threads = True
        self.retire(which)

    def hold_the_lock(self, which: int) -> None:
        """Somebody is in the middle of an order: what others order waits."""
        self.locked = self.engine._orders._lock.acquire(blocking=False)
        assert self.locked

    def release_the_lock(self) -> None:
        self.locked = False
        self.engine._orders._lock.release()
        self.engine._orders._carry_out()

    def close(self, which: int) -> None:
        self.ending.append(self.engine.dispatch)
        self.engine.end(self.engine.dispatch, terminal=which == 0)

    def destroy(self, which: int) -> None:
        dispatch = self.engine.dispatch
        self.ending.append(dispatch)
        self.destroyed.append(dispatch)
        self.engine.abort(dispatch)

    def give_up(self, which: int) -> None:
        """Destroy again, and give some of those up who are still here."""
        for dispatch in self.destroyed[-1:]:
            self.engine.abort(dispatch)
            for driver in self.here()[: which + 1]:
                if driver.worker.dispatch is dispatch:
                    self.engine.abandon(driver.worker)

    # -- what holds after each step ---------------------------------------------------------------

    def check(self) -> None:
        self.engine.roster.check()
        self.check_workers()
        self.check_tasks()
        dispatches = [d.worker.dispatch for d in self.drivers]
        dispatches += [self.engine.dispatch, *(s.dispatch for s in self.submitters)]
        for dispatch in {id(d): d for d in dispatches}.values():
            self.check_count(dispatch)

    def check_workers(self) -> None:
        for driver in self.drivers:
            state = driver.worker.state
            assert state is driver.state or state in GROWTH[driver.state], "states only grow"
            driver.state = state
            if driver.at in ("sleep", "mark", "pop"):
                assert driver.worker.resting == (driver.at == "sleep")
        here, size = self.here(), self.engine.roster.size
        for state in (State.SERVING, State.STARTING):
            held = [d.worker.slot for d in here if d.worker.state is state]
            assert len(set(held)) == len(held), f"one slot, and two who are {state}"
        assert self.room() >= 0 or self.engine.roster._shrunk
        busy = [d.worker.slot for d in here if d.held is not None]
        assert len(set(busy)) == len(busy), "one slot, two tasks"
        assert all(d.worker.slot >= 0 for d in here)
        if not self.engine.roster._shrunk:
            assert all(d.worker.slot < size for d in here)
        for driver in self.drivers.copy():
            if driver.at is None:
                self.drivers.remove(driver)  # its thread has ended
        names = [(d.worker.slot, d.worker.generation) for d in self.drivers]
        assert len(set(names)) == len(names), "one slot and generation, two workers"
        roster = self.engine.roster
        if self.locked:
            return
        assert not self.engine._orders._orders
        serving = [d.worker.slot for d in here if d.worker.state is State.SERVING]
        assert all(slot < size for slot in serving), "one serves in a slot that is no more"
        for driver in here:
            if driver.worker.due is not None:
                assert driver.worker.state is not State.STOPPED
        assert [d.worker for d in here] == roster.workers
        gone = [d for d in self.drivers if d.at is not None and not d.is_here()]
        assert sorted(map(id, roster.abandoned)) == sorted(id(d.worker) for d in gone)
        for dispatch in self.destroyed:
            assert dispatch.closing
        if roster.state is PoolState.OPEN:
            assert not self.engine.dispatch.closing
        else:
            assert self.engine.dispatch.closing

    def check_tasks(self) -> None:
        """A task is in one place, and starts at most once."""
        dispatches = {id(s.dispatch): s.dispatch for s in self.submitters}
        places = [id(task) for dispatch in dispatches.values() for task in dispatch.queue]
        places += [id(d.held) for d in self.drivers if d.held is not None]
        assert len(set(places)) == len(places), "a task is in two places"
        placed = set(places)
        ended = []
        for submitter in self.submitters:
            task, here = submitter.task, id(submitter.task) in placed
            assert self.runs[task] <= 1
            if submitter.at is None and not submitter.accepted:
                assert not here, "a task was refused, and run"
                assert not self.runs[task], "a task was refused, and run"
            elif submitter.appended and not here:
                assert task.done(), "a task was lost"
            if submitter.at is None and not here:
                ended.append(submitter)
        for submitter in ended:
            self.submitters.remove(submitter)

    def check_count(self, dispatch: Dispatch) -> None:
        """The proof's: Q <= S + Ls or I <= Lw."""
        drivers = [d for d in self.drivers if d.worker.dispatch is dispatch]
        awake = sum(d.will_pop() for d in drivers)
        submitters = sum(s.looks() for s in self.submitters if s.dispatch is dispatch)
        looks = sum(d.looks() for d in drivers)
        tasks, idle = len(dispatch.queue), len(dispatch.idle)
        assert tasks <= awake + submitters or idle <= looks, "a task waits beside an idle worker"

    # -- rest -------------------------------------------------------------------------------------

    def come_to_rest(self, which: int) -> None:
        """Have everybody go on who does not depend on foreign code: then nobody waits in vain."""
        self.go_on(waiting_at=("open", "end", "call back"))
        roster, dispatch = self.engine.roster, self.engine.dispatch
        dispatch.check()
        assert not any(d.at == "sleep" and d.worker.leaving for d in self.drivers)
        queued, here = len(dispatch.queue), self.here()
        later = roster.held_back and self.wakes_at() < inf
        empty = self.empty_slots()
        room = 0 if roster.held_back else min(len(empty), max(0, self.room()))
        starting = [d for d in here if d.at == "open" and d.worker.leaving is None]
        starting += [d for d in here if d.at == "be admitted" and d.worker.leaving is None]
        taken = {d.worker.slot for d in here if d.held is not None}
        taken |= {d.worker.slot for d in here if d.worker.state is State.SERVING}
        opening = sum(d.worker.slot not in taken for d in starting)
        self.check_watchdog()
        if roster.state is PoolState.BROKEN:
            assert not queued
        elif roster.state is PoolState.CLOSING:
            assert here or later, "a drain has nobody to end it"
            if queued and dispatch not in self.destroyed and roster.broken is None:
                assert not room or opening >= queued
        elif roster.state is PoolState.OPEN:
            assert dispatch.vacancies == room, "a vacancy that nobody sees, or that is none"
            if queued:
                assert here or later, "a task has nobody to run it"
                assert not room or opening >= queued, "a task waits beside a vacancy"
            self.check_due(empty)
            self.check_waits(queued, room)

    def room(self) -> int:
        """How many more may live."""
        size = self.engine.roster.size
        return size + self.surge - sum(d.worker.slot < size for d in self.here())

    def empty_slots(self) -> set[int]:
        """Where nobody serves or starts."""
        held = (State.STARTING, State.SERVING)
        here = {d.worker.slot for d in self.here() if d.worker.state in held}
        return set(range(self.engine.roster.size)) - here

    def check_due(self, empty: set[int]) -> None:
        """Who is due has a successor, if there is room for one."""
        workers = [d.worker for d in self.here()]
        starting = {w.slot for w in workers if w.state is State.STARTING}
        due = [w for w in workers if w.state is State.SERVING and w.due is not None]
        alone = [w for w in due if w.slot not in starting]
        if alone and not self.engine.roster.held_back:
            if self.surge:
                assert self.room() <= len(empty), "one is due, has no successor, and there is room"
            else:
                others = [w for w in workers if w.state is not State.SERVING]
                assert others, "one is due, and does not go"

    def check_waits(self, queued: int, room: int) -> None:
        """Who waits for something waits for somebody."""
        workers, later = [d.worker for d in self.here()], self.engine.roster.held_back
        starting = any(w.state is State.STARTING for w in workers)
        for wait in self.waits:
            if wait.done():
                continue
            if isinstance(wait, Started):
                assert starting or not room, "start() waits for nobody"
            elif isinstance(wait, Rested):
                busy = not all(w.resting or w.vacated for w in workers)
                assert queued or busy, "wait_idle() waits, and all rest"
            else:
                going = any(w.due is not None or w.state is State.RETIRING for w in workers)
                assert starting or going or later, "who wants some replaced waits for nobody"

    def check_watchdog(self) -> None:
        """It wakes as soon as there is something to do."""
        roster, watchdog, until = self.engine.roster, self.engine.watchdog, self.wakes_at()
        if watchdog is not None and watchdog._sleep is None and watchdog.until < inf:
            return  # there was no thread for it: the next order tries again
        if roster.held_back and roster.state is not PoolState.BROKEN:
            assert until < inf, "starts are held back for ever"
        aging, shrinking = roster.state is PoolState.OPEN, roster.may_shrink()
        for worker in roster.workers:
            when, act, *_ = next_deadline(
                worker, self.engine.rules, self.now, aging=aging, shrinking=shrinking
            )
            assert until <= max(when, self.now + 0.001), f"it sleeps through {act} of {worker}"

    def go_on(self, waiting_at: tuple[str, ...] = ()) -> None:
        """Have everybody take all steps there are."""
        if self.locked:
            self.release_the_lock()
        for _ in range(MANY):
            actors = [*self.submitters, *self.drivers]
            able = [a for a in actors if a.can_step() and a.at not in waiting_at]
            if not able:
                return
            for actor in able:
                self.take(actor, choice=actor.at == "open")
        raise AssertionError("they go on for ever")

    def teardown(self) -> None:
        """A drain always ends, everything accepted has its end, and nobody is left."""
        if not hasattr(self, "engine"):
            return
        self.go_on(waiting_at=("open", "end", "call back"))
        dispatch = self.engine.dispatch
        self.engine.end(dispatch)
        self.ending.append(dispatch)
        self.calm_down()
        assert all(dispatch.ended.done() for dispatch in self.ending)
        assert all(wait.done() for wait in self.waits)
        assert not self.submitters
        assert not self.here()
        roster = self.engine.roster
        assert (roster.workers, roster.abandoned) == ([], [])
        assert roster.state is (PoolState.SHUTDOWN if roster.terminal else PoolState.OPEN)
        self.check()


# ==== some interleavings that chance finds rarely ================================================


def model_of(size: int, *, min_workers: int = 0, tasks: int = 0, **limits: float) -> Model:
    model = Model()
    model.make(size=size, min_workers=min_workers, surge=1, tasks=tasks, limits=limits)
    return model


def submit(model: Model) -> Future[Any]:
    return model.submit(whole=True).task


def go_to(model: Model, driver: Driver, step: str) -> None:
    """Have a driver go on, and stop before a step."""
    while driver.at != step:
        assert driver.can_step()
        model.take(driver, choice=driver.at == "open")


@pytest.mark.parametrize("tasks", range(1, 6))
def test_no_more_workers_start_than_there_are_tasks(tasks):
    model = model_of(4)
    for _ in range(tasks):
        submit(model)
    assert len(model.drivers) == min(tasks, 4)
    model.go_on()
    assert len(model.drivers) == min(tasks, 4)
    model.teardown()
    assert not model.drivers


def test_one_worker_runs_what_comes_one_by_one():
    model = model_of(4)
    for _ in range(5):
        submit(model)
        model.go_on()
    assert len(model.drivers) == 1
    model.teardown()


def test_a_worker_is_retired_as_it_falls_asleep():
    model = model_of(1)
    submit(model)
    (driver,) = model.drivers
    go_to(model, driver, "fall asleep")
    model.retire(0)  # it is not in the stack, and read its mark before
    model.take(driver, choice=True)  # the real fall_asleep: it sees the mark
    assert driver.can_step()
    model.come_to_rest(0)
    model.teardown()


def test_a_task_does_not_wait_for_a_slot_in_which_another_runs():
    model = model_of(2, tasks=1)
    first = submit(model)
    (driver,) = model.drivers
    go_to(model, driver, "end")  # its last task: a successor waits for its slot
    model.go_on(waiting_at=("end",))
    assert [d.at for d in model.drivers] == ["end", "be admitted"]
    second = submit(model)
    model.go_on(waiting_at=("end",))
    assert second.running()
    assert first.running()
    model.teardown()


def test_a_start_that_fails_is_tried_again_when_nobody_serves_and_a_task_waits():
    model = model_of(1, tasks=1)
    submit(model)
    old = model.drivers[0]
    go_to(model, old, "end")
    task = submit(model)  # nobody can be started: it is for the successor
    new = model.drivers[1]
    model.take(old, 20)
    assert old.at is None
    model.take(new, choice=False)
    model.come_to_rest(0)
    model.calm(0)
    assert task.done()
    model.teardown()


def test_start_is_told_when_a_worker_cannot_be_started():
    model = model_of(1, min_workers=1)
    model.start(5)
    model.take(model.drivers[0], choice=False)
    assert isinstance(model.waits[0].exception(0), BrokenRecyclePool | WorkerStartError)
    model.teardown()


def test_who_waits_is_told_when_the_pool_breaks():
    model = model_of(1)
    tasks = [submit(model), submit(model)]
    model.take(model.drivers[0], choice=False)
    assert all(isinstance(task.exception(0), BrokenRecyclePool) for task in tasks)
    model.come_to_rest(0)
    model.teardown()


def test_start_is_told_when_there_is_no_thread():
    model = model_of(2, min_workers=2)
    model.no_threads = True
    model.start(5)
    assert isinstance(model.waits[0].exception(0), WorkerStartError)
    model.no_threads = False
    model.start(5)
    model.go_on()
    assert model.waits[1].result(0) == 2
    model.teardown()


@pytest.mark.parametrize("closing", [False, True])
def test_who_waits_for_a_worker_that_no_thread_is_there_for_is_told(closing):
    model = model_of(1, tasks=1)
    submit(model)
    (driver,) = model.drivers
    go_to(model, driver, "last task")
    model.no_threads = True
    task = submit(model)
    if closing:
        model.close(5)
    model.go_on()
    assert isinstance(task.exception(0), WorkerStartError)
    model.teardown()


# ==== and any ====================================================================================


# Deterministic: the same examples in each run.
PROFILE = settings(
    max_examples=100,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_any_interleaving():
    run_machine(Model, settings=PROFILE)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_any_interleaving_for_long():
    run_machine(
        Model,
        settings=settings(PROFILE, derandomize=False, max_examples=5_000, stateful_step_count=120),
    )
