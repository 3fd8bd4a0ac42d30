"""A late request to abort one task comes while another task is to be aborted.

1. Thread T asks for the abort of A: it has seen that A runs, and is about to leave its wish.
2. A ends. The same worker runs B, which is in the pool's code: it holds the gate.
3. Another thread asks for the abort of B, and leaves its wish.
4. T goes on and leaves its late wish for A.
5. B comes out of the pool's code, and raises: its wish was not overwritten. A keeps its result.
"""

import threading

from forcing import PATIENCE, Steps, abort, elsewhere, noop, serves_on, wait, with_idle, workers

from recyclepool import TaskAbortedError


def test_it_overwrites_nothing(new_pool):
    pool = new_pool(1)
    steps = Steps(pool._engine.dispatch)
    worker = workers(with_idle(pool, 1))[0]
    a_may_end, b_is_inside, b_may_leave = (threading.Event() for _ in range(3))

    def a():
        assert a_may_end.wait(PATIENCE)
        return "a"

    def inside():
        b_is_inside.set()
        wait(b_may_leave)

    def b():
        steps.once("before append", inside)
        pool.submit(noop)
        return "b"

    first = pool.submit(a)
    second = pool.submit(b)
    while worker.gate.task is not first:
        pass

    class Wishes(dict):
        def __setitem__(self, task, wish):
            if task is first:
                a_may_end.set()
                wait(b_is_inside)
                assert elsewhere(abort, pool, worker, second) == [None]
            super().__setitem__(task, wish)

    worker.gate.wishes = Wishes()
    assert worker.gate.request_abort(first) is None
    b_may_leave.set()
    assert isinstance(second.exception(PATIENCE), TaskAbortedError)
    assert first.result(PATIENCE) == "a"
    serves_on(pool, 1)
