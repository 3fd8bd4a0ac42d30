"""GATE: where an abort may surface in a worker's thread, and where it cannot.

An abort is an asynchronous exception. It is *injected* by another thread, and it *surfaces* in the
worker's thread when that next looks at its eval breaker: possibly much later, and anywhere. CPython
looks there after a call, at a backward jump and at the start of a Python function, and never inside
one C call; "one C call" in these comments means just that.

1. The worker's thread holds its gate (an RLock) except while it runs user code. It lets go of it
   with the first call inside the ``try`` that runs a task, and takes it back with the last.
2. An injector injects only while IT holds the gate, and only while ``gate.task`` is the task that
   it means. So an abort is injected into user code. It may be injected again while that task
   still runs: the interpreter swallows one that surfaces in a finalizer or in a weakref callback.
3. It also surfaces there, or in the call that takes the gate back: that call looks at the eval
   breaker when it returns, the gate then being ours and injection being over. After it nothing is
   pending, and nothing can become so while the gate is held. Both such calls (in ``enter`` and
   where a task is run) stand in a ``try`` that catches what surfaces.
4. What a task calls of the pool (submit, cancel, result, a Condition's block, close, ...) runs
   between ``enter`` and ``leave``. So by 3 no abort surfaces in it, its locks are released, its
   changes whole. Done callbacks run with the gate held too: all of them run.
5. An injector leaves its wish in ``wishes`` BEFORE it tries the gate; the worker looks at
   ``wishes`` AFTER each release of it. One of the two sees the other: no wish is lost. Whoever
   carries it out, the injector or the worker (``_surrender``), takes it back under the gate: one
   wish, one exception.
6. A task that sleeps in the pool's code holds the gate. It shows its ``sleeper``, then looks at
   ``wishes``; the injector leaves its wish, then looks for the sleeper and wakes it. One sees the
   other.
7. A worker whose task was aborted takes no other: who wants an abort retires the worker first. So
   an exception that a task swallowed hits nobody else.

A wish names its task. One that comes late (its task is over) matches nothing; the worker forgets
such wishes before it sleeps, so they keep no task alive. A plain flag "in user code", written by
the worker and read by the injector, would not do: between the injector's look and its injection
the worker may enter the pool's code.
"""

import _thread
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from recyclepool.errors import TaskAbort

__all__ = [
    "Flag",
    "Gate",
    "GatedLock",
    "guarded",
    "here",
    "make_anew",
    "new_lock",
    "new_rlock",
    "sleep_until",
    "wake",
]

R = TypeVar("R")

new_lock = threading.Lock
new_rlock = _thread.RLock  # threading.RLock is a Python function around it: twice the time


_inject: Callable[[int], None] | None = None


def _load_inject() -> None:
    """With the first worker of the process: ctypes takes its time."""
    from recyclepool._inject import inject

    global _inject
    _inject = inject


class Gate:
    """The gate of one worker, the task that runs behind it, and who wants that to end.

    ``task``, ``depth``, ``sleeper`` are written by the worker's thread only.
    """

    __slots__ = ("aborted", "depth", "lock", "sleeper", "task", "thread_id", "wishes")

    def __init__(self) -> None:
        if _inject is None:
            _load_inject()
        self.lock = new_rlock()
        self.depth = 1  # how many times the worker's thread holds the lock
        self.task: Any = None  # the task that runs
        self.aborted = False  # an abort was raised, or will be: what the task returns is void
        self.wishes: dict[Any, bool] = {}  # the tasks that somebody wants to end
        self.sleeper: Any = None  # the lock on which a task sleeps in the pool's code
        self.thread_id = 0

    # -- seen from a task: the worker's own thread ------------------------------------------------

    def enter(self) -> None:
        """Take the gate. Raises the abort that was pending, without it."""
        lock = self.lock
        try:
            lock.acquire()
        except BaseException:
            if lock._is_owned():  # type: ignore[attr-defined]
                lock.release()
            raise
        self.depth += 1

    def leave(self) -> None:
        """Give the gate back. Raises TaskAbort if somebody asked for it meanwhile."""
        self.depth -= 1
        self.lock.release()
        if self.wishes and not self.depth:
            self.surrender()

    def surrender(self) -> None:
        """Raise TaskAbort in ourselves if somebody still wants it for this task (GATE 5)."""
        self.enter()
        due = self.wishes.pop(self.task, False)
        if due:
            self.aborted = True
        self.depth -= 1
        self.lock.release()
        if due:
            raise TaskAbort

    def regain(self) -> None:
        """Take the lock after an abort surfaced on the way to it: a debugger's hook can do that."""
        while not self.lock._is_owned():  # type: ignore[attr-defined]
            try:
                self.lock.acquire()
            except BaseException:
                pass

    def is_due(self) -> bool:
        """Is the end of the running task wanted?"""
        return self.task in self.wishes

    # -- seen from outside: any other thread ------------------------------------------------------

    def request_abort(self, task: Any) -> bool | None:
        """Have TaskAbort raised in `task`, if it still runs here.

        True: injected. False: too late. None: it is in the pool's code, and raises as it comes out.
        May be asked again after a while (GATE 2). Never waits.
        """
        if self.task is not task:
            return False
        self.wishes[task] = True
        if here.gate is self:
            return None  # we are its thread, in the pool's code
        lock, held = self.lock, []  # type: ignore[var-annotated]
        try:
            # Taken and noted in one C call: no interrupt leaves the gate held unnoticed.
            held.extend(map(lock.acquire, (False,)))
            if not held[0]:
                wake(self.sleeper)
                return None
            wanted = self.wishes.pop(task, False)
            if self.task is not task or not wanted:
                return False
            self.aborted = True
            _inject(self.thread_id)  # type: ignore[misc]
            return True
        finally:
            if True in held:
                lock.release()


class _Here(threading.local):
    """What belongs to the thread that asks; None in every thread but a worker's."""

    gate: Gate | None = None
    worker: Any = None
    crew: Any = None  # the engine whose worker, or whose callbacks, this thread runs
    # It does a pool's own work, or holds a future's lock: so often. Foreign code amid that (only a
    # finalizer or a signal handler can come) must not wait for what may need just that.
    inside = 0


here = _Here()


def guarded(action: Callable[..., R], *args: Any) -> R:
    """Run a piece of the pool's own code. Inside a task, no abort surfaces in it (GATE 4)."""
    gate = here.gate
    if gate is None:
        return action(*args)
    gate.enter()
    try:
        return action(*args)
    finally:
        gate.leave()


def make_anew(lock: Any) -> None:
    """In the child of a fork: nobody holds it who is not here."""
    if not lock._is_owned():
        lock._at_fork_reinit()


def wake(sleeper: Any) -> None:
    """Release the lock that somebody sleeps on; None, and one already released, are fine."""
    try:
        if sleeper is not None:
            sleeper.release()
    except RuntimeError:
        pass  # somebody else was faster: it is awake


def sleep_until(over: Callable[[], bool], sleeper: Any, timeout: float | None) -> None:
    """Sleep on `sleeper` until over(), the timeout, or, in a task, until its abort is wanted."""
    deadline = None if timeout is None else monotonic() + timeout
    gate = here.gate
    outer = None
    if gate is not None:
        outer, gate.sleeper = gate.sleeper, sleeper  # a finalizer may sleep inside our sleep
    try:
        while not over() and not (gate is not None and gate.is_due()):
            if deadline is None:
                sleeper.acquire()
            elif not sleeper.acquire(
                True, min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)
            ):
                break
    finally:
        if gate is not None:
            gate.sleeper = outer
            if gate.is_due():
                wake(outer)


class Flag:
    """An Event that a task can wait for without holding up its abort.

    Any number of threads may set it, look at it and wait for it. A waiter hangs its lock on the
    flag, then looks; who sets the flag sets it, then wakes the locks: one sees the other.
    """

    __slots__ = ("_set", "_sleepers")

    def __init__(self) -> None:
        self._set = False
        self._sleepers: list[Any] = []

    def is_set(self) -> bool:
        """True once set() was called."""
        return self._set

    def set(self) -> None:
        """Set it and wake all who wait."""
        self._set = True
        self.nudge()

    def clear(self) -> None:
        """Take it back."""
        self._set = False

    def nudge(self) -> None:
        """Have those who wait look again at what they wait for."""
        for sleeper in self._sleepers.copy():
            wake(sleeper)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for `timeout` seconds. True if it is set."""
        return guarded(self._wait, timeout)

    def wait_unless(self, over: Callable[[], bool]) -> bool:
        """Wait until it is set, or over(): who makes that true nudges then. True if it is set."""
        return guarded(self._wait, None, over)

    def _wait(self, timeout: float | None, over: Callable[[], bool] | None = None) -> bool:
        sleeper = new_lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        try:
            sleep_until(
                self.is_set if over is None else lambda: self._set or over(), sleeper, timeout
            )
        finally:
            self._sleepers.remove(sleeper)
        return self._set


class GatedLock:
    """A lock that a task holds only together with its worker's gate: no abort leaves it held."""

    __slots__ = ("_lock",)

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def acquire(self, *args: Any) -> bool:
        """As the lock's own."""
        gate = here.gate
        if gate is not None:
            gate.enter()
        taken = bool(self._lock.acquire(*args))
        here.inside += taken
        if not taken and gate is not None:
            gate.leave()
        return taken

    def release(self) -> None:
        """As the lock's own."""
        self._lock.release()
        here.inside -= 1
        gate = here.gate
        if gate is not None:
            gate.leave()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()
