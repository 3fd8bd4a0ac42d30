"""Sizes and durations: what people write, as numbers, and back.

Strict, because the well-known parsers misread silently ("10%" as 10 bytes, "50kb" as bits, "512Mi"
as 512 000 000); kind, because every refusal says what to write instead.
"""

import math
import re
import sys
from typing import TYPE_CHECKING, NoReturn

from recyclepool.errors import UnitError

__all__ = [
    "Duration",
    "Size",
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_size",
    "percent_of",
]

# What users may write, here and in every signature of the package.
if TYPE_CHECKING:
    from datetime import timedelta

    Size = int | str
    Duration = float | str | timedelta
else:  # datetime is imported by those who have a timedelta
    Size = Duration = object

# Fifteen digits on each side of the point: more than anybody means, and never a costly number.
_PART = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,15}))? ?([A-Za-z]+)")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_PERCENT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?%")
_POINT = 10**15

_SIZES = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
# What was meant by a unit in the wrong case: 50kb, 512mb, 1gib.
_RECASED = {unit.lower(): unit for unit in _SIZES}
_MICROSECONDS = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}


def parse_size(value: Size, *, name: str = "size") -> int:
    """The bytes that `value` stands for.

    An int is bytes. Text is one number and one unit: B; KiB MiB GiB TiB, or Ki Mi Gi Ti (powers of
    1024); kB KB MB GB TB (powers of 1000). A fraction is welcome ("1.5GiB") and rounded down to
    whole bytes; one space may stand before the unit. The case of a unit counts ("Mb" is megabits
    to some), and only kB may be written either way.

    Raises UnitError, which begins with `name` and says what to write instead. Any thread.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        _refuse(name, value, 'write an int (bytes) or text such as "512MiB"')
    if isinstance(value, int):
        if value < 0:
            _refuse(name, value, "a size cannot be negative; write 0 or more")
        return int(value)
    part = _PART.fullmatch(value)
    if part is None or part[3] not in _SIZES:
        _refuse(name, value, _size_advice(value, part))
    return _scaled(part, _SIZES[part[3]]) // _POINT


def percent_of(value: Size, *, name: str = "limit") -> float | None:
    """The number before the "%" of a limit such as "80%" or "12.5%"; None: not a percentage.

    One space may stand before the "%". What it is a percentage of is the caller's matter.

    Raises UnitError, which begins with `name`, unless it is above 0 and at most 100. Any thread.
    """
    if not isinstance(value, str) or not value.endswith("%"):
        return None
    part = _PERCENT.fullmatch(value)
    if part is None:
        _refuse(name, value, "write a number and a percent sign, such as 80% or 12.5%")
    percent = float(part[1])
    if not 0 < percent <= 100:
        _refuse(name, value, "write more than 0% and at most 100%, such as 80%")
    return percent


def parse_duration(value: Duration, *, name: str = "duration") -> float:
    """The seconds that `value` stands for.

    A number is seconds. Text is numbers with units, d h m s ms us, each at most once and the
    largest first: "1h30m", "500ms", "1.5h". One space may stand before a unit and between parts.

    Raises UnitError, which begins with `name` and says what to write instead. Any thread.
    """
    if isinstance(value, str):
        return _parse_parts(value, name)
    # Not imported, or just being imported by another thread: then it is no timedelta.
    timedelta = getattr(sys.modules.get("datetime"), "timedelta", ())
    is_timedelta = isinstance(value, timedelta)
    if isinstance(value, bool) or not (is_timedelta or isinstance(value, int | float)):
        _refuse(name, value, 'write a number (seconds) or text such as "1h30m"')
    try:
        seconds = float(value) if isinstance(value, int | float) else value.total_seconds()
    except OverflowError:  # an int that no float can hold
        seconds = math.inf
    if not math.isfinite(seconds):
        _refuse(name, value, "write a finite number of seconds")
    if seconds < 0:
        _refuse(name, value, "a duration cannot be negative; write 0 or more")
    return seconds


def format_size(size: int) -> str:
    """`size` bytes for people, in powers of 1024: "64 MiB", "310.5 MiB", "12 B"."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if round(abs(amount), 1) < 1024:  # rounded first: 1023.99 KiB is 1 MiB
            break
        amount, unit = amount / 1024, larger
    return f"{_short(amount)} {unit}"


def format_duration(seconds: float) -> str:
    """`seconds`, a finite number, for people: "1h 30m", "2.5 s", "500 ms", "20 us".

    From a minute on, the two largest units; below it one decimal.
    """
    if seconds < 0:
        return "-" + format_duration(-seconds)
    # Each bound is where rounding reaches the next unit: 59.96 s is 1m, 23h 59m 40s is 1d.
    if seconds >= 59.95:
        return _format_parts(seconds)
    if seconds >= 0.99995 or seconds < 0.00000005:
        return f"{_short(seconds)} s"
    if seconds >= 0.00099995:
        return f"{_short(seconds * 1e3)} ms"
    return f"{_short(seconds * 1e6)} us"


def _parse_parts(text: str, name: str) -> float:
    total, position, last = 0, 0, math.inf
    while position < len(text):
        part = _PART.match(text, position + (position > 0 and text[position] == " "))
        if part is None or part[3] not in _MICROSECONDS:
            _refuse(name, text, _duration_advice(text))
        unit = _MICROSECONDS[part[3]]
        if unit >= last:
            _refuse(name, text, "write each unit once and the largest first, such as 1h30m")
        total, position, last = total + _scaled(part, unit), part.end(), unit
    if not text:
        _refuse(name, text, _duration_advice(text))
    return total / (_POINT * _MICROSECONDS["s"])


def _scaled(part: re.Match[str], factor: int) -> int:
    """The number of `part` times `factor` times _POINT: whole, so that nothing is rounded yet."""
    return int(part[1] + (part[2] or "").ljust(15, "0")) * factor


def _size_advice(text: str, part: re.Match[str] | None) -> str:
    number, unit = (text[: part.end(2 if part[2] else 1)], part[3]) if part else (text, "")
    if unit.upper() in ("K", "M", "G", "T"):
        binary, decimal = unit.upper() + "iB", _RECASED[unit.lower() + "b"].replace("KB", "kB")
        return f"write {number}{binary} (powers of 1024) or {number}{decimal} (powers of 1000)"
    if unit.lower() in _RECASED:
        meant = _RECASED[unit.lower()].replace("KB", "kB")
        return f"the case of a unit counts; write {number}{meant}"
    if _NUMBER.fullmatch(text):
        return f"a size needs its unit; write {text}MiB, or an int for bytes"
    if text.endswith("%"):
        return "percentages are for limits only; write an amount, such as 512MiB"
    if text.startswith("-"):
        return "a size cannot be negative; write 0 or more"
    return "write a number and a unit (B, KiB MiB GiB TiB or kB MB GB TB), such as 512MiB"


def _duration_advice(text: str) -> str:
    if _NUMBER.fullmatch(text):
        return f"a duration needs its unit; write {text}s or the number {text}"
    if text.startswith("-"):
        return "a duration cannot be negative; write 0 or more"
    meant = _unspelled(text)
    if meant:
        return f"write {meant}"
    return "write numbers with units (d h m s ms us), such as 1h30m or 500ms"


def _unspelled(text: str) -> str:
    """What was meant by "6 hours", "30 sec" or "1H", or ""."""
    parts = re.findall(r"([0-9.]+) *([A-Za-z]+)[ ,]*", text) if len(text) < 60 else []
    spelled = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hr": "h", "hour": "h"}
    spelled |= {"day": "d", "msec": "ms", "millisecond": "ms", "usec": "us", "microsecond": "us"}
    meant = ""
    for number, word in parts:
        unit = word.lower()
        meant += number + (unit if unit in _MICROSECONDS else spelled.get(unit.rstrip("s"), word))
    if meant == text or re.sub("[ ,]", "", text) != "".join(map("".join, parts)):
        return ""
    try:
        parse_duration(meant)
    except UnitError:
        return ""
    return meant


def _format_parts(seconds: float) -> str:
    grain = 1 if seconds < 3599.5 else 60 if seconds < 86_370 else 3600
    minutes, s = divmod(round(seconds / grain) * grain, 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    return " ".join(f"{n}{unit}" for n, unit in ((d, "d"), (h, "h"), (m, "m"), (s, "s")) if n)


def _short(amount: float) -> str:
    return f"{amount:.1f}".removesuffix(".0")


def _refuse(name: str, value: object, advice: str) -> NoReturn:
    try:
        shown = repr(value)
    except ValueError:  # an int with more digits than Python prints
        shown = "..."
    raise UnitError(f"{name}={shown}: {advice}")
