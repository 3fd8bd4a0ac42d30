"""CENSUS: the largest containers that modules and classes hold. No recycle frees those.

It runs when a recycle did not help, on a thread of its own, and looks at foreign objects while
other threads use them. So:

1. No foreign code runs, but readers that were registered: objects are read as a pass reads them
   (`_referents`), modules and classes through the C descriptors of `ModuleType` and `type`. No
   __getattr__ of a lazy module (it would import), no property, no metaclass. Objects and types are
   told apart by id, and `issubclass` is asked of `type(x)`, as `isinstance` asks `x.__class__`.
2. Containers grow meanwhile: those most of all that are looked for. What one refers to is copied
   in one C call, in which no other thread runs. If a step raises all the same, what it was about
   to read is left out.
3. A walk holds what it is going to look at. If that was the last reference, the object is finalised
   here. No walk can avoid that.
4. A container that has a name of its own is not entered from another one: its bytes are its own.
   What two of them share without a name counts for both.
5. Nobody waits for all of what a process holds. A walk that ends early takes the rest of each list
   that it is in for as large, in the mean, as what it saw of it; its steps are spread over a list.
"""

import gc
import logging
import os
import sys
from collections.abc import Mapping
from heapq import nlargest
from itertools import chain, islice
from time import monotonic, thread_time
from types import FrameType, FunctionType, MappingProxyType, ModuleType
from typing import Any, NamedTuple

from recyclepool._referents import (
    ATOM,
    CHUNK,
    SLOW_CHUNK,
    STOP,
    Unread,
    dict_of_module,
    dict_of_type,
    entries_of,
    form_of,
    is_of_program,
    read,
    read_slowly,
    take,
)

__all__ = ["Container", "largest_containers"]

SECONDS = 0.3  # of CPU, for the largest of them together
PATIENCE = 5.0  # seconds for all of them, in which a reader may wait
MOST_OBJECTS = 300_000  # that are looked at for one of them
REACH = 1_000_000  # entries of a container, from which a sample is taken in one C call
FIRST_STEPS = 8
FOLLOWED = 10  # walks that go on after those
LEAST_BLOCK = 2**16  # bytes from which on a text or an array at module level counts as well
DEEPEST = 3  # classes within classes
FUTURES = "recyclepool._future"


class Container(NamedTuple):
    """One of the largest: ``package.module.NAME`` or ``package.module.Class.NAME``."""

    name: str
    bytes: int
    is_estimate: bool  # by a part of it; or something of it could not be read


def largest_containers(
    count: int = 3, seconds: float = SECONDS, also: Mapping[str, Any] = MappingProxyType({})
) -> list[Container]:
    """The containers at module and class level that reach the most bytes, the largest first.

    Also functions that keep something (in a closure, a default, an attribute, an lru_cache),
    instances, single objects of 64 KiB or more, the handlers of loggers, and `also`: what is to be
    weighed by these names. Not what the standard library and this package have. It takes some steps
    for each, then about `seconds` of this thread's CPU for the largest. Who was not done then, or
    had too many objects, is estimated. Other threads run meanwhile. Never raises; the thread is the
    pool's own.
    """
    census = _Census()
    try:
        census.gather()
        census.walks += [_Walk(name, value) for name, value in also.items()]
        census.run(seconds)
    except BaseException:  # no memory, most likely: what is known by then is told
        pass
    found = [walk.reading() for walk in census.walks if walk.size]
    return sorted(found, key=lambda container: (-container.bytes, container.name))[:count]


class _Level:
    """A long list that a walk is in. What is left of it is estimated by what it took (CENSUS 5)."""

    __slots__ = ("_length", "_marks", "_now", "_total", "at", "parts")

    def __init__(self, at: int, parts: list[Any], total: int, size: int) -> None:
        self.at = at  # in the sources
        self.parts = parts  # that are left
        self._length = len(parts)
        self._total = total  # of what it was copied from
        # How many were looked at with all that they reach, and how large that was: as their number
        # doubled, and now.
        self._now = (0, size)
        self._marks = [self._now]

    def note(self, size: int) -> None:
        """All that was taken is done."""
        seen = self._length - len(self.parts)
        self._now = (seen, size)
        if seen >= 2 * self._marks[-1][0]:
            self._marks.append(self._now)

    def estimate(self, size: int) -> int:
        """Of the walk, when this is done; `size` with what is under way."""
        seen, done = self._now
        # What many share is met early, and once: the later ones tell what one more takes.
        before, then = next(m for m in reversed(self._marks) if m[0] <= seen / 2)
        if seen > before:
            return int(done + (done - then) / (seen - before) * (self._total - seen))
        taken = self._length - len(self.parts)
        return int(then + (size - then) * self._total / taken) if taken else size


class _Walk:
    """What can be reached from one container, a step at a time."""

    __slots__ = ("_levels", "_totals", "is_estimate", "name", "own", "seen", "size", "sources")

    def __init__(self, name: str, root: Any) -> None:
        self.name = name
        self.own = {id(root)}
        self.size = 0
        self.seen: set[int] = set()
        self.sources: list[Any] = [[root]]
        self.is_estimate = False
        self._levels: list[_Level] = []
        self._totals: dict[int, int] = {}  # of lists that are samples, by their ids

    def reading(self) -> Container:
        self._end()
        return Container(self.name, self.size, self.is_estimate)

    def go_on(self, borders: set[int]) -> bool:
        """Look at some objects. False: that was all."""
        sources = self.sources
        rest = len(sources) - 1
        try:
            unread = sources[-1]
            if type(unread) is Unread:
                entries = sum(map(entries_of, unread[-SLOW_CHUNK:]))
                self.size += read_slowly(sources)
                self._copy(rest + bool(unread), entries)
            else:
                self._note_level()
                self._look_at(take(sources), borders)
        except BaseException:  # what a reader raises, too
            self.is_estimate = True
            del sources[rest:]
        if len(self.seen) > MOST_OBJECTS:
            self._end()
        if not sources:
            self.seen.clear()
        return bool(sources)

    def _note_level(self) -> None:
        sources, levels = self.sources, self._levels
        at, top = len(sources) - 1, sources[-1]
        while levels and (levels[-1].at > at or sources[levels[-1].at] is not levels[-1].parts):
            levels.pop()  # that is done
        if levels and levels[-1].at == at:
            levels[-1].note(self.size)
        elif len(top) > CHUNK:
            levels.append(_Level(at, top, self._totals.pop(id(top), len(top)), self.size))

    def estimate(self) -> int:
        """What there is, by what was seen (CENSUS 5)."""
        size = self.size
        if self.sources:
            self._note_level()
            for level in reversed(self._levels):  # each is within the one before
                size = level.estimate(size)
        return size

    def _end(self) -> None:
        if self.sources:
            self.size = self.estimate()
            self.is_estimate = True
            self.sources.clear()

    def _look_at(self, part: list[Any], borders: set[int]) -> None:
        new = dict(zip(map(id, part), part, strict=True))
        passed = self.seen.intersection(new) | borders.intersection(new) - self.own
        objects = [o for i, o in new.items() if i not in passed] if passed else list(new.values())
        self.seen.update(new)
        kinds = dict(zip(map(id, map(type, objects)), map(type, objects), strict=True))
        if away := {i for i, kind in kinds.items() if _leads_away(kind)}:
            objects = [o for o in objects if id(type(o)) not in away]
        if closed := {i for i, kind in kinds.items() if _is_closed(kind)}:
            self._enter([o for o in objects if id(type(o)) in closed])
            objects = [o for o in objects if id(type(o)) not in closed]
        known = len(self.sources)
        self.size += read(objects, self.sources)
        if all(isinstance(source, list) for source in self.sources[known:]):
            self._copy(known, 0)
            return
        forms: dict[int, list[Any]] = {}
        for o in objects:
            forms.setdefault(form_of(o), []).append(o)
        for alike in forms.values():  # again: now it is known of which each source is
            del self.sources[known:]
            read(alike, self.sources, weigh=False)
            self._copy(known, sum(map(entries_of, alike)))
            known = len(self.sources)

    def _copy(self, known: int, entries: int) -> None:
        """What is new in the sources, each with so many entries, may change (CENSUS 2)."""
        new = self.sources[known:]
        del self.sources[known:]
        self.sources += [source for source in new if type(source) is Unread]
        new = [source for source in new if type(source) is not Unread]
        total = entries * len(new)
        # More of them than are looked at: so the walk ends in that list, and estimates the rest.
        step = min(total, REACH) // (MOST_OBJECTS + 2 * CHUNK) or 1
        parts = [list(islice(source, 0, REACH, step)) for source in new]
        references = list(chain.from_iterable(parts))
        # Each step is to see some of all of it, as of the keys and the values.
        steps = len(references) // CHUNK + 1
        spread = list(chain.from_iterable(references[first::steps] for first in range(steps)))
        if spread:
            self.sources.append(spread)
        if total > len(spread):
            self._totals[id(spread)] = total
            self.is_estimate = True

    def _enter(self, objects: list[Any]) -> None:
        """But not what is around functions, and the frames of tracebacks."""
        around = {id(names) for o in objects for names in _around(o)}
        self.sources.append([o for o in gc.get_referents(*objects) if id(o) not in around])
        # Not of those that a class of the program may size, nor of frames with object's method.
        self.size += sum(sys.getsizeof(o) for o in objects if type(o) in (FunctionType, FrameType))


class _Census:
    def __init__(self) -> None:
        self.walks: list[_Walk] = []
        self._borders: set[int] = set()  # what has a name of its own, and the modules' dicts
        self._classes: set[int] = set()

    def gather(self) -> None:
        """Find the containers. One that has several names has the first, best guess first."""
        modules = _modules()
        self._borders.update(id(names) for _, names in modules)
        own = [module for module in modules if not _is_skipped(*module)]
        for name, names in sorted(own, key=_is_likely_importer):
            try:
                self._gather(name, name, dict.copy(names), DEEPEST)
            except Exception:  # it changes just now: then without the rest of it
                pass
        try:
            self._gather_handlers()
        except Exception:  # as above
            pass

    def _gather_handlers(self) -> None:
        """A handler is mostly known to its logger alone."""
        loggers = logging.root.manager.loggerDict.copy()
        loggers.pop("recyclepool", None)
        for name, logger in {"": logging.root, **loggers}.items():
            for handler in vars(logger).get("handlers", ()):
                if id(handler) not in self._borders:
                    self._borders.add(id(handler))
                    self.walks.append(_Walk(f"a handler of logging.getLogger({name!r})", handler))

    def _gather(self, prefix: str, module: str, names: dict[Any, Any], depth: int) -> None:
        for name, value in names.items():
            if type(name) is not str or (name.startswith("__") and name.endswith("__")):
                continue
            if issubclass(type(value), type):
                inside = dict_of_type(value)
                home = inside.get("__module__")
                new = id(value) not in self._classes
                if depth and new and type(home) is str and home == module:
                    self._classes.add(id(value))
                    self._gather(f"{prefix}.{name}", module, inside.copy(), depth - 1)
            elif id(value) not in self._borders and _may_hold(value):
                self._borders.add(id(value))
                self.walks.append(_Walk(f"{prefix}.{name}", value))

    def run(self, seconds: float) -> None:
        """First some steps of each, which show mostly all that there is; then the largest go on.

        By turns, so that a huge one does not hide the others.
        """
        borders, end = self._borders, monotonic() + PATIENCE
        ahead = [
            walk
            for walk in self.walks
            if all(monotonic() < end and walk.go_on(borders) for _ in range(FIRST_STEPS))
        ]
        ahead = nlargest(FOLLOWED, ahead, key=_Walk.estimate)
        deadline = thread_time() + seconds
        while ahead and thread_time() < deadline and monotonic() < end:
            ahead = [walk for walk in ahead if thread_time() >= deadline or walk.go_on(borders)]


def _modules() -> list[tuple[str, dict[str, Any]]]:
    """The modules that are real ones, and their names. None is asked for an attribute."""
    known: Any = sys.modules
    if not issubclass(type(known), dict):
        return []
    modules = []
    for name, module in dict.copy(known).items():
        if type(name) is str and issubclass(type(module), ModuleType):
            names = dict_of_module(module)
            if type(names) is dict:
                modules.append((name, names))
    return modules


def _is_skipped(module: str, names: dict[str, Any]) -> bool:
    top = module.partition(".")[0]
    if top == "recyclepool" or top.startswith("_sysconfigdata"):
        return True
    return top in sys.stdlib_module_names and _is_standard(_get(names, "__file__"))


def _is_standard(file: Any) -> bool:
    """A program may have a `profile` of its own."""
    if type(file) is not str:
        return True
    inside = file.removeprefix(os.path.dirname(os.__file__) + os.sep)
    return inside != file and not inside.startswith("site-packages")


def _get(names: dict[str, Any], name: str) -> Any:
    """One of them, by identity: no foreign key's __eq__ runs."""
    return next((value for key, value in names.copy().items() if key is name), None)


def _is_likely_importer(module: tuple[str, dict[str, Any]]) -> int:
    """Programs import from modules, and packages from what is in them: the others first."""
    name, names = module
    main = name in ("__main__", "__mp_main__")
    return 2 if main else int(_get(names, "__path__") is not None)


def _may_hold(value: Any) -> bool:
    kind = type(value)
    if _leads_away(kind):
        return False
    if kind is FunctionType:
        return _keeps(value)
    if form_of(value) == STOP:
        return is_of_program(kind)
    return form_of(value) != ATOM or read([value], []) >= LEAST_BLOCK


def _keeps(function: Any) -> bool:
    """In its closure, its defaults, its attributes."""
    around = {id(names) for names in _around(function)}
    for part in gc.get_referents(function):
        if type(part) is dict and id(part) not in around:
            part = tuple(part.copy().values())
        if type(part) is tuple and any(form_of(entry) not in (ATOM, STOP) for entry in part):
            return True
    return False


def _around(o: Any) -> tuple[Any, ...]:
    """What the code of a function or a frame sees, and does not keep."""
    kind = type(o)
    if kind is FunctionType:
        return o.__globals__, o.__builtins__
    return (o.f_globals, o.f_builtins, o.f_back) if kind is FrameType else ()


def _is_closed(kind: type) -> bool:
    """A pass does not enter those, or not so."""
    return kind is FunctionType or kind is FrameType or is_of_program(kind)


def _leads_away(kind: type) -> bool:
    """Objects of this package, but futures, lead to what its workers own."""
    module = dict_of_type(kind).get("__module__")
    return type(module) is str and module.partition(".")[0] == "recyclepool" and module != FUTURES
