"""A queued task is cancelled as a worker takes it (BOUNDED 3).

1. A worker has taken the task out of a bounded queue, and has not begun it; or it is about to look
   for one.
2. Another thread cancels it: it is CANCELLED, and that thread is about to take it out of the queue,
   or finds it gone.
3. The task never runs. It is counted as cancelled once, whoever was faster, and those who wait for
   it are told. Its place is free once: a submitter that waits has it, and no other does.
"""

import threading
from concurrent.futures import wait as wait_for

import pytest
from bounding import Full, submitting
from forcing import PATIENCE, Elsewhere, elsewhere, until, wait


def refuse_to_run():
    raise AssertionError("it was cancelled, and runs")


def test_the_worker_was_faster(new_pool):
    """It has taken it, and not begun it: the cancel finds it gone."""
    full = Full(new_pool(1, max_queue=1), 0)
    pool, come, answers = full.pool, threading.Event(), []
    doomed = pool.submit(refuse_to_run)
    waiting = submitting(pool)
    full.waits()

    def cancel():
        answers.append(elsewhere(doomed.cancel))
        come.set()

    full.steps.once("after taking a task", cancel)
    full.let_go()
    wait(come)
    assert answers == [True]
    assert waiting.result().result(PATIENCE) == 0
    assert doomed in wait_for([doomed], PATIENCE).done
    full.end()
    assert pool.stats().cancelled == 1


@pytest.mark.parametrize("how", ["future", "pool"])
def test_the_cancel_was_faster(how, new_pool):
    """It is CANCELLED; before it is taken out, a worker takes it: that one counts it."""
    full = Full(new_pool(1, max_queue=1), 0)
    pool = full.pool
    doomed = pool.submit(refuse_to_run)
    waiting = submitting(pool)
    full.waits()

    def go_on():
        assert doomed.cancelled()
        full.let_go()
        until(lambda: doomed not in full.dispatch.queue, "the worker takes it")

    full.steps.once("before taking back", go_on, "cancelling")

    def cancel():
        threading.current_thread().name = "cancelling"
        return doomed.cancel() if how == "future" else pool.cancel(doomed)

    assert Elsewhere(cancel).result()
    assert waiting.result().result(PATIENCE) == 0
    until(lambda: pool.stats().cancelled, "somebody counts it")
    full.end()
    assert pool.stats().cancelled == 1


def test_nobody_takes_it(new_pool):
    """Only one of two that wait has the place, and there are no more queued than may be."""
    full = Full(new_pool(1, max_queue=1), 0)
    pool = full.pool
    doomed = pool.submit(refuse_to_run)
    calls = [submitting(pool)]
    full.waits(1)
    calls.append(submitting(pool))
    full.waits(2)
    assert doomed.cancel()
    full.waits(1)
    assert len(full.dispatch.queue) == 1
    full.is_at_rest()
    assert pool.stats().cancelled == 1
    full.let_go()
    assert [call.result().result(PATIENCE) for call in calls] == [0, 0]
    full.end()


def test_it_is_cancelled_twice(new_pool):
    """One is about to take it out as the other cancels it again: it is counted once."""
    full = Full(new_pool(1, max_queue=2))
    doomed = full.queued[0]
    full.steps.once("before taking back", lambda: elsewhere(doomed.cancel))
    assert doomed.cancel()
    assert len(full.dispatch.queue) == 1
    until(lambda: full.pool.stats().cancelled)
    full.end()
    assert full.pool.stats().cancelled == 1


def test_the_pool_cancels_it_too(new_pool):
    """It is about to be taken out as shutdown() cancels all that is queued."""
    full = Full(new_pool(1, max_queue=2))
    ending, doomed = [], full.queued[0]

    def shut_down():
        ending.append(Elsewhere(lambda: full.pool.shutdown(cancel_futures=True)))
        until(lambda: full.queued[1].cancelled())

    full.steps.once("before taking back", shut_down, threading.current_thread().name)
    assert doomed.cancel()
    full.let_go()
    ending[0].result()
    stats = full.pool.stats()
    assert (stats.cancelled, stats.completed, stats.queued) == (2, 1, 0)
    assert stats.submitted == 3
