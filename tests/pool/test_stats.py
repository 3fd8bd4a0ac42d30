"""What can be seen of a pool: stats, repr, names."""

import gc
import json
import sys
import threading

import pytest
from staging import WAIT, in_thread, until

import recyclepool._stats
from recyclepool import Limits, PoolState, PoolStats, RecyclePool, backends, current_worker, pools

COUNTERS = ("submitted", "completed", "failed", "cancelled", "aborted", "rejected", "failed_starts")


def test_the_figures_of_a_pool_that_did_nothing(new_pool):
    stats = new_pool(4, name="nothing").stats()
    assert isinstance(stats, PoolStats)
    assert (stats.name, stats.backend, stats.state) == ("nothing", "thread", PoolState.OPEN)
    assert (stats.max_workers, stats.queued, stats.workers) == (4, 0, ())
    assert {name: getattr(stats, name) for name in COUNTERS} == dict.fromkeys(COUNTERS, 0)
    assert (stats.utilization, stats.busy_seconds, stats.oldest_queued) == (0.0, 0.0, None)
    assert (stats.wait.count, stats.run.count, stats.recycles) == (0, 0, {})


def test_the_figures_while_it_works(new_pool, new_hold):
    pool, hold = new_pool(2), new_hold()

    def staying():
        hold()

    futures = [pool.submit(staying) for _ in range(5)]
    hold.wait_started(2)
    stats = pool.stats()
    assert (stats.queued, stats.submitted, stats.completed) == (3, 5, 0)
    assert stats.utilization == 1.0
    assert stats.oldest_queued >= 0
    for slot, worker in enumerate(stats.workers):
        assert (worker.slot, worker.generation, worker.state) == (slot, 1, "serving")
        assert worker.task_name.endswith("staying")
        assert worker.tasks == 1
        assert worker.idle_for is None
        assert 0 <= worker.task_running <= worker.age
    hold.release()
    for future in futures:
        future.result(WAIT)
    until(lambda: len(pool._engine.dispatch.idle) == 2)
    stats = pool.stats()
    assert (stats.queued, stats.submitted, stats.completed) == (0, 5, 5)
    assert (stats.utilization, stats.oldest_queued) == (0.0, None)
    assert stats.busy_seconds > 0
    assert (stats.wait.count, stats.run.count) == (5, 5)
    assert len(stats.wait.counts) == len(stats.wait.buckets) + 1
    assert sum(worker.tasks for worker in stats.workers) == 5
    for worker in stats.workers:
        assert (worker.task_name, worker.task_running) == (None, None)
        assert worker.idle_for >= 0


def test_a_worker_that_runs_a_callback_is_not_idle(new_pool, new_hold):
    pool, hold, callback = new_pool(1), new_hold(), new_hold()
    pool.submit(int).result(WAIT)
    future = pool.submit(hold)
    future.add_done_callback(callback)
    hold.release()
    callback.wait_started()
    (worker,) = pool.stats().workers
    assert worker.idle_for is None
    assert "(0 idle, 1 busy)" in repr(pool)
    callback.release()


def test_every_outcome_is_counted_once(new_pool, new_spin):
    pool, spin = new_pool(1), new_spin()
    done = [pool.submit(int) for _ in range(3)]
    failed = [pool.submit(divmod, 1, 0) for _ in range(2)]
    for future in [*done, *failed]:
        future.exception(WAIT)
    pool.submit(spin)
    spin.wait_started()
    cancelled = pool.submit(int)
    assert cancelled.cancel()
    queued = pool.submit(int)
    pool.destroy(WAIT)
    assert queued.cancelled()
    stats = pool.stats()
    assert (stats.completed, stats.failed, stats.cancelled, stats.aborted) == (3, 2, 2, 1)
    assert stats.submitted == 8


def test_a_task_that_moves_on_while_it_is_counted(new_pool, new_hold, monkeypatch):
    """1. the workers are read, one is busy; 2. its task ends; 3. the rest is read."""
    pool, hold = new_pool(1), new_hold()
    future = pool.submit(hold)
    hold.wait_started()
    steps = []
    for name in ("_workers", "_queue"):
        read = getattr(recyclepool._stats, name)

        def between(engine, *args, read=read, name=name):
            value = read(engine, *args)
            if not steps:
                steps.append(name)
                hold.release()
                future.result(WAIT)
                until(lambda: engine.dispatch.idle)
            return value

        monkeypatch.setattr(recyclepool._stats, name, between)
    pool.stats()
    assert steps
    stats = pool.stats()
    assert (stats.submitted, stats.completed) == (1, 1)


def test_what_is_cancelled_when_the_pool_breaks_is_counted(new_pool, new_hold, caplog):
    caplog.set_level(51, "concurrent.futures")
    hold = new_hold()

    def initializer():
        hold()
        raise ValueError("fails")

    pool = new_pool(1, initializer=initializer)
    futures = [pool.submit(int) for _ in range(4)]
    hold.wait_started()
    assert futures[2].cancel()
    hold.release()
    for future in futures[:2] + futures[3:]:
        future.exception(WAIT)
    until(lambda: pool.stats().state is PoolState.BROKEN)
    stats = pool.stats()
    assert (stats.submitted, stats.failed, stats.cancelled, stats.queued) == (4, 3, 1, 0)
    assert stats.failed_starts == 1


def test_rejected_submits_are_counted(new_pool):
    pool = new_pool(1)
    pool.shutdown()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            pool.submit(int)
    stats = pool.stats()
    assert (stats.rejected, stats.submitted) == (3, 0)


def test_counters_never_go_back(new_pool):
    """While four threads read, and the pool is closed, destroyed and opened again."""
    pool = new_pool(3, limits=Limits(tasks=7))
    over = threading.Event()
    before = sys.getswitchinterval()

    def read():
        last, reads = pool.stats(), 0
        while not over.is_set():
            now = pool.stats()
            for name in COUNTERS:
                assert getattr(now, name) >= getattr(last, name), name
            assert now.wait.count >= last.wait.count
            assert now.run.count >= last.run.count
            assert all(now.recycles[reason] >= last.recycles[reason] for reason in last.recycles)
            last, reads = now, reads + 1
        return reads

    readers = [in_thread(read) for _ in range(4)]
    accepted = []
    sys.setswitchinterval(1e-4)
    try:
        for cycle in range(20):
            for n in range(40):
                accepted.append(pool.submit(divmod, n, n % 10))
                if n % 9 == 0:
                    accepted[-1].cancel()
            (pool.destroy if cycle % 3 == 0 else pool.close)()
    finally:
        sys.setswitchinterval(before)
        over.set()
    assert all(reader.result() > 0 for reader in readers)
    pool.close()
    stats = pool.stats()
    outcomes = stats.completed + stats.failed + stats.cancelled + stats.aborted
    assert stats.submitted == outcomes == len(accepted) == 800
    assert stats.cancelled == sum(future.cancelled() for future in accepted)


def test_as_dict_is_json(new_pool, new_hold):
    pool, hold = new_pool(2, limits=Limits(tasks=3), name="json"), new_hold()
    pool.submit(lambda: current_worker().cache.put("key", b"value")).result(WAIT)
    pool.submit(hold)
    hold.wait_started()
    pool.submit(int).cancel()
    stats = pool.stats()
    told = json.loads(json.dumps(stats.as_dict()))
    assert (told["name"], told["state"], told["backend"]) == ("json", "open", "thread")
    assert told["workers"][0]["state"] == "serving"
    assert set(told) == set(PoolStats.__dataclass_fields__)
    assert told["cache"]["entries"] == stats.cache.entries == 1
    assert len(told["run"]["counts"]) == len(told["run"]["buckets"]) + 1
    hold.release()


def test_stats_are_frozen(new_pool):
    with pytest.raises(AttributeError):
        new_pool(1).stats().queued = 3


# -- repr -----------------------------------------------------------------------------------------


def test_repr_in_each_state(new_pool, new_hold, caplog):
    caplog.set_level(51, "concurrent.futures")
    hold, failing = new_hold(), []

    def initializer():
        if failing:
            raise ValueError("fails")

    pool = new_pool(2, name="images", initializer=initializer)
    empty = "0/2 workers (0 idle, 0 busy), 0 queued"
    assert repr(pool) == f"<RecyclePool 'images' open: {empty}>"
    futures = [pool.submit(hold) for _ in range(3)]
    hold.wait_started(2)
    assert repr(pool) == "<RecyclePool 'images' open: 2/2 workers (0 idle, 2 busy), 1 queued>"
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    assert repr(pool) == "<RecyclePool 'images' closing: 2/2 workers (0 idle, 2 busy), 1 queued>"
    hold.release()
    closing.result()
    assert all(future.done() for future in futures)
    pool.submit(int).result(WAIT)
    until(lambda: pool._engine.dispatch.idle)
    assert repr(pool) == "<RecyclePool 'images' open: 1/2 workers (1 idle, 0 busy), 0 queued>"
    pool.close()
    failing.append(True)
    pool.submit(int).exception(WAIT)
    until(lambda: not pool._engine.roster.workers)
    assert repr(pool) == f"<RecyclePool 'images' broken: {empty}>"
    pool.shutdown()
    assert repr(pool) == f"<RecyclePool 'images' shutdown: {empty}>"


def test_repr_of_a_pool_that_shuts_down(new_pool, new_hold):
    pool, hold = new_pool(1, name="ending"), new_hold()
    pool.submit(hold)
    hold.wait_started()
    pool.shutdown(wait=False)
    shown = "<RecyclePool 'ending' shutting down: 1/1 workers (0 idle, 1 busy), 0 queued>"
    assert repr(pool) == shown
    hold.release()


def test_repr_shows_who_comes_and_who_goes(new_pool, new_hold):
    starting, staying = new_hold(), new_hold()
    pool = new_pool(1, initializer=starting, backend=backends.Thread(interrupt=False))
    pool.submit(staying)
    starting.wait_started()
    assert repr(pool).endswith("open: 0/1 workers (0 idle, 0 busy), 1 queued, 1 starting>")
    starting.release()
    staying.wait_started()
    pool.destroy(0.05)
    assert repr(pool).endswith("0 queued, 1 abandoned>")
    staying.release()


# -- names ----------------------------------------------------------------------------------------


def test_names_are_unique_and_freed(new_pool):
    first = new_pool(1, name="images")
    assert first.name == "images"
    with pytest.raises(ValueError, match="images"):
        new_pool(1, name="images")
    first.close()
    with pytest.raises(ValueError, match="images"):  # it may be used again
        new_pool(1, name="images")
    first.shutdown()
    second = new_pool(1, name="images")
    assert second.submit(int).result(WAIT) == 0


def test_a_dropped_pool_leaves_its_name_free():
    pool = RecyclePool(1, name="dropped")
    del pool
    gc.collect()
    with RecyclePool(1, name="dropped"):
        pass


def test_names_of_their_own(new_pool):
    made = [new_pool(1) for _ in range(3)]
    names = [pool.name for pool in made]
    assert len(set(names)) == 3
    assert all(name.startswith("pool-") for name in names)
    number = int(names[-1].removeprefix("pool-"))
    taken = new_pool(1, name=f"pool-{number + 1}")
    assert new_pool(1).name not in (*names, taken.name)


def test_pools_lists_those_that_are_not_shut_down(new_pool):
    before = set(pools())
    second, first = new_pool(1, name="b"), new_pool(1, name="a")
    assert [pool for pool in pools() if pool not in before] == [first, second]
    first.close()
    assert first in pools()
    first.shutdown()
    assert first not in pools()
    assert second in pools()


def test_a_constructor_that_fails_takes_no_name(new_pool):
    """Even while somebody keeps the exception, and with it the half-made pool."""
    before = pools()
    with pytest.raises(ValueError, match="min_workers") as kept:
        RecyclePool(1, name="half", min_workers=5)
    assert pools() == before
    assert new_pool(1, name="half") in pools()
    assert kept.value is not None


def test_pools_while_one_is_being_made(new_pool):
    """The constructor runs foreign code: what it sees is whole pools only."""
    seen = []

    def arguments():
        seen.append(pools())
        yield from ()

    before = pools()
    pool = new_pool(1, name="in the making", initializer=int, initargs=arguments())
    assert pool in pools()
    assert seen == [before]


def test_threads_are_named_after_the_pool(new_pool):
    def name():
        return threading.current_thread().name

    assert new_pool(1, name="images").submit(name).result(WAIT) == "images_0"
    assert new_pool(1, "given", name="sounds").submit(name).result(WAIT) == "given_0"


def test_what_others_add_to_is_copied_before_it_is_read(new_pool):
    """A worker may retire for a new reason in the middle of it: found by the soak."""

    class Growing(dict):
        def items(self):
            raise RuntimeError("dictionary changed size during iteration")

    pool = new_pool(1)
    pool._engine.roster.recycles = Growing(pool._engine.roster.recycles)
    assert pool.stats().recycles == {}
