"""Scenarios C2, R18 and S22: what ends a wait for a place, who must not wait, and what is told."""

import asyncio
import logging
import threading

import pytest
from listening import Events, no_lingering  # noqa: F401
from pressing import ENDS, WAYS, blocked, ends, fill, ways
from staging import WAIT, in_thread, until

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    PoolClosedError,
    QueueFullError,
    TaskAbortedError,
)
from recyclepool.events import QueueFull, QueueRelieved

EDGES = ("QueueFull", "QueueRelieved")

# -- C2: what ends a wait --------------------------------------------------------------------------


@ends
@ways
def test_c2_blocked_submitters_are_woken_at_once(new_pool, new_spin, way, end):
    """With the pool's own error; also while the pool drains."""
    pool, spin = new_pool(1, max_queue=1), new_spin()
    queued = fill(pool, spin)
    calls = [in_thread(way, pool) for _ in range(3)]
    blocked(pool, 3)
    dispatch = pool._engine.dispatch
    ending = in_thread(end, pool)
    for call in calls:
        with pytest.raises(PoolClosedError):
            call.result()
    assert not dispatch.waiting
    spin.release()
    ending.result()
    assert queued[0].done() or end is ENDS["shutdown later"]
    pool.shutdown() if pool._shutdown else pool.close()
    stats = pool.stats()
    assert (stats.rejected, stats.rejected_full, stats.queued) == (3, 0, 0)


def test_c2_they_are_woken_while_close_still_drains(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=1), new_hold()
    queued = fill(pool, hold)
    call = in_thread(pool.submit, int)
    blocked(pool)
    closing = in_thread(pool.close)
    with pytest.raises(PoolClosedError, match="is closing"):
        call.result()
    assert not closing.is_over()
    assert not queued[0].done()
    hold.release()
    closing.result()
    assert queued[0].result(0) == 0


def test_c2_a_pool_that_breaks_wakes_them_too(new_pool, new_hold, caplog):
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    hold = new_hold()

    def initializer():
        hold()
        raise OSError("no initializer today")

    pool = new_pool(1, max_queue=1, initializer=initializer)
    queued = pool.submit(int)
    hold.wait_started()
    calls = [in_thread(way, pool) for way in WAYS.values()]
    blocked(pool, len(calls))
    hold.release()
    for call in calls:
        with pytest.raises(BrokenRecyclePool, match="no initializer today"):
            call.result()
    assert isinstance(queued.exception(WAIT), BrokenRecyclePool)
    pool.close()
    stats = pool.stats()
    assert (stats.rejected, stats.rejected_full) == (len(calls), 0)


# -- S22: who must not wait ------------------------------------------------------------------------


@ways
def test_s22_an_own_task_is_refused(new_pool, way):
    """It would wait for itself."""
    pool, go = new_pool(1, max_queue=1), threading.Event()

    def task():
        go.wait(WAIT)
        with pytest.raises(QueueFullError, match="own tasks cannot wait for a place"):
            way(pool)
        return "refused"

    running = pool.submit(task)
    until(running.running)
    queued = pool.submit(int)
    go.set()
    assert running.result(WAIT) == "refused"
    assert queued.result(WAIT) == 0
    stats = pool.stats()
    assert (stats.rejected, stats.rejected_full) == (1, 1)


def test_s22_an_own_task_submits_while_there_is_a_place(new_pool):
    pool = new_pool(1, max_queue=1)
    inner = pool.submit(lambda: pool.submit(divmod, 7, 2)).result(WAIT)
    assert inner.result(WAIT) == (3, 1)


def test_s22_an_own_callback_is_refused(new_pool, new_hold):
    pool, hold, told = new_pool(1, max_queue=1), new_hold(), []
    running = pool.submit(hold)
    hold.wait_started()

    def callback(_):
        try:
            told.append(pool.submit(int))
            told.append(pool.submit(int))
        except QueueFullError as error:
            told.append(error)

    running.add_done_callback(callback)
    hold.release()
    until(lambda: len(told) == 2)
    assert told[0].result(WAIT) == 0
    assert "own tasks cannot wait" in str(told[1])


@pytest.mark.parametrize("way", [way for way in WAYS if not way.endswith("run")])
def test_s22_an_event_loops_thread_is_refused(new_pool, new_hold, way):
    """All its coroutines would stand still. It is told what to write."""
    pool, hold = new_pool(1, max_queue=1), new_hold()
    fill(pool, hold)

    async def main():
        with pytest.raises(QueueFullError, match=r"write await pool\.run\(") as caught:
            WAYS[way](pool)
        return str(caught.value)

    assert "max_queue=1" in asyncio.run(main())
    assert pool.stats().rejected_full == 1
    blocked(pool, 0)
    in_thread(asyncio.run, main()).result()  # in another thread likewise
    assert pool.stats().rejected_full == 2


@ways
def test_s22_a_task_of_another_pool_waits(new_pool, new_hold, way):
    pool, other, hold = new_pool(1, max_queue=1), new_pool(1), new_hold()
    fill(pool, hold)
    outer = other.submit(way, pool)
    blocked(pool)
    hold.release()
    assert outer.result(WAIT) == 7


@pytest.mark.parametrize("stop", ["destroy", "cancel", "timeout"])
@pytest.mark.parametrize("way", ["submit", "map", "map_unordered", "options submit"])
def test_a_task_of_another_pool_that_waits_can_be_aborted(new_pool, new_hold, way, stop):
    """By its own pool; the other one is none the worse."""
    pool, hold = new_pool(1, max_queue=1), new_hold()
    other = new_pool(1, limits=Limits(task_timeout=0.05) if stop == "timeout" else None)
    queued = fill(pool, hold)
    outer = other.submit(WAYS[way], pool)
    if stop != "timeout":
        blocked(pool)
    if stop == "destroy":
        assert not other.destroy(WAIT).abandoned
    elif stop == "cancel":
        assert other.cancel(outer)
    assert isinstance(outer.exception(WAIT), TaskAbortedError | TimeoutError)
    blocked(pool, 0)
    assert other.submit(int).result(WAIT) == 0
    assert other.stats().abandoned == 0
    following = in_thread(pool.submit, int)
    blocked(pool)
    assert queued[0].cancel()
    assert not following.result().done()
    hold.release()
    assert following.result().result(WAIT) == 0


# -- R18: pressure events --------------------------------------------------------------------------


def edges(events):
    return [kind for kind in events.kinds() if kind in EDGES]


def refused(pool, times=1):
    for _ in range(times):
        with pytest.raises(QueueFullError):
            pool.submit(int)


def held(pool, hold):
    pool.submit(hold)
    hold.wait_started()


def test_r18_pressure_events_fire_on_edges_only(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=4, on_full="raise"), new_hold()
    events = Events(pool)
    held(pool, hold)
    queued = [pool.submit(int) for _ in range(4)]
    refused(pool, 5)
    assert events.wait_for(QueueFull)[0].queued == 4
    queued.pop().cancel()  # one place: it is not half empty
    queued.append(pool.submit(int))
    refused(pool)
    queued.pop().cancel()
    assert pool.stats().queued == 3
    queued.pop().cancel()
    assert events.wait_for(QueueRelieved)[0].queued == 2
    queued.pop().cancel()
    queued += [pool.submit(int) for _ in range(3)]
    refused(pool)
    events.wait_for(QueueFull, 2)
    hold.release()
    events.wait_for(QueueRelieved, 2)
    assert pool.wait_idle(WAIT)
    assert edges(events) == ["QueueFull", "QueueRelieved"] * 2


@pytest.mark.parametrize("most", [1, 2, 5])
def test_r18_one_that_blocks_tells_it_too(new_pool, new_hold, most):
    pool, hold = new_pool(1, max_queue=most), new_hold()
    events = Events(pool)
    held(pool, hold)
    for _ in range(most):
        pool.submit(int)
    calls = [in_thread(pool.submit, int), in_thread(asyncio.run, pool.run(int))]
    events.wait_for(QueueFull)
    until(lambda: len(pool._engine.dispatch.waiting) == 2)
    assert edges(events) == ["QueueFull"]
    hold.release()
    calls[0].result().result(WAIT)
    calls[1].result()
    assert pool.wait_idle(WAIT)
    events.wait_for(QueueRelieved, len(events.of(QueueFull)))
    assert_alternating(events)


def assert_alternating(events):
    told = edges(events)
    assert told[::2] == ["QueueFull"] * len(told[::2])
    assert told[1::2] == ["QueueRelieved"] * len(told[1::2])


def test_r18_a_queue_that_is_never_full_tells_nothing(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=4), new_hold()
    events = Events(pool)
    held(pool, hold)
    futures = [pool.submit(int) for _ in range(4)]
    hold.release()
    assert [future.result(WAIT) for future in futures] == [0] * 4
    pool.close()
    assert edges(events) == []


def test_r18_under_fire_they_alternate(new_pool):
    pool = new_pool(2, max_queue=3, on_full="raise")
    events = Events(pool)
    together = threading.Barrier(3)

    def hammer():
        together.wait(WAIT)
        for _ in range(300):
            try:
                pool.submit(int)
            except QueueFullError:
                pass

    for call in [in_thread(hammer) for _ in range(3)]:
        call.result()
    pool.close()
    until(lambda: "Closed" in " ".join(events.kinds()), "the end is told")
    stats = pool.stats()
    assert stats.submitted + stats.rejected_full == 900
    assert_alternating(events)


@pytest.mark.parametrize("end", ["close", "destroy"])
def test_r18_the_next_epoch_begins_relieved(new_pool, new_hold, end):
    pool, hold = new_pool(1, max_queue=1, on_full="raise"), new_hold()
    events = Events(pool)
    for _ in range(2):
        hold = new_hold()
        held(pool, hold)
        pool.submit(int)
        refused(pool)
        ending = in_thread(getattr(pool, end))
        until(lambda: pool._engine.dispatch.closing)
        hold.release()
        ending.result()
    events.wait_for(QueueFull, 2)
    assert edges(events).count("QueueFull") == 2
    events.wait_for(QueueRelieved, 2)
    assert_alternating(events)


# -- S19: what comes amid the pool's own work ------------------------------------------------------


def test_s19_a_finalizer_amid_the_pools_own_work_does_not_wait(new_pool, new_hold, monkeypatch):
    """It would hold up the very orders that make room."""
    pool, hold, said = new_pool(1, max_queue=1), new_hold(), []
    fill(pool, hold)
    orders = pool._engine._orders
    reconcile = orders._reconcile

    def amid_an_order(last):
        if not said:
            try:
                said.append(pool.submit(int))
            except QueueFullError as error:
                said.append(error)
        reconcile(last)

    monkeypatch.setattr(orders, "_reconcile", amid_an_order)
    pool._engine.look()
    assert "amid a pool's own work" in str(said[0])
    call = in_thread(pool.submit, int)  # this one may
    blocked(pool)
    hold.release()
    assert call.result().result(WAIT) == 0


def test_s19_a_handler_within_submit_has_the_worker_woken(new_pool, monkeypatch):
    """1. The main thread appends its task. 2. Before it looks, a handler finds the queue full.

    It waits for a place, and only the look would wake the worker that makes one.
    """
    pool = new_pool(1, max_queue=1)
    pool.submit(int).result(WAIT)
    until(lambda: pool._engine.dispatch.idle)
    dispatch, futures = pool._engine.dispatch, []

    class Queue(type(dispatch.queue)):
        def append(self, task):
            super().append(task)
            if not futures:
                futures.append(None)
                futures[0] = pool.submit(len, "ab")

    monkeypatch.setattr(dispatch, "queue", Queue())
    pool.recycle(0).result(WAIT)  # the worker had its popleft from the queue before
    until(lambda: dispatch.idle)
    assert in_thread(pool.submit, len, "abc").result().result(WAIT) == 3
    assert futures[0].result(WAIT) == 2


def test_s19_who_holds_the_lock_of_a_task_does_not_wait(new_pool, new_hold):
    """As wait() does while it looks at its futures, when a finalizer comes: no task could end."""
    pool, hold = new_pool(1, max_queue=1), new_hold()
    running = pool.submit(hold)
    hold.wait_started()
    queued = pool.submit(int)

    def finalizer_amid_wait(task):
        with task._condition, pytest.raises(QueueFullError, match="amid a pool's own work"):
            pool.submit(int)
        return pool.submit(int)  # and now it may

    calls = [in_thread(finalizer_amid_wait, task) for task in (running, queued)]
    blocked(pool, 2)
    hold.release()
    assert [call.result().result(WAIT) for call in calls] == [0, 0]


def test_a_coroutine_whose_loop_is_broken_gives_way(new_pool, new_hold):
    class Sleeper:
        def release(self):
            raise OSError("its loop is no more")

    pool, hold = new_pool(1, max_queue=1), new_hold()
    (queued,) = fill(pool, hold)
    pool._engine.dispatch.waiting.extend(Sleeper() for _ in range(3))
    call = in_thread(pool.submit, int)
    blocked(pool, 4)
    hold.release()
    assert call.result().result(WAIT) == 0
    assert queued.result(WAIT) == 0
    assert "lost" not in pool.stats().recycles
    pool._engine.dispatch.waiting.append(Sleeper())
    assert pool.close().completed >= 0
