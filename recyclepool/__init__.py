"""A ``ThreadPoolExecutor`` whose workers stay warm, are watched, and are replaced one at a time."""

from recyclepool import backends
from recyclepool.cache import CacheStats, WorkerCache
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
from recyclepool.events import (
    AbandonedWorker,
    CloseReport,
    Histogram,
    PoolState,
    PoolStats,
    Reason,
    State,
    WorkerStats,
)
from recyclepool.limits import Limits
from recyclepool.pool import RecyclePool, pools
from recyclepool.worker_local import current_worker, per_worker

ThreadPoolExecutor = RecyclePool  # the one changed import

__version__ = "0.1.0"

__all__ = [
    "AbandonedWorker",
    "BrokenRecyclePool",
    "CacheStats",
    "CloseReport",
    "Histogram",
    "Limits",
    "OutsideWorkerError",
    "PoolClosedError",
    "PoolState",
    "PoolStats",
    "QueueFullError",
    "Reason",
    "RecyclePool",
    "RecyclePoolError",
    "State",
    "TaskAbort",
    "TaskAbortedError",
    "TaskTimeoutError",
    "ThreadPoolExecutor",
    "UnitError",
    "WorkerCache",
    "WorkerLostError",
    "WorkerStartError",
    "WorkerStats",
    "backends",
    "current_worker",
    "per_worker",
    "pools",
]
