"""A task comes just as the worker falls idle.

1. The worker looks for a task and finds none / is about to put itself into the idle stack / has
   done so.
2. Another thread submits, from the start to the end of its call.
3. The worker goes on. Nobody else will wake it: it must have been seen, or see the task itself.
"""

import threading

import pytest
from forcing import PATIENCE, Steps, elsewhere, run_one, wait


@pytest.mark.parametrize("place", ["after finding none", "before publishing", "after publishing"])
def test_it_is_not_stranded(place, new_pool):
    pool = new_pool(1)
    steps, late, come = Steps(pool._engine.dispatch), [], threading.Event()

    def submit():
        late.append(elsewhere(pool.submit, int))
        come.set()

    steps.once(place, submit)
    run_one(pool)
    wait(come)
    assert late[0].result(PATIENCE) == 0
    elsewhere(pool.close)
