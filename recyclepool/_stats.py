"""What a pool is at this moment, read from outside: nothing is locked, nothing is changed."""

import operator
from collections import Counter
from typing import Any

from recyclepool._describe import everybody
from recyclepool._engine import Engine
from recyclepool._future import name_of
from recyclepool._stacks import stack_of, text_of
from recyclepool._worker import Sample, Worker
from recyclepool.events import (
    CacheStats,
    Histogram,
    PoolStats,
    Reading,
    WorkerStack,
    WorkerStats,
)
from recyclepool.states import BUCKETS, State

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
        busy_seconds=tally.run_seconds + sum(w.task_running or 0.0 for w in workers),
        oldest_queued=oldest,
        wait=Histogram(BUCKETS, tuple(tally.wait_counts), tally.wait_seconds),
        run=Histogram(BUCKETS, runs, tally.run_seconds),
        cache=_caches(engine),
        workers=workers,
        memory=None if engine.relief is None else _reading(engine.relief.sample),
        paused=engine.paused is not None,
    )


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
    entries = bytes_ = budget = hits = misses = 0
    evictions: Counter[str] = Counter()
    for worker in engine.roster.workers.copy():
        budget += worker.budget
        if worker.cache is None:
            continue
        stats = worker.cache.stats()
        entries += stats.entries
        bytes_ += stats.bytes
        hits += stats.hits
        misses += stats.misses
        evictions.update(stats.evictions)
    return CacheStats(entries, bytes_, budget, hits, misses, dict(evictions))
