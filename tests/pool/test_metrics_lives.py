"""Registries, and pools that come, close, open again, fork and go, while they are scraped."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from scraping import Scrape, must_not_go_back, registered
from staging import WAIT, in_thread, until

import recyclepool.metrics
from recyclepool import Limits, RecyclePool, current_worker, metrics
from recyclepool.metrics import MULTIPROCESS, register

# -- registries -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in MULTIPROCESS:
        monkeypatch.delenv(name, raising=False)


def collectors_of(registry):
    return len(registry._collector_to_names)


def test_to_register_again_changes_nothing(new_pool):
    """From eight threads at once."""
    registry, ready = CollectorRegistry(), threading.Barrier(8)

    def join_in():
        ready.wait(WAIT)
        for _ in range(20):
            register(registry)

    for call in [in_thread(join_in) for _ in range(8)]:
        call.result()
    assert collectors_of(registry) == 1
    new_pool(1, name="once")
    assert Scrape(registry).get("workers_max", "once") == 1


def test_what_was_unregistered_is_registered_again(new_pool):
    registry = registered()
    for collector in list(registry._collector_to_names):
        registry.unregister(collector)
    new_pool(1, name="again")
    register(registry)
    register(registry)
    assert collectors_of(registry) == 1
    assert Scrape(registry).get("workers_max", "again") == 1


def test_a_name_that_no_page_can_have_spoils_none(new_pool):
    new_pool(1, name="\udc80")  # as of a file's name that is no UTF-8
    assert Scrape(registered()).get("workers_max", "\\udc80") == 1


def test_the_registry_by_default(new_pool, monkeypatch):
    registry = CollectorRegistry()
    monkeypatch.setattr(recyclepool.metrics, "REGISTRY", registry)
    register()
    register()
    new_pool(1, name="default")
    assert collectors_of(registry) == 1
    assert Scrape(registry).get("workers_max", "default") == 1


def test_it_is_that_of_prometheus_client():
    assert recyclepool.metrics.REGISTRY is prometheus_client.REGISTRY


def test_two_registries_show_the_same(new_pool):
    first, second = registered(), registered()
    new_pool(1, name="both").submit(int).result(WAIT)
    for registry in (first, second):
        assert Scrape(registry).get("tasks_total", "both", outcome="ok") == 1


def test_a_foreign_collector_beside(new_pool):
    registry = CollectorRegistry()
    mine = Counter("mine", "Of the program.", registry=registry)
    register(registry)
    mine.inc()
    new_pool(1, name="beside")
    scrape = Scrape(registry)
    assert scrape.numbers["mine_total", ()] == 1
    assert scrape.get("workers_max", "beside") == 1


def test_a_name_that_is_taken(new_pool):
    registry = CollectorRegistry()
    mine = Counter("recyclepool_tasks", "Of somebody else.", registry=registry)
    with pytest.raises(ValueError, match="recyclepool_tasks"):
        register(registry)
    registry.unregister(mine)
    register(registry)  # it was not taken for registered
    new_pool(1, name="at last")
    assert Scrape(registry).get("workers_max", "at last") == 1


def test_a_registry_that_is_none():
    with pytest.raises(TypeError, match="CollectorRegistry"):
        register("the default one")


def test_names_are_known_without_a_pool():
    """What is described is what is collected: a registry compares names before there is a pool."""
    hub = recyclepool.metrics.Hub()
    described = [(family.name, family.type) for family in hub.describe()]
    assert described == [(family.name, family.type) for family in hub.collect()]
    assert len(set(described)) == len(described) > 30
    assert not any(family.samples for family in hub.describe())


def test_a_registry_is_not_kept():
    registry = registered()
    gone = len(recyclepool.metrics._hubs)
    del registry
    gc.collect()
    assert len(recyclepool.metrics._hubs) < gone


def test_a_restricted_registry(new_pool):
    """As with ?name[]= in the address."""
    new_pool(1, name="restricted")
    registry = registered()
    only = generate_latest(registry.restricted_registry(["recyclepool_workers_max"])).decode()
    assert 'recyclepool_workers_max{pool="restricted"} 1.0' in only
    assert "recyclepool_tasks" not in only


@pytest.mark.parametrize("name", MULTIPROCESS)
def test_multiprocess_mode_is_told_of(name, monkeypatch, tmp_path):
    monkeypatch.setattr(recyclepool.metrics, "REGISTRY", CollectorRegistry())
    monkeypatch.setenv(name, str(tmp_path))
    with pytest.warns(RuntimeWarning, match=f"^{name} is set.*register\\(registry\\)") as told:
        register()
    assert told[0].filename == __file__
    with warnings.catch_warnings(record=True) as none:
        warnings.simplefilter("always")
        register(CollectorRegistry())  # what it says
    assert none == []


def test_it_is_reached_from_the_package():
    script = """
        import sys, recyclepool
        recyclepool.RecyclePool(1)
        assert "prometheus_client" not in sys.modules
        recyclepool.metrics.register()
        from recyclepool import metrics
        assert metrics is recyclepool.metrics
        print(*metrics.__all__)
    """
    assert run(script) == "register\n"


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# -- pools that come and go -----------------------------------------------------------------------


def file_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_b1_open_and_close_fifty_times(new_pool):
    """No series twice, no counter goes back, threads and file descriptors stay as they were."""
    pool, registry = new_pool(2, name="again", limits=Limits(tasks=3)), registered()
    threads = files = 0
    before = None
    for cycle in range(1, 51):
        register(registry)
        futures = [pool.submit(divmod, n, 1) for n in range(10)]
        for future in futures:
            future.result(WAIT)
        while_open = Scrape(registry)
        pool.close()
        scrape = Scrape(registry)  # no series is there twice, or it fails
        assert scrape.get("tasks_total", "again", outcome="ok") == 10 * cycle
        for earlier, later in [(before, while_open), (while_open, scrape)]:
            if earlier is not None:
                must_not_go_back(earlier, later)
        before = scrape
        if cycle == 2:
            threads, files = settled()
    assert collectors_of(registry) == 1
    assert settled() == (threads, files)


def settled() -> tuple[int, int]:
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("again")])
    return threading.active_count(), file_descriptors()


@pytest.mark.parametrize("verb", ["close", "shutdown"])
def test_b5_a_drain_can_be_watched(new_pool, new_hold, verb):
    pool, registry, hold = new_pool(1, name="drain"), registered(), new_hold()
    futures = [pool.submit(hold) for _ in range(3)]
    hold.wait_started()
    ending = in_thread(getattr(pool, verb))
    until(lambda: pool.stats().state == "closing")
    scrape = Scrape(registry)
    assert scrape.get("queue_tasks", "drain") == 2
    assert scrape.get("workers", "drain", state="busy") == 1
    assert scrape.get("tasks_total", "drain", outcome="ok") == 0
    hold.release()
    ending.result()
    assert all(future.done() for future in futures)
    scrape = Scrape(registry)
    assert scrape.get("tasks_total", "drain", outcome="ok") == (3 if verb == "close" else None)


def test_several_pools(new_pool):
    registry = registered()
    made = [new_pool(n, name=f"several {n}") for n in range(1, 6)]
    for n, pool in enumerate(made, 1):
        for future in [pool.submit(int) for _ in range(n)]:
            future.result(WAIT)
    scrape = Scrape(registry)
    for n, pool in enumerate(made, 1):
        assert scrape.get("workers_max", pool.name) == n
        assert scrape.get("tasks_total", pool.name, outcome="ok") == n
    assert {pool.name for pool in made} <= scrape.pools()


def test_a_pool_that_is_dropped_vanishes(new_pool):
    registry = registered()
    pool = RecyclePool(1, name="dropped")
    pool.submit(int).result(WAIT)
    assert "dropped" in Scrape(registry).pools()
    del pool
    gc.collect()
    assert "dropped" not in Scrape(registry).pools()


def test_a_pool_of_the_same_name_begins_at_nothing(new_pool):
    registry = registered()
    with RecyclePool(1, name="heir") as pool:
        for future in [pool.submit(int) for _ in range(5)]:
            future.result(WAIT)
        assert Scrape(registry).get("tasks_total", "heir", outcome="ok") == 5
    assert "heir" not in Scrape(registry).pools()
    heir = new_pool(1, name="heir")  # while the first is still here
    assert Scrape(registry).get("tasks_total", "heir", outcome="ok") == 0
    heir.submit(int).result(WAIT)
    assert Scrape(registry).get("tasks_total", "heir", outcome="ok") == 1


def test_a_pool_that_fails_does_not_spoil_the_others(new_pool, monkeypatch, caplog):
    registry = registered()
    bad, good = new_pool(1, name="a bad one"), new_pool(1, name="b good one")

    def fail():
        raise ZeroDivisionError("its clock fails")

    monkeypatch.setattr(bad, "stats", fail)
    for _ in range(3):
        shown = Scrape(registry).pools()
        assert good.name in shown
        assert bad.name not in shown
    (record,) = [r for r in caplog.records if bad.name in r.getMessage()]
    assert (record.name, record.levelname) == ("recyclepool", "ERROR")
    monkeypatch.undo()
    assert bad.name in Scrape(registry).pools()


def test_a_scrape_blocks_no_task(new_pool, new_hold, monkeypatch):
    """It is stopped where it reads a pool: in that one and in others tasks go on."""
    registry, hold = registered(), new_hold()
    pool, other = new_pool(2, name="read", limits=Limits(tasks=5)), new_pool(1, name="other")
    read = recyclepool._stats.everybody

    def stopped(engine):
        if engine is pool._engine:
            hold()
        return read(engine)

    monkeypatch.setattr(recyclepool._stats, "everybody", stopped)
    scrape = in_thread(Scrape, registry)
    hold.wait_started()
    for each in (pool, other):
        for future in [each.submit(int) for _ in range(50)]:
            future.result(WAIT)
        each.close(WAIT)
    hold.release()
    assert scrape.result().get("workers_max", "read") == 2


def test_1000_scrapes_while_tasks_run_lose_nothing(new_pool):
    pool, registry, over = new_pool(4, name="busy", limits=Limits(tasks=40)), registered(), []
    counts = {"ok": 0, "error": 0, "cancelled": 0}

    def work(n):
        current_worker().cache.setdefault(n % 7, b"")
        return 1 // (n % 5)

    def submit():
        while not over:
            futures = [pool.submit(work, n) for n in range(100)]
            futures[-1].cancel()
            for future in futures:
                cancelled = future.cancelled()
                outcome = "cancelled" if cancelled else "error" if future.exception(WAIT) else "ok"
                counts[outcome] += 1

    submitting = in_thread(submit)
    try:
        before = Scrape(registry, parsed=False)
        for _ in range(1000):
            scrape = Scrape(registry, parsed=False)
            must_not_go_back(before, scrape)
            before = scrape
    finally:
        over.append(True)
        submitting.result()
    pool.close()
    end = Scrape(registry, parsed=False)
    must_not_go_back(before, end)
    shown = {outcome: end.get("tasks_total", "busy", outcome=outcome) for outcome in counts}
    assert shown == counts
    ran = counts["ok"] + counts["error"]
    assert end.get("tasks_submitted_total", "busy") == sum(counts.values())
    assert end.get("task_run_seconds_count", "busy") == ran > 1000
    assert end.get("task_wait_seconds_count", "busy") == ran
    looked_up = [end.get("cache_requests_total", "busy", result=r) for r in ("hit", "miss")]
    assert sum(looked_up) == ran
    recycled = end.get("recycles_total", "busy", reason="tasks")
    assert end.get("recycle_seconds_count", "busy") == recycled > 20


# -- forks ----------------------------------------------------------------------------------------

FORKING = """
    import os, threading, warnings
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    from prometheus_client import CollectorRegistry, generate_latest
    from recyclepool import Limits, RecyclePool, metrics

    registry = CollectorRegistry()
    metrics.register(registry)
    pool = RecyclePool(2, name="forked", limits=Limits(tasks=5))
    done = 'recyclepool_tasks_total{outcome="ok",pool="forked"} '

    def shown():
        text = generate_latest(registry).decode()
        return [float(line.split()[-1]) for line in text.splitlines() if line.startswith(done)]

    for future in [pool.submit(int) for _ in range(20)]:
        future.result(20)
    assert shown() == [20.0]

    taken, go = threading.Event(), threading.Event()
    LOCKS = {"registering": metrics._registering, "of the registry": registry._lock}
    def hold():
        with LOCKS[LOCK]:
            taken.set()
            go.wait(20)
    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(20)
    child = os.fork()
    if not child:
        code = 1
        try:
            metrics.register(registry)
            metrics.register(CollectorRegistry())
            assert shown() == [0.0], shown()
            for future in [pool.submit(int) for _ in range(3)]:
                future.result(20)
            assert shown() == [3.0], shown()
            pool.close(20)
            code = 0
        finally:
            os._exit(code)
    go.set()
    holder.join(20)
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    assert shown() == [20.0]
    pool.shutdown()
    print("well")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("lock", ["registering", "of the registry"])
def test_the_child_of_a_fork_shows_its_own(lock):
    """Forked while another thread registers, or scrapes."""
    assert run(f"LOCK = {lock!r}\n{textwrap.dedent(FORKING)}") == "well\n"


def test_it_is_the_module_of_the_package():
    assert metrics is recyclepool.metrics
