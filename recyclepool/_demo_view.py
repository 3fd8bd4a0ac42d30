"""What the demo shows: a value goes in, lines of text come out; one class puts them on a terminal.

The cursor is hidden only within one write, so that there is no way out that leaves it hidden.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

from recyclepool.events import PoolStats, WorkerStats

__all__ = [
    "Frame",
    "Interrupted",
    "Screen",
    "Stop",
    "about_the_gil",
    "details",
    "line",
    "reasons",
    "table",
]

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
CLEAR_BELOW, CLEAR_RIGHT = "\x1b[J", "\x1b[K"
BOLD, DIM, RED, GREEN, YELLOW, PLAIN = "1", "2", "31", "32", "33", ""
COLOURS = {"serving": GREEN, "starting": YELLOW, "retiring": YELLOW, "abandoned": RED}
RANK = {"serving": 0, "starting": 1, "retiring": 2}  # who stands for a slot that has several
FIXED = 43  # columns of a slot's row that are neither its task nor its past
ROOM_FOR_OTHERS = 6  # lines of a table that are no slots, and the one that the cursor rests on

Piece = tuple[str, str]  # a text and its colour


@dataclass(frozen=True, slots=True)
class Frame:
    """All that one picture of the running pool needs."""

    title: str
    stats: PoolStats
    done: int
    total: int
    seconds: float
    limit: int
    now: Mapping[int, str]  # slot -> what its worker works on, or did
    left: Mapping[int, Sequence[str]]  # slot -> why its workers went, the latest first

    @property
    def rate(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def waited(self) -> float:
        """Seconds that a task lay in the queue, on average."""
        wait = self.stats.wait
        return wait.sum / wait.count if wait.count else 0.0


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
            "Threads share the GIL, and each new worker begins with a cold cache:\n"
            "this shows recycling, not speed-up."
        )
    return "Without the GIL threads share the work; each new worker begins with a cold cache."


def line(frame: Frame) -> str:
    """The whole picture in one line, for what is not a terminal."""
    stats = frame.stats
    serving = sum(worker.state == "serving" for worker in stats.workers)
    return (
        f"{frame.title}: {frame.done}/{frame.total}, {frame.rate:.0f}/s, "
        f"waited {frame.waited:.2f} s, queued {stats.queued}, "
        f"workers {serving}/{stats.max_workers}, left: {reasons(stats.recycles)}"
    )


def table(frame: Frame, width: int, height: int, *, colour: bool, blocks: bool) -> list[str]:
    """The picture as lines of at most `width` columns, fewer than `height` of them."""
    slots = range(frame.stats.max_workers)
    room = max(2, height - ROOM_FOR_OTHERS)
    shown = slots if len(slots) <= room else slots[: room - 1]
    now = max(12, min(40, (width - FIXED) // 2))
    rows: list[list[Piece]] = [
        [(frame.title, BOLD)],
        [(f"slot   gen  state       tasks  {'now':<{now}}  {'':>7}  why the last went", DIM)],
        *(_row(frame, slot, now, width - FIXED - now) for slot in shown),
    ]
    if len(shown) < len(slots):
        rows.append([(f" and {len(slots) - len(shown)} more", DIM)])
    rows.append(_progress(frame, width, blocks=blocks))
    rows.append([(f"left so far: {reasons(frame.stats.recycles)}", PLAIN)])
    return [_fit(row, width, colour=colour) for row in rows[: max(1, height - 1)]]


def _row(frame: Frame, slot: int, now: int, past: int) -> list[Piece]:
    """One slot: its worker, the task in `now` columns, and why those before it went in `past`."""
    worker = _holder(frame.stats.workers, slot)
    left = ""
    for reason in frame.left.get(slot, ()):
        longer = f"{left}, {reason}" if left else reason
        if len(longer) > past:
            break
        left = longer
    if worker is None:
        return [(f"{slot:>4}     -  {'-':<9}  {'':>{9 + now}}  {'':>7}  {left}", PLAIN)]
    name = running = ""
    if worker.task_running is not None:
        name = frame.now.get(slot, "")
        name = name if len(name) <= now else f"..{name[2 - now :]}"
        running = f"{worker.task_running * 1000:.0f} ms"
    tasks = f"{worker.tasks}/{frame.limit}"
    return [
        (f"{slot:>4}  {worker.generation:>4}  ", PLAIN),
        (f"{worker.state:<9}", COLOURS.get(worker.state, PLAIN)),
        (f"  {tasks:>7}  {name:<{now}}  {running:>7}  {left}", PLAIN),
    ]


def _holder(workers: Iterable[WorkerStats], slot: int) -> WorkerStats | None:
    """A slot's successor and its leaver may both be there: the one that serves is shown."""
    here = [worker for worker in workers if worker.slot == slot]
    return min(here, key=lambda worker: RANK.get(worker.state, len(RANK)), default=None)


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
    """Draws frames in place on a terminal; elsewhere it writes a plain line a second."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self.live = out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._colour = self.live and not os.environ.get("NO_COLOR")
        self._blocks = "utf" in (out.encoding or "").lower()
        self._drawn = 0  # lines of the frame that stands above the cursor
        self._width = 0
        self._next_line = 0.0

    def show(self, frame: Frame) -> None:
        if not self.live:
            now = self._clock()
            if now >= self._next_line:
                self._next_line = now + 1.0
                self.say(line(frame))
            return
        columns, rows = shutil.get_terminal_size()
        if columns != self._width:  # the terminal has wrapped what stood there: begin afresh below
            self._drawn, self._width = 0, columns
        lines = table(frame, columns - 1, rows, colour=self._colour, blocks=self._blocks)
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
