"""SETTLE: who decides a future's end, and how those who wait learn of it.

1. A future has one RLock, made with it. Every change of state is made while it is held.
2. The Condition that wait(), as_completed() and asyncio.wrap_future() ask for is built when they
   ask, AROUND that lock, and under it. So whoever holds the Condition holds the lock: for them a
   state and the notification of it are one step, exactly as with the standard's future.
3. settle() tests the state and stores the final one under the lock: of several callers (the
   worker, a deadline, a destroy) one gets True. Only that one runs the callbacks, after the lock
   is released.
4. A final state never changes again, and result and exception are stored before it. So it may be
   read without the lock: result() of a finished future takes none.
5. result() of an unfinished one hangs a bare lock on the future, under the lock, after it saw a
   state that is not final; who stores a final state later releases it, under the lock. None is
   missed.

RLock, not Lock: wait(return_when=FIRST_EXCEPTION) calls methods of futures whose Condition it
holds, and a signal handler may touch the very future which the code that it interrupted has
locked. One made with the future, not shared or built when needed: a finalizer that the collector
runs inside a shared section, and that waits for any other future, would deadlock the process.

``acquire`` stands inside the ``try``: on 3.14 even ``with lock:`` looks at the eval breaker between
taking the lock and entering the block, and a KeyboardInterrupt there leaves it locked for ever.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError, _base
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from contextvars import Context
from functools import partial
from math import inf
from time import monotonic
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from recyclepool._gate import (
    Flag,
    GatedLock,
    guarded,
    here,
    make_anew,
    new_lock,
    new_rlock,
    sleep_until,
    wake,
)

__all__ = ["Future", "Home", "OptionedFuture", "name_of"]

T = TypeVar("T")

_class_name = type.__dict__["__qualname__"].__get__  # a metaclass's own code is not asked
_NAMED = (FunctionType, BuiltinFunctionType, MethodType)


class Future(_base.Future[T]):
    """A future, together with the call that it stands for: one object a task, not three."""

    __slots__ = (
        "_built",
        "_done_callbacks",
        "_exception",
        "_lock",
        "_result",
        "_sleepers",
        "_state",
        "_waiters",
        "args",
        "context",
        "fn",
        "kwargs",
        "queued_at",
    )

    # See OptionedFuture.
    deadline = inf  # when it is to have its end
    name: str | None = None

    def __init__(
        self,
        fn: Callable[..., T] | None = None,
        args: Any = (),
        kwargs: Any = None,
        context: Context | None = None,
    ) -> None:
        self._lock = new_rlock()
        self._state = PENDING
        self._result = self._exception = None
        self._built: _GatedCondition | None = None
        # They become lists when something is added.
        self._waiters: Any = ()
        self._done_callbacks: Any = ()
        self._sleepers: Any = ()
        self.fn = fn
        self.args = args
        self.kwargs = kwargs or None  # no empty dict for each queued task
        self.context = context
        self.queued_at = monotonic()

    # -- changes of state -------------------------------------------------------------------------

    def begin(self) -> bool:
        """PENDING -> RUNNING, by the worker that took the task. False: it has its end already."""
        lock = self._lock
        try:
            lock.acquire()
            if self._state == PENDING:
                self._state = RUNNING
                return True
            if self._state == CANCELLED:
                self._state = CANCELLED_AND_NOTIFIED
                for waiter in self._waiters:
                    waiter.add_cancelled(self)
            return False
        finally:
            lock.release()

    def settle(self, result: T | None, exception: BaseException | None) -> bool:
        """Give the future its end. True for the one caller who did; that one runs the callbacks."""
        lock = self._lock
        try:
            lock.acquire()
            if self._state != RUNNING and self._state != PENDING:
                self._wake()  # an interrupt may have broken off who settled it just before this
                return False
            self._result = result
            self._exception = exception
            self._state = FINISHED
            if self._sleepers or self._built is not None:
                self._rouse()
            return True
        finally:
            lock.release()

    def cancel(self) -> bool:
        """Cancel the task if it has not started: True if it is cancelled. As the standard's."""
        return guarded(self._cancel)

    def _cancel(self) -> bool:
        if not self.withdraw():
            return self.cancelled()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def withdraw(self) -> bool:
        """PENDING -> CANCELLED. True for the one caller who did; that one runs the callbacks."""
        lock = self._lock
        here.inside += 1
        try:
            lock.acquire()
            if self._state != PENDING:
                if self._state != RUNNING:
                    self._wake()  # as in settle()
                return False
            self._state = CANCELLED
            self._rouse()
        finally:
            here.inside -= 1
            lock.release()
        self.drop_call()  # the queue may keep the husk for long
        return True

    def forsake(self, error: BaseException) -> None:
        """Give it an end in the child of a fork.

        Nobody is told: who waits, and what callbacks know, is the parent's, and so are their locks.
        """
        make_anew(self._lock)
        if self._state == PENDING or self._state == RUNNING:
            self._waiters = self._done_callbacks = self._sleepers = ()
            self._built = None
            self._exception = error
            self._state = FINISHED

    def drop_call(self) -> None:
        """Forget what was to be called: the caller may keep the future for long."""
        self.fn = self.args = self.kwargs = self.context = None

    def _rouse(self) -> None:
        """Tell everybody who waits for the end, once. With the lock held."""
        if self._state == FINISHED:
            for waiter in self._waiters:
                if self._exception is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
        self._wake()

    def _wake(self) -> None:
        """Wake everybody who sleeps until the end. May be done again."""
        if self._built is not None:
            self._built.notify_all()
        else:
            for sleeper in self._sleepers:
                wake(sleeper)

    # -- what callers and the standard library use ------------------------------------------------

    if TYPE_CHECKING:
        _condition: threading.Condition
    else:

        @property
        def _condition(self):
            return self._built or guarded(self._build_condition)

    def _build_condition(self) -> "_GatedCondition":
        lock = self._lock
        here.inside += 1
        try:
            lock.acquire()
            if self._built is None:
                self._waiters = _Waiters()  # those who append to it ask for the Condition first
                self._sleepers = list(self._sleepers)
                self._built = _GatedCondition(lock, self._sleepers)
            return self._built
        finally:
            here.inside -= 1
            lock.release()

    def set_running_or_notify_cancel(self) -> bool:
        """As the standard's: for those who run their own futures."""
        if guarded(self.begin):
            return True
        if self._state != CANCELLED_AND_NOTIFIED:
            raise RuntimeError("Future in unexpected state")
        return False

    def set_result(self, result: T) -> None:
        """As the standard's: for those who run their own futures."""
        guarded(self._set, result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        """As the standard's: for those who run their own futures."""
        guarded(self._set, None, exception)

    def _set(self, result: T | None, exception: BaseException | None) -> None:
        if not self.settle(result, exception):
            raise InvalidStateError(f"{self._state}: {self!r}")
        self._invoke_callbacks()  # type: ignore[attr-defined]

    def add_done_callback(self, fn: Callable[[_base.Future[T]], object]) -> None:
        """Have fn(future) called when it ends, or now if it has. As the standard's."""
        if guarded(self._keep_callback, fn):
            return
        try:
            fn(self)
        except Exception:
            _base.LOGGER.exception("exception calling callback for %r", self)

    def tell(self) -> None:
        """Run the callbacks, each once, however often this is asked: not by who runs the task."""
        lock = self._lock
        here.inside += 1
        try:
            lock.acquire()
            callbacks, self._done_callbacks = self._done_callbacks, ()
        finally:
            here.inside -= 1
            lock.release()
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                _base.LOGGER.exception("exception calling callback for %r", self)

    def _keep_callback(self, fn: Callable[[_base.Future[T]], object]) -> bool:
        lock = self._lock
        here.inside += 1
        try:
            lock.acquire()
            if self._state != PENDING and self._state != RUNNING:
                return False
            if self._done_callbacks:
                self._done_callbacks.append(fn)
            else:
                self._done_callbacks = [fn]
            return True
        finally:
            here.inside -= 1
            lock.release()

    # These three read one attribute: no lock.

    def cancelled(self) -> bool:
        """True if the task was cancelled before it started."""
        return self._state == CANCELLED or self._state == CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """True while the task runs."""
        return self._state == RUNNING

    def done(self) -> bool:
        """True when it has its end: a result, an exception, or cancelled."""
        return self._state != PENDING and self._state != RUNNING

    def result(self, timeout: float | None = None) -> T:
        """The task's result, or its exception raised. As the standard's."""
        if self._state != FINISHED:
            self._await_end(timeout)
        if self._exception is None:
            return self._result  # type: ignore[return-value]
        try:
            raise self._exception
        finally:
            self = None  # type: ignore[assignment]  # or the traceback would keep the exception

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The task's exception, or None. As the standard's."""
        if self._state != FINISHED:
            self._await_end(timeout)
        return self._exception

    def __repr__(self) -> str:
        # As the standard's, without its lock: an interrupt in `with` could leave that held.
        state = _base._STATE_TO_DESCRIPTION_MAP[self._state]
        if self._state == FINISHED and self._exception is not None:
            state += f" raised {type(self._exception).__name__}"
        elif self._state == FINISHED:
            state += f" returned {type(self._result).__name__}"
        return f"<{type(self).__name__} at {id(self):#x} state={state}>"

    def _await_end(self, timeout: float | None) -> None:
        """Return when FINISHED; raise CancelledError or TimeoutError otherwise."""
        guarded(self.wait, timeout)
        if self._state != FINISHED:
            raise CancelledError if self.cancelled() else TimeoutError

    def wait(self, timeout: float | None) -> bool:
        """Sleep until it has its end, or `timeout` seconds. True if it has. With the gate held."""
        lock = self._lock
        sleeper = new_lock()
        sleeper.acquire()
        here.inside += 1
        try:
            lock.acquire()
            if self._state != PENDING and self._state != RUNNING:
                return True
            if not self._sleepers and self._built is None:
                self._sleepers = []
            self._sleepers.append(sleeper)
        finally:
            here.inside -= 1
            lock.release()
        if timeout is None and here.gate is None:
            sleeper.acquire()
        else:
            sleep_until(self.done, sleeper, timeout)
        if self._state == PENDING or self._state == RUNNING:  # do not pile up
            here.inside += 1
            try:
                lock.acquire()
                self._sleepers.remove(sleeper)
            finally:
                here.inside -= 1
                lock.release()
        return self.done()


class Home(Protocol):
    """What a bounded queue is to the tasks in it."""

    def make_room(self) -> None:
        """A task was taken out of it."""

    def drop(self, task: Future[Any]) -> None:
        """This one was cancelled, and may still be in it."""


class OptionedFuture(Future[T]):
    """One whose task has options, or a place in a bounded queue. Others pay nothing for these."""

    __slots__ = ("deadline", "expect", "home", "name", "timeout")

    def __init__(
        self,
        fn: Callable[..., T],
        args: Any = (),
        kwargs: Any = None,
        context: Context | None = None,
        name: str | None = None,
        expect: Callable[[float], None] | None = None,
        timeout: float = inf,
    ) -> None:
        super().__init__(fn, args, kwargs, context)
        self.name = name
        self.expect = expect  # to be told when it is to have its end
        self.timeout = timeout  # seconds that it may run
        self.deadline = inf
        self.home: Home | None = None  # the queue, if that is bounded

    def begin(self) -> bool:
        """As ever; then has the watchdog look in time (WATCH 3)."""
        if self.home is not None:
            self.home.make_room()  # it was taken out of the queue just before, begun or cancelled
        if not super().begin():
            return False
        if self.expect is not None:
            self.deadline = monotonic() + self.timeout
            self.expect(self.deadline)
        return True

    def withdraw(self) -> bool:
        """As ever; then it gives its place in the queue back at once."""
        withdrawn = super().withdraw()
        if self.home is not None and self.cancelled():
            self.home.drop(self)
        return withdrawn


class _GatedCondition(threading.Condition):
    """A Condition whose block inside a task is an entry point of the pool (GATE 4).

    To notify it wakes those who sleep in the future's own result() too: who keeps a future by hand
    may set its state under the Condition, and notify, as with the standard's.
    """

    def __init__(self, lock: Any, sleepers: list[Any]) -> None:
        super().__init__(lock)
        self._result_sleepers = sleepers
        gated = GatedLock(lock)
        self.acquire = gated.acquire  # type: ignore[assignment, method-assign]
        self.release = gated.release  # type: ignore[method-assign]

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()

    def notify_all(self) -> None:
        """Wake everybody who waits for the future."""
        super().notify_all()
        for sleeper in self._result_sleepers:
            wake(sleeper)


class _Waiters(list[Any]):
    """What wait() and as_completed() install on a future.

    Their event and lock are taken by the thread that waits and by the driver that settles. An abort
    could leave the standard's held by a task that waits, and a driver would hang on it for ever.
    So a waiter that comes from a task gets gated ones. Its installer holds the Conditions of all
    its futures then: nobody uses the waiter yet.
    """

    def append(self, waiter: Any) -> None:
        if here.gate is not None and not isinstance(waiter.event, Flag):
            waiter.event = Flag()
            if hasattr(waiter, "lock"):
                waiter.lock = GatedLock(waiter.lock)
        super().append(waiter)


def name_of(task: Future[Any] | None) -> str | None:
    """What a task is called where it is shown. Runs none of its code."""
    if task is not None and task.name is not None:
        return task.name
    fn: Any = None if task is None else task.fn
    if fn is None:
        return None
    kind = type(fn)
    if kind is partial:
        fn, kind = fn.func, type(fn.func)
    if kind in _NAMED or issubclass(kind, type):
        return str(fn.__qualname__ if kind in _NAMED else _class_name(fn))
    return str(_class_name(kind))
