"""How tasks, workers and the pool's life interleave: a model of one thread that takes single steps.

Roster, dispatch and engine are the real ones. Submitters and drivers are generators that stop
before each step of the proof in ``_dispatch.py``, so hypothesis may interleave them in any way. A
wake lock is a flag that notes its release, and a thread is an entry in a list: nothing here runs
at the same time as anything else, and nothing ever sleeps. While the model holds the engine's
lock, orders wait, as they do when some thread is in the middle of carrying one out.

After each step the invariants hold; at rest (nobody can go on but tasks that run and initializers)
no task waits for whom it need not; and each run ends with a close that comes to its end.
"""

from collections import Counter
from collections.abc import Generator
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
from recyclepool._worker import Worker
from recyclepool.backends import Hooks
from recyclepool.errors import BrokenRecyclePool, WorkerStartError
from recyclepool.events import PoolState, Reason, State
from recyclepool.limits import Limits

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
        if not self.dispatch.closing:
            self.model.excused = False

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
        super().__init__()

    def live(self) -> Steps:
        worker, engine = self.worker, self.model.engine
        if not (yield "open"):
            engine.start_failed(worker, ValueError("the initializer fails"))
            return
        engine.ready(worker)
        yield "be admitted"
        worker.admission.acquire()
        yield from self.serve()
        yield "vacate"
        engine.vacate(worker, Reason.CLOSE)
        yield "leave"
        engine.left(worker)

    def serve(self) -> Steps:
        worker, dispatch = self.worker, self.worker.dispatch
        yield "serve"
        last_look = worker.resting = False
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
                last_look = yield from self.fall_asleep()
                continue
            yield "begin"
            if self.held.begin():
                yield from self.run(self.held)
            self.held = None

    def run(self, task: Future[Any]) -> Steps:
        worker = self.worker
        worker.tasks += 1
        self.model.runs[task] += 1
        if worker.tasks == worker.last_task:
            yield "last task"
            self.model.hooks.on_last_task(worker)
        yield "run"
        worker.gate.task = task
        yield "end"
        worker.gate.task = None
        yield "settle"
        task.settle(None, None)  # a destroy may have been faster
        yield "call back"

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

    def is_active(self) -> bool:
        return self.is_here() and self.worker.state in (State.STARTING, State.SERVING)

    def looks(self) -> bool:
        """Is its look still to come?"""
        return self.at in ("look", "rouse", "wake")

    def will_pop(self) -> bool:
        """Is it awake, and its next step, whatever else is done, a popleft?"""
        if self.at == "pop":
            return True
        if self.at in ("look", "rouse", "wake", "sleep"):
            awake = self.worker.wake.released
        elif self.at == "be admitted":
            awake = self.worker.admission.released
        else:
            awake = self.at in ("serve", "mark", "woken")
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
        model.drivers.append(Driver(model, worker))


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
    "start": 2,
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
        tasks=st.sampled_from([None, None, 1, 2]),
    )
    def make(self, size: int, min_workers: int, surge: int, tasks: int | None) -> None:
        self.size, self.surge = size, surge
        self.settings = Settings(
            name="model",
            size=size,
            min_workers=min(min_workers, size),
            thread_names="model",
            backend=self,  # type: ignore[arg-type]
            isolated=False,
            limits=Limits(tasks=tasks),
            cache=1,
            clock=lambda: 0.0,
            new_thread=lambda args, **_: Thread(self, args[0]),  # type: ignore[arg-type]
        )
        self.open()

    def open(self) -> None:
        self.drivers: list[Driver] = []
        self.submitters: list[Submitter] = []  # whose task has not its end
        self.runs: Counter[Future[Any]] = Counter()  # how often a task was begun
        self.starts: list[Future[int]] = []
        self.destroyed: list[Dispatch] = []
        self.ending: list[Dispatch] = []  # those that were closed or destroyed
        self.no_threads = False
        self.locked = False  # somebody carries an order out
        self.failed_starts = 0
        self.excused = False  # a start has failed since the last submit: who is queued may wait
        self.engine = Engine(self.settings)
        roster = self.engine.roster
        self.engine.roster = self.roster_class(
            roster.size, self.engine._new_worker, min_workers=roster.min_workers, surge=self.surge
        )

    def reopen(self) -> None:
        """What was shut down stays so; the next pool."""
        self.teardown()
        self.open()

    def __call__(self, worker: Worker, hooks: Hooks) -> Any:
        """A backend: it cannot interrupt a task."""
        self.hooks = hooks
        worker.wake = Wake()  # type: ignore[assignment]
        worker.admission = Admission()  # type: ignore[assignment]
        return SimpleNamespace(interrupt=lambda task: False)

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
            if not able or which % (24 if self.engine.dispatch.closing else 6) == 0:
                self.submit(whole=whole)
            else:
                actor = able[which % len(able)]
                self.take(actor, choice=whole or actor.at == "open")

    def nothing(self, which: int) -> None:
        pass

    def calm(self, which: int) -> None:
        """All that was to be done is done: who is here is idle."""
        self.go_on()

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

    def start(self, which: int) -> None:
        self.starts.append(self.engine.start())
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
        self.locked = self.engine._lock.acquire(blocking=False)
        assert self.locked

    def release_the_lock(self) -> None:
        self.locked = False
        self.engine._lock.release()
        self.engine._carry_out()

    def close(self, which: int) -> None:
        self.ending.append(self.engine.dispatch)
        self.excused = False  # to close it looks, too
        self.engine._order(self.engine._close, self.engine.dispatch, which == 0)

    def destroy(self, which: int) -> None:
        dispatch = self.engine.dispatch
        self.ending.append(dispatch)
        self.destroyed.append(dispatch)
        self.engine._order(self.engine._destroy, dispatch)

    def give_up(self, which: int) -> None:
        """Destroy again, and give some of those up who are still here."""
        for dispatch in self.destroyed[-1:]:
            self.engine._order(self.engine._destroy, dispatch)
            for driver in self.here()[: which + 1]:
                if driver.worker.dispatch is dispatch:
                    self.engine._order(self.engine._abandon, driver.worker)

    # -- what holds after each step ---------------------------------------------------------------

    def check(self) -> None:
        failed = self.engine.roster.failed_starts
        if failed != self.failed_starts:
            self.failed_starts, self.excused = failed, True
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
        here, active = self.here(), [d for d in self.drivers if d.is_active()]
        assert len(active) <= self.size
        assert len(here) <= self.size + self.surge
        assert len({d.worker.slot for d in active}) == len(active)
        busy = [d.worker.slot for d in here if d.held is not None]
        assert len(set(busy)) == len(busy), "one slot, two tasks"
        assert all(0 <= d.worker.slot < self.size for d in active)
        for driver in self.drivers.copy():
            if driver.at is None:
                self.drivers.remove(driver)  # its thread has ended
        names = [(d.worker.slot, d.worker.generation) for d in self.drivers]
        assert len(set(names)) == len(names), "one slot and generation, two workers"
        roster = self.engine.roster
        if self.locked:
            return
        assert not self.engine._orders
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
        queued = len(dispatch.queue)
        here = self.here()
        active = sum(d.is_active() for d in here)
        room = min(self.size - active, self.size + self.surge - len(here))
        starting = [d for d in here if d.at == "open" and d.worker.leaving is None]
        starting += [d for d in here if d.at == "be admitted" and d.worker.leaving is None]
        running = {d.worker.slot for d in here if d.held is not None}
        opening = sum(d.worker.slot not in running for d in starting)
        if roster.state is PoolState.BROKEN:
            assert not queued
        elif roster.state is PoolState.CLOSING:
            assert here, "a drain has nobody to end it"
            if queued and dispatch not in self.destroyed and roster.broken is None:
                assert not room or opening >= queued or self.excused
        elif roster.state is PoolState.OPEN:
            assert dispatch.vacancies == room, "a vacancy that nobody sees, or that is none"
            if queued:
                assert here, "a task has nobody to run it"
                assert not room or opening >= queued or self.excused, (
                    "a task waits beside a vacancy"
                )
            if any(not start.done() for start in self.starts):
                assert here, "start() waits for nobody"
                assert starting or not room or self.excused, "start() waits for nobody"

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
        self.engine._order(self.engine._close, dispatch, False)
        self.ending.append(dispatch)
        self.go_on()
        assert all(dispatch.ended.done() for dispatch in self.ending)
        assert all(start.done() for start in self.starts)
        assert not self.submitters
        assert not self.here()
        roster = self.engine.roster
        assert (roster.workers, roster.abandoned) == ([], [])
        assert roster.state is (PoolState.SHUTDOWN if roster.terminal else PoolState.OPEN)
        self.check()


# ==== some interleavings that chance finds rarely ================================================


def model_of(size: int, *, min_workers: int = 0, tasks: int | None = None) -> Model:
    model = Model()
    model.make(size=size, min_workers=min_workers, surge=1, tasks=tasks)
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
    model.go_on()
    assert task.done()
    model.teardown()


def test_start_is_told_when_a_worker_cannot_be_started():
    model = model_of(1, min_workers=1)
    model.start(5)
    model.take(model.drivers[0], choice=False)
    assert isinstance(model.starts[0].exception(0), BrokenRecyclePool | WorkerStartError)
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
    assert isinstance(model.starts[0].exception(0), WorkerStartError)
    model.no_threads = False
    model.start(5)
    model.go_on()
    assert model.starts[1].result(0) == 2
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
