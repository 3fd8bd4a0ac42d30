"""A worker is retired just as it begins to wait for the end of a pause.

1. The worker is about to hang its lock on the flag / has done so / has looked / sleeps.
2. Another thread retires it: it sets the mark, then nudges those whose locks hang there.
3. Either the lock hangs there; or the worker, which reads its mark after it has hung it there,
   finds the mark. It leaves, in each case, and takes no task: those are its successor's.
"""

import pytest
from forcing import PATIENCE, elsewhere
from pausing import nudged_too_early, one_asleep

from recyclepool import Reason

PLACES = ["before hanging", "after hanging", "after looking", "asleep"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("verb", ["retire", "recycle"])
def test_it_leaves(place, verb, new_pool, monkeypatch):
    pool, steps, worker, tasks = one_asleep(new_pool, monkeypatch)
    steps.pause()

    def retire():
        if verb == "retire":
            elsewhere(pool._engine.retire, worker, Reason.TASKS)
        else:
            replaced.append(pool.recycle(worker.slot))

    replaced = []
    if place != "asleep":
        steps.once(place, retire)
    tasks.submit(5)
    if place == "asleep":
        steps.waits()
        retire()
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive(), "it waits, marked"
    assert tasks.ran == []
    assert pool.stats().paused
    assert [each.result(PATIENCE) for each in replaced] == [1] * len(replaced)
    steps.resume()
    tasks.all_ran()


def test_the_mark_is_set_before_the_nudge(new_pool, monkeypatch):
    """retire() nudges those who wait, and finds nobody.

    The worker hangs its lock there, looks, and sleeps. Had the mark not been set before, nobody
    would wake it.
    """
    pool, steps, worker, tasks = one_asleep(new_pool, monkeypatch)
    steps.pause()
    has_come = nudged_too_early(steps)
    tasks.submit(5)
    has_come()
    elsewhere(pool._engine.retire, worker, Reason.TASKS)
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive(), "it waits, marked"
    assert tasks.ran == []
    steps.resume()
    tasks.all_ran()
