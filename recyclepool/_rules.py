"""What the limits of a pool come to, as plain numbers: what the core reads.

Apart from ``limits``, because a pool without limits does not import that: dataclasses take longer
than all the rest of the package.
"""

from math import inf
from typing import NamedTuple

__all__ = ["Rules"]


class Rules(NamedTuple):
    """Seconds; ``inf`` and 0 tasks mean: no limit. The defaults are those of a pool without any."""

    tasks: int = 0
    age: float = inf
    idle: float = inf
    task_timeout: float = inf
    hang: float = inf
    jitter: float = 0.1
    grace: float = 5.0  # that a task which is told to stop may take
    start_timeout: float = inf
    teardown: float = inf  # that a worker may take to go, when it runs no task any more
    surge: int = 1
    max_abandoned: int | None = None  # None: as many as the pool has slots
    report_only: bool = False
    memory: float = inf  # bytes that a worker may own
    pool_memory: float = inf  # bytes that the whole process may take
    memory_samples: int = 3  # readings in a row that have to be over it
    sample_every: float = 1.0
    min_age: float = 10.0  # of a worker that goes for its memory

    @property
    def patience(self) -> float:
        """How long a task may run before anybody has to look at it."""
        return min(self.task_timeout, self.hang)

    @property
    def weighs(self) -> bool:
        """Does anybody have to know what a worker holds?"""
        return self.memory < inf or self.pool_memory < inf
