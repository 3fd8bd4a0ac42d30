"""A task is to be aborted while it is in the pool's code.

1. The task is in the middle of submit(): its thread holds the gate.
2. Another thread asks for its abort. It cannot inject, and leaves its wish.
3. submit() goes on undisturbed to its end: what it submitted is accepted, and runs.
4. The task comes out of submit(), and there it raises. It does not go on.
"""

import threading

from forcing import PATIENCE, Steps, abort, is_free, serves_on, wait, with_idle, workers

from recyclepool import TaskAbortedError
from recyclepool.errors import TaskAbort


def test_it_surfaces_on_the_way_out(new_pool):
    pool = new_pool(1)
    steps = Steps(pool._engine.dispatch)
    worker = workers(with_idle(pool, 1))[0]
    inside, go_on, children, beyond = threading.Event(), threading.Event(), [], []

    def stop_here():
        inside.set()
        wait(go_on)

    def parent():
        steps.once("after append", stop_here)
        try:
            children.append(pool.submit(int))
        finally:
            beyond.append(steps.accepted[-1])
        beyond.append("went on")

    future = pool.submit(parent)
    wait(inside)
    assert abort(pool, worker, future) == [None], "injected into the pool's code"
    go_on.set()
    assert isinstance(future.exception(PATIENCE), TaskAbortedError)
    assert isinstance(future.exception().__cause__, TaskAbort)
    assert not children
    assert len(beyond) == 1
    assert beyond[0].result(PATIENCE) == 0
    worker.thread.join(PATIENCE)
    assert is_free(worker.gate.lock)
    serves_on(pool, 1)


def test_one_wish_is_one_exception(new_pool):
    """Asked for twice before it comes out, it is raised once: not in its cleanup, too."""
    pool = new_pool(1)
    steps = Steps(pool._engine.dispatch)
    worker = workers(with_idle(pool, 1))[0]
    inside, go_on, cleaned = threading.Event(), threading.Event(), []

    def stop_here():
        inside.set()
        wait(go_on)

    def parent():
        steps.once("before append", stop_here)
        try:
            pool.submit(int)
        finally:
            cleaned.append(pool.submit(int))

    future = pool.submit(parent)
    wait(inside)
    assert abort(pool, worker, future) == [None]
    assert abort(pool, worker, future) == [None]
    go_on.set()
    assert isinstance(future.exception(PATIENCE), TaskAbortedError)
    assert cleaned[0].result(PATIENCE) == 0
    serves_on(pool, 1)
