"""NEWS: what a pool tells its subscribers and the log, in order, on a thread of its own.

The engine notes what happened while it holds its lock: that makes a small tuple, and no more. To
make the event, log it and call the subscribers is foreign code's business (handlers, filters, an
error's repr), and done by the telling thread.

1. Who notes something appends it to a deque. Somebody flushes after that.
2. Only who holds the role takes out of the deque: so each thing is told once, and all in order.
   The role is a plain lock that is only ever tried.
3. Only a telling thread takes the role: it is taken and noted in one C call, and released by the
   first call of the ``finally``. flush() takes nothing. It looks at the deque, then at the role,
   and starts a thread if that is free; so an interrupt leaves nothing behind. Of two threads that
   were started at once the second finds the role taken, and ends.
4. A telling thread gives the role up when the deque is empty, and AFTER that looks at the deque
   again. Whoever finds the role taken appended before that look, and is seen by it. So nothing is
   left untold.
5. If there is no thread to be had, or an interrupt broke its start off, everything stays in the
   deque until the next flush.

``events`` is imported by the telling thread: a pool to which nobody listens does without.
"""

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from logging import DEBUG, ERROR, INFO, WARNING
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

from recyclepool import _stacks
from recyclepool._future import Future
from recyclepool._gate import guarded, here, new_lock
from recyclepool._orders import daemons_allowed
from recyclepool._worker import Worker
from recyclepool.states import Reason

if TYPE_CHECKING:
    from traceback import StackSummary

    from recyclepool.events import Event

__all__ = ["News", "text_of"]

MOST = 1_000  # that wait to be told
LONGEST = 1_000  # characters of an error's text

logger = logging.getLogger("recyclepool")


class _Item(NamedTuple):
    kind: str  # the event's class
    at: float
    fields: tuple[Any, ...]  # the event's own; an exception stands for its text


class _Subscriber:
    def __init__(self, callback: Callable[["Event"], object]) -> None:
        self.callback = callback
        self.failed = False


class News:
    """What a pool tells. Its verbs are the engine's, with its lock held: none blocks or raises.

    An error may be an exception or its text. An exception is kept, with all that its traceback
    knows, until it is told; who is not in a hurry gives `text_of(error)`.
    """

    def __init__(
        self,
        name: str,
        thread_names: str,
        crew: object,
        *,
        clock: Callable[[], float] = time,
        new_thread: Callable[..., threading.Thread] = threading.Thread,
    ) -> None:
        self.dropped = 0  # events for which there was no room: written by the verbs
        self.callback_errors = 0  # written by the telling thread
        self._name = name
        self._thread_name = f"{thread_names}_events"
        self._crew = crew  # to which the callbacks belong: they cannot wait for its end
        self._clock = clock
        self._new_thread = new_thread
        self._items: deque[_Item | Future[None]] = deque()  # a future: of a join()
        self._role = new_lock()
        self._subscribers: list[_Subscriber] = []

    # -- what happened: by the engine, with its lock held -----------------------------------------

    def ready(self, worker: Worker, seconds: float) -> None:
        """It serves from now on. Its start took `seconds`."""
        self._note(DEBUG, "WorkerReady", worker.slot, worker.generation, seconds)

    def due(self, worker: Worker, reason: Reason, why: str, report_only: bool = False) -> None:
        """It is to be replaced, or would be."""
        level = INFO if report_only else DEBUG
        self._note(level, "WorkerDue", worker.slot, worker.generation, reason, why, report_only)

    def retired(self, worker: Worker, age: float, seconds: float) -> None:
        """It has gone, `seconds` after it retired."""
        reason = worker.reason or worker.leaving or Reason.CLOSE
        level = DEBUG if reason is Reason.CLOSE else INFO
        told = (reason, worker.why, worker.tasks, age, seconds)
        self._note(level, "WorkerRetired", worker.slot, worker.generation, *told)

    def lost(self, worker: Worker, error: BaseException | str) -> None:
        """Its driver died."""
        self._note(ERROR, "WorkerLost", worker.slot, worker.generation, error)

    def abandoned(
        self, worker: Worker, task_name: str | None, stack: "StackSummary | None"
    ) -> None:
        """It was given up."""
        told = (worker.reason or worker.leaving, task_name, stack)
        self._note(WARNING, "WorkerAbandoned", worker.slot, worker.generation, *told)

    def start_failed(
        self, worker: Worker, error: BaseException | str, failures: int, retry_in: float | None
    ) -> None:
        """It could not be started, the `failures`-th one in a row."""
        told = (error, failures, retry_in)
        self._note(WARNING, "WorkerStartFailed", worker.slot, worker.generation, *told)

    def teardown_failed(self, worker: Worker, error: BaseException | str) -> None:
        """Its teardown raised."""
        self._note(WARNING, "TeardownFailed", worker.slot, worker.generation, error)

    def timed_out(
        self,
        worker: Worker,
        task_name: str | None,
        reason: Reason,
        seconds: float,
        report_only: bool = False,
    ) -> None:
        """Its task reached a deadline, or would have."""
        level = INFO if report_only else WARNING
        told = (task_name, reason, seconds, report_only)
        self._note(level, "TaskTimedOut", worker.slot, worker.generation, *told)

    def queue_full(self, queued: int) -> None:
        """No place is left in the queue."""
        self._note(WARNING, "QueueFull", queued)

    def queue_relieved(self, queued: int) -> None:
        """The queue that was full is half empty."""
        self._note(INFO, "QueueRelieved", queued)

    def trimmed(self, worker: Worker, before: int, after: int) -> None:
        """Half of its cache was enough."""
        self._note(INFO, "CacheTrimmed", worker.slot, worker.generation, before, after)

    def limit_too_low(self, worker: Worker, owned: int, limit: int) -> None:
        """A worker owns more than it may after its first task."""
        self._note(WARNING, "MemoryLimitTooLow", worker.slot, worker.generation, owned, limit)

    def not_owned(self, worker: Worker, what: str) -> None:
        """What it refers to is also referred to from elsewhere."""
        self._note(INFO, "MemoryNotOwned", worker.slot, worker.generation, what)

    def returned(self, slot: int, generation: int, *told: Any) -> None:
        """What a recycle gave back."""
        self._note(INFO, "MemoryReturned", slot, generation, *told)

    def pressure(self, rss: int, limit: int, cause: str, paused: bool) -> None:
        """The process is too big, and nothing helps."""
        self._note(WARNING, "MemoryPressure", rss, limit, cause, paused)

    def relieved(self, rss: int, limit: int) -> None:
        """Tasks are started again."""
        self._note(INFO, "MemoryRelieved", rss, limit)

    def schedule_fired(self, schedule: str, slot: int | None, due: int, joined: int) -> None:
        """Its time has come: so many are due for it, and others were for another reason."""
        self._note(INFO, "ScheduleFired", schedule, slot, due, joined)

    def closing(self) -> None:
        """The end of an epoch began."""
        self._note(DEBUG, "PoolClosing")

    def closed(self, seconds: float) -> None:
        """An epoch ended, `seconds` after its end began."""
        self._note(DEBUG, "PoolClosed", seconds)

    def broken(self, error: BaseException | str) -> None:
        """The pool takes no tasks any more."""
        self._note(ERROR, "PoolBroken", error)

    def watchdog_failed(self, error: BaseException | str) -> None:
        """The watchdog failed."""
        self._note(ERROR, "WatchdogFailed", error)

    def _note(self, level: int, kind: str, *fields: Any) -> None:
        if not self._subscribers and not _is_logged(level):
            return
        if len(self._items) < MOST:
            self._items.append(_Item(kind, self._clock(), fields))
        else:
            self.dropped += 1

    def begin_anew(self) -> None:
        """In the child of a fork: who listens still does, and nothing is to be told yet."""
        self._items.clear()
        self._role = new_lock()

    # -- who listens: any thread ------------------------------------------------------------------

    def subscribe(self, callback: Callable[["Event"], object]) -> Callable[[], None]:
        """See RecyclePool.subscribe."""
        if not callable(callback):
            raise TypeError(
                f"subscribe() takes a function that is called with each event, not {callback!r}"
            )
        subscriber = _Subscriber(callback)
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            """Tell it nothing more. May be called again, by any thread and by the callback."""
            try:
                self._subscribers.remove(subscriber)
            except ValueError:
                pass  # it was called before

        return unsubscribe

    def flush(self) -> None:
        """Have told what was noted. Any thread; waits for nothing that is told."""
        if not self._items or self._role.locked() or sys.is_finalizing():
            return  # on 3.11 a thread that is started while the interpreter ends never runs
        try:
            self._new_thread(
                target=self._run, name=self._thread_name, daemon=daemons_allowed()
            ).start()
        except RuntimeError:
            pass  # no thread is to be had

    def join(self, timeout: float) -> None:
        """Wait until all is told that was noted, `timeout` seconds at most.

        The pool's own tasks and callbacks do not wait: it may be one of them that is waited for.
        """
        if here.crew is self._crew or not (self._items or self._role.locked()):
            return
        told: Future[None] = Future()
        self._items.append(told)
        self.flush()
        guarded(told.wait, timeout)

    # -- the telling thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while self._items:
            role = self._role  # a callback that forks finds another in the child: then we have none
            held: list[bool] = []
            try:
                held.extend(map(role.acquire, (False,)))
                if not held[0]:
                    return
                here.crew = self._crew
                while self._items and role is self._role:
                    self._tell(self._items.popleft())
            finally:
                if True in held:
                    role.release()

    def _tell(self, item: "_Item | Future[None]") -> None:
        if isinstance(item, Future):
            item.settle(None, None)
            return
        event = self._event(item)
        del item  # and what its exception knows
        _log(event.level, "%s", event)
        for subscriber in self._subscribers.copy():
            if subscriber in self._subscribers:  # one that was called before it may have changed it
                self._call(subscriber, event)

    def _event(self, item: _Item) -> "Event":
        from recyclepool import events

        fields = list(map(_telling, item.fields))
        event: Event = getattr(events, item.kind)(self._name, item.at, *fields)
        return event

    def _call(self, subscriber: _Subscriber, event: "Event") -> None:
        try:
            subscriber.callback(event)
        except BaseException:
            self.callback_errors += 1
            if not subscriber.failed:
                subscriber.failed = True
                _log(
                    ERROR,
                    "pool %r: subscriber %s failed with %s (told once for each subscriber)",
                    self._name,
                    text_of(subscriber.callback),
                    type(event).__name__,
                    exc_info=True,
                )


def _telling(field: Any) -> Any:
    """What an event holds in place of an exception, or of a stack: its text."""
    if isinstance(field, BaseException):
        return text_of(field)
    return _stacks.text_of(field) if hasattr(field, "format_frame_summary") else field


def text_of(thing: object) -> str:
    """The repr of a foreign object, on one line and not too long. Runs its code, never raises."""
    try:
        text = " ".join(repr(thing).splitlines())
    except BaseException:
        text = type(thing).__qualname__
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _is_logged(level: int) -> bool:
    """As logger.isEnabledFor, which may wait for logging's own lock."""
    if level < logger.getEffectiveLevel():
        return False
    return not logger.disabled and level > logger.manager.disable


def _log(level: int, message: str, *args: object, exc_info: bool = False) -> None:
    """A filter or handler that raises harms nobody."""
    try:
        logger.log(level, message, *args, exc_info=exc_info)
    except BaseException:
        pass
