"""The process forks while a worker holds a task that it was handed, and has not gone on.

1. The task is neither in the queue nor in the worker's hands.
2. The child's copy of the pool is fresh and empty: there the future fails, and keys are served.
3. The parent's worker runs it, once.
"""

import os
import threading

import pytest
from forcing import PATIENCE, SpiedWakes, once, serves_on, wait, with_idle, workers
from test_fork_at_nasty_moments import fork_and, is_fresh

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def test_the_child_does_not_wait_for_it(new_pool):
    locks, entered, go_on, runs = [], threading.Event(), threading.Event(), []

    def stay():
        entered.set()
        wait(go_on)

    pool = with_idle(new_pool(2, backend=SpiedWakes(locks)), 2)
    for lock in locks:
        lock.after_acquire = once(stay)
    view = pool.options(key="key")
    future = view.submit(runs.append, 1)
    wait(entered)
    assert [worker.handed for worker in workers(pool) if worker.handed] == [[future]]
    go_on_as = os.getpid()

    def in_child():
        for lock in locks:
            lock.after_acquire = lambda: None
        is_fresh(pool, [future])
        assert view.submit(os.getpid).result(PATIENCE) != go_on_as

    try:
        assert not fork_and(in_child)
    finally:
        go_on.set()
    assert future.result(PATIENCE) is None
    assert runs == [1]
    serves_on(pool)
