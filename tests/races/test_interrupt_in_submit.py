"""A KeyboardInterrupt comes at any place of a submit.

1. The main thread submits; in turn, at each place in the pool's code where CPython looks for
   signals, a KeyboardInterrupt is raised: before and after the append, the look, the wake-up, the
   order of a worker, the start of its thread.
2. The task was accepted or it was not. If it was, it runs, and nobody needs to submit another for
   that. (One exception: the interrupt comes where a function of those starts that were to order a
   worker. There is no place before it at which it could be caught. The task then waits for the next
   submit, or close.)
3. The pool serves on: the next tasks run, on both workers at a time; close() returns; no lock is
   held; no task is stranded.
"""

import threading

import pytest
from forcing import (
    BEFORE_THE_ORDER,
    PATIENCE,
    Steps,
    interrupted_everywhere,
    serves_on,
    settled_and_free,
    with_idle,
)

from recyclepool import RecyclePool

pytestmark = pytest.mark.usefixtures("no_debug")

PLACES = {"nobody": 30, "one idle": 10, "two idle": 10, "busy": 30, "all busy": 7}


@pytest.mark.parametrize("scene", PLACES)
def test_submit_is_interrupted(scene, new_pool):
    def stage():
        pool: RecyclePool = new_pool(2)
        steps = Steps(pool._engine.dispatch, stack=False)
        go = threading.Event()
        if scene in ("one idle", "two idle"):
            with_idle(pool, 1 if scene == "one idle" else 2)
        elif scene in ("busy", "all busy"):
            count = 1 if scene == "busy" else 2
            started = threading.Barrier(count + 1)

            def hold():
                started.wait(PATIENCE)
                assert go.wait(PATIENCE)

            for _ in range(count):
                pool.submit(hold)
            started.wait(PATIENCE)

        def check(where):
            go.set()
            if where not in BEFORE_THE_ORDER:
                for task in steps.accepted:
                    assert task.exception(PATIENCE) is None
            serves_on(pool)
            settled_and_free(steps.accepted)

        return lambda: pool.submit(int), check

    interrupted_everywhere(stage, PLACES[scene])
