"""What goes into a pass over owned bytes, and what comes out: holders, their entries, shares."""

import gc
from collections.abc import Callable, Iterable
from itertools import islice
from sys import getsizeof
from typing import Any, Final, NamedTuple

from recyclepool.units import format_size

__all__ = ["NOTHING", "Holder", "Owned", "Root", "Share", "shown", "told"]

LONGEST = 40  # characters of a key that are shown
MOST_PARTS = 4  # of a tuple


class Holder:
    """Something that dies with the worker, whoever else refers to it: it has entries."""

    def count(self) -> int:
        """How many entries."""
        raise NotImplementedError  # each kind has its own

    def size(self) -> int:
        """Bytes of its own structures."""
        return 0

    def guarded(self) -> tuple[object, ...]:
        """Objects that are never entered, for they are structures of its own."""
        return ()

    def reader(self, start: int) -> Callable[[int], list[Any]]:
        """A function that gives the references of the next n entries, from that at `start` on.

        Each as often as it is held; those of an entry together. It must not keep any of them.
        """
        raise NotImplementedError  # likewise

    def rest(self) -> Iterable[Any]:
        """References that belong to no entry: a key that they share with one stays that one's."""
        return ()

    def name(self, references: list[Any]) -> str:
        """Of one entry, whose references these are: goes into the name of the root."""
        return shown(references[0])


class _Table(Holder):
    """A dict: each entry is its key and its value."""

    def __init__(self, table: dict[Any, Any]) -> None:
        self._table = table

    def count(self) -> int:
        return len(self._table)

    def size(self) -> int:
        return getsizeof(self._table)

    def guarded(self) -> tuple[object, ...]:
        return (self._table,)

    def reader(self, start: int) -> Callable[[int], list[Any]]:
        # Two iterators: zip() and items() would keep the last pair that they gave.
        keys = islice(self._table, start, None)
        values = islice(self._table.values(), start, None)
        return lambda n: [*islice(keys, n), *islice(values, n)]


class _Object(Holder):
    """Anything else: what it refers to is one entry."""

    def __init__(self, holder: object) -> None:
        self._holder = holder

    def count(self) -> int:
        return 1

    def guarded(self) -> tuple[object, ...]:
        return (self._holder,)

    def reader(self, start: int) -> Callable[[int], list[Any]]:
        return lambda n: gc.get_referents(self._holder)

    def name(self, references: list[Any]) -> str:
        return ""


class Root:
    """A holder and what to call it: `name` has a place for the key of an entry, "cache[{}]".

    The holder is a `Holder`, a dict, or any object, whose references are one entry then.
    """

    __slots__ = ("holder", "name", "start", "stop")

    def __init__(self, name: str, holder: object) -> None:
        self.name = name
        self.holder = _holder_of(holder)
        self.start = 0
        self.stop: int | None = None

    def part(self, start: int, stop: int) -> "Root":
        """Only the entries from `start` to `stop`."""
        part = Root(self.name, self.holder)
        part.start, part.stop = start, stop
        return part

    def title(self, key: str) -> str:
        return self.name.replace("{}", key)

    def __repr__(self) -> str:  # not the holder: it would put the whole cache into a log
        return f"<Root {self.name}>"


def _holder_of(holder: object) -> Holder:
    if issubclass(type(holder), Holder):
        return holder  # type: ignore[return-value]
    return _Table(holder) if type(holder) is dict else _Object(holder)


def shown(key: object) -> str:
    """A key, short; no ``__repr__`` but that of str, bytes and numbers runs."""
    if type(key) is str or type(key) is bytes:
        return repr(key) if len(key) <= LONGEST else f"{key[: LONGEST - 10]!r}..."
    if type(key) is int and key.bit_length() < 128:
        return repr(key)
    if type(key) is float or type(key) is bool or key is None:
        return repr(key)
    if type(key) is tuple and len(key) <= MOST_PARTS:
        parts = [shown(part) if type(part) is not tuple else "(...)" for part in key]
        return f"({', '.join(parts)}{',' * (len(parts) == 1)})"
    name = type.__dict__["__name__"].__get__(type(key))
    return f"<{str.__str__(name)[:LONGEST]}>"


class Share(NamedTuple):
    """Bytes that go when all of these roots go, and not before."""

    names: tuple[str, ...]
    bytes: int
    group: Root | None = None  # many entries that were read as one: see `largest`

    @property
    def title(self) -> str:
        return " + ".join(self.names) or "shared by many roots"

    def __str__(self) -> str:
        return f"{self.title} {format_size(self.bytes)}"

    def __repr__(self) -> str:
        return f"<Share {self}>"


def told(shares: Iterable[tuple[str, int]]) -> str:
    """Titles and bytes, in words: "cache['model'] 310 MiB, cache['a'] 12 B"."""
    return ", ".join(f"{title} {format_size(size)}" for title, size in shares)


class Owned(NamedTuple):
    """What a pass found. Drop it when it is reported: it may know holders with many entries."""

    owned: int  # proven: a recycle frees at least this
    cyclic: int  # the part of `owned` that goes only when the collector runs
    held: int  # met on the way, but somebody else refers to it: it stays
    undecided: int  # containers that were not decided, with all that they reach
    entered: int  # objects opened, in all walks together
    complete: bool  # False: `owned` is no more than a lower bound
    stable: bool  # False: somebody changed the objects meanwhile: read again
    shares: tuple[Share, ...]  # the largest first; they add up to `owned`
    held_by: tuple[Share, ...]  # through which roots it is held, the largest first


NOTHING: Final = Owned(0, 0, 0, 0, 0, False, False, (), ())
