"""The frozen values that tell what a pool is, and how an epoch of it ended.

Imported by those who ask, not with the package: to make so many dataclasses takes longer than
all the rest of it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recyclepool.states import PoolState, Reason, State
from recyclepool.units import format_size

__all__ = [
    "AbandonedWorker",
    "CacheStats",
    "CloseReport",
    "Histogram",
    "PoolStats",
    "Reading",
    "WorkerStack",
    "WorkerStats",
]


@dataclass(frozen=True, slots=True)
class CacheStats:
    """A cache at one moment. `entries` and `bytes` include what expired and was not noticed yet."""

    entries: int
    bytes: int
    budget: int
    hits: int
    misses: int
    evictions: Mapping[str, int]  # by EvictionCause: how many entries went


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long things took. `counts` has one number more than `buckets`: for what is above all."""

    buckets: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Reading:
    """What somebody held when it was last looked at. docs/memory.md says what the kinds mean."""

    kind: str  # "owned" of a thread worker, "rss" of a process, "uss" of a process worker
    bytes: int
    at: float  # the wall clock
    is_bound: bool = False  # it is `bytes` or more: the look ended before all was decided
    undecided: int = 0  # containers that it left open
    largest: tuple[tuple[str, int], ...] = ()  # when it was over the limit: roots, and their bytes

    def __str__(self) -> str:
        bound = ">= " if self.is_bound else ""
        return f"{bound}{format_size(self.bytes)} {self.kind}"


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker as it was at one moment. Seconds are floats."""

    slot: int
    generation: int
    state: State
    tasks: int
    age: float
    idle_for: float | None  # None while it is busy or starting
    task_name: str | None  # None while it runs none; of an abandoned one, what it is stuck in
    task_running: float | None
    due: Reason | None = None  # why it is to be replaced: it serves until its successor is ready
    stack: str | None = None  # of an abandoned one: where it was when it was given up
    memory: Reading | None = None  # None: no limit asks for it, or it was not looked at yet
    cache_bytes: int = 0  # that the entries of its cache count for


@dataclass(frozen=True, slots=True)
class WorkerStack:
    """What one worker does at one moment."""

    slot: int
    generation: int
    state: State
    task_name: str | None
    stack: str  # innermost call last; empty before its thread runs


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool as it was at one moment. Counters never go back, whatever is closed and reopened."""

    name: str
    backend: str
    state: PoolState
    max_workers: int
    max_queue: int | None  # how many may be queued; None: any number
    queued: int  # a task that was cancelled counts until a worker passes it
    submitted: int  # one that was refused as it came may be among them
    completed: int
    failed: int
    cancelled: int
    timed_out: int
    lost: int  # their worker died
    aborted: int
    abandoned: int  # stuck threads that still live
    rejected: int  # submits refused
    rejected_full: int  # those of them that found the queue full
    events_dropped: int  # for which subscribers were too slow
    callback_errors: int  # of subscribers
    failed_starts: int
    recycles: Mapping[str, int]  # reason -> count; "close" counts the workers of every end
    utilization: float  # the share of max_workers that run a task right now
    busy_seconds: float
    oldest_queued: float | None  # seconds that the first in the queue has waited
    wait: Histogram
    run: Histogram
    recycle: Histogram  # from when a worker was told to go, to be replaced, to its thread's end
    freed_bytes: int  # that workers owned who were replaced for their memory
    cache: CacheStats  # counts: of all that ever were; the rest: of the workers that are here
    workers: tuple[WorkerStats, ...]
    memory: Reading | None = None  # of the process; None without Limits(pool_memory=)
    paused: bool = False  # dispatch waits: the process is above Limits(pool_memory=)
    memory_limit: int | None = None  # bytes: Limits(memory=)
    pool_memory_limit: int | None = None  # bytes: Limits(pool_memory=)
    # Of the wall clock.
    watchdog_tick: float | None = None  # its last look that did not fail; None: it has no watchdog
    watchdog_due: float | None = None  # when it was to look next, by then; None: at no time
    next_schedule: float | None = None  # when the next restart is; None: there is no schedule

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for json.dumps."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AbandonedWorker:
    """A worker whose thread did not end: what it was doing when it was given up."""

    slot: int
    generation: int
    task_name: str | None
    stack: str


@dataclass(frozen=True, slots=True)
class CloseReport:
    """How an epoch ended: what happened to its tasks from the call to the end."""

    completed: int = 0  # ran to their end, in a result or an error
    cancelled: int = 0
    aborted: int = 0  # stopped before their end, by a deadline too
    abandoned: tuple[AbandonedWorker, ...] = ()
    timed_out: bool = False
    seconds: float = 0.0
