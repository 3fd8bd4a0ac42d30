"""BOUNDED: a queue with so many places, and those who wait for one.

The queue's own length is the count, so no second one can disagree with it: a task that is
cancelled is taken out of it at once. Places and waiting submitters meet as tasks and workers do
(DISPATCH): WHOEVER ADDS TO ONE SIDE LOOKS AT THE OTHER AFTERWARDS; when both have something, wake
one. No lock is held meanwhile, so a signal handler, a finalizer or an abort finds none.

1. A submitter appends its task, then looks at where it stands. Beyond the last place: it takes the
   task back, and the queue was full. Of several that append at once the first ones keep their
   places, for what stands before them does not grow. (Taken by a worker meanwhile: it is accepted.)
2. One who is to wait appends its sleeper to ``waiting``, THEN tries 1; only then it sleeps.
3. Who takes a task out (a worker, a cancel, a submitter that was refused) looks at ``waiting``
   AFTER that: a place and a sleeper, and it takes the first sleeper out and wakes it, in one C
   call.
4. Woken, it tries 2 anew: another may have been faster. Whoever ceases to wait, and finds its
   sleeper taken out, was given a wake-up that it may not have used: it looks as in 3.
5. Closing: ``closing`` goes up, then all are woken; a submitter reads it after 2.
6. A coroutine cannot be waited for: its loop may be blocked, or never run again. So who wakes it
   has its task take the place, and only tells it. Nobody else can meanwhile: who took its sleeper
   out of ``waiting`` is the one. Full again: it waits on, at the end.

Count P places free, W submitters waiting, A awake and about to try, L looks to come. Always
P <= A + L or W <= A: by the same steps as in DISPATCH. At rest nobody waits beside a free place.
"""

import operator
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from recyclepool._dispatch import Dispatch
from recyclepool._future import Future, OptionedFuture
from recyclepool._gate import here, new_lock, sleep_until

__all__ = ["BoundedDispatch", "Keeper"]


class Keeper(Protocol):
    """What a bounded queue asks of its engine."""

    def want_worker(self) -> None:
        """A task found nobody."""

    def may_wait(self) -> str | None:
        """Why this thread must not wait for a place, or None."""

    def full(self, why: str) -> Exception:
        """Count a submit that found no place, and say so."""

    def hand_over(self, dispatch: "BoundedDispatch", task: Future[Any]) -> bool:
        """Give it to any idle worker."""

    def look_at_pressure(self) -> None:
        """The queue has become full, or half empty, or was a moment ago."""

    def count_cancelled(self) -> None:
        """A task was taken out that had been cancelled."""


class BoundedDispatch(Dispatch):
    """One in whose queue no more than `most` tasks wait."""

    __slots__ = ("_keeper", "_wake_submitter", "most", "pressed", "told", "waiting")

    def __init__(self, keeper: Keeper, most: int) -> None:
        super().__init__(keeper.want_worker)
        self.most = most
        self.pressed = False  # it was full, and not half empty since
        self.told = False  # of that; written by the engine
        self.waiting: deque[Any] = deque()  # what wakes each submitter that waits, by release()
        self._keeper = keeper
        # One C call. IndexError: nobody waits.
        self._wake_submitter: Callable[[], None] = map(
            operator.methodcaller("release"), iter(self.waiting.popleft, None)
        ).__next__

    # -- in ---------------------------------------------------------------------------------------

    def put(self, task: Future[Any]) -> bool:
        """As ever; waits for a place, or raises QueueFullError. False: closing."""
        accepted = self.offer(task)
        if accepted is None:
            why = self._keeper.may_wait()
            if why is not None:
                raise self._keeper.full(why)
            accepted = self._wait(task)
        return accepted

    def offer(self, task: Future[Any]) -> bool | None:
        """None: there is no place (BOUNDED 1)."""
        if self.closing:
            return False
        assert isinstance(task, OptionedFuture)
        if len(self.queue) < self.most:
            task.home = self
            if not super().put(task):
                return False
            if not self._is_over(task):
                return True
        if self.idle and self._keeper.hand_over(self, task):
            return True  # what is queued has workers that are about to take it: it does not wait
        if not self.pressed:
            self.pressed = True
            self._keeper.look_at_pressure()
        return None

    def _is_over(self, task: Future[Any]) -> bool:
        """Does it stand beyond the last place? Then it is taken back."""
        queue = self.queue
        try:
            return (
                len(queue) > self.most and queue.index(task) >= self.most and self.take_back(task)
            )
        except ValueError:
            return False  # a worker has it

    def _wait(self, task: Future[Any]) -> bool:
        accepted, gate = None, here.gate
        while accepted is None:
            if gate is not None and gate.is_due():
                raise self._keeper.full("the task that waits for a place is to end")
            accepted = self._wait_once(task)
        return accepted

    def _wait_once(self, task: Future[Any]) -> bool | None:
        sleeper = new_lock()
        sleeper.acquire()
        try:
            self.waiting.append(sleeper)
            accepted = self.offer(task)
            if accepted is None:
                # For a handler's: the submit that it interrupted may not have looked yet.
                self.look()
                sleep_until(lambda: sleeper not in self.waiting, sleeper, None)
                accepted = self.offer(task)  # before its wake-up is passed on
            return accepted
        finally:
            try:  # not by step_out(): an interrupt could break off the call, and leave it in line
                self.waiting.remove(sleeper)
            except ValueError:
                self._pass_on()  # BOUNDED 4

    def line_up(self, sleeper: Any) -> None:
        """A coroutine waits for a place (BOUNDED 6)."""
        self.waiting.append(sleeper)
        if self.closing:
            self.rouse_all()
        else:
            self._pass_on()

    def step_out(self, sleeper: Any) -> bool:
        """A coroutine waits no more. False: it was woken."""
        try:
            self.waiting.remove(sleeper)
        except ValueError:
            return False
        return True

    def _pass_on(self) -> None:
        try:
            self.make_room()
        except BaseException:
            self.make_room()  # an interrupt broke it off
            raise

    # -- out --------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """A task was taken out, or a wake-up not used (BOUNDED 3)."""
        while self.waiting and len(self.queue) < self.most:
            try:
                self._wake_submitter()
                break
            except IndexError:
                break
            except Exception:
                pass  # a coroutine, whose loop is closed or broken: the next
        if self.pressed and len(self.queue) <= self.most // 2:
            self._keeper.look_at_pressure()

    def take_back(self, task: Future[Any]) -> bool:
        """As ever."""
        try:
            taken = super().take_back(task)
        finally:
            self._pass_on()
        return taken

    def drop(self, task: Future[Any]) -> None:
        """It was cancelled. A worker that was faster counts it."""
        try:
            if super().take_back(task):
                self._keeper.count_cancelled()
            task.begin()  # tells wait() and as_completed(), and makes room
        except BaseException:
            task.begin()  # an interrupt broke it off
            raise

    def rouse_all(self) -> None:
        """Wake everybody, those too who wait for a place (BOUNDED 5)."""
        super().rouse_all()
        while self.waiting:
            try:
                self._wake_submitter()
            except Exception:
                pass  # nobody is left; or as in make_room()
