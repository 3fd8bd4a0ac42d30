"""The engine: carries out what the roster decides, and ends epochs.

ORDERS. Garbage collection, a signal or an interrupt can bring foreign code in at any bytecode, and
that code may submit, close or drop a pool. So the engine's lock is only ever *tried*: who wants
something appends an order to a deque, then tries the lock; the holder carries orders out and,
AFTER it released the lock, looks at the deque again.

1. No order is lost: it is appended before the lock is tried. Either the try succeeds, or the
   holder's look, which comes after its release, sees the order.
2. Nobody waits for the lock, and nobody can take it twice: it is a plain lock, and for a handler
   that interrupts the holder the try just fails. Who needs an answer waits for a future.
3. An order stays at the front of the deque until it is done. One that an interrupt broke off is
   done again, by the broken-off call itself on its way out or by the next one; to do one twice is
   harmless.
4. The lock is taken and noted in one C call, and released by the first call of the ``finally``:
   no interrupt, and no number of them, leaves it held.

Starting a thread is done with the lock held: it is none of foreign code's business, and whoever
orders something meanwhile does not wait. Foreign code (callbacks, hooks) runs when the lock is
free.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from recyclepool._dispatch import Dispatch
from recyclepool._driver import drive
from recyclepool._future import Future
from recyclepool._gate import wake
from recyclepool._roster import Roster
from recyclepool._teller import Teller, daemons_allowed
from recyclepool._worker import Books, Tally, Worker
from recyclepool.backends import BackendFactory, Hooks
from recyclepool.cache import WorkerCache
from recyclepool.errors import (
    BrokenRecyclePool,
    PoolClosedError,
    TaskAbortedError,
    WorkerStartError,
)
from recyclepool.states import PoolState, Reason

if TYPE_CHECKING:
    from recyclepool.limits import Limits

__all__ = ["Engine", "Settings", "name_of"]

DEBUG = "RECYCLEPOOL_DEBUG"
START_FAILED = "a worker could not be started: "

logger = logging.getLogger("recyclepool")

_NAMED = (FunctionType, BuiltinFunctionType, MethodType)

E = TypeVar("E", bound=BaseException)

exiting = False  # the interpreter shuts down: set by the endings


class Settings(NamedTuple):
    """What a pool was made with, checked."""

    name: str
    size: int
    min_workers: int
    thread_names: str
    backend: BackendFactory
    isolated: bool
    limits: "Limits | None"
    cache: int
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    finalizer: Callable[[], object] | None = None
    clock: Callable[[], float] = monotonic
    new_thread: Callable[..., threading.Thread] = threading.Thread


class Engine:
    """What a pool is when nobody looks: its drivers hold it, and not the facade."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.roster = Roster(
            settings.size,
            self._new_worker,
            min_workers=settings.min_workers,
            surge=settings.limits.max_surge if settings.limits else 1,
        )
        self.dispatch = self._new_dispatch()
        self._outside = Tally()  # what was settled without a worker: written with the lock held
        self.books = Books((self._outside,))
        self.process = os.getpid()
        self._orders: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._launch_error: WorkerStartError | None = None
        self._starts: list[Future[int]] = []  # of start(), until enough workers serve
        self._over: deque[Dispatch] = deque()  # epochs whose end is to be told
        self.teller = Teller(settings.thread_names, self)
        self._hooks = Hooks(
            settings.initializer,
            settings.initargs,
            settings.finalizer,
            settings.isolated,
            self._on_last_task,
        )
        self.submitted = self.rejected = 0
        self.looking = threading.RLock()  # of stats: `submitted` never goes back
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
            self.teller.tell()
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
                # A mistake of ours, and not of whoever carries it out. It would fail for ever.
                orders.popleft()
                if self._debug:
                    raise
                logger.critical("recyclepool could not carry out %s", verb, exc_info=True)
            else:
                orders.popleft()

    def want_worker(self) -> None:
        """A task found nobody. Raises WorkerStartError: no thread to be had, nobody lives."""
        self._order(self._demand)
        error = self._launch_error
        if error is not None and not self.roster.workers:
            raise _like(error)

    def ready(self, worker: Worker) -> None:
        """By the driver: see Crew."""
        self._order(self._ready, worker)

    def start_failed(self, worker: Worker, error: BaseException) -> None:
        """By the driver: see Crew."""
        failure = WorkerStartError(START_FAILED + _safe_repr(error))
        failure.__cause__ = error
        self._order(self._start_failed, worker, failure)

    def retire(self, worker: Worker, reason: Reason) -> None:
        """THE way out of a worker: by its driver, by a limit, by the pool's end."""
        self._order(self._retire, worker, reason)

    def vacate(self, worker: Worker, reason: Reason) -> None:
        """By the driver: see Crew."""
        self._order(self._vacate, worker, reason)

    def left(self, worker: Worker) -> None:
        """By the driver: see Crew."""
        self._order(self._left, worker)

    def _on_last_task(self, worker: Worker) -> None:
        worker.leaving = Reason.TASKS
        self._order(self._retire, worker, Reason.TASKS)

    # -- what is done with the lock held ----------------------------------------------------------

    def _reconcile(self) -> None:
        """Carry out what the roster wants now, derived from what is: twice is harmless."""
        roster, dispatch = self.roster, self.dispatch
        roster.reconcile()
        for worker in roster.may_serve():
            wake(worker.admission)
        for worker in roster.workers.copy():
            if not worker.launched:
                self._launch(worker)
        dispatch.vacancies = roster.vacancies()
        if roster.broken is not None:
            dispatch.closing = True
            dispatch.rouse_all()
            self._fail_queue(self.refusal())
        self._settle_starts()
        if roster.is_over(len(dispatch.queue)):
            roster.end()
        self._turn_over()
        if self._debug:
            roster.check()

    def _demand(self) -> None:
        """Look at the queue. A vacancy is visible before that: a task that comes later sees it."""
        dispatch, roster = self.dispatch, self.roster
        dispatch.vacancies = roster.vacancies()
        roster.demand(len(dispatch.queue))
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
            last_task=settings.limits.tasks or 0 if settings.limits else 0,
        )
        worker.backend = settings.backend(worker, self._hooks)
        return worker

    def _launch(self, worker: Worker) -> None:
        """Start its thread. Broken off and done again it may get two: the first to board drives."""
        self.books = self.books.opened(worker.tally)
        settings = self.settings
        name = f"{settings.thread_names}_{worker.slot}"
        thread = settings.new_thread(
            target=drive, args=(worker, self), name=name, daemon=daemons_allowed()
        )
        if worker.thread is None:
            worker.thread = thread
        try:
            thread.start()
        except RuntimeError as error:
            if not worker.board():
                worker.launched = True
                return
            self.roster.not_launched(worker)
            self.books = self.books.closed_for(worker.tally)
            self._launch_error = WorkerStartError(f"no thread can be started: {error}")
            self._launch_error.__cause__ = error
            if not self.roster.workers:
                self._fail_queue(self._launch_error)
            self._fail_starts(self._launch_error)
        else:
            self._launch_error = None
        worker.launched = True

    def _ready(self, worker: Worker) -> None:
        self.roster.ready(worker)

    def _start_failed(self, worker: Worker, failure: WorkerStartError) -> None:
        self.books = self.books.closed_for(worker.tally)
        if worker in self.roster.abandoned:
            self.roster.left(worker)  # late, from an epoch that is over
            return
        self.roster.start_failed(worker, failure)
        self._fail_starts(failure)
        if not self.roster.serving():
            self._demand()

    def _fail_starts(self, error: WorkerStartError) -> None:
        for start in self._starts:
            if start.settle(None, _like(error)):
                self.teller.add(start)

    def _retire(self, worker: Worker, reason: Reason) -> None:
        if worker.leaving is None:
            worker.leaving = reason  # DISPATCH 7: mark, then take out
        self.roster.retire(worker, worker.leaving)
        worker.dispatch.rouse(worker)
        self._demand()

    def _vacate(self, worker: Worker, reason: Reason) -> None:
        self.roster.vacate(worker)
        self._retire(worker, reason)

    def _left(self, worker: Worker) -> None:
        self.roster.left(worker)
        self.books = self.books.closed_for(worker.tally)
        self._demand()

    def _abandon(self, worker: Worker) -> None:
        self.roster.abandon(worker)
        self._demand()

    def _start(self, started: Future[int]) -> None:
        if self.roster.state is PoolState.OPEN:
            self.roster.want_minimum()
            self._starts.append(started)
        elif started.settle(None, self.refusal()):
            self.teller.add(started)

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
                self.teller.add(start)
        self._starts = [start for start in self._starts if not start.done()]

    def _close(self, dispatch: Dispatch, terminal: bool) -> None:
        if dispatch is self.dispatch or terminal:
            self.roster.close(terminal=terminal)
            dispatch = self.dispatch
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
        """Settle what it runs, at once, and ask that to end. The rest concerns only the worker."""
        backend, task = worker.backend, worker.gate.task
        if task is None or backend is None:
            return
        if task.settle(None, TaskAbortedError("the task ran when its pool was destroyed")):
            self._outside.aborted += 1
            self.teller.add(task)
        worker.stopping.set()
        backend.interrupt(task)

    def _cancel_queue(self) -> None:
        for task in self._queued():
            if task.withdraw():
                self.teller.add(task)
            task.begin()  # tells wait() and as_completed()
            if self.dispatch.take_back(task):
                self._outside.cancelled += 1

    def _fail_queue(self, error: BaseException) -> None:
        for task in self._queued():
            if task.settle(None, _like(error)):
                task.drop_call()
                self._outside.failed += 1
                self.teller.add(task)
                self.dispatch.take_back(task)
            else:
                task.begin()  # it was cancelled: tells wait() and as_completed()
                if self.dispatch.take_back(task):
                    self._outside.cancelled += 1

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

    def _turn_over(self) -> None:
        """After an end: put the next epoch in place, then tell those who wait for the end."""
        if self.dispatch.closing:
            if self.roster.state is PoolState.OPEN:
                self._over.append(self.dispatch)
                self.dispatch = self._new_dispatch()
            elif self.roster.state is PoolState.SHUTDOWN:
                self._over.append(self.dispatch)
        while self._over:
            ended = self._over[0].ended
            if ended.settle(None, None):
                self.teller.add(ended)
            self._over.popleft()

    def _new_dispatch(self) -> Dispatch:
        dispatch = Dispatch(self.want_worker)
        dispatch.vacancies = self.roster.vacancies()
        return dispatch

    # -- the pool's verbs -------------------------------------------------------------------------

    def refusal(self) -> Exception:
        """What a submit gets that is not accepted."""
        roster, name = self.roster, self.settings.name
        if exiting:
            return PoolClosedError(
                f"cannot schedule new futures after interpreter shutdown: pool {name!r} is closed"
            )
        if roster.broken is not None:
            broken = BrokenRecyclePool(
                f"pool {name!r} is broken: its workers cannot be started "
                f"({str(roster.broken).removeprefix(START_FAILED)}). "
                f"close() or destroy() it, and it may be tried again"
            )
            broken.__cause__ = roster.broken
            return broken
        if roster.terminal:
            return PoolClosedError(
                f"cannot schedule new futures after shutdown: pool {name!r} was shut down "
                f"for good. close() instead leaves a pool that can be used again"
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

    def end(self, dispatch: Dispatch, *, terminal: bool = False) -> None:
        """Begin to end an epoch. Never waits."""
        self._order(self._close, dispatch, terminal)

    def abort(self, dispatch: Dispatch) -> None:
        """Stop what an epoch still runs, and cancel what it has queued. Never waits."""
        self._order(self._destroy, dispatch)

    def cancel_queued(self) -> None:
        """Cancel what is queued."""
        self._order(self._cancel_queue)

    def abandon(self, worker: Worker) -> None:
        """Give up a worker that does not end."""
        self._order(self._abandon, worker)


def name_of(task: Future[Any] | None) -> str | None:
    """What a task is called where it is shown. Runs none of its code."""
    fn: Any = None if task is None else task.fn
    if fn is None:
        return None
    kind = type(fn)
    if kind is partial:
        fn, kind = fn.func, type(fn.func)
    if kind in _NAMED or issubclass(kind, type):
        return str(fn.__qualname__)
    return str(kind.__qualname__)


def _safe_repr(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:
        return type(error).__qualname__


def _like(error: E) -> E:
    """An exception object of its own for each future."""
    own = type(error)(*error.args)
    own.__cause__ = error.__cause__
    return own
