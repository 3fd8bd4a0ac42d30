"""A place comes as a submitter goes to sleep for want of one (BOUNDED 2, 3).

1. The submitter found the queue full. It is about to show its sleeper / has shown it, and is about
   to try again / has tried again, and is about to sleep.
2. A place comes: a queued task is cancelled, or a worker takes one.
3. The submitter has the place. Nobody else will wake it.
"""

import pytest
from bounding import Full, submitting
from forcing import PATIENCE, until

PLACES = ["before waiting", "after waiting", "before sleeping"]


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("place", PLACES)
def test_by_a_cancel(place, most, new_pool, monkeypatch):
    full = Full(new_pool(1, max_queue=most), monkeypatch=monkeypatch)
    steps = full.steps
    steps.once(place, full.free)
    late = submitting(full.pool).result()
    assert not late.done()
    full.is_at_rest()
    assert len(full.dispatch.queue) == most
    full.let_go()
    assert late.result(PATIENCE) == 0
    full.end()
    assert full.pool.stats().cancelled == 1


@pytest.mark.parametrize("place", PLACES)
def test_by_a_worker(place, new_pool, monkeypatch):
    full = Full(new_pool(1, max_queue=1), monkeypatch=monkeypatch)
    steps = full.steps

    def go_on():
        full.let_go()
        until(full.queued[0].done, "the worker has taken it")

    steps.once(place, go_on)
    assert submitting(full.pool).result().result(PATIENCE) == 0
    full.end()


@pytest.mark.parametrize("place", PLACES)
def test_two_places_for_two(place, new_pool, monkeypatch):
    """One sleeps already. Two places come at once: none is left free beside a sleeper."""
    full = Full(new_pool(1, max_queue=2), monkeypatch=monkeypatch)
    steps = full.steps
    sleeping = submitting(full.pool, "sleeping")
    full.waits()
    steps.once(place, lambda: (full.free(), full.free()), "second")
    second = submitting(full.pool, "second")
    assert not sleeping.result().done()
    assert not second.result().done()
    full.is_at_rest()
    full.end()
