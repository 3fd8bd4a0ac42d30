"""A queue with so many places: who waits for one, or is refused. See test_back_pressure_scenarios.

Scenario R9 is here.
"""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest
from pressing import ENDS, WAYS, blocked, fill, has_all_its_places, ways
from staging import WAIT, in_thread, until

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    PoolClosedError,
    PoolState,
    QueueFullError,
    WorkerStartError,
)

# -- waiting, or not -------------------------------------------------------------------------------


@ways
def test_it_blocks_until_a_worker_takes_one(new_pool, new_hold, way):
    pool, hold = new_pool(1, max_queue=2), new_hold()
    queued = fill(pool, hold)
    call = in_thread(way, pool)
    blocked(pool)
    assert not call.is_over()
    hold.release()
    assert call.result() == 7
    assert [future.result(WAIT) for future in queued] == [0, 0]
    assert pool.stats().rejected == 0


@ways
def test_it_blocks_until_one_is_cancelled(new_pool, new_hold, way):
    pool, hold = new_pool(1, max_queue=2), new_hold()
    queued = fill(pool, hold)
    call = in_thread(way, pool)
    blocked(pool)
    assert queued[1].cancel()
    until(lambda: pool.stats().queued == 2, "it has the place")
    blocked(pool, 0)
    hold.release()
    assert call.result() == 7


@ways
def test_it_raises(new_pool, new_hold, way):
    pool, hold = new_pool(1, max_queue=2, on_full="raise", name="narrow"), new_hold()
    queued = fill(pool, hold)
    with pytest.raises(QueueFullError) as caught:
        way(pool)
    assert str(caught.value) == (
        "the queue of pool 'narrow' is full: 2 tasks wait, as many as may (max_queue=2)"
    )
    stats = pool.stats()
    assert (stats.queued, stats.rejected, stats.rejected_full) == (2, 1, 1)
    assert queued[0].cancel()
    accepted = in_thread(way, pool)
    until(lambda: pool.stats().queued == 2)
    hold.release()
    assert accepted.result() == 7
    assert pool.stats().rejected == 1


@ways
def test_r9_max_queue_counts_every_kind_of_task(new_pool, new_hold, way):
    pool, hold = new_pool(1, max_queue=1, on_full="raise"), new_hold()
    pool.submit(hold)
    hold.wait_started()
    call = in_thread(way, pool)
    until(lambda: pool.stats().queued == 1)
    for each in WAYS.values():
        with pytest.raises(QueueFullError, match="1 task waits, as many as may"):
            each(pool)
    assert pool.stats().rejected_full == len(WAYS)
    hold.release()
    assert call.result() == 7


@pytest.mark.parametrize("verb", ["map", "map_unordered"])
def test_a_map_that_does_not_fit_is_cancelled(new_pool, new_hold, verb):
    """Nobody would have the results of those that fitted."""
    pool, hold = new_pool(1, max_queue=3, on_full="raise"), new_hold()
    pool.submit(hold)
    hold.wait_started()
    with pytest.raises(QueueFullError):
        getattr(pool, verb)(int, "12345")
    stats = pool.stats()
    assert (stats.queued, stats.cancelled, stats.rejected_full) == (0, 3, 1)
    hold.release()
    assert sorted(getattr(pool, verb)(int, "123")) == [1, 2, 3]


def test_a_map_longer_than_the_queue_blocks_as_it_sends(new_pool):
    pool = new_pool(2, max_queue=1)
    assert list(pool.map(abs, range(100))) == list(range(100))
    assert sorted(pool.map_unordered(abs, range(100))) == list(range(100))
    assert pool.stats().rejected == 0


def test_many_coroutines_share_one_place(new_pool):
    pool = new_pool(2, max_queue=1)

    async def main():
        return await asyncio.gather(*(pool.run(divmod, n, 7) for n in range(200)))

    assert asyncio.run(main()) == [divmod(n, 7) for n in range(200)]
    assert pool.stats().completed == 200


def test_an_await_that_is_cancelled_waits_no_more(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=1), new_hold()
    queued = fill(pool, hold)

    async def main():
        waiting = asyncio.create_task(pool.run(int))
        while not pool._engine.dispatch.waiting:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    blocked(pool, 0)
    hold.release()
    assert queued[0].result(WAIT) == 0
    stats = pool.stats()
    assert (stats.submitted, stats.cancelled, stats.rejected) == (2, 0, 0)


def test_submitters_have_the_places_in_turn(new_pool, new_hold):
    """Each place wakes one of them. Who is woken for nothing would have to go to the end."""
    pool, hold = new_pool(1, max_queue=1), new_hold()
    fill(pool, hold)
    order, calls = [], []
    for n in range(4):
        calls.append(in_thread(pool.submit, order.append, n))
        blocked(pool, n + 1)
    for n in range(4):
        assert pool._engine.dispatch.queue[0].cancel()
        until(calls[n].is_over)
        blocked(pool, 3 - n)
    hold.release()
    calls[3].result().result(WAIT)
    assert order == [3]


# -- what is cancelled -----------------------------------------------------------------------------


class Large:
    """An argument."""

    def __call__(self):
        return id(self)


def call(task):
    return task()


@pytest.mark.parametrize("how", ["future", "pool", "dropped map", "await"])
def test_a_cancelled_task_frees_its_place_and_its_arguments_at_once(new_pool, new_hold, how):
    pool, hold = new_pool(1, max_queue=1), new_hold()
    if how != "dropped map":
        pool.submit(hold)
        hold.wait_started()
    large = Large()
    watched = weakref.ref(large)
    waiting = []

    def wait_behind():
        waiting.append(in_thread(pool.submit, divmod, 7, 2))
        blocked(pool)

    if how == "dropped map":
        results = pool.map(call, iter([int, hold, large]))
        assert next(results) == 0
        hold.wait_started()
        del large
        wait_behind()
        results.close()
    elif how == "await":

        async def main(large):
            task = asyncio.create_task(pool.run(id, large))
            del large
            while not pool.stats().queued:
                await asyncio.sleep(0)
            await asyncio.to_thread(wait_behind)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        given = [large]
        del large
        asyncio.run(main(given.pop()))
        gc.collect()  # what the loop and its tasks leave
    else:
        future = pool.submit(id, large)
        del large
        wait_behind()
        assert watched() is not None
        assert future.cancel() if how == "future" else pool.cancel(future)
    assert watched() is None
    accepted = waiting[0].result()
    assert not accepted.done()
    stats = pool.stats()
    assert (stats.queued, stats.cancelled) == (1, 1)
    hold.release()
    assert accepted.result(WAIT) == (3, 1)


def test_cancelled_tasks_are_counted_once(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=10), new_hold()
    queued = fill(pool, hold)
    for future in queued[::2]:
        assert future.cancel()
        assert future.cancel()
        assert pool.cancel(future)
    stats = pool.stats()
    assert (stats.queued, stats.cancelled, stats.submitted) == (5, 5, 11)
    hold.release()
    assert pool.wait_idle(WAIT)
    stats = pool.stats()
    assert (stats.completed, stats.cancelled, stats.submitted) == (6, 5, 11)


# -- used again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "close in time", "destroy"])
def test_a_pool_used_again_has_all_its_places(new_pool, new_spin, new_hold, end):
    pool, spin = new_pool(1, max_queue=3), new_spin()
    fill(pool, spin)
    calls = [in_thread(pool.submit, int) for _ in range(2)]
    blocked(pool, 2)
    ending = in_thread(ENDS[end], pool)
    assert [type(call.outcome()) for call in calls] == [PoolClosedError] * 2
    spin.release()
    ending.result()
    has_all_its_places(pool, new_hold())


FORKING = """
    import os, threading, warnings
    from recyclepool import QueueFullError, RecyclePool
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

    def fill(pool, most):
        go, started = threading.Event(), threading.Event()
        pool.submit(lambda: (started.set(), go.wait(20)))
        assert started.wait(20)
        return go, [pool.submit(int) for _ in range(most)]

    pool = RecyclePool(1, max_queue=2)
    go, queued = fill(pool, 2)
    late = []
    waiting = threading.Thread(target=lambda: late.append(pool.submit(int)))
    waiting.start()
    while not pool._engine.dispatch.waiting:
        pass
    child = os.fork()
    if not child:
        code = 1
        try:
            assert not pool._engine.dispatch.waiting
            go, queued = fill(pool, 2)
            beyond = []
            waiting = threading.Thread(target=lambda: beyond.append(pool.submit(int)))
            waiting.start()
            while not pool._engine.dispatch.waiting:
                pass
            assert pool.stats().queued == 2
            go.set()
            waiting.join(20)
            assert [each.result(20) for each in queued + beyond] == [0, 0, 0]
            pool.close(20)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    assert not late
    go.set()
    waiting.join(20)
    assert [each.result(20) for each in queued] == [0, 0]
    pool.close(20)
    assert late[0].result(20) == 0
    print("well")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_has_all_its_places():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("well\n", "")


# -- with other features ---------------------------------------------------------------------------


def test_a_pool_starts_all_its_workers_behind_one_place(new_pool, new_hold):
    pool, hold = new_pool(3, max_queue=1), new_hold()
    running = [pool.submit(hold, n) for n in range(3)]
    hold.wait_started(3)
    has = pool.submit(int)
    late = in_thread(pool.submit, int)
    blocked(pool)
    hold.release()
    assert [future.result(WAIT) for future in running] == [0, 1, 2]
    assert (has.result(WAIT), late.result().result(WAIT)) == (0, 0)


def test_a_blocked_submitter_has_the_place_that_a_new_worker_makes(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=1), new_hold()
    pool.submit(hold)
    hold.wait_started()
    queued = pool.submit(hold)
    late = in_thread(pool.submit, hold)
    blocked(pool)
    pool.resize(2)
    hold.wait_started()
    assert late.result() is not queued
    assert pool.stats().queued == 1
    hold.release()


def test_min_workers_are_there_before_the_queue_is_full(new_pool, new_hold):
    pool, hold = new_pool(3, min_workers=2, max_queue=1, on_full="raise"), new_hold()
    assert pool.start().result(WAIT) == 2
    for _ in range(3):
        pool.submit(hold)
        hold.wait_started()
    pool.submit(int)
    with pytest.raises(QueueFullError):
        pool.submit(int)
    hold.release()


def test_workers_of_one_task_each(new_pool):
    """Between two workers nobody takes a task; the submitter waits for the successor."""
    pool = new_pool(1, max_queue=1, limits=Limits(tasks=1))
    order = []
    futures = [pool.submit(order.append, n) for n in range(30)]
    for future in futures:
        assert future.result(WAIT) is None
    assert order == list(range(30))
    pool.close(WAIT)
    stats = pool.stats()
    assert (stats.completed, stats.rejected) == (30, 0)
    assert stats.recycles["tasks"] == 30


def test_a_task_that_was_handed_to_its_worker_has_no_place(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=1, on_full="raise"), new_hold()
    assert pool.submit(int).result(WAIT) == 0
    until(lambda: pool._engine.dispatch.idle)
    for _ in range(2):
        pool.options(key="k").submit(hold)
    hold.wait_started()
    with pytest.raises(QueueFullError):
        pool.submit(int)
    assert pool.stats().queued == 1
    hold.release()


def test_a_submit_that_starts_no_worker_gives_its_place_back(new_pool):
    pool = new_pool(2, max_queue=1)
    engine, can_start = pool._engine, []

    class Thread(threading.Thread):
        def start(self):
            if not can_start:
                raise RuntimeError("can't start new thread")
            super().start()

    engine.settings = engine.settings._replace(new_thread=Thread)
    for way in ("submit", "options submit", "run"):
        with pytest.raises((WorkerStartError, BrokenRecyclePool)):
            WAYS[way](pool)
        assert pool.stats().queued == 0
    pool.close()
    can_start.append(True)
    assert pool.submit(int).result(WAIT) == 0


def test_a_failing_start_beside_a_worker_that_lives(new_pool, new_hold):
    """It takes what is queued; who waits for a place has it then."""
    hold, fail = new_hold(), []

    def initializer():
        if fail:
            raise OSError("not today")

    pool = new_pool(2, max_queue=1, initializer=initializer)
    logging.getLogger("concurrent.futures").disabled = True
    try:
        pool.submit(hold)
        hold.wait_started()
        fail.append(True)
        queued = pool.submit(int)
        late = in_thread(pool.submit, int)
        until(lambda: late.is_over() or pool._engine.dispatch.waiting)
        hold.release()
        outcomes = [queued.exception(WAIT), late.outcome()]
    finally:
        logging.getLogger("concurrent.futures").disabled = False
    if isinstance(outcomes[0], BrokenRecyclePool):
        assert isinstance(outcomes[1], BrokenRecyclePool)
    else:
        assert (outcomes[0], outcomes[1].result(WAIT)) == (None, 0)
    pool.close()


def test_the_figures_are_exact(new_pool, new_spin):
    pool, spin = new_pool(1, max_queue=4), new_spin()
    queued = fill(pool, spin)
    calls = [in_thread(pool.submit, int) for _ in range(3)]
    blocked(pool, 3)
    stats = pool.stats()
    assert (stats.submitted, stats.queued) == (5, 4)  # who waits has not submitted
    assert [future.cancel() for future in queued[:2]] == [True, True]
    blocked(pool, 1)
    stats = pool.stats()
    assert (stats.submitted, stats.queued, stats.cancelled) == (7, 4, 2)
    pool.destroy(WAIT)
    outcomes = [call.outcome() for call in calls]
    refused = [outcome for outcome in outcomes if isinstance(outcome, PoolClosedError)]
    assert len(refused) == 1
    assert all(outcome.cancelled() for outcome in outcomes if outcome not in refused)
    stats = pool.stats()
    assert (stats.submitted, stats.queued, stats.cancelled, stats.aborted) == (7, 0, 6, 1)
    assert (stats.rejected, stats.rejected_full, stats.completed) == (1, 0, 0)
    assert stats.state is PoolState.OPEN
