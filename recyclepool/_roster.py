"""Who is here, who goes, who is wanted. Decisions only: no threads, no clock, no I/O.

The engine calls these methods one at a time and carries out what they decide. Each may be called
again after an interrupt broke it off half-way: a second call finishes what the first began, and
one too many changes nothing.

There is one way out, ``retire``, and one way in, ``reconcile``: the arithmetic between what is
wanted and what is there. Whether a successor is wanted is a property of the pool, not of the
farewell: a worker that retires leaves ``wanted`` as it is, so a successor follows; an end sets it
to nothing.

``wanted`` grows when a task finds nobody who will take it, and shrinks when the pool ends, is
resized, lets an idle worker go, or gets no thread.

A slot has one *holder*, who serves. A holder that is *due* goes on serving; ``reconcile`` makes a
*successor* in the same slot, and when that is ready the holder retires. A successor that never
becomes ready leaves the holder where it is. *Active* are holders, and starters of empty slots.

Invariants (``check``): one holder a slot, and one starter; active workers <= size; all workers <=
size + surge, abandoned ones and those of slots that are no more apart; states only grow; after
destroy began no worker starts.
"""

from collections.abc import Callable

from recyclepool._worker import Worker
from recyclepool.errors import WorkerLostError
from recyclepool.states import ACTIVE, PoolState, Reason, State

__all__ = ["Roster"]

MANY = 1_000  # slots: of more than that, those are counted that were held
FAILED_STARTS = 5  # in a row, with nobody serving, break the pool

_ORDER = list(State)
RETIRING = State.RETIRING  # to ask for it may be a call: an interrupt could come


class Roster:
    """The workers of a pool. One thread at a time: see the engine."""

    def __init__(
        self,
        size: int,
        new_worker: Callable[[int, int], Worker],
        min_workers: int = 0,
        surge: int = 1,
        max_abandoned: int | None = None,
    ) -> None:
        self.size = size
        self.min_workers = min_workers
        self.surge = surge
        self.max_abandoned = max_abandoned
        self.state = PoolState.OPEN
        self.terminal = False  # after this end there is no other epoch
        self.aborting = False  # destroy began: no worker starts
        self.broken: BaseException | None = None
        self.wanted = 0
        self.workers: list[Worker] = []  # STARTING, SERVING and RETIRING
        self.abandoned: list[Worker] = []
        self.generations: list[int] = []  # how many workers have held each slot
        self._count_slots(min(size, MANY))
        self.recycles: dict[Reason, int] = {}
        self.failed_starts = 0
        self.failures = 0  # of those, in a row
        self.held_back = False  # starts failed: none is made until the engine says resume
        self._once_ready = False
        self._shrunk = False  # who had gone half-way then may be too many for what is left
        self._new_worker = new_worker

    # -- what is there ----------------------------------------------------------------------------

    def holders(self) -> dict[int, Worker]:
        """Who serves, by slot."""
        return {w.slot: w for w in self.workers if w.state is State.SERVING}

    def starters(self) -> dict[int, Worker]:
        """Who starts, by slot: of an empty one, or of one whose holder is due."""
        return {w.slot: w for w in self.workers if w.state is State.STARTING}

    def active(self) -> list[Worker]:
        """Those who hold a slot, or start in an empty one."""
        holders = self.holders()
        return [
            w
            for w in self.workers
            if w.state is State.SERVING or (w.state is State.STARTING and w.slot not in holders)
        ]

    def serving(self) -> int:
        """How many are ready for tasks."""
        return sum(w.state is State.SERVING for w in self.workers)

    def may_start(self) -> bool:
        """Is anybody started at all?"""
        over = self.aborting or self.broken is not None or self.state is PoolState.SHUTDOWN
        return not over and not self.held_back

    def vacancies(self) -> int:
        """How many more could be started for a task that finds nobody."""
        if not self.may_start():
            return 0
        taken, free, room = self._empty_slots()
        return max(0, min(room, free + taken))

    def _empty_slots(self) -> tuple[int, int, int]:
        """How many slots are empty but for another's last task, how many are free, and the room."""
        held = {slot for slot in self._held_slots() if slot < self.size}
        taken = sum(slot < self.size for slot in self._taken_slots() - held)
        return taken, self.size - len(held) - taken, self._room()

    def _vacant_slots(self, most: int) -> list[int]:
        """The slots for which a worker may be made now, the lowest first.

        Where another's last task still runs, a successor can only wait: it must not use up the room
        that a slot needs in which a task could run at once.
        """
        held, taken = self._held_slots(), self._taken_slots()
        _, free, room = self._empty_slots()
        waiting, most = room - free, min(room, most)
        vacant: list[int] = []
        for slot in range(self.size):
            if len(vacant) >= most:
                break
            if slot in held:
                continue
            waiting -= slot in taken
            if slot not in taken or waiting >= 0:
                vacant.append(slot)
        return vacant

    def _held_slots(self) -> set[int]:
        """For which no worker is made: who goes in haste has to let go of its memory first."""
        return {w.slot for w in self.workers if w.state in ACTIVE or (w.in_haste and not w.vacated)}

    def _room(self) -> int:
        """How many more may live."""
        return self.size + self.surge - sum(w.slot < self.size for w in self.workers)

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
        # `handed` is read first: who takes what it holds has ceased to rest before.
        return sum(not w.handed and w.resting and w.slot not in taken for w in self.active())

    def want_minimum(self) -> None:
        """The pool is started: its least number of workers is wanted, tasks or no."""
        self.wanted = max(self.wanted, self.min_workers)

    def want(self, workers: int) -> None:
        """So many are wanted, or more."""
        if self.state is PoolState.OPEN:
            self.wanted = min(self.size, max(self.wanted, workers))

    def reconcile(self) -> None:
        """Add as many workers as are wanted and allowed, each in the lowest slot that is free.

        Then the successors of those who are due, as far as the surge reaches beyond a full pool.
        """
        if not self.may_start():
            return
        held, starting = set(), set()
        for worker in self.workers:
            if worker.state is State.SERVING:
                held.add(worker.slot)
            elif worker.state is State.STARTING:
                starting.add(worker.slot)
        missing = self.wanted - len(held | starting)
        if missing > 0:
            for slot in self._vacant_slots(missing):
                self._add(slot)
                starting.add(slot)
        due = [
            w
            for w in self.workers
            if w.due is not None and w.state is State.SERVING and w.slot not in starting
        ]
        if due:
            # The surge is for those who are more than one in a slot.
            inside = [w for w in self.workers if w.slot < self.size]
            slots = [slot for slot in held | starting if slot < self.size]
            extra = len(inside) - len(slots)
            for worker in due[: max(0, self.surge - extra)]:
                self._add(worker.slot)

    def _add(self, slot: int) -> None:
        self._count_slots(slot + 1)
        here = [w.generation for w in (*self.workers, *self.abandoned) if w.slot == slot]
        self.workers.append(self._new_worker(slot, max([self.generations[slot], *here]) + 1))

    def _count_slots(self, size: int) -> None:
        self.generations += [0] * (size - len(self.generations))

    # -- a worker's life --------------------------------------------------------------------------

    def ready(self, worker: Worker) -> None:
        """It could take tasks. One that was retired while it started goes on retiring."""
        if worker in self.workers:
            self._once_ready = True
            self.failures = 0
            self.held_back = False
            worker.opened = True
            if worker.state is State.STARTING or worker.admitted:  # then it may have run a task
                counted = self.generations[worker.slot]
                self.generations[worker.slot] = max(counted, worker.generation)
            self._admit()

    def start_failed(self, worker: Worker, error: BaseException) -> None:
        """It could not be made ready, and is gone.

        The first ever breaks the pool, as the standard's does: its initializer is wrong. Later ones
        hold the next starts back for a while; with nobody serving, five in a row break the pool. Of
        those that ran side by side the first counts.
        """
        if worker in self.workers:
            self._count_failure(error)
        self._gone(worker)

    def _count_failure(self, error: BaseException) -> None:
        self.failed_starts += 1
        self.failures += not self.held_back
        if not self._once_ready or (self.failures >= FAILED_STARTS and not self.serving()):
            self._break(error)
        else:
            self.held_back = True

    def not_launched(self, worker: Worker) -> None:
        """There is no thread for it. Who lives serves on; the next try waits, if anybody lives."""
        if worker in self.workers:
            self.failed_starts += 1
            self.failures += not self.held_back
            self._move(worker, State.STOPPED)
            self.wanted = min(self.wanted, len(self.active()))
            self.held_back = bool(self.active())  # with nobody left the next submit tries
        self._gone(worker)

    def resume(self) -> None:
        """Try again to start workers."""
        self.held_back = False

    def make_due(self, worker: Worker, reason: Reason) -> bool:
        """It is to be replaced, and serves until its successor is ready. True: from now on."""
        if self.state is not PoolState.OPEN or worker.due is not None:
            return False
        if worker.state not in ACTIVE:
            return False
        worker.due = reason
        return True

    def superseded(self) -> list[tuple[Worker, Reason]]:
        """Who is to go now: its successor is ready, or its slot is no more, or it replaces nobody.

        Without a surge the first who is due goes as soon as nobody else comes or goes.
        """
        starting = State.STARTING in [w.state for w in self.workers]
        if not starting and self.surge and not self._shrunk:
            return []
        holders, starters = self.holders(), self.starters()
        outside = [w for w in (*holders.values(), *starters.values()) if w.slot >= self.size]
        gone = [(worker, Reason.RESIZE) for worker in outside]
        for slot, starter in starters.items():
            holder = holders.get(slot)
            if holder is not None and holder.due is None:
                gone.append((starter, starter.due or Reason.CLOSE))
            elif holder is not None and holder.due is not None and starter.opened:
                gone.append((holder, holder.due))
        if not self.surge and not gone and self.wanted <= len(holders) == len(self.workers):
            due = [(w, w.due) for w in self.workers if w.due is not None and self.may_start()]
            gone += due[:1]
        return gone

    def retire(self, worker: Worker, reason: Reason) -> None:
        """THE way out: it takes no further task, and its slot is vacant."""
        if worker.state in ACTIVE:
            count = self.recycles.get(reason, 0) + 1
            worker.reason = reason
            # No call from here on, so no interrupt between: it is counted once.
            worker.state = RETIRING
            self.recycles[reason] = count

    def may_shrink(self) -> bool:
        """Is there a worker more than the pool keeps when there is nothing to do?"""
        return self.state is PoolState.OPEN and len(self.active()) > self.min_workers

    def shrink(self) -> None:
        """One worker fewer is wanted: an idle one is about to go."""
        self.wanted = max(self.min_workers, len(self.active()) - 1)

    def resize(self, size: int) -> None:
        """So many slots from now on."""
        self._count_slots(min(size, MANY))
        self.wanted = min(self.wanted, size)
        self._shrunk = self._shrunk or size < self.size
        self.size = size

    def vacate(self, worker: Worker) -> None:
        """It runs no task any more: its teardown is all that is left of it."""
        worker.vacated = True
        self._admit()

    def left(self, worker: Worker) -> None:
        """Its thread has ended."""
        if worker in self.abandoned:
            self.abandoned.remove(worker)
        self._gone(worker)

    def abandon(self, worker: Worker, start_error: BaseException | None = None) -> None:
        """It does not end, and is given up. Its thread may still come to its end, some day.

        With `start_error` it was not ready in time, and counts as a start that failed. More of them
        than are allowed break the pool, rather than let it leak threads without end.
        """
        if worker in self.workers:
            if start_error is not None:
                self._count_failure(start_error)
            if worker not in self.abandoned:
                self.abandoned.append(worker)
            self._move(worker, State.ABANDONED)
            self.workers.remove(worker)
        most = self.size if self.max_abandoned is None else self.max_abandoned
        if self.state is PoolState.OPEN and len(self.abandoned) > most:
            self._break(
                WorkerLostError(
                    f"{len(self.abandoned)} threads are stuck in tasks that do not end, "
                    f"and no more than {most} may be (max_abandoned)"
                )
            )
        self._admit()

    def _gone(self, worker: Worker) -> None:
        self._move(worker, State.STOPPED)
        if worker in self.workers:
            self.workers.remove(worker)
        self._admit()

    def _break(self, error: BaseException) -> None:
        self.broken = error
        if self.state is PoolState.OPEN:
            self.state = PoolState.BROKEN

    def _admit(self) -> None:
        """Let those serve who are ready, and in whose slot no task runs any more.

        So a successor is warm before it is needed, and a pool never runs more tasks than it has
        slots.
        """
        taken = self._taken_slots() | self.holders().keys()
        for worker in self.workers:
            if worker.opened and worker.state is State.STARTING and worker.slot not in taken:
                self._move(worker, State.SERVING)

    def may_serve(self) -> list[Worker]:
        """Who has no need to wait, when it is ready, for the end of another in its slot."""
        waiting = [w for w in self.workers if not w.admitted]
        if not waiting:
            return []
        taken = self._taken_slots() | self.holders().keys()
        return [w for w in waiting if w.state is not State.STARTING or w.slot not in taken]

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
            for worker in self.workers:
                worker.due = None  # nobody is replaced any more: it goes when the queue is empty

    def destroy(self) -> None:
        """End the epoch now: nobody starts any more."""
        self.close()
        self.aborting = True

    def end(self) -> None:
        """The epoch is over: the next one is empty, and may begin."""
        self.aborting = self.held_back = self._once_ready = self._shrunk = False
        self.failures = 0
        self.broken = None
        self.wanted = 0
        self.state = PoolState.SHUTDOWN if self.terminal else PoolState.OPEN

    def check(self) -> None:
        """The invariants; run after each order in tests and under RECYCLEPOOL_DEBUG=1."""
        active = [w for w in self.active() if w.slot < self.size]
        assert len({w.slot for w in active}) == len(active), "one slot, two workers"
        assert len(self.starters()) == sum(w.state is State.STARTING for w in self.workers), (
            "one slot, two starters"
        )
        assert len(active) <= self.size, "more active workers than the pool has slots"
        assert self._room() >= 0 or self._shrunk, "more workers than size and surge allow"
        assert all(w.generation <= self.generations[w.slot] for w in self.holders().values())
        assert all(w.state is not State.STOPPED for w in self.workers), "a stopped worker is here"
        assert not (self.state is PoolState.SHUTDOWN and self.workers), "workers after the end"
