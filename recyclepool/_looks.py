"""When a worker is looked at, and what that may cost. Times and figures come in: no clock, no I/O.

Three things lead to a look, and each costs next to nothing:

- *Time*: ``sample_every``, with its jitter, so that workers are not looked at all at once.
- *Growth*: what its tasks left behind until the last look, times those since then, brings it to its
  limit. The process's RSS alone would not do: what others free hides what this worker takes.
- *Signs*: its cache grew by much, or the process by half of what a worker may own, since the last
  look or since it was smallest after that.

What looks cost is a debt, of all workers alike, which DUTY of the time pays off. Within ALLOWANCE
nobody waits for that. While the process grows fast, and this worker with it, HASTE of the time pays
for each, or a leak of small objects, which take long to count, would run away. Who must be far over
its limit, by its growth, is looked at before all is paid: once, because then its growth is known.
"""

from collections.abc import Container
from math import inf
from random import random

__all__ = ["DUTY", "Forecasts", "Looks"]

DUTY = 0.02  # of the time that looks may take
HASTE = 0.2  # the same, of a worker that grows, while the process has grown by its limit
ALLOWANCE = 0.05  # seconds of that in advance
ALMOST = 0.95  # of the limit
SURELY = 1.15  # of the limit
NOTEWORTHY = 16  # part of the limit
PROOF, MOST_PROOF = 8, 1024  # workers
LEAST = 2**20  # bytes: less is no sign of anything


class Forecasts:
    """Of a pool: who grows so fast that it will be far over its limit goes before it is.

    Such a worker may have taken all that it needs, and its successors would take as much. So after
    PROOF of them one is left to show it. If it comes to be far over the limit, they were right, and
    twice as many go before the next; if it grows old instead, none goes until somebody is far over.

    Workers call this from their own threads; a count that is one too few is harmless.
    """

    __slots__ = ("_acted", "_most", "_prover", "_trusted", "cyclic_growth")

    def __init__(self) -> None:
        self.cyclic_growth = 0.0  # bytes with each task, as the last worker that was decided grew
        self._acted, self._most = 0, PROOF
        self._prover: object = None
        self._trusted = True

    def may_act(self, worker: object, workers: Container[object]) -> bool:
        """May this one go, of those that are here?"""
        if not self._trusted or worker is self._prover:
            return False
        if self._acted >= self._most and (self._prover is None or self._prover not in workers):
            self._prover = worker
            return False
        self._acted += 1
        return True

    def prove(self) -> None:
        """A worker is far over its limit."""
        if self._prover is not None:
            self._most = min(2 * self._most, MOST_PROOF)
        self._acted, self._prover, self._trusted = 0, None, True

    def refute(self, worker: object) -> None:
        """It is over its limit, and old enough to go for that: was it to show more?"""
        if worker is self._prover:
            self._trusted, self._prover, self._most = False, None, PROOF


class Looks:
    """At one worker. `limit` in bytes, `every` and `jitter` as in Limits."""

    __slots__ = (
        "_acyclic_growth",
        "_cache",
        "_debt",
        "_duty",
        "_every",
        "_growth",
        "_jitter",
        "_limit",
        "_next",
        "_owned",
        "_paid_until",
        "_rss",
        "_step",
        "acyclic",
        "tasks",
    )

    def __init__(self, limit: float, every: float, jitter: float, now: float, rss: int) -> None:
        self._limit = limit
        self._every = every
        self._jitter = jitter
        self._step = max(limit / NOTEWORTHY, LEAST)
        self._next = -inf
        self._debt, self._duty, self._paid_until = 0.0, DUTY, now
        # As the last look saw it.
        self.tasks = 0
        self._owned = self.acyclic = 0
        self._growth = self._acyclic_growth = 0.0  # of that with each task
        self._cache, self._rss = 0, rss

    def is_due(self, now: float, tasks: int, cache: int, rss: int, workers: int) -> bool:
        """Between two tasks. `cache`, `rss`: bytes; `workers`: how many share the process."""
        if tasks == self.tasks:
            return False
        self._rss = min(self._rss, rss)  # what others gave back hides nothing of what comes then
        grown = self._growth * (tasks - self.tasks)
        expected = self._owned + grown if grown >= self._step else 0.0
        growth = rss - self._rss
        self._duty = HASTE * workers if expected and growth >= self._limit else DUTY
        if now < self.allowed_at():
            return expected >= SURELY * self._limit
        if now >= self._next or expected >= ALMOST * self._limit:
            return True
        return cache - self._cache >= self._step or growth >= max(self._step, self._limit / 2)

    def allowed_at(self) -> float:
        """When the debt is within the allowance."""
        return self._paid_until + max(0.0, self._debt - ALLOWANCE) / self._duty

    def pause(self, now: float) -> float:
        """Seconds until the next look at one that sleeps."""
        return max(0.0, max(self.allowed_at(), self._next) - now)

    def spend(self, now: float, seconds: float) -> None:
        """Looks took that long, to their end or not: one at each worker."""
        self._debt = max(0.0, self._debt - self._duty * (now - self._paid_until)) + seconds
        self._paid_until = now

    def saw(
        self,
        now: float,
        owned: int,
        tasks: int,
        cache: int,
        rss: int,
        rest: float,
        in_cycles: int = 0,
        cyclic_growth: float = 0.0,
    ) -> None:
        """A look has ended. The next comes after `rest` seconds, if nothing else leads to it.

        What is in cycles few looks decide: it comes as it was decided last, with its own growth.
        """
        if tasks != self.tasks:
            self._acyclic_growth = max(0.0, (owned - self.acyclic) / (tasks - self.tasks))
        self.acyclic, self._owned = owned, owned + in_cycles
        self._growth = self._acyclic_growth + cyclic_growth
        self.tasks, self._cache, self._rss = tasks, cache, rss
        self._next = now + max(self._every, rest) * (1 + self._jitter * random())
