"""A submitter is woken for a place, and another has it first (BOUNDED 4).

1. A waits. A place comes: A is taken out of those who wait, and woken.
2. Before A tries again, B submits, from the start to the end of its call, and has the place. (B
   never waited: who waits has no right to a place.)
3. A waits again, and has the next place.
"""

import pytest
from bounding import Full, submitting
from forcing import PATIENCE, elsewhere


@pytest.mark.parametrize("times", [1, 5])
def test_it_waits_again(times, new_pool, monkeypatch):
    full = Full(new_pool(1, max_queue=1), monkeypatch=monkeypatch)
    pool, steps = full.pool, full.steps
    slow, faster = submitting(pool), []
    full.waits()
    for n in range(times):
        steps.once("after waking", lambda: faster.append(elsewhere(pool.submit, int)))
        assert full.queued.pop().cancel()
        full.waits()
        assert len(faster) == n + 1, "it had the place that another has"
        full.is_at_rest()
        assert slow.thread.is_alive()
        full.queued.append(faster[-1])
    full.free()
    assert slow.result().cancel() is True
    full.end()
    assert pool.stats().cancelled == times + 2


def test_of_two_that_are_woken_one_is_too_late(new_pool, monkeypatch):
    """Two wait, two places come; a third takes one before either tries. One of them waits on."""
    full = Full(new_pool(1, max_queue=2), monkeypatch=monkeypatch)
    pool, steps, faster = full.pool, full.steps, []
    calls = [submitting(pool)]
    full.waits(1)
    calls.append(submitting(pool))
    full.waits(2)
    steps.once("after waking", lambda: faster.append(elsewhere(pool.submit, int)))
    full.free()
    full.free()
    full.waits(1)
    assert len(faster) == 1
    full.is_at_rest()
    full.let_go()
    assert [call.result().result(PATIENCE) for call in calls] == [0, 0]
    full.end()
