"""What a pool is at this moment, read from outside: nothing is locked, nothing is changed."""

import operator
from math import inf
from time import time
from typing import Any

from recyclepool._describe import everybody
from recyclepool._engine import Engine
from recyclepool._future import name_of
from recyclepool._stacks import stack_of, text_of
from recyclepool._worker import CAUSES, Sample, Tally, Worker
from recyclepool.snapshots import (
    CacheStats,
    Histogram,
    PoolStats,
    Reading,
    WorkerStack,
    WorkerStats,
)
from recyclepool.states import BUCKETS, PoolState, State

__all__ = ["snapshot", "stacks"]


def snapshot(engine: Engine) -> PoolStats:
    """The pool's figures. Any thread. Each is exact; of one moment together only at rest."""
    settings, roster, now = engine.settings, engine.roster, engine.settings.clock()
    # Against the way that tasks go: one that moves on between two of these reads is missed rather
    # than counted twice, and the high-water mark keeps `submitted` from going back for that.
    lock = engine.looking
    try:
        lock.acquire()
        tally = engine.books.total()
        tasks = [w.gate.task for w in roster.workers.copy()]
        queued, oldest = _queue(engine, now)
        running = sum(task is not None and not task.done() for task in tasks)
        settled = tally.completed + tally.failed + tally.aborted + tally.cancelled
        settled += tally.timed_out + tally.lost
        submitted = engine.submitted = max(engine.submitted, settled + running + queued)
        waited, ran, busy_seconds, gone = engine.seconds = _seconds(engine, tally, now)
    finally:
        lock.release()
    workers = _workers(engine, now)
    runs = tuple(map(operator.add, tally.run_counts, tally.spoilt_counts))
    full = engine.rejected_full  # read once: `rejected` less that never goes back
    busy = sum(w.idle_for is None and w.state is State.SERVING for w in workers)
    busy += sum(w.task_running is not None and w.state is State.RETIRING for w in workers)
    return PoolStats(
        name=settings.name,
        backend=settings.backend.name,
        state=roster.state,
        max_workers=roster.size,
        max_queue=settings.max_queue,
        queued=queued,
        submitted=submitted,
        completed=tally.completed,
        failed=tally.failed,
        cancelled=tally.cancelled,
        timed_out=tally.timed_out,
        lost=tally.lost,
        aborted=tally.aborted,
        abandoned=len(roster.abandoned),
        rejected=engine.rejected_closed + full,
        rejected_full=full,
        events_dropped=engine.news.dropped,
        callback_errors=engine.news.callback_errors,
        failed_starts=roster.failed_starts,
        recycles={str(reason): count for reason, count in roster.recycles.copy().items()},
        utilization=min(1.0, busy / roster.size),  # slots that are no more may still be busy
        busy_seconds=busy_seconds,
        oldest_queued=oldest,
        wait=Histogram(BUCKETS, tuple(tally.wait_counts), waited),
        run=Histogram(BUCKETS, runs, ran),
        recycle=Histogram(BUCKETS, tuple(tally.recycle_counts), gone),
        freed_bytes=tally.freed_bytes,
        cache=_caches(engine),
        workers=workers,
        memory=None if engine.relief is None else _reading(engine.relief.sample),
        paused=engine.paused is not None,
        memory_limit=_limit(engine.rules.memory),
        pool_memory_limit=_limit(engine.rules.pool_memory),
        watchdog_tick=None if engine.watchdog is None else engine.watchdog.looked_at,
        watchdog_due=_due(engine, now),
        next_schedule=_next_schedule(engine),
    )


def _seconds(engine: Engine, tally: Tally, now: float) -> tuple[float, ...]:
    """Sums of floats, as high as they ever were: in another order they round to less.

    And a task that ends between two reads does not run any more, and is not counted yet.
    """
    workers = dict.fromkeys(everybody(engine))  # who is just given up is found twice
    starts = [w.task_started for w in workers if w.gate.task is not None]
    busy = tally.run_seconds + sum(max(0.0, now - start) for start in starts)
    seconds = (tally.wait_seconds, tally.run_seconds, busy, tally.recycle_seconds)
    return tuple(map(max, engine.seconds, seconds))


def _limit(limit: float) -> int | None:
    return int(limit) if limit < inf else None


def _due(engine: Engine, now: float) -> float | None:
    """When the watchdog is to look, by the wall clock."""
    due = inf if engine.watchdog is None else engine.watchdog.due
    return time() + due - now if due < inf else None


def _next_schedule(engine: Engine) -> float | None:
    """When the next restart is, or would be if somebody were here."""
    settings, watchdog = engine.settings, engine.watchdog
    if not settings.schedules or engine.roster.state is PoolState.SHUTDOWN:
        return None
    table = None if watchdog is None else watchdog.timetable
    if table is None:
        from recyclepool._timetable import Timetable

        try:
            now = settings.wall()
            table = Timetable(settings.schedules, settings.name, now)
            table.meet((0,), now)
        except Exception:  # of the clock: the watchdog tells of it
            return None
    return table.next_at if table.next_at < inf else None


def _reading(sample: Sample | None) -> Reading | None:
    return None if sample is None else Reading(*sample)


def _queue(engine: Engine, now: float) -> tuple[int, float | None]:
    queue = engine.dispatch.queue
    try:
        return len(queue), max(0.0, now - queue[0].queued_at)
    except IndexError:
        return 0, None


def _workers(engine: Engine, now: float) -> tuple[WorkerStats, ...]:
    return tuple(_worker(w, now) for w in everybody(engine))


def _worker(worker: Worker, now: float) -> WorkerStats:
    task: Any = worker.gate.task
    idle = worker.resting and worker.state is State.SERVING
    return WorkerStats(
        slot=worker.slot,
        generation=worker.generation,
        state=worker.state,
        tasks=worker.tasks,
        age=max(0.0, now - worker.born),
        idle_for=max(0.0, now - worker.idle_since) if idle else None,
        task_name=name_of(task) or worker.given_up[0],
        task_running=None if task is None else max(0.0, now - worker.task_started),
        due=worker.due,
        stack=text_of(worker.given_up[1]) or None,
        memory=_reading(worker.memory),
        cache_bytes=0 if worker.cache is None else worker.cache.currsize,
    )


def stacks(engine: Engine) -> tuple[WorkerStack, ...]:
    """What every worker does now. Any thread; a worker may have gone on by the time it is read."""
    return tuple(
        WorkerStack(
            slot=w.slot,
            generation=w.generation,
            state=w.state,
            task_name=name_of(w.gate.task) or w.given_up[0],
            stack=text_of(stack_of(w.gate.thread_id)),
        )
        for w in everybody(engine)
    )


def _caches(engine: Engine) -> CacheStats:
    """Who leaves closes its books first, so it is found here or there, and never in both."""
    workers = dict.fromkeys(everybody(engine))
    books = engine.books
    counts = [w.cache_counts() for w in workers if w.tally in books.open]
    hits, misses, *evictions = map(sum, zip(books.closed.cache_counts, *counts, strict=True))
    here = [w for w in workers if w.state is not State.ABANDONED]
    caches = [w.cache for w in here if w.cache is not None]
    return CacheStats(
        entries=sum(cache.stats().entries for cache in caches),
        bytes=sum(cache.currsize for cache in caches),
        budget=sum(w.budget for w in here),
        hits=hits,
        misses=misses,
        evictions={c: count for c, count in zip(CAUSES, evictions, strict=True) if count},
    )
