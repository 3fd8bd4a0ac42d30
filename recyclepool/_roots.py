"""The roots of a thread worker: what dies with it, as labelled references for a `Pass`."""

import functools
import weakref
from collections.abc import Callable, Iterable
from contextvars import Context
from itertools import islice
from sys import getsizeof
from types import MethodType
from typing import Any

from recyclepool._holders import Holder, Root, shown
from recyclepool._referents import never_enter
from recyclepool._worker import Worker
from recyclepool.cache import WorkerCache

__all__ = ["roots_of"]

# Whoever has one has the pool, and with it all the other workers.
never_enter(Worker)

_NAME_LENGTH = 80


class _Cache(Holder):
    """An entry's key is held by the dict, by the entry, and by tuples in the heap of expiries.

    The entry itself is held by the dict, and by the OrderedDict twice: as a key of its table, and
    in its list. Whoever forgets one of these finds everything held by somebody else.
    """

    def __init__(self, cache: WorkerCache) -> None:
        self._cache = weakref.ref(cache)  # a result may outlive the worker

    def count(self) -> int:
        cache = self._cache()
        return 0 if cache is None else len(cache._entries)

    def size(self) -> int:
        cache = self._cache()
        if cache is None:
            return 0
        return sum(map(getsizeof, (cache._entries, cache._order, cache._expiries)))

    def guarded(self) -> tuple[object, ...]:
        cache = self._cache()
        if cache is None:
            return ()
        return cache, cache._entries, cache._order, cache._expiries

    def reader(self, start: int) -> Callable[[int], list[Any]]:
        cache = self._cache()
        entries = iter(()) if cache is None else islice(cache._entries.values(), start, None)

        def following(n: int) -> list[Any]:
            references: list[Any] = []
            for entry in islice(entries, n):
                references += (entry.key, entry, entry, entry)
            return references

        return following

    def rest(self) -> Iterable[Any]:
        cache = self._cache()
        return () if cache is None else cache._expiries


class _PerWorkerValues(Holder):
    """A value, and the generator that is suspended with it, in whose frame it is: they are one."""

    def __init__(self, worker: Worker) -> None:
        self._values = worker.values
        self._teardowns = worker.teardowns

    def count(self) -> int:
        return len(self._values)

    def size(self) -> int:
        return getsizeof(self._values) + getsizeof(self._teardowns)

    def guarded(self) -> tuple[object, ...]:
        return self._values, self._teardowns, *self._values  # the factories are the program's

    def reader(self, start: int) -> Callable[[int], list[Any]]:
        # Not items(): its iterator keeps the last pair.
        factories = islice(self._values, start, None)
        values = islice(self._values.values(), start, None)

        def following(n: int) -> list[Any]:
            references: list[Any] = []
            for factory in islice(factories, n):
                references += (factory, *islice(values, 1), *self._teardowns_of(id(factory)))
            return references

        return following

    def rest(self) -> Iterable[Any]:
        known = {id(factory) for factory in self._values}
        return [t for t in self._teardowns if _factory_of(t) not in known]

    def name(self, references: list[Any]) -> str:
        name = getattr(references[0], "_name", None)
        return name[:_NAME_LENGTH] if type(name) is str else shown(references[0])

    def _teardowns_of(self, factory: int) -> list[Any]:
        return [t for t in self._teardowns if _factory_of(t) == factory]


def _factory_of(teardown: Any) -> int:
    """The id of the factory whose value it undoes, or 0."""
    if type(teardown) is functools.partial and type(teardown.func) is MethodType:
        return id(teardown.func.__self__)
    return 0


def roots_of(
    worker: Worker,
    thread_locals: Iterable[tuple[object, dict[Any, Any]]] = (),
    context: Context | None = None,
) -> list[Root]:
    """What dies with a thread worker.

    `thread_locals`: pairs of a `threading.local` and its dict in the worker's thread. `context`:
    one that nobody uses but this worker.
    """
    roots = []
    if worker.cache is not None:
        roots.append(Root("cache[{}]", _Cache(worker.cache)))
    if worker.values or worker.teardowns:
        roots.append(Root("@per_worker {}", _PerWorkerValues(worker)))
    roots += [Root("threading.local attribute {}", table) for _, table in thread_locals]
    if context is not None:
        roots.append(Root("context", context))
    return roots
