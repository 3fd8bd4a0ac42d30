"""RELIEF: the thread of a pool that measures its process, and gives memory back.

It is there while a recycle's outcome is to be measured, or while ``Limits(pool_memory=)`` is set
and a worker is here. What may take long or runs foreign code belongs here (finalizers, when garbage
is collected): not to the watchdog, and not under the engine's lock.

The role is NEWS's: who adds something looks at the role afterwards, and starts a thread if it is
free; who gives the role up looks again at what there is to do.
"""

import gc
import threading
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic, perf_counter, time
from typing import Any, Protocol

from recyclepool._census import Container, largest_containers
from recyclepool._dispatch import Dispatch
from recyclepool._floor import SPAN, Floor
from recyclepool._gate import Flag, here, new_lock, wake
from recyclepool._host_memory import process_rss, release_free_memory
from recyclepool._news import News, text_of
from recyclepool._orders import daemons_allowed
from recyclepool._pressure import Act, Owner, Pressure, Step
from recyclepool._roster import Roster
from recyclepool._rules import Rules
from recyclepool._worker import Gone, Sample, Worker
from recyclepool.states import PoolState, State
from recyclepool.units import format_size

__all__ = ["Host", "Relief"]

READINGS = 5  # of which a floor is the least, in SPAN seconds
TRIM_PAUSE = 2.0  # seconds between two trims: all threads of the process feel them
HURRY = 0.02  # the same, where workers go in haste
LONG = 10.0  # seconds of a task
VICTIM_PATIENCE = 60.0  # seconds for which a victim's successor may start
DOZE = 5  # times as long between two looks, while all workers rest
PAUSED = 1.0  # seconds between two looks while dispatch is paused
QUEUE = "the queue"
CANDIDATES = 30  # containers of which one may explain a growth
ENOUGH = 0.9  # of what was owned: if the floor fell by that, there is nothing to trim

_collected_at = _trimmed_at = -inf  # of the whole process


class Host(Protocol):
    """What it asks of its engine."""

    settings: Any
    rules: Rules
    roster: Roster
    dispatch: Dispatch
    news: News
    paused: Flag | None

    def order(self, verb: Callable[..., None], *args: Any) -> None:
        """Have it done with the engine's lock held."""

    def outgrown(self, worker: Worker, why: str, sample: Sample, before: int) -> None:
        """Have it replaced, because the process is too big. Any thread."""

    # With the lock held.

    def trim_all_caches(self) -> None:
        """Have each worker let go of half of its cache."""

    def pause_dispatch(self) -> None:
        """Start no task for now."""

    def resume_dispatch(self) -> None:
        """Start tasks again."""


class Relief:
    """Of one pool."""

    def __init__(self, engine: Host) -> None:
        rules = engine.rules
        self.sample: Sample | None = None  # of the process, the last
        self._engine = engine
        self._rss: Callable[[], int] = engine.settings.rss or process_rss
        self._floors = Floor()
        self._items: deque[Gone] = deque()
        self._role = new_lock()
        self._wake = new_lock()
        self._wake.acquire()
        self._never = new_lock()  # to wait for a while
        self._never.acquire()
        self._watches = rules.pool_memory < inf
        self._pressure = Pressure(rules.pool_memory, rules.memory_samples, self._rss())
        self._victim: Worker | None = None
        self._victim_since = self._victim_before = 0.0
        self._last_owned = 0  # by the last victim
        self._dozes = False  # nobody does anything: it looks less often
        self._failed = False

    # -- with the engine's lock held --------------------------------------------------------------

    def gone(self, item: Gone) -> None:
        """Measure what that gave back, and tell."""
        if item.worker is not self._victim:
            item = item._replace(worker=None)  # it is not needed any more
        self._items.append(item)
        wake(self._wake)
        self.stand_by()

    def look(self) -> None:
        """Nobody is here any more, it may be: then the thread ends."""
        wake(self._wake)

    def stand_by(self) -> None:
        """See to it that the thread is there, if there is something to do."""
        if not self._wanted() or self._role.locked():
            return
        settings = self._engine.settings
        name = f"{settings.thread_names}_memory"
        thread = settings.new_thread(target=self._run, name=name, daemon=daemons_allowed())
        try:
            thread.start()
        except RuntimeError:
            pass  # no thread is to be had: the next one who has something to do tries again

    def _wanted(self) -> bool:
        engine, roster = self._engine, self._engine.roster
        staffed = bool(roster.workers) or engine.paused is not None  # who paused it resumes it
        return bool(self._items) or (self._watches and staffed and roster.state is PoolState.OPEN)

    # -- its thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        here.inside += 1
        while self._wanted():
            held: list[bool] = []
            try:
                held.extend(map(self._role.acquire, (False,)))
                if not held[0]:
                    return
                while self._wanted():
                    self._step()
            finally:
                if True in held:
                    self._role.release()

    def _step(self) -> None:
        try:
            if self._items:
                self._measure()
            if self._watches:
                self._look()
        except BaseException as error:  # nobody else would end a pause
            if not self._failed:
                self._failed = True
                news = self._engine.news
                self._engine.order(news.watchdog_failed, text_of(error))
        if self._watches and not self._items and self._wanted():
            self._sleep()

    def _sleep(self) -> None:
        """Until the next look at the process."""
        began, every = monotonic(), min(self._engine.rules.sample_every, threading.TIMEOUT_MAX)
        if self._engine.paused is not None:
            self._wake.acquire(True, min(every, PAUSED))
            return
        # First it says so, THEN it looks: who ceases to rest THEN reads it, and wakes it.
        self._dozes = True
        self._dozes = self._may_doze()
        self._wake.acquire(True, min(DOZE * every, threading.TIMEOUT_MAX) if self._dozes else every)
        if self._dozes:
            self._dozes = False
            left = began + every - monotonic()
            if left > 0.0 and not self._items and self._wanted():
                self._wake.acquire(True, left)  # no more looks than if it had not dozed

    def _may_doze(self) -> bool:
        """Nobody does anything, and the process is small."""
        if self._victim is not None or self.sample is None:
            return False
        resting = all(worker.resting for worker in self._engine.roster.workers.copy())
        return resting and self.sample.bytes <= self._pressure.limit

    def rouse(self) -> None:
        """A worker has something to do. Any thread."""
        if self._dozes:
            wake(self._wake)

    def _floor(self) -> int:
        """The least RSS from now on, for a moment: what comes and goes is not counted."""
        for _ in range(READINGS):
            self._never.acquire(True, SPAN / READINGS)
            self._floors.note(monotonic(), self._rss())
        return self._floors.floor(monotonic())

    def _measure(self) -> None:
        """What did those give back who have gone since?"""
        items = [self._items.popleft() for _ in range(len(self._items))]
        for item in items:
            item.thread.join(SPAN)  # its thread-locals go with it
        after, trim_seconds = self._floor(), None
        if any(item.before - after < ENOUGH * item.owned for item in items):
            trim_seconds = self._give_back()
            after = min(after, self._floor())  # others may have grown meanwhile
        noise = self._floors.noise()
        self._floors.settle()
        for item in items:
            told = (item.owned, item.largest, after - item.before, noise, trim_seconds)
            self._engine.order(self._engine.news.returned, item.slot, item.generation, *told)
            if item.worker is not None and item.worker is self._victim:
                self._victim = None
                self._last_owned = item.owned
                self._pressure.recycled(monotonic(), item.before, after, noise)

    def hurry(self) -> None:
        """Trim now: a worker that grew fast has gone, and its successor will not wait. Any thread.

        What the C library keeps of it the successor may not get: its thread can have another arena.
        """
        global _trimmed_at
        if self._rss() > self._pressure.base + self._engine.rules.memory:
            wait = _trimmed_at + HURRY - monotonic()
            if wait > 0.0:
                self._never.acquire(True, wait)  # it is a leaver's time, and nobody waits for that
            _trimmed_at = monotonic()
            release_free_memory()

    def _give_back(self) -> float | None:
        """Collect garbage, then have the C library return what is free. Not too often."""
        global _collected_at
        while (wait := _collected_at + TRIM_PAUSE - monotonic()) > 0.0:
            if not self._engine.roster.workers:
                return None  # nobody waits for that
            self._wake.acquire(True, wait)
        began = perf_counter()
        gc.collect()
        trimmed = release_free_memory()
        _collected_at = monotonic()
        return None if trimmed is None else perf_counter() - began

    # -- Limits(pool_memory=) ---------------------------------------------------------------------

    def _look(self) -> None:
        engine, pressure, now = self._engine, self._pressure, monotonic()
        rss = self._rss()
        self._floors.note(now, rss)
        if rss > pressure.limit:
            rss = self._floor()
        self.sample = Sample("rss", rss, time(), False)
        if self._victim is not None:
            if self._victim in engine.roster.workers:
                if now - self._victim_since < VICTIM_PATIENCE:
                    return
                pressure.recycled(now, int(self._victim_before), rss, self._floors.noise())
            elif self._items:
                return  # what that gave back is measured first
            self._victim = None
        if engine.rules.report_only:
            self._report(rss)
        else:
            self._act(pressure.step(now, rss, self._owners()), now, rss)

    def _owners(self) -> list[Owner]:
        """Who may go, and would go soon: not who has run the same task for long."""
        now, rules = self._engine.settings.clock(), self._engine.rules
        return [
            Owner(w, 0 if w.memory is None else w.memory.bytes, w.born)
            for w in self._engine.roster.workers.copy()
            if w.state is State.SERVING and w.due is None and now - w.born >= rules.min_age
            if w.gate.task is None or now - w.task_started < LONG
        ]

    def _act(self, step: Step, now: float, rss: int) -> None:
        engine, act = self._engine, step.act
        if act is Act.EASE:
            engine.order(engine.trim_all_caches)
            self._never.acquire(True, SPAN)
            self._give_back()
        elif act is Act.RECYCLE:
            self._victim, self._victim_since, self._victim_before = step.worker, now, rss
            sample = step.worker.memory or Sample("owned", 0, time(), True)
            engine.outgrown(step.worker, self._why(step, rss), sample, rss)
        elif act is Act.TELL:
            # The cause first: to find it takes a while, and none but this thread ends the pause.
            cause, helps = self._cause(rss)
            if helps:
                engine.order(engine.pause_dispatch)
            self._tell(rss, cause, paused=helps)
        elif act is Act.RESUME and engine.paused is not None:  # an end may have resumed it
            engine.order(engine.resume_dispatch)
            engine.order(engine.news.relieved, rss, int(self._pressure.limit))

    def _why(self, step: Step, rss: int) -> str:
        limit, sample = format_size(int(self._pressure.limit)), step.worker.memory
        why = f"memory: the process takes {format_size(rss)}, its limit is {limit}; this worker "
        if step.explained and sample is not None:
            return f"{why}owns most of it, {format_size(sample.bytes)}"
        return f"{why}is the oldest, and what is owned does not explain it"

    def _report(self, rss: int) -> None:
        """Once, until it is below the limit."""
        pressure = self._pressure
        if rss > pressure.limit and not pressure.told:
            self._tell(rss, self._cause(rss)[0], paused=False)
        pressure.told = rss > pressure.limit

    def _tell(self, rss: int, cause: str, *, paused: bool) -> None:
        news, limit = self._engine.news, int(self._pressure.limit)
        self._engine.order(news.pressure, rss, limit, cause, paused)

    def _cause(self, rss: int) -> tuple[str, bool]:
        """Of a growth against which recycles do not help; would it help to start no task?"""
        grown = self._pressure.grown(rss)
        together = sum(owner.owned for owner in self._owners())
        if together >= grown / 2:
            own = f"its workers own {format_size(together)} together. Let them own less, with "
            return own + "Limits(memory=...), have fewer of them, or raise pool_memory", True
        waiting = [(task.args, task.kwargs) for task in self._engine.dispatch.queue.copy()]
        found = largest_containers(CANDIDATES, also={QUEUE: waiting})
        queue = next((one for one in found if one.name == QUEUE), None)
        if queue is not None and queue.bytes >= grown / 2:
            holds = f"{len(waiting)} tasks wait, and their arguments take {_told(queue)}"
            return f"{holds}: bound the queue with max_queue", False
        # What is far larger than what has grown was there before: an application, a model. What is
        # larger than the process is no estimate.
        most = min(2 * grown, rss)
        some = (one for one in found if one is not queue and grown / 3 <= one.bytes <= most)
        if (large := next(some, None)) is not None:
            return (
                f"{large.name} holds {_told(large)}: no recycle of a worker frees that",
                True,
            )
        if self._last_owned >= grown / 4:
            owned = format_size(self._last_owned)
            freed = f"fragmentation: the {owned} that the last worker owned were freed, and stay "
            return freed + "with the process. Python can use them again, the system cannot", True
        return (
            "no worker of this pool owns most of it, and no module: it is memory of native "
            "libraries, or results that callers keep, or what workers of other pools own. A worker "
            'that is a process would give native memory back (backend="process", which is to come)'
        ), True


def _told(found: Container) -> str:
    return ("about " if found.is_estimate else "") + format_size(found.bytes)
