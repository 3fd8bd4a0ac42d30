"""Scenarios E: keeping warm, and letting go."""

import gc
import random
import threading
import time
import weakref

import pytest
from staging import WAIT, until

from recyclepool import Limits, TaskAbortedError, current_worker, per_worker


class Thing:
    """What can be watched by a weak reference."""


def test_e1_idle_workers_keep_what_is_theirs_between_bursts(new_pool):
    pool = new_pool(2)
    local = threading.local()
    together = threading.Barrier(2)

    @per_worker
    def thing():
        return Thing()

    def look():
        me = current_worker()
        local.number = getattr(local, "number", 0) + 1
        me.cache.setdefault("thing", Thing())
        together.wait(WAIT)  # so each worker has one
        return me.slot, me.generation, local.number, thing(), me.cache["thing"]

    bursts = []
    for _ in range(3):
        futures = [pool.submit(look) for _ in range(2)]
        bursts.append(sorted((future.result(WAIT) for future in futures), key=lambda seen: seen[0]))
        until(lambda: len(pool._engine.dispatch.idle) == 2)
    for number, burst in enumerate(bursts, 1):
        assert [seen[:3] for seen in burst] == [(0, 1, number), (1, 1, number)]
        for seen, first in zip(burst, bursts[0], strict=True):
            assert seen[3] is first[3]
            assert seen[4] is first[4]


def test_e1_a_new_worker_has_new_ones_and_the_teardown_of_the_old_has_run(new_pool):
    """The soft restart here is one task a worker; and a close, after which the pool goes on."""
    torn_down = []

    @per_worker
    def thing():
        mine = Thing()
        yield weakref.ref(mine), mine
        torn_down.append(current_worker().generation)

    def look():
        reference, _ = thing()
        kept = Thing()
        current_worker().cache["kept"] = kept
        return reference, weakref.ref(kept), current_worker().generation

    pool = new_pool(1, limits=Limits(tasks=2))
    seen = [pool.submit(look).result(WAIT) for _ in range(4)]
    assert [generation for _, _, generation in seen] == [1, 1, 2, 2]
    assert seen[0][0] is seen[1][0]
    assert seen[1][0] is not seen[2][0]
    pool.close()
    gc.collect()
    assert torn_down == [1, 2]
    assert [(thing(), kept()) for thing, kept, _ in seen] == [(None, None)] * 4
    assert pool.submit(look).result(WAIT)[2] > 2


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_e2_close_finishes_what_runs_and_what_is_queued(new_pool, workers):
    pool = new_pool(workers)
    chance = random.Random(workers)

    def work(number, seconds):
        time.sleep(seconds)  # its work
        return number

    futures = [pool.submit(work, n, chance.choice((0, 0.001, 0.01))) for n in range(50)]
    report = pool.close()
    assert all(future.done() for future in futures)
    assert [future.result(0) for future in futures] == list(range(50))
    stats = pool.stats()
    assert (stats.completed, stats.cancelled, stats.queued, stats.workers) == (50, 0, 0, ())
    assert not report.timed_out


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_e2_close_gives_back_what_the_workers_held(new_pool, workers):
    """What the operating system gets back is the allocator's matter: all that was held is free."""
    pool = new_pool(workers)
    together = threading.Barrier(workers)
    thing = per_worker(Thing)

    def fill():
        together.wait(WAIT)
        current_worker().cache["thing"] = kept = Thing()
        return weakref.ref(kept), weakref.ref(thing())

    futures = [pool.submit(fill) for _ in range(workers)]
    references = [reference for future in futures for reference in future.result(WAIT)]
    assert all(reference() is not None for reference in references)
    pool.close()
    gc.collect()
    assert not any(reference() is not None for reference in references)
    until(lambda: not pool._threads)


@pytest.mark.parametrize("again", ["submit", "start"])
def test_e3_destroy_interrupts_at_once_and_the_pool_is_usable_again(new_pool, new_spin, again):
    pool, spin = new_pool(4, min_workers=3), new_spin()
    assert pool.start().result(WAIT) == 3
    running = [pool.submit(spin) for _ in range(4)]
    spin.wait_started(4)
    queued = pool.submit(int)
    report = pool.destroy(WAIT)
    assert report.seconds < WAIT / 2
    assert report.aborted == 4
    assert queued.cancelled()
    assert all(isinstance(future.exception(0), TaskAbortedError) for future in running)
    assert pool.stats().workers == ()
    if again == "submit":
        assert pool.submit(int).result(WAIT) == 0
        until(lambda: sum(w.state == "serving" for w in pool.stats().workers) == 3)
    else:
        assert pool.start().result(WAIT) == 3
    assert len(pool.stats().workers) == 3


def test_e5_a_recycle_never_strands_the_queue(new_pool):
    """A new worker for each task: none of them may be the last that anybody takes."""
    pool = new_pool(1, limits=Limits(tasks=1))
    futures = [pool.submit(divmod, n, 7) for n in range(10_000)]
    assert [future.result(WAIT) for future in futures] == [divmod(n, 7) for n in range(10_000)]
    pool.close()
    stats = pool.stats()
    assert stats.completed == 10_000
    assert stats.recycles["tasks"] == 10_000
