"""Tasks with options: a pool's verbs, with something to say about each task."""

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from recyclepool._arguments import (
    task_function_of,
)
from recyclepool._engine import Engine
from recyclepool._explained import explained
from recyclepool._future import OptionedFuture
from recyclepool._gate import guarded
from recyclepool._intake import accept, await_result, in_order, unordered

__all__ = ["Options"]

P = ParamSpec("P")
T = TypeVar("T")


class Options:
    """A pool's verbs for tasks with options: see ``RecyclePool.options``."""

    __slots__ = ("_engine", "_isolated", "_key", "_name", "_pool", "_timeout")

    def __init__(
        self,
        pool: object,
        engine: Engine,
        timeout: float | None,
        key: int | None,
        name: str | None,
        isolated: bool,
    ) -> None:
        self._pool = pool  # kept alive: dropped, it would end
        self._engine = engine
        self._timeout = timeout
        self._key = key
        self._name = name
        self._isolated = isolated

    def _task(self, fn: Callable[..., T], args: Any, kwargs: Any) -> OptionedFuture[T]:
        engine, timeout = self._engine, self._timeout
        context = copy_context() if self._isolated else None
        if not context and engine.settings.isolated:
            context = None  # no variables: it needs none of its own
        if timeout is None:
            return OptionedFuture(fn, args, kwargs, context, self._name)
        return OptionedFuture(fn, args, kwargs, context, self._name, engine.expect, timeout)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        """As the pool's, with these options."""
        return guarded(accept, self._engine, self._task(fn, args, kwargs), self._key)

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
        """As the pool's, each task with these options. `timeout` is for all of them together."""
        return in_order(self.submit, fn, iterables, timeout, buffersize)

    @explained
    def map_unordered(
        self, fn: Callable[..., T], /, *iterables: Iterable[Any], buffersize: int | None = None
    ) -> Iterator[T]:
        """As the pool's, each task with these options."""
        return unordered(self.submit, fn, iterables, buffersize)

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As the pool's, with these options."""
        return await await_result(
            self._engine, self._task(task_function_of(fn), args, kwargs), self._key
        )

    def __repr__(self) -> str:
        options = {"timeout": self._timeout, "name": self._name}
        given = [f"{word}={value!r}" for word, value in options.items() if value is not None]
        given += ["key=..."] if self._key is not None else []
        return f"<Options {' '.join(given) or '(none)'} of {self._pool!r}>"
