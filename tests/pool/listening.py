"""What happens in a pool, as a test can wait for it: its events."""

import _thread
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from staging import WAIT

from recyclepool import RecyclePool, _watchdog


class Events:
    """All that a pool tells from now on, in order. Keeps the events, and not the pool."""

    def __init__(self, pool: RecyclePool) -> None:
        self.all: list[Any] = []
        self._changed = threading.Condition()
        self.unsubscribe = pool.subscribe(self._add)

    def _add(self, event: Any) -> None:
        with self._changed:
            self.all.append(event)
            self._changed.notify_all()

    def of(self, kind: type, **fields: Any) -> list[Any]:
        """Those of a kind, with these fields, so far."""
        return [
            event
            for event in self.all.copy()
            if isinstance(event, kind)
            and all(getattr(event, name) == value for name, value in fields.items())
        ]

    def wait_for(self, kind: type, times: int = 1, **fields: Any) -> list[Any]:
        """The same, as soon as there are so many."""
        deadline = time.monotonic() + WAIT
        with self._changed:
            while len(found := self.of(kind, **fields)) < times:
                assert self._changed.wait(deadline - time.monotonic()), (
                    f"no {kind.__name__} with {fields} {times} times in {self.all}"
                )
        return found

    def kinds(self) -> list[str]:
        """What they are, in order."""
        return [type(event).__name__ for event in self.all.copy()]


class Stuck:
    """A task in one C call, that nothing gets through to, until the test lets go."""

    def __init__(self) -> None:
        self._started: SimpleQueue[None] = SimpleQueue()  # in C: no abort leaves it locked
        self._locks: list[Any] = []
        self._over = False

    def __call__(self, value: Any = None) -> Any:
        lock = _thread.allocate_lock()  # its own: an abort comes as soon as it has it
        lock.acquire()
        self._locks.append(lock)
        self._started.put(None)
        assert self._over or lock.acquire(True, WAIT), "nobody let go"
        return value

    def wait_started(self, times: int = 1) -> None:
        for _ in range(times):
            self._started.get(timeout=WAIT)

    def release(self) -> None:
        self._over = True
        while self._locks:
            self._locks.pop().release()


class Obedient:
    """A task that runs until its worker is to stop, or nobody stopped it in time. Pure Python.

    An abort gets through to it; it holds nothing.
    """

    def __init__(self) -> None:
        self._started: SimpleQueue[None] = SimpleQueue()

    def __call__(self, *_: Any) -> Any:
        self._started.put(None)
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            for _ in range(50):
                pass
        raise AssertionError("nobody stopped it")

    def wait_started(self, times: int = 1) -> None:
        for _ in range(times):
            self._started.get(timeout=WAIT)


@pytest.fixture
def new_stuck(new_pool: object) -> Iterator[Callable[[], Stuck]]:
    """Stuck, for tasks that are let go before the pools are taken down."""
    made = []

    def make() -> Stuck:
        made.append(Stuck())
        return made[-1]

    yield make
    for task in made:
        task.release()


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of a watchdog that has nothing to do any more ends at once, and so does a test."""
    monkeypatch.setattr(_watchdog, "LINGER", 0.001)
