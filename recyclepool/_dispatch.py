"""DISPATCH: how tasks and workers meet. No lock, no lost wake-up, no stranded task.

Two containers: a deque of tasks, and a stack of the wake locks of idle workers. Their single
operations are atomic, and there is no lock around them: so none can be left held, waited for by a
thread that holds the GIL, or taken twice by a signal handler or a finalizer that submits. Those
are just like one more thread.

The rule: WHOEVER ADDS TO ONE SIDE LOOKS AT THE OTHER AFTERWARDS; when both have something, wake
one.

1. ``put``: append the task; then look: somebody idle -> take the last one out of the stack and
   wake it, in one C call; else, a vacancy -> have the engine start a worker. The look stands in a
   ``finally``.
2. A busy worker takes its next task by popleft, without looking at anything but its own mark.
3. A worker that finds none appends itself to the stack, then looks at the queue, at its mark and
   at ``closing``, and wakes one if there is a task (as a rule itself); then it sleeps on its wake
   lock. Woken, it goes on with 2.

No task waits beside an idle worker. Count Q tasks queued, I workers idle, S workers awake whose
next step is popleft, Ls and Lw looks that are still to come, of submitters and of workers. Always

                          Q <= S + Ls    or    I <= Lw

   append (Q+1, Ls+1)      keeps both        popleft finds one (Q-1, S-1)   keeps both
   publish (I+1, Lw+1)     keeps both        popleft finds none             Q = 0: the first holds
   a submitter's look (Ls-1): I > 0: wakes (I-1, S+1), keeps both; I = 0: the second holds
   a worker's look (Lw-1): Q > 0, I > 0: wakes (I-1, S+1), keeps both; else one is 0: it holds
   a task ends (S+1)       keeps both        a worker starts (S+1)          keeps both
   a worker goes for good  counts as an append: whoever makes a vacancy looks (engine)

When all looks are done, each queued task has a worker of its own that is about to take one, or
nobody is idle.

4. A wake lock is released once for each time that it was in the stack, because one taker gets it,
   and takes and wakes in one C call: an interrupt cannot come between.
5. Closing: ``closing`` goes up, then all are woken. A worker publishes itself, then reads it:
   none sleeps on.
6. ``put`` reads ``closing`` again after its append. Not set: the append came before it was; a
   worker leaves only after a popleft that failed AFTER it read ``closing``, so that one saw the
   task or somebody had it. Set: ``put`` takes the task back and says no, or a worker has it and
   it is accepted.
7. Retire marks a worker, THEN tries to take it out of the stack; a worker publishes itself, THEN
   reads its mark, and it reads its mark before each popleft. The other way round, a worker that
   is falling asleep would be missed for ever. Who is taken out so runs no task any more.
8. Who wants to know when nothing is left to do sets ``on_rest``, THEN looks; a worker publishes
   itself, THEN calls it: the last of them sees it, or was seen.

9. ``hand`` gives a task to one idle worker: it is taken out of the stack, given the task and woken
   in one C call. A worker that was woken looks at what it was handed before anything else, its mark
   too: so that is accepted. It overtakes nobody: each task in the queue has a worker of its own.

An epoch is one Dispatch. None is ever reopened: ``submit`` reads the engine's once and uses only
that, workers keep theirs. So nothing that is late touches the epoch after it.

Free-threaded builds: each single operation is atomic there too, but ``if idle`` is a plain read
that may be served early. There the looks must call pop and popleft, which lock their container.
"""

import operator
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from recyclepool._future import Future

__all__ = ["Dispatch"]

_call: Callable[[Any], object] = operator.call


class Taker(Protocol):
    """What a worker is to its dispatch."""

    wake: Any  # the lock on which it sleeps
    leaving: Any  # its mark: None, or why it is to go
    resting: bool  # it will take the next task
    handed: list[Any]  # a task that is for this one: only an idle worker is given one
    probe: Any  # None, or what has something to do while it sleeps


class Dispatch:
    """The queue and the idle stack of one epoch. Any thread, at any bytecode."""

    __slots__ = (
        "_want_worker",
        "closing",
        "ended",
        "given_up",
        "idle",
        "on_rest",
        "queue",
        "vacancies",
        "wake_one",
    )

    def __init__(self, want_worker: Callable[[], None]) -> None:
        self.queue: deque[Future[Any]] = deque()
        self.idle: list[Any] = []  # wake locks; who fell idle last is woken first: the others age
        self.closing = False  # only goes up
        self.vacancies = 0  # how many more workers the roster could start; written by the engine
        self.ended: Future[None] = Future()  # settled when the epoch is over
        self.given_up: list[Any] = []  # its workers that did not end
        self.on_rest: Callable[[], None] | None = None  # while somebody waits for nothing to do
        self._want_worker = want_worker
        # One C call: take the last worker out of the stack and wake it. IndexError: nobody is idle.
        self.wake_one: Callable[[], None] = map(
            operator.methodcaller("release"), iter(self.idle.pop, None)
        ).__next__

    def put(self, task: Future[Any]) -> bool:
        """Accept a task (DISPATCH 1, 6). False: closing, and nobody will run it."""
        if self.closing:
            return False
        try:
            self.queue.append(task)
        finally:
            if self.idle:
                try:
                    self.wake_one()
                except IndexError:
                    self.look()
            elif self.vacancies:
                try:
                    self.look()
                except BaseException as broken_off:
                    if not isinstance(broken_off, Exception):
                        self.look()  # an interrupt, before the order was given
                    raise
        return not self.closing or not self.take_back(task)

    def look(self) -> None:
        """Wake an idle worker; else, for a task and a vacancy, have one started."""
        try:
            self.wake_one()
        except IndexError:
            if self.queue and self.vacancies:
                self._want_worker()

    def hand(self, task: Future[Any], worker: Taker) -> bool:
        """Have this worker run it, if it is idle (DISPATCH 9)."""
        wake = worker.wake
        steps = (partial(self.idle.remove, wake), partial(worker.handed.append, task), wake.release)
        try:
            list(map(_call, steps))
        except ValueError:
            return False
        return True

    def take_back(self, task: Future[Any]) -> bool:
        """Take a task out of the queue. False: a worker has it, or had it."""
        try:
            self.queue.remove(task)
        except ValueError:
            return False
        return True

    def fall_asleep(self, worker: Taker) -> bool:
        """Sleep until there may be a task, or a reason to go (DISPATCH 3, 5, 7). True: closing."""
        if self.closing:
            return True
        worker.resting = True
        self.idle.append(worker.wake)
        if worker.leaving is not None or self.closing:
            self.rouse(worker)
        elif self.queue:
            self.look()
        elif self.on_rest is not None:
            self.on_rest()
        if worker.probe is None:
            worker.wake.acquire()
        else:
            worker.probe.sleep()
        worker.resting = False
        return self.closing

    def rouse(self, worker: Taker) -> bool:
        """Take this worker out of the stack and wake it, in one C call. False: it is not in it."""
        try:
            wake = worker.wake
            list(map(_call, (partial(self.idle.remove, wake), wake.release)))
        except ValueError:
            return False  # busy, or somebody else took it out, and woke it
        return True

    def rouse_all(self) -> None:
        """Wake everybody (DISPATCH 5)."""
        try:
            while True:
                self.wake_one()
        except IndexError:
            pass

    def check(self) -> None:
        """The invariants, at rest: no look and no pop outstanding."""
        assert not (self.queue and self.idle), "a task waits beside an idle worker"
        assert len(set(map(id, self.idle))) == len(self.idle), "a worker is idle twice"
        assert not (self.closing and self.idle), "a worker sleeps in an epoch that closes"
