"""PROBE: a thread worker looks at what it owns, and says when that is too much.

Only the worker's own thread looks: between two tasks, or while it sleeps. It has let go of the task
by then, so nobody changes what it owns meanwhile, and a finalizer that the look sets off runs where
it would have run anyway.

1. Between tasks: when `now` has reached ``look_at``. That comparison is all that a task pays. At
   most GLANCE later it asks ``Looks`` whether a look is due.
2. Asleep it stays in the idle stack, and tries its wake lock between slices: who gives it a task
   waits for no more than a slice. The look is dropped then, and the next one asleep needs a longer
   sleep: else all that looks may cost went into those, and none came between two tasks.
3. Who pauses the pool sets the pause, THEN ``look_at`` of each worker; the worker sets ``look_at``,
   THEN reads the pause. One sees the other.

A look counts references (`_owned`), so what it finds is proven, and may be too small; it is never
too large. Only ``Limits`` decide what is too much: over it in some readings in a row, or far over
it in one.
"""

from collections.abc import Callable
from math import inf
from threading import TIMEOUT_MAX
from time import monotonic, thread_time, time
from typing import Any, Protocol

from recyclepool._gate import Flag, here
from recyclepool._holders import told
from recyclepool._host_memory import process_rss
from recyclepool._looks import DUTY, Forecasts, Looks
from recyclepool._owned import SUPPORTED, Owned, Pass, largest
from recyclepool._roots import roots_of
from recyclepool._roster import Roster
from recyclepool._rules import Rules
from recyclepool._thread_locals import ThreadLocals
from recyclepool._worker import Sample, Worker
from recyclepool.states import Reason
from recyclepool.units import format_size

__all__ = ["SUPPORTED", "Probe"]

GLANCE = 0.01  # seconds between two looks at the cheap signs
REACTION = 3 * GLANCE  # seconds from a look to the end of what its worker owned
SLICE = 0.001  # seconds of a look between two tries of the wake lock
BURST = 0.02  # seconds of slices in one go, of a worker that sleeps
SMALL = 50  # bytes of an object, at least
BUDGET = 50_000  # objects between two tasks: 10 to 20 ms
MOST = 16_000_000  # the same, where fewer prove nothing
MOST_DOUBLINGS = 12  # of min_age, where the limit is too low
FAR = 1.5  # times the limit: then it waits for nothing
NEAR = 0.8  # of the limit: then it is worth while to decide about cycles
CYCLES_PAUSE = 30.0  # seconds between two such decisions; doubles while they find nothing


class Crew(Protocol):
    """What a probe tells the engine. Each of these only leaves an order, and returns."""

    rules: Rules
    roster: Roster
    settings: Any
    paused: Flag | None  # ends the pause of dispatch
    relief: Any
    forecasts: Forecasts
    too_low: int  # workers in a row that owned more than they may after one task

    def outgrown(self, worker: Worker, why: str, sample: Sample, before: int) -> None:
        """It owns more than it may."""

    def leaves_in_haste(self, worker: Worker, why: str) -> None:
        """It takes no further task. Carried out when others have the time, or with its end."""

    def give_back(self) -> None:
        """It has let go of what it owned: have the system get it."""

    def limit_too_low(self, worker: Worker, owned: int) -> None:
        """It owns more than it may after its first task."""

    def limit_is_enough(self) -> None:
        """A worker owns no more than it may after its first task."""

    def trimmed(self, worker: Worker, before: int, after: int) -> None:
        """What it owned more than it may could be had from its cache."""

    def probe_failed(self, error: BaseException) -> None:
        """It cannot look, and does not try again."""

    def not_owned(self, worker: Worker, what: str) -> None:
        """Much is to be reached from it that is also referred to from elsewhere."""


class Probe:
    """Of one worker; made and used by its thread."""

    __slots__ = (
        "_budget",
        "_context",
        "_counted_at",
        "_crew",
        "_cycles_at",
        "_cycles_pause",
        "_cyclic",
        "_cyclic_growth",
        "_cyclic_tasks",
        "_decides",
        "_first",
        "_last",
        "_limit",
        "_locals",
        "_looks",
        "_nap",
        "_over",
        "_rss",
        "_rss_decided",
        "_rules",
        "_settled",
        "_told",
        "_told_held",
        "_worker",
        "look_at",
        "to_trim",
    )

    def __init__(self, worker: Worker, crew: Crew, context: Any) -> None:
        rules, now = crew.rules, monotonic()
        self.look_at = -inf
        self.to_trim = False  # the whole process is too big
        self._worker, self._crew, self._rules = worker, crew, rules
        self._context = context
        self._locals = ThreadLocals()
        self._rss: Callable[[], int] = crew.settings.rss or process_rss
        self._limit = min(rules.memory, rules.pool_memory)
        rss = self._rss()
        self._looks = Looks(self._limit, rules.sample_every, rules.jitter, now, rss)
        self._budget = BUDGET
        self._last: tuple[int, float] | None = None  # owned bytes, and when
        self._first = 0  # the bytes of the first look, if they were too many
        self._over, self._counted_at = 0, -inf  # readings in a row
        self._cycles_at, self._cycles_pause, self._rss_decided = -inf, CYCLES_PAUSE, rss
        self._decides = False  # the last decision about cycles found some
        # In the last decision. A successor is taken to grow as the one before it.
        self._cyclic, self._cyclic_growth, self._cyclic_tasks = 0, crew.forecasts.cyclic_growth, 0
        self._nap = 0.0  # seconds that it has to sleep before it looks: PROBE 2
        self._settled = False  # it is to go: there is nothing to decide
        self._told = self._told_held = False

    def last_words(self) -> None:
        """Before its teardown: what it owns, if it goes for the sake of the process."""
        if self._worker.outgrown is not None and not self._settled:
            try:
                found = self._pass(False, MOST).run()
                roots = _roots(found) if found is not None and found.stable else ()
            except BaseException:  # as in _look
                return
            if found is not None and roots:
                sample, before = self._worker.outgrown
                self._worker.outgrown = sample._replace(bytes=found.owned, largest=roots), before

    def close(self) -> None:
        """Before its thread ends: what is kept of it would keep its thread-locals alive."""
        if self._worker.outgrown is not None:
            for _, table in self._locals.dicts(leave_out=(here,)):
                table.clear()
            if self._worker.in_haste:
                self._crew.give_back()
        self._locals.close()

    # -- when to look -----------------------------------------------------------------------------

    def between_tasks(self, now: float) -> float:
        """By the worker, when `now` has reached ``look_at``. Returns the time."""
        # PROBE 3. Its first task is looked at: that says what a worker cannot do without.
        self.look_at = now + GLANCE if self._worker.tasks else -inf
        if not self._worker.tasks:
            self._crew.relief.rouse()  # it begins to serve
        self._wait_for_dispatch()
        if self.to_trim:
            self._trim()
        if not self._settled and self._looks.is_due(
            now, self._worker.tasks, self._cache_bytes(), self._rss(), self._sharers()
        ):
            self._look(None)
        return monotonic()

    def sleep(self) -> None:
        """By the worker, in the idle stack: until its wake lock is released."""
        wake = self._worker.wake
        while not wake.acquire(True, self._pause()) and not self._look(wake):
            pass
        self._cease_to_rest()

    def _cease_to_rest(self) -> None:
        self._worker.resting = False  # first: who dozes because all rest looks after it said so
        self._crew.relief.rouse()

    def _pause(self) -> float:
        """Seconds that it may sleep; -1: nothing is to be looked at before its next task."""
        if self._settled or (self._looks.tasks == self._worker.tasks and not self._over):
            return -1
        return min(max(self._looks.pause(monotonic()), self._nap), TIMEOUT_MAX)

    def _cache_bytes(self) -> int:
        cache = self._worker.cache
        return 0 if cache is None else cache.currsize

    def _wait_for_dispatch(self) -> None:
        """Dispatch may pause: the process is too big."""
        worker, pause = self._worker, self._crew.paused
        if pause is None:
            return
        dispatch, watch = worker.dispatch, worker.watch
        worker.idle_since = monotonic()
        worker.resting = True  # as in the idle stack: DISPATCH 8
        if dispatch.on_rest is not None:
            dispatch.on_rest()
        pause.wait_unless(lambda: worker.leaving is not None or dispatch.closing)
        self._cease_to_rest()
        if watch is not None:
            watch.busy_from(monotonic())  # WATCH 2

    # -- the look ---------------------------------------------------------------------------------

    def _look(self, wake: Any) -> bool:
        """True: somebody has woken it, and the look is dropped."""
        here.inside += 1
        try:
            return self._read(wake, self._wants_cycles())
        except BaseException as error:  # of a reader that was registered: it costs no worker
            self._settled = True
            self._crew.probe_failed(error)
            return False
        finally:
            here.inside -= 1

    def _read(self, wake: Any, cycles: bool) -> bool:
        budget = self._cycles_budget() if cycles else self._budget
        reading = self._pass(cycles, budget if wake is None else None)
        found, began = None, thread_time()  # not the time in which others had the GIL
        while found is None:
            found = reading.run(SLICE)
            seconds = thread_time() - began
            if wake is None or found is not None:
                continue
            rest = seconds / DUTY if seconds > BURST else 0.0
            if wake.acquire(True, rest) if rest else wake.acquire(False):  # PROBE 2
                reading.close()
                self._nap = max(2 * self._nap, GLANCE)
                self._looks.spend(monotonic(), 0.0 if rest else self._shared(seconds))
                return True
            if rest:
                began = thread_time()
        if cycles:
            self._note_cycles(found, seconds)
        self._saw(found, seconds, early=wake is None and found.entered >= budget)
        return False

    def _pass(self, cycles: bool, budget: int | None) -> Pass:
        locals_ = self._locals.dicts(leave_out=(here,))
        enough = None if self._rules.memory == inf else int(self._rules.memory * FAR) + 1
        return Pass(roots_of(self._worker, locals_, self._context), budget, enough, cycles)

    def _saw(self, found: Owned, seconds: float, early: bool) -> None:
        # The same for both: a look comes `sample_every` after it, and then counts as another one.
        now = monotonic()
        self._nap = 0.0
        self._note_look(found, seconds, now)
        self._budget = BUDGET
        if found.owned and self._rss() >= self._limit:  # it owns no more than the process takes
            # As many as it takes to prove that it is far over its limit, and some more.
            objects = 1.5 * FAR * self._limit * found.entered / found.owned
            self._budget = int(min(max(objects, BUDGET), MOST))
        if found.stable:  # nobody changed it meanwhile
            self._worker.memory = _sample(found)
            self._judge(found, now, early)

    def _note_look(self, found: Owned, seconds: float, now: float) -> None:
        tasks, cost = self._worker.tasks, self._shared(seconds)
        acyclic, cache, rss = found.owned - found.cyclic, self._cache_bytes(), self._rss()
        cyclic, growth = self._in_cycles(), self._cyclic_growth
        self._looks.spend(now, cost)
        self._looks.saw(now, acyclic, tasks, cache, rss, cost / DUTY, cyclic, growth)

    def _shared(self, seconds: float) -> float:
        """What a look costs, if all workers have one."""
        return seconds * self._sharers()

    def _sharers(self) -> int:
        """How many workers there are. It may have been retired, as the only one: it is one."""
        return max(1, self._crew.roster.serving())

    def _wants_cycles(self) -> bool:
        """Only near the limit, or where the process grows for no reason that is seen."""
        rss = self._rss()
        # What others gave back, or the worker before this one, hides nothing of what comes then.
        self._rss_decided = min(self._rss_decided, rss)
        sample = self._worker.memory
        if sample is None or monotonic() < self._cycles_at:
            return False
        if self._looks.acyclic + self._in_cycles() >= NEAR * self._limit:
            return sample.undecided > 0 or self._decides
        return sample.undecided > 0 and rss - self._rss_decided >= self._limit / 2

    def _in_cycles(self) -> int:
        """Bytes, as they were decided last; they are taken to grow on with each task."""
        since = self._worker.tasks - self._cyclic_tasks
        return int(self._cyclic + self._cyclic_growth * since)

    def _cycles_budget(self) -> int:
        """Cycles are decided together: this is for all that the worker may have taken by now."""
        objects = (self._limit + self._rss() - self._rss_decided) / SMALL
        return int(min(max(objects, BUDGET), MOST))

    def _note_cycles(self, found: Owned, seconds: float) -> None:
        """They are decided again after a while, which doubles as long as that finds none."""
        if found.undecided:  # it was cut off, which says nothing
            self._cycles_at = monotonic() + self._shared(seconds) / DUTY
            return
        self._rss_decided = self._rss()
        self._decides = found.cyclic > 0
        tasks, grown = self._worker.tasks, found.cyclic - self._cyclic
        growth = max(0.0, grown / max(1, tasks - self._cyclic_tasks))
        self._cyclic_growth = self._crew.forecasts.cyclic_growth = growth
        self._cyclic, self._cyclic_tasks = found.cyclic, tasks
        self._cycles_pause = CYCLES_PAUSE if self._decides else self._cycles_pause * 2
        self._cycles_at = monotonic() + (0.0 if self._decides else self._cycles_pause)
        if not self._told_held and found.owned <= self._limit < found.owned + found.held:
            self._told_held = True
            self._crew.not_owned(self._worker, _held(found))

    # -- what follows from it ---------------------------------------------------------------------

    def _judge(self, found: Owned, now: float, early: bool) -> None:
        worker, rules, limit = self._worker, self._rules, self._rules.memory
        last, self._last = self._last, (found.owned, now)
        if found.owned <= limit:
            if not early:
                self._over, self._told = 0, False
            if last is None and self._crew.too_low:
                self._crew.limit_is_enough()
            return
        if last is None:  # after its first task: it cannot help to make another like it
            self._first = found.owned
            self._crew.limit_too_low(worker, found.owned)
        if not self._over or now - self._counted_at >= rules.sample_every:
            self._over += 1
            self._counted_at = now
        backed_off = 2.0 ** min(self._crew.too_low, MOST_DOUBLINGS)
        too_young = worker.born + rules.min_age * backed_off - now
        if self._over >= rules.memory_samples and too_young <= 0.0:
            self._crew.forecasts.refute(worker)
            self._relieve(found, at_once=found.owned > FAR * limit)
        elif self._is_far(found.owned, last, now):
            self._relieve(found, at_once=True)

    def _is_far(self, owned: int, last: tuple[int, float] | None, now: float) -> bool:
        """Is it so far over its limit that it must not wait, or will it be at the next reading?"""
        crew, bar = self._crew, FAR * max(self._rules.memory, self._first)
        growth = 0.0  # bytes a second
        if last is not None:
            growth = max(0.0, (owned - last[0]) / max(now - last[1], GLANCE))
        if owned + growth * REACTION > bar:
            crew.forecasts.prove()
            return True
        will_be = owned + growth * self._rules.sample_every
        return will_be > bar and crew.forecasts.may_act(self._worker, crew.roster.workers)

    def _relieve(self, found: Owned, at_once: bool) -> None:
        """One rung after the other, with a look after each: its cache, then the worker."""
        worker, rules = self._worker, self._rules
        if self._told:
            return  # report_only
        if not rules.report_only:
            again = self._after_a_trim(found)
            if again is not None and again.owned <= rules.memory:
                self._over = 0
                worker.memory = _sample(again)
                self._crew.trimmed(worker, found.owned, again.owned)
                return
            found = again or found
            self._settled = True
        self._told = True
        worker.memory = _sample(found)._replace(largest=_roots(found))
        why, before = _why(worker.memory, int(rules.memory)), self._rss()
        if not at_once or rules.report_only:
            self._crew.outgrown(worker, why, worker.memory, before)
        elif worker.leaving is None:
            self._leave(why, worker.memory, before)

    def _leave(self, why: str, sample: Sample, before: int) -> None:
        """Take no further task, and let go of everything before the order to go is carried out.

        That may take long, while this worker would grow on, or do what others have ordered: who has
        the lock waits for the GIL between two steps, like anybody. So it only leaves the order.
        """
        worker = self._worker
        worker.outgrown, worker.in_haste = (sample, before), True
        worker.leaving = Reason.MEMORY  # DISPATCH 7: mark, then take out
        worker.dispatch.rouse(worker)
        self._crew.leaves_in_haste(worker, why)

    def _after_a_trim(self, found: Owned) -> Owned | None:
        """None: there is nothing to trim, or somebody changes it."""
        if not self._trim():
            return None
        began = thread_time()
        again = self._pass(found.cyclic > 0, None).run()
        if again is None or not again.stable:
            return None
        now = monotonic()
        self._note_look(again, thread_time() - began, now)
        self._last = again.owned, now
        return again

    def _trim(self) -> bool:
        """Half of the cache. False: there is none."""
        self.to_trim = False
        cache = self._worker.cache
        if cache is None or not cache.currsize:
            return False
        here.inside += 1
        try:
            cache.trim(cache.currsize // 2)
        except Exception:  # a key's own code raises: what cannot be trimmed is recycled
            return False
        finally:
            here.inside -= 1
        return True


def _roots(found: Owned) -> tuple[tuple[str, int], ...]:
    """The three largest, but for what is next to nothing."""
    shares = [share for share in largest(found, 3) if share.bytes >= found.owned / 50]
    return tuple((share.title, share.bytes) for share in shares)


def _sample(found: Owned) -> Sample:
    return Sample("owned", found.owned, time(), not found.complete, found.undecided)


def _why(sample: Sample, limit: int) -> str:
    bound = ">= " if sample.is_bound else ""
    why = f"memory: {bound}{format_size(sample.bytes)} owned, the limit is {format_size(limit)}"
    roots = told(sample.largest)
    return f"{why}: {roots}" if roots else why


def _held(found: Owned) -> str:
    return f"{found.held_by[0]} is also referred to from outside: a recycle would not free it"
