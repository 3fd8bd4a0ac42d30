"""When a worker is to go. Every limit is optional and off by default."""

from dataclasses import dataclass, fields

from recyclepool.units import Duration, Size

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is replaced, and how.

    ``tasks``: a worker goes after that many tasks, exactly; its successor starts when the last of
    them does, in the same slot and of the next generation.

    The other fields belong to versions to come. Until they work, to set one raises a ValueError.
    """

    tasks: int | None = None
    memory: Size | None = None
    memory_hard: Size | None = None
    pool_memory: Size | None = None
    age: Duration | None = None
    idle: Duration | None = None
    task_timeout: Duration | None = None
    hang: Duration | None = None
    memory_samples: int = 3
    sample_every: Duration = 1.0
    min_age: Duration = 10.0
    jitter: float = 0.1
    grace: Duration = 5.0
    start_timeout: Duration = 60.0
    max_surge: int = 1
    max_abandoned: int | None = None
    report_only: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "tasks" and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"Limits({field.name}=...) does not work yet in this version: "
                    f"leave it out. What works is Limits(tasks=10_000)"
                )
        tasks = self.tasks
        if tasks is None:
            return
        if isinstance(tasks, bool) or not hasattr(type(tasks), "__index__"):
            raise TypeError(
                f"Limits(tasks={tasks!r}): write how many as an int, such as tasks=10_000, or None"
            )
        if tasks < 1:
            raise ValueError(f"Limits(tasks={tasks!r}): write 1 or more, or None for no limit")
