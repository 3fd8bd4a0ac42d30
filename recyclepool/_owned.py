"""What the recycle of a thread worker frees, and which of its roots hold it: proven by counts.

A *root* dies with the worker, or is cleared by it: its cache, its @per_worker values, its
thread-locals, its context. What they reach is not what a recycle frees, for a module or a caller
may hold it, too. An object is **owned** if every reference to it comes from a root or from an
owned object. We cannot see all references to an object, but its count has them all:

    references that owned objects hold == sys.getrefcount(object) - our own

PROVE  From the roots down. An object with one reference is owned by whoever showed it; most are,
       and nothing is remembered of them. Of another one a record counts the references seen until
       it has them all. What somebody else holds is never entered, so this cannot run away into the
       program, and what was counted so far is at any moment a proven lower bound.
DECIDE Only where containers are left: a child that points back at its parent keeps the parent's
       count from filling up. Take all that is left for owned and count the references inside, as
       the cycle collector does. Who has others is held from outside, and so is what it reaches.
       The rest is owned, and goes when the collector runs.

Rules that hold everywhere in this file:

OWNED 1  A count is asked only while nothing of ours refers to the object, but its record or the one
         list that it was taken from. What these add was measured with the very same expressions.
OWNED 2  `!=`, never `>`: a count that is too low means that a reference was shown which does not
         exist. Such an object is not trusted.
OWNED 3  No step is longer than CHUNK references: nothing is copied, sorted or freed in one go that
         may be large.
OWNED 4  The generator that works refers to its _Walk and the _Walk to nothing above it, so that a
         Pass that is dropped half-way frees all records at once, without the collector.
OWNED 5  If somebody lets go of a cycle while we are in it, each of its objects has one reference,
         and we would go round for ever. We hold some of those that we entered, until the walk ends:
         who comes back to one of them finds a count that is higher, and that the data changed.
"""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import compress, count
from sys import getrefcount
from types import ModuleType
from typing import Any, Final

from recyclepool._holders import NOTHING, Holder, Owned, Root, Share
from recyclepool._referents import (
    ATOM,
    CHUNK,
    STOP,
    Unread,
    dict_of_module,
    form_of,
    read,
    read_slowly,
    take,
)

__all__ = ["SUPPORTED", "Holder", "Owned", "Pass", "Root", "Share", "largest"]

# A free-threaded build splits its counts and defers some: nothing can be proven with them.
SUPPORTED: Final = sys.implementation.name == "cpython" and "free-threading" not in sys.version

IMMORTAL = 1 << 29  # no real count is as high: None, small ints, from 3.12 on interned strings
SEPARATE = 256  # a holder with more entries is read in so many groups
SAMPLED = 64  # of so many steps, one is remembered: OWNED 5
SHARERS = 4  # what hangs on more roots than this is "shared by many roots"
MANY = 0  # the label of that

UNDECIDED, ASSUMED, HELD, PROVEN = range(4)

Visit = Callable[["_Record", int], bool]


# -- the pass --------------------------------------------------------------------------------------


class Pass:
    """One reading of one worker, whose thread must not run a task meanwhile.

    `budget`: objects to open in each phase. `enough`: stop as soon as so many bytes are proven.
    `cycles`: whether to decide what is undecided, too. One thread at a time.
    """

    __slots__ = ("__weakref__", "_result", "_steps")

    def __init__(
        self,
        roots: Iterable[Root],
        budget: int | None = None,
        enough: int | None = None,
        cycles: bool = True,
    ) -> None:
        self._result: Owned | None = None if SUPPORTED else NOTHING
        self._steps: Iterator[Owned | None] = _Walk(list(roots), budget, enough).steps(cycles)

    def run(self, seconds: float | None = None) -> Owned | None:
        """Go on for so long, or to the end: what it found, or None as long as it is not done.

        It raises no exception but those that are raised in the thread from outside, such as
        KeyboardInterrupt. Then, and after close(), what it gives is neither complete nor stable.
        """
        if self._result is not None:
            return self._result
        until = None if seconds is None else time.perf_counter() + seconds
        try:
            for result in self._steps:
                if result is not None:
                    self._result = result
                    self.close()
                    return result
                if until is not None and time.perf_counter() >= until:
                    return None
        except Exception:  # not even a result could be made: out of memory
            pass
        self.close()
        self._result = NOTHING
        return NOTHING

    def close(self) -> None:
        """Let go of everything, done or not."""
        self._steps = iter(())


def largest(result: Owned, count: int = 3) -> list[Share]:
    """The `count` largest shares, the largest first.

    Of a holder that was read in groups, those that outweigh the others are read once more, entry by
    entry; the rest is named as a whole.
    """
    shares: list[Share] = []
    groups: dict[int, list[Share]] = {}
    for share in result.shares:
        if share.group is None:
            shares.append(share)
        else:
            groups.setdefault(id(share.group.holder), []).append(share)
    for alike in groups.values():
        shares += _regrouped(alike, count)
    return sorted(shares, key=lambda share: -share.bytes)[:count]


def _regrouped(groups: list[Share], count: int) -> list[Share]:
    whole = sum(share.bytes for share in groups)
    entries: list[Share] = []
    for share in groups[:count]:
        if share.group is not None and share.bytes > 2 * whole / len(groups):
            again = Pass([share.group], budget=1_000_000).run()
            shares = again.shares if again is not None else ()
            entries += [s for s in shares if share.bytes / 2 < s.bytes <= share.bytes]
    left = whole - sum(share.bytes for share in entries)
    root = groups[0].group
    if root is None or left <= 0:
        return entries
    return [*entries, Share((f"{root.title('...')} ({root.holder.count()} entries)",), left)]


# -- the walk --------------------------------------------------------------------------------------


class _Record:
    """What is remembered of an object with several references."""

    __slots__ = ("assumed", "form", "label", "object", "seen", "state")

    def __init__(self, o: object, form: int) -> None:
        self.object = o  # its id so stays its own
        self.form = form
        self.state = UNDECIDED
        self.seen = 0  # references that owned objects hold
        self.assumed = 0  # references of objects that are taken for owned
        self.label = -1  # of the roots that all have to go first


_ours = 0


def _references(record: _Record) -> int:
    return getrefcount(record.object) - _ours


# What we add to a count ourselves.
_ours = _references(_Record(object(), ATOM))
_SINGLE = next(iter(map(getrefcount, [object()]))) + 1
_is_single = _SINGLE.__eq__


class _Enough(Exception):
    """The budget is spent, or as much is proven as was asked for."""


class _Walk:
    """The work of a Pass."""

    def __init__(self, roots: list[Root], budget: int | None, enough: int | None) -> None:
        self._roots = roots
        self._budget = sys.maxsize if budget is None else budget
        self._enough = sys.maxsize if enough is None else enough
        self._sources: list[Any] = []
        # By the MiB that the object is in: one dict of millions would stop us when it grows.
        self._records: defaultdict[int, dict[int, _Record]] = defaultdict(dict)
        self._guard = {id(o) for root in roots for o in root.holder.guarded()}
        # A label is a set of roots, known by its number. Only numbers are compared.
        self._titles: list[tuple[str, Root | None]] = [("", None)]
        self._labels: list[frozenset[int]] = [frozenset()]
        self._numbers: dict[frozenset[int], int] = {}
        self._unions: dict[tuple[int, int], int] = {}
        self._weak: set[int] = set()  # labels of structures: what an entry shares is the entry's
        self._label = MANY  # where the walk comes from
        self._owned: Counter[int] = Counter()
        self._held: Counter[int] = Counter()
        self._later: dict[int, list[Any]] = {}  # label -> owned objects, not yet entered
        self._entered = self._proven = 0
        self._samples: list[Any] = []
        self._looped = False

    def steps(self, cycles: bool) -> Iterator[Owned | None]:
        """None after each step; the result, and that is the end."""
        complete = stable = True
        acyclic = None
        decided = False
        try:
            yield from self._prove()
            acyclic = self._proven
            if cycles:
                yield from self._decide()
                decided = True
        except _Enough:
            complete = False
        except Exception:  # "changed size during iteration", out of memory, or somebody's lie
            complete = stable = False
        self._sources.clear()
        self._later.clear()
        self._samples.clear()
        stable = stable and not self._looped
        undecided = 0
        while self._records:
            _, shard = self._records.popitem()
            while shard:
                records = [shard.popitem()[1] for _ in range(min(CHUNK, len(shard)))]
                undecided += self._left(records, decided)
                stable = stable and all(map(_is_steady, records))
                del records
                yield None
        cyclic = 0 if acyclic is None else self._proven - acyclic
        shares, held_by = self._shares(self._owned), self._shares(self._held)
        figures = (self._proven, cyclic, self._held.total(), undecided, self._entered)
        yield Owned(*figures, complete and not undecided, stable, shares, held_by)

    def _left(self, records: list[_Record], decided: bool) -> int:
        """How many of them are undecided. An atom is held then: it cannot be part of a cycle."""
        open_ones = [r for r in records if r.state in (UNDECIDED, ASSUMED) and r.form != STOP]
        atoms: dict[int, list[Any]] = {}
        for record in open_ones:
            if record.form == ATOM:
                atoms.setdefault(max(record.label, MANY), []).append(record.object)
        for label, objects in atoms.items():
            self._held[label] += read(objects, [])
        return 0 if decided else sum(r.form != ATOM for r in open_ones)

    def _shares(self, account: "Counter[int]") -> tuple[Share, ...]:
        shares = []
        for label, size in account.most_common():
            titles = [self._titles[i] for i in sorted(self._labels[label])]
            group = titles[0][1] if len(titles) == 1 else None
            shares.append(Share(tuple(title for title, _ in titles), size, group))
        return tuple(shares)

    # -- prove

    def _prove(self) -> Iterator[None]:
        for root in self._roots:
            for _ in self._entries(root):
                yield from self._follow(self._count, self._owned)
        while self._later:
            self._label, objects = self._later.popitem()
            while objects:
                self._enter(objects[-CHUNK:], self._owned)
                del objects[-CHUNK:]
                yield from self._follow(self._count, self._owned)

    def _entries(self, root: Root) -> Iterator[None]:
        """Puts the references of some entries with the same label on the stack, again and again.

        They are held by nothing else here (OWNED 1).
        """
        holder, sources = root.holder, self._sources
        entries = holder.count()
        stop = entries if root.stop is None else min(entries, root.stop)
        group = -(-(stop - root.start) // SEPARATE)
        following = holder.reader(root.start)
        for first in range(root.start, stop, max(group, 1)):
            last = min(first + group, stop)
            if group > 1:
                title = f"{root.title('...')} ({last - first} entries)"
                self._label = self._new_label(title, root.part(first, last))
            for n in range(first, last, CHUNK):
                sources.append(following(min(CHUNK, last - n)))
                if group == 1:
                    self._label = self._new_label(root.title(holder.name(sources[-1])))
                yield
        if root.stop is None:
            self._label = self._new_label(f"{root.title('...')} itself")
            self._weak.add(self._label)
            self._credit(self._owned, holder.size())
            sources.append(iter(holder.rest()))
            yield

    def _count(self, record: _Record, times: int) -> bool:
        """More references from owned objects: are these all that there are?"""
        record.seen += times
        record.label = label = self._union(record.label, self._label)
        if record.form == STOP or _references(record) != record.seen:
            return False
        key = id(record.object)
        del self._records[key >> 20][key]  # it cannot turn up again
        if label == self._label:
            return True
        self._later.setdefault(label, []).append(record.object)
        return False

    def _new_label(self, title: str, group: Root | None = None) -> int:
        roots = frozenset((len(self._titles),))
        self._titles.append((title, group))
        return self._number(roots)

    def _number(self, roots: frozenset[int]) -> int:
        if len(roots) > SHARERS:
            return MANY
        number = self._numbers.get(roots)
        if number is None:
            number = self._numbers[roots] = len(self._labels)
            self._labels.append(roots)
        return number

    def _union(self, a: int, b: int) -> int:
        if a == b or a < 0 or a in self._weak:
            return b
        if b in self._weak:
            return a
        if a == MANY or b == MANY:
            return MANY
        union = self._unions.get((a, b))
        if union is None:
            union = self._unions[a, b] = self._number(self._labels[a] | self._labels[b])
        return union

    # -- decide

    def _decide(self) -> Iterator[None]:
        heads: list[_Record] = []
        for shard in list(self._records.values()):
            heads += [r for r in shard.values() if r.form not in (STOP, ATOM)]
            yield
        if not heads:
            return
        for guarded in _of_modules():
            self._guard.add(guarded)
            if record := self._records.get(guarded >> 20, {}).get(guarded):
                record.form = STOP  # the first phase met it: no visit takes it now
        self._budget += self._entered
        yield from self._walk(heads, self._assume, None)
        self._budget = self._enough = sys.maxsize  # what follows costs no more than that did
        assumed: list[_Record] = []
        for shard in list(self._records.values()):
            assumed += [r for r in shard.values() if r.state == ASSUMED]
            yield
        outside: list[_Record] = []
        for n in range(0, len(assumed), CHUNK):
            part = assumed[n : n + CHUNK]
            outside += [r for r in part if _references(r) != r.seen + r.assumed]
            yield
        del assumed
        yield from self._walk(outside, self._hold, self._held)
        yield from self._walk(heads, self._confirm, self._owned)

    def _walk(
        self, records: list[_Record], visit: Visit, account: "Counter[int] | None"
    ) -> Iterator[None]:
        """Enter those that `visit` takes, and what it takes of the rest.

        What roots share within cycles goes to the first one.
        """
        for n in range(0, len(records), CHUNK):
            by_label: dict[int, list[_Record]] = {}
            for record in records[n : n + CHUNK]:
                by_label.setdefault(max(record.label, MANY), []).append(record)
            for label, alike in by_label.items():
                self._label = label
                self._enter([r.object for r in alike if visit(r, 0)], account)
                yield from self._follow(visit, account)

    def _assume(self, record: _Record, times: int) -> bool:
        record.assumed += times
        if record.state != UNDECIDED or record.form in (STOP, ATOM):
            return False
        record.state = ASSUMED
        if record.label < 0:
            record.label = self._label
        return True

    def _hold(self, record: _Record, times: int) -> bool:
        if record.form == STOP or record.state not in (UNDECIDED, ASSUMED):
            return False
        record.state = HELD
        return True

    def _confirm(self, record: _Record, times: int) -> bool:
        record.seen += times
        if times:
            record.label = self._union(record.label, self._label)
        if record.form == ATOM:
            if record.state != UNDECIDED or _references(record) != record.seen:
                return False
        elif record.state != ASSUMED:
            return False
        record.state = PROVEN
        return True

    # -- what both share

    def _follow(self, visit: Visit, account: "Counter[int] | None") -> Iterator[None]:
        """Enter what the references lead to: at once where it is the only one, else if `visit` says
        so."""
        sources = self._sources
        for step in count():
            if not sources:
                break
            if type(sources[-1]) is Unread:
                self._credit(account, read_slowly(sources))
            else:
                self._enter(self._chosen(visit, step % SAMPLED == 0), account)
            if self._entered > self._budget or self._proven >= self._enough:
                raise _Enough
            yield
        records = self._records
        self._looped |= any(id(o) in records.get(id(o) >> 20, ()) for o in self._samples)
        self._samples.clear()

    def _chosen(self, visit: Visit, sample: bool) -> list[Any]:
        part = take(self._sources)
        counts = list(map(getrefcount, part))
        singles = list(compress(part, map(_is_single, counts)))
        if sample:
            self._samples += singles  # OWNED 5
        if len(singles) == len(part):
            return part
        found = self._find(part, counts)
        # One more reference than the list's is real. Without any, a reader made it just now.
        del part  # OWNED 1
        singles += [record.object for record, times in found if visit(record, times)]
        return singles

    def _find(self, part: list[Any], counts: list[int]) -> list[tuple[_Record, int]]:
        """Those that have several references, and how many of these are in `part`."""
        several = [o for o, n in zip(part, counts, strict=True) if _SINGLE < n < IMMORTAL]
        objects = dict(zip(map(id, several), several, strict=True))
        found = []
        for key, times in Counter(map(id, several)).items():
            shard = self._records[key >> 20]
            record = shard.get(key)
            if record is None:
                o = objects[key]
                record = _Record(o, STOP if key in self._guard else form_of(o))
                shard[key] = record
            found.append((record, times))
        return found

    def _enter(self, objects: list[Any], account: "Counter[int] | None") -> None:
        if objects:
            self._entered += len(objects)
            self._credit(account, read(objects, self._sources, account is not None))

    def _credit(self, account: "Counter[int] | None", size: int) -> None:
        if account is not None:
            account[self._label] += size
            if account is self._owned:
                self._proven += size


def _is_steady(record: _Record) -> bool:
    """The references to what was proven in cycles were counted twice: are they the same?"""
    return record.state != PROVEN or _references(record) == record.seen


def _of_modules() -> set[int]:
    """The ids of the dicts of all modules: every function refers to one.

    The first phase needs no such guard, for what the program holds is never entered. Without it
    the second would go from any function through the whole program.
    """
    modules = list(sys.modules.values())
    ids = {id(dict_of_module(module)) for module in modules if issubclass(type(module), ModuleType)}
    return ids | {id(sys.modules)}
