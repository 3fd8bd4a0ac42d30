"""Types whose objects do not show what they hold, or show what they do not: each has a reader.

`reader(object)` gives the bytes that ``getsizeof()`` leaves out, and the references that the object
holds, each as often as it holds it. Packages are not imported for that: their types are known by
name, and their readers are given the type as well.
"""

import functools
import gc
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import chain
from typing import Any

__all__ = ["BUILTIN", "BYTES_TWICE", "BY_NAME", "Reader"]

Reader = Callable[[Any], tuple[int, Iterable[Any]]]


def _suspended(o: Any) -> tuple[int, list[Any]]:
    """From 3.14 the stack of a suspended frame has *borrowed* references, too.

    get_referents() shows them, although nothing was counted. Each object once: too few at worst.
    """
    return 0, list({id(r): r for r in gc.get_referents(o)}.values())


def _lru_cache(o: Any) -> tuple[int, Iterable[Any]]:
    """Its links are held by its dict, which shows them, and by their list, which does not."""
    references = gc.get_referents(o)
    tables = [r for r in references if type(r) is dict]
    for table in tables:
        if type(next(iter(table.values()), None)) is _LINK:  # bounded: all of them are
            return 0, chain(references, table.values())
    return 0, references


def _link_type() -> type:
    remembered = functools.lru_cache(1)(lambda: None)
    remembered()
    tables = [r for r in gc.get_referents(remembered) if type(r) is dict and len(r) == 1]
    return next((type(v) for table in tables for v in table.values()), types.NoneType)


_LINK = _link_type()
# From 3.14 it shows the bytes in it, and getsizeof() adds them as well.
BYTES_TWICE = any(type(r) is bytes for r in gc.get_referents(BytesIO(bytes(100))))


def _ndarray(array_type: Any, o: Any) -> tuple[int, Iterable[Any]]:
    """An ndarray shows neither its base nor the elements of an array of objects."""
    references = gc.get_referents(o)  # the __dict__ of a subclass
    base = array_type.base.__get__(o)
    dtype = array_type.dtype.__get__(o)
    if base is not None:
        references.append(base)
    elif dtype.hasobject:
        # As the base class, or __array_finalize__ of a subclass may run. Not ravel(): that may be a
        # copy, whose references are counted as well.
        return 0, chain(references, *_elements(array_type.view(o, array_type), dtype))
    return 0, references


def _elements(array: Any, dtype: Any) -> list[Iterator[Any]]:
    if dtype.names is None:
        return [array.flat] if dtype.char == "O" else []
    return [array[name].flat for name in dtype.names if dtype[name].char == "O"]


def _index_engine(engine_type: Any, o: Any) -> tuple[int, list[Any]]:
    """The hash table of a pandas index: its ``__sizeof__`` is not of C, and would not be run."""
    size = engine_type.mapping.__get__(o).sizeof() if o.is_mapping_populated else 0
    return size, gc.get_referents(o)


def _object_engine(engine_type: Any, o: Any) -> tuple[int, list[Any]]:
    """The hash table of an index of objects holds each of them, in C, and shows none."""
    size, references = _index_engine(engine_type, o)
    if o.is_mapping_populated and o.is_unique:
        references += engine_type.values.__get__(o).tolist()
    return size, references


BUILTIN: list[tuple[type, Reader]] = [(functools._lru_cache_wrapper, _lru_cache)]
if sys.version_info >= (3, 14):
    BUILTIN += [
        (kind, _suspended)
        for kind in (
            types.GeneratorType,
            types.CoroutineType,
            types.AsyncGeneratorType,
            types.FrameType,
        )
    ]

BY_NAME: dict[str, Any] = {
    "numpy.ndarray": _ndarray,
    "pandas._libs.index.ObjectEngine": _object_engine,
    "pandas._libs.index.IndexEngine": _index_engine,
}
