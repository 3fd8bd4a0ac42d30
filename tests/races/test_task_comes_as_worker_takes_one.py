"""A task comes just as the only worker has taken another.

1. The worker has taken A out of the queue, and has not begun to run it.
2. Another thread submits B, from the start to the end of its call. The pool has a vacancy.
3. The worker runs A, which waits for B. It is none that will take B: a second worker had to be
   started.
"""

import threading

from forcing import PATIENCE, Steps, elsewhere


def test_who_has_taken_one_takes_no_other(new_pool):
    pool = new_pool(2)
    steps, met = Steps(pool._engine.dispatch), threading.Barrier(2)
    steps.once("after taking a task", lambda: elsewhere(pool.submit, met.wait, PATIENCE))
    pool.submit(met.wait, PATIENCE).result(PATIENCE)
    elsewhere(pool.close)
