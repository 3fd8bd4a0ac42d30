"""The thread backend: tasks run inline, on the driver's own thread."""

import operator
from bisect import bisect_left
from collections.abc import Sized
from concurrent.futures._base import RUNNING
from contextvars import Context
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from recyclepool._future import Future
from recyclepool._gate import Gate
from recyclepool._worker import Tally, Worker
from recyclepool.errors import TaskAbortedError, WorkerLostError
from recyclepool.states import BUCKETS

if TYPE_CHECKING:
    from recyclepool.backends import Hooks

__all__ = ["Thread"]

SHORT = BUCKETS[0]

_call = operator.call


class Thread(NamedTuple):
    """Workers that run their tasks on their own threads, in this interpreter.

    ``interrupt=False`` never raises an exception inside a task that is to stop: it only sets
    ``current_worker().stopping``, and abandons the thread if its grace runs out.
    """

    interrupt: bool = True

    @property
    def name(self) -> str:
        """As in ``backend=``."""
        return "thread"

    @property
    def shares_objects(self) -> bool:
        """Tasks see the caller's own objects."""
        return True

    @property
    def can_kill(self) -> bool:
        """A thread cannot be killed, only abandoned."""
        return False

    def __call__(self, worker: Worker, hooks: "Hooks") -> "ThreadBackend":
        """The backend of one worker."""
        return ThreadBackend(worker, hooks, self.interrupt)


class ThreadBackend:
    """Runs one worker's tasks in the thread that calls ``serve``."""

    def __init__(self, worker: Worker, hooks: "Hooks", may_interrupt: bool) -> None:
        self._worker = worker
        self._hooks = hooks
        self._may_interrupt = may_interrupt
        self._context = Context()  # of whatever runs here and is no task, and goes with the worker
        self._own_variables: tuple[Any, ...] = ()  # that the initializer set there: they win
        self._opened = False  # a finalizer answers to an initializer that succeeded

    def open(self) -> None:
        """Run the initializer."""
        hooks, worker = self._hooks, self._worker
        if hooks.new_probe is not None:
            worker.probe = hooks.new_probe(worker, self._context)
        if hooks.initializer is not None:
            self._context.run(hooks.initializer, *hooks.initargs)
            self._own_variables = tuple(self._context)
        self._opened = True

    def serve(self) -> None:
        """Run tasks until the worker is to go.

        A task that brings no context variables is called directly, in a context made for such
        tasks. The first that leaves something behind in it is the last to see it: the next gets a
        new one.
        """
        if not self._hooks.isolated:
            self._context.run(self._serve, ())
            return
        over = False
        while not over:
            clean = Context()
            over = clean.run(self._serve, clean)

    def _serve(self, clean: Sized) -> bool:
        """True: the worker is to go. False: `clean` is not clean any more."""
        worker = self._worker
        dispatch, gate, tally = worker.dispatch, worker.gate, worker.tally
        popleft = dispatch.queue.popleft
        run = self._run
        watch, probe = worker.watch, worker.probe
        last_look = worker.resting = False
        now = monotonic()
        if watch is not None:
            watch.busy_from(now)
        while worker.leaving is None and not clean:
            if probe is not None and now >= probe.look_at:
                now = probe.between_tasks(now)
                if worker.leaving is not None:
                    break
            try:
                task = popleft()
            except IndexError:
                if last_look:
                    return True
                gate.wishes.clear()  # one that came too late keeps no task alive
                worker.idle_since = now
                last_look = dispatch.fall_asleep(worker)
                now = monotonic()
                if watch is not None:
                    watch.busy_from(now)
                if not worker.handed:
                    continue
                task = worker.handed.pop()  # DISPATCH 9
            worker.task_started = now
            gate.task = task  # before it is RUNNING: who finds it so finds who runs it
            if task.begin():
                worker.tasks += 1
                try:
                    if worker.tasks == worker.last_task:
                        worker.task_started = inf  # what that takes is not the task's time
                        self._hooks.on_last_task(worker)
                        worker.task_started = now = monotonic()
                        if watch is not None:
                            watch.busy_from(now)
                    now = run(task, gate, tally, now)
                except BaseException as error:
                    self._lose(task, error)
                    raise
            else:
                gate.task = None
                tally.cancelled += task.cancelled()
            del task
        return worker.leaving is not None

    def _run(self, task: Future[Any], gate: Gate, tally: Tally, started: float) -> float:
        """Run one task and settle it. `started` is the end of the one before; returns its own."""
        waited = started - task.queued_at
        tally.wait_counts[bisect_left(BUCKETS, waited) if waited > SHORT else 0] += 1
        tally.wait_seconds += waited
        fn: Any = task.fn
        args, kwargs, context = task.args, task.kwargs, task.context
        task.args = task.kwargs = task.context = None  # the caller may keep the future for long
        if self._own_variables:
            context = self._with_own_variables(context)
        lock = gate.lock
        value = error = None
        gate.depth = 0
        try:
            try:
                lock.release()
                if gate.wishes:
                    gate.surrender()
                if kwargs:
                    run: Any = _call if context is None else context.run
                    value = run(fn, *args, **kwargs)
                elif context is None:
                    value = fn(*args)
                elif args:
                    value = context.run(fn, *args)
                else:  # not the tuple (fn, *args) for nothing
                    value = context.run(fn)
            except BaseException as raised:
                error = raised
            lock.acquire()
        except BaseException as surfaced:  # GATE 3
            value, error = None, surfaced
            gate.regain()
        gate.depth = 1
        gate.task = task.fn = fn = args = kwargs = context = run = None

        ended = monotonic()
        ran = ended - started
        bucket = bisect_left(BUCKETS, ran) if ran > SHORT else 0
        tally.run_seconds += ran
        # Counted before it is settled: who has the result finds it in stats().
        if error is None and not gate.aborted and task._state == RUNNING:
            tally.run_counts[bucket] += 1
            settled = task.settle(value, None)
            if not settled:  # a deadline or a destroy was faster, and counted it
                tally.spoilt_counts[bucket] += 1
                tally.run_counts[bucket] -= 1
        else:
            tally.spoilt_counts[bucket] += 1
            settled = self._settle_error(task, error)
        if settled and task._done_callbacks:
            task._invoke_callbacks()  # type: ignore[attr-defined]
            ended = monotonic()
        task = error = None  # type: ignore[assignment]  # its traceback knows this frame
        return ended

    def _settle_error(self, task: Future[Any], error: BaseException | None) -> bool:
        """The end of a task that raised, or was aborted whatever it made of that, or is late."""
        gate, tally = self._worker.gate, self._worker.tally
        if task._state != RUNNING:
            return False
        if gate.aborted:
            cause, error = error, TaskAbortedError("the task was stopped while it ran")
            error.__cause__ = cause
            tally.aborted += 1
        else:
            tally.failed += 1
        if task.settle(None, error):
            return True
        if gate.aborted:
            tally.aborted -= 1
        else:
            tally.failed -= 1
        return False

    def _lose(self, task: Future[Any], error: BaseException) -> None:
        """The worker dies of an error that is not the task's: nobody is to wait for it in vain."""
        lost = WorkerLostError("the worker that ran this task died")
        lost.__cause__ = error
        if task.settle(None, lost):
            self._worker.tally.lost += 1
            task._invoke_callbacks()  # type: ignore[attr-defined]

    def _with_own_variables(self, context: Context | None) -> Context | None:
        if context is None and not self._hooks.isolated:
            return None  # they are in the thread's own context, which the task sees
        context = context or Context()
        for variable in self._own_variables:
            context.run(variable.set, self._context[variable])
        return context

    def interrupt(self, task: Any) -> bool:
        """Raise TaskAbort in it. May be asked again while it runs."""
        return self._may_interrupt and self._worker.gate.request_abort(task) is not False

    def kill(self) -> bool:
        """Never: a thread cannot be killed."""
        return False

    def close(self) -> None:
        """Undo @per_worker, the last made first; then the finalizer; then forget what is kept.

        All of them run. Raises a BaseExceptionGroup of what they raised.
        """
        worker, finalizer = self._worker, self._hooks.finalizer
        errors: list[BaseException] = []
        if worker.probe is not None:
            worker.probe.last_words()
        self._undo(errors)
        if finalizer is not None and self._opened:
            try:
                self._context.run(finalizer)
            except BaseException as error:
                errors.append(error)
            self._undo(errors)  # of what the finalizer made
        try:
            worker.clear_cache()
        except BaseException as error:
            errors.append(error)
        if worker.probe is not None:
            worker.probe.close()
            worker.probe = None
        if errors:
            raise BaseExceptionGroup(f"while {worker!r} closed", errors)

    def _undo(self, errors: list[BaseException]) -> None:
        worker = self._worker
        while worker.teardowns:
            try:
                worker.teardowns.pop()()
            except BaseException as error:
                errors.append(error)
        worker.values.clear()
