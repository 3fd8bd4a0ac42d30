"""A future ends while as_completed() or wait() takes stock of it.

1. The main thread holds the future's Condition: it has seen that the future is pending, and is
   about to install its waiter.
2. The driver settles the future. It comes to the lock, and has to wait there.
3. The waiter is installed. The driver stores the state and notifies, under the same lock.
4. The future is seen once, and it is done when it is seen; wait() returns no future that is
   pending.
"""

import concurrent.futures
import threading

import pytest
from forcing import PATIENCE, Elsewhere, Spied, noop, wait

from recyclepool._future import Future


@pytest.fixture
def contested(monkeypatch):
    """A running future that is settled at step 1, and its settler."""
    future, arrived, settlers = Future(), threading.Event(), []
    future.begin()
    future._lock = lock = Spied(future._lock)
    install = concurrent.futures._base._create_and_install_waiters

    def settle():
        lock.before_acquire = arrived.set
        try:
            return future.settle(42, None)
        finally:
            lock.before_acquire = noop
            arrived.set()

    def install_late(*args):
        settlers.append(Elsewhere(settle))
        wait(arrived)
        return install(*args)

    monkeypatch.setattr(concurrent.futures._base, "_create_and_install_waiters", install_late)
    yield future
    assert settlers.pop().result() is True
    assert not future._waiters, "a waiter was left"


def test_as_completed(contested):
    seen = [(f, f.done()) for f in concurrent.futures.as_completed([contested], PATIENCE)]
    assert seen == [(contested, True)]


@pytest.mark.parametrize("until", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
def test_wait(contested, until):
    done, pending = concurrent.futures.wait([contested], PATIENCE, until)
    assert (done, pending) == ({contested}, set())
    assert contested.done()


def test_a_state_is_final_before_it_is_told():
    """Whoever is notified reads the state without the lock."""
    future, seen = Future(), []

    class Waiter:
        event = threading.Event()

        def add_result(self, told):
            seen.append((told.done(), told.result()))

    with future._condition:
        future._waiters.append(Waiter())
    future.begin()
    assert future.settle(42, None)
    assert seen == [(True, 42)]


def test_who_lost_tells_nobody():
    """Else as_completed() would see the future a second time."""
    future, told = Future(), []

    class Waiter:
        event = threading.Event()

        def add_result(self, future):
            told.append(future)

    with future._condition:
        future._waiters.append(Waiter())
    future.begin()
    assert future.settle(42, None)
    assert not future.settle(43, None)
    assert not future.withdraw()
    assert told == [future]
