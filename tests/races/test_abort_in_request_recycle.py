"""An abort comes while a task is in an order of its own: nothing is broken off, no lock stays held.

1. A task calls request_recycle(). Its order is carried out, the engine's lock is free again.
2. There is an event to tell: the task's thread starts the one that tells it.
3. In the middle of that another thread cancels the task.
4. The abort surfaces behind the call, and not before: the standard library holds a lock of its own
   while it starts a thread, and that would stay held for ever.
"""

import threading

from forcing import PATIENCE, wait

from recyclepool import TaskAbortedError, current_worker


def test_it_surfaces_behind_the_order(new_pool, monkeypatch):
    pool = new_pool(1)
    pool.submit(int).result(PATIENCE)
    pool.subscribe(lambda event: None)
    in_start, aborted, whole = threading.Event(), threading.Event(), []
    real = threading.Thread.start

    def start(thread):
        by_the_task = current_worker(None) is not None and thread.name.endswith("_events")
        if by_the_task:
            in_start.set()
            wait(aborted)
        real(thread)
        if by_the_task:
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
