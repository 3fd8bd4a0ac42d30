"""Pools with schedules, and a wall clock that stands still until the test sets it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from listening import Events
from staging import WAIT, until

from recyclepool import RecyclePool, ScheduleFired, State, current_worker

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
MIDNIGHT = datetime(2026, 3, 4, tzinfo=UTC).timestamp()


class Wall:
    """What a pool's schedules go by. Knows the engine, and not the pool."""

    def __init__(self, pool: RecyclePool, now: float = MIDNIGHT + 1) -> None:
        self.now = now
        self.error: Exception | None = None  # raised by a reading
        self._engine: Any = pool._engine
        self._engine.settings = self._engine.settings._replace(wall=self)

    def __call__(self) -> float:
        if self.error is not None:
            raise self.error
        return self.now

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Meanwhile it cannot be read."""
        self.error = OSError("no clock")
        try:
            yield
        finally:
            self.error = None

    def jump(self, seconds: float) -> None:
        """It is set, and the watchdog sees that. Negative: it is set back."""
        self.jump_to(self.now + seconds)

    def jump_to(self, now: float) -> None:
        """The same, to a time."""
        self.now = now
        self.look()

    def look(self) -> None:
        """Wait until a look that began after this call is over: it found nothing, or it fired."""
        done: list[int] = []
        self._engine.look()
        self._engine.order(done.append, 1)  # a look is part of each order that is the last
        until(lambda: done and not self._engine._orders._lock.locked(), "the look")


class Scheduled:
    """A pool, its wall clock and its events."""

    def __init__(self, pool: RecyclePool) -> None:
        self.pool, self.wall, self.events = pool, Wall(pool), Events(pool)

    def fill(self, workers: int) -> "Scheduled":
        """Have so many workers there, each idle; and the schedules armed."""
        fill(self.pool, workers)
        self.wall.look()
        return self

    def fired(self) -> list[Any]:
        """What has fired so far: each as schedule, slot, due, joined."""
        self.pool._engine.news.join(WAIT)
        return [(e.schedule, e.slot, e.due, e.joined) for e in self.events.of(ScheduleFired)]

    def wait_fired(self, times: int) -> list[Any]:
        """The same, as soon as there are so many; no more than these."""
        self.events.wait_for(ScheduleFired, times)
        found = self.fired()
        assert len(found) == times, found
        return found

    def generations(self) -> list[int]:
        """Of those who serve, by slot."""
        return generations(self.pool)

    def become(self, *wanted: int) -> None:
        """Wait until nobody comes or goes, and these serve, by slot."""
        until(lambda: at_rest(self.pool) and self.generations() == [*wanted], f"{wanted}")


@pytest.fixture
def new_scheduled(new_pool):
    """A pool with a schedule, whose wall clock stands at midnight and a second."""

    def make(size: int, schedule: Any, **options: Any) -> Scheduled:
        return Scheduled(new_pool(size, schedule=schedule, **options))

    return make


def fill(pool: RecyclePool, workers: int) -> None:
    """Have so many workers there, each idle."""
    together = threading.Barrier(workers)
    for future in [pool.submit(together.wait, WAIT) for _ in range(workers)]:
        future.result(WAIT)
    assert pool.wait_idle(WAIT)
    until(lambda: pool._engine.roster.serving() == workers, "they serve")


def generations(pool: RecyclePool) -> list[int]:
    """Of those who serve, by slot."""
    holders = pool._engine.roster.holders()
    return [holders[slot].generation for slot in sorted(holders)]


def at_rest(pool: RecyclePool) -> bool:
    """Nobody comes or goes."""
    return all(w.state is State.SERVING for w in pool._engine.roster.workers.copy())


def who() -> tuple[int, int]:
    """A task: its worker."""
    me = current_worker()
    return me.slot, me.generation


def watchdog_threads(pool: RecyclePool) -> list[Any]:
    """Those of this pool, by their name."""
    name = f"{pool._engine.settings.thread_names}_watchdog"
    return [thread for thread in threading.enumerate() if thread.name == name]
