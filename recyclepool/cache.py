"""A worker's cache: a budget in bytes, a time to live, and a count of why entries went."""

import sys
import time
from collections import OrderedDict, abc
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from recyclepool.units import Duration, Size, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from recyclepool.snapshots import CacheStats

__all__ = ["EvictionCause", "WorkerCache"]

# Why an entry went: for room, its time was up, another was put in its place, it was taken out, the
# worker was over its memory limit.
EvictionCause = Literal["size", "ttl", "replaced", "deleted", "memory"]
_NO_EVICTIONS: dict[str, int] = dict.fromkeys(get_args(EvictionCause), 0)
_REQUIRED: Any = object()


class _Entry:
    __slots__ = ("expires", "key", "size", "value")

    def __init__(self, key: Hashable, value: Any, size: int, expires: float | None) -> None:
        self.key = key
        self.value = value
        self.size = size
        self.expires = expires


class WorkerCache(MutableMapping[Hashable, Any]):
    """A mapping that holds at most `budget` bytes and forgets the least recently used first.

    Getting a value (`cache[key]`, `get`, `setdefault`, `pop`) counts as use, and as a hit or a
    miss; `in`, `len` and iteration do not. An entry whose time is up is a miss and goes away.
    `items()` and `values()` are copies. It belongs to one thread, its worker's: others may call
    only `stats()`, `maxsize`, `currsize` and `repr`. Values may use it in their `__del__`.
    `budget` (then `maxsize`) is bytes, or text for parse_size, which raises UnitError.
    """

    # A value's __del__ may use the cache in the middle of any method (the collector picks the
    # moment; a key's __hash__ is one). So the books are sums, right in any order; who takes an
    # entry out of _entries, in one call, books it out, and only then lets go of its value. _order
    # has entries as keys, so that no foreign code runs within its calls.

    def __init__(self, budget: Size, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.maxsize: Final = parse_size(budget, name="budget")
        self._clock = clock
        self._entries: dict[Hashable, _Entry] = {}
        self._order: OrderedDict[_Entry, None] = OrderedDict()  # least recently used first
        # A heap of (when, a number so that keys are never compared, key). Keys may have gone since.
        self._expiries: list[tuple[float, int, Hashable]] = []
        self._numbers = count()
        self._bytes = self._hits = self._misses = 0
        self._evictions = _NO_EVICTIONS.copy()

    @property
    def currsize(self) -> int:
        """The bytes that the entries count for."""
        return self._bytes

    def stats(self) -> "CacheStats":
        """The figures now. Any thread, at any time; nothing in the cache changes.

        Each figure is one atomic read: a plain int, a `len`, a copy of a dict of ints whose keys
        never change. In use they may be a step apart, and `bytes` above `budget` for a moment.
        """
        from recyclepool.snapshots import CacheStats

        entries, held, causes = len(self._entries), self._bytes, self._evictions.copy()
        return CacheStats(entries, held, self.maxsize, self._hits, self._misses, causes)

    def put(
        self, key: Hashable, value: Any, *, size: Size | None = None, ttl: Duration | None = None
    ) -> None:
        """Store `value` under `key` and make room for it.

        `size` is bytes, or text for parse_size; without it, for now, `sys.getsizeof(value)`: what a
        container holds is not counted. `ttl` is seconds, or text for parse_duration.

        Raises ValueError if it is larger than the budget. What was under `key` has gone then too: a
        cache must not answer with what was to be replaced. UnitError: `size` or `ttl` is unclear.
        """
        held = sys.getsizeof(value) if size is None else parse_size(size, name="size")
        expires = None if ttl is None else self._clock() + parse_duration(ttl, name="ttl")
        self._expire()
        if held > self.maxsize:
            self._remove(key, "replaced")
            raise ValueError(f"{format_size(held)} do not fit into {format_size(self.maxsize)}")
        entry = _Entry(key, value, held, expires)
        # An assignment could overwrite, unbooked, what a __del__ has put here since.
        while self._entries.setdefault(key, entry) is not entry:
            self._remove(key, "replaced")
        self._order[entry] = None
        if self._entries.get(key) is not entry:
            self._order.pop(entry, None)  # a __del__ took it out before it was in _order
        self._bytes += held
        if expires is not None:
            heappush(self._expiries, (expires, next(self._numbers), key))
        with suppress(KeyError):  # a __del__ may empty it first
            while self._bytes > self.maxsize:
                self._remove_oldest("size")

    __setitem__ = put

    def __getitem__(self, key: Hashable) -> Any:
        entry = self._find(key)
        if entry is None:
            self._misses += 1
            raise KeyError(key)
        self._order.move_to_end(entry)  # KeyError, rightly, if a __del__ removed it just now
        self._hits += 1
        return entry.value

    def __delitem__(self, key: Hashable) -> None:
        if self._find(key) is None:
            raise KeyError(key)
        self._remove(key, "deleted")

    def pop(self, key: Hashable, default: Any = _REQUIRED) -> Any:
        """Take the value of `key` out. Without it: `default`, or KeyError if none was given."""
        try:
            value = self[key]
        except KeyError:
            if default is _REQUIRED:
                raise
            return default
        self._remove(key, "deleted")
        return value

    def popitem(self) -> tuple[Hashable, Any]:
        """Take out the least recently used entry: its key and value. KeyError if there is none."""
        self._expire()
        entry = self._remove_oldest("deleted")
        return entry.key, entry.value

    def trim(self, size: Size) -> None:
        """Let go of the least recently used until the rest counts for `size` bytes or less."""
        most = parse_size(size, name="size")
        self._expire()
        with suppress(KeyError):  # a __del__ may empty it first
            while self._bytes > most:
                self._remove_oldest("memory")

    def clear(self) -> None:
        """Let go of all entries. The counts stay."""
        for key in self:
            self._remove(key, "deleted")

    def __contains__(self, key: Any) -> bool:
        return self._find(key) is not None

    def __len__(self) -> int:
        self._expire()
        return len(self._entries)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(dict(self.items()))

    def items(self) -> abc.ItemsView[Hashable, Any]:
        self._expire()
        return {entry.key: entry.value for entry in list(self._order)}.items()

    def values(self) -> abc.ValuesView[Any]:
        return dict(self.items()).values()

    def __repr__(self) -> str:
        held, room = format_size(self._bytes), format_size(self.maxsize)
        return f"<WorkerCache: {len(self._entries)} entries, {held} of {room}>"

    def _find(self, key: Hashable) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None or entry.expires is None or entry.expires > self._clock():
            return entry
        self._remove(key, "ttl")
        return None

    def _expire(self) -> None:
        if len(self._expiries) > 2 * len(self._entries) + 64:
            self._expiries = []  # most were of entries that have gone: begin anew
            for entry in list(self._order):
                if entry.expires is not None:
                    heappush(self._expiries, (entry.expires, next(self._numbers), entry.key))
        now = self._clock() if self._expiries else 0.0
        while self._expiries and self._expiries[0][0] <= now:
            self._find(heappop(self._expiries)[2])  # lets go of it, if it is still there

    def _remove(self, key: Hashable, cause: EvictionCause) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._order.pop(entry, None)
            self._bytes -= entry.size
            self._evictions[cause] += 1

    def _remove_oldest(self, cause: EvictionCause) -> _Entry:
        entry, _ = self._order.popitem(last=False)
        self._remove(entry.key, cause)
        return entry
