"""The pool closes as a submitter goes to sleep for want of a place (BOUNDED 5).

1. The submitter found the queue full. It is about to show its sleeper / has shown it, and is about
   to try again / has tried again, and is about to sleep; or it was woken, and is about to try once
   more.
2. The pool closes (in any way): ``closing`` goes up, and all are woken.
3. The submitter is told so, and does not sleep on, even if a place came as well.
"""

import pytest
from bounding import Full, submitting
from forcing import PATIENCE, Elsewhere, elsewhere, until

from recyclepool import PoolClosedError, PoolState

PLACES = ["before waiting", "after waiting", "before sleeping"]
ENDS = {
    "close": lambda pool: pool.close(),
    "destroy": lambda pool: pool.destroy(PATIENCE),
    "shutdown": lambda pool: pool.shutdown(),
    "shutdown cancels": lambda pool: pool.shutdown(wait=True, cancel_futures=True),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", PLACES)
def test_it_is_told(place, end, new_pool, monkeypatch):
    full = Full(new_pool(1, max_queue=1), monkeypatch=monkeypatch)
    pool, ending = full.pool, []
    steps = full.steps

    def close():
        ending.append(Elsewhere(ENDS[end], pool))
        until(lambda: full.dispatch.closing)

    steps.once(place, close)
    with pytest.raises(PoolClosedError):
        submitting(pool).result()
    until(lambda: ending)
    assert not full.dispatch.waiting
    full.let_go()
    ending[0].result()
    stats = pool.stats()
    assert (stats.rejected, stats.rejected_full) == (1, 0)
    if end.startswith("shutdown"):
        assert stats.state is PoolState.SHUTDOWN
    else:
        assert elsewhere(pool.submit, int).result(PATIENCE) == 0
        pool.close()


@pytest.mark.parametrize("end", ["destroy", "shutdown cancels"])
def test_a_place_comes_by_that_end(end, new_pool, monkeypatch):
    """The queued task is cancelled, which wakes the one who waits: it finds the pool closing."""
    full = Full(new_pool(1, max_queue=1), monkeypatch=monkeypatch)
    pool, ending = full.pool, []
    steps = full.steps
    late = submitting(pool)
    full.waits()
    steps.once("after waking", lambda: until(full.queued[0].cancelled), "submitter")
    ending = Elsewhere(ENDS[end], pool)
    with pytest.raises(PoolClosedError):
        late.result()
    full.let_go()
    ending.result()
    assert not full.dispatch.queue


def test_it_has_the_place_before_the_pool_closes(new_pool):
    """Accepted before ``closing`` went up: it is run."""
    full = Full(new_pool(1, max_queue=1), 0)
    pool, ending = full.pool, []
    steps = full.steps

    def close():
        ending.append(Elsewhere(pool.close))
        until(lambda: full.dispatch.closing)

    steps.once("before counting", close)
    steps.once("before append", lambda: elsewhere(pool.submit, int))
    with pytest.raises(PoolClosedError):  # it stood beyond the last place
        submitting(pool).result()
    full.let_go()
    until(lambda: ending or pool.stats().completed == 2)
    for end in ending:
        end.result()
    assert not full.dispatch.queue
    pool.close()
