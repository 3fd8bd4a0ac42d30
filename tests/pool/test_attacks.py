# ruff: noqa: F401, F811 (fixtures are imported)
"""What a stranger tried in order to break the promises, and what broke."""

import concurrent.futures
import gc
import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from listening import Events, new_stuck, no_lingering
from staging import WAIT, until

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    PoolState,
    RecyclePool,
    TaskAbortedError,
    TaskTimeoutError,
    current_worker,
)
from recyclepool.events import PoolClosed, PoolClosing, WorkerAbandoned, WorkerRetired

COMBINATIONS = {
    "age_below_a_start": Limits(age=0.001, jitter=0),
    "age_and_no_surge": Limits(age=0.001, max_surge=0),
    "age_and_two_more": Limits(age="1us", jitter=1, max_surge=2),
    "one_task_each_and_all_the_rest": Limits(
        tasks=1, age=0.001, idle=0.001, task_timeout="1h", hang="1h", grace=0, jitter=1
    ),
    "one_task_each_no_surge": Limits(tasks=1, age=0.001, idle=0.001, max_surge=0),
    "idle_at_once": Limits(idle="1us"),
    "huge": Limits(age=1e308, idle=1e308, task_timeout=1e308, hang=1e308, grace=1e308),
}


def run_program(code: str) -> str:
    """What a program of its own prints; it has to end."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("limits", COMBINATIONS.values(), ids=COMBINATIONS)
@pytest.mark.parametrize("size", [1, 3])
def test_odd_limits_together_lose_no_task(new_pool, limits, size):
    pool = new_pool(size, min_workers=1, limits=limits)
    futures = [pool.submit(int, n) for n in range(200)]
    assert [future.result(WAIT) for future in futures] == list(range(200))
    assert pool.wait_idle(WAIT)
    assert not pool.close(WAIT).timed_out
    stats = pool.stats()
    assert (stats.submitted, stats.completed) == (200, 200)
    assert not stats.workers


def test_without_grace_a_stuck_worker_is_given_up_and_the_next_task_served(new_pool, new_stuck):
    stuck = new_stuck()
    pool = new_pool(1, limits=Limits(task_timeout="1ms", grace=0, max_abandoned=3))
    events = Events(pool)
    for _ in range(3):
        with pytest.raises(TaskTimeoutError):
            pool.submit(stuck).result(WAIT)
    events.wait_for(WorkerAbandoned, 3)
    assert pool.stats().abandoned == 3
    stuck.release()
    until(lambda: not pool.stats().abandoned, "they end late")
    assert pool.stats().state is PoolState.OPEN


def test_no_abandoned_allowed_breaks_and_close_recovers(new_pool, new_stuck):
    stuck = new_stuck()
    pool = new_pool(1, limits=Limits(grace=0, max_abandoned=0))
    with pytest.raises(TaskTimeoutError):
        pool.options(timeout="1ms").submit(stuck).result(WAIT)
    until(lambda: pool.stats().state is PoolState.BROKEN)
    with pytest.raises(BrokenRecyclePool, match="max_abandoned"):
        pool.submit(int)
    assert [worker.task_name for worker in pool.close(WAIT).abandoned] != []
    assert pool.submit(int).result(WAIT) == 0  # although the thread is still stuck


def test_a_task_cancels_itself(new_pool):
    pool = new_pool(1)
    own, went_on = concurrent.futures.Future(), []

    def task():
        pool.cancel(own.result(WAIT))
        went_on.append(True)

    future = pool.submit(task)
    own.set_result(future)
    with pytest.raises(TaskAbortedError):
        future.result(WAIT)
    assert pool.submit(int).result(WAIT) == 0
    assert not went_on


def test_a_closed_pool_says_closing_once(new_pool):
    pool = new_pool(1)
    events = Events(pool)
    pool.submit(int).result(WAIT)
    pool.shutdown()
    pool.shutdown()
    pool.close()
    pool._engine.news.join(WAIT)
    assert [k for k in events.kinds() if k.startswith("Pool")] == ["PoolClosing", "PoolClosed"]
    assert len(events.of(PoolClosing)) == len(events.of(PoolClosed)) == 1


def test_a_pool_with_a_subscriber_does_not_hold_the_exit():
    printed = run_program("""
        from recyclepool import RecyclePool
        pool = RecyclePool(1)
        pool.subscribe(lambda event: print(type(event).__name__, flush=True))
        pool.submit(int)
        """)
    assert printed.split()[-1] == "PoolClosed"


def test_queued_tasks_are_finished_at_exit_beside_stuck_ones():
    printed = run_program("""
        import os, time
        from recyclepool import Limits, RecyclePool
        limits = Limits(task_timeout=0.05, grace=0, max_abandoned=0)
        pool = RecyclePool(2, limits=limits)
        for _ in range(4):
            pool.submit(time.sleep, 100)
        for n in b"012":
            pool.submit(os.write, 1, bytes([n, 10]))  # print() writes twice
        """)
    assert sorted(printed.split()) == ["0", "1", "2"]


def test_verbs_from_a_finalizer_are_refused_or_done(new_pool):
    outcomes = {}

    def finalize():
        for verb in (pool.close, pool.destroy, pool.shutdown, pool.wait_idle):
            with pytest.raises(RuntimeError):
                verb()
        outcomes["resize"] = pool.resize(2)
        with pytest.raises(RuntimeError):
            pool.soft_restart().result(WAIT)

    def finalizer():
        if current_worker().generation == 1:
            try:
                finalize()
            except BaseException as error:  # it would only be an event
                outcomes["error"] = error

    pool = new_pool(1, finalizer=finalizer)
    events = Events(pool)
    pool.submit(int).result(WAIT)
    pool.recycle(0).result(WAIT)
    events.wait_for(WorkerRetired)
    assert outcomes == {"resize": None}


def test_resizes_restarts_and_limits_at_a_time_lose_nothing(new_pool):
    pool = new_pool(4, min_workers=2, limits=Limits(age=0.02, idle=0.005, tasks=7))
    tasks, restarts = [], []
    for n in range(60):
        pool.resize(2 + n * 7 % 8)
        tasks += [pool.submit(int, n) for _ in range(5)]
        if n % 5 == 0:
            restarts += [pool.soft_restart(), pool.recycle(n % 2)]
    assert [t.result(WAIT) for t in tasks] == [n for n in range(60) for _ in range(5)]
    for restart in restarts:
        assert restart.result(WAIT) >= 0
    assert pool.wait_idle(WAIT)


def test_each_worker_tells_one_end_and_counts_agree(new_pool):
    pool = new_pool(3, limits=Limits(tasks=2, task_timeout="1h"))
    events = Events(pool)
    assert sum(pool.map(int, range(50))) == sum(range(50))
    pool.close()
    events.wait_for(PoolClosed)
    retired = events.of(WorkerRetired)
    assert len({(e.slot, e.generation) for e in retired}) == len(retired)
    counts = {}
    for event in retired:
        counts[event.reason.value] = counts.get(event.reason.value, 0) + 1
    assert counts == pool.stats().recycles


def test_dropped_pools_with_limits_leave_no_thread():
    before = set(threading.enumerate())
    for _ in range(5):
        pool = RecyclePool(2, limits=Limits(age="1h", idle="1h", task_timeout="1h"))
        pool.subscribe(lambda event: None)
        pool.options(timeout="1h").submit(int)
        pool.soft_restart()
    del pool
    gc.collect()
    until(lambda: not set(threading.enumerate()) - before, "their threads end")


def test_a_signal_handler_may_use_any_verb(new_pool, caplog):
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")
    pool = new_pool(2, min_workers=1, limits=Limits(tasks=9, age=0.02))
    assert pool.stats()  # imports what these verbs need
    assert repr(pool)
    verbs = [
        lambda: pool.submit(int),
        pool.soft_restart,
        lambda: pool.recycle(0),
        lambda: pool.resize(1 + calls % 3),
        pool.stats,
        lambda: pool.wait_idle(0),
        pool.stacks,
        lambda: pool.options(timeout=WAIT).submit(int),
    ]
    calls, errors = 0, []

    def handler(*_):
        nonlocal calls
        calls += 1
        try:
            verbs[calls % len(verbs)]()
        except BaseException as error:
            errors.append(error)

    outer = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        deadline = time.monotonic() + WAIT
        while calls < 100 and time.monotonic() < deadline:
            assert pool.submit(int).result(WAIT) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer)
    assert not errors
    assert calls >= 100
    assert pool.wait_idle(WAIT)
