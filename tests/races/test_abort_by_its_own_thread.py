"""A worker carries out, in the name of another thread, the order to abort its own task.

1. A task submits, and a worker is to be started for that: its thread holds the engine's lock.
2. Another thread has the pool's epoch aborted. It leaves its order, finds the lock taken, and goes.
   (A destroy() would give the order again and again, and might be the one to carry it out.)
3. The task's thread does that order too: it is to abort the task that it runs itself. It is in the
   pool's code, so it only leaves the wish, and carries the order out to its end.
4. The task comes out of submit(), and raises there: as the gate is given back. Amid the order it
   would break that off, again and again, until somebody else happens to carry it out.
"""

import threading
from traceback import extract_tb

from forcing import PATIENCE, Elsewhere, Spied, once, until, wait

from recyclepool import TaskAbortedError
from recyclepool.errors import TaskAbort


def test_it_surfaces_on_the_way_out(new_pool):
    pool = new_pool(2)
    engine = pool._engine
    engine._orders._lock = lock = Spied(engine._orders._lock)
    may_submit, holds, go_on, raised = (*(threading.Event() for _ in range(3)), [])

    def stop_here():
        holds.set()
        wait(go_on)

    def parent():
        assert may_submit.wait(PATIENCE)
        lock.after_acquire = once(stop_here)
        try:
            pool.submit(int)
        except BaseException as error:
            where = extract_tb(error.__traceback__)[-1].name
            raised.append((type(error), where, error.__context__))
            raise

    future = pool.submit(parent)
    until(lambda: not engine._orders._orders, "the worker to be started")
    may_submit.set()
    wait(holds)
    aborted = engine.dispatch
    Elsewhere(engine.abort, aborted).result()
    go_on.set()
    assert isinstance(future.exception(PATIENCE), TaskAbortedError)
    assert aborted.ended.wait(PATIENCE)
    assert raised == [(TaskAbort, "surrender", None)]  # once, and nothing was broken off by it
    assert pool.stats().aborted == 1
    assert not pool.stats().abandoned
    assert pool.submit(int).result(PATIENCE) == 0
