"""What the demo shows: a value goes in, lines of text come out; one class puts them on a terminal.

The cursor is hidden only within one write, so that there is no way out that leaves it hidden.
"""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import FrameType
from typing import Never, Protocol, TextIO

from recyclepool._demo_memory import Track, one_line, returned, saw_tooth, size
from recyclepool.errors import TaskTimeoutError
from recyclepool.events import (
    Event,
    MemoryReturned,
    PoolClosed,
    TaskTimedOut,
    WorkerDue,
    WorkerReady,
    WorkerRetired,
)
from recyclepool.snapshots import PoolStats, WorkerStats
from recyclepool.states import Reason
from recyclepool.units import format_size

__all__ = [
    "Frame",
    "Interrupted",
    "Restart",
    "Screen",
    "Stop",
    "Story",
    "Who",
    "about_the_gil",
    "details",
    "hang",
    "line",
    "named",
    "reasons",
    "soft_restart",
    "table",
    "who",
]

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
CLEAR_BELOW, CLEAR_RIGHT = "\x1b[J", "\x1b[K"
BOLD, DIM, RED, GREEN, YELLOW, PLAIN = "1", "2", "31", "32", "33", ""
COLOURS = {"serving": GREEN, "starting": YELLOW, "retiring": YELLOW, "abandoned": RED}
STATE = len("due: memory")
OWNED = len(">1023 KiB")
FIXED = 32 + STATE + OWNED  # columns of a worker's row: not its task, not its slot's past
ROOM_FOR_OTHERS = 6  # lines of a table that are no workers, and the one that the cursor rests on
MOST_NEWS = 15  # lines
LINE_EVERY = 2.0  # seconds, where there is no terminal

Piece = tuple[str, str]  # a text and its colour
Who = tuple[int, int]  # a worker: slot and generation


@dataclass(frozen=True, slots=True)
class Frame:
    """All that one picture of the running pool needs."""

    title: str
    stats: PoolStats
    done: int
    total: int
    seconds: float
    limit: int
    now: Mapping[Who, str]  # what each worker works on, or did
    left: Mapping[int, Sequence[str]]  # slot -> why its workers went, the latest first
    track: Track  # what they owned

    @property
    def rate(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def waited(self) -> float:
        """Seconds that a task lay in the queue, on average."""
        wait = self.stats.wait
        return wait.sum / wait.count if wait.count else 0.0


class _Worker(Protocol):
    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...


def who(worker: _Worker) -> Who:
    """Which worker this is, or which one an event is about."""
    return worker.slot, worker.generation


def named(worker: Who) -> str:
    """As the log calls it: slot and generation."""
    return "{}.{}".format(*worker)


class Story:
    """What a pool told of itself. Its events' thread adds to it, the others read."""

    def __init__(self, pool: str) -> None:
        self._about = f"pool {pool!r}: "
        self._events: list[Event] = []
        self._closed = threading.Event()
        self._read = self._shown = 0

    def add(self, event: Event) -> None:
        """For subscribe()."""
        self._events.append(event)
        if isinstance(event, PoolClosed):
            self._closed.set()

    def wait_closed(self) -> None:
        """All is told of an epoch that is over; the next is waited for anew."""
        self._closed.wait(5.0)
        self._closed.clear()

    def news(self) -> list[str]:
        """A line for what is worth one and was not told yet. That workers come and go is not."""
        events = self._events[self._read :]
        self._read += len(events)
        lines = [line for line in map(self._line, events) if line]
        shown = lines[: max(0, MOST_NEWS - self._shown)]
        self._shown += len(shown)
        return shown

    def _line(self, event: Event) -> str:
        if isinstance(event, WorkerRetired):
            return self._farewell(event)
        if isinstance(event, MemoryReturned):
            return returned(event)
        return str(event).removeprefix(self._about) if event.level >= logging.WARNING else ""

    def _farewell(self, event: WorkerRetired) -> str:
        """Of who went at the end of its tasks, as most do, only if it was to go anyway."""
        reason, why = event.reason, event.why
        if reason in (Reason.CLOSE, Reason.MEMORY):
            return ""  # of MEMORY more is told when it was measured what came back
        if reason is Reason.TASKS:
            if who(event) not in self.due(Reason.MANUAL):
                return ""
            why = "before its successor was ready"
        return f"worker {named(who(event))} retired: {reason}: {why}; {event.tasks} tasks"

    def told(self) -> list[Event]:
        """All of it, so far."""
        return self._events.copy()

    def gone(self) -> dict[Who, WorkerRetired]:
        """Who retired, in that order."""
        return {who(e): e for e in self._events.copy() if isinstance(e, WorkerRetired)}

    def left(self) -> dict[int, list[str]]:
        """Why the workers of each slot went, the latest first."""
        reasons: dict[int, list[str]] = {}
        for event in reversed(self.gone().values()):
            reasons.setdefault(event.slot, []).append(event.reason)
        return reasons

    def due(self, reason: Reason) -> list[Who]:
        """Who was to be replaced for that reason."""
        due = (e for e in self._events.copy() if isinstance(e, WorkerDue))
        return [who(event) for event in due if event.reason is reason]

    def follower(self, worker: Who) -> WorkerReady | None:
        """Who came next in its slot."""
        ready = (e for e in self._events.copy() if isinstance(e, WorkerReady))
        after = (e for e in ready if e.slot == worker[0] and e.generation > worker[1])
        return next(after, None)

    def timed_out(self, worker: Who) -> TaskTimedOut | None:
        """The end of its task, if that ran for too long."""
        events = (e for e in self._events.copy() if isinstance(e, TaskTimedOut))
        return next((event for event in events if who(event) == worker), None)


@dataclass(frozen=True, slots=True)
class Restart:
    """The soft restart as its caller saw it."""

    answer: int | str  # how many were replaced, or what went wrong
    seconds: float
    before: PoolStats
    after: PoolStats

    def meanwhile(self, *counters: str) -> int:
        """How many more tasks are counted after it than before."""
        return sum(getattr(self.after, name) - getattr(self.before, name) for name in counters)


def hang(planted: Future[Never] | None, spun_in: Who | None, story: Story) -> tuple[str, bool]:
    """What became of the planted task and of its worker. True: what was to become of them."""
    if planted is None or planted.cancelled():
        return "the task that spins did not start", False
    error = planted.exception()
    if not isinstance(error, TaskTimeoutError):
        ended = f"it returned {planted.result()!r}" if error is None else repr(error)
        return f"the task that spins did not time out: {ended}", False
    timed_out = None if spun_in is None else story.timed_out(spun_in)
    if spun_in is None or timed_out is None:
        return f"{error!r}, but its worker did not tell of it", False
    text = f"TaskTimeoutError after {timed_out.seconds:.2f} s in worker {named(spun_in)}"
    follower = story.follower(spun_in)
    if follower is None:
        return f"{text}; nobody followed", False
    later = follower.at - timed_out.at
    when = f"{abs(later):.3f} s {'before' if later < 0 else 'later'}"
    text += f";\n          worker {named(who(follower))} followed, ready {when}"
    return text, timed_out.reason is Reason.HANG


def soft_restart(restart: Restart | None, story: Story) -> tuple[str, bool]:
    """How the soft restart went. True: all who were there were replaced, and no task failed.

    Those that were to go for their memory anyway are replaced, too, but not because of it.
    """
    if restart is None:
        return "there was none", False
    if isinstance(restart.answer, str):
        return restart.answer, False
    due, outgrown, gone = story.due(Reason.MANUAL), story.due(Reason.MEMORY), story.gone()
    replaced = [gone[one] for one in due if one in gone and story.follower(one) is not None]
    others = restart.answer - len(due)  # who was to go before, and was waited for, too
    done = restart.meanwhile("completed")
    failed = restart.meanwhile("failed", "cancelled", "timed_out", "lost", "aborted")
    text = (
        f"{len(replaced)} of {len(due)} workers replaced in {restart.seconds:.2f} s "
        f"({reasons(Counter(str(one.reason) for one in replaced))});\n"
        f"          {f'{others} more for memory; ' if others > 0 else ''}"
        f"meanwhile {done} tasks were completed, {failed} failed"
    )
    right = 0 < len(due) == len(replaced) and 0 <= others <= len(outgrown) and not failed
    return text, right


def reasons(recycles: Mapping[str, int]) -> str:
    """``{"tasks": 3, "close": 4}`` -> ``3 tasks, 4 close``."""
    return ", ".join(f"{count} {reason}" for reason, count in recycles.items() if count) or "none"


def details(wrong: Mapping[str, Sequence[str]]) -> str:
    """A line for each thing that is wrong, with the first few cases of it."""
    return "".join(
        f"{what}: {', '.join(cases[:5])}{' ...' if len(cases) > 5 else ''}\n"
        for what, cases in wrong.items()
        if cases
    )


def about_the_gil() -> str:
    """Why the pool is not faster; or, on a free-threaded build, why it may be."""
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        return (
            "Threads share the GIL, and each new worker fills its cache anew:\n"
            "this shows recycling, not speed-up."
        )
    return "Without the GIL threads share the work; each new worker fills its cache anew."


def line(frame: Frame) -> str:
    """The whole picture in one line, for what is not a terminal."""
    stats = frame.stats
    serving = sum(worker.state == "serving" for worker in stats.workers)
    return (
        f"{frame.title}: {frame.done}/{frame.total}, {frame.rate:.0f}/s, "
        f"waited {frame.waited:.2f} s, queued {stats.queued}, "
        f"workers {serving}/{stats.max_workers}{one_line(stats)}, left: {reasons(stats.recycles)}"
    )


def table(frame: Frame, width: int, height: int, *, colour: bool, blocks: bool) -> list[str]:
    """The picture as lines of at most `width` columns, fewer than `height` of them.

    What grows and shrinks is below: the rows of the workers, of which a slot has two for a while.
    """
    now = max(14, min(40, (width - FIXED) // 2))
    workers = _rows(frame, now, width - FIXED - now)
    room = max(2, height - ROOM_FOR_OTHERS)
    if len(workers) > room:
        workers[room - 1 :] = [[(f" and {len(workers) - room + 1} more", DIM)]]
    head = f"worker  {'state':<{STATE}}  {'tasks':>7}  {'owned':>{OWNED}}  {'now':<{now}}  {'':>7}"
    rows: list[list[Piece]] = [
        [(frame.title, BOLD)],
        _progress(frame, width, blocks=blocks),
        [(f"left so far: {reasons(frame.stats.recycles)}", PLAIN)],
        [(f"{head}  why they left", DIM)],
        *workers,
        *_pictures(frame.track, width, room - len(workers), blocks=blocks),
    ]
    return [_fit(row, width, colour=colour) for row in rows[: max(1, height - 1)]]


def _rows(frame: Frame, now: int, past: int) -> list[list[Piece]]:
    """Of each slot its workers, the oldest first, or that it is empty."""
    rows = []
    for slot in range(frame.stats.max_workers):
        workers = [worker for worker in frame.stats.workers if worker.slot == slot]
        left = _past(frame.left.get(slot, ()), past)
        if not workers:
            rows.append([(f"{f'{slot}.-':>6}  {'-':<{FIXED - 10 + now}}  {left}", PLAIN)])
        for worker in sorted(workers, key=who):
            rows.append(_row(frame, worker, now, left))
            left = ""
    return rows


def _row(frame: Frame, worker: WorkerStats, now: int, left: str) -> list[Piece]:
    """One worker: what it does in `now` columns, and why those before it went."""
    state, colour = str(worker.state), COLOURS.get(worker.state, PLAIN)
    if worker.due is not None and state == "serving":
        state, colour = f"due: {worker.due}", YELLOW  # it serves
    name = took = ""
    since = worker.age if worker.state == "starting" else worker.task_running
    if since is not None:
        name = frame.now.get(who(worker), "")
        name = name if len(name) <= now else f"..{name[2 - now :]}"
        took = f"{since * 1000:.0f} ms"
    tasks = f"{worker.tasks}/{frame.limit}"
    return [
        (f"{named(who(worker)):>6}  ", PLAIN),
        (f"{state:<{STATE}}", colour),
        (f"  {tasks:>7}  {size(worker.memory):>{OWNED}}  {name:<{now}}  {took:>7}  {left}", PLAIN),
    ]


def _pictures(track: Track, width: int, room: int, *, blocks: bool) -> list[list[Piece]]:
    """What the worker of each slot owned, over time: only if all of it fits."""
    if not track.slots or len(track.slots) >= room:
        return []
    title = f"owned over time; full: {format_size(track.limit)} or more"
    rows: list[list[Piece]] = [[(title, DIM)]]
    for slot, points in sorted(track.slots.items()):
        picture = saw_tooth(points, track.limit, max(8, min(60, width - 8)), blocks=blocks)
        rows.append([(f"{slot:>4}    ", PLAIN), (picture, GREEN)])
    return rows


def _past(reasons: Iterable[str], room: int) -> str:
    """As many reasons as there is room for, the latest first."""
    left = ""
    for reason in reasons:
        longer = f"{left}, {reason}" if left else reason
        if len(longer) > room:
            break
        left = longer
    return left


def _progress(frame: Frame, width: int, *, blocks: bool) -> list[Piece]:
    share = frame.done / frame.total if frame.total else 1.0
    digits = len(str(frame.total))
    tail = (
        f" {share:4.0%}  {frame.done:>{digits}}/{frame.total} {frame.rate:>4.0f}/s  "
        f"waited {frame.waited:.2f} s  queued {frame.stats.queued:>{digits}}"
    )
    size = max(8, min(60, width - len(tail)))
    full = int(size * share)
    done, rest = ("█", "░") if blocks else ("#", "-")
    return [(done * full, GREEN), (rest * (size - full), DIM), (tail, PLAIN)]


def _fit(row: Sequence[Piece], width: int, *, colour: bool) -> str:
    """The row's pieces, cut off at `width`; what is cut is text, never a colour's end."""
    fitted = ""
    for text, style in row:
        text = text[:width]
        width -= len(text)
        fitted += f"\x1b[{style}m{text}\x1b[0m" if colour and style and text else text
    return fitted.rstrip()


class Screen:
    """Draws frames in place on a terminal; elsewhere it writes a plain line now and then."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self.live = out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._colour = self.live and not os.environ.get("NO_COLOR")
        self.blocks = "utf" in (out.encoding or "").lower()
        self._drawn = 0  # lines of the frame that stands above the cursor
        self._width = 0
        self._next_line = 0.0

    def show(self, frame: Frame) -> None:
        if not self.live:
            now = self._clock()
            if now >= self._next_line:
                self._next_line = now + LINE_EVERY
                self.say(line(frame))
            return
        columns, rows = shutil.get_terminal_size()
        if columns != self._width:  # the terminal has wrapped what stood there: begin afresh below
            self._drawn, self._width = 0, columns
        lines = table(frame, columns - 1, rows, colour=self._colour, blocks=self.blocks)
        text = "".join(f"{text}{CLEAR_RIGHT}\n" for text in lines)
        self._write(HIDE_CURSOR + self._home() + text)
        self._drawn = len(lines)

    def say(self, *lines: str) -> None:
        """Lines that stay. A frame that stands there makes way for them."""
        text = "".join(f"{text}\n" for text in lines)
        self._write(f"{HIDE_CURSOR}{self._home()}{CLEAR_BELOW}{text}" if self._drawn else text)
        self._drawn = 0

    def _home(self) -> str:
        return f"\x1b[{self._drawn}F" if self._drawn else ""

    def _write(self, text: str) -> None:
        self._out.write(text + (CLEAR_BELOW + SHOW_CURSOR if self.live else ""))
        self._out.flush()


class Interrupted(Exception):
    """Ctrl-C was pressed."""


class Stop:
    """The first Ctrl-C asks for the end, the second is the end."""

    signum = 0

    def __enter__(self) -> "Stop":
        self._before = {s: signal.signal(s, self._asked) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, action in self._before.items():
            signal.signal(signum, action)

    @property
    def exit_code(self) -> int:
        return 128 + self.signum

    def check(self) -> None:
        if self.signum:
            raise Interrupted

    def _asked(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), SHOW_CURSOR.encode())
            os._exit(self.exit_code)
        self.signum = signum
