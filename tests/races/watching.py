"""What the races of the watchdog are forced with: one that does something between its steps."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from forcing import PATIENCE, Spied, until, workers

from recyclepool import RecyclePool, _watchdog
from recyclepool._watchdog import Watchdog


class Stepped(Watchdog):
    """Does something, once, at a named place between two of its steps.

    The places: before acting (on a deadline that has come), after judging (a worker, to find out
    how long to sleep), before/after writing (the `until` that it found), after reading (by its own
    thread: it is about to sleep).
    """

    _until = 0.0
    _judging = False

    def __init__(self, engine: Any) -> None:
        self._due: dict[str, Callable[[], Any]] = {}
        self.looks = 0
        super().__init__(engine)

    def once(self, place: str, action: Callable[[], Any]) -> None:
        """At that place, when somebody comes by there next."""
        self._due[place] = action

    def at(self, place: str) -> None:
        """Somebody is there."""
        action = self._due.pop(place, None)
        if action is not None:
            action()

    @property  # type: ignore[override]
    def until(self) -> float:
        until = self._until
        if threading.current_thread() is self._thread:
            self.at("after reading")
        return until

    @until.setter
    def until(self, until: float) -> None:
        self._until = until

    def sleep(self) -> None:
        self.looks += 1
        self._judging = True
        super().sleep()
        self._judging = False

    def _next_deadline(self, worker: Any, now: float) -> Any:
        deadline = super()._next_deadline(worker, now)
        if self._judging:
            self.at("after judging")
        return deadline

    def _act(self, worker: Any, deadline: Any, now: float) -> None:
        self.at("before acting")
        super()._act(worker, deadline, now)

    def _sleep_until(self, until: float, now: float) -> None:
        self.at("before writing")
        super()._sleep_until(until, now)
        self.at("after writing")


def install(monkeypatch: pytest.MonkeyPatch) -> list[Spied]:
    """Have pools watched by a Stepped, which does not linger. The locks that its threads sleep on.

    So `until` is infinite, and there is no thread, whenever nothing is to be waited for.
    """
    locks: list[Spied] = []

    def new_lock() -> Spied:
        locks.append(Spied(threading.Lock()))
        return locks[-1]

    monkeypatch.setattr(_watchdog, "Watchdog", Stepped)
    monkeypatch.setattr(_watchdog, "new_lock", new_lock)
    monkeypatch.setattr(_watchdog, "LINGER", 0.0)
    return locks


def watchdog_of(pool: RecyclePool) -> Stepped:
    """The pool's, once it has one."""
    watchdog: Any = pool._engine.watchdog
    return watchdog  # type: ignore[no-any-return]


def unwatched(pool: RecyclePool) -> RecyclePool:
    """Wait until its watchdog has nothing to wait for, and no thread."""
    watchdog = watchdog_of(pool)
    pool._engine.look()
    until(lambda: watchdog._sleep is None, "the watchdog's end")
    if watchdog._thread is not None:
        watchdog._thread.join(PATIENCE)
    assert watchdog.until == float("inf")
    return pool


def overdue(future: Any) -> None:
    """Its own deadline has passed."""
    future.deadline = 0.0


def runner_of(pool: RecyclePool, future: Any) -> Any:
    """The worker that runs it."""
    return next(worker for worker in workers(pool) if worker.gate.task is future)


class Task:
    """Runs until it is let go. An abort gets through to it."""

    def __init__(self) -> None:
        self.started, self.go, self.ended = (threading.Event() for _ in range(3))

    def __call__(self) -> str:
        self.started.set()
        try:
            while not self.go.wait(0.001):
                pass
            return "done"
        finally:
            self.ended.set()


@contextmanager
def let_go(*tasks: Task) -> Iterator[None]:
    """They end with the block, whatever becomes of it."""
    try:
        yield
    finally:
        for task in tasks:
            task.go.set()


def told(pool: RecyclePool, count: int, calls: list[Any]) -> None:
    """Wait until so many callbacks were called, and then see that there are no more."""
    until(lambda: len(calls) >= count and not pool._engine.teller._telling, "callbacks")
    assert len(calls) == count


def balanced(pool: RecyclePool) -> Any:
    """Each task that was submitted is counted once. The pool's figures."""
    stats = pool.stats()
    ends = stats.completed + stats.failed + stats.cancelled + stats.timed_out
    assert ends + stats.aborted + stats.lost == stats.submitted, stats
    return stats
