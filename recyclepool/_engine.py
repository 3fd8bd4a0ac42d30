"""The engine: carries out what the roster decides, and ends epochs.

Everything here is done with one lock held, by orders: see ``_orders``. Each verb may be done twice.

Starting a thread is done with the lock held: it is none of foreign code's business, and whoever
orders something meanwhile does not wait. Foreign code (callbacks, hooks, subscribers) runs when the
lock is free, on threads of its own.
"""

import os
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from recyclepool._clearing import cancel_queue, fail_queue, like
from recyclepool._dispatch import Dispatch
from recyclepool._driver import drive
from recyclepool._future import Future, name_of
from recyclepool._gate import here, make_anew, wake
from recyclepool._news import News, text_of
from recyclepool._orders import Orders
from recyclepool._refusals import START_FAILED, refusal
from recyclepool._roster import Roster
from recyclepool._rules import Rules
from recyclepool._stacks import stack_of
from recyclepool._teller import Teller, daemons_allowed
from recyclepool._waits import Replaced, Rested, Started, Wait, Waits
from recyclepool._worker import Books, Doom, Tally, Worker
from recyclepool.backends import BackendFactory, Hooks
from recyclepool.cache import WorkerCache
from recyclepool.errors import TaskAbortedError, TaskTimeoutError, WorkerLostError, WorkerStartError
from recyclepool.states import PoolState, Reason, State

if TYPE_CHECKING:
    from recyclepool._watchdog import Watchdog

__all__ = ["Engine", "Settings"]

FORKED = "the process forked: this task is its parent's, and has no worker in the child"
FIRST_NUDGE = 0.01  # seconds after which a task that swallowed its abort gets another; doubles
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds between starts that fail; doubles

exiting = False  # the interpreter shuts down: set by the endings


class Settings(NamedTuple):
    """What a pool was made with, checked."""

    name: str
    size: int
    min_workers: int
    thread_names: str
    backend: BackendFactory
    isolated: bool
    cache: int
    rules: Rules = Rules()
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    finalizer: Callable[[], object] | None = None
    clock: Callable[[], float] = monotonic
    new_thread: Callable[..., threading.Thread] = threading.Thread


class Engine:
    """What a pool is when nobody looks: its drivers hold it, and not the facade."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rules = settings.rules
        self.news = News(settings.name, settings.thread_names, self)
        self._hooks = Hooks(
            settings.initializer,
            settings.initargs,
            settings.finalizer,
            settings.isolated,
            self._on_last_task,
        )
        self._begin(settings.size)

    def _begin(self, size: int) -> None:
        """Empty, and usable at once: when it is made, and in the child of a fork."""
        settings, rules = self.settings, self.rules
        self.process = os.getpid()
        self._orders = Orders(self._reconcile, self._tell)
        self._order = self._orders.give
        self.roster = Roster(
            size, self._new_worker, settings.min_workers, rules.surge, rules.max_abandoned
        )
        self.dispatch = self._new_dispatch()
        self._over: list[Dispatch] = []  # epochs whose end is to be told
        self._closing_since = inf
        self._outside = Tally()  # what was settled without a worker: written with the lock held
        self.books = Books((self._outside,))
        self.submitted = self.rejected = 0
        self.looking = threading.RLock()  # of stats: `submitted` never goes back
        self._launch_error: WorkerStartError | None = None
        self.watchdog: Watchdog | None = None
        if rules != Rules(tasks=rules.tasks, surge=rules.surge):
            self._need_watchdog()
        self.teller = Teller(settings.thread_names, self)
        self._waits = Waits(self.teller)

    def begin_anew(self) -> None:
        """In the child of a fork: be a fresh, empty pool. Only the thread that forked is here.

        What the parent's futures stand for runs there: here they fail. Nothing waits for a lock:
        another thread may have held it. A driver that forked leaves (`Worker.forked`).
        """
        size, ended = self.roster.size, self.roster.state is PoolState.SHUTDOWN
        for worker in [*self.roster.workers, *self.roster.abandoned]:
            worker.forked = True
            worker.leaving = worker.leaving or Reason.CLOSE
            make_anew(worker.gate.lock)
            if worker.gate.task is not None:
                worker.gate.task.forsake(WorkerLostError(FORKED))
        for task in [*self.dispatch.queue, *self._waits, self.dispatch.ended]:
            task.forsake(WorkerLostError(FORKED))
        self.dispatch.queue.clear()
        if here.crew is self:
            here.crew = None  # what this task does from now on it does to another pool
        self.news.begin_anew()
        self._begin(size)
        if ended:
            self.roster.close(terminal=True)
            self.roster.end()

    # -- orders: any thread, at any bytecode ------------------------------------------------------

    def want_worker(self) -> None:
        """A task found nobody. Raises WorkerStartError: no thread to be had, nobody lives."""
        self._order(self.demand)
        error = self._launch_error
        if error is not None and not self.roster.workers:
            raise like(error)

    def ready(self, worker: Worker) -> None:
        """By the driver: see Crew."""
        self._order(self._ready, worker)

    def start_failed(self, worker: Worker, error: BaseException) -> None:
        """By the driver: see Crew."""
        failure = WorkerStartError(START_FAILED + text_of(error))
        failure.__cause__ = error
        self._order(self._start_failed, worker, failure)

    def retire(self, worker: Worker, reason: Reason) -> None:
        """THE way out of a worker: by a limit, by the pool's end."""
        self._order(self.retire_now, worker, reason)

    def request_recycle(self, worker: Worker, why: str) -> None:
        """By its task: see CurrentWorker."""
        self._order(self.make_due, worker, Reason.REQUESTED, why)

    def vacate(self, worker: Worker, lost: BaseException | None) -> None:
        """By the driver: see Crew."""
        self._order(self._vacate, worker, lost)

    def teardown_failed(self, worker: Worker, error: BaseException) -> None:
        """By the driver: see Crew."""
        self._order(self.news.teardown_failed, worker, error)

    def left(self, worker: Worker) -> None:
        """By the driver: see Crew."""
        self._order(self._left, worker)

    def expect(self, deadline: float) -> None:
        """By a worker: its task is to have its end by then."""
        if self.watchdog is None or deadline < self.watchdog.until:
            self._order(self._need_watchdog)

    def _on_last_task(self, worker: Worker) -> None:
        if self.rules.report_only:
            self._order(self.news.due, worker, Reason.TASKS, f"{worker.tasks} tasks", True)
            return
        worker.leaving = Reason.TASKS
        self._order(self.retire_now, worker, Reason.TASKS)

    def look(self) -> None:
        self._order(_nothing)

    def _tell(self) -> None:
        self.teller.tell()
        self.news.flush()

    # -- what is done with the lock held ----------------------------------------------------------

    def _reconcile(self) -> None:
        """Carry out what the roster wants now, derived from what is: twice is harmless."""
        roster = self.roster
        while True:
            for worker, reason in roster.superseded():
                self.retire_now(worker, reason)
            roster.reconcile()
            for worker in roster.may_serve():
                wake(worker.admission)
                worker.admitted = True
            for worker in roster.workers.copy():
                if not worker.launched:
                    self._launch(worker)
            self.dispatch.vacancies = roster.vacancies()
            if roster.broken is not None:
                self._fail_epoch(roster.broken)
            if not self._watch():
                break
        if roster.is_over(len(self.dispatch.queue)):
            roster.end()
        self._turn_over()
        self._settle_waits()
        if self._orders.debug:
            roster.check()

    def demand(self) -> None:
        """Look at the queue. A vacancy is visible before that: a task that comes later sees it."""
        dispatch, roster = self.dispatch, self.roster
        dispatch.vacancies = roster.vacancies()
        roster.demand(len(dispatch.queue))
        if dispatch.queue and dispatch.idle:
            dispatch.look()

    def _new_worker(self, slot: int, generation: int) -> Worker:
        settings, rules = self.settings, self.rules
        worker = Worker(
            slot,
            generation,
            self.dispatch,
            cache=WorkerCache(settings.cache),
            born=settings.clock(),
            last_task=rules.tasks,
            watch=self.watchdog if rules.patience < inf else None,
        )
        worker.backend = settings.backend(worker, self._hooks)
        return worker

    def _jitter(self) -> float:
        from random import random  # for those who have a limit: it takes its time to import

        return self.rules.jitter * random()

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
                fail_queue(self.dispatch, self._launch_error, self._outside, self.teller)
            self._report_failed_start(worker, self._launch_error)
        else:
            self._launch_error = None
        worker.launched = True

    def _ready(self, worker: Worker) -> None:
        self.roster.ready(worker)
        if worker in self.roster.workers and worker.state is not State.RETIRING:
            now, age = self.settings.clock(), self.rules.age
            worker.idle_since = now  # it was not idle while it started
            if age < inf:
                worker.expires = now + age * (1 - self._jitter())
            self.news.ready(worker, now - worker.born)

    def _start_failed(self, worker: Worker, failure: WorkerStartError) -> None:
        self.books = self.books.closed_for(worker.tally)
        if worker in self.roster.abandoned:
            self.roster.left(worker)  # late: it was given up
            return
        self.roster.start_failed(worker, failure)
        self._report_failed_start(worker, failure)

    def _report_failed_start(self, worker: Worker, error: WorkerStartError) -> None:
        """Who waits for that worker waits no more; the next try comes after a pause."""
        roster = self.roster
        pause = self.start_pause() if roster.held_back else None
        if pause is not None:
            self._need_watchdog()
        self.news.start_failed(worker, text_of(error), roster.failures, pause)
        self._waits.fail(worker.slot, error)
        if not roster.serving():
            self.demand()

    def start_pause(self) -> float:
        """How long to wait until a start that failed is tried again."""
        pause = FIRST_PAUSE * 2.0 ** min(self.roster.failures - 1, 20)
        return min(LONGEST_PAUSE, pause) * (1 + self._jitter())

    def make_due(self, worker: Worker, reason: Reason, why: str) -> None:
        if self.rules.report_only and reason is Reason.AGE:
            self.news.due(worker, reason, why, report_only=True)
        elif self.roster.make_due(worker, reason):
            worker.why = why
            self.news.due(worker, reason, why)

    def retire_now(self, worker: Worker, reason: Reason, why: str = "") -> None:
        """It goes. With the lock held."""
        if worker.leaving is None:
            if reason is not worker.due:
                worker.why = why
            worker.leaving = reason  # DISPATCH 7: mark, then take out
        if worker.state in (State.STARTING, State.SERVING):
            worker.retired_at = self.settings.clock()
        self.roster.retire(worker, worker.leaving)
        if worker.dispatch.rouse(worker):
            self._note_vacated(worker)
        self.demand()

    def _note_vacated(self, worker: Worker) -> None:
        if not worker.vacated:
            worker.vacated_at = self.settings.clock()
            self.roster.vacate(worker)

    def _vacate(self, worker: Worker, lost: BaseException | None) -> None:
        if lost is not None:
            self.news.lost(worker, lost)
        self._note_vacated(worker)
        self.retire_now(worker, Reason.CLOSE if lost is None else Reason.LOST)

    def _left(self, worker: Worker) -> None:
        if worker in self.roster.workers:
            now = self.settings.clock()
            self.news.retired(worker, now - worker.born, now - worker.retired_at)
        self.roster.left(worker)
        self.books = self.books.closed_for(worker.tally)
        self.demand()

    def give_up(self, worker: Worker, start_error: WorkerStartError | None = None) -> None:
        """Give it up. Should its code return some day, it leaves, and nobody notices."""
        if worker.launched and not worker.thread.is_alive():
            return  # it has just left, and its order to say so is given
        if worker in self.roster.workers:
            name, stack = name_of(worker.gate.task), stack_of(worker.gate.thread_id)
            worker.given_up = (name, stack)
            if worker not in worker.dispatch.given_up:
                worker.dispatch.given_up.append(worker)
            self.news.abandoned(worker, name, stack)
        if worker.leaving is None:
            worker.leaving = Reason.LOST
        worker.stopping.set()
        self.roster.abandon(worker, start_error)
        wake(worker.admission)
        if start_error is not None:
            self._report_failed_start(worker, start_error)
        self.demand()

    # -- stopping what runs -----------------------------------------------------------------------

    def stop(
        self, worker: Worker, task: Future[Any], error: Exception, reason: Reason, why: str
    ) -> None:
        """Its task is to have its end at once. The rest concerns only the worker: it goes.

        Nudged by the watchdog until its grace is over; at an end, by who waits for that.
        """
        if worker.gate.task is not task:
            return  # it has its end, and the worker another
        self.retire_now(worker, reason, why)  # GATE 7
        if worker.doom is None or worker.doom.task is not task:
            now, ends = self.settings.clock(), reason is Reason.CLOSE
            grace, pause = (inf, inf) if ends else (self.rules.grace, FIRST_NUDGE)
            worker.doom = Doom(task, error, reason, now + grace, now, pause)
            if not ends:
                self._need_watchdog()
        self.nudge(worker)

    def nudge(self, worker: Worker) -> None:
        """Settle what it runs, once, and ask that to end: it may have swallowed what was raised."""
        doom, backend, now = worker.doom, worker.backend, self.settings.clock()
        if doom is None or backend is None:
            return
        task, error = doom.task, doom.error
        if task.settle(None, error):
            if isinstance(error, TaskTimeoutError):
                self._outside.timed_out += 1
                name, ran = name_of(task), now - worker.task_started
                self.news.timed_out(worker, name, doom.reason, ran)
            else:
                self._outside.aborted += 1
            self.teller.add(task)
        worker.stopping.set()
        backend.interrupt(task)
        worker.doom = doom._replace(nudge_at=now + doom.pause, pause=doom.pause * 2)

    def _cut_off(self, worker: Worker, task: Future[Any], error: Exception) -> None:
        """It was cancelled while it ran: see cancel()."""
        self._outside.aborted += 1
        self.teller.add(task)
        self.stop(worker, task, error, Reason.MANUAL, "its task was cancelled while it ran")

    def _need_watchdog(self) -> None:
        if self.watchdog is None:
            from recyclepool._watchdog import Watchdog

            self.watchdog = Watchdog(self)

    def _watch(self) -> bool:
        return self.watchdog is not None and self.watchdog.look()

    # -- what callers wait for --------------------------------------------------------------------

    def _add_wait(self, wait: Wait) -> None:
        if isinstance(wait, Started) and self.roster.state is PoolState.OPEN:
            self.roster.want_minimum()
        self._waits.add(wait)

    def _settle_waits(self) -> None:
        if self._waits:
            refusal = None if self.roster.state is PoolState.OPEN else self.refusal()
            if self._waits.for_rest():
                self.dispatch.on_rest = self.look  # DISPATCH 8: first
            self._waits.settle(self.roster, self.dispatch, refusal)
            if not self._waits.for_rest():
                self.dispatch.on_rest = None

    def _replace(self, slot: int | None, replaced: Replaced, why: str) -> None:
        """Mark who is to be replaced: all who are here now, or the holder of a slot."""
        active = (State.STARTING, State.SERVING)
        if not replaced.targets:
            here = [w for w in self.roster.workers if w.state in active]
            replaced.targets = tuple(w for w in here if slot in (None, w.slot))
        for worker in replaced.targets:
            self.make_due(worker, Reason.MANUAL, why)
        self._add_wait(replaced)

    def _resize(self, size: int) -> None:
        if self.roster.state is PoolState.OPEN:
            self.roster.resize(size)
            self.demand()

    # -- how an epoch ends ------------------------------------------------------------------------

    def _close(self, dispatch: Dispatch, terminal: bool) -> None:
        if dispatch is self.dispatch or terminal:
            self._note_closing()
            self.roster.close(terminal=terminal)
            dispatch = self.dispatch
            dispatch.closing = True
            dispatch.rouse_all()
            self.demand()

    def _destroy(self, dispatch: Dispatch) -> None:
        """Done again and again until the epoch is over: a task may swallow what is raised in it."""
        if dispatch is not self.dispatch:
            return
        self._note_closing()
        self.roster.destroy()
        dispatch.closing = True
        for worker in self.roster.workers.copy():
            self.retire_now(worker, Reason.CLOSE)
            task = worker.gate.task
            if worker.doom is not None and worker.doom.task is task:
                self.nudge(worker)
            elif task is not None and task.withdraw():
                self.teller.add(task)  # it had not started
            elif task is not None:
                error = TaskAbortedError("the task ran when its pool was destroyed")
                self.stop(worker, task, error, Reason.CLOSE, "")
        cancel_queue(self.dispatch, self._outside, self.teller)

    def _note_closing(self) -> None:
        if self.roster.state is not PoolState.CLOSING:
            self._closing_since = self.settings.clock()
            self.news.closing()

    def _fail_epoch(self, error: BaseException) -> None:
        """The pool is broken: nobody takes a task any more, and nobody is to wait in vain."""
        dispatch = self.dispatch
        if not dispatch.closing:
            self.news.broken(text_of(error))
        dispatch.closing = True
        dispatch.rouse_all()
        fail_queue(dispatch, self.refusal(), self._outside, self.teller)

    def _cancel_queue(self) -> None:
        cancel_queue(self.dispatch, self._outside, self.teller)

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
                self.news.closed(self.settings.clock() - self._closing_since)
                self.teller.add(ended)
            self._over.pop(0)

    def _new_dispatch(self) -> Dispatch:
        dispatch = Dispatch(self.want_worker)
        dispatch.vacancies = self.roster.vacancies()
        return dispatch

    # -- the pool's verbs -------------------------------------------------------------------------

    def refusal(self) -> Exception:
        """What a submit gets that is not accepted."""
        return refusal(self.settings.name, self.roster, exiting=exiting)

    def reject(self) -> Exception:
        """Count a submit that is refused, and say why it is."""
        self._order(self._count_rejected)
        return self.refusal()

    def start(self) -> Started:
        """See RecyclePool.start."""
        started = Started()
        self._order(self._add_wait, started)
        return started

    def replace(self, slot: int | None, why: str) -> Replaced:
        """See RecyclePool.recycle and soft_restart."""
        replaced = Replaced(self)
        self._order(self._replace, slot, replaced, why)
        return replaced

    def resize(self, size: int) -> None:
        """See RecyclePool.resize."""
        self._order(self._resize, size)

    def rest(self) -> Rested:
        """See RecyclePool.wait_idle."""
        rested = Rested()
        self._order(self._add_wait, rested)
        return rested

    def forget(self, wait: Wait) -> None:
        """Nobody waits for it any more."""
        wait.settle(None, None)
        self.look()

    def cancel(self, task: Future[Any]) -> bool:
        """Stop a task that runs. False: it does not, or it has its end."""
        error = TaskAbortedError("the task was cancelled while it ran")
        for worker in self.roster.workers.copy():
            if worker.gate.task is task:
                try:
                    return bool(task.running() and task.settle(None, error))
                finally:
                    if task._exception is error:
                        self._order(self._cut_off, worker, task, error)
        return False

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
        self._order(self.give_up, worker)


def _nothing() -> None:
    """The order of who only wants the engine to look."""
