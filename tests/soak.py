"""The soak: random tasks and random verbs, thrown from many threads at several pools at once.

    python -m tests.soak --minutes 20 [--seed N]

Each pool lives in an arena: actors throw, then all comes to rest and everything is counted; after
some such rounds the pool is ended and another one, made otherwise, takes its place. The seed
decides who does what; the machine decides when. The first invariant that does not hold ends the run
with status 1, and tells what the pool was, what was done to it and where every thread is; a run
that hangs ends with status 2.
"""

import argparse
import concurrent.futures
import contextlib
import faulthandler
import gc
import json
import logging
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

os.environ["RECYCLEPOOL_DEBUG"] = "1"

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    PoolClosedError,
    PoolState,
    QueueFullError,
    RecyclePool,
    TaskAbort,
    TaskAbortedError,
    TaskTimeoutError,
    WorkerStartError,
    current_worker,
    per_worker,
)
from recyclepool._gate import here

PATIENCE = 30.0  # seconds after which something that was to happen never will
SLACK = 10.0  # seconds that a call may take beyond its deadline: the machine is busy
TELL_EVERY = 30.0
STEPS = 25  # of each actor in a round
SWITCH = (0.005, 0.0005, 0.00005)  # how often threads take turns

UNREADY = (BrokenRecyclePool, WorkerStartError)
REFUSED = (PoolClosedError, *UNREADY)
ENDS = ("completed", "failed", "cancelled", "aborted", "timed_out", "lost")
COUNTERS = ("submitted", *ENDS, "rejected", "failed_starts")

Future = concurrent.futures.Future


class Planned(Exception):
    """What tasks, initializers, finalizers and callbacks raise."""


class Broken(Exception):
    """An invariant does not hold."""


# -- tasks ----------------------------------------------------------------------------------------


class Task:
    """One call, and what became of it. An abort may surface between any two of its lines."""

    def __init__(self, arena: "Arena", rng: random.Random, *, leaf: bool = False) -> None:
        self.arena = arena
        self.kind = rng.choice(LEAVES if leaf else KINDS)
        self.seed = rng.random()
        self.timeout = rng.choice((0.01, 0.05)) if rng.random() < 0.1 else None
        self.key = rng.choice((0, 1, "x")) if rng.random() < 0.3 else None
        self.fate = "unknown"  # then "accepted", "refused", or "unstarted"
        self.future: Future[Any] | None = None
        self.watched = False  # its callback was surely hung on
        self.starts: list[int] = []
        self.ends: list[Future[Any]] = []

    def __call__(self) -> "Task":
        inside = self.arena.inside
        try:
            inside.add(self)
            self.starts.append(1)
            self.arena.count_running(self)
            self.kind(self, random.Random(self.seed))
            return self
        finally:
            inside.discard(self)  # the first call after an abort: none can come before it

    def __repr__(self) -> str:
        return (
            f"<{self.kind.__name__} {self.fate} {self.future} timeout={self.timeout} "
            f"key={self.key} {len(self.starts)} starts, {len(self.ends)} ends>"
        )

    def is_settled(self) -> bool:
        return self.future is None or self.future.done()

    def spawn(self, rng: random.Random) -> "Future[Any] | None":
        """A child: in its own pool as a rule."""
        arena = self.arena if rng.random() < 0.8 else rng.choice(self.arena.soak.arenas)
        if arena.blocks:
            # Two pools whose tasks wait for places in each other's queues wait for ever.
            arena = self.arena
        return arena.submit(Task(arena, rng, leaf=True))

    def outcome(self) -> str:
        """How it ended; Broken if it could not have ended so."""
        arena, future = self.arena, self.future
        assert future is not None
        if future.cancelled():
            return "cancelled"
        error = future.exception(0)
        forced = self.timeout is not None or arena.limits & {"task_timeout", "hang"}
        if error is None and future.result(0) is self:
            return "completed"
        if self.kind is fail and isinstance(error, (Planned, SystemExit, KeyboardInterrupt)):
            return "failed"
        if isinstance(error, TaskAbortedError):
            return "aborted"
        if isinstance(error, TaskTimeoutError) and forced:
            return "timed out"
        if isinstance(error, UNREADY) and not self.starts:
            return "broken"
        raise Broken(f"{self} ended in {error!r} of {getattr(error, '__cause__', None)!r}")


def noop(task: Task, rng: random.Random) -> None:
    """Nothing."""


def wait(task: Task, rng: random.Random) -> None:
    current_worker().stopping.wait(rng.choice((0.001, 0.005, 0.03)))


def spin(task: Task, rng: random.Random) -> None:
    end = monotonic() + rng.choice((0.0005, 0.002, 0.02))
    while monotonic() < end:
        pass


def block(task: Task, rng: random.Random) -> None:
    time.sleep(rng.choice((0.0, 0.001, 0.01, 0.05)))


def fail(task: Task, rng: random.Random) -> None:
    raise rng.choice((Planned, Planned, SystemExit, KeyboardInterrupt))("planned")


def parent(task: Task, rng: random.Random) -> None:
    children = [child for _ in range(rng.randint(1, 4)) if (child := task.spawn(rng))]
    way = rng.randrange(4)
    try:
        if way == 0:
            concurrent.futures.wait(children, 0.03)
        elif way == 1:
            for _ in concurrent.futures.as_completed(children, 0.03):
                pass
        elif way == 2:
            for child in children:
                child.exception(0.02)
    except (TimeoutError, concurrent.futures.CancelledError):
        pass


def swallow(task: Task, rng: random.Random) -> None:
    end = monotonic() + rng.choice((0.01, 0.1))
    for _ in range(2):
        try:
            while monotonic() < end:
                current_worker().stopping.is_set()
        except TaskAbort:
            end = min(end, monotonic() + 0.02)


def cancel(task: Task, rng: random.Random) -> None:
    task.arena.cancel_some(rng)


def wish(task: Task, rng: random.Random) -> None:
    worker: Any = current_worker()
    for _ in range(3):
        worker.heartbeat()
    if rng.random() < 0.3:
        worker.request_recycle("soak")


def litter(task: Task, rng: random.Random) -> None:
    for _ in range(3):
        Litter(task, rng)


def warm(task: Task, rng: random.Random) -> None:
    task.arena.resource()
    cache = current_worker().cache
    key = rng.randrange(50)
    if cache.get(key) is None:
        with contextlib.suppress(ValueError):  # a budget of nothing
            cache[key] = bytes(1000)


def hoard(task: Task, rng: random.Random) -> None:
    """Leaks, in a cycle at times."""
    kept = HOARD.__dict__.setdefault("kept", [])
    kept.append([bytes(rng.randrange(20_000))])
    if rng.random() < 0.3:
        kept[-1].append(kept[-1])


def look(task: Task, rng: random.Random) -> None:
    pool = task.arena.pool
    if pool is None:
        return
    rng.choice((pool.stats, pool.stacks, pool.__repr__))()
    verb: Any = rng.choice((pool.close, pool.destroy, pool.shutdown, pool.wait_idle))
    try:
        verb()
    except RuntimeError:
        return
    task.arena.soak.found(f"{verb} in an own task waited for itself", task.arena)


class Litter:
    """Garbage that submits when it is collected."""

    arena: "Arena | None" = None  # an abort may surface before there is one

    def __init__(self, task: Task, rng: random.Random) -> None:
        self.me, self.seed = self, rng.random()
        self.arena = task.arena

    def __del__(self) -> None:
        # As in spawn(): a pool's own finalizers do not wait.
        if self.arena is not None and (not self.arena.blocks or here.crew is self.arena.crew):
            self.arena.submit(Task(self.arena, random.Random(self.seed), leaf=True))


HOARD = threading.local()
LEAVES = [noop, noop, wait, spin, fail]
KINDS = [*LEAVES, block, parent, parent, swallow, cancel, wish, litter, warm, hoard, look]


# -- one pool -------------------------------------------------------------------------------------


class Arena:
    """One pool at a time, and all that is known of it."""

    def __init__(self, soak: "Soak", place: int) -> None:
        self.soak, self.place = soak, place
        self.quiet = True  # nobody may submit
        self.pool: Any = None
        self.limits: set[str] = set()
        self.blocks = False  # who finds its queue full waits
        self.crew: object = None
        self.inside: set[Task] = set()
        self.submitting: set[object] = set()
        self.tasks: list[Task] = []
        self.done = deque[str](maxlen=60)
        self.thread = threading.Thread(target=self.live, name=f"arena-{place}", daemon=True)

    def live(self) -> None:
        life = 0
        try:
            while self.soak.goes_on():
                life += 1
                self.name = f"soak-{self.place}-{life}"
                rng = random.Random(f"{self.soak.seed}/{self.name}")
                self.make(rng)
                for n in range(rng.randint(1, 6)):
                    if self.soak.goes_on():
                        self.round(rng, f"{self.soak.seed}/{self.name}/{n}")
                self.end(rng)
        except BaseException:
            self.soak.found(traceback.format_exc(), self)

    # -- life --

    def make(self, rng: random.Random) -> None:
        size = rng.randint(1, 6)
        choices: dict[str, Any] = {
            "tasks": rng.choice((1, 3, 20)),
            "age": rng.choice(("50ms", 0.5)),
            "idle": rng.choice(("5ms", 0.1)),
            "task_timeout": "40ms",
            "hang": "30ms",
            "start_timeout": "100ms",
            "max_surge": rng.choice((0, 2)),
            "max_abandoned": rng.randint(1, 4),
            "report_only": True,
            "memory": rng.choice(("8KiB", "200KiB", "10MiB")),
            "pool_memory": "100%",
        }
        odds = {"report_only": 0.05, "start_timeout": 0.15, "max_abandoned": 0.2}
        chosen = {k: v for k, v in choices.items() if rng.random() < odds.get(k, 0.25)}
        if chosen:
            chosen |= {"grace": rng.choice((0.02, "200ms")), "jitter": rng.choice((0, 0.5))}
            chosen |= {"memory_samples": rng.choice((1, 3)), "min_age": rng.choice((0, 0.1))}
            chosen |= {"sample_every": rng.choice((0.01, 0.1))}
        self.limits = set(chosen)
        schedule = rng.choice((None, None, "every 0.3s", "@daily", ("@hourly", "every 0.3s")))
        self.failing = rng.choice((0.0, 0.0, 0.0, 0.05, 0.3))
        self.slow = rng.choice((0.0, 0.0, 0.01, 0.05))
        self.stays_open = rng.random() < 0.4  # but for the rests between rounds
        self.chance = random.Random(rng.random())
        self.opened: list[int] = []
        self.closed: list[int] = []
        self.resources: set[object] = set()
        self.gave_up: list[object] = []
        self.outcomes: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.ready: set[tuple[int, int]] = set()  # slot and generation
        self.accepted = self.unknown = self.refused = 0
        self.promises: list[tuple[str, Future[Any]]] = []
        self.resource = per_worker(self.make_resource)
        self.size = size
        keywords: dict[str, Any] = {
            "min_workers": rng.choice((0, 0, 1, size)),
            "limits": Limits(**chosen) if chosen else None,
            "schedule": schedule,
            "context": rng.choice(("submitter", "worker")),
            "cache": rng.choice((0, "16KiB", "64MiB")),
            "max_queue": rng.choice((None, None, 1, 5, 100)),
            "on_full": rng.choice(("block", "block", "raise")),
        }
        self.bounded = keywords["max_queue"] is not None
        self.blocks = self.bounded and keywords["on_full"] == "block"
        self.made = f"RecyclePool({size}, {keywords}), {self.failing=}, {self.slow=}"
        hooks = {"initializer": self.open_worker, "finalizer": self.close_worker}
        self.pool = RecyclePool(size, name=self.name, **keywords, **hooks)
        self.crew = engine = self.pool._engine
        self.offset = 0.0  # by which its wall clock is wrong
        engine.settings = engine.settings._replace(wall=lambda: time.time() + self.offset)
        self.pool.subscribe(self.note)

    def open_worker(self) -> None:
        if self.slow:
            time.sleep(self.slow * self.chance.random() * 4)
        if self.opened and self.chance.random() < self.failing:
            raise Planned("initializer")
        self.opened.append(1)

    def close_worker(self) -> None:
        self.closed.append(1)
        if self.chance.random() < 0.1:
            raise Planned("finalizer")

    def make_resource(self) -> Iterator[object]:
        """Of each worker that wants one."""
        mine = object()
        try:
            self.resources.add(mine)
            yield mine
        finally:
            self.resources.discard(mine)

    def note(self, event: Any) -> None:
        """Is told everything that happens."""
        what = type(event).__name__
        self.events[what] += 1
        if what == "WorkerAbandoned":
            self.gave_up.append(event)
        if what in ("WorkerLost", "WatchdogFailed"):
            self.soak.found(f"{event}", self)
        if what == "WorkerReady":
            worker = (event.slot, event.generation)
            if worker in self.ready:
                self.soak.found(f"two workers are {worker}", self)
            self.ready.add(worker)

    def end(self, rng: random.Random) -> None:
        """The pool goes, for good or because nobody holds it."""
        stats = self.pool.stats()
        self.soak.add("recycles", stats.recycles)
        self.soak.add("events", self.events)
        name, engine = self.name, self.pool._engine
        if rng.random() < 0.7:
            self.call("shutdown", PATIENCE, self.pool.shutdown)
            self.expect(self.pool.stats().state is PoolState.SHUTDOWN, "shutdown() shuts down")
            with contextlib.suppress(PoolClosedError):
                self.pool.submit(noop, None, None)
                raise Broken("a pool that was shut down takes a task")
            self.expect(not self.pool.close().completed, "close() after shutdown() has work")
        self.pool = None
        self.tasks.clear()
        gc.collect()
        self.eventually(
            lambda: not [t for t in threading.enumerate() if t.name.startswith(f"{name}_")],
            f"{engine.roster.workers} live on after the end",
        )

    # -- what tasks, callbacks and garbage do too: an abort may surface anywhere --

    def submit(self, task: Task) -> "Future[Any] | None":
        token = object()
        try:
            self.submitting.add(token)
            pool = self.pool
            if self.quiet or pool is None:
                return None
            self.tasks.append(task)
            options = {"timeout": task.timeout, "key": task.key}
            verbs = pool if not any(options.values()) else pool.options(**options)
            try:
                task.future = verbs.submit(task)
            except (PoolClosedError, BrokenRecyclePool, QueueFullError):
                task.fate = "refused"
                return None
            except WorkerStartError:
                task.fate = "unstarted"
                return None
            task.fate = "accepted"
            task.future.add_done_callback(task.ends.append)
            task.watched = True
            return task.future
        finally:
            self.submitting.discard(token)

    def cancel_some(self, rng: random.Random) -> None:
        for task in self.tasks[-10:]:
            future, pool = task.future, self.pool
            if future is not None and pool is not None and rng.random() < 0.3:
                rng.choice((future.cancel, lambda f=future, p=pool: p.cancel(f)))()

    def count_running(self, task: Task) -> None:
        """Who was given up is settled, and does not count."""
        running = [t for t in self.inside.copy() if t.future is not None and not t.is_settled()]
        if len({task, *running}) > self.size:
            self.soak.found(f"{len(running)} tasks at once in {self.size} slots: {running}", self)

    # -- checks --

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            raise Broken(what)

    def eventually(self, holds: Callable[[], object], what: Any, limit: float = PATIENCE) -> None:
        deadline = monotonic() + limit
        while not holds():
            if monotonic() > deadline:
                raise Broken(f"after {limit} s: {what() if callable(what) else what}")
            time.sleep(0.002)

    def call(self, what: str, limit: float, verb: Callable[..., Any], *args: Any) -> Any:
        """A call that is to return in time: the soak's own thread sees when it does not."""
        token = object()
        try:
            self.soak.calls[token] = (self, what, monotonic() + limit + SLACK)
            return verb(*args)
        finally:
            del self.soak.calls[token]

    def finish(self, what: str, limit: float, verb: Callable[..., Any], *args: Any) -> Any:
        """close() or destroy(): afterwards nothing is left of what was there before."""
        threads = self.pool._threads
        before = [task for task in self.tasks.copy() if task.future is not None]
        report = self.call(what, limit, verb, *args)
        pending = [task for task in before if not task.is_settled()]
        self.expect(not pending, f"pending after {what}: {pending}")
        left = threads & self.pool._threads
        self.expect(not left, f"workers of the old epoch after {what}: {left}")
        self.gave_up.extend(report.abandoned)
        self.soak.add("ends", {f"of {what.split('(')[0]}": 1})
        return report

    def look(self, before: Any) -> Any:
        """stats(): its counters never go back."""
        stats = self.pool.stats()
        for name in COUNTERS:
            was, now = getattr(before, name, 0), getattr(stats, name, 0)
            self.expect(now >= was, f"stats().{name} went back from {was} to {now}")
        for reason, was in before.recycles.items() if before else ():
            self.expect(stats.recycles[reason] >= was, f"recycles[{reason!r}] went back")
        json.dumps(stats.as_dict())
        return stats

    # -- a round --

    def round(self, rng: random.Random, seed: str) -> None:
        self.size, self.quiet = self.pool._max_workers, False
        first = self.look(None)
        actors = [Actor(self, f"{seed}/{n}") for n in range(self.soak.actors)]
        for actor in actors:
            actor.thread.start()
        for actor in actors:
            while actor.thread.is_alive():  # its calls have deadlines
                actor.thread.join(1.0)
        self.quiet = True
        self.rest(first)
        if rng.random() < 0.6:
            self.close_quietly()
        self.soak.add("rounds", {"done": 1})

    def rest(self, first: Any) -> None:
        """Everything comes to its end, once."""
        self.eventually(lambda: not self.submitting, "a submit does not return")
        tasks, self.tasks = self.tasks, []
        accepted = [task for task in tasks if task.fate == "accepted"]
        # With starts that fail and tasks=1 a long queue takes its time: as long as one task after
        # the other is settled.
        for task in tasks:
            self.eventually(
                task.is_settled,
                lambda: f"never settled: {[task for task in tasks if not task.is_settled()]}",
            )
        self.eventually(lambda: not self.inside, lambda: f"never over: {self.inside}")
        self.eventually(
            lambda: all(task.ends for task in tasks if task.watched),
            lambda: f"callback never called: {[t for t in tasks if t.watched and not t.ends]}",
        )
        for task in tasks:
            self.expect(len(task.ends) <= 1, f"settled twice: {task}")
            self.expect(len(task.starts) <= 1, f"started twice: {task}")
            self.expect(task.fate != "refused" or not task.starts, f"refused, but run: {task}")
        self.soak.add("tasks", Counter(task.fate for task in tasks))
        outcomes = Counter(task.outcome() for task in accepted)
        self.outcomes.update(outcomes)
        self.soak.add("outcomes", outcomes)
        for what, promise in self.promises:
            self.eventually(promise.done, lambda w=what: f"the future of {w} is never settled")
            error = promise.exception(0)
            good = error is None or isinstance(error, REFUSED)
            self.expect(good, f"{what} ended in {error!r}")
        self.promises.clear()
        self.accepted += len(accepted)
        self.unknown += sum(task.fate == "unknown" for task in tasks)
        self.refused += sum(task.fate == "refused" for task in tasks)
        self.check_at_rest(first)

    def check_at_rest(self, first: Any) -> None:
        pool, stats = self.pool, first
        sure, most = self.accepted, self.accepted + self.unknown

        def adds_up() -> bool:
            nonlocal stats
            stats = self.look(stats)
            settled = sum(getattr(stats, name, 0) for name in ENDS)
            # What has its end without a worker (cancelled while it ran, refused) is counted by an
            # order, which may be done a little later by another thread.
            all_counted = settled >= sure and stats.rejected >= self.refused
            # Who looks while a task is refused that stood in the queue already has counted it.
            adds = settled <= stats.submitted <= settled + self.refused
            return adds and all_counted and not stats.queued

        self.eventually(adds_up, lambda: f"the counters do not add up: {stats}", SLACK)
        what = f"{stats.submitted} submitted, {sure} to {most} were: {self.outcomes}"
        self.expect(sure <= stats.submitted <= most + self.refused, what)
        what = f"{stats.rejected} rejected, {self.refused} were refused"
        self.expect(self.refused <= stats.rejected <= self.refused + self.unknown, what)
        self.expect(stats.state in (PoolState.OPEN, PoolState.BROKEN), f"at rest: {stats.state}")
        self.expect(self.call("wait_idle(10)", 10.0, pool.wait_idle, 10.0), "not idle at rest")
        engine = pool._engine
        self.eventually(lambda: self.holds(engine.dispatch.check), "dispatch.check()", SLACK)
        engine._order(engine.roster.check)  # with the lock held
        self.expect(len(self.closed) <= len(self.opened), "more finalizers than initializers")
        if stats.state is PoolState.BROKEN:
            self.close_quietly()

    def holds(self, check: Callable[[], None]) -> bool:
        try:
            check()
        except AssertionError:
            return False
        return True

    def close_quietly(self) -> None:
        """Every worker goes, and has its finalizer; then the pool is as good as new."""
        threads = self.pool._threads
        report = self.finish("close() at rest", PATIENCE, self.pool.close)
        self.expect(not report.timed_out, f"{report}")
        self.expect(not self.pool._threads, f"after close: {self.pool._threads}")
        self.expect(self.pool.stats().state is PoolState.OPEN, "close() leaves the pool open")
        if not self.gave_up:
            self.eventually(lambda: not any(t.is_alive() for t in threads), f"alive: {threads}")
        self.eventually(
            lambda: self.gave_up or len(self.opened) == len(self.closed),
            lambda: f"{len(self.opened)} initializers, {len(self.closed)} finalizers",
            SLACK,
        )
        gc.collect()  # of a @per_worker that an abort broke off
        self.expect(self.gave_up or not self.resources, "a @per_worker was not undone")
        probe = Task(self, random.Random(0))
        probe.kind = noop
        self.quiet = False
        self.submit(probe)
        self.quiet = True
        self.eventually(probe.is_settled, lambda: f"after close: {probe}")
        # Of a bounded queue another arena's child may have the place.
        if probe.fate != "refused" or not (self.failing or self.bounded):
            self.expect(probe.outcome() in ("completed", "broken"), f"after close: {probe}")


class Actor:
    """One thread that does what comes to its mind."""

    def __init__(self, arena: Arena, seed: str) -> None:
        self.arena, self.rng, self.stats = arena, random.Random(seed), None
        self.listening: list[Callable[[], None]] = []
        self.thread = threading.Thread(target=self.run, name=f"actor-{seed}", daemon=True)

    def run(self) -> None:
        arena, rng = self.arena, self.rng
        names = [name for name in WEIGHTS if not (arena.stays_open and name in ENDINGS)]
        weights = [WEIGHTS[name] for name in names]
        counts: Counter[str] = Counter()
        try:
            for _ in range(STEPS):
                if not arena.soak.goes_on():
                    break
                (name,) = rng.choices(names, weights)
                counts[name] += 1
                arena.done.append(f"{threading.current_thread().name} {name}")
                getattr(self, name)()
            while self.listening:
                self.listening.pop()()
        except BaseException:
            arena.soak.found(traceback.format_exc(), arena)
        arena.soak.add("actions", counts)

    def burst(self) -> None:
        for _ in range(self.rng.choice((1, 3, 12))):
            future = self.arena.submit(Task(self.arena, self.rng))
            if future is not None and self.rng.random() < 0.1:
                future.add_done_callback(self.rng.choice((self.fail, self.follow_up)))

    def fail(self, _: object) -> None:
        raise Planned("callback")

    def follow_up(self, _: object) -> None:
        self.arena.submit(Task(self.arena, random.Random(0), leaf=True))

    def await_some(self) -> None:
        futures = [t.future for t in self.arena.tasks[-5:] if t.future is not None]
        concurrent.futures.wait(futures, 0.05)

    def pause(self) -> None:
        time.sleep(self.rng.choice((0.0, 0.001, 0.02, 0.1)))  # workers fall idle, and age

    def hold_back(self) -> None:
        """As for a process that is too big."""
        engine = self.arena.pool._engine
        engine.order(engine.pause_dispatch)
        time.sleep(self.rng.choice((0.0, 0.001, 0.02)))
        engine.order(engine.resume_dispatch)

    def set_clock(self) -> None:
        """The wall clock, by which schedules go: what was missed fires, and fires once."""
        arena = self.arena
        arena.offset += self.rng.choice((60.0, 3600.0, 86_400.0, 250_000.0, -1.0, -7200.0, -1e6))
        arena.pool._engine.look()

    def cancel(self) -> None:
        self.arena.cancel_some(self.rng)

    def look(self) -> None:
        self.stats = self.arena.look(self.stats)
        repr(self.arena.pool), self.arena.pool.stacks()

    def wait_idle(self) -> None:
        arena = self.arena
        arena.call("wait_idle(0.05)", 0.05, arena.pool.wait_idle, 0.05)

    def collect(self) -> None:
        gc.collect()

    def promise(self, what: str, verb: Callable[..., "Future[int]"], *args: int) -> None:
        with contextlib.suppress(*REFUSED):
            self.arena.promises.append((what, self.arena.call(what, 0.0, verb, *args)))

    def start(self) -> None:
        self.promise("start()", self.arena.pool.start)

    def recycle(self) -> None:
        slot = self.rng.randrange(6)
        with contextlib.suppress(ValueError):  # no such slot
            self.promise(f"recycle({slot})", self.arena.pool.recycle, slot)

    def soft_restart(self) -> None:
        self.promise("soft_restart()", self.arena.pool.soft_restart)

    def resize(self) -> None:
        size, arena = self.rng.randint(1, 6), self.arena
        arena.size = max(arena.size, size)
        with contextlib.suppress(ValueError, *REFUSED):  # fewer than min_workers
            arena.call(f"resize({size})", 0.0, arena.pool.resize, size)

    def close(self) -> None:
        timeout = self.rng.choice((None, 0.0, 0.05, 1.0))
        limit = PATIENCE if timeout is None else timeout + 0.5
        self.arena.finish(f"close({timeout})", limit, self.arena.pool.close, timeout)

    def destroy(self) -> None:
        grace = self.rng.choice((0.0, 0.05, 1.0))
        self.arena.finish(f"destroy({grace})", grace + 0.5, self.arena.pool.destroy, grace)

    def subscribe(self) -> None:
        self.listening.append(self.arena.pool.subscribe(Listener(self.arena, self.rng).hear))

    def unsubscribe(self) -> None:
        if self.listening:
            self.listening.pop(self.rng.randrange(len(self.listening)))()


WEIGHTS = {
    "burst": 40,
    "await_some": 10,
    "pause": 12,
    "hold_back": 2,
    "set_clock": 3,
    "cancel": 6,
    "look": 5,
    "wait_idle": 3,
    "collect": 1,
    "start": 3,
    "recycle": 4,
    "soft_restart": 3,
    "resize": 4,
    "close": 3,
    "destroy": 3,
    "subscribe": 3,
    "unsubscribe": 2,
}
ENDINGS = ("close", "destroy")


class Listener:
    """Hears events in the order in which they happened, and may raise or be slow."""

    def __init__(self, arena: Arena, rng: random.Random) -> None:
        self.arena, self.mood = arena, rng.randrange(4)
        self.last: Any = None

    def hear(self, event: Any) -> None:
        last, self.last = self.last, event
        if last is not None and event.at < last.at:
            self.arena.soak.found(f"{last!r} was told before {event!r}", self.arena)
        if self.mood == 0:
            raise Planned("listener")
        if self.mood == 1:
            time.sleep(0.005)  # its work


# -- all of them ----------------------------------------------------------------------------------


class Watch(logging.Handler):
    """A log line that says that something of the library's own went wrong."""

    def __init__(self, soak: "Soak") -> None:
        super().__init__(logging.WARNING)
        self.soak = soak

    def emit(self, record: logging.LogRecord) -> None:
        if "could not carry out" in record.getMessage():
            self.soak.found(logging.Formatter().format(record))


class Soak:
    """The arenas, the time that they have, and what was found."""

    def __init__(self, seed: int, minutes: float, pools: int, actors: int) -> None:
        self.seed, self.minutes, self.actors = seed, minutes, actors
        self.began = monotonic()
        self.deadline = self.began + minutes * 60
        self.findings: deque[tuple[str, Arena | None]] = deque()
        self.calls: dict[object, tuple[Arena, str, float]] = {}
        self.books: dict[str, Counter[str]] = {}
        self.writing = threading.Lock()
        self.threads = threading.active_count()
        self.arenas = [Arena(self, place) for place in range(pools)]

    def goes_on(self) -> bool:
        return monotonic() < self.deadline and not self.findings

    def found(self, what: str, arena: Arena | None = None) -> None:
        """Any thread, in a task too. The main thread tells."""
        self.findings.append((what, arena))

    def add(self, book: str, counts: Any) -> None:
        """By arenas and actors only: a task could be aborted in here."""
        with self.writing:
            self.books.setdefault(book, Counter()).update({str(k): v for k, v in counts.items()})

    def run(self) -> None:
        rng, told = random.Random(self.seed), monotonic()
        logging.getLogger("recyclepool").addHandler(Watch(self))
        for name in ("recyclepool", "concurrent.futures"):
            logging.getLogger(name).propagate = False
        logging.getLogger("concurrent.futures").addHandler(logging.NullHandler())
        threading.excepthook = self.on_thread_error
        sys.unraisablehook = self.on_unraisable
        for arena in self.arenas:
            arena.thread.start()
        while any(arena.thread.is_alive() for arena in self.arenas) and not self.findings:
            time.sleep(0.1)
            for arena, what, deadline in list(self.calls.values()):
                if monotonic() > deadline:
                    self.found(f"{what} does not return", arena)
            sys.setswitchinterval(rng.choice(SWITCH))
            if monotonic() - told > TELL_EVERY:
                told = monotonic()
                self.tell()
        until = monotonic() + PATIENCE
        while threading.active_count() > self.threads and not self.findings:
            if monotonic() > until:
                self.found(f"threads are left: {threading.enumerate()}")
            time.sleep(0.01)
        if self.findings:
            self.report()

    def on_thread_error(self, args: Any) -> None:
        text = "".join(traceback.format_exception(args.exc_value))
        self.found(f"a thread died: {args.thread}\n{text}")

    def on_unraisable(self, args: Any) -> None:
        if not isinstance(args.exc_value, TaskAbort):  # in a finalizer: it is asked for again
            text = "".join(traceback.format_exception(args.exc_value))
            self.found(f"unraisable: {args.err_msg} {args.object!r}\n{text}")

    def tell(self) -> None:
        seconds = monotonic() - self.began
        print(f"[{seconds:6.0f} s] " + "; ".join(self.lines()), flush=True)

    def lines(self) -> list[str]:
        with self.writing:
            return [
                f"{name}: " + ", ".join(f"{count} {key}" for key, count in sorted(book.items()))
                for name, book in sorted(self.books.items())
            ]

    def report(self) -> None:
        """What is broken, and everything that may tell why."""
        self.tell()
        what, arena = self.findings[0]
        print(f"\nBROKEN (seed {self.seed}): {what}", flush=True)
        faulthandler.dump_traceback(all_threads=True)
        if arena is not None:
            print(arena.made, *arena.done, sep="\n  ")
            pool = arena.pool
            if pool is not None:
                print(pool, pool.stats(), f"{pool._engine.roster.__dict__}", sep="\n")
        for other, _ in list(self.findings)[1:5]:
            print(f"\nand: {other}")
        sys.stdout.flush()
        os._exit(1)


def guard(seconds: float) -> None:
    """End a run that hangs, even where no thread gets the GIL any more (status 1 then)."""

    def end() -> None:
        time.sleep(seconds)
        print("the soak itself hangs", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(2)

    threading.Thread(target=end, name="guard", daemon=True).start()
    faulthandler.dump_traceback_later(seconds + 5.0, exit=True)  # needs no GIL


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--pools", type=int, default=3)
    parser.add_argument("--actors", type=int, default=3)
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}; to repeat: {parser.prog} ", end="")
    print(*(f"--{name} {value}" for name, value in vars(wanted).items()), flush=True)
    faulthandler.enable()
    guard(wanted.minutes * 60 + 3 * PATIENCE)
    soak = Soak(wanted.seed, wanted.minutes, wanted.pools, wanted.actors)
    soak.run()
    print(f"\nNothing broke in {monotonic() - soak.began:.0f} s. Seed {soak.seed}.")
    print(*soak.lines(), sep="\n")


if __name__ == "__main__":
    main()
