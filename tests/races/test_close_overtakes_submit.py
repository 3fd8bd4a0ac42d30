"""The pool closes in the middle of a submit; it may even be open again by then.

1. submit() has read which epoch it is, and that it is open; it is about to append its task, or has
   done so.
2. Another thread closes the pool: that epoch is over when close() returns, and its workers are
   gone. (Or the pool is started again too: a new epoch is in place.)
3. submit() goes on with the epoch that it has read. Its task is refused, or it runs; it is never
   lost, and the new epoch has none of it.
"""

import pytest
from forcing import PATIENCE, Steps, elsewhere, noop, with_idle

from recyclepool import PoolClosedError


@pytest.mark.parametrize("again", [False, True], ids=["closed", "closed and started again"])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("place", ["before append", "after append"])
def test_refused_or_run(place, workers, again, new_pool):
    pool = new_pool(1, min_workers=1)
    old = pool._engine.dispatch
    steps = Steps(old)
    if workers:
        with_idle(pool, 1)

    def close():
        pool.close()
        if again:
            pool.start().result(PATIENCE)

    steps.once(place, lambda: elsewhere(close))
    late = None
    try:
        late = pool.submit(int)
    except PoolClosedError:
        assert place == "before append"
    else:
        assert late.result(PATIENCE) == 0
        assert place == "after append", "accepted by an epoch that is over"
    new = pool._engine.dispatch
    assert old.ended.done()
    assert not old.queue
    assert not old.idle
    assert new is not old
    assert not new.queue
    assert pool.submit(int).result(PATIENCE) == 0
    elsewhere(pool.close)


def test_the_refused_is_counted_and_told_why(new_pool):
    pool = new_pool(1)
    steps = Steps(pool._engine.dispatch)
    steps.once("before append", lambda: elsewhere(pool.shutdown))
    with pytest.raises(PoolClosedError, match="after shutdown"):
        pool.submit(noop)
    assert pool.stats().rejected == 1
