"""What stats() tells for the metrics: recycles, caches, seconds, the watchdog, limits."""

import threading
import time

import pytest
from staging import WAIT, in_thread, until

import recyclepool._stats
from recyclepool import Limits, Reason, backends, current_worker
from recyclepool._worker import Sample

MIB = 2**20

# -- recycles -------------------------------------------------------------------------------------


def test_how_long_recycles_take(new_pool):
    """Of workers that are replaced: not of those that go with the pool, its size, or as idle."""
    pool = new_pool(2, min_workers=2)
    assert pool.start().result(WAIT) == 2
    for _ in range(3):
        assert pool.recycle(0).result(WAIT) == 1
    until(lambda: pool.stats().recycle.count == 3)
    stats = pool.stats()
    assert 0 < stats.recycle.sum < WAIT
    assert len(stats.recycle.counts) == len(stats.recycle.buckets) + 1
    pool.close()
    assert pool.stats().recycle == stats.recycle
    assert pool.stats().recycles["close"] == 2


def test_the_end_of_a_worker_that_is_resized_away_or_idle_is_no_recycle(new_pool):
    pool = new_pool(2, min_workers=1, limits=Limits(idle=0.05))
    pool.submit(int).result(WAIT)
    pool.soft_restart().result(WAIT)
    until(lambda: pool.stats().recycle.count == 1)
    barrier = threading.Barrier(2)
    for future in [pool.submit(barrier.wait, WAIT) for _ in range(2)]:
        future.result(WAIT)
    until(lambda: len(pool.stats().workers) == 1)
    assert pool.stats().recycles[Reason.IDLE] == 1
    assert pool.stats().recycle.count == 1


def test_the_time_of_a_recycle_is_that_of_its_end(new_pool, new_hold):
    """From the decision: a finalizer that takes long is in it."""
    hold = new_hold()
    pool = new_pool(1, finalizer=hold)
    pool.submit(int).result(WAIT)
    clock = pool._engine.settings.clock
    replaced = pool.recycle(0)
    hold.wait_started()
    replaced.result(WAIT)
    began = clock()
    assert pool.stats().recycle.count == 0
    threading.Event().wait(0.06)
    hold.release()
    until(lambda: pool.stats().recycle.count == 1)
    assert 0.06 <= pool.stats().recycle.sum < clock() - began + WAIT
    assert not any(pool.stats().recycle.counts[:7])  # up to 0.05 s
    pool.close()


def test_the_bytes_that_recycles_for_memory_freed(new_pool):
    """What the worker owned at its end: not at the look that found it too much."""
    pool = new_pool(1, limits=Limits(memory="1GiB"))
    for n in (1, 2):
        fill(pool)
        (worker,) = pool._engine.roster.workers
        pool._engine.outgrown(worker, "too much", Sample("owned", 5, 0.0, False), 0)
        until(lambda n=n: pool.stats().recycle.count == n and len(pool.stats().workers) == 1)
    freed = pool.stats().freed_bytes
    assert 2 * MIB <= freed < 3 * MIB
    assert pool.stats().recycles[Reason.MEMORY] == 2
    fill(pool)
    pool.recycle(0).result(WAIT)
    until(lambda: pool.stats().recycle.count == 3)
    pool.close()
    assert pool.stats().freed_bytes == freed


def fill(pool):
    pool.submit(lambda: current_worker().cache.put("key", bytes(MIB))).result(WAIT)


@pytest.mark.parametrize("place", ["before its books are closed", "after"])
def test_a_worker_that_says_twice_that_it_has_gone_is_counted_once(new_pool, monkeypatch, place):
    """An order that was broken off is done again (ORDERS 3)."""
    pool, told = new_pool(1), []
    engine = pool._engine
    gone = engine.gone

    def fail(worker):
        raise KeyboardInterrupt

    def twice(worker):
        at = (engine.roster, "left") if place == "after" else (engine, "_close_books")
        with monkeypatch.context() as broken:
            broken.setattr(*at, fail)
            with pytest.raises(KeyboardInterrupt):
                gone(worker)
        told.append(pool.stats())
        gone(worker)

    engine.gone = twice
    pool.submit(look_up, 1).result(WAIT)
    pool.recycle(0).result(WAIT)
    until(lambda: len(pool.stats().workers) == 1)
    stats = pool.stats()
    assert stats.recycle.count == 1
    assert stats.recycle == told[0].recycle
    assert stats.cache.misses == told[0].cache.misses == 1
    engine.gone = gone


# -- caches ---------------------------------------------------------------------------------------


def look_up(*keys):
    cache = current_worker().cache
    for key in keys:
        if cache.get(key) is None:
            cache.put(key, b"", size=100)


def counts(pool):
    cache = pool.stats().cache
    return cache.hits, cache.misses, dict(cache.evictions)


def test_what_caches_counted_outlives_them(new_pool):
    pool = new_pool(1, cache=250)
    pool.submit(look_up, 1, 1, 1, 2, 3).result(WAIT)
    assert counts(pool) == (2, 3, {"size": 1})
    assert (pool.stats().cache.entries, pool.stats().cache.bytes) == (2, 200)
    pool.recycle(0).result(WAIT)
    until(lambda: len(pool.stats().workers) == 1)
    assert counts(pool) == (2, 3, {"size": 1, "deleted": 2})
    assert (pool.stats().cache.entries, pool.stats().cache.bytes) == (0, 0)
    assert pool.stats().cache.budget == 250
    pool.submit(look_up, 1, 1).result(WAIT)
    pool.close()
    assert counts(pool) == (3, 4, {"size": 1, "deleted": 3})
    assert pool.stats().cache.budget == 0
    pool.submit(look_up, 1).result(WAIT)  # it opens again
    assert counts(pool) == (3, 5, {"size": 1, "deleted": 3})


def test_the_cache_of_a_worker_that_was_given_up_counts_on(new_pool, new_hold):
    pool, hold = new_pool(1, backend=backends.Thread(interrupt=False)), new_hold()
    pool.submit(look_up, 1, 1).result(WAIT)
    pool.submit(hold)
    hold.wait_started()
    pool.destroy(0.05)
    assert pool.stats().abandoned == 1
    assert counts(pool)[:2] == (1, 1)
    assert pool.stats().cache.entries == 0  # of nobody who is here
    hold.release()
    until(lambda: not pool.stats().abandoned)
    assert counts(pool)[:2] == (1, 1)


def test_a_cache_is_not_missed_while_its_worker_leaves(new_pool):
    """It has closed its books, and is not out of the roster yet."""
    pool, seen = new_pool(1), []
    leave = pool._engine.roster.left

    def look(worker):
        seen.append(counts(pool)[:2])
        leave(worker)

    pool._engine.roster.left = look
    pool.submit(look_up, 1, 1).result(WAIT)
    pool.close()
    assert [*seen, counts(pool)[:2]] == [(1, 1), (1, 1)]


def test_a_cache_is_not_missed_when_its_worker_leaves_between_two_reads(new_pool, monkeypatch):
    pool, steps = new_pool(1), []
    read = recyclepool._stats.everybody

    def between(engine):
        found = read(engine)
        if steps == ["ready"]:
            steps.append("left")
            in_thread(pool.close).result()
        return found

    monkeypatch.setattr(recyclepool._stats, "everybody", between)
    pool.submit(look_up, 1, 1).result(WAIT)
    steps.append("ready")
    cache = recyclepool._stats._caches(pool._engine)
    assert steps == ["ready", "left"]
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_bytes_of_each_cache(new_pool):
    pool = new_pool(1)
    pool.submit(int).result(WAIT)
    assert [w.cache_bytes for w in pool.stats().workers] == [0]
    pool.submit(look_up, 1, 2).result(WAIT)
    assert [w.cache_bytes for w in pool.stats().workers] == [200]


# -- seconds --------------------------------------------------------------------------------------


def test_busy_seconds_do_not_go_back_when_a_task_ends(new_pool, new_hold, monkeypatch):
    """1. it is not counted yet; 2. it ends; 3. it does not run."""
    pool, hold = new_pool(1), new_hold()
    future = pool.submit(hold)
    hold.wait_started()
    threading.Event().wait(0.01)
    before = pool.stats().busy_seconds
    assert before >= 0.01
    read = recyclepool._stats.everybody

    def late(engine):
        hold.release()
        future.result(WAIT)
        until(lambda: engine.dispatch.idle)
        return read(engine)

    monkeypatch.setattr(recyclepool._stats, "everybody", late)
    assert pool.stats().busy_seconds >= before
    monkeypatch.undo()
    assert pool.stats().busy_seconds > before


def test_the_seconds_of_a_worker_that_is_just_given_up_count_once(new_pool, new_hold, monkeypatch):
    """For a moment it is among those who are here and those who are not."""
    pool, hold = new_pool(1), new_hold()
    pool.submit(hold)
    hold.wait_started()
    began = pool._engine.roster.workers[0].task_started
    threading.Event().wait(0.05)
    read = recyclepool._stats.everybody
    monkeypatch.setattr(recyclepool._stats, "everybody", lambda engine: read(engine) * 2)
    busy = pool.stats().busy_seconds
    assert 0.05 <= busy <= pool._engine.settings.clock() - began
    hold.release()


def test_sums_of_seconds_do_not_go_back_by_a_rounding(new_pool):
    """What is added up in another order may come to a little less."""
    pool = new_pool(1)
    pool.submit(int).result(WAIT)
    pool.close()
    first, closed = pool.stats(), pool._engine.books.closed
    closed.wait_seconds -= 1e-9
    closed.run_seconds -= 1e-9
    second = pool.stats()
    assert second.wait.sum == first.wait.sum
    assert second.run.sum == first.run.sum
    assert second.busy_seconds == first.busy_seconds


# -- the watchdog, limits -------------------------------------------------------------------------


def test_a_pool_without_limits_has_no_watchdog(new_pool):
    pool = new_pool(1)
    pool.submit(int).result(WAIT)
    stats = pool.stats()
    assert (stats.watchdog_tick, stats.watchdog_due, stats.next_schedule) == (None, None, None)
    assert (stats.memory_limit, stats.pool_memory_limit) == (None, None)


def test_when_the_watchdog_looked_and_is_to_look(new_pool):
    began = time.time()
    pool = new_pool(1, limits=Limits(age="1h"))
    pool.submit(int).result(WAIT)
    until(lambda: pool.stats().watchdog_due is not None)
    stats = pool.stats()
    assert began <= stats.watchdog_tick <= time.time()
    assert 3600 * 0.9 - 60 < stats.watchdog_due - time.time() <= 3600
    pool.close()
    assert pool.stats().watchdog_due is None  # nobody is here
    assert pool.stats().watchdog_tick >= stats.watchdog_tick


def test_a_watchdog_that_does_not_look_is_late(new_pool, caplog):
    pool = new_pool(1, limits=Limits(age="1h"))
    pool.submit(int).result(WAIT)
    until(lambda: pool.stats().watchdog_due is not None)
    watchdog = pool._engine.watchdog
    look = watchdog._next_deadline

    def fail(worker, now):
        raise ZeroDivisionError

    watchdog._next_deadline = fail
    watchdog.due -= 3600
    before = pool.stats()
    assert before.watchdog_due < time.time()
    pool._engine.look()  # in vain
    assert pool.stats().watchdog_tick == before.watchdog_tick
    assert pool.stats().watchdog_due == pytest.approx(before.watchdog_due, abs=1.0)
    watchdog._next_deadline = look
    pool._engine.look()
    assert pool.stats().watchdog_tick > before.watchdog_tick
    assert pool.stats().watchdog_due > time.time()
    pool.close()
    until(lambda: [r for r in caplog.records if "watchdog" in r.getMessage()])


def test_limits_of_memory(new_pool):
    stats = new_pool(1, limits=Limits(memory="64MiB", pool_memory="100GiB")).stats()
    assert (stats.memory_limit, stats.pool_memory_limit) == (64 * 2**20, 100 * 2**30)
