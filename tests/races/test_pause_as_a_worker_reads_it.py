"""Dispatch pauses just after a worker has seen that it does not.

1. The worker sets the time of its next look, then reads the pause: there is none.
2. Dispatch pauses: the pause is set, then the worker's time of the next look.
3. The worker takes one task, at most: the time has come at once, and it reads the pause again. Had
   it set that time after its reading, it would go on for as long as that.
"""

import threading

from forcing import wait
from pausing import one_asleep


def test_it_takes_one_task_at_most(new_pool, monkeypatch):
    pool, steps, worker, tasks = one_asleep(new_pool, monkeypatch)
    worker.probe.look_at = float("-inf")
    steps.once("after reading", steps.pause)
    tasks.submit(50)
    steps.waits()
    assert len(tasks.ran) <= 1
    assert pool.stats().paused
    steps.resume()
    tasks.all_ran()


def test_a_pause_that_follows_a_pause(new_pool, monkeypatch):
    """The worker waits for the first, which is over; here is another."""
    pool, steps, _, tasks = one_asleep(new_pool, monkeypatch)

    done = threading.Event()

    def resume_and_pause():
        steps.resume()
        steps.pause()
        done.set()

    steps.pause()
    steps.once("after looking", resume_and_pause)
    tasks.submit(50)
    wait(done)  # it waits for the first until then
    steps.waits()
    assert len(tasks.ran) <= 1
    assert pool.stats().paused
    steps.resume()
    tasks.all_ran()


def test_a_pause_that_is_over_before_the_worker_looks(new_pool, monkeypatch):
    pool, steps, worker, tasks = one_asleep(new_pool, monkeypatch)

    def pause_and_resume():
        steps.pause()
        steps.resume()

    worker.probe.look_at = float("-inf")
    steps.once("after reading", pause_and_resume)
    tasks.submit(50)
    tasks.all_ran()
    assert not pool.stats().paused
