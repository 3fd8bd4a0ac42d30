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
    from recyclepool.events import (
        AbandonedWorker,
        CacheStats,
        CacheTrimmed,
        CloseReport,
        Event,
        Histogram,
        MemoryLimitTooLow,
        MemoryNotOwned,
        MemoryPressure,
        MemoryRelieved,
        MemoryReturned,
        PoolBroken,
        PoolClosed,
        PoolClosing,
        PoolStats,
        QueueFull,
        QueueRelieved,
        Reading,
        TaskTimedOut,
        TeardownFailed,
        WatchdogFailed,
        WorkerAbandoned,
        WorkerDue,
        WorkerLost,
        WorkerReady,
        WorkerRetired,
        WorkerStack,
        WorkerStartFailed,
        WorkerStats,
    )
    from recyclepool.limits import Limits

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


def __getattr__(name: str) -> Any:
    """What only some programs ask for is imported when they do."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "memory":
        return importlib.import_module("recyclepool.memory")
    from recyclepool import events, limits

    return getattr(limits if name == "Limits" else events, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
