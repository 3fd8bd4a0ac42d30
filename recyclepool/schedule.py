"""When workers are replaced by the clock: schedules, and what of them is due.

No clock in here: times are passed in, as seconds since 1970 (``time.time()``).
"""

import math
import re
from binascii import crc32
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from recyclepool.errors import UnitError
from recyclepool.units import Duration, format_duration, parse_duration

__all__ = ["Agenda", "Schedule", "phase"]

LEAST_INTERVAL, MOST_INTERVAL = 0.01, 10_000 * 86_400.0  # seconds
# What a moment may be, so that it is a date in every zone.
FIRST, LAST = -62_000_000_000.0, 253_400_000_000.0

_ANY_DAY = datetime(2000, 1, 1)  # from which it is looked whether an expression ever fires
_FIELDS = "minute hour day-of-month month day-of-week"
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Schedule:
    """When something is to be done again and again: at times of the calendar, or at intervals.

    Made by `Schedule.cron`, `Schedule.every` or `Schedule.parse`. Immutable, hashable, equal to one
    that says the same; can be pickled if its zone can. Any thread.
    """

    __slots__ = ("expression", "interval", "zone")

    expression: str  # five fields; "" at intervals
    interval: float | None  # seconds; None at times of the calendar
    zone: tzinfo  # UTC for intervals

    def __init__(self, *args: object, **options: object) -> None:
        raise TypeError("write Schedule.cron(...), Schedule.every(...) or Schedule.parse(...)")

    @classmethod
    def cron(cls, expression: str, tz: ZoneInfo | str | None = None) -> "Schedule":
        """At the times of a cron expression: minute, hour, day of month, month, day of week.

        The same as in Debian: names (MON, JAN), lists, ranges and steps; where both days are
        given, and neither begins with a star, one of them is enough. Also @hourly, @daily,
        @midnight, @weekly, @monthly, @yearly, @annually; L (the last day of the month), LW (its
        last weekday), 5L (its last Friday), 1#2 (its second Monday). `tz` is the zone whose clocks
        count, by its name or as a ZoneInfo; None: UTC.

        When clocks change for summer time: what falls into the time that is skipped is done once,
        right after it; what falls into the time that comes twice is done in the first. Where the
        minute or the hour begins with a star there is nothing to make up for: such an expression
        fires whenever clocks show what it says, so not in what is skipped, and twice in the other.

        Raises TypeError, or ValueError, which names the field that is wrong.
        """
        zone = _zone(tz)
        if not isinstance(expression, str):
            advice = 'write text such as "0 3 * * *"'
            raise _refusal("expression", expression, advice, kind=TypeError)
        return _made(_read_cron(expression, "expression"), None, zone)

    @classmethod
    def every(cls, interval: Duration) -> "Schedule":
        """At intervals: seconds, a timedelta, or text such as "6h" or "1d12h".

        They are counted from 1970 on, so that a restart of the process moves nothing.

        Raises UnitError (a ValueError) for what is no duration, ValueError below 10 ms and above
        10 000 days.
        """
        seconds = parse_duration(interval, name="interval")
        if seconds > MOST_INTERVAL:
            raise _refusal("interval", interval, "write 10000d or less, such as 6h")
        if seconds < LEAST_INTERVAL:
            raise _refusal("interval", interval, "write 10ms or more, such as 6h")
        return _made("", seconds, UTC)

    @classmethod
    def parse(cls, value: Any, *, name: str = "schedule") -> "tuple[Schedule, ...]":
        """The schedules that `value` stands for: a Schedule, text, or a tuple or list of these.

        Text is a cron expression in UTC, @daily and its like, or "every 6h". What is there twice
        counts once.

        Raises TypeError or ValueError, which begins with `name` and says what to write instead.
        """
        if isinstance(value, tuple | list):
            if not value:
                raise _refusal(name, value, "write one schedule or more, or None for none")
            return tuple(dict.fromkeys(_read(one, f"{name}[{n}]") for n, one in enumerate(value)))
        return (_read(value, name),)

    def next_after(self, moment: float, *, phase: float = 0.0) -> float:
        """The first time after `moment` at which it fires; inf: none before the year 10000.

        `phase`, from 0 up to 1, is the part of its interval by which an interval is shifted. Times
        of the calendar are not shifted.

        Raises TypeError or ValueError for what is no moment.
        """
        advice = "write seconds since 1970, as of time.time() or of moment.timestamp()"
        if isinstance(moment, bool) or not isinstance(moment, int | float):
            raise _refusal("moment", moment, advice, kind=TypeError)
        if not FIRST <= moment <= LAST:
            raise _refusal("moment", moment, f"in no year from 1 to 9999; {advice}")
        if not isinstance(phase, int | float) or not 0.0 <= phase < 1.0:
            raise ValueError(f"phase={phase!r}: write a number from 0 up to, not including, 1")
        every = self.interval
        found = self._on_calendar(moment) if every is None else _on_grid(moment, every, phase)
        return found if found <= LAST else math.inf

    def _on_calendar(self, moment: float) -> float:
        """cronsim is asked in local time, without its zone: it steps by whole hours of UTC, and so
        it misses what comes after a change by half an hour; and it begins in the first of two
        equal hours, so that what it finds from within the second may be over.
        """
        aware = datetime.fromtimestamp(math.floor(moment), self.zone)
        local = aware.replace(tzinfo=None, fold=0)
        found = self._first(local, moment)
        if self._is_wild() and not aware.fold:
            early, late = _readings(local, self.zone)
            if early < late:  # what this hour has behind it will come once more
                start = local - timedelta(seconds=late - early)
                found = min(found, self._first(start, moment))
        return found

    def _first(self, local: datetime, moment: float) -> float:
        """The first firing after `moment`, of those that clocks show after `local`."""
        from cronsim import CronSim

        try:
            each = map(self._instants, CronSim(self.expression, local))
            return next(instant for some in each for instant in some if instant > moment)
        except (StopIteration, OverflowError):  # the calendar ends
            return math.inf

    def _instants(self, shown: datetime) -> list[float]:
        """When it fires because clocks show `shown`: they may do so twice, or never."""
        early, late = _readings(shown, self.zone)
        if self._is_wild():
            return sorted({early, late}) if early <= late else []
        return [early if early <= late else _change(late, early, self.zone)]

    def _is_wild(self) -> bool:
        """Like Debian: what runs by the hour, or more often, follows clocks as they are."""
        minute, hour = self.expression.split()[:2]
        return minute.startswith("*") or hour.startswith("*")

    def _key(self) -> tuple[object, ...]:
        return self.expression, self.interval, str(self.zone)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Schedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.expression, self.interval, self.zone)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Schedule cannot be changed: make another one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Schedule cannot be changed: make another one")

    def __str__(self) -> str:
        """As people write it: "0 3 * * * (Europe/Berlin)", "every 6h"."""
        if self.interval is None:
            return f"{self.expression} ({self.zone})"
        return f"every {_written(self.interval)}"

    def __repr__(self) -> str:
        if self.interval is not None:
            return f"Schedule.every({_written(self.interval)!r})"
        zone = "" if self.zone is UTC else f", tz={str(self.zone)!r}"
        return f"Schedule.cron({self.expression!r}{zone})"


class Agenda:
    """What of several schedules is due. It asks no clock. Not locked: one thread at a time.

    The wall clock may be set while nobody looks. What is told to `due` decides, by these rules:

    - What was missed, while the machine slept or the clock was set forward, is due once for each
      schedule, however often it would have fired.
    - What has been due is not due again where the clock is set back before it.
    - But if so much time comes again that a schedule would fire twice in it, then the clock was
      wrong before: the schedule goes by the clock as it is now.

    So a schedule is never silent for more than two of its intervals, wherever the clock is set.
    """

    __slots__ = ("_armed", "_done", "_looked", "_phase", "schedules")

    def __init__(self, schedules: Sequence[Schedule], now: float, *, phase: float = 0.0) -> None:
        self.schedules = tuple(schedules)
        self._phase = phase  # of the intervals
        self._looked = now
        self._armed = [one.next_after(now, phase=phase) for one in self.schedules]
        self._done = [-math.inf] * len(self.schedules)  # up to then each has been due

    @property
    def next_at(self) -> float:
        """When the next one fires, by the wall clock; inf: never. Not before the last `due`."""
        return min(self._armed, default=math.inf)

    def due(self, now: float) -> tuple[Schedule, ...]:
        """Those that are due at `now`, in their order, until `take` is called; most often none."""
        if now < self._looked:
            self._go_back(now)
        self._looked = now
        armed = zip(self.schedules, self._armed, strict=True)
        return tuple(one for one, moment in armed if moment <= now)

    def take(self, now: float) -> None:
        """Those that are due at `now` are done. Apart from `due`, so that none is lost between."""
        for place, armed in enumerate(self._armed):
            if armed <= now:
                self._done[place] = now
                self._armed[place] = self._after(place, now)

    def _go_back(self, now: float) -> None:
        for place, done in enumerate(self._done):
            first = self._after(place, now)
            if first <= done:
                second = self._after(place, first)
                first = second if second > done else first  # else two would come again
            self._armed[place] = first

    def _after(self, place: int, moment: float) -> float:
        return self.schedules[place].next_after(moment, phase=self._phase)


def phase(key: str, slot: int = 0) -> float:
    """The phase of a slot of the pool `key`: from 0 up to 1, the same in every process.

    The slots of a pool are spread evenly (by the golden ratio, so however many there are), and
    pools against each other by chance.
    """
    # CRCs of similar names differ in few bits: multiplied, these reach the upper ones.
    offset = (crc32(key.encode("utf-8", "surrogatepass")) * 2_654_435_769 % 2**32) / 2**32
    return (offset + slot * 0.618_033_988_749_894_9) % 1.0


# ==== times ======================================================================================


def _on_grid(moment: float, interval: float, phase: float) -> float:
    """Counted from 1970, not from the last one: errors of rounding do not add up."""
    count = math.floor(moment / interval - phase) - 1  # it may have been rounded up
    while (count + phase) * interval <= moment:
        count += 1
    return (count + phase) * interval


def _readings(shown: datetime, zone: tzinfo) -> tuple[float, float]:
    """When clocks show `shown`: by the offset before a change near it, and by the one after it.

    They are the same where there is no change; the first is the later one where `shown` is skipped.
    """
    before = shown.replace(tzinfo=zone, fold=0).timestamp()
    return before, shown.replace(tzinfo=zone, fold=1).timestamp()


def _change(low: float, high: float, zone: tzinfo) -> float:
    """When clocks change, to the second: after `low`, and not after `high`."""
    offset = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high


# ==== what is written ============================================================================


def _made(expression: str, interval: float | None, zone: tzinfo) -> Schedule:
    schedule = object.__new__(Schedule)
    for name, value in zip(Schedule.__slots__, (expression, interval, zone), strict=True):
        object.__setattr__(schedule, name, value)
    return schedule


def _read(value: Any, name: str) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if not isinstance(value, str):
        advice = 'write text such as "0 3 * * *", "@daily" or "every 6h", or a Schedule'
        if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
            advice = f"write Schedule.every({value!r})"
        raise _refusal(name, value, advice, kind=TypeError)
    first, _, text = " ".join(value.split()).partition(" ")
    if first != "every" or not text or "," in text:
        return _made(_read_cron(value, name), None, UTC)
    try:
        return Schedule.every(text)
    except ValueError as error:
        said = str(error).removeprefix(f"interval={text!r}: ")
        meant = _meant_by_every(text) if isinstance(error, UnitError) else ""
    raise _refusal(name, value, meant or said)


def _read_cron(text: str, name: str) -> str:
    """The five fields of `text`, in one way of writing."""
    from cronsim import CronSim, CronSimError

    fields = _ALIASES.get(text.strip(), text).upper().split()
    if len(fields) != 5:
        raise _refusal(name, text, _meant(text.split()))
    for check, field in zip(_CHECKS, fields, strict=True):
        if wrong := check.wrong(field):
            raise _refusal(name, text, wrong)
    expression = " ".join(fields)
    try:
        if next(CronSim(expression, _ANY_DAY), None) is not None:
            return expression
    except CronSimError:  # all that it has to say of fields that are right
        advice = f"never fires: month {fields[3]} has no day {fields[2]}"
        raise _refusal(name, text, advice) from None
    raise _refusal(name, text, "never fires: in 50 years there is no such day")


def _meant(words: list[str]) -> str:
    """What is wrong with text that has not five fields, and what was meant by it."""
    first, rest = "".join(words[:1]), " ".join(words[1:])
    lower = first.lower()
    if re.search(r"[,;] ?(@|every |[0-9*]+ )", " ".join(words)):
        return 'several are a tuple: write ("0 3 * * *", "every 6h")'
    if lower == "@reboot":
        return "a pool that starts has new workers anyway: leave it out"
    if lower in ("every", "@every"):
        return _meant_by_every(rest.lower()) or 'write "every 6h", or a cron expression'
    if lower.startswith("@"):
        near = _near(lower, list(_ALIASES))
        return f'did you mean "{near}"?' if near else f"known are {', '.join(_ALIASES)}"
    if first.startswith(("CRON_TZ=", "TZ=")):
        return f'write Schedule.cron("{rest}", tz="{first.partition("=")[2]}")'
    if len(words) == 6 and first.isdecimal() and rest.isascii() and not re.search("[;,@]", rest):
        return f'has 6 fields, and seconds are not supported: write {_FIELDS}, such as "0 3 * * *"'
    if meant := _duration_meant(" ".join(words).lower()):
        return f'write "every {meant}"'
    if f"@{lower}" in _ALIASES:
        return f'did you mean "@{lower}"?'
    clock = re.fullmatch("([01]?[0-9]|2[0-3]):([0-5][0-9])", first)
    if clock and not rest:
        return f'write "{int(clock[2])} {int(clock[1])} * * *"'
    few = f"has {len(words)} field{'s' * (len(words) != 1)}, not five"
    return f'{few}: write {_FIELDS}, such as "0 3 * * *", or "@daily", or "every 6h"'


def _meant_by_every(text: str) -> str:
    """What to write for "every 6 hours", "every 6", "every day"."""
    likely = {"minute": "1m", "hour": "1h", "day": "1d", "night": "1d", "week": "7d"}
    if _is_number(text):
        return f'an interval needs its unit; write "every {text}h" or "every {text}m"'
    weeks = re.fullmatch("([0-9]{1,4}) ?(w|weeks?)", text)
    meant = f"{int(weeks[1]) * 7}d" if weeks else likely.get(text) or _duration_meant(text)
    return f'write "every {meant}"' if meant else ""


def _duration_meant(text: str) -> str:
    """What units make of "6 hours" or "6h": "6h", or "" of what is no duration."""
    try:
        parse_duration(text)
    except UnitError as error:
        meant = str(error).rpartition(": write ")[2]
        return "" if " " in meant else meant
    return text


class _Check:
    """What is wrong with one field. Stricter than cronsim: a step is not as large as its field."""

    def __init__(self, label: str, low: int, high: int, unit: str, special: str) -> None:
        self.label, self.low, self.high, self.unit, self.special = label, low, high, unit, special
        self.names = _NAMES.get(label, "").split()
        self.width = len(self.names) or high - low + 1  # Sunday is 0 and 7

    def wrong(self, field: str) -> str:
        terms = field.split(",")
        if "" in terms:
            return f"{self.label} {field}: a value is missing beside a comma"
        return next(filter(None, map(self._of_term, terms)), "")

    def _of_term(self, term: str) -> str:
        base, slash, step = term.partition("/")
        wrong = self._of_step(step) if slash else ""
        if wrong or base == "*" or (not slash and re.fullmatch(self.special, base)):
            return wrong
        begin, dash, end = base.partition("-")
        if not dash or not begin:
            return self._of_value(base)
        return self._of_value(begin) or self._of_value(end) or self._of_range(begin, end)

    def _of_step(self, step: str) -> str:
        if _is_number(step) and 1 <= int(step) < self.width:
            return ""
        means_every = self.unit and _is_number(step) and int(step)
        meant = f'"every {int(step)}{self.unit}"' if means_every else "such as */2"
        return f"{self.label} step {step} is not 1 to {self.width - 1}: write {meant}"

    def _of_range(self, begin: str, end: str) -> str:
        if self._number(begin) <= self._number(end):
            return ""
        names = self.names if begin in self.names else [self.low, self.low + self.width - 1]
        rest = end if end == names[0] else f"{names[0]}-{end}"
        meant = f"{begin}-{names[-1]},{rest}" if begin != "7" else f"0-{end}"
        return f"{self.label} {begin}-{end} runs backwards: write {meant}"

    def _of_value(self, value: str) -> str:
        label = f"{self.label} {value}"
        if _is_number(value.removeprefix("-")):
            fits = not value.startswith("-") and self.low <= int(value) <= self.high
            hint = "; midnight is 0" if label == "hour 24" else ""
            return "" if fits else f"{label} is out of range: write {self.low} to {self.high}{hint}"
        if value in self.names:
            return ""
        near = _near(value, self.names) or next(filter(value.startswith, self.names), "")
        names = f", or {self.names[0]} to {self.names[-1]}" if self.names else ""
        meant = f"did you mean {near}?" if near else f"write {self.low} to {self.high}{names}"
        return f"{label} is not known: {'write *' if value == '?' else meant}"

    def _number(self, value: str) -> int:
        return self.names.index(value) + self.low if value in self.names else int(value)


_NAMES = {
    "month": "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC",
    "day of week": "SUN MON TUE WED THU FRI SAT",
}
_CHECKS = (
    _Check("minute", 0, 59, "m", ""),
    _Check("hour", 0, 23, "h", ""),
    _Check("day of month", 1, 31, "d", "LW?"),
    _Check("month", 1, 12, "", ""),
    _Check("day of week", 0, 7, "", "[0-7]L|([0-7]|SUN|MON|TUE|WED|THU|FRI|SAT)#[1-5]"),
)


def _is_number(text: str) -> bool:
    return re.fullmatch("[0-9]{1,9}", text) is not None


def _zone(tz: object) -> tzinfo:
    if tz is None or tz in ("UTC", UTC) or getattr(tz, "key", "") == "UTC":
        return UTC  # which needs no data
    if isinstance(tz, ZoneInfo) and tz.key is None:
        raise _refusal("tz", tz, "it has no name: write ZoneInfo.from_file(file, key=...)")
    if isinstance(tz, ZoneInfo):
        return tz
    example = 'write the name of a zone, such as "Europe/Berlin"'
    if not isinstance(tz, str):
        raise _refusal("tz", tz, example, kind=TypeError)
    try:
        return ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
    if not known:
        raise _refusal("tz", tz, "there is no time zone data here: pip install tzdata")
    # "GMT+1" is like "Etc/GMT+1", which is an hour behind UTC.
    meant = [zone for zone in known if not zone.startswith("Etc/")]
    same = [zone for zone in meant if tz.lower() in (zone.lower(), zone.lower().split("/")[-1])]
    near = min(same, key=len) if same else _near(tz, sorted(z for z in meant if "/" in z))
    raise _refusal("tz", tz, f'did you mean "{near}"?' if near else example)


def _written(seconds: float) -> str | float:
    """As it may be written, where nothing is lost by it."""
    text = format_duration(seconds)
    return text if parse_duration(text) == seconds else seconds


def _near(word: str, known: list[str]) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(word, known, 1, 0.75)), "")


def _refusal(
    name: str, value: object, advice: str, *, kind: type[Exception] = ValueError
) -> Exception:
    shown = repr(value)
    return kind(f"{name}={shown if len(shown) <= 200 else shown[:200] + '...'}: {advice}")
