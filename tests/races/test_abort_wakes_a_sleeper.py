"""A task that is to be aborted sleeps in the pool's code, or is about to.

1. The task waits for something that never comes. It holds its gate meanwhile.
2. Another thread asks for its abort, just before the task shows what it sleeps on / just after /
   while it sleeps. It leaves its wish, then looks for a sleeper to wake.
3. The task shows its sleeper, then looks at the wishes: one of the two sees the other. It wakes, or
   does not fall asleep, and raises on its way out.
"""

import concurrent.futures
import threading

import pytest
from forcing import (
    PATIENCE,
    Spied,
    abort,
    elsewhere,
    is_free,
    once,
    serves_on,
    until,
    with_idle,
    workers,
)

from recyclepool import TaskAbortedError, current_worker
from recyclepool._future import Future
from recyclepool._gate import Flag

WAYS = {
    "result": lambda never: never.result(),
    "result with a timeout": lambda never: never.result(10 * PATIENCE),
    "exception": lambda never: never.exception(),
    "wait": lambda never: concurrent.futures.wait([never]),
    "wait for two": lambda never: concurrent.futures.wait([never, Future()]),
    "as_completed": lambda never: next(concurrent.futures.as_completed([never])),
    "a flag": lambda never: Flag().wait(),
    "stopping": lambda never: current_worker().stopping.wait(10 * PATIENCE),
}


def over(pool, worker, future, never):
    """The end that such a task has to have."""
    assert isinstance(future.exception(PATIENCE), TaskAbortedError)
    worker.thread.join(PATIENCE)
    assert is_free(worker.gate.lock)
    assert is_free(never._lock)
    assert elsewhere(never.settle, 42, None), "its driver would hang"
    serves_on(pool, 1)


@pytest.mark.parametrize("way", WAYS)
def test_while_it_sleeps(way, new_pool):
    pool = with_idle(new_pool(1), 1)
    worker, never = workers(pool)[0], Future()
    future = pool.submit(WAYS[way], never)
    until(lambda: worker.gate.sleeper is not None, "the task to sleep")
    assert abort(pool, worker, future) == [None]
    over(pool, worker, future, never)


@pytest.mark.parametrize("way", ["result", "result with a timeout"])
def test_before_it_shows_what_it_sleeps_on(way, new_pool):
    pool = with_idle(new_pool(1), 1)
    worker, never, answers = workers(pool)[0], Future(), []
    never._lock = lock = Spied(never._lock)

    def ask():
        assert worker.gate.sleeper is None
        answers.extend(elsewhere(abort, pool, worker, futures[0]))

    lock.after_release = once(ask)  # it has hung its sleeper on the future, and goes to sleep
    ready, futures = threading.Event(), []
    futures.append(pool.submit(lambda: ready.wait(PATIENCE) and WAYS[way](never)))
    ready.set()
    over(pool, worker, futures[0], never)
    assert answers == [None]


@pytest.mark.parametrize("way", ["result", "result with a timeout", "wait", "as_completed"])
def test_before_it_looks_whether_it_is_wanted(way, new_pool, monkeypatch):
    pool = with_idle(new_pool(1), 1)
    worker, answers, futures, ready = workers(pool)[0], [], [], threading.Event()

    def ask():
        answers.extend(elsewhere(abort, pool, worker, futures[0]))

    class Late(Future):
        def done(self):
            if worker.gate.sleeper is not None:
                first()
            return super().done()

    def flag_is_set(flag):
        if worker.gate.sleeper is not None:
            first()
        return flag._set

    first, never = once(ask), Late()
    monkeypatch.setattr(Flag, "is_set", flag_is_set)
    futures.append(pool.submit(lambda: ready.wait(PATIENCE) and WAYS[way](never)))
    ready.set()
    over(pool, worker, futures[0], never)
    assert answers == [None]
