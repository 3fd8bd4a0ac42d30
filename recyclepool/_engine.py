"""The engine: carries out what the roster decides, and ends epochs.

ORDERS. Garbage collection, a signal or an interrupt can bring foreign code in at any bytecode, and that
code may submit, close or drop a pool. So the engine's lock is only ever *tried*: who wants something
appends an order to a deque, then tries the lock; the holder carries orders out and, AFTER it released
the lock, looks at the deque again.

1. No order is lost: it is appended before the lock is tried. Either the try succeeds, or the holder's
   look, which comes after its release, sees the order.
2. Nobody waits for the lock, and nobody can take it twice: it is a plain lock, and for a handler that
   interrupts the holder the try just fails. Who needs an answer waits for a future.
3. An order stays at the front of the deque until it is done. One that an interrupt broke off is done
   again, by the broken-off call itself on its way out or by the next one; to do one twice is harmless.
4. The lock is taken and noted in one C call, and released by the first call of the ``finally``: no
   interrupt, and no number of them, leaves it held.

Starting a thread is done with the lock held: it is none of foreign code's business, and whoever orders
something meanwhile does not wait. Foreign code (callbacks, hooks) runs when the lock is free.
"""

import os
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from recyclepool._dispatch import Dispatch
from recyclepool._driver import drive
from recyclepool._future import Future
from recyclepool._gate import guarded
from recyclepool._roster import Roster
from recyclepool._worker import Tally, Worker
from recyclepool.backends import BackendFactory, Hooks
from recyclepool.cache import WorkerCache
from recyclepool.errors import (
    BrokenRecyclePool,
    PoolClosedError,
    TaskAbortedError,
    WorkerStartError,
)
from recyclepool.events import AbandonedWorker, CloseReport, PoolState, Reason
from recyclepool.limits import Limits

__all__ = ["Books", "Engine", "Settings"]

FIRST_PAUSE = 0.01  # seconds after which a task that swallowed its abort gets another; doubles
ESCALATION = 0.5  # seconds that close(timeout) takes at most to stop what is left at its deadline
DEBUG = "RECYCLEPOOL_DEBUG"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a pool was made with, checked."""

    name: str
    size: int
    min_workers: int
    thread_names: str
    backend: BackendFactory
    limits: Limits
    cache: int
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    finalizer: Callable[[], object] | None = None
    clock: Callable[[], float] = monotonic
    new_thread: Callable[..., threading.Thread] = threading.Thread


@dataclass(frozen=True, slots=True)
class Books:
    """The tallies that are still written, and the sum of those that are closed: replaced in one step."""

    open: tuple[Tally, ...] = ()
    closed: Tally = field(default_factory=Tally)

    def total(self) -> Tally:
        """Everything that was ever counted."""
        return sum(self.open, self.closed)


class Engine:
    """What a pool is when nobody looks: its drivers hold it, and not the facade."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.roster = Roster(
            settings.size,
            self._new_worker,
            min_workers=settings.min_workers,
            surge=settings.limits.max_surge,
        )
        self.dispatch = self._new_dispatch()
        self._outside = Tally()  # what was settled without a worker: written with the lock held
        self.books = Books((self._outside,))
        self.process = os.getpid()
        self._orders: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._launch_error: BaseException | None = None
        self._starts: list[Future[int]] = []  # of start(), until enough workers serve
        self._over: deque[Dispatch] = deque()  # epochs whose end is to be told
        self._settled: deque[Future[Any]] = deque()  # whose callbacks are to be told
        self._tellers: list[threading.Thread] = []
        self._hooks = Hooks(
            settings.initializer, settings.initargs, settings.finalizer, self._on_last_task
        )
        self.facade: Any = None  # a weak reference to the pool, which ends us when the pool is dropped
        self.submitted = self.rejected = 0
        self._debug = bool(os.environ.get(DEBUG))

    # -- orders: any thread, at any bytecode ------------------------------------------------------

    def _order(self, verb: Callable[..., None], *args: Any) -> None:
        try:
            self._orders.append((verb, args))
        finally:
            self._carry_out()

    def _carry_out(self) -> None:
        try:
            while self._orders:
                held: list[bool] = []
                try:
                    held.extend(map(self._lock.acquire, (False,)))  # ORDERS 4
                    if not held[0]:
                        return
                    self._do_orders()
                finally:
                    if True in held:
                        self._lock.release()
            if self._settled:
                self._tell()
        except BaseException:
            if self._orders:
                self._carry_out()  # ORDERS 3
            raise

    def _do_orders(self) -> None:
        orders = self._orders
        while orders:
            verb, args = orders[0]
            try:
                verb(*args)
                self._reconcile()
            except Exception:
                orders.popleft()  # it would fail for ever
                raise
            orders.popleft()

    def want_worker(self) -> None:
        """A task found nobody. Raises WorkerStartError if no thread can be had and no worker lives."""
        self._order(self._demand)
        error = self._launch_error
        if error is not None and not self.roster.workers:
            raise WorkerStartError(f"no thread can be started: {error}") from error

    def ready(self, worker: Worker) -> None:
        """By the driver: see Crew."""
        self._order(self._ready, worker)

    def start_failed(self, worker: Worker, error: BaseException) -> None:
        """By the driver: see Crew."""
        self._order(self._start_failed, worker, error)

    def retire(self, worker: Worker, reason: Reason) -> None:
        """THE way out of a worker: by its driver, by a limit, by the pool's end."""
        self._order(self._retire, worker, reason)

    def left(self, worker: Worker) -> None:
        """By the driver: see Crew."""
        self._order(self._left, worker)

    def _on_last_task(self, worker: Worker) -> None:
        worker.leaving = Reason.TASKS
        self._order(self._retire, worker, Reason.TASKS)

    # -- what is done with the lock held ----------------------------------------------------------

    def _reconcile(self) -> None:
        """Carry out what the roster wants now. All of it is derived from what is: twice is harmless."""
        roster, dispatch = self.roster, self.dispatch
        roster.reconcile()
        dispatch.vacancies = roster.vacancies()
        for worker in roster.workers.copy():
            if not worker.launched:
                self._launch(worker)
        if roster.broken is not None:
            dispatch.closing = True
            dispatch.rouse_all()
            self._fail_queue(self.refusal())
        self._settle_starts()
        if roster.is_over(len(dispatch.queue)):
            self._end_epoch()
        while self._over:
            ended = self._over[0].ended
            if ended.settle(None, None):
                self._settled.append(ended)
            self._over.popleft()
        if self._debug:
            roster.check()

    def _demand(self) -> None:
        """Look at the queue. A vacancy is visible before that look: a task that comes later sees it."""
        dispatch, roster = self.dispatch, self.roster
        dispatch.vacancies = roster.vacancies()
        takers = sum(1 for w in roster.active() if w.gate.task is None and w.leaving is None)
        roster.demand(len(dispatch.queue), takers)
        if dispatch.queue and dispatch.idle:
            dispatch.look()

    def _new_worker(self, slot: int, generation: int) -> Worker:
        settings = self.settings
        worker = Worker(
            slot,
            generation,
            self.dispatch,
            cache=WorkerCache(settings.cache),
            born=settings.clock(),
            last_task=settings.limits.tasks or 0,
        )
        worker.crew = self
        worker.backend = settings.backend(worker, self._hooks)
        return worker

    def _launch(self, worker: Worker) -> None:
        books = self.books
        if worker.tally not in books.open:
            self.books = Books((*books.open, worker.tally), books.closed)
        try:
            worker.thread = self.settings.new_thread(
                target=drive,
                args=(worker, self),
                name=f"{self.settings.thread_names}_{worker.slot}",
                daemon=True,
            )
            worker.thread.start()
        except RuntimeError as error:
            self._launch_error = error
            self.roster.not_launched(worker)
            self._close_books(worker)
        else:
            self._launch_error = None
        worker.launched = True

    def _ready(self, worker: Worker) -> None:
        self.roster.ready(worker)

    def _start_failed(self, worker: Worker, error: BaseException) -> None:
        self.roster.start_failed(worker, error)
        self._close_books(worker)
        starts, self._starts = self._starts, []
        for start in starts:
            failure = WorkerStartError(f"a worker could not be started: {error!r}")
            failure.__cause__ = error
            if start.settle(None, failure):
                self._settled.append(start)
        if not self.roster.serving():
            self._demand()

    def _retire(self, worker: Worker, reason: Reason) -> None:
        if worker.leaving is None:
            worker.leaving = reason  # DISPATCH 7: mark, then take out
        self.roster.retire(worker, worker.leaving)
        worker.stopping.set()
        worker.dispatch.rouse(worker)
        self._demand()

    def _left(self, worker: Worker) -> None:
        self.roster.left(worker)
        self._close_books(worker)
        self._demand()

    def _abandon(self, worker: Worker) -> None:
        self.roster.abandon(worker)
        self._demand()

    def _close_books(self, worker: Worker) -> None:
        books = self.books
        if worker.tally in books.open:
            still_open = tuple(tally for tally in books.open if tally is not worker.tally)
            self.books = Books(still_open, books.closed + worker.tally)

    def _start(self, started: Future[int]) -> None:
        if self.roster.state is PoolState.OPEN:
            self.roster.want_minimum()
            self._starts.append(started)
        elif started.settle(None, self.refusal()):
            self._settled.append(started)

    def _settle_starts(self) -> None:
        roster = self.roster
        if not self._starts:
            return
        serving = roster.serving()
        for start in self._starts:
            if roster.state is not PoolState.OPEN:
                settled = start.settle(None, self.refusal())
            elif serving >= roster.min_workers:
                settled = start.settle(serving, None)
            else:
                continue
            if settled:
                self._settled.append(start)
        self._starts = [start for start in self._starts if not start.done()]

    def _close(self, dispatch: Dispatch, terminal: bool) -> None:
        if dispatch is self.dispatch:
            self.roster.close(terminal=terminal)
            dispatch.closing = True
            dispatch.rouse_all()
            self._demand()

    def _destroy(self, dispatch: Dispatch) -> None:
        """Done again and again until the epoch is over: a task may swallow what is raised in it."""
        if dispatch is not self.dispatch:
            return
        self.roster.destroy()
        dispatch.closing = True
        for worker in self.roster.workers.copy():
            self._retire(worker, Reason.CLOSE)
            self._stop(worker)
        self._cancel_queue()

    def _stop(self, worker: Worker) -> None:
        """Settle what it runs, at once, and ask that to end. What follows concerns only the worker."""
        task = worker.gate.task
        if task is None:
            return
        if task.settle(None, TaskAbortedError("the task ran when its pool was destroyed")):
            self._outside.aborted += 1
            self._settled.append(task)
        worker.backend.interrupt(task)

    def _cancel_queue(self) -> None:
        for task in self._queued():
            if task.withdraw():
                self._settled.append(task)
            task.begin()  # tells wait() and as_completed()
            if self.dispatch.take_back(task):
                self._outside.cancelled += 1

    def _fail_queue(self, error: BaseException) -> None:
        for task in self._queued():
            if task.settle(None, _like(error)):
                self._outside.failed += 1
                self._settled.append(task)
            self.dispatch.take_back(task)

    def _queued(self) -> Iterator[Future[Any]]:
        """The first in the queue, again and again until there is none: who asks takes it out.

        It is settled first and taken out then, so an interrupt between loses nothing; a worker that
        takes it meanwhile finds it settled.
        """
        queue = self.dispatch.queue
        while queue:
            try:
                task = queue[0]
            except IndexError:
                return
            yield task

    def _count_rejected(self) -> None:
        self.rejected += 1

    def _end_epoch(self) -> None:
        """In this order: who waits for the end finds the next epoch in place."""
        over = self.dispatch
        self._over.append(over)
        self.roster.end()
        if self.roster.state is PoolState.OPEN:
            self.dispatch = self._new_dispatch()

    def _new_dispatch(self) -> Dispatch:
        dispatch = Dispatch(self.want_worker)
        dispatch.vacancies = self.roster.vacancies()
        return dispatch

    # -- the pool's verbs -------------------------------------------------------------------------

    def refusal(self) -> Exception:
        """What a submit gets that is not accepted."""
        roster, name = self.roster, self.settings.name
        if _exiting:
            closed = PoolClosedError(f"pool {name!r} takes no tasks: the interpreter shuts down")
            # The standard's words, for those who look for them.
            closed.__cause__ = RuntimeError(
                "cannot schedule new futures after interpreter shutdown"
            )
            return closed
        if roster.broken is not None:
            broken = BrokenRecyclePool(
                f"pool {name!r} is broken: its workers cannot be started ({roster.broken!r}). "
                f"close() or destroy() it, and it may be tried again"
            )
            broken.__cause__ = roster.broken
            return broken
        if roster.terminal:
            return PoolClosedError(
                f"cannot schedule new futures after shutdown: pool {name!r} was shut down for good. "
                f"close() instead leaves a pool that can be used again"
            )
        return PoolClosedError(
            f"pool {name!r} is closing: submit again when close() or destroy() has returned"
        )

    def reject(self) -> Exception:
        """Count a submit that is refused, and say why it is."""
        self._order(self._count_rejected)
        return self.refusal()

    def start(self) -> Future[int]:
        """See RecyclePool.start."""
        started: Future[int] = Future()
        self._order(self._start, started)
        return started

    def shut_down(self, cancel_queued: bool = False, wait: bool = False) -> Dispatch:
        """See RecyclePool.shutdown. Without `wait` it never waits."""
        dispatch = self.dispatch
        self._order(self._close, dispatch, True)
        if cancel_queued:
            self._order(self._cancel_queue)
        if wait:
            dispatch.ended.wait(None)
        return dispatch

    def close(self, timeout: float | None) -> CloseReport:
        """See RecyclePool.close."""
        if self.roster.state is PoolState.SHUTDOWN:
            return CloseReport()
        began, before, dispatch = self.settings.clock(), self.books.total(), self.dispatch
        self._order(self._close, dispatch, False)
        timed_out = not guarded(dispatch.ended.wait, timeout)
        abandoned = self._abort(dispatch, ESCALATION) if timed_out else ()
        return self._report(began, before, abandoned, timed_out)

    def destroy(self, grace: float) -> CloseReport:
        """See RecyclePool.destroy."""
        began, before, dispatch = self.settings.clock(), self.books.total(), self.dispatch
        if dispatch.ended.done():
            return CloseReport()
        abandoned = self._abort(dispatch, grace)
        return self._report(began, before, abandoned, timed_out=False)

    def _abort(self, dispatch: Dispatch, grace: float) -> tuple[AbandonedWorker, ...]:
        """End the epoch within `grace` seconds; tell who had to be given up."""
        clock, pause = self.settings.clock, FIRST_PAUSE
        deadline = clock() + grace
        over = False
        while not over:
            self._order(self._destroy, dispatch)
            left = deadline - clock()
            over = guarded(dispatch.ended.wait, max(0.0, min(pause, left)))
            pause *= 2
            if left <= 0.0:
                break
        stuck = () if over else self._give_up(dispatch)
        for teller in self._tellers.copy():
            teller.join(max(0.0, deadline - clock()))
        return stuck

    def _give_up(self, dispatch: Dispatch) -> tuple[AbandonedWorker, ...]:
        stuck = []
        frames = sys._current_frames()
        for worker in self.roster.workers.copy():
            if worker.dispatch is not dispatch:
                continue
            frame = frames.get(worker.gate.thread_id)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
            stuck.append(
                AbandonedWorker(worker.slot, worker.generation, name_of(worker.gate.task), stack)
            )
            self._order(self._abandon, worker)
        guarded(dispatch.ended.wait, ESCALATION)
        return tuple(stuck)

    def _report(
        self,
        began: float,
        before: Tally,
        abandoned: tuple[AbandonedWorker, ...],
        timed_out: bool,
    ) -> CloseReport:
        after = self.books.total()
        return CloseReport(
            completed=after.completed + after.failed - before.completed - before.failed,
            cancelled=after.cancelled - before.cancelled,
            aborted=after.aborted - before.aborted,
            abandoned=abandoned,
            timed_out=timed_out,
            seconds=self.settings.clock() - began,
        )

    def _tell(self) -> None:
        """Run the callbacks of futures that no driver settled, on a thread of their own.

        Whoever carries out orders may be a driver, a submitter or the collector: a callback that hangs
        harms none of them.
        """
        told = []
        try:
            while True:
                future = self._settled.popleft()
                if future._done_callbacks:
                    told.append(future)
        except IndexError:
            pass
        if told:
            teller = threading.Thread(
                target=self._run_callbacks,
                args=(told,),
                name=f"{self.settings.thread_names}_callbacks",
                daemon=True,
            )
            self._tellers.append(teller)
            teller.start()

    def _run_callbacks(self, told: list[Future[Any]]) -> None:
        try:
            for future in told:
                future._invoke_callbacks()  # type: ignore[attr-defined]
        finally:
            self._tellers.remove(threading.current_thread())


def name_of(task: Future[Any] | None) -> str | None:
    """What a task is called where it is shown."""
    fn = None if task is None else task.fn
    if fn is None:
        return None
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__


def _like(error: BaseException) -> BaseException:
    """An exception object of its own for each future."""
    own = type(error)(*error.args)
    own.__cause__ = error.__cause__
    return own


# ==== the end of the interpreter =================================================================

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()
_exiting = False


def end_at_exit(engine: Engine) -> None:
    """Have the engine's tasks finished before the interpreter ends, as the standard does."""
    global _watching
    if not _watching:
        threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
        _watching = True
    _engines.add(engine)


_watching = False


def _at_exit() -> None:
    global _exiting
    _exiting = True
    process = os.getpid()
    endings = [e.shut_down() for e in list(_engines) if e.process == process]
    for dispatch in endings:
        dispatch.ended.wait(None)
