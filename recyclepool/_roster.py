"""Who is here, who goes, who is wanted. Decisions only: no threads, no clock, no I/O.

The engine calls these methods one at a time and carries out what they decide. Each may be called
again after an interrupt broke it off half-way: a second call finishes what the first began, and
one too many changes nothing.

There is one way out, ``retire``, and one way in, ``reconcile``: the arithmetic between what is
wanted and what is there. Whether a successor is wanted is a property of the pool, not of the
farewell: a worker that retires leaves ``wanted`` as it is, so a successor follows; an end sets it
to nothing.

``wanted`` grows when a task finds nobody who will take it, and shrinks only when the pool ends, or
when a start failed.

Invariants (``check``): one active worker a slot; active workers <= size; all workers <= size +
surge, abandoned ones apart; states only grow; after destroy began no worker starts.
"""

from collections.abc import Callable

from recyclepool._worker import Worker
from recyclepool.states import PoolState, Reason, State

__all__ = ["Roster"]

FAILED_STARTS = 5  # in a row, with nobody serving, break the pool

_ORDER = list(State)


class Roster:
    """The workers of a pool. One thread at a time: see the engine."""

    def __init__(
        self,
        size: int,
        new_worker: Callable[[int, int], Worker],
        min_workers: int = 0,
        surge: int = 1,
    ) -> None:
        self.size = size
        self.min_workers = min_workers
        self.surge = surge
        self.state = PoolState.OPEN
        self.terminal = False  # after this end there is no other epoch
        self.aborting = False  # destroy began: no worker starts
        self.broken: BaseException | None = None
        self.wanted = 0
        self.workers: list[Worker] = []  # STARTING, SERVING and RETIRING
        self.abandoned: list[Worker] = []
        self.generations = [0] * size  # how many workers have held each slot
        self.recycles: dict[Reason, int] = {}
        self.failed_starts = 0
        self._failures = 0  # of those, in a row
        self._once_ready = False
        self._new_worker = new_worker

    # -- what is there ----------------------------------------------------------------------------

    def active(self) -> list[Worker]:
        """Those who hold a slot: starting or serving."""
        return [w for w in self.workers if w.state in (State.STARTING, State.SERVING)]

    def serving(self) -> int:
        """How many are ready for tasks."""
        return sum(w.state is State.SERVING for w in self.workers)

    def vacancies(self) -> int:
        """How many more could be started for a task that finds nobody."""
        if self.aborting or self.broken is not None or self.state is PoolState.SHUTDOWN:
            return 0
        return len(self._vacant_slots())

    def _vacant_slots(self) -> list[int]:
        """The slots for which a worker may be made now, the lowest first.

        Where another's last task still runs, a successor can only wait: it must not use up the room
        that a slot needs in which a task could run at once.
        """
        held, taken = {w.slot for w in self.active()}, self._taken_slots()
        empty = [slot for slot in range(self.size) if slot not in held]
        room = self.size + self.surge - len(self.workers)
        waiting = room - sum(slot not in taken for slot in empty)
        vacant = []
        for slot in empty:
            waiting -= slot in taken
            if slot not in taken or waiting >= 0:
                vacant.append(slot)
        return vacant[:room]

    def is_over(self, queued: int) -> bool:
        """Has the epoch that closes come to its end?"""
        if self.state is not PoolState.CLOSING or self.workers:
            return False
        return self.aborting or self.broken is not None or not queued

    # -- one way in -------------------------------------------------------------------------------

    def demand(self, queued: int) -> None:
        """A task may have found nobody.

        While the pool closes, the tasks that nobody will take are all that workers are wanted for.
        """
        unserved = max(0, queued - self._takers())
        needed = min(self.size, len(self.active()) + unserved)
        if self.state is PoolState.CLOSING:
            self.wanted = needed
        elif unserved:
            self.wanted = max(self.wanted, self.min_workers, needed)

    def _takers(self) -> int:
        """How many workers will take a task that is queued, without waiting for another's end."""
        taken = self._taken_slots()
        return sum(w.resting and w.slot not in taken for w in self.active())

    def want_minimum(self) -> None:
        """The pool is started: its least number of workers is wanted, tasks or no."""
        self.wanted = max(self.wanted, self.min_workers)

    def reconcile(self) -> None:
        """Add as many workers as are wanted and allowed, each in the lowest slot that is free."""
        missing = min(self.wanted - len(self.active()), self.vacancies())
        for slot in self._vacant_slots()[: max(0, missing)]:
            self.generations[slot] += 1
            self.workers.append(self._new_worker(slot, self.generations[slot]))

    # -- a worker's life --------------------------------------------------------------------------

    def ready(self, worker: Worker) -> None:
        """It could take tasks. One that was retired while it started goes on retiring."""
        if worker in self.workers:
            self._once_ready = True
            self._failures = 0
            worker.opened = True
            self._admit()

    def start_failed(self, worker: Worker, error: BaseException) -> None:
        """It could not be made ready, and is gone.

        The first ever breaks the pool, as the standard's does: its initializer is wrong. Later ones
        lower what is wanted, so that the next task that finds nobody tries again, and nothing else
        does; with nobody serving, five in a row break the pool.
        """
        if worker in self.workers:
            self._failures += 1
            if not self._once_ready or (self._failures >= FAILED_STARTS and not self.serving()):
                self.broken = error
                if self.state is PoolState.OPEN:
                    self.state = PoolState.BROKEN
        self.not_launched(worker)

    def not_launched(self, worker: Worker) -> None:
        """There is no thread for it. Who lives serves on."""
        if worker in self.workers:
            self.failed_starts += 1
            self._move(worker, State.STOPPED)
            self.wanted = min(self.wanted, len(self.active()))
            self.workers.remove(worker)
        self._admit()

    def retire(self, worker: Worker, reason: Reason) -> None:
        """THE way out: it takes no further task, and its slot is vacant."""
        if worker.state in (State.STARTING, State.SERVING):
            worker.reason = reason
            self.recycles[reason] = self.recycles.get(reason, 0) + 1
            self._move(worker, State.RETIRING)

    def vacate(self, worker: Worker) -> None:
        """It runs no task any more: its teardown is all that is left of it."""
        worker.vacated = True
        self._admit()

    def left(self, worker: Worker) -> None:
        """Its thread has ended."""
        self._move(worker, State.STOPPED)
        if worker in self.workers:
            self.workers.remove(worker)
        if worker in self.abandoned:
            self.abandoned.remove(worker)
        self._admit()

    def abandon(self, worker: Worker) -> None:
        """It does not end, and is given up. Its thread may still come to its end, some day."""
        if worker in self.workers:
            if worker not in self.abandoned:
                self.abandoned.append(worker)
            self._move(worker, State.ABANDONED)
            self.workers.remove(worker)
        self._admit()

    def _admit(self) -> None:
        """Let those serve who are ready, and in whose slot no task runs any more.

        So a successor is warm before it is needed, and a pool never runs more tasks than it has
        slots.
        """
        taken = self._taken_slots()
        for worker in self.workers:
            if worker.opened and worker.slot not in taken:
                self._move(worker, State.SERVING)

    def may_serve(self) -> list[Worker]:
        """Who need not wait, when it is ready, for the end of another's task."""
        taken = self._taken_slots()
        return [w for w in self.workers if w.state is not State.STARTING or w.slot not in taken]

    def _taken_slots(self) -> set[int]:
        """Where one who goes may still run a task."""
        return {w.slot for w in self.workers if w.state is State.RETIRING and not w.vacated}

    def _move(self, worker: Worker, state: State) -> None:
        if _ORDER.index(state) > _ORDER.index(worker.state):
            worker.state = state

    # -- the pool's life --------------------------------------------------------------------------

    def close(self, *, terminal: bool = False) -> None:
        """Begin to end the epoch: what is queued is finished, by no more workers than it takes."""
        if self.state is not PoolState.SHUTDOWN:
            self.state = PoolState.CLOSING
            self.terminal = self.terminal or terminal

    def destroy(self) -> None:
        """End the epoch now: nobody starts any more."""
        self.close()
        self.aborting = True

    def end(self) -> None:
        """The epoch is over: the next one is empty, and may begin."""
        self.aborting = self._once_ready = False
        self.broken = None
        self.wanted = 0
        self.state = PoolState.SHUTDOWN if self.terminal else PoolState.OPEN

    def check(self) -> None:
        """The invariants; run after each order in tests and under RECYCLEPOOL_DEBUG=1."""
        active = self.active()
        assert len({w.slot for w in active}) == len(active), "one slot, two workers"
        assert len(active) <= self.size, "more active workers than the pool has slots"
        assert len(self.workers) <= self.size + self.surge, "more workers than size and surge allow"
        assert all(w.generation <= self.generations[w.slot] for w in self.workers)
        assert all(w.state is not State.STOPPED for w in self.workers), "a stopped worker is here"
        assert not (self.state is PoolState.SHUTDOWN and self.workers), "workers after the end"
