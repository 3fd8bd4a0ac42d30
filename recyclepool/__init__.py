"""A ``ThreadPoolExecutor`` whose workers stay warm, are watched, and are replaced one at a time."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from recyclepool import backends
from recyclepool.cache import WorkerCache
from recyclepool.errors import (
    BrokenRecyclePool,
    OutsideWorkerError,
    PoolClosedError,
    QueueFullError,
    RecyclePoolError,
    TaskAbort,
    TaskAbortedError,
    TaskTimeoutError,
    UnitError,
    WorkerLostError,
    WorkerStartError,
)
from recyclepool.pool import RecyclePool, dump, pools
from recyclepool.states import PoolState, Reason, State
from recyclepool.worker_local import current_worker, per_worker

if TYPE_CHECKING:
    from recyclepool import memory
    from recyclepool import metrics as metrics
    from recyclepool.events import (
        CacheTrimmed,
        Event,
        MemoryLimitTooLow,
        MemoryNotOwned,
        MemoryPressure,
        MemoryRelieved,
        MemoryReturned,
        PoolBroken,
        PoolClosed,
        PoolClosing,
        QueueFull,
        QueueRelieved,
        ScheduleFired,
        TaskTimedOut,
        TeardownFailed,
        WatchdogFailed,
        WorkerAbandoned,
        WorkerDue,
        WorkerLost,
        WorkerReady,
        WorkerRetired,
        WorkerStartFailed,
    )
    from recyclepool.limits import Limits
    from recyclepool.schedule import Schedule
    from recyclepool.snapshots import (
        AbandonedWorker,
        CacheStats,
        CloseReport,
        Histogram,
        PoolStats,
        Reading,
        WorkerStack,
        WorkerStats,
    )

ThreadPoolExecutor = RecyclePool  # the one changed import

logging.getLogger("recyclepool").addHandler(logging.NullHandler())

__version__ = "0.1.0"

__all__ = [
    "AbandonedWorker",
    "BrokenRecyclePool",
    "CacheStats",
    "CacheTrimmed",
    "CloseReport",
    "Event",
    "Histogram",
    "Limits",
    "MemoryLimitTooLow",
    "MemoryNotOwned",
    "MemoryPressure",
    "MemoryRelieved",
    "MemoryReturned",
    "OutsideWorkerError",
    "PoolBroken",
    "PoolClosed",
    "PoolClosedError",
    "PoolClosing",
    "PoolState",
    "PoolStats",
    "QueueFull",
    "QueueFullError",
    "QueueRelieved",
    "Reading",
    "Reason",
    "RecyclePool",
    "RecyclePoolError",
    "Schedule",
    "ScheduleFired",
    "State",
    "TaskAbort",
    "TaskAbortedError",
    "TaskTimedOut",
    "TaskTimeoutError",
    "TeardownFailed",
    "ThreadPoolExecutor",
    "UnitError",
    "WatchdogFailed",
    "WorkerAbandoned",
    "WorkerCache",
    "WorkerDue",
    "WorkerLost",
    "WorkerLostError",
    "WorkerReady",
    "WorkerRetired",
    "WorkerStack",
    "WorkerStartError",
    "WorkerStartFailed",
    "WorkerStats",
    "backends",
    "current_worker",
    "dump",
    "memory",
    "per_worker",
    "pools",
]


# What is imported when it is asked for, and is no event.
_ELSEWHERE = {
    "Limits": "limits",
    "Schedule": "schedule",
    **dict.fromkeys(("AbandonedWorker", "CacheStats", "CloseReport", "Histogram"), "snapshots"),
    **dict.fromkeys(("PoolStats", "Reading", "WorkerStack", "WorkerStats"), "snapshots"),
}


def __getattr__(name: str) -> Any:
    """What only some programs ask for is imported when they do."""
    if name == "metrics":  # not in __all__: `import *` does not bring prometheus_client
        return importlib.import_module("recyclepool.metrics")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "memory":
        return importlib.import_module("recyclepool.memory")
    module = _ELSEWHERE.get(name, "events")
    return getattr(importlib.import_module(f"recyclepool.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
