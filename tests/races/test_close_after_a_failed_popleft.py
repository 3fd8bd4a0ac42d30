"""A task is accepted, and then the pool closes, just after the worker found none.

1. The worker looks for a task and finds none.
2. Another thread submits (it is accepted: the pool is open), and then begins to close the pool.
3. The worker reads that the pool closes. Its popleft was before that: it looks once more before it
   leaves, and runs the task.
"""

import threading

from forcing import PATIENCE, Steps, elsewhere, run_one, wait


def test_the_worker_looks_once_more(new_pool):
    pool = new_pool(1)
    engine = pool._engine
    dispatch = engine.dispatch
    steps, late, come = Steps(dispatch), [], threading.Event()

    def submit_and_close():
        late.append(pool.submit(threading.get_ident))
        engine.end(dispatch)

    steps.once("after finding none", lambda: (elsewhere(submit_and_close), come.set()))
    first = run_one(pool)
    wait(come)
    assert late[0].result(PATIENCE) == first.result(PATIENCE), "it needed a successor"
    elsewhere(pool.close)
    assert dispatch.ended.done()


def test_closing_wakes_who_has_just_published_itself(new_pool):
    """It closes at step 1: the worker is not in the stack yet, or is seen there. It leaves."""
    for place in ("before publishing", "after publishing"):
        pool = new_pool(1)
        dispatch = pool._engine.dispatch
        steps = Steps(dispatch)
        steps.once(place, lambda pool=pool, old=dispatch: elsewhere(pool._engine.end, old))
        run_one(pool)
        assert dispatch.ended.wait(PATIENCE), place
