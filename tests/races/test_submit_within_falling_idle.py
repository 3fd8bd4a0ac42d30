"""A finalizer or a weakref callback submits on the worker's own thread, as that falls idle.

1. The worker looks for a task and finds none / is about to put itself into the idle stack / has
   done so.
2. There, on its own thread, foreign code runs and submits to the same pool.
3. The task runs: by this worker, which wakes itself, or sees it.
"""

import threading

import pytest
from forcing import PATIENCE, Steps, by_finalizer, by_weakref, run_one, serves_on, wait


@pytest.mark.parametrize("come", [by_finalizer, by_weakref])
@pytest.mark.parametrize("place", ["after finding none", "before publishing", "after publishing"])
def test_it_runs(come, place, new_pool):
    pool = new_pool(1)
    steps, late, submitted = Steps(pool._engine.dispatch), [], threading.Event()

    def submit():
        late.append(pool.submit(int))
        submitted.set()

    steps.once(place, lambda: come(submit))
    run_one(pool)
    wait(submitted)
    assert late[0].result(PATIENCE) == 0
    serves_on(pool, 1)
