"""What a scrape shows of a pool: families, labels, numbers."""

import threading
from collections.abc import Iterable
from itertools import pairwise
from math import inf

import pytest
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as of_openmetrics
from scraping import Scrape, registered
from staging import WAIT, until

from recyclepool import Limits, QueueFullError, Reason, backends, current_worker
from recyclepool.metrics import MANY_SLOTS
from recyclepool.states import BUCKETS

OUTCOMES = {"ok", "error", "cancelled", "timeout", "lost", "aborted"}
STATES = {"starting", "idle", "busy", "retiring", "abandoned"}
EVICTIONS = {"size", "ttl", "replaced", "deleted", "memory"}

# Family -> type, and the labels behind `pool`. The names of counters are without `_total`.
FAMILIES = {
    "recyclepool_info": ("gauge", {"backend", "version"}),
    "recyclepool_workers": ("gauge", {"state"}),
    "recyclepool_workers_max": ("gauge", set()),
    "recyclepool_queue_tasks": ("gauge", set()),
    "recyclepool_queue_capacity": ("gauge", set()),
    "recyclepool_queue_oldest_seconds": ("gauge", set()),
    "recyclepool_tasks_submitted": ("counter", set()),
    "recyclepool_tasks": ("counter", {"outcome"}),
    "recyclepool_tasks_rejected": ("counter", {"cause"}),
    "recyclepool_task_wait_seconds": ("histogram", {"le"}),
    "recyclepool_task_run_seconds": ("histogram", {"le"}),
    "recyclepool_task_running_oldest_seconds": ("gauge", set()),
    "recyclepool_busy_seconds": ("counter", set()),
    "recyclepool_recycles": ("counter", {"reason"}),
    "recyclepool_recycle_seconds": ("histogram", {"le"}),
    "recyclepool_recycle_freed_bytes": ("counter", set()),
    "recyclepool_worker_start_failures": ("counter", set()),
    "recyclepool_abandoned_workers": ("gauge", set()),
    "recyclepool_memory_bytes": ("gauge", {"kind"}),
    "recyclepool_memory_limit_bytes": ("gauge", {"kind"}),
    "recyclepool_schedule_next_timestamp_seconds": ("gauge", set()),
    "recyclepool_watchdog_tick_timestamp_seconds": ("gauge", set()),
    "recyclepool_watchdog_due_timestamp_seconds": ("gauge", set()),
    "recyclepool_cache_requests": ("counter", {"result"}),
    "recyclepool_cache_evictions": ("counter", {"cause"}),
    "recyclepool_cache_bytes": ("gauge", set()),
    "recyclepool_callback_errors": ("counter", set()),
    "recyclepool_worker_memory_bytes": ("gauge", {"slot", "kind"}),
    "recyclepool_worker_age_seconds": ("gauge", {"slot"}),
    "recyclepool_worker_generation": ("gauge", {"slot"}),
    "recyclepool_worker_tasks": ("gauge", {"slot"}),
    "recyclepool_worker_task_running_seconds": ("gauge", {"slot"}),
    "recyclepool_worker_cache_bytes": ("gauge", {"slot"}),
}


def shown_labels(samples: Iterable[object]) -> set[str]:
    return {label for sample in samples for label in sample.labels}


# -- families and labels --------------------------------------------------------------------------


def test_the_families_and_their_labels(new_pool):
    limits = Limits(memory="1GiB", pool_memory="100GiB", age="1h")
    pool = new_pool(2, name="all", max_queue=7, limits=limits)
    pool.submit(int).result(WAIT)
    until(lambda: pool.stats().workers[0].memory is not None)
    scrape = Scrape(registered())
    assert set(scrape.families) == set(FAMILIES)
    for name, (kind, labels) in FAMILIES.items():
        family = scrape.families[name]
        assert (family.type, bool(family.documentation)) == (kind, True), name
        mine = [sample for sample in family.samples if sample.labels["pool"] == "all"]
        if name != "recyclepool_schedule_next_timestamp_seconds":
            assert shown_labels(mine) == labels | {"pool"}, name


def test_what_is_shown_before_anything_has_happened(new_pool):
    """Every value of a label is there at 0: rate() sees the first step."""
    new_pool(3, name="new")
    scrape = Scrape(registered())
    assert scrape.labels("tasks_total", "outcome", "new") == OUTCOMES
    assert scrape.labels("recycles_total", "reason", "new") == set(Reason)
    assert scrape.labels("workers", "state", "new") == STATES
    assert scrape.labels("tasks_rejected_total", "cause", "new") == {"full", "closed"}
    assert scrape.labels("cache_requests_total", "result", "new") == {"hit", "miss"}
    assert scrape.labels("cache_evictions_total", "cause", "new") == EVICTIONS
    counted = [n for (_, labels), n in scrape.counters().items() if ("pool", "new") in labels]
    assert counted
    assert not any(counted)
    assert scrape.get("workers_max", "new") == 3
    for absent in ("queue_capacity", "watchdog_tick_timestamp_seconds"):
        assert scrape.get(absent, "new") is None
    for kind in ("worker", "process"):
        assert scrape.get("memory_limit_bytes", "new", kind=kind) is None


def test_the_openmetrics_format(new_pool):
    pool = new_pool(2, name='open "metrics"\nby\\name')
    pool.submit(int).result(WAIT)
    text = as_openmetrics(registered()).decode()
    families = {family.name: family for family in of_openmetrics(text)}
    assert families["recyclepool"].type == "info"
    done = [s for s in families["recyclepool_tasks"].samples if s.labels["pool"] == pool.name]
    assert {s.labels["outcome"]: s.value for s in done} == dict.fromkeys(OUTCOMES, 0) | {"ok": 1}


def test_info(new_pool):
    import recyclepool

    new_pool(1, name="told")
    version = recyclepool.__version__
    assert Scrape(registered()).get("info", "told", backend="thread", version=version) == 1


# -- tasks ----------------------------------------------------------------------------------------


def test_each_outcome(new_pool, new_spin):
    pool, spin = new_pool(1, name="ends", limits=Limits(grace=WAIT)), new_spin()
    for future in [pool.submit(int), pool.submit(int), pool.submit(divmod, 1, 0)]:
        future.exception(WAIT)
    assert pool.options(timeout=0.05).submit(spin).exception(WAIT)
    pool.submit(spin)
    spin.wait_started(2)
    assert pool.submit(int).cancel()
    pool.destroy(WAIT)
    scrape = Scrape(registered())
    shown = {outcome: scrape.get("tasks_total", "ends", outcome=outcome) for outcome in OUTCOMES}
    ends = {"ok": 2, "error": 1, "timeout": 1, "aborted": 1, "cancelled": 1, "lost": 0}
    assert shown == ends
    assert scrape.get("tasks_submitted_total", "ends") == sum(ends.values())
    assert scrape.get("recycles_total", "ends", reason="timeout") == 1


def test_the_queue(new_pool, new_hold):
    pool, hold = new_pool(1, name="queue", max_queue=2, on_full="raise"), new_hold()
    pool.submit(hold)
    hold.wait_started()
    for _ in range(2):
        pool.submit(int)
    with pytest.raises(QueueFullError):
        pool.submit(int)
    scrape = Scrape(registered())
    assert scrape.get("queue_tasks", "queue") == scrape.get("queue_capacity", "queue") == 2
    assert scrape.get("queue_oldest_seconds", "queue") > 0
    assert scrape.get("task_running_oldest_seconds", "queue") > 0
    assert scrape.get("tasks_rejected_total", "queue", cause="full") == 1
    assert scrape.get("tasks_rejected_total", "queue", cause="closed") == 0
    hold.release()
    pool.close()
    scrape = Scrape(registered())
    assert scrape.get("queue_oldest_seconds", "queue") == 0
    assert scrape.get("task_running_oldest_seconds", "queue") == 0


def test_a_submit_that_comes_too_late(new_pool, new_hold):
    pool, hold = new_pool(1, name="late"), new_hold()
    pool.submit(hold)
    hold.wait_started()
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        pool.submit(int)
    assert Scrape(registered()).get("tasks_rejected_total", "late", cause="closed") == 1
    hold.release()


@pytest.mark.parametrize("name", ["task_wait_seconds", "task_run_seconds", "recycle_seconds"])
def test_the_histograms(new_pool, name):
    pool = new_pool(2, name="timed", limits=Limits(tasks=10))
    for future in [pool.submit(int) for _ in range(100)]:
        future.result(WAIT)
    pool.close()
    scrape, stats = Scrape(registered()), pool.stats()
    told = {"task_wait_seconds": stats.wait, "task_run_seconds": stats.run}
    histogram = told.get(name, stats.recycle)
    edges = [*BUCKETS, inf]
    shown = {
        float(dict(labels)["le"]): n
        for (series, labels), n in scrape.numbers.items()
        if series == f"recyclepool_{name}_bucket" and ("pool", "timed") in labels
    }
    assert sorted(shown) == edges
    cumulative = [shown[edge] for edge in edges]
    assert [cumulative[0], *(b - a for a, b in pairwise(cumulative))] == list(histogram.counts)
    assert cumulative[-1] == scrape.get(f"{name}_count", "timed") == histogram.count >= 9
    assert scrape.get(f"{name}_sum", "timed") == histogram.sum > 0


def test_r17_utilisation_is_about_one_when_saturated(new_pool):
    """rate(recyclepool_busy_seconds_total) / recyclepool_workers_max, of two scrapes."""
    pool, registry, never = new_pool(2, name="saturated"), registered(), threading.Event()
    clock = pool._engine.settings.clock
    futures = [pool.submit(never.wait, 0.002) for _ in range(400)]
    futures[20].result(WAIT)

    def scrape():
        began = clock()
        busy = Scrape(registry).get("busy_seconds_total", "saturated")
        return began, busy, clock()

    before = scrape()
    futures[-50].result(WAIT)
    after = scrape()
    busy = after[1] - before[1]
    assert busy / 2 / (after[2] - before[0]) <= 1.001
    assert busy / 2 / (after[0] - before[2]) > 0.8
    for future in futures:
        future.result(WAIT)


# -- workers --------------------------------------------------------------------------------------


def states(pool: str) -> dict[str, float]:
    scrape = Scrape(registered())
    shown = {state: scrape.get("workers", pool, state=state) for state in STATES}
    return {state: count for state, count in shown.items() if count}


def test_the_states_of_workers(new_pool, new_hold):
    starting, staying = new_hold(), new_hold()
    backend = backends.Thread(interrupt=False)
    pool = new_pool(2, name="states", initializer=starting, backend=backend)
    pool.submit(staying)
    starting.wait_started()
    assert states("states") == {"starting": 1}
    starting.release()
    staying.wait_started()
    assert states("states") == {"busy": 1}
    pool.submit(int).result(WAIT)
    until(lambda: pool._engine.dispatch.idle)
    assert states("states") == {"busy": 1, "idle": 1}
    pool.resize(1)
    until(lambda: len(pool.stats().workers) == 1)
    pool.destroy(0.05)
    assert states("states") == {"abandoned": 1}
    assert Scrape(registered()).get("abandoned_workers", "states") == 1
    assert Scrape(registered()).labels("worker_age_seconds", "slot", "states") == set()
    staying.release()
    until(lambda: not pool.stats().abandoned)
    assert states("states") == {}


def test_each_worker(new_pool, new_hold):
    pool, hold = new_pool(2, name="each"), new_hold()
    pool.submit(lambda: current_worker().cache.put("key", b"value", size=1000)).result(WAIT)
    pool.recycle(0).result(WAIT)
    until(lambda: len(pool.stats().workers) == 1, "the old one has gone")
    pool.submit(lambda: current_worker().cache.put("key", b"value", size=100)).result(WAIT)
    pool.submit(hold)
    hold.wait_started()
    scrape = Scrape(registered())
    (slot,) = scrape.labels("worker_generation", "slot", "each")
    shown = {
        name: scrape.get(f"worker_{name}", "each", slot=slot)
        for name in ("generation", "tasks", "cache_bytes")
    }
    assert shown == {"generation": 2, "tasks": 2, "cache_bytes": 100}
    assert scrape.get("worker_task_running_seconds", "each", slot=slot) > 0
    assert scrape.get("worker_age_seconds", "each", slot=slot) > 0
    assert scrape.get("worker_memory_bytes", "each", slot=slot, kind="owned") is None
    assert scrape.get("cache_bytes", "each") == 100
    hold.release()


def test_two_workers_in_one_slot_are_one_series(new_pool, new_hold):
    """A successor starts while the old one serves: the one that serves is shown."""
    hold, starting = new_hold(), new_hold()
    first = []

    def initializer():
        if first:
            starting()
        first.append(True)

    pool = new_pool(1, name="slot", initializer=initializer)
    pool.submit(hold)
    hold.wait_started()
    replaced = pool.recycle(0)
    starting.wait_started()
    scrape = Scrape(registered())
    assert len(pool.stats().workers) == 2
    assert scrape.get("worker_generation", "slot", slot=0) == 1
    hold.release()
    starting.release()
    assert replaced.result(WAIT) == 1
    assert Scrape(registered()).get("worker_generation", "slot", slot=0) == 2


def test_a_pool_of_many_slots_is_not_shown_worker_by_worker(new_pool):
    for slots in (MANY_SLOTS, MANY_SLOTS + 1):
        new_pool(slots, name=f"of {slots}").submit(int).result(WAIT)
    scrape = Scrape(registered())
    per_worker = [(series, labels) for series, labels in scrape.numbers if "slot" in dict(labels)]
    assert {dict(labels)["pool"] for _, labels in per_worker} == {f"of {MANY_SLOTS}"}
    assert scrape.get("tasks_total", f"of {MANY_SLOTS + 1}", outcome="ok") == 1


# -- what limits look at --------------------------------------------------------------------------


def test_memory_and_its_limits(new_pool):
    limits = Limits(memory="256MiB", pool_memory="100GiB", sample_every=0.05)
    pool = new_pool(1, name="memory", limits=limits)
    pool.submit(int).result(WAIT)
    until(lambda: pool.stats().memory is not None and pool.stats().workers[0].memory is not None)
    scrape = Scrape(registered())
    assert scrape.get("memory_limit_bytes", "memory", kind="worker") == 256 * 2**20
    assert scrape.get("memory_limit_bytes", "memory", kind="process") == 100 * 2**30
    assert scrape.get("memory_bytes", "memory", kind="process") > 2**20
    assert scrape.get("memory_bytes", "memory", kind="worker") >= 0
    assert scrape.get("worker_memory_bytes", "memory", slot=0, kind="owned") >= 0
    assert scrape.get("watchdog_tick_timestamp_seconds", "memory") is not None


def test_a_scrape_measures_no_memory(new_pool):
    limits = Limits(memory="256MiB", pool_memory="100GiB", sample_every=0.02)
    pool, measured_by = new_pool(1, name="measured", limits=limits), set()
    relief = pool._engine.relief
    measure = relief._rss

    def note():
        measured_by.add(threading.current_thread().name)
        return measure()

    relief._rss = note
    pool.submit(int).result(WAIT)
    until(lambda: measured_by)
    for _ in range(20):
        Scrape(registered())
    assert threading.current_thread().name not in measured_by


def test_caches_and_callbacks(new_pool):
    pool = new_pool(1, name="caches", cache=1000)

    def use():
        cache = current_worker().cache
        for n in range(3):
            cache.put(n, b"", size=500)
        return cache.get(2), cache.get(0)

    def fail(event):
        raise ValueError(event)

    pool.subscribe(fail)
    pool.submit(use).result(WAIT)
    until(lambda: pool.stats().callback_errors)
    scrape = Scrape(registered())
    assert scrape.get("cache_requests_total", "caches", result="hit") == 1
    assert scrape.get("cache_requests_total", "caches", result="miss") == 1
    assert scrape.get("cache_evictions_total", "caches", cause="size") == 1
    assert scrape.get("callback_errors_total", "caches") >= 1
