"""A signal handler, a finalizer or a weakref callback submits in the middle of a submit.

1. A thread is in submit(), just before its append, or just after it.
2. There, on the same thread, foreign code runs and submits to the same pool.
3. Neither waits for the other; both tasks run, whether a worker is idle, is to be started, or all
   are busy.
"""

import threading

import pytest
from forcing import (
    PATIENCE,
    Steps,
    by_finalizer,
    by_signal,
    by_weakref,
    elsewhere,
    serves_on,
    wait,
    with_idle,
)


@pytest.mark.parametrize("come", [by_signal, by_finalizer, by_weakref])
@pytest.mark.parametrize("place", ["before append", "after append"])
@pytest.mark.parametrize("scene", ["nobody", "idle", "busy"])
def test_both_run(come, place, scene, new_pool):
    pool = new_pool(1)
    steps, go, late = Steps(pool._engine.dispatch), threading.Event(), []
    if scene == "idle":
        with_idle(pool, 1)
    elif scene == "busy":
        started = threading.Event()
        pool.submit(lambda: (started.set(), go.wait(PATIENCE)))
        wait(started)
    steps.once(place, lambda: come(lambda: late.append(pool.submit(int, "1"))))
    late.append(pool.submit(int, "2"))
    go.set()
    assert sorted(future.result(PATIENCE) for future in late) == [1, 2]
    serves_on(pool, 1)


@pytest.mark.parametrize("come", [by_finalizer, by_weakref])
@pytest.mark.parametrize("place", ["before append", "after append"])
def test_within_a_submit_of_a_task(come, place, new_pool):
    """The same on a worker's thread, which holds its gate then."""
    pool = new_pool(2)
    steps, late = Steps(pool._engine.dispatch), []

    def task():
        steps.once(place, lambda: come(lambda: late.append(pool.submit(int, "1"))))
        late.append(pool.submit(int, "2"))
        return pool._engine.dispatch is not None

    assert pool.submit(task).result(PATIENCE)
    assert sorted(future.result(PATIENCE) for future in late) == [1, 2]
    elsewhere(pool.close)
