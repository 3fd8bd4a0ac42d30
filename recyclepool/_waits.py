"""What callers wait for that is no task: a pool that has started, workers that were replaced, rest.

Each is a future with a question to the roster. The engine asks it after each order, so nobody polls
and nothing is remembered apart: the answer follows from who is here.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from recyclepool._clearing import like
from recyclepool._dispatch import Dispatch
from recyclepool._future import Future
from recyclepool._gate import here
from recyclepool._roster import Roster
from recyclepool._teller import Teller
from recyclepool._worker import Worker
from recyclepool.states import ACTIVE, Reason

__all__ = ["Replaced", "Rested", "Started", "Wait", "Waits"]


_NO_SUCCESSOR = (Reason.IDLE, Reason.RESIZE)


class Wait(Future[int]):
    """Settled with its answer as soon as there is one."""

    __slots__ = ()

    ends_with_epoch = True  # then it gets what a submit would get

    def answer(self, roster: Roster, queued: int) -> int | None:
        """None: not yet. With the engine's lock held."""
        raise NotImplementedError  # each kind has its own

    def concerns(self, slot: int) -> bool:
        """Does a worker that cannot be started in this slot fail it?"""
        return False


class Started(Wait):
    """Until the least number of workers are ready."""

    __slots__ = ()

    def answer(self, roster: Roster, queued: int) -> int | None:
        # One that goes counts until it has gone: where workers are replaced without a pause there
        # may be no moment at which all of them serve.
        ready = min(roster.size, sum(worker.opened for worker in roster.workers))
        return ready if ready >= roster.min_workers else None

    def concerns(self, slot: int) -> bool:
        return True


class Replaced(Wait):
    """Until all of these have gone, and whoever follows them serves.

    A task of the pool that waits for it would wait for its own end, and is told so.
    """

    __slots__ = ("_crew", "_pending", "targets")

    def __init__(self, crew: object) -> None:
        super().__init__()
        self._crew = crew
        self.targets: tuple[Worker, ...] = ()
        self._pending: tuple[Worker, ...] = ()

    def aim(self, targets: Iterable[Worker]) -> None:
        """At these: decided once, with the engine's lock held."""
        if not self.targets:
            self.targets = self._pending = tuple(targets)

    def answer(self, roster: Roster, queued: int) -> int | None:
        # One by one: whoever follows a target may be replaced in turn before the last has followed.
        self._pending = tuple(t for t in self._pending if not self._is_followed(t, roster))
        if self._pending:
            return None
        return sum(t.reason not in _NO_SUCCESSOR for t in self.targets)

    def _is_followed(self, target: Worker, roster: Roster) -> bool:
        if target.state in ACTIVE:
            return False
        if target.slot in roster.holders() or target.reason in _NO_SUCCESSOR:
            return True
        return target.slot not in roster.starters() and roster.wanted <= len(roster.active())

    def concerns(self, slot: int) -> bool:
        return any(target.slot == slot for target in self._pending)

    def wait(self, timeout: float | None) -> bool:
        self._check_thread()
        return super().wait(timeout)

    def _build_condition(self) -> Any:
        self._check_thread()
        return super()._build_condition()

    def _check_thread(self) -> None:
        if here.crew is self._crew and not self.done():
            raise RuntimeError(
                "one of the pool's own tasks or callbacks waits for its workers to be replaced: "
                "it would wait for itself. Wait in another thread, or use add_done_callback()"
            )


class Rested(Wait):
    """Until no task is queued and none runs."""

    __slots__ = ()

    ends_with_epoch = False

    def answer(self, roster: Roster, queued: int) -> int | None:
        # The queue first: who has taken a task from it since is seen not to rest. (`queued` is
        # read before this is asked.)
        at_rest = not queued and all(
            w.vacated or w.undoing or (not w.handed and w.resting) for w in roster.workers
        )
        return 0 if at_rest else None


class Waits:
    """Those of one pool. With the engine's lock held."""

    def __init__(self, teller: Teller) -> None:
        self._waits: list[Wait] = []
        self._teller = teller

    def __len__(self) -> int:
        return len(self._waits)

    def __iter__(self) -> Iterator[Wait]:
        return iter(self._waits)

    def add(self, wait: Wait) -> None:
        """It is settled after one of the next orders: perhaps after this one."""
        if wait not in self._waits:
            self._waits.append(wait)

    def settle(self, roster: Roster, dispatch: Dispatch, refusal: Exception | None) -> None:
        """Settle those for which there is an answer, or a refusal: the pool is not open."""
        for wait in self._waits:
            queued = len(dispatch.queue)
            if wait.ends_with_epoch and refusal is not None:
                self._settle(wait, None, refusal)
            else:
                answer = wait.answer(roster, queued)
                if answer is not None:
                    self._settle(wait, answer, None)
        self._waits = [wait for wait in self._waits if not wait.done()]

    def fail(self, slot: int, error: Exception) -> None:
        """No worker can be started in this slot."""
        for wait in self._waits:
            if wait.concerns(slot):
                self._settle(wait, None, error)

    def for_rest(self) -> bool:
        """Does anybody wait until there is nothing to do?"""
        return any(isinstance(wait, Rested) for wait in self._waits)

    def _settle(self, wait: Wait, answer: int | None, error: Exception | None) -> None:
        if wait.settle(answer, None if error is None else like(error)):
            self._teller.add(wait)
