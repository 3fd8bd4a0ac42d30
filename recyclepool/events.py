"""The frozen values that tell what happened in a pool.

Imported by those who ask, not with the package: to make so many dataclasses takes longer than
all the rest of it.
"""

import logging
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from recyclepool._holders import told
from recyclepool.states import Reason
from recyclepool.units import format_duration, format_size

__all__ = [
    "CacheTrimmed",
    "Event",
    "MemoryLimitTooLow",
    "MemoryNotOwned",
    "MemoryPressure",
    "MemoryRelieved",
    "MemoryReturned",
    "PoolBroken",
    "PoolClosed",
    "PoolClosing",
    "QueueFull",
    "QueueRelieved",
    "TaskTimedOut",
    "TeardownFailed",
    "WatchdogFailed",
    "WorkerAbandoned",
    "WorkerDue",
    "WorkerLost",
    "WorkerReady",
    "WorkerRetired",
    "WorkerStartFailed",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a pool. ``str()`` of it is its one log line.

    ``pool`` is the pool's name, ``at`` the wall clock (``time.time()``) when it happened.
    """

    pool: str
    at: float

    _usual_level: ClassVar[int] = logging.DEBUG

    @property
    def level(self) -> int:
        """The logging level of its line."""
        return self._usual_level

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for json.dumps: ``event`` is what happened, then its fields."""
        return {"event": type(self).__name__, **asdict(self)}

    def __str__(self) -> str:
        # One line, whatever stands in the words of a task or an error.
        return " ".join(f"pool {self.pool!r}: {self._line()}".splitlines())

    def _line(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, slots=True)
class _WorkerEvent(Event):
    slot: int
    generation: int

    @property
    def _worker(self) -> str:
        return f"worker {self.slot}.{self.generation}"


@dataclass(frozen=True, slots=True)
class WorkerReady(_WorkerEvent):
    """A worker serves from now on. Its start took `seconds`."""

    seconds: float

    def _line(self) -> str:
        return f"{self._worker} is ready, its start took {format_duration(self.seconds)}"


@dataclass(frozen=True, slots=True)
class WorkerDue(_WorkerEvent):
    """A worker is to be replaced, and serves until its successor is ready.

    With `report_only` it stays: only a limit that would have it replaced was reached.
    """

    reason: Reason
    why: str
    report_only: bool = False

    @property
    def level(self) -> int:
        """The logging level of its line."""
        return logging.INFO if self.report_only else logging.DEBUG

    def _line(self) -> str:
        cause = _cause(self.reason, self.why)
        if self.report_only:
            return f"{self._worker} would be replaced: {cause} (report only)"
        return f"{self._worker} is due to be replaced: {cause}"


@dataclass(frozen=True, slots=True)
class WorkerRetired(_WorkerEvent):
    """A worker has gone, `seconds` after it was told to, at the age of `age` seconds."""

    reason: Reason
    why: str
    tasks: int
    age: float
    seconds: float

    @property
    def level(self) -> int:
        """The logging level of its line: the end of a pool is no news of its workers."""
        return logging.DEBUG if self.reason is Reason.CLOSE else logging.INFO

    def _line(self) -> str:
        tasks = "1 task" if self.tasks == 1 else f"{self.tasks} tasks"
        return (
            f"{self._worker} retired: {_cause(self.reason, self.why)}; {tasks} in "
            f"{format_duration(self.age)}, gone after {format_duration(self.seconds)}"
        )


@dataclass(frozen=True, slots=True)
class WorkerLost(_WorkerEvent):
    """A worker's driver died of an error that was not a task's."""

    error: str

    _usual_level: ClassVar[int] = logging.ERROR

    def _line(self) -> str:
        return f"{self._worker} was lost, its driver died: {self.error}"


@dataclass(frozen=True, slots=True)
class WorkerAbandoned(_WorkerEvent):
    """A worker was given up: its thread does not end. `stack` is what it was doing.

    `reason` is why it was to go; None: it did not become ready in time.
    """

    reason: Reason | None
    task_name: str | None
    stack: str

    _usual_level: ClassVar[int] = logging.WARNING

    def _line(self) -> str:
        if self.task_name is not None:
            stuck = f"its task {self.task_name!r}"
        else:
            stuck = "its start" if self.reason is None else "its thread"
        reason = "" if self.reason is None else f" ({self.reason})"
        return f"{self._worker} abandoned{reason}: {stuck} does not end{_place(self.stack)}"


@dataclass(frozen=True, slots=True)
class WorkerStartFailed(_WorkerEvent):
    """A worker could not be started, for the `failures`-th time in a row.

    `retry_in` is when it is tried again, in seconds; None: not by itself.
    """

    error: str
    failures: int
    retry_in: float | None

    _usual_level: ClassVar[int] = logging.WARNING

    def _line(self) -> str:
        times = "" if self.failures < 2 else f" ({self.failures} times in a row)"
        again = "no other try"
        if self.retry_in is not None:
            again = f"next try in {format_duration(self.retry_in)}"
        return f"{self._worker} could not be started{times}: {self.error}; {again}"


@dataclass(frozen=True, slots=True)
class TeardownFailed(_WorkerEvent):
    """A worker's finalizer or another piece of its teardown raised. It has gone all the same."""

    error: str

    _usual_level: ClassVar[int] = logging.WARNING

    def _line(self) -> str:
        return f"{self._worker}: its teardown failed: {self.error}"


@dataclass(frozen=True, slots=True)
class TaskTimedOut(_WorkerEvent):
    """A task ran for longer than it may, or gave no sign of life for too long: `seconds`.

    `reason` is TIMEOUT or HANG. Its future has a TaskTimeoutError. With `report_only` it runs on.
    """

    task_name: str | None
    reason: Reason
    seconds: float
    report_only: bool = False

    @property
    def level(self) -> int:
        """The logging level of its line."""
        return logging.INFO if self.report_only else logging.WARNING

    def _line(self) -> str:
        task = "a task" if self.task_name is None else f"task {self.task_name!r}"
        seconds = format_duration(self.seconds)
        if self.reason is Reason.HANG:
            happened = f"hangs: no sign of life for {seconds}"
        else:
            timed_out = "would time out" if self.report_only else "timed out"
            happened = f"{timed_out}: it has run for {seconds}"
        return f"{self._worker}: {task} {happened}{' (report only)' if self.report_only else ''}"


@dataclass(frozen=True, slots=True)
class QueueFull(Event):
    """A submit found no place in a bounded queue. Told again only after it was half empty."""

    queued: int

    _usual_level: ClassVar[int] = logging.WARNING

    def _line(self) -> str:
        return f"its queue is full: {self.queued} tasks wait"


@dataclass(frozen=True, slots=True)
class QueueRelieved(Event):
    """A bounded queue that was full is half empty, or less."""

    queued: int

    _usual_level: ClassVar[int] = logging.INFO

    def _line(self) -> str:
        return f"its queue is no longer full: {self.queued} tasks wait"


@dataclass(frozen=True, slots=True)
class CacheTrimmed(_WorkerEvent):
    """A worker over its memory limit was saved: half of its cache was enough. Owned bytes."""

    before: int
    after: int

    _usual_level: ClassVar[int] = logging.INFO

    def _line(self) -> str:
        before, after = format_size(self.before), format_size(self.after)
        return f"{self._worker} owned {before}; half of its cache went, and {after} are left"


@dataclass(frozen=True, slots=True)
class MemoryLimitTooLow(_WorkerEvent):
    """A worker owns more than it may after its first task: a recycle cannot keep it below that.

    Its recycles back off: the age at which one goes for its memory doubles each time.
    """

    owned: int
    limit: int

    _usual_level: ClassVar[int] = logging.WARNING

    def _line(self) -> str:
        owned, limit = format_size(self.owned), format_size(self.limit)
        return (
            f"{self._worker} owns {owned} after its first task, and the limit is {limit}: too low "
            f"for recycles to help, so they become rare"
        )


@dataclass(frozen=True, slots=True)
class MemoryNotOwned(_WorkerEvent):
    """Much can be reached from a worker that its recycle would not free. Told once for each."""

    what: str

    _usual_level: ClassVar[int] = logging.INFO

    def _line(self) -> str:
        return f"{self._worker}: {self.what}"


@dataclass(frozen=True, slots=True)
class MemoryReturned(_WorkerEvent):
    """What the recycle of a worker for its memory gave back, told after it has gone.

    `owned_bytes` were proven just before. `rss_delta` is how the process changed since then, to its
    floor (the least RSS of a quarter of a second), whoever changed it: less than 0 is memory that
    the system has back. `trim_seconds`: to collect garbage and to have free memory returned took
    that long; None: it was not needed.
    """

    owned_bytes: int
    largest: tuple[tuple[str, int], ...]
    rss_delta: int
    noise: int  # changes of less than that say nothing
    trim_seconds: float | None

    _usual_level: ClassVar[int] = logging.INFO

    def _line(self) -> str:
        roots = told(self.largest)
        moved = format_size(abs(self.rss_delta))
        change = f"fell by {moved}" if self.rss_delta <= 0 else f"rose by {moved}"
        trimmed = ""
        if self.trim_seconds is not None:
            trimmed = f", after a trim of {format_duration(self.trim_seconds)}"
        owned = f"{format_size(self.owned_bytes)} ({roots})" if roots else ""
        owned = owned or format_size(self.owned_bytes)
        return f"{self._worker} owned {owned}; the process {change}{trimmed}"


@dataclass(frozen=True, slots=True)
class MemoryPressure(Event):
    """The process is above ``Limits(pool_memory=)``, and recycles do not help: here is the cause.

    Told once, until something helps. With `paused` no task is started for a while.
    """

    rss: int
    limit: int
    cause: str
    paused: bool

    _usual_level: ClassVar[int] = logging.WARNING

    def _line(self) -> str:
        paused = "; no task is started for a while" if self.paused else ""
        rss, limit = format_size(self.rss), format_size(self.limit)
        return f"the process takes {rss}, the limit is {limit}: {self.cause}{paused}"


@dataclass(frozen=True, slots=True)
class MemoryRelieved(Event):
    """Dispatch goes on: the process is below its limit, or the pause was long enough."""

    rss: int
    limit: int

    _usual_level: ClassVar[int] = logging.INFO

    def _line(self) -> str:
        rss, limit = format_size(self.rss), format_size(self.limit)
        return f"tasks are started again: the process takes {rss}, the limit is {limit}"


@dataclass(frozen=True, slots=True)
class ScheduleFired(Event):
    """The time of a schedule has come: `due` workers are to be replaced for it, one by one.

    `joined` more are replaced by a restart that was under way. `slot` is the one whose interval is
    over; None: all are meant.
    """

    schedule: str
    slot: int | None
    due: int
    joined: int

    _usual_level: ClassVar[int] = logging.INFO

    def _line(self) -> str:
        slot = "" if self.slot is None else f" in slot {self.slot}"
        workers = "1 worker is" if self.due == 1 else f"{self.due} workers are"
        joined = f", {self.joined} more by the restart that is under way" if self.joined else ""
        return f"schedule {self.schedule}: {workers} replaced{slot}{joined}"


@dataclass(frozen=True, slots=True)
class PoolClosing(Event):
    """A pool began to end its epoch: it takes no tasks until that is over."""

    def _line(self) -> str:
        return "closing"


@dataclass(frozen=True, slots=True)
class PoolClosed(Event):
    """A pool's epoch is over, `seconds` after its end began."""

    seconds: float

    def _line(self) -> str:
        return f"closed in {format_duration(self.seconds)}"


@dataclass(frozen=True, slots=True)
class PoolBroken(Event):
    """A pool refuses tasks, until close() or destroy() makes it try again."""

    error: str

    _usual_level: ClassVar[int] = logging.ERROR

    def _line(self) -> str:
        return f"broken, it takes no tasks: {self.error}"


@dataclass(frozen=True, slots=True)
class WatchdogFailed(Event):
    """The thread that watches a pool's deadlines failed."""

    error: str

    _usual_level: ClassVar[int] = logging.ERROR

    def _line(self) -> str:
        return f"its watchdog failed: {self.error}"


def _cause(reason: Reason, why: str) -> str:
    """The reason in its word, and in words."""
    return why if why.startswith(reason) else f"{reason}: {why}" if why else str(reason)


def _place(stack: str) -> str:
    """Where the innermost frame of a formatted stack is."""
    places = [line.strip() for line in stack.splitlines() if line.startswith('  File "')]
    return f", in {places[-1]}" if places else ""
