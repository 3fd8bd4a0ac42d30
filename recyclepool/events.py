"""The frozen values that tell what is, and what was.

Imported by those who ask, not with the package: to make so many dataclasses takes longer than
all the rest of it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recyclepool.states import BUCKETS, PoolState, Reason, State

__all__ = [
    "BUCKETS",
    "AbandonedWorker",
    "CacheStats",
    "CloseReport",
    "Histogram",
    "PoolState",
    "PoolStats",
    "Reason",
    "State",
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
class WorkerStats:
    """One worker as it was at one moment. Seconds are floats."""

    slot: int
    generation: int
    state: State
    tasks: int
    age: float
    idle_for: float | None  # None while it is busy or starting
    task_name: str | None  # None while it runs none
    task_running: float | None


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool as it was at one moment. Counters never go back, whatever is closed and reopened."""

    name: str
    backend: str
    state: PoolState
    max_workers: int
    queued: int  # a task that was cancelled counts until a worker passes it
    submitted: int
    completed: int
    failed: int
    cancelled: int
    aborted: int
    abandoned: int  # stuck threads that still live
    rejected: int  # submits refused
    failed_starts: int
    recycles: Mapping[str, int]  # reason -> count; "close" counts the workers of every end
    utilization: float  # the share of max_workers that run a task right now
    busy_seconds: float
    oldest_queued: float | None  # seconds that the first in the queue has waited
    wait: Histogram
    run: Histogram
    cache: CacheStats  # of the workers that are here, together
    workers: tuple[WorkerStats, ...]

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
    aborted: int = 0
    abandoned: tuple[AbandonedWorker, ...] = ()
    timed_out: bool = False
    seconds: float = 0.0
