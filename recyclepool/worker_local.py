"""What a task sees of its worker: ``current_worker()`` and ``@per_worker``."""

import functools
from collections.abc import Callable, Generator, Iterator
from time import monotonic
from typing import Any, Generic, TypeVar, overload

from recyclepool._explained import explained
from recyclepool._gate import Flag, here
from recyclepool._worker import Worker
from recyclepool.cache import WorkerCache
from recyclepool.errors import OutsideWorkerError
from recyclepool.states import Reason

__all__ = ["CurrentWorker", "current_worker", "per_worker"]

T = TypeVar("T")
D = TypeVar("D")

_RAISE: Any = object()
_MISSING: Any = object()
_MAKING: Any = object()


class CurrentWorker:
    """The worker that runs the calling task, initializer or finalizer."""

    __slots__ = ("_crew", "_worker")

    def __init__(self, worker: Worker, crew: Any) -> None:
        self._worker = worker
        self._crew = crew

    @property
    def slot(self) -> int:
        """Its stable place: 0 to max_workers - 1."""
        return self._worker.slot

    @property
    def generation(self) -> int:
        """How many workers have held its slot, with this one: 1 for the first."""
        return self._worker.generation

    @property
    def cache(self) -> WorkerCache:
        """Its own cache, which goes when it goes."""
        worker = self._worker
        if worker.cache is None:
            worker.cache = WorkerCache(worker.budget)
        return worker.cache

    @property
    def stopping(self) -> Flag:
        """Set when it is to go: ``is_set()`` and ``wait(timeout)``, from any thread."""
        return self._worker.stopping

    def heartbeat(self) -> None:
        """Say that the running task is alive: ``Limits(hang=)`` counts from here anew.

        For its own thread and for those that it started. Costs a clock reading.
        """
        self._worker.heartbeat = monotonic()

    def request_recycle(self, why: str = "") -> None:
        """Have this worker replaced after its task, because of `why`: shown in events and the log.

        It is due then: it serves until its successor is ready. Any thread, any number of times.
        """
        if not isinstance(why, str):
            raise TypeError(f"request_recycle({why!r}): write why in words, or leave it out")
        self._crew.request_recycle(self._worker, why or "its task asked for it")

    @property
    def leaving(self) -> Reason | None:
        """Why it is to go, or None: a finalizer learns from it what it is called for."""
        return self._worker.leaving

    def __repr__(self) -> str:
        return f"<CurrentWorker slot {self.slot}, generation {self.generation}>"


@overload
def current_worker() -> CurrentWorker: ...
@overload
def current_worker(default: D) -> CurrentWorker | D: ...
def current_worker(default: Any = _RAISE) -> Any:
    """The worker whose thread this is; outside one `default`, or else OutsideWorkerError."""
    worker = here.worker
    if worker is not None:
        return CurrentWorker(worker, here.crew)
    if default is _RAISE:
        raise OutsideWorkerError(
            "current_worker() was called outside a worker: it is for tasks, initializers and "
            "finalizers of a RecyclePool. current_worker(None) gives None here instead"
        )
    return default


def _is_generator_function(factory: Callable[[], Any]) -> bool:
    import inspect

    return any(map(inspect.isgeneratorfunction, (factory, type(factory).__call__)))


def _refuse_arguments(factory: Callable[[], Any]) -> None:
    """What can never be called without, and what would have to be awaited."""
    import inspect

    name = getattr(factory, "__qualname__", None) or repr(factory)
    if any(map(inspect.iscoroutinefunction, (factory, type(factory).__call__))):
        raise TypeError(
            f"@per_worker {name}() is a coroutine function, which nobody would await: "
            f"write def instead of async def"
        )
    if not inspect.isfunction(factory):
        return
    code, defaults = factory.__code__, factory.__defaults__ or ()
    needed = code.co_varnames[: code.co_argcount - len(defaults)]
    last = code.co_argcount + code.co_kwonlyargcount
    with_default = factory.__kwdefaults__ or {}
    needed += tuple(
        word for word in code.co_varnames[code.co_argcount : last] if word not in with_default
    )
    if needed:
        raise TypeError(
            f"@per_worker {name}() needs {', '.join(needed)}, and is called without arguments: "
            f"write a function without, or with a default for each"
        )


class _PerWorker(Generic[T]):
    """A factory that is called once for each worker."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        functools.update_wrapper(self, factory)
        self._factory = factory
        self._name = getattr(factory, "__qualname__", None) or repr(factory)
        self._is_generator = _is_generator_function(factory)

    def __call__(self) -> T:
        worker = here.worker
        if worker is None:
            raise OutsideWorkerError(
                f"@per_worker {self._name}() was called outside a worker: "
                f"call it in a task of a RecyclePool"
            )
        value = worker.values.get(self, _MISSING)
        if value is _MISSING:
            return self._make(worker)
        if value is _MAKING:
            raise RecursionError(f"@per_worker {self._name}() needs itself")
        made: T = value
        return made

    def _make(self, worker: Worker) -> T:
        worker.values[self] = _MAKING
        try:
            made = self._factory()
            value: T = self._first(made) if self._is_generator else made
        except BaseException:
            worker.values.pop(self, None)
            raise
        worker.values[self] = value
        if self._is_generator:
            worker.teardowns.append(functools.partial(self._finish, made))
        return value

    def _first(self, generator: Generator[T, None, None]) -> T:
        for value in generator:
            return value
        raise RuntimeError(f"@per_worker {self._name}() has no yield")

    def _finish(self, generator: Generator[T, None, None]) -> None:
        """Run what stands after the yield."""
        for _ in generator:
            generator.close()
            raise RuntimeError(f"@per_worker {self._name}() has more than one yield")

    def __repr__(self) -> str:
        return f"<per_worker {self._name}>"


@overload
def per_worker(factory: Callable[[], Generator[T, None, None]]) -> Callable[[], T]: ...
@overload
def per_worker(factory: Callable[[], Iterator[T]]) -> Callable[[], T]: ...
@overload
def per_worker(factory: Callable[[], T]) -> Callable[[], T]: ...
@explained
def per_worker(factory: Callable[[], Any]) -> Callable[[], Any]:
    """Make a factory whose value is kept: made at the first call in each worker, and gone with it.

    As a generator function it yields the value, and what stands after the ``yield`` runs when the
    worker retires (the last made goes first, all before the pool's finalizer). A factory that
    raises is tried again by the next call. Outside a worker a call raises OutsideWorkerError.
    """
    if not callable(factory):
        raise TypeError(
            f"@per_worker needs a function without arguments, not {factory!r}: "
            f"write @per_worker alone, above its def"
        )
    _refuse_arguments(factory)
    return _PerWorker(factory)
