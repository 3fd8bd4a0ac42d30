"""When a worker is to go. Every limit is optional and off by default."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from recyclepool._explained import explained
from recyclepool._rules import Rules
from recyclepool.units import Duration, Size, parse_duration, parse_size, percent_of

__all__ = ["Limits"]

LEAST_PAUSE = 0.01  # seconds between two readings of a worker's memory
LEAST_TEARDOWN = 1.0  # seconds: one that has nothing to tear down needs its moment, too


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is replaced, and how. Durations are seconds, or text such as "1h30m".

    Soft, acted on between tasks, the successor first:

    - ``tasks``: a worker goes after that many tasks, exactly; its successor starts when the last
      of them does.
    - ``memory``: what a worker may own, as ``"512MiB"``, bytes, or ``"10%"`` of the container's
      limit: what its recycle would free, proven (docs/memory.md). Over it in ``memory_samples``
      readings in a row, at least ``sample_every`` apart, and at least ``min_age`` old, it has its
      cache trimmed to half, and is due if that is not enough. At 1.5 times the limit, or where it
      will be there by the next reading, it waits for none of these, and takes no other task.
    - ``pool_memory``: what the whole process may take. Above it memory is given back, the worker
      that owns most is replaced, and where nothing helps dispatch pauses and the cause is told.
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
    - ``jitter``: 0 to 1, for ``age``, for ``sample_every`` and for the pauses between starts that
      fail.
    - ``report_only``: tell what would be done, in events and log lines, and do nothing.

    Raises TypeError or ValueError (UnitError for sizes and durations) for what makes no sense.
    ``memory_hard`` is for backends that can kill, which are to come: to set it raises ValueError.
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
        if self.memory_hard is not None:
            raise ValueError(
                "Limits(memory_hard=...) needs workers that can be killed, which this version does "
                'not have: write memory="512MiB", which replaces a worker between two tasks'
            )
        for name in ("memory", "pool_memory"):
            self._normalize(name, _size)
        for name in ("age", "idle", "task_timeout", "hang", "start_timeout"):
            self._normalize(name, _limit)
        self._normalize("sample_every", _pause)
        self._normalize("memory_samples", _at_least(1, optional=False))
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
            memory=_bytes("memory", self.memory),
            pool_memory=_bytes("pool_memory", self.pool_memory),
            memory_samples=self.memory_samples,
            sample_every=parse_duration(self.sample_every),
            min_age=parse_duration(self.min_age),
        )


Limits.__init__ = explained(Limits.__init__)  # type: ignore[method-assign]


def _seconds(limit: Duration | None) -> float:
    return inf if limit is None else parse_duration(limit)


def _bytes(name: str, limit: Size | None) -> float:
    """A percentage is of what the container has when the pool is made."""
    if limit is None:
        return inf
    from recyclepool._host_memory import limit_in_bytes

    return limit_in_bytes(limit, name)


def _size(name: str, value: Any) -> Any:
    """In bytes; a percentage as it was written: it is of what there is when a pool is made."""
    if value is None or (isinstance(value, str) and percent_of(value, name=name) is not None):
        return value
    size = parse_size(value, name=name)
    if size == 0:
        raise ValueError(f"Limits({name}={value!r}): write more than 0, or None for no limit")
    return size


def _pause(name: str, value: Any) -> float:
    seconds = _duration(name, value)
    if seconds < LEAST_PAUSE:
        raise ValueError(
            f"Limits({name}={value!r}): write {LEAST_PAUSE} seconds or more, such as {name}=1.0"
        )
    return seconds


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
