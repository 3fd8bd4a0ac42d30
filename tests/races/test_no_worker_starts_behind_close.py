"""A submit wants a worker, and the pool is closed before its order is carried out.

1. submit() has appended its task, nobody is idle, there is a vacancy: it is about to order a
   worker.
2. Another thread ends the pool. (It starts a worker for the task, as that was accepted; the task
   runs, or, destroyed, is cancelled.) The call returns: nobody is left.
3. submit() orders its worker. None is started any more, in no epoch.
"""

import threading

import pytest
from forcing import PATIENCE, elsewhere

from recyclepool import PoolClosedError


@pytest.mark.parametrize("end", ["close", "destroy", "shutdown"])
def test_nobody_starts(end, new_pool):
    pool = new_pool(1)
    engine = pool._engine
    dispatch, started = engine.dispatch, []

    class Counted(threading.Thread):
        def start(self):
            started.append(self)
            super().start()

    engine.settings = engine.settings._replace(new_thread=Counted)
    want_worker, so_far = dispatch._want_worker, []

    def want_late():
        elsewhere(getattr(pool, end))
        so_far.append(len(started))
        want_worker()

    dispatch._want_worker = want_late
    try:
        task = pool.submit(int)
    except PoolClosedError:
        assert end == "destroy"
    else:
        assert task.cancelled() or task.result(PATIENCE) == 0
    assert [len(started)] == so_far
    assert not engine.roster.workers
    assert not dispatch.queue
    elsewhere(pool.close)
