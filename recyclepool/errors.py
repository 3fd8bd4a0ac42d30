"""The exceptions of recyclepool. Each is also the standard class that callers already catch.

    Exception
      RecyclePoolError
        PoolClosedError        (RuntimeError)      the pool takes no more tasks
        QueueFullError         (queue.Full)        the queue has no place left
        BrokenRecyclePool      (BrokenThreadPool)  no worker can be started: close() it, try again
        WorkerLostError        (BrokenExecutor)    this one task's worker died; the pool lives on
        WorkerStartError       (RuntimeError)      a worker could not be started
        OutsideWorkerError     (RuntimeError)      current_worker() or @per_worker outside a task
        TaskTimeoutError       (TimeoutError)      the task ran longer than it was allowed to
        TaskAbortedError                           the task was stopped by destroy() or cancel()
        UnitError              (ValueError)        a size or duration that cannot be read
    BaseException
      TaskAbort                                    surfaces *inside* a task that is to end now

All can be pickled: each takes its message only.
"""

from concurrent.futures import BrokenExecutor
from concurrent.futures.thread import BrokenThreadPool
from queue import Full

__all__ = [
    "BrokenRecyclePool",
    "OutsideWorkerError",
    "PoolClosedError",
    "QueueFullError",
    "RecyclePoolError",
    "TaskAbort",
    "TaskAbortedError",
    "TaskTimeoutError",
    "UnitError",
    "WorkerLostError",
    "WorkerStartError",
]


class RecyclePoolError(Exception):
    """What every error of this package is."""


class PoolClosedError(RecyclePoolError, RuntimeError):
    """The pool takes no more tasks: it is closing, or it was shut down."""


class QueueFullError(RecyclePoolError, Full):
    """The queue has no place left, and waiting for one was not wanted or not possible."""


class BrokenRecyclePool(RecyclePoolError, BrokenThreadPool):
    """The pool cannot start workers. After close() or destroy() it may be tried again."""


class WorkerLostError(RecyclePoolError, BrokenExecutor):
    """The worker that ran this task died. The pool lives on."""


class WorkerStartError(RecyclePoolError, RuntimeError):
    """A worker could not be started. Its ``__cause__`` says why."""


class OutsideWorkerError(RecyclePoolError, RuntimeError):
    """Something that exists only inside a worker was asked for outside one."""


class TaskTimeoutError(RecyclePoolError, TimeoutError):
    """The task ran longer than it was allowed to."""


class TaskAbortedError(RecyclePoolError):
    """The task was stopped while it ran. Its ``__cause__`` is what the task made of that."""


class UnitError(RecyclePoolError, ValueError):
    """A size or duration that cannot be read. The message says what to write instead."""


class TaskAbort(BaseException):
    """Raised inside a task that is to end now, wherever its thread happens to be.

    A ``BaseException``, so that ``except Exception`` does not hold it up. It has no arguments: the
    interpreter makes the instance.
    """
