"""An abort is pending while a task enters the pool's code.

1. A task calls submit(). It is inside the one C call that takes the gate: it has not got it yet.
2. Another thread asks for an abort. It gets the gate, and injects.
3. The task gets the gate. Before that call returns, the interpreter looks at its eval breaker:
   TaskAbort surfaces there, at the entry of the pool's code.
4. The entry gives the gate back, and the exception goes on into the task: nothing was submitted.

(SlowGate makes that call out of C parts, so that there is no earlier place for the exception to
surface.)
"""

from forcing import (
    PATIENCE,
    SlowGate,
    Steps,
    abort,
    is_free,
    serves_on,
    with_idle,
    workers,
)

from recyclepool.errors import TaskAbort, TaskAbortedError


def test_it_goes_on_into_the_task(new_pool):
    pool = new_pool(1)
    steps = Steps(pool._engine.dispatch)
    worker = workers(with_idle(pool, 1))[0]
    gate, raised = worker.gate, []
    real, slow = gate.lock, SlowGate(gate.lock)
    before = len(steps.accepted)

    def task():
        gate.lock = slow
        try:
            pool.submit(int)
        except BaseException as error:
            raised.append((type(error), gate.depth))
            raise

    future = pool.submit(task)
    assert slow.begun.acquire(True, PATIENCE)
    gate.lock = real
    assert abort(pool, worker, future) == [True]
    slow.go_on.release()
    assert isinstance(future.exception(PATIENCE), TaskAbortedError)
    assert raised == [(TaskAbort, 0)]
    assert len(steps.accepted) == before + 1
    worker.thread.join(PATIENCE)
    assert not worker.thread.is_alive()
    assert is_free(real), "the gate is held"
    serves_on(pool, 1)
