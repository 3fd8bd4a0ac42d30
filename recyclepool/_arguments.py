"""What callers write, checked: each refusal names what to write instead."""

import functools
import os
import threading
from collections.abc import Iterable, Iterator
from math import inf
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from recyclepool._rules import Rules
from recyclepool.backends import BackendFactory
from recyclepool.errors import UnitError
from recyclepool.units import Duration, parse_duration, parse_size

if TYPE_CHECKING:
    from recyclepool.limits import Limits
    from recyclepool.schedule import Schedule

F = TypeVar("F")

IS_COROUTINE = 0x80  # inspect.CO_COROUTINE; inspect is much to import for a constructor


def whole_number(name: str, value: Any, example: str) -> int:
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        if isinstance(value, str) and value.isdecimal() and value.isascii():
            example = value  # it was meant, without the quotes
        raise TypeError(f"{name}={value!r}: write a whole number, such as {name}={example}")
    return int(value.__index__())


def max_workers_of(value: int | None) -> int:
    if value is None:  # the standard's number
        return min(32, (getattr(os, "process_cpu_count", os.cpu_count)() or 1) + 4)
    size = whole_number("max_workers", value, "4")
    if size <= 0:
        raise ValueError(
            f"max_workers must be greater than 0, and is {size}: "
            f"write 1 or more, or leave it out for the standard's number"
        )
    return size


def new_size_of(value: int) -> int:
    """Of ``resize()``."""
    size = whole_number("max_workers", value, "4")
    if size <= 0:
        raise ValueError(f"max_workers={size}: write 1 or more, close() has all workers go")
    return size


def slot_of(value: int, size: int) -> int:
    """Of ``recycle()``."""
    slot = whole_number("slot", value, "0")
    if not 0 <= slot < size:
        slots = f"the slots 0 to {size - 1}, write one of them" if size > 1 else "only slot 0"
        raise ValueError(f"slot={slot}: the pool has {slots}")
    return slot


def min_workers_of(value: int, size: int) -> int:
    least = whole_number("min_workers", value, "1")
    if not 0 <= least <= size:
        raise ValueError(f"min_workers={least}: write 0 to max_workers, which is {size}")
    return least


def max_queue_of(value: int | None) -> int | None:
    if value is None:
        return None
    most = whole_number("max_queue", value, "100")
    if most < 1:
        raise ValueError(f"max_queue={most}: write 1 or more, or None for any number")
    return most


def on_full_of(value: str) -> str:
    if value not in ("block", "raise"):
        raise ValueError(f'on_full={value!r}: write "block" or "raise"')
    return value


def buffersize_of(value: int | None) -> int | None:
    if value is not None and not isinstance(value, int):
        raise TypeError("buffersize must be an integer or None")  # in the standard's words
    if value is not None and value < 1:
        raise ValueError("buffersize must be None or > 0")
    return value


def hash_of(key: Any) -> int | None:
    """Of ``options(key=)``."""
    try:
        return None if key is None else hash(key)
    except TypeError as error:
        raise TypeError(
            f"key={_shown(key)}: write something that has a hash, such as a str, an int or a tuple"
        ) from error


def name_of(value: str | None) -> str | None:
    """Of ``options(name=)``."""
    if value is not None and not (isinstance(value, str) and value):
        raise TypeError(f"name={value!r}: write a word, such as name='resize image'")
    return None if value is None else str.__str__(value)  # nothing of a subclass runs later


def rules_of(value: "Limits | None", backend: BackendFactory) -> Rules:
    if value is None:
        return Rules()
    from recyclepool.limits import Limits

    if not isinstance(value, Limits):
        raise TypeError(
            f"limits={value!r}: write limits=Limits(tasks=10_000), with recyclepool's Limits, "
            f"or None"
        )
    rules = value.rules()
    if rules.memory < inf and backend.shares_objects and not rules.report_only:
        from recyclepool._owned import SUPPORTED

        if not SUPPORTED:
            raise ValueError(
                f"Limits(memory={value.memory!r}): what a thread owns is proven by reference "
                f"counts, and a free-threaded build does not keep them in one place. Write "
                f"pool_memory= for the whole process, or run on a build with a GIL"
            )
    return rules


def schedules_of(value: Any) -> "tuple[Schedule, ...]":
    if value is None:
        return ()
    from recyclepool.schedule import Schedule

    return Schedule.parse(value)


def text_of(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: write text, such as {name}='worker'")
    return value


def callable_of(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(
            f"{name} must be a callable, and is {value!r}: write the function's name, without ()"
        )
    return plain_of(name, value)


def plain_of(name: str, value: F) -> F:
    """Nobody would await what a coroutine function returns."""
    if _is_async(value):
        raise TypeError(
            f"{name}={_name(value)} is a coroutine function, which nobody would await: "
            f"write def instead of async def"
        )
    return value


def task_function_of(fn: F) -> F:
    """Of ``run()``."""
    import inspect

    if inspect.iscoroutine(fn):
        raise TypeError(
            f"run() takes a function and its arguments, and not the coroutine of "
            f"{_name(fn)}(): write await {_name(fn)}(...) without run()"
        )
    if _is_async(fn):
        raise TypeError(
            f"run() calls a function in a worker, and {_name(fn)} is a coroutine function: "
            f"write await {_name(fn)}(...) without run(), or def instead of async def"
        )
    return function_of("run", fn)


def function_of(verb: str, fn: F) -> F:
    if not callable(fn):
        raise TypeError(
            f"{verb}() takes a function first, and {_shown(fn)} is none: "
            f"write the function's name, without ()"
        )
    return fn


def iterables_of(verb: str, fn: Any, values: Iterable[Iterable[Any]]) -> tuple[Iterator[Any], ...]:
    return tuple([_iterator(verb, fn, value) for value in values])


def _iterator(verb: str, fn: Any, value: Iterable[Any]) -> Iterator[Any]:
    try:
        return iter(value)
    except TypeError:
        if hasattr(type(value), "__iter__"):
            raise  # its own
        raise TypeError(
            f"{verb}() takes iterables after the function, and {_shown(value)} is none: "
            f"write {verb}({_name(fn)}, [{_shown(value)}])"
        ) from None


def _is_async(fn: Any) -> bool:
    fn = _in_partials(fn)
    for called in (fn, type(fn).__call__) if callable(fn) else ():
        function = called.__func__ if isinstance(called, MethodType) else called
        if isinstance(function, FunctionType) and function.__code__.co_flags & IS_COROUTINE:
            return True
    return False


def _in_partials(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _name(fn: Any) -> str:
    name = getattr(_in_partials(fn), "__name__", None)
    return name if isinstance(name, str) else _shown(fn)


def _shown(value: Any) -> str:
    import reprlib

    return reprlib.repr(value)


def initargs_of(value: Iterable[Any]) -> tuple[Any, ...]:
    try:
        if not isinstance(value, str | bytes):  # whose letters nobody means
            return tuple(value)
    except TypeError:
        pass
    raise TypeError(f"initargs={value!r}: write a tuple, such as initargs=({value!r},)")


def cache_of(value: int | str) -> int:
    if value is None:
        raise UnitError('cache=None: write 0 for no cache, or a size such as "64MiB"')
    return parse_size(value, name="cache")


def is_isolated(value: str | None, backend: BackendFactory | None = None) -> bool:
    """Does a task see its submitter's context variables?"""
    if value is None and backend is not None:
        return backend.shares_objects
    if value not in ("submitter", "worker"):
        raise ValueError(f'context={value!r}: write "submitter" or "worker", or None')
    return value == "submitter"


def seconds_of(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        try:
            meant = 5.0 if value != value else parse_duration(value)
        except UnitError:
            meant = 5.0
        raise TypeError(f"{name}={value!r}: write seconds as a number, such as {name}={meant}")
    return max(0.0, min(value, threading.TIMEOUT_MAX))


def timeout_of(value: Duration | None) -> float | None:
    """Of ``options(timeout=)``: seconds, more than none."""
    if value is None:
        return None
    timeout = parse_duration(value, name="timeout")
    if timeout <= 0:
        raise ValueError(f"timeout={value!r}: write more than 0, or None for no timeout")
    return timeout
