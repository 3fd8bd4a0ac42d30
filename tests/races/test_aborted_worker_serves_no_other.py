"""A task swallows its abort, and returns a result; more is queued.

1. A task runs; its worker is retired, and an abort is injected. The task catches it, and returns a
   value.
2. Its future gets TaskAbortedError all the same: what it returned is not to be relied on.
3. The next task is in the queue. The same worker does not take it: its successor does.
"""

import threading

from forcing import PATIENCE, abort, serves_on, wait, with_idle, workers

from recyclepool import TaskAbortedError
from recyclepool.errors import TaskAbort


def test_its_successor_serves(new_pool):
    pool = with_idle(new_pool(1), 1)
    worker = workers(pool)[0]
    inside = threading.Event()

    def task():
        try:
            inside.set()
            while True:
                pass
        except TaskAbort:
            return "swallowed"

    future = pool.submit(task)
    following = pool.submit(threading.get_ident)
    wait(inside)
    assert abort(pool, worker, future) == [True]
    assert isinstance(future.exception(PATIENCE), TaskAbortedError)
    assert future.exception().__cause__ is None
    assert following.result(PATIENCE) != worker.gate.thread_id
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive()
    serves_on(pool, 1)
