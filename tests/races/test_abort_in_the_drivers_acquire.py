"""An abort is pending while the driver takes its gate back.

1. A task has returned. The driver is inside the one C call that takes the gate: it has not got it
   yet.
2. Another thread asks for an abort. It gets the gate, the task still counts as running: it injects.
3. The driver gets the gate. Before that call returns, the interpreter looks at its eval breaker:
   TaskAbort surfaces there, in the driver's own code.
4. The driver catches it, as the end of the task: the future is settled, the gate held once, the
   worker leaves.

(SlowGate makes that call out of C parts, so that there is no earlier place for the exception to
surface.)
"""

from forcing import PATIENCE, SlowGate, abort, is_free, noop, serves_on, with_idle, workers

from recyclepool.errors import TaskAbort, TaskAbortedError


def test_the_driver_catches_it(new_pool):
    pool = with_idle(new_pool(1), 1)
    worker = workers(pool)[0]
    gate = worker.gate
    real, gate.lock = gate.lock, SlowGate(gate.lock)
    slow = gate.lock
    future = pool.submit(noop)
    assert slow.begun.acquire(True, PATIENCE)
    gate.lock = real
    assert abort(pool, worker, future) == [True]
    assert future.running()
    slow.go_on.release()
    assert isinstance(future.exception(PATIENCE), TaskAbortedError)
    assert isinstance(future.exception().__cause__, TaskAbort)
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive()
    assert is_free(real)
    serves_on(pool, 1)
