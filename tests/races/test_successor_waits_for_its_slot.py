"""A task comes while a successor waits for its slot.

1. The worker in slot 0 runs its last task, A. Its successor is ready, and is admitted when A is
   over.
2. A submits B, and waits for it. Slot 1 is vacant.
3. The successor is none that will take B while A runs: slot 1 had to be filled.
"""

from forcing import PATIENCE, elsewhere

from recyclepool import Limits


def test_it_takes_no_task_yet(new_pool):
    pool = new_pool(2, limits=Limits(tasks=1))

    def parent():
        return pool.submit(int).result(PATIENCE)

    assert pool.submit(parent).result(PATIENCE) == 0
    elsewhere(pool.close)
