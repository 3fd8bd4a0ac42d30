"""RecyclePool: the facade. What it promises stands here; how it keeps that, in the rooms below."""

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent import futures
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, TypeVar

from recyclepool import _endings
from recyclepool._engine import Engine, Settings
from recyclepool._future import Future
from recyclepool._gate import guarded, here
from recyclepool.backends import BackendFactory, resolve
from recyclepool.errors import UnitError, WorkerStartError
from recyclepool.states import PoolState
from recyclepool.units import parse_size

if TYPE_CHECKING:
    from recyclepool.events import CloseReport, PoolStats
    from recyclepool.limits import Limits

__all__ = ["RecyclePool", "pools"]

P = ParamSpec("P")
T = TypeVar("T")

_numbers = itertools.count(1)
_named: "weakref.WeakValueDictionary[str, RecyclePool]" = weakref.WeakValueDictionary()
_naming = threading.RLock()


class RecyclePool(futures.ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` whose workers stay warm, and are replaced one at a time.

    With no options it behaves as the standard's, but for one thing: a task sees a copy of the
    context variables of the thread that submitted it (``context="worker"`` gives the standard's
    behaviour).

    The first four parameters are the standard's. The others:

    name: unique among the pools of the process; ``pool-1`` and so on when left out.
    backend: what carries the tasks: ``"thread"``, or ``backends.Thread(interrupt=False)``.
    limits: when a worker is replaced: ``Limits(tasks=10_000)``.
    min_workers: as many are started with the first task or with ``start()``, whatever is queued.
    cache: the byte budget of each worker's cache: an int, or text such as ``"64MiB"``.
    context: whose context variables a task sees: ``"submitter"`` or ``"worker"``.
    finalizer: called without arguments in each worker that was ready, when it goes.

    All methods may be called from any thread. Raises TypeError or ValueError for arguments that
    make no sense; UnitError, a ValueError, for a size that cannot be read.
    """

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
        min_workers: int = 0,
        cache: int | str = "64MiB",
        context: Literal["submitter", "worker"] | None = None,
        finalizer: Callable[[], object] | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise TypeError(_unknown_keyword(next(iter(unknown))))
        size = _max_workers(max_workers)
        factory = resolve(backend)
        self._isolated = _context(context, factory)
        settings = Settings(
            name="",
            size=size,
            min_workers=_min_workers(min_workers, size),
            thread_names=_text("thread_name_prefix", thread_name_prefix),
            backend=factory,
            isolated=self._isolated,
            limits=_limits(limits),
            cache=_cache(cache),
            initializer=_callable("initializer", initializer),
            initargs=_initargs(initargs),
            finalizer=_callable("finalizer", finalizer),
        )
        guarded(self._take_name, name, settings)
        _endings.end_at_exit(self._engine)

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
        """
        # No variables, no context: none is kept for each queued task.
        task = Future(fn, args, kwargs, (copy_context() or None) if self._isolated else None)
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

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> futures.Future[int]:
        """Start ``min_workers`` now, and not with the first task: the warm-up, or the reopening.

        The future is settled with the number of workers that serve as soon as ``min_workers`` do;
        with PoolClosedError if the pool is closed before, with WorkerStartError if one cannot be
        started.
        """
        return guarded(self._engine.start)

    def close(self, timeout: float | None = None) -> "CloseReport":
        """Finish everything accepted, then have every worker go and give its memory back.

        Waits for that, `timeout` seconds at most: what is left then is stopped as by ``destroy()``,
        within half a second. Afterwards the pool may be used again: the next ``submit`` or
        ``start`` opens it. Calls that come together join in one operation. From one of the pool's
        own tasks or callbacks it raises RuntimeError: it would wait for itself.
        """
        self._refuse_own_task("close()")
        return _endings.close(self._engine, _seconds("timeout", timeout))

    def destroy(self, grace: float = 1.0) -> "CloseReport":
        """Stop everything now. Afterwards the pool may be used again, as after ``close()``.

        Queued tasks are cancelled; the futures of running ones get TaskAbortedError at once, the
        tasks themselves TaskAbort, raised where they are. A worker whose task has not ended after
        `grace` seconds is given up, and told of in the report with its stack. From one of the
        pool's own tasks or callbacks it raises RuntimeError.
        """
        self._refuse_own_task("destroy()")
        seconds = _seconds("grace", grace)
        if seconds is None:
            raise TypeError(
                "grace=None: write how many seconds a task may take to stop, such as 1.0"
            )
        return _endings.destroy(self._engine, seconds)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the pool for good, as the standard's does: what was accepted is finished.

        With ``cancel_futures`` what is queued is cancelled instead. With ``wait`` it returns when
        all is done. From one of the pool's own tasks only ``wait=False`` is possible.
        """
        if wait:
            self._refuse_own_task("shutdown(wait=True)")
        _endings.shut_down(self._engine, wait=wait, cancel_queued=cancel_futures)

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

    def __repr__(self) -> str:
        from recyclepool._stats import describe

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
    alive = guarded(_named_pools)
    return tuple(pool for _, pool in sorted(alive) if not pool._shutdown)


def _named_pools() -> "list[tuple[str, RecyclePool]]":
    try:
        _naming.acquire()
        return list(_named.items())
    finally:
        _naming.release()


# -- arguments ------------------------------------------------------------------------------------


def _unknown_keyword(word: str) -> str:
    import difflib
    import inspect

    parameters = inspect.signature(RecyclePool.__init__).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
    likeness = {name: difflib.SequenceMatcher(None, word, name).ratio() for name in known}
    best = max(likeness.values())
    close = [repr(name) for name in known if likeness[name] == best and best > 0.6]
    hint = f"did you mean {' or '.join(close)}?" if close else "known are " + ", ".join(known)
    return f"RecyclePool() has no parameter {word!r}: {hint}"


def _whole_number(name: str, value: Any, example: str) -> int:
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name}={value!r}: write a whole number, such as {name}={example}")
    return int(value.__index__())


def _max_workers(value: int | None) -> int:
    if value is None:  # the standard's number
        return min(32, (getattr(os, "process_cpu_count", os.cpu_count)() or 1) + 4)
    digits = value if isinstance(value, str) and value.isdigit() else "4"
    size = _whole_number("max_workers", value, digits)
    if size <= 0:
        raise ValueError(
            f"max_workers must be greater than 0, and is {size}: "
            f"write 1 or more, or leave it out for the standard's number"
        )
    return size


def _min_workers(value: int, size: int) -> int:
    least = _whole_number("min_workers", value, "1")
    if not 0 <= least <= size:
        raise ValueError(f"min_workers={least}: write 0 to max_workers, which is {size}")
    return least


def _limits(value: "Limits | None") -> "Limits | None":
    if value is None:
        return None
    from recyclepool.limits import Limits

    if not isinstance(value, Limits):
        raise TypeError(
            f"limits={value!r}: write limits=Limits(tasks=10_000), with recyclepool's Limits, "
            f"or None"
        )
    return value


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: write text, such as {name}='worker'")
    return value


def _callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(
            f"{name} must be a callable, and is {value!r}: write the function's name, without ()"
        )
    return value


def _initargs(value: Iterable[Any]) -> tuple[Any, ...]:
    try:
        return tuple(value)
    except TypeError:
        raise TypeError(
            f"initargs={value!r}: write a tuple, such as initargs=({value!r},)"
        ) from None


def _cache(value: int | str) -> int:
    if value is None:
        raise UnitError('cache=None: write 0 for no cache, or a size such as "64MiB"')
    return parse_size(value, name="cache")


def _context(value: str | None, backend: BackendFactory) -> bool:
    """Does a task see its submitter's context variables?"""
    if value is None:
        return backend.shares_objects
    if value not in ("submitter", "worker"):
        raise ValueError(f'context={value!r}: write "submitter" or "worker", or None')
    return value == "submitter"


def _seconds(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise TypeError(f"{name}={value!r}: write seconds as a number, such as {name}=5.0")
    return max(0.0, min(value, threading.TIMEOUT_MAX))


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
