"""A KeyboardInterrupt comes at any place of result() or cancel().

1. The main thread waits for a future, or cancels it; in turn, at each place, a KeyboardInterrupt is
   raised.
2. The future is as it was, or has its end: never between. Its lock is free. (Not so in the
   standard's wait() and as_completed(): their own `with future._condition` may leave the lock held,
   with our futures and with theirs. Condition.__enter__ is Python code.)
3. Who asks again gets the answer; the task ran once, or, cancelled, never. The pool serves on.
"""

import concurrent.futures
import threading

import pytest
from forcing import (
    PATIENCE,
    Elsewhere,
    elsewhere,
    interrupted_everywhere,
    is_free,
    serves_on,
    until,
    wait,
    with_idle,
)

pytestmark = pytest.mark.usefixtures("no_debug")

WAYS = {
    "result": lambda future: future.result(PATIENCE),
    "result for ever": lambda future: future.result(),
}


@pytest.mark.parametrize("way", WAYS)
def test_waiting_is_interrupted(way, new_pool):
    pool = with_idle(new_pool(2), 2)

    def stage():
        go, over, runs = threading.Event(), threading.Event(), []

        def task():
            assert go.wait(PATIENCE)
            runs.append(1)
            return 42

        def let_go():
            until(lambda: future._sleepers or over.is_set(), "a waiter")
            go.set()

        future = pool.submit(task)
        helper = Elsewhere(let_go)

        def check(where):
            over.set()
            helper.result()
            assert elsewhere(future.result, PATIENCE) == 42
            assert future.result() == 42
            assert runs == [1]
            assert is_free(future._lock)

        return lambda: WAYS[way](future), check

    interrupted_everywhere(stage, 5)
    serves_on(pool)


def test_cancel_is_interrupted(new_pool):
    pool = new_pool(1)

    def stage():
        go, started, runs, calls = threading.Event(), threading.Event(), [], []

        def hold():
            started.set()
            assert go.wait(PATIENCE)

        pool.submit(hold)
        wait(started)
        future = pool.submit(runs.append, 1)
        future.add_done_callback(calls.append)
        waiting = Elsewhere(concurrent.futures.wait, [future], PATIENCE)
        until(lambda: future._waiters, "a waiter")

        def check(where):
            go.set()
            done, pending = waiting.result()
            assert done == {future}
            assert not pending
            assert runs == ([] if future.cancelled() else [1])
            assert len(calls) <= 1
            if not where:
                assert calls
            assert is_free(future._lock)

        return future.cancel, check

    interrupted_everywhere(stage, 8)
    serves_on(pool, 1)
