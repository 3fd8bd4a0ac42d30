"""One worker: what is known of it, and what it has counted. Plain data, made of the rooms below."""

from collections.abc import Callable
from typing import Any, NamedTuple

from recyclepool._dispatch import Dispatch
from recyclepool._gate import Flag, Gate, new_lock
from recyclepool.cache import WorkerCache
from recyclepool.states import BUCKETS, Reason, State

__all__ = ["Books", "Tally", "Worker"]


class Tally:
    """What one worker has counted. Only its own thread writes; anybody may read.

    A run adds one to ``run_counts`` if it ended in a result that its caller got, and else to
    ``spoilt_counts``: so ``completed`` need not be counted apart, and is no difference that a
    reader could catch half-way.
    """

    def __init__(self) -> None:
        self.failed = self.aborted = self.cancelled = 0
        self.wait_seconds = self.run_seconds = 0.0
        self.wait_counts = [0] * (len(BUCKETS) + 1)
        self.run_counts = [0] * (len(BUCKETS) + 1)
        self.spoilt_counts = [0] * (len(BUCKETS) + 1)

    @property
    def completed(self) -> int:
        """Tasks that returned a result which their caller got."""
        return sum(self.run_counts)

    def __add__(self, other: "Tally") -> "Tally":
        total = Tally()
        for name in ("failed", "aborted", "cancelled", "wait_seconds", "run_seconds"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        for name in ("wait_counts", "run_counts", "spoilt_counts"):
            counts = zip(getattr(self, name), getattr(other, name), strict=True)
            setattr(total, name, [mine + theirs for mine, theirs in counts])
        return total


class Books(NamedTuple):
    """The tallies still written, and the sum of those that are closed: replaced in one step."""

    open: tuple[Tally, ...] = ()
    closed: Tally = Tally()  # never written: to add makes a new one

    def opened(self, tally: Tally) -> "Books":
        """With one more that is written."""
        return self if tally in self.open else Books((*self.open, tally), self.closed)

    def closed_for(self, tally: Tally) -> "Books":
        """With one fewer: nobody writes it any more."""
        if tally not in self.open:
            return self
        return Books(tuple(t for t in self.open if t is not tally), self.closed + tally)

    def total(self) -> Tally:
        """Everything that was ever counted."""
        return sum(self.open, self.closed)


class Worker:
    """One driver thread and its backend instance, from STARTING to STOPPED or ABANDONED.

    ``state``, ``slot``, ``generation`` and ``reason`` are the roster's; ``leaving`` is the mark
    that retire sets and the worker reads (DISPATCH 7); the rest is written by the worker's own
    thread.
    """

    def __init__(
        self,
        slot: int,
        generation: int,
        dispatch: Dispatch,
        *,
        cache: WorkerCache,
        born: float,
        last_task: int,
    ) -> None:
        self.slot = slot
        self.generation = generation
        self.state = State.STARTING
        self.reason: Reason | None = None
        self.leaving: Reason | None = None
        self.dispatch = dispatch
        self.wake = new_lock()  # released once for each time that it was taken out of the stack
        self.wake.acquire()
        self.gate = Gate()
        self.stopping = Flag()
        self.tally = Tally()
        self.cache = cache
        self.values: dict[Any, Any] = {}  # of @per_worker
        self.teardowns: list[Callable[[], None]] = []
        self.tasks = 0  # started here
        self.resting = True  # it will take the next task: false from before each popleft
        self.last_task = last_task  # the number of the task after which it goes; 0: none
        self.born = self.idle_since = born
        self.task_started = 0.0
        self.backend: Any = None
        self.thread: Any = None
        self.launched = False
        self.opened = False  # its backend is ready
        self.vacated = False  # it runs no task any more
        self.admission = new_lock()  # released when it may serve, or is to go
        self.admission.acquire()
        self._boarding = [True]

    def board(self) -> bool:
        """True for the first thread that asks: that one drives this worker.

        A thread start that an interrupt broke off is done again, and may so happen twice.
        """
        try:
            return self._boarding.pop()
        except IndexError:
            return False

    def __repr__(self) -> str:
        return f"<Worker {self.slot}.{self.generation} {self.state}>"
