"""A worker wakes from idle while the watchdog looks (WATCH 1, 2).

1. The watchdog looks at a worker that is idle: nothing is to come.
2. Before it writes that down (just after it looked / as it is about to write / just after), a task
   comes, and the worker takes it. It shows that it is not idle, then reads ``until``.
3. The watchdog goes on, and writes that there is nothing to wait for.
4. The worker, which read that the watchdog was looking, has it look again: so the task's limit is
   found, the watchdog's thread is there, and sleeps until then at the latest.
"""

from time import monotonic

import pytest
from forcing import PATIENCE, serves_on, wait, with_idle
from watching import Task, install, let_go, unwatched, watchdog_of

from recyclepool import Limits, TaskTimeoutError

PLACES = ["after judging", "before writing", "after writing"]


@pytest.mark.parametrize("before", ["nothing", "a look that comes early enough"])
@pytest.mark.parametrize("limit", ["hang", "task_timeout"])
@pytest.mark.parametrize("place", PLACES)
def test_its_limit_is_found(place, limit, before, new_pool, monkeypatch):
    install(monkeypatch)
    limits = Limits(start_timeout=None, **{limit: 10 * PATIENCE})
    pool, task = with_idle(new_pool(1, limits=limits), 1), Task()
    if before == "nothing":
        unwatched(pool)
    watchdog, future = watchdog_of(pool), []

    def come():
        future.append(pool.submit(task))
        wait(task.started)

    with let_go(task):
        watchdog.once(place, come)
        pool._engine.look()
        assert task.started.is_set()
        assert watchdog.until <= monotonic() + 10 * PATIENCE
        assert watchdog._thread.is_alive()
    assert future[0].result(PATIENCE) == "done"
    serves_on(pool, 1)


@pytest.mark.parametrize("limit", ["hang", "task_timeout"])
@pytest.mark.parametrize("place", PLACES)
def test_it_is_kept(place, limit, new_pool, monkeypatch):
    install(monkeypatch)
    limits = Limits(start_timeout=None, **{limit: 0.05})
    pool, task = unwatched(with_idle(new_pool(1, limits=limits), 1)), Task()
    future = []

    def come():
        future.append(pool.submit(task))
        wait(task.started)

    with let_go(task):
        watchdog_of(pool).once(place, come)
        pool._engine.look()
        assert isinstance(future[0].exception(PATIENCE), TaskTimeoutError)
    serves_on(pool, 1)


def test_an_idle_pool_has_no_wake_ups(new_pool, monkeypatch):
    """And a worker that goes from task to task makes nobody look."""
    install(monkeypatch)
    pool = unwatched(with_idle(new_pool(1, limits=Limits(hang=60, start_timeout=None)), 1))
    watchdog, task = watchdog_of(pool), Task()
    assert watchdog.until == float("inf")
    with let_go(task):
        pool.submit(task)
        wait(task.started)
        rest = [pool.submit(int) for _ in range(100)]
        before = watchdog.looks
    for future in rest:
        assert future.result(PATIENCE) == 0
    assert watchdog.looks == before
    serves_on(pool, 1)
