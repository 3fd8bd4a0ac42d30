"""Foreign code orders while its own thread holds the engine's lock.

1. A thread carries out an order: it holds the engine's lock.
2. There, on the same thread, a signal handler, a finalizer or a weakref callback submits, retires
   or closes. It leaves its order, finds the lock taken, and returns at once.
3. The holder carries that order out too, before its own call returns.
"""

import pytest
from forcing import (
    PATIENCE,
    Spied,
    by_finalizer,
    by_signal,
    by_weakref,
    elsewhere,
    noop,
    once,
    serves_on,
    until,
    with_idle,
    workers,
)

from recyclepool import Reason


@pytest.mark.parametrize("come", [by_signal, by_finalizer, by_weakref])
@pytest.mark.parametrize("order", ["submit", "retire", "close", "start"])
def test_it_neither_hangs_nor_is_lost(come, order, new_pool):
    pool = with_idle(new_pool(2), 1)
    engine, worker = pool._engine, workers(pool)[0]
    dispatch, late = engine.dispatch, []

    def act():
        if order == "submit":  # one for the sleeper, one for which a worker is to be started
            late.extend([pool.submit(int), pool.submit(int)])
        elif order == "retire":
            engine.retire(worker, Reason.TASKS)
        elif order == "close":
            engine.end(dispatch)
        else:
            late.append(pool.start())

    engine._orders._lock = lock = Spied(engine._orders._lock)
    lock.after_acquire = once(lambda: come(act))
    engine._orders.give(noop)
    assert not engine._orders._orders
    for future in late:
        assert future.result(PATIENCE) in (0, 1, 2)
    if order in ("retire", "close"):
        worker.thread.join(PATIENCE)
        assert not worker.thread.is_alive()
    if order == "close":
        assert dispatch.ended.wait(PATIENCE)
    engine._orders._lock = lock._real
    serves_on(pool)


@pytest.mark.parametrize("come", [by_signal, by_finalizer, by_weakref])
def test_the_holders_look_comes_after_its_release(come, new_pool):
    """The holder has done all orders, and is about to release when others order something.

    They find the lock taken. The holder releases, looks again, and has it done.
    """
    pool = with_idle(new_pool(2), 2)
    engine, (one, other) = pool._engine, workers(pool)
    engine._orders._lock = lock = Spied(engine._orders._lock)

    def order():
        elsewhere(engine.retire, one, Reason.TASKS)
        come(lambda: engine.retire(other, Reason.TASKS))

    lock.before_release = once(order)
    engine._orders.give(noop)
    until(lambda: not engine._orders._orders, "the orders that were left")  # perhaps by a relief
    for worker in (one, other):
        worker.thread.join(PATIENCE)
        assert not worker.thread.is_alive()
    engine._orders._lock = lock._real
    serves_on(pool)


def test_an_order_that_fails_is_not_done_for_ever(new_pool):
    pool = new_pool(1)
    engine = pool._engine
    done = []

    class OwnError(Exception):
        pass

    def fail():
        raise OwnError

    with engine._orders._lock:
        engine._orders.give(fail)
        engine._orders.give(done.append, 1)
    pool._engine._orders.debug = True  # else it is logged, and hits nobody
    with pytest.raises(OwnError):
        engine._orders._carry_out()
    assert done == [1]
    assert not engine._orders._orders
    serves_on(pool, 1)
