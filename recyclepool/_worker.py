"""One worker: what is known of it, and what it has counted. Plain data, made of the rooms below."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple, get_args

from recyclepool._dispatch import Dispatch
from recyclepool._gate import Flag, Gate, new_lock
from recyclepool.cache import EvictionCause, WorkerCache
from recyclepool.states import BUCKETS, Reason, State

__all__ = ["CAUSES", "Books", "Doom", "Gone", "Sample", "Tally", "Worker"]

CAUSES: tuple[str, ...] = get_args(EvictionCause)

_NO_COUNTS = [0] * (len(BUCKETS) + 1)
_NO_CACHE_COUNTS = [0] * (2 + len(CAUSES))
_NUMBERS = (
    *("failed", "aborted", "cancelled", "timed_out", "lost", "wait_seconds", "run_seconds"),
    *("recycle_seconds", "freed_bytes"),
)
_LISTS = ("wait_counts", "run_counts", "spoilt_counts", "recycle_counts", "cache_counts")


class Tally:
    """What one worker has counted. Only its own thread writes; anybody may read.

    But for what is known at its end only: the engine writes that, just before it closes the books.

    A run adds one to ``run_counts`` if it ended in a result that its caller got, and else to
    ``spoilt_counts``: so ``completed`` need not be counted apart, and is no difference that a
    reader could catch half-way.
    """

    def __init__(self) -> None:
        self.failed = self.aborted = self.cancelled = self.timed_out = self.lost = 0
        self.wait_seconds = self.run_seconds = 0.0
        self.wait_counts = _NO_COUNTS.copy()
        self.run_counts = _NO_COUNTS.copy()
        self.spoilt_counts = _NO_COUNTS.copy()
        # Of who has gone. Replaced, and never changed.
        self.recycle_seconds = 0.0
        self.recycle_counts = _NO_COUNTS
        self.freed_bytes = 0
        self.cache_counts = _NO_CACHE_COUNTS  # hits, misses, and evictions in the order of CAUSES

    @property
    def completed(self) -> int:
        """Tasks that returned a result which their caller got."""
        return sum(self.run_counts)

    def recycled(self, seconds: float, freed_bytes: int) -> None:
        """Its worker was replaced, and was gone after so long. Done again it changes nothing."""
        if self.recycle_counts is not _NO_COUNTS:
            return
        counts = _NO_COUNTS.copy()
        counts[bisect_left(BUCKETS, seconds)] = 1
        self.freed_bytes, self.recycle_seconds = freed_bytes, seconds
        self.recycle_counts = counts  # at last

    @staticmethod
    def of_all(tallies: "Sequence[Tally]") -> "Tally":
        """What they have counted together."""
        total = Tally()
        for name in _NUMBERS:
            setattr(total, name, sum([getattr(tally, name) for tally in tallies]))
        for name in _LISTS:
            counts = zip(*[getattr(tally, name) for tally in tallies], strict=True)
            setattr(total, name, list(map(sum, counts)))
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
        closed = Tally.of_all((self.closed, tally))
        return Books(tuple(t for t in self.open if t is not tally), closed)

    def total(self) -> Tally:
        """Everything that was ever counted."""
        return Tally.of_all((self.closed, *self.open))


class Doom(NamedTuple):
    """A worker whose task is to end, and was told so."""

    task: Any
    error: BaseException  # what its future gets
    reason: Reason
    deadline: float  # then the worker is given up
    nudge_at: float  # then the task is told again: it may have swallowed what was raised in it
    pause: float


class Sample(NamedTuple):
    """One reading of what a worker holds, or a process."""

    kind: str  # "owned", "rss", "uss"
    bytes: int
    at: float  # the wall clock
    is_bound: bool  # it may be more
    undecided: int = 0  # containers that are left open, with all that they reach
    largest: tuple[tuple[str, int], ...] = ()  # roots, and the bytes that go with them


class Gone(NamedTuple):
    """A worker that went for its memory."""

    slot: int
    generation: int
    owned: int
    largest: tuple[tuple[str, int], ...]
    before: int  # the process's floor, when that was decided
    thread: Any
    worker: Any  # to know it by


class Worker:
    """One driver thread and its backend instance, from STARTING to STOPPED or ABANDONED.

    ``leaving`` is the mark that retire sets and the worker reads (DISPATCH 7). What the worker's
    own thread writes, others read without a lock: ``task_started`` is written before ``gate.task``
    and read after it, so it is never the start of a task before.
    """

    # An instance with more than 30 attributes is slow without.
    __slots__ = (
        "_boarding",
        "_start",
        "admission",
        "admitted",
        "backend",
        "born",
        "budget",
        "cache",
        "dispatch",
        "doom",
        "due",
        "expires",
        "forked",
        "gate",
        "generation",
        "given_up",
        "handed",
        "heartbeat",
        "idle_since",
        "in_haste",
        "last_task",
        "launched",
        "leaving",
        "measured_low",
        "memory",
        "opened",
        "outgrown",
        "probe",
        "reason",
        "reported",
        "resting",
        "retired_at",
        "slot",
        "state",
        "stopping",
        "tally",
        "task_started",
        "tasks",
        "teardowns",
        "thread",
        "threads",
        "undoing",
        "vacated",
        "vacated_at",
        "values",
        "wake",
        "watch",
        "why",
    )

    def __init__(self, *, budget: int = 0, last_task: int = 0) -> None:
        self.slot = self.generation = -1  # it has none yet
        # The roster's: one thread at a time.
        self.state = State.STARTING
        self.reason: Reason | None = None  # why it retired
        self.due: Reason | None = None  # why it is to be replaced, as soon as its successor serves
        self.launched = self.admitted = False
        self.opened = False  # its backend is ready
        self.vacated = False  # it runs no task any more
        # The engine's: with its lock held.
        self.why = ""  # the reason in words
        self.leaving: Reason | None = None
        self.doom: Doom | None = None
        self.expires = inf  # when it is too old
        self.measured_low = False  # it owned more than it may after its first task: that is noted
        self.reported = -inf  # when the task started, or the idling, that report_only told of
        self.given_up: tuple[str | None, Any] = (None, None)  # its task and its stack, if abandoned
        self.backend: Any = None
        self.threads: list[Any] = []  # made for it; taken out to be started, and never twice
        self.thread: Any = None
        # The worker's own thread's.
        self.wake = new_lock()  # released once for each time that it was taken out of the stack
        self.wake.acquire()
        self.admission = new_lock()  # released when it may serve, or is to go
        self.admission.acquire()
        self.gate = Gate()
        self.watch: Any = None  # the watchdog that is to know when it has something to do
        self.stopping = Flag()
        self.tally = Tally()
        self.budget = budget  # of its cache, in bytes
        self.cache: WorkerCache | None = None  # made by the first task that asks for it
        self.values: dict[Any, Any] = {}  # of @per_worker
        self.teardowns: list[Callable[[], None]] = []
        self.tasks = 0  # started here
        self.last_task = last_task  # the number of the task after which it goes; 0: none
        self.memory: Sample | None = None  # what it held when it was last looked at
        self.probe: Any = None  # what looks; None: nobody wants to know
        # What it owned and the process took, when it was found to be the one that is to go. The
        # engine's, unless it goes in haste.
        self.outgrown: tuple[Sample, int] | None = None
        self.in_haste = False  # its memory grows fast: nobody takes its place until it is gone
        self.undoing = False  # its teardown runs though it is not vacated: it goes in haste
        self.handed: list[Any] = []  # a task that is for this worker: DISPATCH 9
        self.resting = True  # it will take the next task: false from before each popleft
        self.forked = False  # a copy, in the child of a fork: only the thread that forked is there
        self._boarding = [True]
        self._start: dict[str, str] = {}

    def take_slot(self, slot: int, generation: int, dispatch: Dispatch, now: float) -> None:
        """Its life begins: it may have been made long before."""
        self.slot = slot
        self.generation = generation
        self.dispatch = dispatch
        self.born = self.idle_since = self.task_started = self.heartbeat = now
        self.retired_at = self.vacated_at = now

    def clear_cache(self) -> None:
        """By its own thread, at its end."""
        if self.cache is not None:
            self.cache.clear()

    def cache_counts(self) -> list[int]:
        """What its cache has counted, as in its tally. Not its stats(): they import the events."""
        cache = self.cache
        if cache is None:
            return _NO_CACHE_COUNTS
        return [cache._hits, cache._misses, *cache._evictions.copy().values()]

    def board(self) -> bool:
        """True for the first thread that asks: that one drives this worker.

        A thread start that an interrupt broke off is done again, and may so happen twice.
        """
        try:
            return self._boarding.pop()
        except IndexError:
            return False

    def claim_start(self, who: str) -> bool:
        """Did its driver open it in time, or did the watchdog give it up? The first who asks."""
        return self._start.setdefault("claimed by", who) == who

    def __repr__(self) -> str:
        return f"<Worker {self.slot}.{self.generation} {self.state}>"
