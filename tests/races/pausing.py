"""What the races of a pause of dispatch are forced with: one that does something between steps."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from forcing import PATIENCE, asleep, elsewhere, until, wait, workers

from recyclepool import Limits, RecyclePool, _staff
from recyclepool._engine import Engine
from recyclepool._gate import Flag, here

TOO_EARLY = object()


class PauseSteps:
    """Does something, once, at a named place between two steps of a worker and a pause.

    The places: after reading (the pause, by a worker), before/after hanging (its lock on the flag),
    after looking (whether it must wait; it is about to sleep), before nudging (those who wait: an
    action there that returns TOO_EARLY has it find nobody).
    """

    def __init__(self, pool: RecyclePool, monkeypatch: pytest.MonkeyPatch) -> None:
        self._due: dict[str, Callable[[], Any]] = {}
        self.engine: Any = pool._engine
        steps = self

        class Sleepers(list[Any]):
            def append(self, sleeper: Any) -> None:
                steps.at("before hanging")
                super().append(sleeper)
                steps.at("after hanging")

        class Pause(Flag):
            __slots__ = ()

            def __init__(self) -> None:
                super().__init__()
                self._sleepers = Sleepers()

            def nudge(self) -> None:
                if steps.at("before nudging") is not TOO_EARLY:
                    super().nudge()

            def wait_unless(self, over: Callable[[], bool]) -> bool:
                def look() -> bool:
                    answer = over()
                    if not answer:
                        steps.at("after looking")
                    return answer

                return super().wait_unless(look)

        class Stepped(Engine):
            @property  # type: ignore[override]
            def paused(self) -> Flag | None:
                pause: Flag | None = self.__dict__["paused"]
                if here.crew is self:
                    steps.at("after reading")
                return pause

            @paused.setter
            def paused(self, pause: Flag | None) -> None:
                self.__dict__["paused"] = pause

        monkeypatch.setattr(_staff, "Flag", Pause)
        self.engine.__class__ = Stepped

    def once(self, place: str, action: Callable[[], Any]) -> None:
        """At that place, when somebody comes by there next."""
        self._due[place] = action

    def at(self, place: str) -> Any:
        """Somebody is there. What the action returns."""
        action = self._due.pop(place, None)
        return None if action is None else action()

    def pause(self) -> None:
        """The engine's order, from its start to its end."""
        elsewhere(self.engine.order, self.engine.pause_dispatch)

    def resume(self) -> None:
        """Likewise."""
        elsewhere(self.engine.order, self.engine.resume_dispatch)

    def waits(self) -> None:
        """Wait until a worker waits for the end of the pause."""
        until(lambda: getattr(self.engine.paused, "_sleepers", ()), "a worker that waits")


class Tasks:
    """Tasks that each run once."""

    def __init__(self, pool: RecyclePool) -> None:
        self.ran: list[int] = []
        self._pool = pool
        self._futures: list[Any] = []

    def submit(self, count: int) -> None:
        """So many, that are over at once."""
        for number in range(len(self._futures), len(self._futures) + count):
            self._futures.append(self._pool.submit(self.ran.append, number))

    def all_ran(self) -> None:
        """Each of them, in their order; none twice."""
        for future in self._futures:
            future.result(PATIENCE)
        assert self.ran == list(range(len(self._futures)))


def one_asleep(new_pool: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any, Any]:
    """A pool with one worker, which sleeps; its steps, that worker and tasks for it."""
    pool = new_pool(1, limits=Limits(pool_memory="100TiB", sample_every="1h"))
    steps = PauseSteps(pool, monkeypatch)
    pool.submit(int).result(PATIENCE)
    asleep(pool, 1)
    (worker,) = workers(pool)
    return pool, steps, worker, Tasks(pool)


def one_waits(new_pool: Any) -> tuple[Any, Any, Tasks]:
    """A pool in a pause, whose one worker waits for its end; that worker, and tasks."""
    pool = new_pool(1, limits=Limits(pool_memory="100TiB", sample_every="1h"))
    engine, tasks = pool._engine, Tasks(pool)
    pool.submit(int).result(PATIENCE)
    asleep(pool, 1)
    engine.order(engine.pause_dispatch)
    tasks.submit(3)
    until(lambda: engine.paused._sleepers, "a worker that waits")
    return pool, workers(pool)[0], tasks


def nudged_too_early(steps: PauseSteps) -> Callable[[], None]:
    """The next nudge comes before a worker hangs its lock there, and finds nobody.

    It is not over before that worker has looked. The call waits until the worker has come.
    """
    come, go, hung, looked = (threading.Event() for _ in range(4))
    sleepers = steps.engine.paused._sleepers

    def hold_it() -> None:
        come.set()
        wait(go)

    def let_it_look() -> object:
        go.set()
        wait(hung)
        until(lambda: looked.is_set() or not sleepers, "it looks, or has gone on")
        return TOO_EARLY

    steps.once("before hanging", hold_it)
    steps.once("after hanging", hung.set)
    steps.once("after looking", looked.set)
    steps.once("before nudging", let_it_look)
    return lambda: wait(come)
