"""When a worker is to go. Every limit is optional and off by default."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import inf, isfinite
from typing import Any

from recyclepool._explained import explained
from recyclepool._rules import Rules
from recyclepool.units import Duration, Size, parse_duration

__all__ = ["Limits"]

LEAST_TEARDOWN = 1.0  # seconds: one that has nothing to tear down needs its moment, too

_LATER = ("memory", "memory_hard", "pool_memory", "memory_samples", "sample_every")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is replaced, and how. Durations are seconds, or text such as "1h30m".

    Soft, acted on between tasks, the successor first:

    - ``tasks``: a worker goes after that many tasks, exactly; its successor starts when the last
      of them does.
    - ``age``: a worker is due when it is that old (``jitter`` makes that up to a tenth earlier, at
      random, so that workers do not all go at once). It serves until its successor is ready.
    - ``idle``: a worker that had nothing to do for that long goes, and has no successor, as long
      as more than ``min_workers`` are left.

    Hard, the running task is lost, and its future has a TaskTimeoutError at once:

    - ``task_timeout``: how long a task may run.
    - ``hang``: how long it may run without a ``current_worker().heartbeat()``.

    How they are applied:

    - ``grace``: what a task that is told to stop, or a worker's teardown, may take before the
      worker is given up (a thread is abandoned: it cannot be killed).
    - ``start_timeout``: what a worker may take to become ready; None: as long as it likes.
    - ``max_surge``: how many workers more than ``max_workers`` may live while some are replaced;
      0: the old one leaves first.
    - ``max_abandoned``: how many abandoned threads may live; one more, and the pool is broken.
      None: as many as ``max_workers``.
    - ``jitter``: 0 to 1, for ``age`` and for the pauses between starts that fail.
    - ``min_age``: for memory limits only, which are to come.
    - ``report_only``: tell what would be done, in events and log lines, and do nothing.

    Raises TypeError or ValueError (UnitError for a duration) for what makes no sense. The memory
    limits belong to versions to come: until they work, to set one raises a ValueError.
    """

    tasks: int | None = None
    memory: Size | None = None
    memory_hard: Size | None = None
    pool_memory: Size | None = None
    age: Duration | None = None
    idle: Duration | None = None
    task_timeout: Duration | None = None
    hang: Duration | None = None
    memory_samples: int = 3
    sample_every: Duration = 1.0
    min_age: Duration = 10.0
    jitter: float = 0.1
    grace: Duration = 5.0
    start_timeout: Duration | None = 60.0
    max_surge: int = 1
    max_abandoned: int | None = None
    report_only: bool = False

    def __post_init__(self) -> None:
        defaults = {field.name: field.default for field in fields(self)}
        for name in _LATER:
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"Limits({name}=...) does not work yet in this version: leave it out. "
                    f'What works is Limits(tasks=10_000, age="6h", idle="5m", task_timeout="30s", '
                    f'hang="2m")'
                )
        for name in ("age", "idle", "task_timeout", "hang", "start_timeout"):
            self._normalize(name, _limit)
        for name in ("min_age", "grace"):
            self._normalize(name, _duration)
        self._normalize("jitter", _jitter)
        self._normalize("tasks", _at_least(1))
        self._normalize("max_surge", _at_least(0, optional=False))
        self._normalize("max_abandoned", _at_least(0))
        if not isinstance(self.report_only, bool):
            raise TypeError(f"Limits(report_only={self.report_only!r}): write True or False")

    def _normalize(self, name: str, read: Callable[[str, Any], Any]) -> None:
        object.__setattr__(self, name, read(name, getattr(self, name)))

    def rules(self) -> Rules:
        """The same, as the numbers that the pool reads."""
        grace = parse_duration(self.grace)
        return Rules(
            tasks=self.tasks or 0,
            age=_seconds(self.age),
            idle=_seconds(self.idle),
            task_timeout=_seconds(self.task_timeout),
            hang=_seconds(self.hang),
            jitter=self.jitter,
            grace=grace,
            start_timeout=_seconds(self.start_timeout),
            teardown=max(grace, LEAST_TEARDOWN),
            surge=self.max_surge,
            max_abandoned=self.max_abandoned,
            report_only=self.report_only,
        )


Limits.__init__ = explained(Limits.__init__)  # type: ignore[method-assign]


def _seconds(limit: Duration | None) -> float:
    return inf if limit is None else parse_duration(limit)


def _duration(name: str, value: Any) -> float:
    if value is None:
        raise TypeError(f'Limits({name}=None): write a duration, such as {name}="5s"')
    return parse_duration(value, name=name)


def _limit(name: str, value: Any) -> float | None:
    if value is None:
        return None
    seconds = parse_duration(value, name=name)
    if seconds <= 0.0:
        raise ValueError(f"Limits({name}={value!r}): write more than 0, or None for no limit")
    return seconds


def _jitter(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Limits({name}={value!r}): write a number from 0 to 1, such as 0.1")
    if not (isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"Limits({name}={value!r}): write a number from 0 to 1, such as 0.1")
    return float(value)


def _at_least(least: int, *, optional: bool = True) -> Callable[[str, Any], int | None]:
    or_none = ", or None" if optional else ""

    def read(name: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not hasattr(type(value), "__index__"):
            example = "10_000" if name == "tasks" else "1"
            raise TypeError(
                f"Limits({name}={value!r}): write how many as an int, such as "
                f"{name}={example}{or_none}"
            )
        number = int(value.__index__())
        if number < least:
            no_limit = " for no limit" if name == "tasks" else ""
            raise ValueError(f"Limits({name}={value!r}): write {least} or more{or_none}{no_limit}")
        return number

    return read
