"""What who comes at the wrong moment is told."""

from recyclepool._roster import Roster
from recyclepool.errors import BrokenRecyclePool, PoolClosedError, QueueFullError, WorkerStartError

__all__ = ["START_FAILED", "queue_full", "refusal"]

START_FAILED = "a worker could not be started: "


def refusal(name: str, roster: Roster, *, exiting: bool) -> Exception:
    """Why this pool takes no task now, and what to do about it."""
    if exiting:
        return PoolClosedError(
            f"cannot schedule new futures after interpreter shutdown: pool {name!r} is closed"
        )
    if roster.broken is not None:
        why = str(roster.broken)
        if isinstance(roster.broken, WorkerStartError):
            why = f"its workers cannot be started ({why.removeprefix(START_FAILED)})"
        broken = BrokenRecyclePool(
            f"pool {name!r} is broken: {why}. close() or destroy() it, and it may be tried again"
        )
        broken.__cause__ = roster.broken
        return broken
    if roster.terminal:
        return PoolClosedError(
            f"cannot schedule new futures after shutdown: pool {name!r} was shut down "
            f"for good. close() instead leaves a pool that can be used again"
        )
    return PoolClosedError(
        f"pool {name!r} is closing: submit again when close() or destroy() has returned"
    )


def queue_full(name: str, most: int, why: str) -> QueueFullError:
    """There is no place left, and `why` (or "") whoever asked for one does not wait."""
    tasks = "1 task waits" if most == 1 else f"{most} tasks wait"
    return QueueFullError(
        f"the queue of pool {name!r} is full: {tasks}, as many as may (max_queue={most})"
        + (f"; {why}" if why else "")
    )
