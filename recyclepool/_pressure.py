"""What a pool does about a process that is too big: decisions only, no clock, no I/O.

Each step is told the time, the process's floor (the least RSS of a moment), and who owns what. The
rungs, one at a time, with a step's measurement after each:

1. *Ease*: caches are trimmed, garbage is collected, free memory goes back to the system. Felt by
   everybody, so not often.
2. *Recycle* a victim: who owns most, where what is owned explains at least half of the growth.
   Otherwise the growth is unexplained, and the oldest worker is tried: once, then not for a while.
3. A recycle *helped* if the floor fell by more than the noise, and by a quarter of what was needed.
   One that did not raises the bar: the next comes only when the process has grown beyond what it
   was after that recycle, or an innocent would follow the other. After two of them in a row there
   is a pause that doubles.
4. *Tell* the cause, once, and pause dispatch for a while: when a recycle did not help and no other
   may come for now. A growth that is explained gets its second recycle at once, so that is after
   two; after one where the growth is unexplained, or the process stays where it is: then nothing
   more is to be found out soon. Also where for a minute nobody is here who could be replaced.

A recycle that helps, or a long time below the limit, makes all of that forgotten.
"""

from enum import Enum, auto
from math import inf
from typing import Any, NamedTuple

__all__ = ["Act", "Owner", "Pressure", "Step"]

EASE_PAUSE = 10.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0  # seconds of backing off; doubles
MOST_DOUBLINGS = 10  # more make it no longer
PATIENCE = 2  # recycles in a row that did not help; looks at which nothing may be done after one
LONGEST_STOP = 30.0  # seconds that dispatch pauses at most: it may be that nothing ever helps
CALM = 600.0  # seconds below the limit, after which it is another growth that comes


class Act(Enum):
    """What is to be done."""

    NOTHING = auto()
    EASE = auto()
    RECYCLE = auto()
    TELL = auto()  # the cause; and pause dispatch
    RESUME = auto()


class Step(NamedTuple):
    """What is to be done, and to whom."""

    act: Act
    worker: Any = None
    explained: bool = False


class Owner(NamedTuple):
    """A worker that could be replaced."""

    worker: Any
    owned: int
    born: float


class Pressure:
    """Of one pool. `base` is the floor before it had done anything."""

    def __init__(self, limit: float, samples: int, base: int) -> None:
        self.limit = limit
        self.base = base
        self.failures = 0  # recycles in a row that did not help
        self.paused = False
        self.told = False
        self._samples = samples
        self._over = 0  # looks in a row that found it above the limit
        self._idle_looks = 0  # of these, at which nothing might be done since the last recycle
        self._bar = limit  # above it somebody is recycled
        self._over_at = self._staffed_at = -inf  # above the limit; somebody could be replaced, last
        self._eased_at = self._quiet_until = -inf
        self._resume_at = inf
        self._needed = 0.0  # bytes, of the recycle that is under way
        self._explained = False

    def grown(self, floor: int) -> float:
        """Bytes that are to be explained. It may have been above its limit from the beginning."""
        return max(1.0, floor - min(self.base, self.limit))

    def step(self, now: float, floor: int, owners: list[Owner]) -> Step:
        """What is to be done now. While a recycle is under way it is not asked."""
        if floor <= self.limit:
            return self._below(now)
        if owners or not self._over:
            self._staffed_at = now
        self._over += 1
        self._over_at = now
        if self.paused and now >= self._resume_at:
            return self._resume()
        if self._over < self._samples:
            return Step(Act.NOTHING)
        if now - self._eased_at >= EASE_PAUSE and self._over == self._samples:
            self._eased_at = now
            return Step(Act.EASE)
        may_recycle = bool(owners) and floor > self._bar and now >= self._quiet_until
        self._idle_looks += not may_recycle
        if not self.told and self._is_fruitless(now):
            self.told = self.paused = True
            self._resume_at = now + LONGEST_STOP
            return Step(Act.TELL)
        return self._choose(floor, owners) if may_recycle else Step(Act.NOTHING)

    def _below(self, now: float) -> Step:
        self._over, self._idle_looks, self._bar = 0, 0, self.limit
        if now - self._over_at >= CALM:
            self.failures, self.told = 0, False
        return self._resume() if self.paused else Step(Act.NOTHING)

    def _is_fruitless(self, now: float) -> bool:
        """Recycles do not help. One look after one says little: what it freed may come late."""
        if not self.failures:
            return now - self._staffed_at >= FIRST_PAUSE
        return self.failures >= PATIENCE or self._idle_looks >= PATIENCE

    def _choose(self, floor: int, owners: list[Owner]) -> Step:
        largest = max(owners, key=lambda owner: owner.owned)
        owned = sum(owner.owned for owner in owners)
        self._explained = owned >= self.grown(floor) / 2 and largest.owned > 0
        self._needed = floor - self.limit
        if not self._explained:
            largest = min(owners, key=lambda owner: owner.born)
        return Step(Act.RECYCLE, largest.worker, self._explained)

    def recycled(self, now: float, before: int, after: int, noise: int) -> bool:
        """A victim has gone. Did that help?"""
        helped = before - after >= max(noise, self._needed / 4)
        self._idle_looks = 0
        if helped:
            self.failures, self.told, self._bar = 0, False, self.limit
        else:
            self.failures += 1
            self._bar = max(self.limit, after + noise)
        if not self._explained or self.failures >= PATIENCE:
            pause = FIRST_PAUSE * 2 ** min(max(0, self.failures - 1), MOST_DOUBLINGS)
            self._quiet_until = now + min(pause, LONGEST_PAUSE)
        return helped

    def _resume(self) -> Step:
        self.paused, self._resume_at = False, inf
        return Step(Act.RESUME)
