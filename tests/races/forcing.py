"""What interleavings are forced with: what lies, and exceptions put where they may come.

Nothing here waits for time to pass. Who waits, waits for an event, and PATIENCE is only how long it
may take until a test is sure that the event will never come.
"""

import dis
import gc
import operator
import os
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future as StandardFuture
from functools import partial
from types import FrameType
from typing import Any

import recyclepool
from recyclepool import Reason, RecyclePool
from recyclepool._dispatch import Dispatch
from recyclepool._worker import Worker
from recyclepool.backends import Thread

PATIENCE = float(os.environ.get("RACES_PATIENCE", "20"))
PACKAGE = os.path.dirname(recyclepool.__file__) + os.sep


def noop() -> None:
    """A task."""


# ---- waiting ------------------------------------------------------------------------------------


def wait(event: threading.Event) -> None:
    """Wait for what is sure to come."""
    assert event.wait(PATIENCE), "it never came"


def until(happened: Callable[[], Any], what: str = "") -> None:
    """Wait for what has no event of its own."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"never happened: {what or happened}"
        time.sleep(0.0005)


class Elsewhere:
    """A call on a thread of its own."""

    def __init__(self, action: Callable[..., Any], *args: Any) -> None:
        self._outcome: StandardFuture[Any] = StandardFuture()
        self.thread = threading.Thread(target=self._run, args=(action, args), daemon=True)
        self.thread.start()

    def _run(self, action: Callable[..., Any], args: Any) -> None:
        try:
            self._outcome.set_result(action(*args))
        except BaseException as error:
            self._outcome.set_exception(error)

    def result(self) -> Any:
        """Wait for its end."""
        result = self._outcome.result(PATIENCE)
        self.thread.join(PATIENCE)
        return result


def elsewhere(action: Callable[..., Any], *args: Any) -> Any:
    """Call it on a thread of its own, from its start to its end, and return what it returned."""
    return Elsewhere(action, *args).result()


# ---- what lies ----------------------------------------------------------------------------------


class Steps:
    """Does something, once, at a named place between two steps of a dispatch.

    The places: before/after append, after taking a task, after finding none, before/after
    publishing, before taking out (of the stack, by a retire). Without `stack` the idle stack stays
    as it is.
    """

    def __init__(self, dispatch: Dispatch, *, stack: bool = True) -> None:
        self._due: dict[str, Callable[[], Any]] = {}
        self.accepted: list[Any] = []
        steps = self

        class Queue(deque[Any]):
            def append(self, task: Any) -> None:
                steps.at("before append")
                super().append(task)
                steps.accepted.append(task)
                steps.at("after append")

            def popleft(self) -> Any:
                try:
                    task = super().popleft()
                except IndexError:
                    steps.at("after finding none")
                    raise
                steps.at("after taking a task")
                return task

        class Idle(list[Any]):
            def append(self, wake: Any) -> None:
                steps.at("before publishing")
                super().append(wake)
                steps.at("after publishing")

            def remove(self, wake: Any) -> None:
                steps.at("before taking out")
                super().remove(wake)

        dispatch.queue = Queue()
        if stack:
            dispatch.idle = Idle()
            dispatch.wake_one = map(
                operator.methodcaller("release"), iter(dispatch.idle.pop, None)
            ).__next__

    def once(self, place: str, action: Callable[[], Any]) -> None:
        """At that place, when somebody comes by there next."""
        self._due[place] = action

    def at(self, place: str) -> None:
        """Somebody is there."""
        action = self._due.pop(place, None)
        if action is not None:
            action()


class Spied:
    """A lock with a call before and after each of its steps. They may be set at any time."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.before_acquire: Callable[[], Any] = noop
        self.after_acquire: Callable[[], Any] = noop
        self.before_release: Callable[[], Any] = noop
        self.after_release: Callable[[], Any] = noop

    def acquire(self, *args: Any) -> bool:
        self.before_acquire()
        taken = bool(self._real.acquire(*args))
        if taken:
            self.after_acquire()
        return taken

    def release(self) -> None:
        self.before_release()
        self._real.release()
        self.after_release()

    __enter__ = acquire

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class SlowGate:
    """A gate's lock. To take it is one C call, which tells that it began, and waits."""

    def __init__(self, real: Any) -> None:
        self.begun, self.go_on = threading.Lock(), threading.Lock()
        self.begun.acquire()
        self.go_on.acquire()
        steps = (self.begun.release, self.go_on.acquire, real.acquire)
        turns = zip(*(iter(step, "never") for step in steps), strict=True)
        self.acquire = partial(next, map(operator.itemgetter(2), turns))
        self.release = real.release
        self._is_owned = real._is_owned


def once(action: Callable[[], Any]) -> Callable[[], None]:
    """The action the first time, nothing after it."""
    due = [action]

    def first() -> None:
        if due:
            due.pop()()

    return first


class Rigged:
    """The thread backend; each worker is shown to `rig` before its thread starts."""

    name = "thread"
    shares_objects = True
    can_kill = False

    def __init__(self, rig: Callable[[Worker], Any]) -> None:
        self._rig = rig

    def __call__(self, worker: Worker, hooks: Any) -> Any:
        self._rig(worker)
        return Thread()(worker, hooks)


class SpiedWakes(Rigged):
    """Each worker's wake lock is a Spied one, put into `locks` in the order of their making."""

    def __init__(self, locks: list[Any]) -> None:
        def rig(worker: Worker) -> None:
            worker.wake = Spied(worker.wake)
            locks.append(worker.wake)

        super().__init__(rig)


def abort(pool: RecyclePool, worker: Worker, task: Any) -> list[bool | None]:
    """Have a task stopped as the engine does it: in one order, the worker is retired first.

    What the gate answered, once the order is carried out: nothing if the task was over by then.
    """
    engine, answers = pool._engine, []

    def stop() -> None:
        if worker.gate.task is task:
            engine.retire_now(worker, Reason.LOST)
            answers.append(worker.gate.request_abort(task))

    engine._orders.give(stop)
    return answers


def workers(pool: RecyclePool) -> list[Worker]:
    """Those who are there."""
    return pool._engine.roster.workers.copy()


def asleep(pool: RecyclePool, count: int) -> None:
    """Wait until so many of its workers sleep."""
    dispatch = pool._engine.dispatch
    until(lambda: len(dispatch.idle) == count and not dispatch.queue, f"{count} asleep")


def with_idle(pool: RecyclePool, count: int) -> RecyclePool:
    """Have it start so many workers, and wait until they sleep."""
    barrier = threading.Barrier(count)
    for together in [pool.submit(barrier.wait, PATIENCE) for _ in range(count)]:
        together.result(PATIENCE)
    asleep(pool, count)
    return pool


def run_one(pool: RecyclePool) -> Any:
    """Have a worker run a task, and fall idle then, with nobody else in the pool's code."""
    go = threading.Event()
    future = pool.submit(_run_one, go)
    go.set()
    return future


def _run_one(go: threading.Event) -> int:
    wait(go)
    return threading.get_ident()


# ---- foreign code -------------------------------------------------------------------------------


def by_signal(action: Callable[[], Any]) -> None:
    """Call it in a signal handler, here and now. In the main thread."""
    outer = signal.signal(signal.SIGUSR1, lambda *_: action())
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, outer)


def by_finalizer(action: Callable[[], Any]) -> None:
    """Call it in a __del__, here and now."""

    class Finalized:
        def __del__(self) -> None:
            action()

    Finalized()


def by_weakref(action: Callable[[], Any]) -> None:
    """Call it in a weakref callback, here and now."""

    class Referent:
        pass

    referent = Referent()
    reference = weakref.ref(referent, lambda _: action())
    del referent
    assert reference() is None


# ---- places -------------------------------------------------------------------------------------


class Places:
    """Where an exception from outside may surface: a trace function that counts them.

    CPython looks at its eval breaker after a call, at a backward jump and where a Python function
    starts or a generator goes on. A trace function is called before each bytecode, so a place is a
    bytecode before which one of those was done. Where a loop comes by again, on the same way, is no
    other place. At the `n`-th place (from 0) `act` is called; what it raises, surfaces there. Only
    frames of code for which `counts` is true have places.
    """

    def __init__(
        self, n: int, act: Callable[[], Any], counts: Callable[[FrameType], bool] | None = None
    ) -> None:
        self.left = n
        self.where = ""  # of the n-th place, once it was reached
        self._act = act
        self._counts = counts or is_ours
        self._before: dict[FrameType, str] = {}  # what each frame did last
        self._ways: set[tuple[Any, ...]] = set()  # to each place that was passed

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            if not self._counts(frame):
                return None
            frame.f_trace_lines = False
            frame.f_trace = self._trace
            frame.f_trace_opcodes = True
            self._before[frame] = "RESUME"
        elif event == "opcode":
            before = self._before[frame]
            self._before[frame] = _operation(frame)
            if looks(before):
                self._pass(frame, at_its_start=before == "RESUME")
        elif event == "exception":
            self._before[frame] = ""  # a call that raises does not look
        elif event == "return":
            del self._before[frame]
        return self._trace

    def _pass(self, frame: FrameType, at_its_start: bool) -> None:
        way = tuple((each.f_code, each.f_lasti) for each in self._before)
        if way in self._ways:
            return
        self._ways.add(way)
        self.left -= 1
        if self.left == -1:
            place = (
                "start" if at_its_start else f"line {frame.f_lineno}, before {_operation(frame)}"
            )
            self.where = f"{frame.f_code.co_qualname}: {place}"
            self._act()

    def watch(self, action: Callable[[], Any]) -> Any:
        """Call `action` and pass by its places."""
        gc.disable()  # or a pool of an earlier test ends in the middle of this one's action
        outer, mine = sys.gettrace(), sys._getframe()
        mine.f_trace_opcodes = True  # some versions want it before tracing is switched on
        sys.settrace(self._trace)
        try:
            return action()
        finally:
            sys.settrace(outer)
            gc.enable()
            self._before.clear()


def is_ours(frame: FrameType) -> bool:
    """Is it code of recyclepool?"""
    return frame.f_code.co_filename.startswith(PACKAGE)


def _operation(frame: FrameType) -> str:
    return dis.opname[frame.f_code.co_code[frame.f_lasti]]


def looks(operation: str) -> bool:
    """Does the interpreter look at its eval breaker when that is done?"""
    if operation.startswith("CALL"):
        return "INTRINSIC" not in operation
    return "JUMP_BACKWARD" in operation or operation == "RESUME"


class Interrupt(KeyboardInterrupt):
    """Ctrl-C, as put by a test."""


def _interrupt() -> None:
    raise Interrupt


def interrupted_everywhere(
    stage: Callable[[], tuple[Callable[[], Any], Callable[[str], Any]]], at_least: int
) -> None:
    """Interrupt an action at each of its places in turn.

    `stage` sets the scene anew each time; it returns the action and what is to be checked after it,
    which is called with the place. The last time nothing is interrupted, and the place is "".
    `at_least`: as many places are expected.
    """
    for n in _count(at_least):
        action, check = stage()
        places = Places(n, _interrupt)
        try:
            places.watch(action)
        except Interrupt:
            assert places.where
        try:
            check(places.where)
        except BaseException as error:
            error.add_note(f"interrupted at place {n}: {places.where}")
            raise
        if not places.where:
            assert n >= at_least, f"only {n} places"
            return


def _count(at_least: int) -> Iterator[int]:
    limit = 50 * at_least + 1000
    yield from range(limit)
    raise AssertionError(f"more than {limit} places")


# ---- what is to hold afterwards -----------------------------------------------------------------


BEFORE_THE_ORDER = {
    f"{name}: start" for name in ("Dispatch.look", "Engine.want_worker", "Orders.give")
} | {"guarded: start", "Orders._give: start", "Orders._carry_out: start"}


def is_free(lock: Any) -> bool:
    """Nobody holds it for long, and no thread that is gone does (whose ident may be used again)."""
    real = getattr(lock, "_real", lock)
    until(lambda: "unlocked" in repr(real), f"{real} to be released")
    return True


def serves_on(pool: RecyclePool, size: int = 2) -> None:
    """All its workers come together, it closes, and nothing is held, lost or left over."""
    engine = pool._engine
    dispatch = engine.dispatch
    barrier = threading.Barrier(size)
    for each in [pool.submit(barrier.wait, PATIENCE) for _ in range(size)]:
        each.result(PATIENCE)
    engine.roster.check()
    elsewhere(pool.close)
    assert is_free(engine._orders._lock), "the engine's lock is held"
    assert not engine._orders._orders, "an order was left"
    assert not dispatch.queue, "a task is stranded"
    assert not dispatch.idle, "a worker was left"
    assert not engine.roster.workers, "a worker was left"
    assert dispatch.ended.done()
    engine.roster.check()


def told(pool: RecyclePool) -> None:
    """Wait until no thread runs callbacks any more, or tells news."""
    until(lambda: not pool._engine.teller._telling, "callbacks to be told")
    news = pool._engine.news
    until(lambda: not news._items and not news._role.locked(), "news to be told")


def settled_and_free(futures: list[Any]) -> None:
    """Each has its end, and nobody holds its lock."""
    for future in futures:
        assert future.done(), future
        assert is_free(future._lock), "a future's lock is held"
