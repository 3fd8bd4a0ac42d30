"""A pause ends, or its pool does, just as a worker begins to wait for that.

1. The worker has read the pause / is about to hang its lock on the flag / has done so / has looked.
2. Dispatch goes on: the flag is set, then all are woken whose locks hang there.
3. Either the lock hangs there; or the worker, which reads the flag after it has hung it there,
   finds it set. It takes the tasks, in each case.
"""

import threading
from functools import partial

import pytest
from forcing import PATIENCE, Elsewhere, elsewhere, wait
from pausing import nudged_too_early, one_asleep

PLACES = pytest.mark.parametrize(
    "place", ["after reading", "before hanging", "after hanging", "after looking"]
)


@PLACES
def test_tasks_start(place, new_pool, monkeypatch):
    pool, steps, worker, tasks = one_asleep(new_pool, monkeypatch)
    steps.pause()
    steps.once(place, steps.resume)
    tasks.submit(5)
    tasks.all_ran()
    assert not pool.stats().paused
    assert worker.thread.is_alive()


def test_the_flag_is_set_before_the_nudge(new_pool, monkeypatch):
    """Dispatch goes on, and wakes those who wait: it finds nobody.

    The worker hangs its lock there, looks, and sleeps. Had the flag not been set before, nobody
    would wake it.
    """
    pool, steps, _, tasks = one_asleep(new_pool, monkeypatch)
    steps.pause()
    has_come = nudged_too_early(steps)
    tasks.submit(5)
    has_come()
    steps.resume()
    tasks.all_ran()
    assert not pool.stats().paused


@PLACES
@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_an_end_that_drains(place, end, new_pool, monkeypatch):
    pool, steps, worker, tasks = one_asleep(new_pool, monkeypatch)
    engine, submitted, ends = pool._engine, threading.Event(), []
    steps.pause()

    def begin_to_end():
        wait(submitted)
        elsewhere(partial(engine.end, engine.dispatch, terminal=end == "shutdown"))
        ends.append(Elsewhere(getattr(pool, end)))

    steps.once(place, begin_to_end)
    tasks.submit(5)
    submitted.set()
    tasks.all_ran()
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive()
    ends[0].result()


@PLACES
def test_destroy(place, new_pool, monkeypatch):
    pool, steps, worker, tasks = one_asleep(new_pool, monkeypatch)
    engine, submitted = pool._engine, threading.Event()
    steps.pause()

    def begin_to_destroy():
        wait(submitted)
        elsewhere(engine.abort, engine.dispatch)

    steps.once(place, begin_to_destroy)
    futures = [pool.submit(tasks.ran.append, n) for n in range(5)]
    submitted.set()
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive()
    elsewhere(pool.destroy, PATIENCE)
    assert all(future.cancelled() for future in futures)
    assert tasks.ran == []
