"""The order that begins a pause, ends one, or has a worker leave it, is broken off and done again.

1. A worker waits for the end of a pause, or is about to be paused.
2. The main thread carries out the order; in turn, at each place of that, a KeyboardInterrupt is
   raised.
3. The order is done all the same: nobody waits for a flag that nobody sets.
"""

import pytest
from forcing import BEFORE_THE_ORDER, PATIENCE, interrupted_everywhere
from pausing import Tasks, one_waits

from recyclepool import Reason

pytestmark = pytest.mark.usefixtures("no_debug")


def began(where):
    """Was the order begun when the interrupt came?"""
    return where not in BEFORE_THE_ORDER and not where.endswith((".order: start", ".retire: start"))


def test_the_end_of_a_pause_is_interrupted(new_pool):
    def stage():
        pool, _, tasks = one_waits(new_pool)
        engine = pool._engine

        def check(where):
            if not began(where):
                engine.order(engine.resume_dispatch)
            assert engine.paused is None
            tasks.all_ran()
            pool.shutdown()

        return lambda: engine.order(engine.resume_dispatch), check

    interrupted_everywhere(stage, 20)


def test_a_retire_is_interrupted(new_pool):
    def stage():
        pool, worker, tasks = one_waits(new_pool)
        engine = pool._engine

        def check(where):
            if not began(where):
                engine.retire(worker, Reason.TASKS)
            worker.thread.join(PATIENCE)
            assert not worker.thread.is_alive(), "it waits, marked"
            assert tasks.ran == []
            engine.order(engine.resume_dispatch)
            tasks.all_ran()
            pool.shutdown()

        return lambda: engine.retire(worker, Reason.TASKS), check

    interrupted_everywhere(stage, 20)


def test_its_begin_is_interrupted(new_pool):
    def stage():
        pool, _, _ = one_waits(new_pool)
        engine = pool._engine
        engine.order(engine.resume_dispatch)
        pool.submit(int).result(PATIENCE)

        def check(where):
            if not began(where):
                engine.order(engine.pause_dispatch)
            assert engine.paused is not None
            worker = engine.roster.workers[0]
            tasks = Tasks(pool)
            tasks.submit(3)
            engine.order(engine.resume_dispatch)
            tasks.all_ran()
            assert worker.thread.is_alive()
            pool.shutdown()

        return lambda: engine.order(engine.pause_dispatch), check

    interrupted_everywhere(stage, 20)
