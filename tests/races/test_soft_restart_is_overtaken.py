"""A soft restart is overtaken by close, destroy, shutdown, resize or another one, at each order.

1. A soft restart of three workers is under way: each order (a successor is ready, an old one goes)
   is carried out, one after the other.
2. Behind the `n`-th of them, for each n in turn, comes the order of the other.
3. The restart's future has its end: the number replaced, or PoolClosedError. Nothing hangs, no task
   is lost, and the invariants hold after each order.
"""

import threading
from concurrent.futures import CancelledError
from contextlib import suppress

import pytest
from forcing import PATIENCE, Elsewhere, elsewhere, serves_on, until, wait, with_idle, workers

from recyclepool import Limits, PoolClosedError, PoolState, State, TaskAbortedError

SIZE = 3
OVERTAKERS = {
    "close": lambda pool: pool._engine.end(pool._engine.dispatch),
    "destroy": lambda pool: pool._engine.abort(pool._engine.dispatch),
    "shutdown": lambda pool: pool.shutdown(wait=False),
    "resize down": lambda pool: pool.resize(1),
    "resize up": lambda pool: pool.resize(5),
    "soft_restart": lambda pool: pool.soft_restart(),
}


class AfterOrders:
    """Calls an action, once, when the n-th order from now on has been carried out."""

    def __init__(self, engine, n, action):
        self.called = threading.Event()
        self._reconcile = engine._orders._reconcile
        self._left, self._armed = n, [action]
        engine._orders._reconcile = self._count

    def _count(self, *last):
        self._reconcile(*last)
        self._left -= 1
        if self._left == 0 and self._armed:
            self._call(self._armed.pop)

    def _call(self, take):
        try:
            action = take()
        except IndexError:
            return
        self.called.set()
        with suppress(PoolClosedError):  # resize, where the pool closes
            action()

    def disarm(self):
        """Whoever comes first: it is called, or it never will be."""
        with suppress(IndexError):
            self._armed.pop()


@pytest.mark.parametrize("busy", [0, 1, 3])
@pytest.mark.parametrize("surge", [0, 1, 2])
@pytest.mark.parametrize("overtaker", OVERTAKERS)
def test_all_has_its_end(overtaker, surge, busy, new_pool):
    for n in range(1, 40):
        if not overtaken(new_pool, OVERTAKERS[overtaker], surge, busy, n):
            break
    assert n > 5, "there are more orders than that"


def overtaken(new_pool, overtake, surge, busy, n):
    """False: the restart was over before the n-th order."""
    pool = with_idle(new_pool(SIZE, limits=Limits(max_surge=surge)), SIZE)
    engine, go, running = pool._engine, threading.Event(), threading.Semaphore(0)

    def hold():
        running.release()
        assert go.wait(PATIENCE)

    holding = [pool.submit(hold) for _ in range(busy)]
    for _ in holding:
        assert running.acquire(timeout=PATIENCE)
    old = workers(pool)
    try:
        orders = AfterOrders(engine, n, lambda: overtake(pool))
        called = orders.called
        restart = pool.soft_restart()
        if n > 1:
            go.set()  # else they are busy when it comes
        until(lambda: called.is_set() or restart.done(), "either")
        orders.disarm()
    finally:
        go.set()
    try:
        replaced = restart.result(PATIENCE)
    except PoolClosedError:
        assert called.is_set()
    else:
        assert 0 <= replaced <= SIZE
        assert called.is_set() or replaced == SIZE
        assert all(w.state is not State.SERVING or w.due for w in old if w in workers(pool))
    for each in holding:
        try:
            assert each.result(PATIENCE) is None
        except (TaskAbortedError, CancelledError):
            assert called.is_set()
    if engine.roster.state in (PoolState.CLOSING, PoolState.SHUTDOWN):
        elsewhere(pool.destroy, PATIENCE)
    if engine.roster.terminal:
        assert not workers(pool)
        with pytest.raises(PoolClosedError):
            pool.submit(int)
    else:
        serves_on(pool, min(SIZE, engine.roster.size))
    return called.is_set()


@pytest.mark.parametrize("overtaker", OVERTAKERS)
def test_close_is_overtaken(overtaker, new_pool):
    """By the same, at each of its orders, while a restart is under way and a task runs."""
    for n in range(1, 40):
        pool, go, started = with_idle(new_pool(SIZE), SIZE), threading.Event(), threading.Event()

        def hold(go=go, started=started):
            started.set()
            assert go.wait(PATIENCE)

        pool.submit(hold)
        wait(started)
        restart = pool.soft_restart()
        dispatch = pool._engine.dispatch
        orders = AfterOrders(pool._engine, n, lambda p=pool: OVERTAKERS[overtaker](p))
        closing = Elsewhere(pool.close)
        until(lambda o=orders, d=dispatch: o.called.is_set() or d.closing, "the end")
        go.set()
        closing.result()
        orders.disarm()
        assert restart.done()
        assert dispatch.ended.done()
        if pool._engine.roster.state is PoolState.OPEN:
            serves_on(pool, min(SIZE, pool._engine.roster.size))
        if not orders.called.is_set():
            break
    assert n > 5, "there are more orders than that"


def test_two_restarts_at_once_cover_all_who_are_here(new_pool):
    """The second also waits for those who have come since the first."""
    pool = with_idle(new_pool(2), 2)
    first, second = pool.soft_restart(), pool.soft_restart()
    assert first.result(PATIENCE) == 2
    assert second.result(PATIENCE) >= 2
    assert min(w.generation for w in workers(pool)) >= 2
    serves_on(pool)


@pytest.mark.parametrize("verb", ["close", "destroy"])
def test_it_is_waited_for_in_another_thread(verb, new_pool):
    """A busy worker is not yet replaced: who waits for it is told as soon as the pool closes."""
    pool, go, started = with_idle(new_pool(1), 1), threading.Event(), threading.Event()
    pool.submit(lambda: (started.set(), go.wait(PATIENCE)))
    wait(started)
    waiting = Elsewhere(lambda: type(pool.soft_restart().exception(PATIENCE)))
    until(lambda: len(pool._engine.waits), "the restart")
    ending = Elsewhere(getattr(pool, verb))
    assert waiting.result() is PoolClosedError
    go.set()
    ending.result()
    serves_on(pool, 1)
