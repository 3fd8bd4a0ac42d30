"""What tests of memory limits are written with: tasks that own much, and looks by a script."""

import threading
from typing import Any

from listening import Events
from staging import WAIT, until

from recyclepool import Limits, RecyclePool, _probe, current_worker, per_worker
from recyclepool._owned import Owned, Pass

MIB = 2**20
NEVER = 1e6  # times the limit: what is tested is not how fast it grows

# The first reading over the limit is enough.
SOON = {"memory_samples": 1, "sample_every": 0.01, "min_age": 0, "jitter": 0}


def soon(memory: Any = 10 * MIB, **more: Any) -> Limits:
    return Limits(memory=memory, **{**SOON, **more})


@per_worker
def kept() -> list[Any]:
    return []


def blocks(count: int) -> list[bytearray]:
    return [bytearray(MIB) for _ in range(count)]


def keep(count: int) -> None:
    """A task that leaves so many MiB behind."""
    kept().extend(blocks(count))


def let_go() -> None:
    kept().clear()


def cache(count: int, key: Any = None) -> None:
    """A task: so many entries of 1 MiB; or one that large, with a key."""
    if key is not None:
        current_worker().cache.put(key, blocks(count), size=count * MIB)
        return
    for n, block in enumerate(blocks(count)):
        current_worker().cache.put(n, block, size=MIB)


def generation() -> int:
    return current_worker().generation


def do(pool: RecyclePool, task: Any, *args: Any) -> Any:
    return pool.submit(task, *args).result(WAIT)


def recycles(pool: RecyclePool) -> int:
    """Of workers, for their memory."""
    return pool.stats().recycles.get("memory", 0)


def worker_of(pool: RecyclePool) -> Any:
    (worker,) = pool._engine.roster.workers
    return worker


def read(pool: RecyclePool, least: int = 0, most: float = NEVER * MIB) -> Any:
    """Wait until its one worker was looked at, and owns that many bytes. The reading."""

    def reading() -> Any:
        found = pool.stats().workers[0].memory
        return found is not None and least <= found.bytes <= most and found

    until(reading, f"a reading from {least} to {most}: {pool.stats().workers}")
    return reading()


def used(new_pool: Any, limits: Limits, **more: Any) -> tuple[RecyclePool, Events]:
    """A pool of one worker that has run a task, and was looked at; and its events."""
    pool = new_pool(1, limits=limits, **more)
    events = Events(pool)
    do(pool, int)
    read(pool)
    return pool, events


class Script:
    """Every look finds the next of these numbers of MiB; the last again and again."""

    def __init__(self, monkeypatch: Any, *found: float) -> None:
        self.left = list(found)
        self.looks = 0
        monkeypatch.setattr(_probe, "Pass", self.look)

    def look(self, *args: Any, **kwargs: Any) -> "Script":
        return self

    def run(self, seconds: float | None = None) -> Owned:
        self.looks += 1
        found = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return Owned(int(found * MIB), 0, 0, 0, 1, True, True, (), ())

    def close(self) -> None:
        pass

    def wait(self, looks: int) -> None:
        until(lambda: self.looks >= looks, f"{looks} looks")


class Watched:
    """Looks stop after their first slice until the test lets go; how they ended is kept."""

    def __init__(self, monkeypatch: Any) -> None:
        watched = self
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.dropped = 0

        class Look(Pass):
            __slots__ = ("is_over",)

            def run(self, seconds: float | None = None) -> Owned | None:
                self.is_over = True  # it closes itself at its end
                found = super().run(seconds)
                self.is_over = found is not None
                if found is None and not watched.begun.is_set():
                    watched.begun.set()
                    assert watched.go_on.wait(WAIT), "nobody let go"
                return found

            def close(self) -> None:
                watched.dropped += not getattr(self, "is_over", True)
                super().close()

        monkeypatch.setattr(_probe, "Pass", Look)
