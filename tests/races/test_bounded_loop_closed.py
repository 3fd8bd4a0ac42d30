"""A coroutine waits for a place, and its loop is closed as the place comes (BOUNDED 6).

1. A coroutine awaits a place in the queue; a thread waits behind it.
2. Its loop is closed, or the await is cancelled: before the place comes; or after its wake-up is on
   the way, and before the loop has carried that out.
3. The thread has the place, or that which comes after the coroutine's task: no place is left free
   for want of a loop.
"""

import asyncio
import gc
import logging

import pytest
from bounding import Full, submitting
from forcing import PATIENCE


class Awaiting:
    """Coroutines that wait for a place, in a loop that is run by hand."""

    def __init__(self, full, count=1):
        self.loop, self._full = asyncio.new_event_loop(), full
        self.tasks = [self.loop.create_task(full.pool.run(int)) for _ in range(count)]
        self.loop.run_until_complete(self._wait(len(full.dispatch.waiting) + count))

    async def _wait(self, count):
        while len(self._full.dispatch.waiting) < count:
            await asyncio.sleep(0)

    def cancel(self):
        for task in self.tasks:
            task.cancel()
        outcomes = self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)

    def drop(self):
        """The loop is closed, and forgets what it was to do."""
        self.loop.close()
        self.tasks.clear()


@pytest.fixture(autouse=True)
def quiet(caplog):
    """A loop that is closed complains of the tasks that it had."""
    caplog.set_level(logging.CRITICAL + 1, "asyncio")


def one_behind_the_other(new_pool):
    """A coroutine waits for a place, and a thread behind it."""
    full = Full(new_pool(1, max_queue=1))
    awaiting, waiting = Awaiting(full), submitting(full.pool)
    full.waits(2)
    return full, awaiting, waiting


@pytest.mark.parametrize("count", [1, 3, 1500])
def test_it_is_closed_before_the_place_comes(count, new_pool):
    full = Full(new_pool(1, max_queue=1))
    awaiting = Awaiting(full, count)
    waiting = submitting(full.pool)
    full.waits(count + 1)
    awaiting.drop()
    full.free()
    assert not waiting.result().done()
    full.is_at_rest()
    gc.collect()
    full.end()


def test_a_worker_is_none_the_worse(new_pool):
    """Nobody but those of the closed loop waits, when a worker frees a place."""
    full = Full(new_pool(1, max_queue=1))
    awaiting = Awaiting(full, 1500)
    awaiting.drop()
    full.let_go()
    assert full.queued[0].result(PATIENCE) == 0
    assert full.pool.stats().recycles == {}
    full.end()


def test_it_is_cancelled_before_the_place_comes(new_pool):
    full, awaiting, waiting = one_behind_the_other(new_pool)
    awaiting.cancel()
    full.waits(1)
    full.free()
    assert not waiting.result().done()
    awaiting.drop()
    full.end()


def test_it_is_cancelled_as_its_wake_up_is_on_the_way(new_pool):
    full, awaiting, waiting = one_behind_the_other(new_pool)
    full.free()
    assert len(full.dispatch.waiting) == 1
    awaiting.cancel()
    assert not waiting.result().done()
    awaiting.drop()
    full.end()


def test_it_is_closed_as_its_wake_up_is_on_the_way(new_pool):
    """Its task has the place. It is cancelled as soon as the coroutine is gone."""
    full, awaiting, waiting = one_behind_the_other(new_pool)
    full.free()
    awaiting.drop()
    gc.collect()
    assert not waiting.result().done()
    full.is_at_rest()
    full.end()


def test_its_task_has_the_place_though_its_loop_does_not_run(new_pool):
    full, awaiting, waiting = one_behind_the_other(new_pool)
    full.let_go()
    assert waiting.result().result(PATIENCE) == 0  # behind that task
    full.is_at_rest()
    assert awaiting.loop.run_until_complete(awaiting.tasks[0]) == 0
    awaiting.drop()
    full.end()


def test_the_pool_closes_as_its_wake_up_is_on_the_way(new_pool):
    """It has the place already: what was accepted is run."""
    full = Full(new_pool(1, max_queue=1))
    awaiting = Awaiting(full)
    full.free()
    full.let_go()
    full.pool.close()
    assert awaiting.loop.run_until_complete(awaiting.tasks[0]) == 0
    awaiting.drop()
    full.pool.close()


def test_the_pool_closes_before_the_place_comes(new_pool):
    full = Full(new_pool(1, max_queue=1))
    awaiting = Awaiting(full)
    full.pool.shutdown(wait=False)
    full.let_go()
    with pytest.raises(RuntimeError, match="after shutdown"):
        awaiting.loop.run_until_complete(awaiting.tasks[0])
    awaiting.drop()
    full.pool.shutdown()
