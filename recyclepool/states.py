"""Closed enumerations, and the edges of the histograms: what every room knows."""

from enum import StrEnum

__all__ = ["ACTIVE", "BUCKETS", "PoolState", "Reason", "State"]

# Upper edges of the wait and run histograms, in seconds; one more bucket holds what is above.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0)


class State(StrEnum):
    """The states of a worker. They only grow."""

    STARTING = "starting"
    SERVING = "serving"
    RETIRING = "retiring"
    STOPPED = "stopped"
    ABANDONED = "abandoned"


ACTIVE = (State.STARTING, State.SERVING)  # it has not begun to go


class PoolState(StrEnum):
    """The states of a pool. Broken: it cannot start workers; close() or destroy() opens it anew."""

    OPEN = "open"
    CLOSING = "closing"
    SHUTDOWN = "shutdown"
    BROKEN = "broken"


class Reason(StrEnum):
    """Why a worker went."""

    TASKS = "tasks"  # it had served as many as it was to
    AGE = "age"  # it was as old as it may be
    MEMORY = "memory"  # it owned more than it may, or most in a process that was too big
    IDLE = "idle"  # it had nothing to do for long: no successor
    TIMEOUT = "timeout"  # its task ran longer than it may
    HANG = "hang"  # its task gave no sign of life for too long
    SCHEDULE = "schedule"  # its time had come
    MANUAL = "manual"  # recycle(), soft_restart(), cancel() of what it ran
    REQUESTED = "requested"  # its task asked for it
    RESIZE = "resize"  # its slot is no more
    CLOSE = "close"  # the pool was closed, destroyed or shut down
    LOST = "lost"  # its driver died of an error that was not a task's
