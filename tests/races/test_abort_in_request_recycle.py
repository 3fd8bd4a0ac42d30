"""An abort comes while a task is in an order that it gave: the order is whole, no lock stays held.

1. A task calls request_recycle(); its order starts the successor's thread.
2. In the middle of that the abort is wanted.
3. It surfaces when the order has been carried out, and not before: the standard library holds a
   lock of its own while it starts a thread, and it would stay held for ever.
"""

import threading

from forcing import PATIENCE, wait

from recyclepool import TaskAbortedError, current_worker


def test_it_surfaces_behind_the_order(new_pool, monkeypatch):
    pool = new_pool(1)
    pool.submit(int).result(PATIENCE)
    in_start, aborted, whole = threading.Event(), threading.Event(), []
    real = threading.Thread.start

    def start(thread):
        if thread.name.startswith(pool.name):
            in_start.set()
            wait(aborted)
        real(thread)
        whole.append(thread)

    def task():
        current_worker().request_recycle("test")
        while True:
            pass

    monkeypatch.setattr(threading.Thread, "start", start)
    future = pool.submit(task)
    wait(in_start)
    assert pool.cancel(future)
    aborted.set()
    assert isinstance(future.exception(PATIENCE), TaskAbortedError)
    assert pool.submit(int).result(PATIENCE) == 0
    assert whole, "the start of a thread was broken off"
