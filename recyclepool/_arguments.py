"""What callers write, checked: each refusal names what to write instead."""

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from recyclepool._rules import Rules
from recyclepool.backends import BackendFactory
from recyclepool.errors import UnitError
from recyclepool.units import Duration, parse_duration, parse_size

if TYPE_CHECKING:
    from recyclepool.limits import Limits


def unknown_keyword(word: str, function: Callable[..., object]) -> str:
    """What to say of a keyword that RecyclePool does not have."""
    import difflib
    import inspect

    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
    from recyclepool.limits import Limits

    if word in Limits.__dataclass_fields__:
        return f"RecyclePool() has no parameter {word!r}: write limits=Limits({word}=...)"
    likeness = {name: difflib.SequenceMatcher(None, word, name).ratio() for name in known}
    best = max(likeness.values())
    close = [repr(name) for name in known if likeness[name] == best and best > 0.6]
    hint = f"did you mean {' or '.join(close)}?" if close else "known are " + ", ".join(known)
    return f"RecyclePool() has no parameter {word!r}: {hint}"


def whole_number(name: str, value: Any, example: str) -> int:
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name}={value!r}: write a whole number, such as {name}={example}")
    return int(value.__index__())


def max_workers_of(value: int | None) -> int:
    if value is None:  # the standard's number
        return min(32, (getattr(os, "process_cpu_count", os.cpu_count)() or 1) + 4)
    digits = value if isinstance(value, str) and value.isdigit() else "4"
    size = whole_number("max_workers", value, digits)
    if size <= 0:
        raise ValueError(
            f"max_workers must be greater than 0, and is {size}: "
            f"write 1 or more, or leave it out for the standard's number"
        )
    return size


def min_workers_of(value: int, size: int) -> int:
    least = whole_number("min_workers", value, "1")
    if not 0 <= least <= size:
        raise ValueError(f"min_workers={least}: write 0 to max_workers, which is {size}")
    return least


def rules_of(value: "Limits | None") -> Rules:
    if value is None:
        return Rules()
    from recyclepool.limits import Limits

    if not isinstance(value, Limits):
        raise TypeError(
            f"limits={value!r}: write limits=Limits(tasks=10_000), with recyclepool's Limits, "
            f"or None"
        )
    return value.rules()


def text_of(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: write text, such as {name}='worker'")
    return value


def callable_of(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(
            f"{name} must be a callable, and is {value!r}: write the function's name, without ()"
        )
    return value


def initargs_of(value: Iterable[Any]) -> tuple[Any, ...]:
    try:
        return tuple(value)
    except TypeError:
        raise TypeError(
            f"initargs={value!r}: write a tuple, such as initargs=({value!r},)"
        ) from None


def cache_of(value: int | str) -> int:
    if value is None:
        raise UnitError('cache=None: write 0 for no cache, or a size such as "64MiB"')
    return parse_size(value, name="cache")


def is_isolated(value: str | None, backend: BackendFactory) -> bool:
    """Does a task see its submitter's context variables?"""
    if value is None:
        return backend.shares_objects
    if value not in ("submitter", "worker"):
        raise ValueError(f'context={value!r}: write "submitter" or "worker", or None')
    return value == "submitter"


def seconds_of(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise TypeError(f"{name}={value!r}: write seconds as a number, such as {name}=5.0")
    return max(0.0, min(value, threading.TIMEOUT_MAX))


def timeout_of(value: Duration | None) -> float | None:
    """Of ``options(timeout=)``: seconds, more than none."""
    if value is None:
        return None
    timeout = parse_duration(value, name="timeout")
    if timeout <= 0:
        raise ValueError(f"timeout={value!r}: write more than 0, or None for no timeout")
    return timeout
