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

    @property
    def patience(self) -> float:
        """How long a task may run before anybody has to look at it."""
        return min(self.task_timeout, self.hang)
