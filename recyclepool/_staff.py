"""The lives of workers: from a thread's start to its end, or to the day it is given up.

All of it is done with the engine's lock held, and may be done twice: see ``_orders``. What is to be
done the roster decides.

Starting a thread is done with the lock held: it is none of foreign code's business, and whoever
orders something meanwhile does not wait. Foreign code (callbacks, hooks, subscribers) runs when the
lock is free, on threads of its own.
"""

import threading
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Any, NamedTuple

from recyclepool._clearing import fail_queue
from recyclepool._dispatch import Dispatch
from recyclepool._driver import drive
from recyclepool._future import Future, name_of
from recyclepool._gate import Flag, here, wake
from recyclepool._news import News, text_of
from recyclepool._orders import daemons_allowed
from recyclepool._roster import Roster
from recyclepool._rules import Rules
from recyclepool._stacks import stack_of
from recyclepool._teller import Teller
from recyclepool._waits import Waits
from recyclepool._worker import Books, Doom, Gone, Sample, Tally, Worker
from recyclepool.backends import BackendFactory, Hooks
from recyclepool.errors import TaskTimeoutError, WorkerStartError
from recyclepool.states import ACTIVE, PoolState, Reason, State

if TYPE_CHECKING:
    from contextvars import Context

    from recyclepool._looks import Forecasts
    from recyclepool._probe import Probe
    from recyclepool._relief import Relief
    from recyclepool._watchdog import Watchdog
    from recyclepool.schedule import Schedule

__all__ = ["Settings", "Staff"]

FIRST_NUDGE = 0.01  # seconds after which a task that swallowed its abort gets another; doubles
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds between starts that fail; doubles
NOT_RECYCLED = (Reason.CLOSE, Reason.IDLE, Reason.RESIZE)  # nobody takes their place


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
    schedules: "tuple[Schedule, ...]" = ()
    max_queue: int | None = None
    on_full: str = "block"
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    finalizer: Callable[[], object] | None = None
    clock: Callable[[], float] = monotonic
    wall: Callable[[], float] = time  # what schedules go by
    rss: Callable[[], int] | None = None  # what the process takes; None: the system is asked
    new_thread: Callable[..., threading.Thread] = threading.Thread


class Restart(NamedTuple):
    """Of all workers."""

    began: float
    targets: tuple[Worker, ...] = ()


class Staff:
    """The workers of a pool, and what is written about them."""

    def __init__(self, settings: Settings, on_last_task: Callable[[Worker], None]) -> None:
        self.settings = settings
        self.rules = settings.rules
        self._watches = settings.rules.patience < inf  # its tasks, each
        self.news = News(settings.name, settings.thread_names, self)
        self._hooks = Hooks(
            settings.initializer,
            settings.initargs,
            settings.finalizer,
            settings.isolated,
            on_last_task,
            self.new_probe if settings.rules.weighs else None,
        )
        self.set_up(settings.size)

    def set_up(self, size: int) -> None:
        """Nobody is here, and nothing has happened."""
        settings, rules = self.settings, self.rules
        self.roster = Roster(
            size, self._new_worker, settings.min_workers, rules.surge, rules.max_abandoned
        )
        self.dispatch = self.new_dispatch()
        self.outside = Tally()  # what was settled without a worker
        self.books = Books((self.outside,))
        # The most that stats() has told: what sums up floats may go back by a rounding.
        self.seconds: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
        self.teller = Teller(settings.thread_names, self)
        self.waits = Waits(self.teller)
        self.launch_error: WorkerStartError | None = None
        self.watchdog: Watchdog | None = None
        self.too_low = 0  # workers in a row that owned more than they may after their first task
        self.paused: Flag | None = None  # dispatch waits for it: the process is too big
        self.relief: Relief | None = self.new_relief() if rules.weighs else None
        self.forecasts: Forecasts  # with the relief
        # Made ahead: nobody waits for it then. The worker does not hold its thread, which holds it.
        self._spare: tuple[Worker, threading.Thread] | None = None
        self._restart = Restart(-inf)  # the last of all workers
        if settings.schedules or rules != Rules(tasks=rules.tasks, surge=rules.surge):
            self.need_watchdog()

    def new_relief(self) -> "Relief":
        """What measures the process, and gives memory back."""
        raise NotImplementedError  # it is given the engine's orders

    def new_probe(self, worker: Worker, context: "Context") -> "Probe | None":
        """What looks at a worker's memory."""
        raise NotImplementedError  # so is this

    def want_worker(self) -> None:
        """A task found nobody: any thread."""
        raise NotImplementedError  # an order: the engine's

    def look(self) -> None:
        """Have the watchdog look: any thread."""
        raise NotImplementedError  # an order: the engine's

    def new_dispatch(self) -> Dispatch:
        """That of the next epoch."""
        raise NotImplementedError  # it is given the engine's orders

    def need_watchdog(self) -> None:
        """Something is to be done in time."""
        if self.watchdog is None:
            from recyclepool._watchdog import Watchdog

            self.watchdog = Watchdog(self)

    def demand(self) -> None:
        """Look at the queue. A vacancy is visible before that: a task that comes later sees it."""
        dispatch, roster = self.dispatch, self.roster
        dispatch.vacancies = self.vacancies()
        if self.paused is None:
            roster.demand(len(dispatch.queue))
        if dispatch.queue and dispatch.idle:
            dispatch.look()

    def vacancies(self) -> int:
        """How many workers could be started for tasks: none while no task is."""
        return self.roster.vacancies() if self.paused is None else 0

    def _new_worker(self, slot: int, generation: int) -> Worker:
        settings = self.settings
        (worker, thread), self._spare = self._spare or self._make_worker(), None
        worker.threads.append(thread)
        worker.take_slot(slot, generation, self.dispatch, settings.clock())
        worker.watch = self.watchdog if self._watches else None
        worker.backend = settings.backend(worker, self._hooks)
        return worker

    def _make_worker(self) -> tuple[Worker, threading.Thread]:
        worker = Worker(budget=self.settings.cache, last_task=self.rules.tasks)
        return worker, self._make_thread(worker)

    def _make_thread(self, worker: Worker) -> threading.Thread:
        """It gets its name when it is started: `worker` may have no slot yet."""
        return self.settings.new_thread(target=drive, args=(worker, self), daemon=daemons_allowed())

    def _jitter(self) -> float:
        from random import random  # for those who have a limit: it takes its time to import

        return self.rules.jitter * random()

    def launch(self, worker: Worker) -> None:
        """Start its thread. Broken off and done again it may get two: the first to board drives."""
        thread = worker.threads.pop() if worker.threads else self._make_thread(worker)
        thread.name = f"{self.settings.thread_names}_{worker.slot}"
        if worker.thread is None:
            worker.thread = thread
        try:
            thread.start()
        except RuntimeError as error:
            if not worker.board():
                worker.launched = True
                return
            self.roster.not_launched(worker)
            self.launch_error = WorkerStartError(f"no thread can be started: {error}")
            self.launch_error.__cause__ = error
            if not self.roster.workers:
                fail_queue(self.dispatch, self.launch_error, self.outside, self.teller)
            self._report_failed_start(worker, self.launch_error)
        else:
            self.launch_error = None
            self.books = self.books.opened(worker.tally)  # it counts nothing before it is admitted
        worker.launched = True

    def opened(self, worker: Worker) -> None:
        """It could take tasks."""
        self.roster.ready(worker)
        if worker in self.roster.workers and worker.state is not State.RETIRING:
            now, age = self.settings.clock(), self.rules.age
            worker.idle_since = now  # it was not idle while it started
            if age < inf:
                worker.expires = now + age * (1 - self._jitter())
            self.news.ready(worker, now - worker.born)
            if self.relief is not None:
                self.relief.stand_by()

    def not_started(self, worker: Worker, failure: WorkerStartError) -> None:
        """It could not be opened."""
        self._close_books(worker)
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
            self.need_watchdog()
        self.news.start_failed(worker, text_of(error), roster.failures, pause)
        self.waits.fail(worker.slot, error)
        if not roster.serving():
            self.demand()

    def start_pause(self) -> float:
        """How long to wait until a start that failed is tried again."""
        pause = FIRST_PAUSE * 2.0 ** min(self.roster.failures - 1, 20)
        return min(LONGEST_PAUSE, pause) * (1 + self._jitter())

    def make_due(self, worker: Worker, reason: Reason, why: str) -> None:
        """It is to be replaced, and serves until its successor is ready."""
        if self.rules.report_only and reason in (Reason.AGE, Reason.MEMORY):
            self.news.due(worker, reason, why, report_only=True)
        elif self.roster.make_due(worker, reason):
            worker.why = why
            self.news.due(worker, reason, why)

    def join_restart(self, targets: Iterable[Worker]) -> float:
        """These are replaced, by the restart of all that is under way, or else a new one.

        Returns when that began. Who only finishes its last task holds no other restart back.
        """
        restart = self._restart
        if not any(w.due is not None and w.state in ACTIVE for w in restart.targets):
            restart = Restart(self.settings.clock())
        here = [w for w in (*restart.targets, *targets) if w.state in ACTIVE]
        self._restart = restart._replace(targets=tuple(here))
        return restart.began

    def restart_by_schedule(self, slot: int | None, schedule: str) -> None:
        """Have those replaced who serve, or the holder of a slot. By the watchdog.

        While a restart of all is under way those who came since it began are as good as new.
        """
        serving = [w for w in self.roster.holders().values() if slot in (None, w.slot)]
        began = self.join_restart(serving) if slot is None else inf
        stale = [w for w in serving if w.due is None and w.born <= began]
        for worker in stale:
            self.make_due(worker, Reason.SCHEDULE, f"schedule: {schedule}")
        self.news.schedule_fired(schedule, slot, len(stale), len(serving) - len(stale))

    def retire_now(self, worker: Worker, reason: Reason, why: str = "") -> None:
        """It goes. With the lock held."""
        if worker.leaving is None:
            if reason is not worker.due:
                worker.why = why
            worker.leaving = reason  # DISPATCH 7: mark, then take out
        if self.paused is not None:
            self.paused.nudge()
        # Before it is RETIRING: what derives that it is to go would not name it again.
        taken_out = worker.dispatch.rouse(worker)
        if worker.state in ACTIVE:
            worker.retired_at = self.settings.clock()
        self.roster.retire(worker, worker.leaving)
        if taken_out:
            self._note_vacated(worker)
        self.demand()

    def _note_vacated(self, worker: Worker) -> None:
        if not worker.vacated:
            worker.vacated_at = self.settings.clock()
            self.roster.vacate(worker)

    def vacated(self, worker: Worker, lost: BaseException | None) -> None:
        """It runs no task any more."""
        if lost is not None:
            self.news.lost(worker, lost)
        self._note_vacated(worker)
        self.retire_now(worker, Reason.CLOSE if lost is None else Reason.LOST)

    def gone(self, worker: Worker) -> None:
        """Its thread ends."""
        if worker in self.roster.workers:
            now = self.settings.clock()
            self.news.retired(worker, now - worker.born, now - worker.retired_at)
            self._note_recycle(worker, max(0.0, now - worker.retired_at))
            if worker.outgrown is not None and worker.reason is Reason.MEMORY:
                self._measure_return(worker, *worker.outgrown)
        self._close_books(worker)
        self.roster.left(worker)
        if self.relief is not None and not self.roster.workers:
            self.relief.look()
        if self.launch_error is not None and not self.roster.workers:
            self.roster.resume()  # nobody is left who could wait for a thread
        self.demand()
        self._make_ahead()

    def _make_ahead(self) -> None:
        """Where one was replaced another will be."""
        dispatch = self.dispatch
        if self._spare is None and self.roster.state is PoolState.OPEN:
            try:
                spare = self._make_worker()
            except Exception:  # no memory: nobody waits for it, and it is tried again when needed
                return
            if self.dispatch is dispatch:  # or we are a fork's child, which cannot start the thread
                self._spare = spare

    def _note_recycle(self, worker: Worker, seconds: float) -> None:
        if worker.reason not in NOT_RECYCLED:
            outgrown = worker.outgrown if worker.reason is Reason.MEMORY else None
            worker.tally.recycled(seconds, 0 if outgrown is None else outgrown[0].bytes)

    def _close_books(self, worker: Worker) -> None:
        """Nobody writes them any more. BEFORE it leaves the roster: stats() reads that first."""
        worker.tally.cache_counts = worker.cache_counts()
        self.books = self.books.closed_for(worker.tally)

    # -- memory -----------------------------------------------------------------------------------

    def replace_outgrown(self, worker: Worker, why: str, sample: Sample, before: int) -> None:
        """It owns too much, or most in a process that is too big."""
        self.make_due(worker, Reason.MEMORY, why)
        closing = self.roster.state is PoolState.CLOSING and not self.rules.report_only
        if worker.due is Reason.MEMORY or closing:
            worker.outgrown = sample, before
        if closing:
            self.retire_now(worker, Reason.MEMORY, why)

    def retire_outgrown(self) -> None:
        """The pool closes: nobody is replaced while he serves, and a drain may take long."""
        for worker in self.roster.workers.copy():
            if worker.due is Reason.MEMORY:
                self.retire_now(worker, Reason.MEMORY)

    def retire_in_haste(self, worker: Worker, why: str) -> None:
        """It has marked itself. Nobody takes its place before its teardown is over."""
        self.make_due(worker, Reason.MEMORY, why)
        self.retire_now(worker, Reason.MEMORY)
        if worker.reason is Reason.MEMORY:
            worker.why = why  # also if it was due for something else

    def note_too_low(self, worker: Worker, owned: int) -> None:
        """The limit is less than a first task leaves. Told once, until it is enough again."""
        if worker not in self.roster.workers or worker.measured_low:
            return
        worker.measured_low = True
        if not self.too_low:
            self.news.limit_too_low(worker, owned, int(self.rules.memory))
        self.too_low += 1

    def note_enough(self) -> None:
        """The limit is enough for a worker's first task."""
        self.too_low = 0

    def _measure_return(self, worker: Worker, sample: Sample, before: int) -> None:
        if self.relief is not None:
            told = (worker.slot, worker.generation, sample.bytes, sample.largest)
            self.relief.gone(Gone(*told, before, worker.thread, worker))

    def pause_dispatch(self) -> None:
        """Start no task for now. Those who wait for one go on if they are to go (`nudge`)."""
        if self.roster.state is not PoolState.OPEN:
            return
        if self.paused is None:
            self.paused = Flag()
        self.hurry_probes()
        self.demand()
        if self.relief is not None:
            self.relief.stand_by()  # which resumes it

    def resume_dispatch(self) -> None:
        """Start tasks again."""
        if self.paused is not None:
            self.paused.set()  # first: broken off here, it is done again
            self.paused = None
            self.demand()

    def hurry_probes(self) -> None:
        """Have each worker ask its probe before its next task (PROBE 3)."""
        for worker in self.roster.workers.copy():
            if worker.probe is not None:
                worker.probe.look_at = -inf

    def trim_all_caches(self) -> None:
        """Have each worker let go of half of its cache, those too that sleep."""
        for worker in self.roster.workers.copy():
            if worker.probe is not None:
                worker.probe.to_trim = True
        self.hurry_probes()
        self.dispatch.rouse_all()

    def give_up(self, worker: Worker, start_error: WorkerStartError | None = None) -> None:
        """Give it up. Should its code return some day, it leaves, and nobody notices."""
        if worker.launched and not worker.thread.is_alive():
            return  # it has just left, and its order to say so is given
        if here.worker is worker:
            return  # it is not stuck: it carries this out
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
                self.need_watchdog()
        self.nudge(worker)

    def nudge(self, worker: Worker) -> None:
        """Settle what it runs, once, and ask that to end: it may have swallowed what was raised."""
        doom, backend, now = worker.doom, worker.backend, self.settings.clock()
        if doom is None or backend is None:
            return
        task, error = doom.task, doom.error
        if task.settle(None, error):
            if isinstance(error, TaskTimeoutError):
                self.outside.timed_out += 1
                name, ran = name_of(task), now - worker.task_started
                self.news.timed_out(worker, name, doom.reason, ran)
            else:
                self.outside.aborted += 1
            self.teller.add(task)
        worker.stopping.set()
        backend.interrupt(task)
        worker.doom = doom._replace(nudge_at=now + doom.pause, pause=doom.pause * 2)

    def cut_off(self, worker: Worker, task: Future[Any], error: Exception) -> None:
        """It was cancelled while it ran: see cancel()."""
        self.teller.add(task)
        self.stop(worker, task, error, Reason.MANUAL, "its task was cancelled while it ran")

    def count_aborted(self, once: list[bool]) -> None:
        """Done twice it counts once."""
        if once:
            once.pop()
            self.outside.aborted += 1
