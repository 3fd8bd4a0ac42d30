"""The pools of a process as metric families for Prometheus: ``recyclepool.metrics.register()``.

Nothing is counted here. A scrape reads what ``stats()`` tells of each pool, which are plain numbers
that its workers wrote for themselves: no task knows of it, and none waits for it. Memory is not
measured then; what is shown of it was measured when a limit asked for it.

The labels are closed sets: pools, slots, and enumerations, of which every value is there from the
first scrape, at 0, so that ``rate()`` sees its first step. No pid, no thread, no name of a task.
"""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from threading import RLock
from typing import get_args
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

import recyclepool._stats  # noqa: F401 (a scrape in a signal handler may come amid an import)
from recyclepool import __version__
from recyclepool._gate import guarded
from recyclepool.cache import EvictionCause
from recyclepool.pool import RecyclePool, named_pools
from recyclepool.snapshots import Histogram, PoolStats, WorkerStats
from recyclepool.states import BUCKETS, PoolState, Reason, State

__all__ = ["register"]

MANY_SLOTS = 64  # of a pool with more, no worker has families of its own

MULTIPROCESS = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")

_Value = tuple[tuple[str, ...], float]  # the labels behind `pool`, and the number

_STATES = ("starting", "idle", "busy", "retiring", "abandoned")
_CAUSES: tuple[str, ...] = get_args(EvictionCause)
_EDGES = (*map(floatToGoString, BUCKETS), "+Inf")
_HOLDS_SLOT = (State.STARTING, State.RETIRING, State.SERVING)  # the last one first

_Row = tuple[str, str, tuple[str, ...]]  # name, what it tells, labels behind `pool`

_COUNTERS: tuple[_Row, ...] = (
    ("tasks_submitted_total", "Tasks that were accepted.", ()),
    ("tasks_total", "Tasks that have their end, by how they ended.", ("outcome",)),
    ("tasks_rejected_total", "Submits that were refused.", ("cause",)),
    ("busy_seconds_total", "Seconds in tasks, also of those that run, or were given up.", ()),
    ("recycles_total", "Workers that were told to go, by why.", ("reason",)),
    ("recycle_freed_bytes_total", "Bytes owned by workers replaced for their memory.", ()),
    ("worker_start_failures_total", "Workers that could not be started.", ()),
    ("cache_requests_total", "Look-ups in the workers' caches.", ("result",)),
    ("cache_evictions_total", "Entries that the workers' caches let go of.", ("cause",)),
    ("callback_errors_total", "Exceptions that subscribers raised.", ()),
)
_HISTOGRAMS = (
    ("task_wait_seconds", "Seconds from a task's submit to its start."),
    ("task_run_seconds", "Seconds that tasks ran."),
    ("recycle_seconds", "Seconds from the decision that a worker is replaced to its end."),
)
_GAUGES: tuple[_Row, ...] = (
    ("workers", "Workers that are here, by what they do.", ("state",)),
    ("workers_max", "Workers that there may be.", ()),
    ("queue_tasks", "Tasks that are queued.", ()),
    ("queue_capacity", "Tasks that may be queued; absent: any number.", ()),
    ("queue_oldest_seconds", "Seconds that the first in the queue has waited.", ()),
    ("task_running_oldest_seconds", "Seconds that the longest running task has run.", ()),
    ("abandoned_workers", "Stuck threads that were given up and still live.", ()),
    (
        "memory_bytes",
        "What limits look at, when last measured: the worker that owns most, and the process.",
        ("kind",),
    ),
    ("memory_limit_bytes", "What a worker may own, and the process take.", ("kind",)),
    ("schedule_next_timestamp_seconds", "When the next scheduled restart is.", ()),
    ("watchdog_tick_timestamp_seconds", "When the watchdog last looked.", ()),
    ("watchdog_due_timestamp_seconds", "When the watchdog is to look by; absent: at no time.", ()),
    ("cache_bytes", "Bytes that the entries of the workers' caches count for.", ()),
    ("worker_memory_bytes", "What a worker held when it was last looked at.", ("slot", "kind")),
    ("worker_age_seconds", "Seconds since a worker's start.", ("slot",)),
    ("worker_generation", "The number of the worker in its slot.", ("slot",)),
    ("worker_tasks", "Tasks that a worker has started.", ("slot",)),
    ("worker_task_running_seconds", "Seconds that a worker's task has run; 0: none.", ("slot",)),
    ("worker_cache_bytes", "Bytes that the entries of a worker's cache count for.", ("slot",)),
)

logger = logging.getLogger("recyclepool")

_hubs: "WeakKeyDictionary[CollectorRegistry, Hub]" = WeakKeyDictionary()
_registering = RLock()


def register(registry: CollectorRegistry | None = None) -> None:
    """Have all pools of the process shown in a registry: those that are, and those to come.

    `registry`: a ``prometheus_client.CollectorRegistry``; ``prometheus_client.REGISTRY`` when left
    out. Any thread. To call it again for the same registry changes nothing.

    A pool is shown until it is dropped, or its ``shutdown()`` is over: a drain can be watched. Its
    counters never go back, whatever is closed and reopened. Names are unique among the pools that
    live; a pool that has the name of one that is gone begins at 0, which Prometheus takes for the
    restart of a counter, rightly. In the child of a fork the registry shows the child's pools,
    which are empty. What a pool with more than 64 slots does is not shown worker by worker.

    Raises TypeError if `registry` is none; ValueError, by prometheus_client, if it already has a
    collector of the same names.

    In prometheus_client's multiprocess mode (``PROMETHEUS_MULTIPROC_DIR``) collectors are not
    shown: there a call without a registry warns (RuntimeWarning). Give it a registry of its own,
    and serve that from each process on a port of the process: the figures are of one process.
    """
    if registry is None:
        _warn_of_multiprocess_mode()
        registry = REGISTRY
    elif not isinstance(registry, CollectorRegistry):
        raise TypeError(
            f"register({registry!r}): write a prometheus_client.CollectorRegistry, "
            f"or register() for the one that it serves by default"
        )
    guarded(_add_hub, registry)


def _warn_of_multiprocess_mode() -> None:
    name = next((name for name in MULTIPROCESS if name in os.environ), None)
    if name is not None:
        warnings.warn(
            f"{name} is set: in prometheus_client's multiprocess mode the pools will not be shown. "
            f"Write register(registry) with a CollectorRegistry() of its own, and have each "
            f"process serve that on a port of its own",
            RuntimeWarning,
            stacklevel=3,
        )


def _add_hub(registry: CollectorRegistry) -> None:
    with _registering:
        hub = _hubs.setdefault(registry, Hub())
        # The registry is asked, and not a note of ours: who unregistered it may want it again.
        if hub not in registry._collector_to_names:
            registry.register(hub)


def _after_fork() -> None:
    """Another thread may have held these locks: a scrape, for a moment. It is not here."""
    _registering._at_fork_reinit()  # type: ignore[attr-defined]
    for registry in list(_hubs):
        registry._lock._at_fork_reinit()  # type: ignore[attr-defined]


os.register_at_fork(after_in_child=_after_fork)


class Hub:
    """The collector of one registry."""

    def __init__(self) -> None:
        self._failed: WeakSet[RecyclePool] = WeakSet()  # whose stats() raised: that is told once

    def describe(self) -> Iterable[Metric]:
        """The families without their figures: names can be compared before there is a pool."""
        return Families().all()

    def collect(self) -> Iterable[Metric]:
        """The figures of all pools now. Any thread."""
        families = Families()
        for stats in self._all_stats():
            families.add_pool(stats)
        return families.all()

    def _all_stats(self) -> Iterator[PoolStats]:
        """Not of `pools()`, which leaves out those that are still shutting down."""
        for _, pool in sorted(guarded(named_pools)):
            try:
                stats = pool.stats()
            except Exception:
                self._tell_failed(pool)
            else:
                if stats.state is not PoolState.SHUTDOWN:
                    yield stats

    def _tell_failed(self, pool: RecyclePool) -> None:
        if pool not in self._failed:
            self._failed.add(pool)
            logger.error(
                "pool %r is not in the metrics: its stats() failed (told once for each pool)",
                pool.name,
                exc_info=True,
            )


class Families:
    """The families of one scrape."""

    def __init__(self) -> None:
        prefix = "recyclepool_"
        self._info = InfoMetricFamily("recyclepool", "What a pool is.", labels=["pool"])
        self._histograms = {
            name: HistogramMetricFamily(prefix + name, told, labels=["pool"])
            for name, told in _HISTOGRAMS
        }
        self._numbers: dict[str, tuple[Metric, tuple[str, ...]]] = {}
        for name, told, labels in _COUNTERS:
            self._numbers[name] = CounterMetricFamily(prefix + name, told), labels
        for name, told, labels in _GAUGES:
            self._numbers[name] = GaugeMetricFamily(prefix + name, told), labels

    def all(self) -> list[Metric]:
        """In the order of the tables."""
        return [self._info, *[m for m, _ in self._numbers.values()], *self._histograms.values()]

    def add_pool(self, stats: PoolStats) -> None:
        """What is known of one pool."""
        pool = stats.name.encode("utf-8", "backslashreplace").decode()  # that can be written
        self._info.add_metric([pool], {"backend": stats.backend, "version": __version__})
        for name, values in _figures(stats):
            self._add(name, pool, values)
        for name, histogram in zip(
            self._histograms, (stats.wait, stats.run, stats.recycle), strict=True
        ):
            self._add_histogram(name, pool, histogram)
        if stats.max_workers <= MANY_SLOTS:
            for worker in _one_each_slot(stats.workers):
                self._add_worker(pool, worker)

    def _add(self, name: str, pool: str, values: Iterable[_Value]) -> None:
        family, labels = self._numbers[name]
        for words, number in values:
            named = {"pool": pool, **dict(zip(labels, words, strict=True))}
            family.samples.append(Sample(f"recyclepool_{name}", named, number))

    def _add_worker(self, pool: str, worker: WorkerStats) -> None:
        labels = {"pool": pool, "slot": str(worker.slot)}  # one for all: there are many workers
        figures = {
            "worker_age_seconds": worker.age,
            "worker_generation": worker.generation,
            "worker_tasks": worker.tasks,
            "worker_task_running_seconds": worker.task_running or 0.0,
            "worker_cache_bytes": worker.cache_bytes,
        }
        for name, number in figures.items():
            self._numbers[name][0].samples.append(Sample(f"recyclepool_{name}", labels, number))
        if worker.memory is not None:
            value = (labels["slot"], worker.memory.kind), worker.memory.bytes
            self._add("worker_memory_bytes", pool, [value])

    def _add_histogram(self, name: str, pool: str, histogram: Histogram) -> None:
        counted, buckets = 0, []
        for edge, count in zip(_EDGES, histogram.counts, strict=True):
            counted += count
            buckets.append((edge, counted))
        self._histograms[name].add_metric([pool], buckets, histogram.sum)


def _figures(stats: PoolStats) -> Iterator[tuple[str, Iterable[_Value]]]:
    yield from _figures_of_tasks(stats)
    yield from _figures_of_workers(stats)
    yield from _figures_of_memory(stats)
    moments = {
        "schedule_next_timestamp_seconds": stats.next_schedule,
        "watchdog_tick_timestamp_seconds": stats.watchdog_tick,
        "watchdog_due_timestamp_seconds": stats.watchdog_due,
    }
    for name, moment in moments.items():
        yield name, _known((), moment)
    yield "callback_errors_total", _one(stats.callback_errors)


def _figures_of_tasks(stats: PoolStats) -> Iterator[tuple[str, Iterable[_Value]]]:
    outcomes = {
        "ok": stats.completed,
        "error": stats.failed,
        "cancelled": stats.cancelled,
        "timeout": stats.timed_out,
        "lost": stats.lost,
        "aborted": stats.aborted,
    }
    causes = {"full": stats.rejected_full, "closed": stats.rejected - stats.rejected_full}
    running = [w.task_running for w in stats.workers if w.task_running is not None]
    yield "tasks_submitted_total", _one(stats.submitted)
    yield "tasks_total", _each(outcomes)
    yield "tasks_rejected_total", _each(causes)
    yield "busy_seconds_total", _one(stats.busy_seconds)
    yield "queue_tasks", _one(stats.queued)
    yield "queue_capacity", _known((), stats.max_queue)
    yield "queue_oldest_seconds", _one(stats.oldest_queued or 0.0)
    yield "task_running_oldest_seconds", _one(max(running, default=0.0))


def _figures_of_workers(stats: PoolStats) -> Iterator[tuple[str, Iterable[_Value]]]:
    states = dict.fromkeys(_STATES, 0)
    for worker in stats.workers:
        if worker.state is State.SERVING:
            states["busy" if worker.idle_for is None else "idle"] += 1
        elif worker.state is not State.STOPPED:  # it has just left
            states[worker.state] += 1
    yield "workers", _each(states)
    yield "workers_max", _one(stats.max_workers)
    yield "abandoned_workers", _one(stats.abandoned)
    yield "recycles_total", _each({reason: stats.recycles.get(reason, 0) for reason in Reason})
    yield "worker_start_failures_total", _one(stats.failed_starts)


def _figures_of_memory(stats: PoolStats) -> Iterator[tuple[str, Iterable[_Value]]]:
    cache, evictions = stats.cache, stats.cache.evictions
    owned = [w.memory.bytes for w in stats.workers if w.memory is not None]
    process = None if stats.memory is None else stats.memory.bytes
    yield "memory_bytes", _known(("worker",), max(owned, default=None))
    yield "memory_bytes", _known(("process",), process)
    yield "memory_limit_bytes", _known(("worker",), stats.memory_limit)
    yield "memory_limit_bytes", _known(("process",), stats.pool_memory_limit)
    yield "recycle_freed_bytes_total", _one(stats.freed_bytes)
    yield "cache_requests_total", _each({"hit": cache.hits, "miss": cache.misses})
    yield "cache_evictions_total", _each({cause: evictions.get(cause, 0) for cause in _CAUSES})
    yield "cache_bytes", _one(cache.bytes)


def _one_each_slot(workers: Iterable[WorkerStats]) -> Iterable[WorkerStats]:
    """Two samples must not have the same labels: who serves, or else who goes, or comes."""
    here = [w for w in workers if w.state in _HOLDS_SLOT]
    here.sort(key=lambda w: (_HOLDS_SLOT.index(w.state), w.generation))
    return {w.slot: w for w in here}.values()


def _one(number: float) -> Iterable[_Value]:
    return [((), number)]


def _each(numbers: dict[str, int]) -> Iterable[_Value]:
    return [((str(label),), number) for label, number in numbers.items()]


def _known(words: tuple[str, ...], number: float | None) -> Iterable[_Value]:
    return [] if number is None else [(words, number)]
