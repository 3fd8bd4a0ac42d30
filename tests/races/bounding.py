"""What the races of a bounded queue are forced with: one that does something between its steps."""

import operator
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from forcing import PATIENCE, Elsewhere, asleep, until

from recyclepool import RecyclePool, _bounded


class BoundedSteps:
    """Does something, once, at a named place between two steps of a bounded dispatch.

    The places: before/after append (of a task), before/after counting (where a task stands),
    before taking back, after taking a task (by a worker), before/after waiting (a sleeper is
    shown). With `monkeypatch`: before sleeping, after waking.
    """

    def __init__(self, pool: RecyclePool, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self._due: dict[str, tuple[Callable[[], Any], str | None]] = {}
        self.dispatch: Any = pool._engine.dispatch
        steps = self

        class Queue(deque[Any]):
            def append(self, task: Any) -> None:
                steps.at("before append")
                super().append(task)
                steps.at("after append")

            def index(self, task: Any, *args: Any) -> int:
                steps.at("before counting")
                place = super().index(task, *args)
                steps.at("after counting")
                return place

            def remove(self, task: Any) -> None:
                steps.at("before taking back")
                super().remove(task)

            def popleft(self) -> Any:
                task = super().popleft()
                steps.at("after taking a task")
                return task

        class Waiting(deque[Any]):
            def append(self, sleeper: Any) -> None:
                steps.at("before waiting")
                super().append(sleeper)
                steps.at("after waiting")

        self.dispatch.queue = Queue(self.dispatch.queue)
        self.dispatch.waiting = waiting = Waiting()
        self.dispatch._wake_submitter = map(
            operator.methodcaller("release"), iter(waiting.popleft, None)
        ).__next__
        if monkeypatch is not None:
            sleep = _bounded.sleep_until

            def sleep_until(*args: Any) -> None:
                steps.at("before sleeping")
                sleep(*args)
                steps.at("after waking")

            monkeypatch.setattr(_bounded, "sleep_until", sleep_until)

    def once(self, place: str, action: Callable[[], Any], thread: str | None = None) -> None:
        """At that place, when somebody (a thread of that name) comes by there next."""
        self._due[place] = action, thread

    def at(self, place: str) -> None:
        """Somebody is there."""
        action, thread = self._due.get(place, (None, None))
        if action is not None and thread in (None, threading.current_thread().name):
            del self._due[place]
            action()


class Full:
    """A pool with one worker, which is held, and a full queue; and its steps."""

    def __init__(
        self,
        pool: RecyclePool,
        queued: int | None = None,
        monkeypatch: pytest.MonkeyPatch | None = None,
    ) -> None:
        self.pool = pool
        self.steps = BoundedSteps(pool, monkeypatch)  # before a worker has seen the queue
        self.dispatch = self.steps.dispatch
        self._go, started = threading.Event(), threading.Event()
        self.running = pool.submit(self._hold, started)
        assert started.wait(PATIENCE)
        count = self.dispatch.most if queued is None else queued
        self.queued = [pool.submit(int) for _ in range(count)]

    def _hold(self, started: threading.Event) -> None:
        started.set()
        assert self._go.wait(2 * PATIENCE), "nobody let go"  # longer than who waits for a place

    def let_go(self) -> None:
        """The worker goes on."""
        self._go.set()

    def free(self) -> None:
        """One place, by the cancel of the first in the queue."""
        assert self.queued.pop(0).cancel()

    def waits(self, count: int = 1) -> None:
        """Wait until so many submitters wait for a place, and there is none."""
        waiting, queue, most = self.dispatch.waiting, self.dispatch.queue, self.dispatch.most
        until(lambda: len(waiting) == count and len(queue) == most, f"{count} wait for a place")

    def is_at_rest(self) -> None:
        """Nobody waits beside a free place."""
        dispatch = self.dispatch
        assert len(dispatch.queue) <= dispatch.most, "more are queued than may be"
        assert not dispatch.waiting or len(dispatch.queue) == dispatch.most, "a wake-up was lost"

    def end(self) -> None:
        """All that was accepted is run, and nothing is left."""
        self.let_go()
        asleep(self.pool, 1)
        assert not self.dispatch.waiting, "somebody waits beside a free place"
        stats = self.pool.stats()
        settled = stats.completed + stats.cancelled + stats.failed
        assert stats.submitted == settled, stats
        assert [self.pool.submit(abs, -n).result(PATIENCE) for n in range(3)] == [0, 1, 2]
        Elsewhere(self.pool.close).result()


def submitting(pool: RecyclePool, name: str = "submitter") -> Elsewhere:
    """A submit on a thread of that name; its result is the future."""

    def submit() -> Any:
        threading.current_thread().name = name
        return pool.submit(int)

    return Elsewhere(submit)
