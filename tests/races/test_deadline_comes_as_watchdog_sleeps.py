"""A deadline is brought forward as the watchdog's thread is about to sleep (WATCH 4).

1. The watchdog's thread has read ``until``, which is far away; it has not said yet how long it will
   sleep / it has said it, and is about to sleep.
2. An earlier deadline comes: ``until`` is brought forward, and what the thread said is read.
3. The thread finds its lock released, and does not sleep; the earlier deadline is kept.
"""

from time import monotonic

import pytest
from forcing import PATIENCE, elsewhere, noop, once, serves_on, until, wait, with_idle
from watching import Task, install, let_go, watchdog_of

from recyclepool import TaskTimeoutError

FAR, SOON = 10 * PATIENCE, 0.05


@pytest.mark.parametrize("place", ["after reading", "before sleeping"])
def test_it_is_kept(place, new_pool, monkeypatch):
    locks = install(monkeypatch)
    pool = with_idle(new_pool(3), 3)
    far, farther, soon, late = Task(), Task(), Task(), []

    def come():
        late.append(elsewhere(pool.options(timeout=SOON).submit, soon))
        wait(soon.started)

    with let_go(far, farther, soon):
        pool.options(timeout=FAR * 2).submit(farther)
        wait(farther.started)
        watchdog = watchdog_of(pool)
        until(lambda: locks[-1].locked() and watchdog._sleep.until < float("inf"), "its sleep")
        if place == "after reading":
            watchdog.once(place, come)
        else:
            locks[-1].before_acquire = once(come)
        pool.options(timeout=FAR).submit(far)  # earlier: it wakes, and is to sleep once more
        until(lambda: late, "the thread to come by")
        assert isinstance(late[0].exception(PATIENCE), TaskTimeoutError), "it sleeps on"
    locks[-1].before_acquire = noop
    serves_on(pool, 3)


def test_what_it_said_before_is_no_answer(new_pool, monkeypatch):
    """It woke at the deadline that it had said. The one that comes now is later than that."""
    install(monkeypatch)
    pool, late = with_idle(new_pool(3), 3), []
    far, first, soon = Task(), Task(), Task()

    def come():
        if watchdog._until < monotonic() + FAR / 2:
            watchdog.once("after reading", come)  # it is not to sleep for long yet
            return
        late.append(elsewhere(pool.options(timeout=SOON).submit, soon))
        wait(soon.started)

    with let_go(far, first, soon):
        pool.options(timeout=FAR).submit(far)
        wait(far.started)
        watchdog = watchdog_of(pool)
        until(lambda: watchdog._sleep.until < float("inf"), "its sleep")
        failing = pool.options(timeout=SOON).submit(first)
        wait(first.started)
        watchdog.once("after reading", come)
        assert isinstance(failing.exception(PATIENCE), TaskTimeoutError)
        until(lambda: late, "the thread to come by")
        assert isinstance(late[0].exception(PATIENCE), TaskTimeoutError), "it sleeps on"
    serves_on(pool, 3)


def test_it_says_that_it_sleeps_before_it_does(new_pool, monkeypatch):
    """Who brings ``until`` forward while it is awake wakes it for nothing: that is harmless."""
    locks = install(monkeypatch)
    pool = with_idle(new_pool(2), 2)
    tasks = [Task(), Task()]
    with let_go(*tasks):
        for task in tasks:
            pool.options(timeout=FAR).submit(task)
            wait(task.started)
        watchdog = watchdog_of(pool)
        for _ in range(100):
            pool._engine.look()
        until(lambda: watchdog._sleep.until == watchdog.until, "its sleep")
        assert locks[-1].locked()
    serves_on(pool)
