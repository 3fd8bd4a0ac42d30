"""Two submitters want the last place of a bounded queue (BOUNDED 1).

1. A has seen a free place, and is about to append its task; or it has appended it, and is about to
   look at where that stands.
2. B submits, from the start to the end of its call.
3. One has the place. The other is told that the queue is full, or waits and has the next place. No
   more tasks are queued than may be.

And what stands before A's task may go while A looks: then A has a place after all; or it takes its
task back, and a place is free that somebody must be told of (BOUNDED 3).
"""

import threading

import pytest
from bounding import Full, submitting
from forcing import PATIENCE, elsewhere, until, wait

from recyclepool import QueueFullError


def outcome(pool, futures):
    """A submit, here and now."""
    try:
        futures.append(pool.submit(int))
    except QueueFullError as error:
        return error
    return None


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("place", ["before append", "after append"])
def test_one_is_refused(place, most, new_pool):
    full = Full(new_pool(1, max_queue=most, on_full="raise"), most - 1)
    pool, steps, futures, errors = full.pool, full.steps, [], []
    steps.once(place, lambda: errors.append(elsewhere(outcome, pool, futures)))
    errors.append(outcome(pool, futures))
    assert len(full.dispatch.queue) == most
    assert len(futures) == 1
    first_refused = place == "after append"  # B, whose call is over first
    assert [error is not None for error in errors] == [first_refused, not first_refused]
    stats = pool.stats()
    assert (stats.queued, stats.rejected, stats.rejected_full) == (most, 1, 1)
    full.let_go()
    assert futures[0].result(PATIENCE) == 0
    full.end()


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("place", ["before append", "after append"])
def test_one_waits(place, most, new_pool):
    full = Full(new_pool(1, max_queue=most), most - 1)
    pool, steps, calls = full.pool, full.steps, []

    def come():
        calls.append(submitting(pool))
        until(lambda: calls[0].thread.is_alive() is False or full.dispatch.waiting)

    steps.once(place, come, "first")
    first = submitting(pool, "first")
    full.waits()
    until(lambda: calls, "the other came")
    full.is_at_rest()
    (second,) = calls
    early, late = (first, second) if place == "after append" else (second, first)
    assert not early.result().done()
    assert late.thread.is_alive()
    assert len(full.dispatch.queue) == most
    full.let_go()
    assert early.result().result(PATIENCE) == 0
    assert late.result().result(PATIENCE) == 0
    full.end()


@pytest.mark.parametrize("place", ["before counting", "before taking back"])
def test_a_worker_takes_it_meanwhile(place, new_pool):
    """It stands beyond the last place, and is popped before it is taken back: it is accepted."""
    full = Full(new_pool(1, max_queue=1, on_full="raise"), 0)
    pool, steps, taken = full.pool, full.steps, []

    def overtaken():
        elsewhere(pool.submit, int)
        steps.once(place, take_both)

    def take_both():
        taken.extend([full.dispatch.queue.popleft(), full.dispatch.queue.popleft()])

    steps.once("before append", overtaken)
    future = pool.submit(int)
    assert taken[1] is future
    for task in taken:  # as the worker does it
        assert task.begin()
        task.settle(0, None)
    assert pool.stats().rejected == 0
    full.let_go()
    full.pool.wait_idle(PATIENCE)
    full.pool.close()


def test_a_place_comes_as_a_waiting_one_takes_its_task_back(new_pool):
    """What stood before it leaves when it knows where it stands, and sees a queue that is full."""
    full = Full(new_pool(1, max_queue=1))
    pool, steps, faster = full.pool, full.steps, []

    def overtake():
        faster.append(elsewhere(pool.submit, int))
        steps.once("after counting", lambda: faster[0].cancel(), "slow")

    def free():
        full.free()
        steps.once("before append", overtake, "slow")

    steps.once("before waiting", free, "slow")
    slow = submitting(pool, "slow")
    assert not slow.result().done()
    assert faster[0].cancelled()
    full.is_at_rest()
    full.end()


def test_a_place_comes_as_a_refused_one_takes_its_task_back(new_pool, monkeypatch):
    """Another sleeps by then, who is to have it: nobody else comes by."""
    full = Full(new_pool(1, max_queue=1), monkeypatch=monkeypatch)
    pool, steps, faster, come = full.pool, full.steps, [], threading.Event()
    may_wait = pool._engine.may_wait
    monkeypatch.setattr(
        pool._engine,
        "may_wait",
        lambda: "it must not" if threading.current_thread().name == "refused" else may_wait(),
    )
    refused = []

    def overtake():
        faster.append(elsewhere(pool.submit, int))
        come.set()
        full.waits()
        steps.once("after counting", lambda: faster[0].cancel(), "refused")

    def come_between():
        steps.once("before append", overtake, "refused")
        refused.append(submitting(pool, "refused"))
        wait(come)

    waiting = submitting(pool, "waiting")
    full.waits()
    steps.once("after waking", come_between, "waiting")
    full.free()
    assert not waiting.result().done()
    with pytest.raises(QueueFullError, match="it must not"):
        refused[0].result()
    full.is_at_rest()
    full.end()
