"""The watchdog's thread ends as a new deadline comes (WATCH 4).

1. Nothing is to be waited for any more: the thread is told to end, and woken.
2. Before it sees that it is not the right one any more (as it is woken / as it has the engine look,
   and that decides its end), a task with a deadline begins.
3. A new thread is there for it; the old one ends, or it is the same one that goes on.
4. The deadline is kept; afterwards there is no thread.
"""

import threading

import pytest
from forcing import PATIENCE, elsewhere, noop, serves_on, until, wait, with_idle
from watching import Task, install, let_go, unwatched, watchdog_of

from recyclepool import TaskTimeoutError


@pytest.mark.parametrize("come_from", ["the thread that ends", "another"])
def test_a_new_thread_keeps_it(come_from, new_pool, monkeypatch):
    locks = install(monkeypatch)
    pool = with_idle(new_pool(2), 2)
    first, second, late = Task(), Task(), []

    def come():
        submit = pool.options(timeout=0.05).submit
        late.append(elsewhere(submit, second) if come_from == "another" else submit(second))
        wait(second.started)

    with let_go(first, second):
        pool.options(timeout=10 * PATIENCE).submit(first)
        wait(first.started)
        watchdog = watchdog_of(pool)
        until(lambda: watchdog._sleep.until < float("inf"), "its sleep")
        old, lock = watchdog._thread, locks[-1]

        def woken():
            if watchdog._sleep is None:
                lock.after_acquire = noop
                come()

        lock.after_acquire = woken
        first.go.set()
        until(lambda: len(pool._engine.dispatch.idle) == 2, "both to sleep")
        pool._engine.look()
        until(lambda: late, "the old thread to come by")
        assert isinstance(late[0].exception(PATIENCE), TaskTimeoutError)
        old.join(PATIENCE)
        assert not old.is_alive(), "there are two"
    unwatched(pool)
    serves_on(pool)


def test_its_own_look_decides_its_end(new_pool, monkeypatch):
    """It has looked, found nothing, and is about to write that down when the task begins."""
    install(monkeypatch)
    pool = with_idle(new_pool(1), 1)
    pool.options(timeout=10 * PATIENCE).submit(int).result(PATIENCE)
    watchdog = watchdog_of(unwatched(pool))
    task, late = Task(), []

    def come():
        late.append(elsewhere(pool.options(timeout=0.05).submit, task))
        wait(task.started)

    with let_go(task):
        watchdog.once("before writing", come)
        pool._engine.look()
        assert isinstance(late[0].exception(PATIENCE), TaskTimeoutError)
    unwatched(pool)
    serves_on(pool, 1)


def test_no_thread_is_left_or_missing(new_pool, monkeypatch):
    """A thousand times: a deadline comes just as the one before has gone."""
    install(monkeypatch)
    pool = with_idle(new_pool(1), 1)
    submit = pool.options(timeout=10 * PATIENCE).submit
    for _ in range(1000):
        seen = submit(lambda: pool._engine.watchdog.until).result(PATIENCE)
        assert seen < float("inf"), "its deadline was not found"
    unwatched(pool)
    names = [t.name for t in threading.enumerate() if t.name.endswith("_watchdog")]
    assert not names
    serves_on(pool, 1)
