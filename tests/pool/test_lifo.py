"""Warm workers stay warm: who fell idle last is woken first, and the others age."""

import threading

from staging import WAIT, until

from recyclepool import current_worker


def test_the_last_to_fall_idle_is_the_first_to_be_woken(new_pool):
    pool, all_here = new_pool(3), threading.Barrier(3)
    idle = pool._engine.dispatch.idle
    for future in [pool.submit(all_here.wait, WAIT) for _ in range(3)]:
        future.result(WAIT)
    slots = set()
    for _ in range(20):
        until(lambda: len(idle) == 3)
        slots.add(pool.submit(lambda: current_worker().slot).result(WAIT))
    assert len(slots) == 1
    assert sorted(w.tasks for w in pool.stats().workers) == [1, 1, 21]
