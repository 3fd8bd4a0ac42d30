"""CENSUS: the largest containers that modules and classes hold. No recycle frees those.

It runs when a recycle did not help, on a thread of its own, and looks at foreign objects while
other threads use them. So:

1. No foreign code runs. Attributes are read through the C descriptors of `type`, `ModuleType` and
   the containers: no __getattr__ of a lazy module (it would import), no property, no metaclass, no
   __len__, __iter__, __hash__, __eq__ or __sizeof__ of a subclass. Objects and types are told
   apart by id, and `issubclass` is asked of `type(x)`, as `isinstance` would ask `x.__class__`.
2. What changes meanwhile costs an exception within one step of one walk, whose reading is a lower
   bound from then on.
3. A walk holds what it is about to look at, for a moment. If that was the last reference, the
   object is finalised here. No walk can avoid that.
4. A container that has a name of its own is not entered from another one: its bytes are its own.
   What two of them share without a name counts for both.
"""

import gc
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from threading import Thread, local
from time import thread_time
from types import (
    CodeType,
    FrameType,
    FunctionType,
    MethodDescriptorType,
    ModuleType,
    TracebackType,
)
from typing import Any, NamedTuple

__all__ = ["Container", "largest_containers"]

SECONDS = 0.4  # of CPU, for all of them together
MOST_OBJECTS = 300_000  # that are looked at for one of them
STEP = 512  # objects that are taken at a time
FIRST_STEPS = 8
LARGE = 4096  # entries; longer ones are read bit by bit, so that the GIL is not held for long
LEAST_BLOCK = 2**16  # bytes from which on a text or an array at module level counts as well
DEEPEST = 3  # classes within classes
GC_HEADER = 16
TRACKED = 1 << 14  # the flag of types whose objects the collector knows: they may hold others

# C descriptors, and what they read of any module or type (CENSUS 1).
_dict_of_module: Any = vars(ModuleType)["__dict__"].__get__
_dict_of_type: Any = vars(type)["__dict__"].__get__
_bases_of: Any = vars(type)["__mro__"].__get__
_flags_of: Any = vars(type)["__flags__"].__get__

# These lead to everything, or belong to one thread.
_NEVER: tuple[type, ...] = (ModuleType, type, CodeType, FrameType, TracebackType, Thread, local)
_SEQUENCES: tuple[Any, ...] = (list, tuple, set, frozenset, deque)


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
    bound. Other threads run meanwhile. Never raises.
    """
    census = _Census()
    try:
        census.gather()
        census.run(thread_time() + seconds)
    except Exception:  # no memory, most likely: what is known by then is told
        pass
    found = [walk.reading() for walk in census.walks if walk.size]
    return sorted(found, key=lambda container: (-container.bytes, container.name))[:count]


class _Kind:
    """What is done with the objects of one type. It holds the type, so that its id stays its."""

    __slots__ = ("base", "is_tracked", "size_of", "type")

    def __init__(self, kind: type, base: Any, ndarray: type | None) -> None:
        self.type = kind
        self.base = base  # dict, a sequence type, FunctionType, ndarray; None: any other
        self.is_tracked = bool(_flags_of(kind) & TRACKED) or base is ndarray is not None
        self.size_of = _size_of(kind)


class _Kinds:
    """The kinds by the id of their type; None: its objects are never looked at."""

    def __init__(self) -> None:
        self._known: dict[int, _Kind | None] = {}
        self._skipped: list[type] = []
        self.ndarray = self._type_in("numpy", "ndarray")
        logger = self._type_in("logging", "Logger")
        self._never = _NEVER if logger is None else (*_NEVER, logger)

    def of(self, kind: type) -> _Kind | None:
        try:
            return self._known[id(kind)]
        except KeyError:
            pass
        if issubclass(kind, self._never) or _is_ours(kind):
            self._skipped.append(kind)  # alive as long as its id is known
            found = None
        else:
            found = _Kind(kind, self._base(kind), self.ndarray)
        self._known[id(kind)] = found
        return found

    def _base(self, kind: type) -> Any:
        bases = (dict, *_SEQUENCES, FunctionType, *filter(None, (self.ndarray,)))
        return next((base for base in bases if issubclass(kind, base)), None)

    def _type_in(self, module: str, name: str) -> type | None:
        """A type of a module, if that is imported."""
        found = dict.get(dict(_modules()).get(module, {}), name)
        return found if type(found) is type else None


class _Walk:
    """What can be reached from one container, a step at a time."""

    __slots__ = ("ahead", "is_lower_bound", "name", "root", "seen", "size")

    def __init__(self, name: str, root: Any) -> None:
        self.name = name
        self.root = id(root)
        self.size = 0
        self.seen: set[int] = set()
        self.ahead: list[Iterator[Any]] = [iter((root,))]
        self.is_lower_bound = False

    def reading(self) -> Container:
        return Container(self.name, self.size, self.is_lower_bound or bool(self.ahead))

    def go_on(self, kinds: _Kinds, borders: set[int]) -> bool:
        """Look at some objects. False: that was all."""
        part: list[Any] = []
        try:
            part += islice(self.ahead[-1], STEP)
        except Exception:  # it changed meanwhile (CENSUS 2)
            self.is_lower_bound = True
        if len(part) < STEP:
            self.ahead.pop()
        try:
            self._look_at(part, kinds, borders)
        except Exception:
            self.is_lower_bound = True
        if len(self.seen) > MOST_OBJECTS:
            self.is_lower_bound = True
            self.ahead.clear()
        if not self.ahead:
            self.seen.clear()
        return bool(self.ahead)

    def _look_at(self, part: list[Any], kinds: _Kinds, borders: set[int]) -> None:
        seen, tracked, more = self.seen, [], []  # type: ignore[var-annotated]
        for thing in part:
            key = id(thing)
            if key in seen or (key in borders and key != self.root):
                continue
            kind = kinds.of(type(thing))
            if kind is None:
                continue
            seen.add(key)
            self.size += kind.size_of(thing)
            if not kind.is_tracked:
                continue
            if kind.base is None:
                tracked.append(thing)
            else:
                self._enter(thing, kind.base, tracked, more)
        if tracked:
            more += gc.get_referents(*tracked)
        if more:
            self.ahead.append(iter(more))

    def _enter(self, thing: Any, base: Any, tracked: list[Any], more: list[Any]) -> None:
        """Its referents: into one of the lists, or ahead if there are many."""
        if base is FunctionType:
            around = (thing.__globals__, thing.__builtins__)
            more += [one for one in gc.get_referents(thing) if not any(one is x for x in around)]
        elif base is dict:
            if dict.__len__(thing) > LARGE:
                self.ahead += [iter(dict.keys(thing)), iter(dict.values(thing))]
            else:
                more += dict.keys(thing)  # get_referents does not show keys that are all str
                tracked.append(thing)
        elif base not in _SEQUENCES:
            self._enter_array(thing, base, more)
        elif base.__len__(thing) > LARGE:
            self.ahead.append(base.__iter__(thing))
        else:
            tracked.append(thing)

    def _enter_array(self, array: Any, ndarray: type, more: list[Any]) -> None:
        """numpy shows the collector neither whose memory a view uses nor an array's objects."""
        names = _dict_of_type(ndarray)
        more.append(names["base"].__get__(array))
        if names["dtype"].__get__(array).kind == "O":
            self.ahead.append(iter(names["flat"].__get__(array)))


class _Census:
    def __init__(self) -> None:
        self.walks: list[_Walk] = []
        self._kinds = _Kinds()
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
                inside = _dict_of_type(value)
                home = inside.get("__module__")
                new = id(value) not in self._classes
                if depth and new and type(home) is str and home == module:
                    self._classes.add(id(value))
                    self._gather(f"{prefix}.{name}", module, inside.copy(), depth - 1)
            elif id(value) not in self._borders and self._may_hold(value):
                self._borders.add(id(value))
                self.walks.append(_Walk(f"{prefix}.{name}", value))

    def _may_hold(self, value: Any) -> bool:
        kind = self._kinds.of(type(value))
        if kind is None:
            return False
        if kind.base is FunctionType:
            return value.__closure__ is not None
        return kind.is_tracked or kind.size_of(value) >= LEAST_BLOCK

    def run(self, deadline: float) -> None:
        """All by turns, so that a huge one does not hide the rest. The first turn is whole.

        The first steps show the entries of the container, and mostly all that it reaches.
        """
        kinds, borders = self._kinds, self._borders
        ahead = [
            walk
            for walk in self.walks
            if all(walk.go_on(kinds, borders) for _ in range(FIRST_STEPS))
        ]
        while ahead and thread_time() < deadline:
            ahead = [
                walk for walk in ahead if thread_time() >= deadline or walk.go_on(kinds, borders)
            ]


def _modules() -> list[tuple[str, dict[str, Any]]]:
    """The modules that are real ones, and their names. None is asked for an attribute."""
    known: Any = sys.modules
    if not issubclass(type(known), dict):
        return []
    modules = []
    for name, module in dict.copy(known).items():
        if type(name) is str and issubclass(type(module), ModuleType):
            names = _dict_of_module(module)
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
    return 2 if name in ("__main__", "__mp_main__") else int(dict.__contains__(names, "__path__"))


def _is_ours(kind: type) -> bool:
    """Is it a class of this package? Its pools hold what their workers own."""
    module = _dict_of_type(kind).get("__module__")
    return type(module) is str and module.partition(".")[0] == "recyclepool"


def _size_of(kind: type) -> Any:
    """What weighs the objects of a type; a __sizeof__ that is written in Python is left out."""
    ways = [_dict_of_type(base).get("__sizeof__") for base in _bases_of(kind)]
    ways = [way for way in ways if way is not None]
    in_c = next(way for way in ways if type(way) is MethodDescriptorType)  # object has one
    if in_c is ways[0]:
        return sys.getsizeof
    return lambda thing: in_c(thing) + GC_HEADER
