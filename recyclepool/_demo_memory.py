"""What the demo shows of memory: what workers owned, over time, and what their recycles gave back.

Every figure here was measured by the pool: its readings, its events. What was not is left out.
"""

from collections.abc import Iterable, Sequence

from recyclepool.events import CacheTrimmed, Event, MemoryReturned, WorkerRetired
from recyclepool.snapshots import PoolStats, Reading
from recyclepool.states import Reason
from recyclepool.units import format_size

__all__ = ["Track", "memory", "one_line", "returned", "saw_tooth", "size"]

BLOCKS, SIGNS = " ▁▂▃▄▅▆▇█", " .:-=+*%#"  # nothing was read; then from little to much
WIDTH = 60  # columns of the summary's saw-tooth
MOST_RECYCLES, MOST_TRIMS = 8, 2  # of which the summary tells more than their number
COLUMNS, ROOT = 80, 26  # of a line; of a root and its size in the summary's table

Point = tuple[float, int | None]  # seconds since the first; owned bytes, or not read yet


class Track:
    """What the worker of each slot was last seen to own, over time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.slots: dict[int, list[Point]] = {}
        self.most = 0  # of the readings that were seen

    def clear(self) -> None:
        """Begin the picture anew."""
        self.slots = {}

    def note(self, stats: PoolStats, seconds: float) -> None:
        """Another moment. Of two workers of a slot the one that takes tasks counts."""
        now: dict[int, int | None] = dict.fromkeys(range(stats.max_workers))
        for worker in sorted(stats.workers, key=lambda w: (w.slot, -w.generation)):
            if worker.memory is not None:
                self.most = max(self.most, worker.memory.bytes)
            if worker.state == "serving" and worker.slot in now:
                now[worker.slot] = None if worker.memory is None else worker.memory.bytes
        for slot, owned in now.items():
            self.slots.setdefault(slot, []).append((seconds, owned))


def size(reading: Reading | None) -> str:
    """In a narrow column: ``1.5 MiB``, ``>1.5 MiB`` if that is a lower bound."""
    if reading is None:
        return ""
    held = reading.bytes if reading.bytes < 1024 else reading.bytes // 1024 * 1024
    return f"{'>' if reading.is_bound else ''}{format_size(held)}"


def saw_tooth(points: Sequence[Point], limit: int, width: int, *, blocks: bool) -> str:
    """`points` in `width` columns of equal time, the most of each; full is the limit or above."""
    levels = BLOCKS if blocks else SIGNS
    until = points[-1][0] if points else 0.0
    most: list[int | None] = [None] * width
    for seconds, owned in points:
        column = min(width - 1, int(width * seconds / until)) if until else 0
        most[column] = max(_or_none(most[column]), _or_none(owned))
    picture, level = "", " "
    for owned in most:  # where nobody looked it is as it was
        if owned is not None:
            level = _level(owned, limit, levels)
        picture += level
    return picture


def _or_none(owned: int | None) -> int:
    return -1 if owned is None else owned


def _level(owned: int, limit: int, levels: str) -> str:
    top = len(levels) - 1
    return levels[0] if owned < 0 else levels[min(top, 1 + (top - 1) * owned // limit)]


def one_line(stats: PoolStats) -> str:
    """For what is not a terminal: the span of what the workers own."""
    owned = sorted(w.memory.bytes for w in stats.workers if w.memory is not None)
    if not owned:
        return ""
    least, most = format_size(owned[0]), format_size(owned[-1])
    return f", owned {least}" if least == most else f", owned {least} to {most}"


def returned(event: MemoryReturned) -> str:
    """That a worker was recycled, what it owned, and how the process changed: in one line."""
    owned = format_size(event.owned_bytes)
    head = f"worker {event.slot}.{event.generation} owned {owned}, largest "
    tail = f"; process {_change(event.rss_delta)}"
    return f"{head}{_root(event, COLUMNS - len(head) - len(tail))}{tail}"


def memory(track: Track, events: Iterable[Event], *, blocks: bool) -> str:
    """The summary of it."""
    events = [*events]
    read = [e.owned_bytes for e in events if isinstance(e, MemoryReturned)]
    read += [e.before for e in events if isinstance(e, CacheTrimmed)]
    most = max(track.most, *read, 0)
    seen = f"the most that was read: {format_size(most)}" if most else "nobody was looked at"
    lines = [
        f"memory    {format_size(track.limit)} is what a worker may own; {seen}",
        *_pictures(track, blocks=blocks),
        *_trims([e for e in events if isinstance(e, CacheTrimmed)]),
        *_recycles(events),
    ]
    return "\n".join(lines)


def _pictures(track: Track, *, blocks: bool) -> list[str]:
    lines = []
    for slot, points in sorted(track.slots.items()):
        picture = saw_tooth(points, track.limit, WIDTH, blocks=blocks)
        if picture.strip():
            lines.append(f"  slot {slot:<2} {picture}".rstrip())
    return lines


def _trims(trims: Sequence[CacheTrimmed]) -> list[str]:
    if not trims:
        return ["trims     none"]
    cuts = [
        f"{e.slot}.{e.generation} {format_size(e.before)} -> {format_size(e.after)}"
        for e in trims[:MOST_TRIMS]
    ]
    more = ", ..." if len(trims) > MOST_TRIMS else ""
    enough = f"trims     {len(trims)}, half of the cache was enough:"
    return [enough, f"          {', '.join(cuts)}{more}"]


def _recycles(events: Sequence[Event]) -> list[str]:
    gone = [e for e in events if isinstance(e, WorkerRetired) and e.reason is Reason.MEMORY]
    told = {(e.slot, e.generation): e for e in events if isinstance(e, MemoryReturned)}
    if not gone:
        return ["recycles  none for memory"]
    lines = [
        f"recycles  {len(gone)} for memory. Below the noise a change of the process says nothing:",
        f"  worker  tasks       owned  {'largest root':<{ROOT}}      process       noise",
    ]
    lines += [_recycle(e, told.get((e.slot, e.generation))) for e in gone[:MOST_RECYCLES]]
    more = len(gone) - MOST_RECYCLES
    return [*lines, f"          and {more} more"] if more > 0 else lines


def _recycle(event: WorkerRetired, back: MemoryReturned | None) -> str:
    """Who went, what it owned, the largest root of that, and what the process got back."""
    worker = f"  {event.slot:>3}.{event.generation:<2}  {event.tasks:>5}"
    if back is None:
        return f"{worker}  what came back was not measured before the end"
    owned, noise = format_size(back.owned_bytes), format_size(back.noise)
    change = _change(back.rss_delta)
    return f"{worker}  {owned:>10}  {_root(back, ROOT):<{ROOT}}  {change:>11}  {noise:>10}"


def _change(size: int) -> str:
    return f"{'+' if size > 0 else ''}{format_size(size)}"


def _root(event: MemoryReturned, columns: int) -> str:
    """The largest one."""
    if not event.largest:
        return "not known"
    name, held = event.largest[0]
    held_text = format_size(held)
    room = columns - len(held_text) - 1
    return f"{name if len(name) <= room else f'{name[: room - 2]}..'} {held_text}"
