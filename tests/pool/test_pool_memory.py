# ruff: noqa: F401, F811 (fixtures are imported)
"""Limits(pool_memory=): who goes when the process is too big, what is told, and its thread."""

import gc
import time

import pytest
from listening import Events, no_lingering
from squeezing import (
    BASE,
    FLOOD,
    LIMIT,
    MB,
    Tasks,
    go_on,
    kept,
    memory_threads,
    new_limited,
    on_all,
    owning,
    pause,
    process,
    the_memory_thread,
    where,
)
from staging import WAIT, until

from recyclepool import (
    Limits,
    MemoryPressure,
    MemoryReturned,
    Reason,
    RecyclePool,
    WatchdogFailed,
    WorkerDue,
    WorkerRetired,
    _census,
    _host_memory,
    _relief,
)
from recyclepool._census import Container
from recyclepool._pressure import Act, Step

GROWN: list[bytes] = []


# ==== the victim =================================================================================


def test_who_owns_most_goes_and_that_is_enough(new_limited, process):
    pool, events = new_limited(2)
    process.others = BASE - 10 * MB  # below the limit, until it is seen who owns what
    sizes = iter((3 * MB, 20 * MB))
    slots = on_all(pool, lambda: kept().append(process.new_blob(next(sizes))) or len(kept()[0]))
    small, large = sorted(slots, key=slots.get)
    owning(pool, large, 19 * MB)
    owning(pool, small, 2 * MB)
    process.others = BASE
    (returned,) = events.wait_for(MemoryReturned)
    assert returned.slot == large
    assert returned.owned_bytes == pytest.approx(20 * MB, rel=0.05)
    assert returned.rss_delta == pytest.approx(-20 * MB, abs=MB)
    (retired,) = events.of(WorkerRetired)
    assert (retired.slot, retired.reason) == (large, Reason.MEMORY)
    assert "this worker owns most of it, 19" in retired.why
    assert pool.stats().recycles["memory"] == 1
    assert small in [worker.slot for worker in pool.stats().workers if worker.generation == 1]
    assert process.rss() < LIMIT
    assert not events.of(MemoryPressure)


def test_where_nothing_is_owned_the_oldest_is_tried(new_limited, process):
    pool, events = new_limited(3, min_workers=3)
    pool.start().result(WAIT)
    oldest = min(pool._engine.roster.workers, key=lambda worker: worker.born)
    process.others = FLOOD
    (due,) = events.wait_for(WorkerDue, reason=Reason.MEMORY)
    assert (due.slot, due.generation) == (oldest.slot, oldest.generation)
    assert due.why.endswith("this worker is the oldest, and what is owned does not explain it")
    events.wait_for(MemoryPressure)
    assert pool.stats().recycles["memory"] == 1


def test_a_victim_that_goes_while_the_floor_is_read_counts(
    new_limited, process, monkeypatch, new_hold
):
    """Its recycle did not help, so no innocent follows."""
    hold = new_hold()

    def floor(relief):
        victim, roster = relief._victim, relief._engine.roster
        if victim is not None:
            hold.release()
            until(lambda: victim not in roster.workers, "the victim goes")
        return process.rss()

    monkeypatch.setattr(_relief.Relief, "_floor", floor)
    pool, events = new_limited(1)
    running = pool.submit(hold)
    hold.wait_started()
    process.others = FLOOD
    events.wait_for(MemoryPressure)
    running.result(WAIT)
    assert pool._engine.relief._pressure.failures == 1
    assert pool.stats().recycles["memory"] == 1


def test_who_is_too_young_is_not_tried(new_limited, process):
    pool, events = new_limited(1, limits={"min_age": "1h"})
    assert pool.submit(where).result(WAIT) == 0
    looks, step = [], pool._engine.relief._pressure.step
    pool._engine.relief._pressure.step = lambda *args: looks.append(args) or step(*args)
    process.others = FLOOD
    until(lambda: len([look for look in looks if look[1] >= FLOOD]) > 5, "looks")
    assert all(look[2] == [] for look in looks)
    assert not events.of(WorkerDue)


def test_report_only_only_tells(new_limited, process):
    pool, events = new_limited(2, limits={"report_only": True})
    assert pool.submit(where).result(WAIT) in (0, 1)
    process.others = FLOOD
    (told,) = events.wait_for(MemoryPressure)
    assert (told.rss, told.limit, told.paused) == (FLOOD, LIMIT, False)
    assert not pool.stats().paused
    assert pool.submit(int).result(WAIT) == 0
    process.others = BASE
    relief = pool._engine.relief
    until(lambda: relief.sample.bytes < LIMIT, "a look")
    process.others = FLOOD + 1
    assert len(events.wait_for(MemoryPressure, times=2)) == 2  # it is another growth
    assert not events.of(WorkerDue)
    assert not events.of(WorkerRetired)


@pytest.mark.parametrize("percent", [50, 80])
def test_a_percentage_is_of_what_the_container_may_use(new_limited, process, monkeypatch, percent):
    monkeypatch.setattr(_host_memory, "container_limit", lambda: (1000 * MB, "a test"))
    pool, events = new_limited(1, limits={"pool_memory": f"{percent}%", "report_only": True})
    assert pool.submit(where).result(WAIT) == 0
    process.others = percent * 10 * MB + 1
    (told,) = events.wait_for(MemoryPressure)
    assert told.limit == percent * 10 * MB


# ==== the cause ==================================================================================


def test_a_list_of_a_module_is_named(new_limited, process, monkeypatch):
    monkeypatch.setattr(_census, "_is_skipped", lambda name, _: name != __name__)  # pytest is large
    monkeypatch.setitem(globals(), "GROWN", [bytes(MB) for _ in range(200)])
    pool, events = new_limited(2)
    assert pool.submit(where).result(WAIT) in (0, 1)
    process.others = BASE + 200 * MB
    (told,) = events.wait_for(MemoryPressure)
    assert told.cause.startswith(f"{__name__}.GROWN holds ")
    assert told.cause.endswith(": no recycle of a worker frees that")


def test_so_is_what_is_estimated(new_limited, process, monkeypatch):
    found = [Container("c.ABSURD", FLOOD + 1, True), Container("b.MANY", FLOOD - MB, True)]
    monkeypatch.setattr(_relief, "largest_containers", lambda *_, **__: found)
    pool, events = new_limited(1)
    assert pool.submit(where).result(WAIT) == 0
    process.others = FLOOD
    (told,) = events.wait_for(MemoryPressure)
    assert told.cause.startswith("b.MANY holds about 1.9 GiB: ")


def test_what_is_far_larger_than_what_has_grown_was_there_before(new_limited, process, monkeypatch):
    found = [Container("an.APPLICATION", 45 * MB, True), Container("b.GROWN", 20 * MB, False)]
    monkeypatch.setattr(_relief, "largest_containers", lambda *_, **__: found)
    pool, events = new_limited(1)
    assert pool.submit(where).result(WAIT) == 0
    process.others = BASE + 21 * MB
    (told,) = events.wait_for(MemoryPressure)
    assert told.cause.startswith("b.GROWN holds 19.1 MiB: ")


def test_tasks_run_while_it_is_looked_for(new_limited, process, monkeypatch):
    """A registered reader may wait for what a task does."""
    ran = []

    def search(*_, **__):
        ran.append(pool.submit(where).result(WAIT))
        return []

    monkeypatch.setattr(_relief, "largest_containers", search)
    pool, events = new_limited(1)
    assert pool.submit(where).result(WAIT) == 0
    pause(pool, process, events)
    assert ran == [0]
    go_on(pool, process, events)


@pytest.mark.parametrize("error", [MemoryError, SystemExit, KeyboardInterrupt])
def test_whatever_the_search_raises_the_thread_goes_on(new_limited, process, monkeypatch, error):
    def search(*_, **__):
        raise error("a test")

    monkeypatch.setattr(_relief, "largest_containers", search)
    pool, events = new_limited(1)
    assert pool.submit(where).result(WAIT) == 0
    process.others = FLOOD
    (told,) = events.wait_for(WatchdogFailed)
    assert error.__name__ in told.error
    assert not pool.stats().paused
    process.others = BASE
    relief = pool._engine.relief
    until(lambda: relief.sample.bytes < LIMIT, "a look")
    assert pool.submit(where).result(WAIT) == 0


def test_a_queue_that_grows_is_not_held_up(new_limited, process, new_hold):
    """To run its tasks is what frees it."""
    pool, events = new_limited(1, limits={"sample_every": "1h"})
    hold, relief = new_hold(), pool._engine.relief
    running = pool.submit(hold)
    hold.wait_started()
    waiting = [pool.submit(len, bytes(10 * MB)) for _ in range(20)]
    relief._act(Step(Act.TELL), time.monotonic(), BASE + 200 * MB)
    (told,) = events.wait_for(MemoryPressure)
    assert told.cause.startswith("20 tasks wait, and their arguments take 190.7 MiB: ")
    assert "max_queue" in told.cause
    assert not told.paused
    hold.release()
    running.result(WAIT)
    assert [each.result(WAIT) for each in waiting] == [10 * MB] * 20


def test_a_slow_leak_is_named_also_where_workers_are_warm(new_limited, process, monkeypatch):
    """It has just crossed the limit: any worker owns more than what is above that."""
    found = [Container("b.GROWN", 20 * MB, False)]
    monkeypatch.setattr(_relief, "largest_containers", lambda *_, **__: found)
    pool, events = new_limited(1)
    assert pool.submit(lambda: kept().append(bytes(3 * MB))).result(WAIT) is None
    owning(pool, 0, 2 * MB)
    process.others = BASE + 21 * MB
    (told,) = events.wait_for(MemoryPressure)
    assert told.cause.startswith("b.GROWN holds ")


def test_a_process_that_was_too_big_before_is_no_workers_fault(new_limited, process):
    process.others = FLOOD
    pool, events = new_limited(1)
    assert pool.submit(lambda: kept().append(bytes(3 * MB))).result(WAIT) is None
    (told,) = events.wait_for(MemoryPressure)
    assert told.cause.startswith("no worker of this pool owns most of it")
    (due,) = events.of(WorkerDue)
    assert due.why.endswith("this worker is the oldest, and what is owned does not explain it")


def test_what_was_freed_and_stays_is_fragmentation(new_limited, process, monkeypatch):
    monkeypatch.setattr(_relief, "largest_containers", lambda *_, **__: [])  # pytest has some
    pool, events = new_limited(1)
    assert pool.submit(lambda: kept().append(bytes(30 * MB))).result(WAIT) is None
    owning(pool, 0, 29 * MB)
    process.others = BASE + 40 * MB  # whatever is freed
    (told,) = events.wait_for(MemoryPressure)
    assert told.cause.startswith("fragmentation: the ")
    (returned,) = events.of(MemoryReturned)
    assert returned.owned_bytes == pytest.approx(30 * MB, rel=0.05)
    assert returned.rss_delta == 0


def test_else_it_is_native_memory_or_results(new_limited, process):
    pool, events = new_limited(2)
    assert pool.submit(where).result(WAIT) in (0, 1)
    process.others = FLOOD
    (told,) = events.wait_for(MemoryPressure)
    assert "memory of native libraries, or results" in told.cause
    assert (told.rss, told.limit, told.paused) == (FLOOD, LIMIT, True)


# ==== its thread =================================================================================


def test_the_thread_is_gone_without_workers(new_limited):
    pool, _ = new_limited(1)
    assert not memory_threads(pool)
    for _ in range(2):
        assert pool.submit(where).result(WAIT) == 0
        thread = the_memory_thread(pool)
        pool.close()
        thread.join(WAIT)
        assert not thread.is_alive()


def test_so_it_is_where_looks_are_rare(new_limited):
    pool, _ = new_limited(1, limits={"sample_every": "1h"})
    assert pool.submit(where).result(WAIT) == 0
    thread = the_memory_thread(pool)
    pool.close()
    thread.join(WAIT)
    assert not thread.is_alive()


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_dropped_pool_ends_with_its_thread(process, is_paused):
    limits = Limits(pool_memory=LIMIT, memory_samples=1, sample_every=0.02, min_age=0)
    pool = RecyclePool(2, limits=limits)
    on_all(pool)
    threads, tasks = [*pool._threads, the_memory_thread(pool)], Tasks(pool)
    if is_paused:
        pause(pool, process, Events(pool))
        threads += pool._threads
        tasks.submit()
    tasks._pool = None
    del pool
    gc.collect()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    tasks.all_run_once()


# ==== how often it is looked =====================================================================


def test_while_all_rest_it_is_looked_less_often_and_a_task_ends_that(
    new_limited, process, monkeypatch
):
    monkeypatch.setattr(_relief, "DOZE", 1e6)
    pool, events = new_limited(1)
    assert pool.submit(where).result(WAIT) == 0
    relief = pool._engine.relief
    until(lambda: relief._dozes, "it looks no more")
    process.others = FLOOD
    assert pool.submit(where).result(WAIT) == 0
    events.wait_for(MemoryPressure)


def test_it_does_not_doze_while_the_process_is_too_big(new_limited, process, monkeypatch):
    monkeypatch.setattr(_relief, "DOZE", 1e6)
    pool, events = new_limited(1, limits={"report_only": True})
    process.others = FLOOD
    assert pool.submit(where).result(WAIT) == 0
    events.wait_for(MemoryPressure)
    until(lambda: pool._engine.dispatch.idle)
    process.others = BASE
    until(lambda: pool.stats().memory.bytes < LIMIT, "it was looked at again")


def test_tasks_that_come_one_by_one_bring_no_more_looks(new_limited, process, monkeypatch):
    looks = []
    monkeypatch.setattr(_relief.Relief, "_look", lambda self: looks.append(self._dozes))
    pool, _ = new_limited(1, limits={"sample_every": 60})
    monkeypatch.setattr(_relief.Relief, "_may_doze", lambda self: True)
    relief = pool._engine.relief
    assert pool.submit(where).result(WAIT) == 0
    until(lambda: looks)
    for _ in range(5):
        assert pool.submit(where).result(WAIT) == 0
    until(lambda: not relief._dozes, "it was woken")
    assert len(looks) <= 2  # who saw it doze a moment ago may wake it once more
