"""The last worker falls asleep exactly as somebody looks whether the pool rests (DISPATCH 8).

1. Who waits for rest has the engine look: it sees that the worker is busy.
2. Before the look is over, the worker falls asleep: it shows that it rests, then calls ``on_rest``,
   if that is set.
3. The waiter must have set ``on_rest`` before it looked: so it is told, and does not sleep on.

And the other way round: the worker has shown that it rests, and not yet looked at ``on_rest``.
"""

import threading

import pytest
from forcing import PATIENCE, Elsewhere, Steps, asleep, elsewhere, noop, serves_on, wait, with_idle

from recyclepool import _waits


def test_it_falls_asleep_as_the_waiter_looks(new_pool, monkeypatch):
    pool = with_idle(new_pool(1), 1)
    go, started = threading.Event(), threading.Event()
    pool.submit(lambda: (started.set(), wait(go)))
    wait(started)
    look = _waits.Rested.answer

    def late(rested, roster, queued):
        answer = look(rested, roster, queued)
        if answer is None and not go.is_set():
            go.set()
            asleep(pool, 1)
        return answer

    monkeypatch.setattr(_waits.Rested, "answer", late)
    assert elsewhere(pool.wait_idle, PATIENCE / 4), "it sleeps on"
    serves_on(pool, 1)


def test_nothing_is_set_when_nobody_waits(new_pool):
    """Whoever falls asleep later calls nobody."""
    pool = with_idle(new_pool(1), 1)
    assert elsewhere(pool.wait_idle, PATIENCE)
    assert pool._engine.dispatch.on_rest is None
    assert not pool._engine.waits
    serves_on(pool, 1)


@pytest.mark.parametrize(
    "place", ["after taking a task", "after finding none", "before publishing", "after publishing"]
)
@pytest.mark.parametrize("size", [1, 2])
def test_the_waiter_comes_as_the_last_falls_asleep(place, size, new_pool):
    """It has its order carried out to the end at each place on the worker's way."""
    pool = new_pool(size)
    steps, waiting, come = Steps(pool._engine.dispatch), [], threading.Event()
    with_idle(pool, size)

    def wait_for_rest():
        waiting.append(pool._engine.rest())
        come.set()

    steps.once(place, wait_for_rest)
    assert pool.submit(int).result(PATIENCE) == 0
    wait(come)
    assert waiting[0].wait(PATIENCE), "nobody is told"
    serves_on(pool, size)


def test_a_cancelled_task_is_the_last(new_pool):
    """It lies in the queue as a husk: who pops that falls asleep again."""
    pool = with_idle(new_pool(1), 1)
    go, started = threading.Event(), threading.Event()
    pool.submit(lambda: (started.set(), wait(go)))
    wait(started)
    assert pool.submit(noop).cancel()
    waiting = pool._engine.rest()
    go.set()
    assert waiting.wait(PATIENCE)
    serves_on(pool, 1)


def test_a_thousand_times(new_pool):
    pool = with_idle(new_pool(2), 2)

    def wait_often():
        for _ in range(1000):
            assert pool.wait_idle(PATIENCE)

    waiting = Elsewhere(wait_often)
    while waiting.thread.is_alive():
        pool.submit(int).result(PATIENCE)
    waiting.result()
    serves_on(pool)
