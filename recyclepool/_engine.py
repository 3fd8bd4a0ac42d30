"""The engine: takes orders, has the roster's decisions carried out, and ends epochs.

What any thread may call leaves an order; what is done with the lock held may be done twice: see
``_orders``. The lives of workers are in ``_staff``.
"""

import sys
import threading
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from recyclepool._bounded import BoundedDispatch
from recyclepool._clearing import cancel_queue, fail_queue, like
from recyclepool._dispatch import Dispatch
from recyclepool._future import Future
from recyclepool._gate import here, make_anew, wake
from recyclepool._news import text_of
from recyclepool._orders import Orders
from recyclepool._refusals import START_FAILED, queue_full, refusal
from recyclepool._staff import Settings, Staff
from recyclepool._waits import Replaced, Rested, Started, Wait
from recyclepool._worker import Sample, Worker
from recyclepool.errors import QueueFullError, TaskAbortedError, WorkerLostError, WorkerStartError
from recyclepool.states import ACTIVE, PoolState, Reason, State

if TYPE_CHECKING:
    from contextvars import Context

    from recyclepool._probe import Probe
    from recyclepool._relief import Relief

__all__ = ["Engine", "Settings"]

FORKED = "the process forked: this task is its parent's, and has no worker in the child"

exiting = False  # the interpreter shuts down: set by the endings


class Engine(Staff):
    """What a pool is when nobody looks: its drivers hold it, and not the facade."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, self._on_last_task)

    def set_up(self, size: int) -> None:
        """Empty, and usable at once: when it is made, and in the child of a fork."""
        settings = self.settings
        name = f"{settings.thread_names}_orders"
        self._orders = Orders(self._reconcile, self._tell, settings.new_thread, name)
        self._order = self._orders.give
        self._over: list[Dispatch] = []  # epochs whose end is to be told
        self._closing_since = inf
        self.submitted = self.rejected_closed = self.rejected_full = 0
        self.looking = threading.RLock()  # of stats: `submitted` never goes back
        super().set_up(size)

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
            for task in (*worker.handed, worker.gate.task):
                if task is not None:
                    task.forsake(WorkerLostError(FORKED))
        for task in [*self.dispatch.queue, *self.waits, self.dispatch.ended]:
            task.forsake(WorkerLostError(FORKED))
        self.dispatch.queue.clear()
        if here.crew is self:
            here.crew = None  # what this task does from now on it does to another pool
        self.news.begin_anew()
        self.set_up(size)
        if ended:
            self.dispatch.closing = True
            self.roster.close(terminal=True)
            self.roster.end()

    def new_dispatch(self) -> Dispatch:
        """That of the next epoch."""
        most = self.settings.max_queue
        dispatch = Dispatch(self.want_worker) if most is None else BoundedDispatch(self, most)
        dispatch.vacancies = self.roster.vacancies()
        return dispatch

    def new_relief(self) -> "Relief":
        """What measures the process, and gives memory back."""
        from recyclepool._looks import Forecasts
        from recyclepool._relief import Relief

        self.forecasts = Forecasts()
        return Relief(self)

    def new_probe(self, worker: Worker, context: "Context") -> "Probe | None":
        """What looks at a worker's memory. In its thread."""
        from recyclepool._probe import SUPPORTED, Probe

        return Probe(worker, self, context) if SUPPORTED else None

    # -- orders: any thread, at any bytecode ------------------------------------------------------

    def want_worker(self) -> None:
        """A task found nobody. Raises WorkerStartError: no thread to be had, nobody lives."""
        self._order(self.demand)
        error = self.launch_error
        if error is not None and not self.roster.workers:
            raise like(error)

    def ready(self, worker: Worker) -> None:
        """By the driver: see Crew."""
        self._order(self.opened, worker)

    def start_failed(self, worker: Worker, error: BaseException) -> None:
        """By the driver: see Crew."""
        failure = WorkerStartError(START_FAILED + text_of(error))
        failure.__cause__ = error
        self._order(self.not_started, worker, failure)

    def retire(self, worker: Worker, reason: Reason) -> None:
        """THE way out of a worker: by a limit, by the pool's end."""
        self._order(self.retire_now, worker, reason)

    def request_recycle(self, worker: Worker, why: str) -> None:
        """By its task: see CurrentWorker."""
        self._order(self.make_due, worker, Reason.REQUESTED, why)

    def outgrown(self, worker: Worker, why: str, sample: Sample, before: int) -> None:
        """By its probe, or for the whole process: it owns too much."""
        self._order(self.replace_outgrown, worker, why, sample, before)

    def leaves_in_haste(self, worker: Worker, why: str) -> None:
        """By its probe: it has marked itself."""
        self._orders.leave(self.retire_in_haste, worker, why)

    def undoes_in_haste(self) -> None:
        """By the driver: see Crew."""
        if self.watchdog is not None:
            self.watchdog.come()

    def limit_too_low(self, worker: Worker, owned: int) -> None:
        """By its probe: another worker would own as much."""
        self._order(self.note_too_low, worker, owned)

    def limit_is_enough(self) -> None:
        """By a probe: its worker's first task left no more than it may own."""
        self._order(self.note_enough)

    def trimmed(self, worker: Worker, before: int, after: int) -> None:
        """By its probe: its cache was what it owned too much."""
        self._order(self.news.trimmed, worker, before, after)

    def probe_failed(self, error: BaseException) -> None:
        """By a probe: it cannot look at its worker."""
        self._order(self.news.watchdog_failed, text_of(error))

    def not_owned(self, worker: Worker, what: str) -> None:
        """By its probe: much of what it refers to a recycle would not free."""
        self._order(self.news.not_owned, worker, what)

    def give_back(self) -> None:
        """By a probe: its worker has let go of much."""
        if self.relief is not None:
            self.relief.hurry()

    def order(self, verb: Callable[..., None], *args: Any) -> None:
        """Have something done with the lock held: by the relief."""
        self._order(verb, *args)

    def vacate(self, worker: Worker, lost: BaseException | None) -> None:
        """By the driver: see Crew."""
        self._order(self.vacated, worker, lost)

    def teardown_failed(self, worker: Worker, error: BaseException) -> None:
        """By the driver: see Crew."""
        self._order(self.news.teardown_failed, worker, error)

    def left(self, worker: Worker) -> None:
        """By the driver: see Crew."""
        self._order(self.gone, worker)

    def expect(self, deadline: float) -> None:
        """By a worker: its task is to have its end by then."""
        if self.watchdog is None:
            self._order(self.need_watchdog)
        else:
            self.watchdog.expect(deadline)

    def _on_last_task(self, worker: Worker) -> None:
        if self.rules.report_only:
            self._order(self.news.due, worker, Reason.TASKS, f"{worker.tasks} tasks", True)
            return
        worker.leaving, worker.why = Reason.TASKS, ""
        self._order(self.retire_now, worker, Reason.TASKS)

    def look(self) -> None:
        self._order(_nothing)

    def _tell(self) -> None:
        self.teller.tell()
        self.news.flush()

    # -- what is done with the lock held ----------------------------------------------------------

    def _reconcile(self, last: bool = True) -> None:
        """Carry out what time and the roster want now, derived from what is: twice is harmless."""
        roster = self.roster
        if self.watchdog is not None and last:
            self.watchdog.act()
        for worker, reason in roster.superseded():
            self.retire_now(worker, reason)
        roster.reconcile()
        for worker in roster.workers.copy():
            if not worker.launched:
                self.launch(worker)
        for worker in roster.may_serve():
            wake(worker.admission)
            worker.admitted = worker.state in ACTIVE  # who is to go is woken, and never serves
        self.dispatch.vacancies = self.vacancies()
        if roster.broken is not None:
            self._fail_epoch(roster.broken)
        if last or roster.state is not PoolState.OPEN:
            self._settle_waits()  # before the next epoch begins, in which they have no place
        if roster.is_over(len(self.dispatch.queue)):
            roster.end()
        self._turn_over()
        if self.watchdog is not None and last:
            self.watchdog.sleep()
        if self._orders.debug:
            roster.check()

    # -- what callers wait for --------------------------------------------------------------------

    def _add_wait(self, wait: Wait) -> None:
        if isinstance(wait, Started) and self.roster.state is PoolState.OPEN:
            self.roster.want_minimum()
        self.waits.add(wait)

    def _settle_waits(self) -> None:
        if self.waits:
            refusal = None if self.roster.state is PoolState.OPEN else self.refusal()
            if self.waits.for_rest():
                self.dispatch.on_rest = self.look  # DISPATCH 8: first
            self.waits.settle(self.roster, self.dispatch, refusal)
            if not self.waits.for_rest():
                self.dispatch.on_rest = None

    def _replace(self, slot: int | None, replaced: Replaced, why: str) -> None:
        """Mark who is to be replaced: all who are here now, or the holder of a slot."""
        here = [w for w in self.roster.workers if w.state in ACTIVE and slot in (None, w.slot)]
        replaced.aim(here)
        if slot is None:
            self.join_restart(replaced.targets)
        for worker in replaced.targets:
            self.make_due(worker, Reason.MANUAL, why)
        self.waits.add(replaced)

    def _resize(self, size: int) -> None:
        if self.roster.state is PoolState.OPEN:
            self.roster.resize(size)
            self.demand()

    # -- how an epoch ends ------------------------------------------------------------------------

    def _close(self, dispatch: Dispatch, terminal: bool) -> None:
        if dispatch is self.dispatch or terminal:
            self._note_closing()
            self.retire_outgrown()  # before nobody is due any more
            self.roster.close(terminal=terminal)
            dispatch = self.dispatch
            dispatch.closing = True
            dispatch.rouse_all()
            self.resume_dispatch()
            self.demand()

    def _destroy(self, dispatch: Dispatch) -> None:
        """Done again and again until the epoch is over: a task may swallow what is raised in it."""
        if dispatch is not self.dispatch:
            return
        self._note_closing()
        self.roster.destroy()
        dispatch.closing = True
        dispatch.rouse_all()
        self.resume_dispatch()
        for worker in self.roster.workers.copy():
            self.retire_now(worker, Reason.CLOSE)
            for task in worker.handed.copy():
                if task.withdraw():
                    self.teller.add(task)
            task = worker.gate.task
            if worker.doom is not None and worker.doom.task is task:
                self.nudge(worker)
            elif task is not None and task.withdraw():
                self.teller.add(task)  # it had not started
            elif task is not None:
                error = TaskAbortedError("the task ran when its pool was destroyed")
                self.stop(worker, task, error, Reason.CLOSE, "")
        cancel_queue(self.dispatch, self.outside, self.teller)

    def _note_closing(self) -> None:
        if self.roster.state in (PoolState.OPEN, PoolState.BROKEN):
            self._closing_since = self.settings.clock()
            self.news.closing()

    def _fail_epoch(self, error: BaseException) -> None:
        """The pool is broken: nobody takes a task any more, and nobody is to wait in vain."""
        dispatch = self.dispatch
        if not dispatch.closing:
            self.news.broken(text_of(error))
        dispatch.closing = True
        dispatch.rouse_all()
        self.resume_dispatch()
        fail_queue(dispatch, self.refusal(), self.outside, self.teller)

    def _cancel_queue(self) -> None:
        cancel_queue(self.dispatch, self.outside, self.teller)

    def _count_rejected(self) -> None:
        self.rejected_closed += 1

    def _count_full(self) -> None:
        self.rejected_full += 1

    def _count_cancelled(self, once: list[bool]) -> None:
        if once:
            once.pop()
            self.outside.cancelled += 1

    def _want_one_more(self) -> None:
        """Somebody's key belongs to a slot that is empty. One at a time: it may be filled next."""
        if not self.roster.starters():
            self.roster.want(len(self.roster.active()) + 1)

    def _note_pressure(self) -> None:
        """On its edges only: between full and half empty nothing is told."""
        dispatch = self.dispatch
        if isinstance(dispatch, BoundedDispatch):
            if dispatch.pressed and not dispatch.told:
                dispatch.told = True
                self.news.queue_full(dispatch.most)
            queued = len(dispatch.queue)
            if dispatch.told and queued <= dispatch.most // 2:
                dispatch.pressed = dispatch.told = False
                self.news.queue_relieved(queued)

    def _turn_over(self) -> None:
        """After an end: put the next epoch in place, then tell those who wait for the end."""
        if self.dispatch.closing:
            if self.roster.state is PoolState.OPEN:
                self._over.append(self.dispatch)
                self.dispatch = self.new_dispatch()
            elif self.roster.state is PoolState.SHUTDOWN:
                self._spare = None  # whose thread would seem to be forgotten: it never starts
                self._over.append(self.dispatch)
        while self._over:
            ended = self._over[0].ended
            if ended.settle(None, None):
                self.news.closed(self.settings.clock() - self._closing_since)
                self.teller.add(ended)
            self._over.pop(0)

    # -- the pool's verbs -------------------------------------------------------------------------

    def refusal(self) -> Exception:
        """What a submit gets that is not accepted."""
        return refusal(self.settings.name, self.roster, exiting=exiting)

    def reject(self) -> Exception:
        """Count a submit that is refused, and say why it is."""
        self._order(self._count_rejected)
        return self.refusal()

    def hand(self, dispatch: Dispatch, task: Future[Any], key: int) -> bool:
        """Give a task to the worker that is the best for its key and idle. False: all are busy.

        The best is the one whose slot has the highest weight for that key (rendezvous hashing,
        Thaler and Ravishankar 1998), so most keys stay where they are when slots come and go.
        """
        if dispatch.closing or self.paused is not None or not dispatch.idle:
            return False
        serving = {w.slot: w for w in self.roster.workers.copy() if w.state is State.SERVING}
        slots = range(self.roster.size) if len(serving) < self.roster.size else serving
        # Of text, because the hash of a tuple mixes its last element too little to rank by.
        ranked = sorted(slots, key=lambda slot: hash(f"{key}:{slot}"), reverse=True)
        if ranked[0] not in serving:
            self._order(self._want_one_more)
        idle = [serving[slot] for slot in ranked if slot in serving and serving[slot].resting]
        return any(dispatch.hand(task, worker) for worker in idle)

    def hand_over(self, dispatch: Dispatch, task: Future[Any]) -> bool:
        """Give a task to any idle worker. False: all are busy, or no task is to be started."""
        if self.paused is not None:
            return False
        idle = [w for w in self.roster.workers.copy() if w.resting]
        return any(dispatch.hand(task, worker) for worker in idle)

    # A bounded queue's keeper: see BoundedDispatch.

    def may_wait(self, *, awaits: bool = False) -> str | None:
        """Why this thread must not wait for a place, or None. A coroutine only awaits it."""
        if self.settings.on_full == "raise":
            return ""
        if here.crew is self:
            return "one of the pool's own tasks cannot wait for a place: it would wait for itself"
        if here.inside:
            return "a finalizer or signal handler amid a pool's own work cannot wait for a place"
        running_loop = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
        if not awaits and running_loop is not None and running_loop() is not None:
            return "an event loop's thread must not wait for a place: write await pool.run(...)"
        return None

    def full(self, why: str) -> QueueFullError:
        """Count a submit that finds no place, and say why it does not wait."""
        self._order(self._count_full)
        return queue_full(self.settings.name, self.settings.max_queue or 0, why)

    def look_at_pressure(self) -> None:
        """The queue may have become full, or half empty."""
        self._order(self._note_pressure)

    def count_cancelled(self) -> None:
        """A task was taken out of the queue that had been cancelled."""
        self._order(self._count_cancelled, [True])

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
                        self._order(self.cut_off, worker, task, error)
                        self._order(self.count_aborted, [True])
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
