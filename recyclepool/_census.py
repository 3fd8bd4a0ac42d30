"""CENSUS: the largest containers that modules and classes hold. No recycle frees those.

It runs when a recycle did not help, on a thread of its own, and looks at foreign objects while
other threads use them. So:

1. No foreign code runs, but readers that were registered: objects are read as a pass reads them
   (`_referents`), modules and classes through the C descriptors of `ModuleType` and `type`. No
   __getattr__ of a lazy module (it would import), no property, no metaclass. Objects and types are
   told apart by id, and `issubclass` is asked of `type(x)`, as `isinstance` asks `x.__class__`.
2. Containers grow meanwhile: those most of all that are looked for. What one refers to is copied
   in one C call, in which no other thread runs. If a step raises all the same, what it was about
   to read is left out: the reading is a lower bound from then on.
3. A walk holds what it is going to look at. If that was the last reference, the object is finalised
   here. No walk can avoid that.
4. A container that has a name of its own is not entered from another one: its bytes are its own.
   What two of them share without a name counts for both.
"""

import gc
import operator
import sys
from itertools import islice, repeat
from time import monotonic, thread_time
from types import FrameType, FunctionType, ModuleType, TracebackType
from typing import Any, NamedTuple

from recyclepool._referents import (
    ATOM,
    STOP,
    Unread,
    dict_of_module,
    dict_of_type,
    form_of,
    read,
    read_slowly,
    take,
)

__all__ = ["Container", "largest_containers"]

SECONDS = 0.4  # of CPU, for all of them together
PATIENCE = 5.0  # seconds for all of them, in which a reader may wait
MOST_OBJECTS = 300_000  # that are looked at for one of them
FIRST_STEPS = 8
LEAST_BLOCK = 2**16  # bytes from which on a text or an array at module level counts as well
DEEPEST = 3  # classes within classes


class Container(NamedTuple):
    """One of the largest: ``package.module.NAME`` or ``package.module.Class.NAME``."""

    name: str
    bytes: int
    is_lower_bound: bool


def largest_containers(count: int = 3, seconds: float = SECONDS) -> list[Container]:
    """The containers at module and class level that reach the most bytes, the largest first.

    Also functions that keep something (a cache in a closure, an lru_cache), instances, and single
    objects of 64 KiB or more. Not what the standard library and this package have. It takes about
    `seconds` of this thread's CPU; who was not done then, or had too many objects, is a lower
    bound. Other threads run meanwhile. Never raises; the thread is the pool's own.
    """
    census = _Census()
    try:
        census.gather()
        census.run(seconds)
    except BaseException:  # no memory, most likely: what is known by then is told
        pass
    found = [walk.reading() for walk in census.walks if walk.size]
    return sorted(found, key=lambda container: (-container.bytes, container.name))[:count]


class _Walk:
    """What can be reached from one container, a step at a time."""

    __slots__ = ("is_lower_bound", "name", "own", "seen", "size", "sources")

    def __init__(self, name: str, root: Any) -> None:
        self.name = name
        self.own = {id(root)}
        self.size = 0
        self.seen: set[int] = set()
        self.sources: list[Any] = [[root]]
        self.is_lower_bound = False

    def reading(self) -> Container:
        return Container(self.name, self.size, self.is_lower_bound or bool(self.sources))

    def go_on(self, borders: set[int]) -> bool:
        """Look at some objects. False: that was all."""
        sources = self.sources
        rest = len(sources) - 1
        try:
            if type(sources[-1]) is Unread:
                self.size += read_slowly(sources)
                self._copy(rest)
            else:
                self._look_at(take(sources), borders)
        except BaseException:  # what a reader raises, too
            self.is_lower_bound = True
            del sources[rest:]
        if len(self.seen) > MOST_OBJECTS:
            self.is_lower_bound = True
            sources.clear()
        if not sources:
            self.seen.clear()
        return bool(sources)

    def _look_at(self, part: list[Any], borders: set[int]) -> None:
        new = dict(zip(map(id, part), part, strict=True))
        passed = self.seen.intersection(new) | borders.intersection(new) - self.own
        objects = [o for i, o in new.items() if i not in passed] if passed else list(new.values())
        self.seen.update(new)
        kinds = dict(zip(map(id, map(type, objects)), map(type, objects), strict=True))
        if away := {i for i, kind in kinds.items() if _leads_away(kind)}:
            objects = [o for o in objects if id(type(o)) not in away]
        if id(FunctionType) in kinds:
            objects = self._enter_functions(objects)
        known = len(self.sources)
        self.size += read(objects, self.sources)
        self._copy(known)

    def _copy(self, known: int) -> None:
        """What is new in the sources refers to containers that may change (CENSUS 2)."""
        for at, source in enumerate(self.sources[known:], known):
            if not isinstance(source, list):
                copied = self.sources[at] = list(islice(source, MOST_OBJECTS))
                self.is_lower_bound |= len(copied) == MOST_OBJECTS

    def _enter_functions(self, objects: list[Any]) -> list[Any]:
        """But not what is around them. Returns the other objects."""
        functions: list[Any] = [o for o in objects if type(o) is FunctionType]
        around = {id(names) for f in functions for names in (f.__globals__, f.__builtins__)}
        self.sources.append([o for o in gc.get_referents(*functions) if id(o) not in around])
        self.size += sum(map(sys.getsizeof, functions))
        return [o for o in objects if type(o) is not FunctionType]


class _Census:
    def __init__(self) -> None:
        self.walks: list[_Walk] = []
        self._borders: set[int] = set()  # what has a name of its own, and the modules' dicts
        self._classes: set[int] = set()

    def gather(self) -> None:
        """Find the containers. One that has several names has the first, best guess first."""
        modules = _modules()
        self._borders.update(id(names) for _, names in modules)
        own = [(name, names) for name, names in modules if not _is_skipped(name)]
        for name, names in sorted(own, key=_is_likely_importer):
            try:
                self._gather(name, name, dict.copy(names), DEEPEST)
            except Exception:  # it changes just now: then without the rest of it
                pass

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
        """All by turns, so that a huge one does not hide the rest. The first turn is whole.

        The first steps show the entries of the container, and mostly all that it reaches.
        """
        borders, began, end = self._borders, thread_time(), monotonic() + PATIENCE
        ahead = [
            walk
            for walk in self.walks
            if all(monotonic() < end and walk.go_on(borders) for _ in range(FIRST_STEPS))
        ]

        def is_over() -> bool:
            return thread_time() - began >= seconds or monotonic() >= end

        while ahead and not is_over():
            ahead = [walk for walk in ahead if is_over() or walk.go_on(borders)]


def _modules() -> list[tuple[str, dict[str, Any]]]:
    """The modules that are real ones, and their names. None is asked for an attribute."""
    known: Any = sys.modules
    if not issubclass(type(known), dict):
        return []
    modules = []
    for name, module in dict.copy(known).items():
        if type(name) is str and issubclass(type(module), ModuleType):
            names = dict_of_module(module)
            if issubclass(type(names), dict):
                modules.append((name, names))
    return modules


def _is_skipped(module: str) -> bool:
    top = module.partition(".")[0]
    own = top == "recyclepool" or top.startswith("_sysconfigdata")
    return own or top in sys.stdlib_module_names


def _is_likely_importer(module: tuple[str, dict[str, Any]]) -> int:
    """Programs import from modules, and packages from what is in them: the others first."""
    name, names = module
    if name in ("__main__", "__mp_main__"):
        return 2
    return int(any(map(operator.is_, names, repeat("__path__"))))  # no foreign key's __eq__ runs


def _may_hold(value: Any) -> bool:
    if form_of(value) == STOP or _leads_away(type(value)):
        return False
    if type(value) is FunctionType:
        return value.__closure__ is not None
    return form_of(value) != ATOM or read([value], []) >= LEAST_BLOCK


def _leads_away(kind: type) -> bool:
    """Frames lead to everything; objects of this package to what its workers own."""
    module = dict_of_type(kind).get("__module__")
    ours = type(module) is str and module.partition(".")[0] == "recyclepool"
    return ours or kind is FrameType or kind is TracebackType
