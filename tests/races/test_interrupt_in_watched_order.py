"""An order that has to do with time, or with replacing, is broken off by a KeyboardInterrupt.

1. An order is there: workers are to be replaced, or there are to be more or fewer; a task's
   deadline has come, it is told again, its worker is given up; an idle worker is to go; a start
   that failed is to be tried again; a running task is cancelled.
2. The main thread carries it out; in turn, at each place of that, a KeyboardInterrupt is raised.
3. The order is done all the same: by the broken-off call, or, where it had not begun, by the next.
4. The engine's lock is free, nobody hangs, the callbacks ran once at most, and the pool serves on.
"""

import logging
import threading
import time

import pytest
from forcing import (
    PATIENCE,
    elsewhere,
    interrupted_everywhere,
    serves_on,
    settled_and_free,
    told,
    until,
    wait,
    with_idle,
    workers,
)
from watching import Task, install, let_go, overdue, unwatched, watchdog_of

from recyclepool import Limits, State, TaskAbortedError, TaskTimeoutError, WorkerStartError, _staff

pytestmark = pytest.mark.usefixtures("no_debug")

NO_TIME = Limits(start_timeout=None, grace=10 * PATIENCE)


def test_soft_restart_is_interrupted(new_pool):
    def stage():
        pool = with_idle(new_pool(2), 2)
        old = workers(pool)

        def check(where):
            pool._engine.look()  # where it had not begun
            if pool._engine.waits or any(w.due or w.leaving for w in old):
                until(lambda: not any(w in workers(pool) for w in old), "the old ones to go")
            until(lambda: not pool._engine.waits, "the restart's end")
            assert elsewhere(lambda: pool.soft_restart().result(PATIENCE)) == 2
            serves_on(pool)

        return pool.soft_restart, check

    interrupted_everywhere(stage, 60)


@pytest.mark.parametrize("size", [1, 4])
def test_resize_is_interrupted(size, new_pool):
    def stage():
        pool = with_idle(new_pool(2), 2)

        def check(where):
            elsewhere(pool.resize, size)
            until(lambda: pool.stats().max_workers == size)
            until(lambda: len(workers(pool)) <= size, "the others to go")
            serves_on(pool, size)

        return lambda: pool.resize(size), check

    interrupted_everywhere(stage, 40)


def test_giving_up_is_interrupted(new_pool):
    """Of a worker whose task does not end."""

    def stage():
        pool, lock, started = with_idle(new_pool(1), 1), threading.Lock(), threading.Event()
        lock.acquire()
        engine, (worker,) = pool._engine, workers(pool)
        future = pool.submit(lambda: (started.set(), lock.acquire()))
        wait(started)

        def check(where):
            elsewhere(engine.abandon, worker)
            assert worker.state is State.ABANDONED
            assert engine.roster.abandoned == [worker]
            assert len(engine.dispatch.given_up) == 1
            assert pool.submit(int).result(PATIENCE) == 0  # by its successor
            lock.release()
            worker.thread.join(PATIENCE)
            until(lambda: not engine.roster.abandoned, "it to be seen")
            settled_and_free([future])
            serves_on(pool, 1)

        return lambda: engine.abandon(worker), check

    interrupted_everywhere(stage, 30)


def test_giving_up_a_start_is_interrupted(new_pool, monkeypatch):
    install(monkeypatch)
    monkeypatch.setattr(_staff, "FIRST_PAUSE", 0.001)

    def stage():
        go, inside, calls = threading.Event(), threading.Event(), []

        def initializer():
            calls.append(1)
            if len(calls) == 2:
                inside.set()
                assert go.wait(PATIENCE)

        limits = Limits(start_timeout=1000 * PATIENCE, jitter=0)
        pool = with_idle(new_pool(1, limits=limits, initializer=initializer), 1)
        engine, replaced = pool._engine, pool.recycle(0)
        wait(inside)
        hung = workers(pool)[-1]
        hung.born = -10_000.0 * PATIENCE

        def check(where):
            elsewhere(engine.look)
            assert hung.state is State.ABANDONED
            if not where:  # else it may go on waiting, for the next try
                assert isinstance(replaced.exception(0), WorkerStartError)
            assert pool.submit(int).result(PATIENCE) == 0
            until(lambda: workers(pool)[0].generation > 2, "the next try")
            until(replaced.done, "who waits for it to be told")
            go.set()
            until(lambda: not engine.roster.abandoned, "it to be seen")
            serves_on(pool, 1)

        return engine.look, check

    interrupted_everywhere(stage, 60)


@pytest.mark.parametrize("order", ["stop", "nudge"])
def test_stopping_a_task_is_interrupted(order, new_pool, monkeypatch):
    """Its deadline has come; or it swallowed what was raised in it, and is told again."""
    install(monkeypatch)

    def stage():
        pool, task, calls = with_idle(new_pool(1, limits=NO_TIME), 1), Task(), []
        swallowed = threading.Event()

        def swallowing():
            try:
                task()
            except BaseException:
                task.ended.clear()
                swallowed.set()
                task()

        future = pool.options(timeout=1000 * PATIENCE).submit(swallowing)
        future.add_done_callback(calls.append)
        wait(task.started)
        engine, (worker,) = pool._engine, workers(pool)
        overdue(future)
        if order == "nudge":
            engine.look()
            wait(swallowed)
            worker.doom = worker.doom._replace(nudge_at=0.0)

        def check(where):
            elsewhere(engine.look)
            assert isinstance(future.exception(PATIENCE), TaskTimeoutError)
            worker.thread.join(PATIENCE)
            assert not worker.thread.is_alive(), "nobody tells it"
            assert not task.go.is_set()
            settled_and_free([future])
            told(pool)
            assert len(calls) <= 1, "a callback ran twice"
            if not where:
                assert calls == [future]
            serves_on(pool, 1)

        return engine.look, check

    interrupted_everywhere(stage, 60)


def test_cancelling_a_running_task_is_interrupted(new_pool):
    def stage():
        pool, task, calls = with_idle(new_pool(1), 1), Task(), []
        future = pool.submit(task)
        future.add_done_callback(calls.append)
        wait(task.started)
        (worker,) = workers(pool)

        def check(where):
            elsewhere(pool.cancel, future)
            assert isinstance(future.exception(PATIENCE), TaskAbortedError)
            pool._engine.look()
            if not task.ended.is_set() and worker.leaving is None:
                task.go.set()  # the interrupt came before the order: nobody tells it
            wait(task.ended)
            settled_and_free([future])
            told(pool)
            assert len(calls) <= 1, "a callback ran twice"
            until(lambda: pool.stats().run.count == 2, "its end")
            assert pool.stats().aborted <= 1, "it is counted twice"
            serves_on(pool, 1)

        return lambda: pool.cancel(future), check

    interrupted_everywhere(stage, 60)


def test_letting_an_idle_worker_go_is_interrupted(new_pool, monkeypatch):
    install(monkeypatch)

    def stage():
        limits = Limits(idle=1000 * PATIENCE, start_timeout=None)
        pool = with_idle(new_pool(2, limits=limits), 2)
        one, other = workers(pool)
        one.idle_since = -10_000.0 * PATIENCE

        def check(where):
            elsewhere(pool._engine.look)
            if one.leaving is not None:
                until(lambda: workers(pool) == [other], "it to go")
            else:  # it was woken, and is not idle for too long any more
                until(lambda: one.wake in pool._engine.dispatch.idle, "it to sleep")
            serves_on(pool)

        return pool._engine.look, check

    interrupted_everywhere(stage, 40)


def test_starting_the_watchdog_is_interrupted(new_pool, monkeypatch):
    """Where the one before is still about to end, too."""
    install(monkeypatch)

    def stage():
        pool, task = with_idle(new_pool(1, limits=NO_TIME), 1), Task()
        assert pool.options(timeout=1000 * PATIENCE).submit(int).result(PATIENCE) == 0
        engine = unwatched(pool)._engine
        with engine._orders._lock:  # the worker's order waits, for the main thread
            future = pool.options(timeout=1000 * PATIENCE).submit(task)
            wait(task.started)

        def check(where):
            with let_go(task):
                elsewhere(engine.look)
                watchdog = watchdog_of(pool)
                assert watchdog.until < float("inf")
                until(lambda: watchdog._thread.is_alive(), "its thread")
                future.deadline = time.monotonic() + 0.01
                elsewhere(engine.look)
                assert isinstance(future.exception(PATIENCE), TaskTimeoutError)
            unwatched(pool)
            serves_on(pool, 1)

        return engine.look, check

    interrupted_everywhere(stage, 40)


def test_trying_again_is_interrupted(new_pool, monkeypatch):
    """After a start that failed."""
    install(monkeypatch)
    monkeypatch.setattr(_staff, "FIRST_PAUSE", 1000 * PATIENCE)
    monkeypatch.setattr(_staff, "LONGEST_PAUSE", 1000 * PATIENCE)
    monkeypatch.setattr(logging.getLogger("concurrent.futures"), "disabled", True)
    errors = []

    def stage():
        def initializer():
            if errors:
                raise errors.pop()

        pool = with_idle(new_pool(2, initializer=initializer, limits=NO_TIME), 1)
        engine = pool._engine
        started = threading.Event()
        go = threading.Event()
        pool.submit(lambda: (started.set(), go.wait(PATIENCE)))
        wait(started)
        errors.append(ValueError())
        second = pool.submit(int)
        until(lambda: engine.roster.held_back and not engine._orders._orders, "the failed start")
        until(lambda: not engine._orders._lock.locked(), "its end")
        watchdog_of(pool)._resume_at = 0.0

        def check(where):
            elsewhere(engine.look)
            assert second.result(PATIENCE) == 0
            go.set()
            serves_on(pool)

        return engine.look, check

    interrupted_everywhere(stage, 30)
