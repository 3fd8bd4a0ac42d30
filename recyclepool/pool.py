"""RecyclePool: the facade. What it promises stands here; how it keeps that, in the rooms below."""

import itertools
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent import futures
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, Self, TypeVar

from recyclepool import _endings, _processes
from recyclepool._arguments import (
    cache_of,
    callable_of,
    hash_of,
    initargs_of,
    is_isolated,
    max_queue_of,
    max_workers_of,
    min_workers_of,
    name_of,
    new_size_of,
    on_full_of,
    plain_of,
    rules_of,
    schedules_of,
    seconds_of,
    slot_of,
    task_function_of,
    text_of,
    timeout_of,
)
from recyclepool._describe import at_work, describe
from recyclepool._engine import Engine, Settings
from recyclepool._explained import explained
from recyclepool._future import Future, OptionedFuture
from recyclepool._gate import guarded, here
from recyclepool._intake import await_result, await_shutdown, in_order, unordered
from recyclepool._options import Options
from recyclepool.backends import BackendFactory, resolve
from recyclepool.errors import WorkerStartError
from recyclepool.states import PoolState
from recyclepool.units import Duration

if TYPE_CHECKING:
    from recyclepool.events import Event
    from recyclepool.limits import Limits
    from recyclepool.schedule import Schedule
    from recyclepool.snapshots import CloseReport, PoolStats, WorkerStack

__all__ = ["RecyclePool", "dump", "pools"]

P = ParamSpec("P")
T = TypeVar("T")

_numbers = itertools.count(1)
_named: "weakref.WeakValueDictionary[str, RecyclePool]" = weakref.WeakValueDictionary()
_naming = threading.RLock()
_processes.in_forked_child(_naming._at_fork_reinit)  # type: ignore[attr-defined]


class RecyclePool(futures.ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` whose workers stay warm, and are replaced one at a time.

    With no options it behaves as the standard's, but for one thing: a task sees a copy of the
    context variables of the thread that submitted it (``context="worker"`` gives the standard's
    behaviour).

    The first four parameters are the standard's. The others:

    name: unique among the pools of the process; ``pool-1`` and so on when left out.
    backend: what carries the tasks: ``"thread"``, or ``backends.Thread(interrupt=False)``.
    limits: when a worker is replaced: ``Limits(tasks=10_000)``.
    schedule: when all of them are, one by one: ``"0 3 * * *"`` (UTC), ``"@daily"``,
        ``Schedule.cron("0 3 * * *", tz="Europe/Berlin")``; or each at a time of its own:
        ``"every 6h"``; or several of these.
    min_workers: as many are started with the first task or with ``start()``, whatever is queued.
    max_queue: how many tasks may wait in the queue; None: any number.
    on_full: what a submit does when so many wait: ``"block"`` until one is taken, or ``"raise"``
        QueueFullError.
    cache: the byte budget of each worker's cache: an int, or text such as ``"64MiB"``.
    context: whose context variables a task sees: ``"submitter"`` or ``"worker"``.
    finalizer: called without arguments in each worker that was ready, when it goes.

    All methods may be called from any thread. Raises TypeError or ValueError for arguments that
    make no sense; UnitError, a ValueError, for a size that cannot be read.
    """

    @explained
    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        name: str | None = None,
        backend: str | BackendFactory = "thread",
        limits: "Limits | None" = None,
        schedule: "str | Schedule | Sequence[str | Schedule] | None" = None,
        min_workers: int = 0,
        max_queue: int | None = None,
        on_full: Literal["block", "raise"] = "block",
        cache: int | str = "64MiB",
        context: Literal["submitter", "worker"] | None = None,
        finalizer: Callable[[], object] | None = None,
    ) -> None:
        size = max_workers_of(max_workers)
        factory = resolve(backend)
        self._isolated = is_isolated(context, factory)
        settings = Settings(
            name="",
            size=size,
            min_workers=min_workers_of(min_workers, size),
            thread_names=text_of("thread_name_prefix", thread_name_prefix),
            backend=factory,
            isolated=self._isolated,
            rules=rules_of(limits, factory),
            schedules=schedules_of(schedule),
            max_queue=max_queue_of(max_queue),
            on_full=on_full_of(on_full),
            cache=cache_of(cache),
            initializer=callable_of("initializer", initializer),
            initargs=initargs_of(initargs),
            finalizer=callable_of("finalizer", finalizer),
        )
        self._new_task = Future if settings.max_queue is None else OptionedFuture
        guarded(self._take_name, name, settings)
        _processes.watch(self._engine)

    def _take_name(self, wanted: str | None, settings: Settings) -> None:
        """The engine is there before the name is: who finds the pool finds all of it."""
        try:
            _naming.acquire()
            name = _free_name(wanted)
            prefix = settings.thread_names or name
            self._engine = Engine(settings._replace(name=name, thread_names=prefix))
            _named[name] = self
        finally:
            _naming.release()

    def __del__(self) -> None:
        """A pool that nobody holds any more drains and ends: its drivers hold the engine only."""
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.end(engine.dispatch, terminal=True)

    def __reduce__(self) -> Never:
        raise TypeError("a RecyclePool cannot be copied or pickled: make another one")

    # -- tasks ------------------------------------------------------------------------------------

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        """Have ``fn(*args, **kwargs)`` run by a worker; the future stands for its result.

        Raises PoolClosedError while the pool closes and after ``shutdown()``, BrokenRecyclePool
        when its workers cannot be started, WorkerStartError when there is no thread to be had.
        When ``max_queue`` tasks wait it waits too, or raises QueueFullError (``on_full``): always
        in one of the pool's own tasks and on an event loop's thread, which must not wait here.
        """
        # No variables, no context: none is kept for each queued task.
        task = self._new_task(
            fn, args, kwargs, (copy_context() or None) if self._isolated else None
        )
        gate = here.gate
        if gate is not None:
            gate.enter()  # GATE 4
        try:
            dispatch = self._engine.dispatch
            try:
                if not dispatch.put(task):
                    raise self._engine.reject()
            except WorkerStartError:
                if dispatch.take_back(task) or isinstance(task._exception, WorkerStartError):
                    raise
        finally:
            if gate is not None:
                gate.leave()
        return task

    @explained
    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As ``map(fn, *iterables)``, run by the workers: an iterator over the results, in order.

        All is submitted at once; with `buffersize`, as on Python 3.14, no more than that many tasks
        at a time whose results were not yet asked for. `timeout` is seconds from the call, after
        which the next result raises TimeoutError. When one raises, or an iterator that has begun is
        dropped, what is still queued is cancelled. `chunksize` matters to processes only.
        """
        return in_order(self.submit, fn, iterables, timeout, buffersize)

    @explained
    def map_unordered(
        self, fn: Callable[..., T], /, *iterables: Iterable[Any], buffersize: int | None = None
    ) -> Iterator[T]:
        """As ``map()``, with the results as they come: none waits for one that was sent before."""
        return unordered(self.submit, fn, iterables, buffersize)

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """``await pool.run(fn, *args)``: the result of a task, for coroutines.

        A full queue is awaited too (with ``on_full="block"``). When the await is cancelled, a task
        that is queued is cancelled; one that runs goes on, and its result is dropped.
        """
        context = (copy_context() or None) if self._isolated else None
        return await await_result(
            self._engine, self._new_task(task_function_of(fn), args, kwargs, context)
        )

    @explained
    def options(
        self,
        *,
        timeout: Duration | None = None,
        key: Hashable = None,
        name: str | None = None,
        context: Literal["submitter", "worker"] | None = None,
    ) -> Options:
        """A view of the pool whose tasks have options: ``pool.options(timeout="30s").submit(f)``.

        timeout: from the start of the task's run; at it the future has a TaskTimeoutError, and the
            worker is replaced (see ``Limits(task_timeout=)``, which holds as well).
        key: tasks of the same key go to the same worker, if that is idle: its cache is warm for
            them. Else to another one: a key is a preference. Anything that has a hash.
        name: what the task is called in stats, stacks, errors and events.
        context: as the pool's: whose context variables the task sees.
        """
        isolated = self._isolated if context is None else is_isolated(context)
        return Options(
            self, self._engine, timeout_of(timeout), hash_of(key), name_of(name), isolated
        )

    @explained
    def cancel(self, future: futures.Future[Any]) -> bool:
        """Cancel a task, also one that runs in this pool. True: it is cancelled, or was stopped.

        One that runs gets TaskAbortedError at once, and TaskAbort is raised where it is; its worker
        is replaced, and given up if it has not ended after ``Limits(grace=)``. ``future.cancel()``
        stays the standard's: it never stops a task that runs.
        """
        if not isinstance(future, Future):
            raise TypeError(
                f"cancel() takes a future that this pool has made, not {future!r}: "
                f"write cancel(future), with what submit() has returned"
            )
        return future.cancel() or guarded(self._engine.cancel, future)

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> futures.Future[int]:
        """Start ``min_workers`` now, and not with the first task: the warm-up, or the reopening.

        The future is settled with the number of workers that are ready, as soon as ``min_workers``
        are; with PoolClosedError if the pool is closed before, with WorkerStartError if one cannot
        be started.
        """
        return self._engine.start()

    @explained
    def recycle(self, slot: int) -> futures.Future[int]:
        """Replace the worker of a slot. It serves until its successor is ready.

        The future is settled with 1 when the successor serves, with 0 if nobody held the slot; with
        PoolClosedError if the pool is closed before, with WorkerStartError if the successor cannot
        be started (then the old worker serves on, and it is tried again after a while). Raises
        ValueError for a slot that the pool does not have.
        """
        number = slot_of(slot, self._engine.roster.size)
        return self._engine.replace(number, "recycle()")

    def soft_restart(self) -> futures.Future[int]:
        """Replace all workers that are here now, one after the other (``Limits(max_surge=)``).

        Each serves until its successor is ready; no task is lost. The future is settled with the
        number replaced when the last successor serves, and otherwise as that of ``recycle()``. A
        second call while one is under way also covers those who have come since.
        """
        return self._engine.replace(None, "soft_restart()")

    @explained
    def resize(self, max_workers: int) -> None:
        """Have so many workers at most from now on.

        Workers of slots that are no more finish their task and go. Raises ValueError for less than
        1 or than ``min_workers``, PoolClosedError while the pool closes and after ``shutdown()``.
        """
        engine, size = self._engine, new_size_of(max_workers)
        if size < engine.settings.min_workers:
            raise ValueError(
                f"max_workers={size}: the pool keeps min_workers={engine.settings.min_workers}, "
                f"write that or more"
            )
        if engine.roster.state is not PoolState.OPEN:
            raise engine.refusal()
        engine.resize(size)

    @explained
    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until no task is queued and none runs, `timeout` seconds at most. True: so it is.

        From one of the pool's own tasks or callbacks it raises RuntimeError.
        """
        self._refuse_own_task("wait_idle()")
        seconds = seconds_of("timeout", timeout)
        rested = guarded(self._engine.rest)
        try:
            return bool(guarded(rested.wait, seconds))
        finally:
            if not rested.done():
                guarded(self._engine.forget, rested)

    @explained
    def close(self, timeout: float | None = None) -> "CloseReport":
        """Finish everything accepted, then have every worker go and give its memory back.

        Waits for that, `timeout` seconds at most: what is left then is stopped as by ``destroy()``,
        within half a second. Afterwards the pool may be used again: the next ``submit`` or
        ``start`` opens it. Calls that come together join in one operation. From one of the pool's
        own tasks or callbacks it raises RuntimeError: it would wait for itself.
        """
        self._refuse_own_task("close()")
        return _endings.close(self._engine, seconds_of("timeout", timeout))

    @explained
    def destroy(self, grace: float = 1.0) -> "CloseReport":
        """Stop everything now. Afterwards the pool may be used again, as after ``close()``.

        Queued tasks are cancelled; the futures of running ones get TaskAbortedError at once, the
        tasks themselves TaskAbort, raised where they are. A worker whose task has not ended after
        `grace` seconds is given up, and told of in the report with its stack. From one of the
        pool's own tasks or callbacks it raises RuntimeError.
        """
        self._refuse_own_task("destroy()")
        seconds = seconds_of("grace", grace)
        if seconds is None:
            raise TypeError(
                "grace=None: write how many seconds a task may take to stop, such as 1.0"
            )
        return _endings.destroy(self._engine, seconds)

    @explained
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the pool for good, as the standard's does: what was accepted is finished.

        With ``cancel_futures`` what is queued is cancelled instead. With ``wait`` it returns when
        all is done. From one of the pool's own tasks only ``wait=False`` is possible.
        """
        if wait:
            self._refuse_own_task("shutdown(wait=True)")
        _endings.shut_down(self._engine, wait=wait, cancel_queued=cancel_futures)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """As the end of ``with``, which is ``shutdown()``; the event loop runs on meanwhile."""
        self._refuse_own_task("async with")
        await await_shutdown(self._engine)

    def _refuse_own_task(self, verb: str) -> None:
        if here.crew is self._engine:
            raise RuntimeError(
                f"{verb} was called from one of the tasks or callbacks of {self!r}: "
                f"it would wait for itself. Call it from another thread, or shutdown(wait=False)"
            )

    # -- looking ----------------------------------------------------------------------------------

    def stats(self) -> "PoolStats":
        """The pool's figures at this moment. Changes nothing and waits for nothing."""
        from recyclepool._stats import snapshot

        return guarded(snapshot, self._engine)

    def stacks(self) -> "tuple[WorkerStack, ...]":
        """What every worker does now: where its thread is, abandoned ones too. Any thread."""
        from recyclepool._stats import stacks

        return guarded(stacks, self._engine)

    @explained
    def subscribe(self, callback: "Callable[[Event], object]") -> Callable[[], None]:
        """Have callback(event) called with what happens in the pool; returns what ends that.

        Events (``recyclepool.events``) are told in order, on a thread of their own, so a callback
        that is slow or raises harms nobody; what it is too slow for is dropped and counted. The
        same facts are log lines of the logger ``recyclepool``. Raises TypeError if it cannot be
        called. The pool keeps the callback, and so what that refers to; its copy in the child of a
        fork keeps it, too.
        """
        return guarded(self._engine.news.subscribe, plain_of("callback", callback))

    def __repr__(self) -> str:
        what = guarded(describe, self._engine)
        return f"<{type(self).__name__} {self.name!r} {what}>"

    @property
    def name(self) -> str:
        """What it is called in stats and labels: unique among the pools of the process."""
        return self._engine.settings.name

    # What programs read of the standard's to watch it.

    @property
    def _max_workers(self) -> int:  # type: ignore[override]
        return self._engine.roster.size

    @property
    def _threads(self) -> set[threading.Thread]:  # type: ignore[override]
        return {w.thread for w in self._engine.roster.workers.copy() if w.thread is not None}

    @property
    def _work_queue(self) -> "_QueueView":  # type: ignore[override]
        return _QueueView(self._engine)

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]
        return self._engine.roster.broken is not None and str(self._engine.refusal())

    @property
    def _shutdown(self) -> bool:  # type: ignore[override]
        return self._engine.roster.terminal


class _QueueView:
    """What monitors ask of ``_work_queue``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def qsize(self) -> int:
        """How many tasks are queued."""
        return len(self._engine.dispatch.queue)

    def empty(self) -> bool:
        """Is none?"""
        return not self._engine.dispatch.queue


def pools() -> tuple[RecyclePool, ...]:
    """The pools of this process that were not shut down, by name."""
    alive = guarded(named_pools)
    return tuple(pool for _, pool in sorted(alive) if not pool._shutdown)


def dump() -> str:
    """What every pool of the process does now, as text: each worker, its task and its stack.

    Safe in a signal handler: ``signal.signal(SIGUSR1, lambda *_: os.write(2, dump().encode()))``.
    """
    text = "\n".join(f"{pool!r}\n{guarded(at_work, pool._engine)}".rstrip() for pool in pools())
    return text.encode(errors="backslashreplace").decode()  # names of files may not be Unicode


def named_pools() -> "list[tuple[str, RecyclePool]]":
    try:
        _naming.acquire()
        return list(_named.items())
    finally:
        _naming.release()


def _free_name(wanted: str | None) -> str:
    """A name that no other pool has. One that is shut down or gone leaves its own free."""
    if wanted is None:
        return next(name for name in map("pool-{}".format, _numbers) if name not in _named)
    if not (isinstance(wanted, str) and wanted):
        raise TypeError(f"name={wanted!r}: write a word, such as name='images'")
    holder = _named.get(wanted)
    if holder is not None and holder._engine.roster.state is not PoolState.SHUTDOWN:
        ending = "it is still shutting down" if holder._shutdown else "shutdown() that pool"
        raise ValueError(
            f"name={wanted!r} is taken by {holder!r}: names are unique in a process. "
            f"Choose another name, or {ending}"
        )
    return wanted
