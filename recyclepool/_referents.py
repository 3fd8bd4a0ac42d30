"""What there is to know about a type: which references its objects hold, and what they weigh.

Nothing here runs Python code of the objects that are read. A class may lie about its
``__class__``, its metaclass may raise in ``__hash__`` or ``__getattribute__``, ``__len__`` and
``__iter__`` of a subclass may do anything. So types are known by their id, and their parts are
read with the descriptors of `type` itself; containers are read with the methods of the builtin
that they derive from. Only a reader that was registered may run code of its own, and it is not
trusted: what it raises or returns cannot break a pass.

A reference that is missed here makes an object look held by somebody else: the reading is then too
small. It is too large only where a reference is shown that does not exist.
"""

import builtins
import functools
import gc
import operator
import sys
import threading
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from io import BytesIO
from itertools import chain, islice, repeat
from sys import getsizeof
from typing import Any

from recyclepool._readers import BUILTIN, BY_NAME, BYTES_TWICE, Reader

__all__ = [
    "ATOM",
    "CHUNK",
    "SLOW_CHUNK",
    "STOP",
    "Reader",
    "Unread",
    "dict_of_module",
    "dict_of_type",
    "entries_of",
    "form_of",
    "is_of_program",
    "never_enter",
    "read",
    "read_slowly",
    "register",
    "take",
]

Sources = list[Any]  # lists and iterators of references, and Unread objects

CHUNK = 512  # references in a step: enough for the speed of C, short enough for slices of 1 ms
SLOW_CHUNK = 64  # objects in a step that are read one by one
LARGE = 8 * CHUNK  # what holds more references is read piece by piece
MOST = 1_000_000  # references that a registered reader may show of one object
MOST_BYTES = 1 << 48

# How an object is read.
STOP, ATOM, PLAIN, INSTANCE, SEQUENCE, TABLE, SUBCLASS, BY_READER = range(8)

_HAVE_GC, _HEAP_TYPE, _MANAGED_DICT, _INLINE_VALUES = 1 << 14, 1 << 9, 1 << 4, 1 << 2
_SINCE_13 = sys.version_info >= (3, 13)
_SINCE_14 = sys.version_info >= (3, 14)

# The parts of a type as `type` knows them, whatever its metaclass says; a module's dict likewise.
_mro_of = type.__dict__["__mro__"].__get__
dict_of_type: Any = type.__dict__["__dict__"].__get__
_flags_of = type.__dict__["__flags__"].__get__
_name_of = type.__dict__["__name__"].__get__
_module_of = type.__dict__["__module__"].__get__
dict_of_module: Any = vars(types.ModuleType)["__dict__"].__get__


class Unread(list[Any]):
    """On the stack: objects that are to be read one by one, not references to be counted."""

    __slots__ = ()


class Kind:
    """What is known of one type."""

    __slots__ = ("alive", "base", "extra", "form", "reader", "sizeof", "slots", "trusted")

    def __init__(self, form: int) -> None:
        self.form = form
        self.reader: Reader | None = None
        self.trusted = True  # the reader is ours: it may give an iterator
        self.base: Any = None  # the builtin container that it derives from
        self.sizeof: Any = None  # instead of getsizeof(), where that would run Python code
        self.extra = 0  # bytes of each object that the above leaves out
        self.slots = 0  # of an INSTANCE
        self.alive: Any = None


# The keys are ids: a metaclass may define __hash__. A type that dies takes its entry along.
_kinds: dict[int, Kind] = {}
_readers: dict[int, tuple[type, Reader, bool]] = {id(t): (t, read, True) for t, read in BUILTIN}
_never: dict[int, type] = {
    id(t): t for t in (types.ModuleType, type, types.CodeType, threading.Thread, threading.local)
}
_NEVER_NAMED = {"logging.Logger", "logging.Handler"}
_NAMES = {name.rpartition(".")[2] for name in (*BY_NAME, *_NEVER_NAMED)}
_tables = {id(t): t for t in (dict, getattr(builtins, "frozendict", dict))}
_sequences = {id(t): t for t in (list, tuple, set, frozenset, deque)}


def register(kind: type, read: Reader) -> None:
    """Teach the pass a type of C: `read(object)` gives the bytes that getsizeof() leaves out, and
    the references that the object holds, each as often as it holds it."""
    global _kinds
    _readers[id(kind)] = kind, read, False
    _kinds = {}


def never_enter(kind: type) -> None:
    """Objects of this type, and of those that derive from it, belong to the program."""
    global _kinds
    _never[id(kind)] = kind
    _kinds = {}


def form_of(o: object) -> int:
    """How it is read: STOP and ATOM hold no references that matter."""
    return _kind_of(type(o)).form


def entries_of(o: Any) -> int:
    """How many references each source of a container gives; 0 of everything else."""
    kind = _kind_of(type(o))
    if kind.base is not None:
        return int(kind.base.__len__(o)) * (1 + (id(kind.base) in _tables))
    return len(o) if kind.form in (SEQUENCE, TABLE) else 0


def is_of_program(t: Any) -> bool:
    """Threads, and handlers of logging: a pass does not enter them. What they keep is not owned."""
    return _kind_of(t).form == STOP and any(
        c is threading.Thread or _named(c) == "logging.Handler" for c in _mro_of(t)
    )


def take(sources: Sources) -> list[Any]:
    """Up to CHUNK references, which the sources then hold no longer."""
    top = sources[-1]
    part: list[Any]
    if type(top) is not list:
        # An iterator holds its container, not what it has given.
        part = list(islice(top, CHUNK))
        if len(part) < CHUNK:
            sources.pop()
        return part
    if len(top) <= CHUNK:
        part = sources.pop()
        # Many small ones would be as many steps: a tree of small things has nothing else.
        while sources and type(sources[-1]) is list and len(part) + len(sources[-1]) <= CHUNK:
            part += sources.pop()
        return part
    part = top[-CHUNK:]
    del top[-CHUNK:]
    return part


def read(objects: list[Any], sources: Sources, weigh: bool = True) -> int:
    """Put the references that `objects` hold on `sources`, each as often as it is held.

    The bytes of the objects. Those of types that are read one by one come as Unread first.
    """
    ids = list(map(id, map(type, objects)))
    kinds = _kinds_of(objects, ids)
    forms = {kind.form for kind in kinds.values()}
    if STOP in forms:
        objects = [o for o, i in zip(objects, ids, strict=True) if kinds[i].form != STOP]
        ids = list(map(id, map(type, objects)))
    size = _weight(objects, ids, kinds) if weigh else 0
    for form in forms - {STOP, ATOM}:
        chosen = objects
        if len(forms) > 1:
            chosen = [o for o, i in zip(objects, ids, strict=True) if kinds[i].form == form]
        if form == INSTANCE:
            size += _open_instances(chosen, kinds, sources)
        else:
            _OPENERS[form](chosen, sources)
    return size


def read_slowly(sources: Sources) -> int:
    """Read some of the Unread objects on top: the bytes that getsizeof() leaves out of them."""
    objects: Unread = sources[-1]
    part = objects[-SLOW_CHUNK:]
    del objects[-SLOW_CHUNK:]
    if not objects:
        sources.pop()
    omitted = 0
    gathered: list[Any] = []
    for o in part:
        kind = _kind_of(type(o))
        more, references = _by_reader(kind, o)
        omitted += more
        if type(references) is list:
            gathered += references
        else:
            sources.append(references)
    if gathered:
        sources.append(gathered)
    return omitted


def _by_reader(kind: Kind, o: Any) -> tuple[int, Any]:
    """What a reader says; nothing if it fails, which hides references and so is safe."""
    try:
        omitted, references = kind.reader(o)  # type: ignore[misc]
        if not kind.trusted:
            omitted = operator.index(omitted)
            references = list(islice(references, MOST))  # a copy: the list is its own
            if not 0 <= omitted < MOST_BYTES:
                omitted = 0
    except KeyboardInterrupt:
        raise
    except BaseException:
        return 0, []
    return omitted, references


# -- types -----------------------------------------------------------------------------------------


def _kinds_of(objects: list[Any], ids: list[int]) -> dict[int, Kind]:
    kinds = {i: _kinds.get(i) for i in set(ids)}
    if None in kinds.values():
        for t in map(type, objects):
            if kinds[id(t)] is None:
                kinds[id(t)] = _kind_of(t)
    return kinds  # type: ignore[return-value]


def _kind_of(t: Any) -> Kind:
    kind = _kinds.get(id(t))
    if kind is None:
        known = _kinds
        kind = _learn(t)
        kind.alive = weakref.ref(t, functools.partial(_forget, id(t)))
        known[id(t)] = kind  # not to those that register() has put in their place meanwhile
    return kind


def _forget(i: int, _: object) -> None:
    _kinds.pop(i, None)


def _learn(t: Any) -> Kind:
    mro = _mro_of(t)
    flags = _flags_of(t)
    kind = Kind(_form(t, mro, flags))
    found = _reader_of(mro)
    if kind.form != STOP and found is not None:
        kind.form = BY_READER
        kind.reader, kind.trusted = found
    elif kind.form == SUBCLASS:
        kind.base = next(c for c in mro if id(c) in _sequences or id(c) in _tables)
        if id(kind.base) in _tables:
            kind.form = BY_READER
            kind.reader = functools.partial(_table_subclass, kind.base)
    kind.sizeof = _safe_sizeof(mro)
    if BYTES_TWICE and any(c is BytesIO for c in mro):
        kind.sizeof = object.__sizeof__
    if kind.sizeof is not None:
        kind.extra = _header(flags)
    if _SINCE_14 and flags & _INLINE_VALUES and kind.form in (PLAIN, SUBCLASS, BY_READER):
        kind.extra += 24  # room in the object for attributes, which a container has as well
    if kind.form == INSTANCE:
        kind.slots = sum(
            type(part) is types.MemberDescriptorType
            for c in mro
            for part in dict_of_type(c).values()
        )
    return kind


def _form(t: Any, mro: tuple[Any, ...], flags: int) -> int:
    if any(id(c) in _never or _named(c) in _NEVER_NAMED for c in mro):
        return STOP
    if id(t) in _tables:
        return TABLE
    if id(t) in _sequences:
        return SEQUENCE
    if any(id(c) in _sequences or id(c) in _tables for c in mro):
        return SUBCLASS
    if not flags & _HAVE_GC:
        return ATOM
    if flags & _MANAGED_DICT and all(_flags_of(c) & _HEAP_TYPE for c in mro[:-1]):
        return INSTANCE
    return PLAIN


def _reader_of(mro: tuple[Any, ...]) -> tuple[Reader, bool] | None:
    for c in mro:
        if id(c) in _readers:
            _, reader, trusted = _readers[id(c)]
            return reader, trusted
        by_name = BY_NAME.get(_named(c))
        if by_name is not None:
            return functools.partial(by_name, c), True
    return None


def _named(t: Any) -> str:
    """ "numpy.ndarray" if it really is that: packages that we know of and do not import."""
    try:
        name = _name_of(t)
        if type(name) is not str or name not in _NAMES:
            return ""
        module_name = _module_of(t)
        if type(module_name) is not str:
            return ""
        module = sys.modules.get(module_name)
        if issubclass(type(module), types.ModuleType) and dict_of_module(module).get(name) is t:
            return f"{module_name}.{name}"
    except Exception:
        pass
    return ""


def _safe_sizeof(mro: tuple[Any, ...]) -> Any:
    """None where getsizeof() runs no Python code, or else the method of C that it should run."""
    found = [part for c in mro if (part := dict_of_type(c).get("__sizeof__")) is not None]
    for part in found:
        if type(part) is types.MethodDescriptorType and any(part.__objclass__ is c for c in mro):
            return None if part is found[0] else part
    return object.__sizeof__


class _Bare:
    pass


_bare = _Bare()
_GC_HEAD = getsizeof([]) - [].__sizeof__()
_DICT_HEAD = getsizeof(_bare) - object.__sizeof__(_bare) - _GC_HEAD


def _header(flags: int) -> int:
    """Bytes before the object, which getsizeof() adds to what __sizeof__() says."""
    return (_GC_HEAD if flags & _HAVE_GC else 0) + (_DICT_HEAD if flags & _MANAGED_DICT else 0)


def _weight(objects: list[Any], ids: list[int], kinds: dict[int, Kind]) -> int:
    if not any(kind.sizeof or kind.extra for kind in kinds.values()):
        try:
            return sum(map(getsizeof, objects))
        except Exception:
            pass  # one by one: the others count
    size = 0
    for o, i in zip(objects, ids, strict=True):
        kind = kinds[i]
        try:
            size += (kind.sizeof or getsizeof)(o) + kind.extra
        except Exception:
            continue
    return size


# -- how the references are read -------------------------------------------------------------------


def _open_plain(objects: list[Any], sources: Sources) -> None:
    if references := gc.get_referents(*objects):
        sources.append(references)


def _open_instances(objects: list[Any], kinds: dict[int, Kind], sources: Sources) -> int:
    references = gc.get_referents(*objects)
    room = len(references)
    if any(kind.slots for kind in kinds.values()):
        room -= sum(kinds[id(type(o))].slots for o in objects)
    size = _inline_values(len(objects), max(room, len(objects)))
    if references:
        sources.append(references)
    return size


def _inline_values(instances: int, references: int) -> int:
    """Bytes of the attributes of plain instances, which getsizeof() leaves out.

    An instance has room for one attribute more than its class has used, and a byte for the order
    of each. It shows its attributes and its class: as many references as it has room.
    """
    room = references / instances
    if _SINCE_13:
        return round(instances * 8 * (-(-room // 8) + room + 1))
    return round(instances * 8 * (-(-(room + 2) // 8) + room))


def _open_sequences(objects: list[Any], sources: Sources) -> None:
    if sum(map(len, objects)) > LARGE:
        sources.append(chain.from_iterable(objects))  # neither a copy nor one long call
    else:
        _open_plain(objects, sources)


def _open_tables(objects: list[Any], sources: Sources) -> None:
    """Not get_referents(): it hides the keys of a dict in which all are str."""
    values = chain.from_iterable(map(operator.methodcaller("values"), objects))
    keys = chain.from_iterable(objects)
    if sum(map(len, objects)) > LARGE:
        sources += (keys, values)
    elif references := [*keys, *values]:
        sources.append(references)


def _open_subclasses(objects: list[Any], sources: Sources) -> None:
    bases = [_kind_of(type(o)).base for o in objects]
    if sum(base.__len__(o) for base, o in zip(bases, objects, strict=True)) > LARGE:
        sources.append(chain.from_iterable(map(_of_subclass, bases, objects)))
    else:
        _open_plain(objects, sources)


def _of_subclass(base: Any, o: Any) -> Iterable[Any]:
    if base.__len__(o) <= LARGE:
        return gc.get_referents(o)
    return chain(_attributes(o), _entries(base, o))


def _entries(base: Any, o: Any, times: int = 1) -> Iterable[Any]:
    """The iterators are made by whoever asks for an entry: until then `o` may change."""
    return chain.from_iterable(map(base.__iter__, repeat(o, times)))


def _attributes(o: Any) -> list[Any]:
    """The ``__dict__`` of a large container; what its slots hold is missed."""
    for c in _mro_of(type(o)):
        part = dict_of_type(c).get("__dict__")
        if type(part) is types.GetSetDescriptorType:
            return [part.__get__(o)]
    return []


def _table_subclass(base: Any, o: Any) -> tuple[int, Iterable[Any]]:
    """get_referents() hides the keys of a table that never had others than str."""
    count = base.__len__(o)
    of_list = 1 if base is dict and issubclass(type(o), OrderedDict) else 0  # its list has the keys
    if count > LARGE:
        return 0, chain(_attributes(o), base.values(o), _entries(base, o, 1 + of_list))
    references = gc.get_referents(o)
    key = next(base.__iter__(o), None)
    if type(key) is str:
        hidden = len(references) < (2 + of_list) * count
        if hidden or sum(map(operator.is_, references, repeat(key))) < 1 + of_list:
            references += base.__iter__(o)
    return 0, references


def _open_later(objects: list[Any], sources: Sources) -> None:
    sources.append(Unread(objects))


_OPENERS: dict[int, Callable[[list[Any], Sources], None]] = {
    PLAIN: _open_plain,
    SEQUENCE: _open_sequences,
    TABLE: _open_tables,
    SUBCLASS: _open_subclasses,
    BY_READER: _open_later,
}
