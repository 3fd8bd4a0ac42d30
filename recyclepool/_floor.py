"""The floor of a process: the least memory it had of late, which is what its tasks come down to.

One reading says little: a task that runs may hold 100 MB for a moment. What a recycle gave back is
seen between the floors before and after it, and believed where it is more than their noise.
"""

import operator
from collections import deque
from math import ceil, fsum, sqrt

__all__ = ["LEAST_NOISE", "SPAN", "Floor"]

SPAN = 0.25  # seconds: tasks begin and end in it
LEAST_NOISE = 8_000_000  # bytes: what allocators do by themselves

GRAINS = 64  # that many a second: readings closer than that share a place, the lowest counts
PLACES = 128  # readings of at least two seconds
FLOORS = 16  # from which the noise is told


class Floor:
    """Readings of a process's memory, and their floor. Times are monotonic seconds.

    It asks no clock and measures nothing. Not locked: one thread at a time.
    """

    __slots__ = ("_ends", "_floors", "_lowest", "_readings")

    def __init__(self) -> None:
        self._readings: deque[tuple[int, int]] = deque(maxlen=PLACES)  # (grain, lowest of it)
        self._floors: deque[int] = deque(maxlen=FLOORS)  # one for each span that is over
        self._lowest = 0  # of the span that is not
        self._ends: float | None = None  # that span; None before the first reading

    def note(self, now: float, rss: int) -> None:
        """A reading: `rss` bytes at `now`, which is not before the last one."""
        grain = int(now * GRAINS)
        if self._readings and self._readings[-1][0] == grain:
            rss_of_grain = min(rss, self._readings.pop()[1])
        else:
            rss_of_grain = rss
        self._readings.append((grain, rss_of_grain))
        if self._ends is not None and now < self._ends:
            self._lowest = min(self._lowest, rss)
            return
        if self._ends is not None:
            self._floors.append(self._lowest)
        self._lowest, self._ends = rss, now + SPAN

    def floor(self, now: float, span: float = SPAN) -> int:
        """The lowest reading of the last `span` seconds, to a 64th of a second.

        The last reading if it is older than that; 0 before the first. Spans reach back two
        seconds at least, further where readings were fewer.
        """
        if not self._readings:
            return 0
        since = int((now - span) * GRAINS)
        recent = (rss for grain, rss in self._readings if grain >= since)
        return min(recent, default=self._readings[-1][1])

    def noise(self) -> int:
        """How far floors differ by themselves, in bytes: three sigma of the last, 8 MB at least.

        Their steady growth, which a leak is, is none: sigma is that of the differences between one
        and the next, each of which has that of two floors.
        """
        floors = list(self._floors)
        steps = list(map(operator.sub, floors[1:], floors))
        if len(steps) < 2:
            return LEAST_NOISE
        mean = sum(steps) / len(steps)
        variance = fsum((step - mean) ** 2 for step in steps) / (len(steps) - 1) / 2
        return max(LEAST_NOISE, ceil(3 * sqrt(variance)))

    def settle(self) -> None:
        """The floor was moved, by a recycle for one: earlier floors say nothing of the noise."""
        self._floors.clear()
        self._ends = None
