# ruff: noqa: F401, F811 (fixtures are imported)
"""Limits(pool_memory=): dispatch pauses where nothing helps. No task starts, none is lost."""

import os
import subprocess
import sys
import textwrap
from collections import Counter

import pytest
from listening import no_lingering
from pressing import blocked
from squeezing import (
    BASE,
    FLOOD,
    LIMIT,
    Tasks,
    go_on,
    has_looked,
    new_limited,
    on_all,
    pause,
    process,
    where,
)
from staging import WAIT, in_thread, until

from recyclepool import MemoryRelieved, PoolState, QueueFullError, Reason, WorkerRetired

# ==== the pause ==================================================================================


@pytest.fixture
def paused(new_limited, process):
    """A pool of two in a pause, its events, and tasks for it."""

    def make(size=2, **kwargs):
        pool, events = new_limited(size, **kwargs)
        on_all(pool, count=size)
        pause(pool, process, events)
        return pool, events, Tasks(pool)

    return make


def test_no_task_starts_until_the_process_is_small_again(paused, process):
    pool, events, tasks = paused()
    tasks.submit()
    has_looked(pool)
    assert tasks.none_has_run()
    assert pool.stats().queued == 5
    go_on(pool, process, events)
    tasks.all_run_once()
    (relieved,) = events.of(MemoryRelieved)
    assert (relieved.rss, relieved.limit) == (BASE, LIMIT)


def test_a_busy_worker_takes_no_other_task(new_limited, new_hold):
    pool, _ = new_limited(1)
    engine, hold = pool._engine, new_hold()
    running = pool.submit(hold, "done")
    hold.wait_started()
    engine.order(engine.pause_dispatch)
    tasks = Tasks(pool)
    tasks.submit()
    hold.release()
    assert running.result(WAIT) == "done"
    has_looked(pool)
    assert tasks.none_has_run()
    engine.order(engine.resume_dispatch)
    tasks.all_run_once()


def test_a_task_with_a_key_waits_too(paused, process):
    pool, events, tasks = paused()
    keyed = [pool.options(key=key).submit(tasks._run, key) for key in "abcdef"]
    has_looked(pool)
    assert tasks.none_has_run()
    go_on(pool, process, events)
    assert [each.result(WAIT) for each in keyed] == list("abcdef")


def test_no_worker_is_started_for_tasks_that_must_wait(new_limited, process):
    pool, events = new_limited(4)
    assert pool.submit(where).result(WAIT) == 0
    pause(pool, process, events)
    tasks = Tasks(pool)
    tasks.submit(10)
    has_looked(pool)
    assert len(pool.stats().workers) == 1
    go_on(pool, process, events)
    tasks.all_run_once()


def test_a_full_queue_pushes_back_on_callers(paused, process):
    pool, events, tasks = paused(max_queue=3)
    tasks.submit(3)
    late = in_thread(tasks.submit, 1)
    blocked(pool)
    has_looked(pool)
    assert not late.is_over()
    go_on(pool, process, events)
    late.result()
    tasks.all_run_once()


def test_a_full_queue_raises(paused, process):
    pool, events, tasks = paused(max_queue=3, on_full="raise")
    tasks.submit(3)
    with pytest.raises(QueueFullError):
        tasks.submit(1)
    go_on(pool, process, events)
    tasks.all_run_once()


def test_after_30_seconds_tasks_start_anyway(paused, process):
    pool, events, tasks = paused()
    tasks.submit()
    pool._engine.relief._pressure._resume_at = 0.0  # they are over
    events.wait_for(MemoryRelieved, rss=FLOOD)
    tasks.all_run_once()
    assert not pool.stats().paused


# ==== verbs in a pause ===========================================================================


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_an_end_that_drains_runs_what_waits(paused, end):
    pool, _, tasks = paused()
    tasks.submit()
    in_thread(getattr(pool, end)).result()
    tasks.all_run_once()
    assert not pool.stats().paused


def test_destroy_cancels_what_waits(paused):
    pool, _, tasks = paused()
    tasks.submit()
    in_thread(pool.destroy, WAIT).result()
    assert tasks.none_has_run()
    assert all(future.cancelled() for future in tasks.futures)


def test_a_shutdown_that_cancels_leaves_none(paused):
    pool, _, tasks = paused()
    tasks.submit()
    in_thread(lambda: pool.shutdown(cancel_futures=True)).result()
    ran = {number for number, future in enumerate(tasks.futures) if not future.cancelled()}
    assert tasks.ran == Counter(ran)  # a worker may have been faster


def test_the_next_epoch_is_not_paused(paused):
    pool, _, tasks = paused()
    in_thread(pool.close).result()
    assert pool.stats().state is PoolState.OPEN
    tasks.submit()
    tasks.all_run_once()


VERBS = {
    "recycle": lambda pool: pool.recycle(0).result(WAIT),
    "soft_restart": lambda pool: pool.soft_restart().result(WAIT),
    "shrink": lambda pool: pool.resize(1),
    "grow": lambda pool: pool.resize(4),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_verbs_do_not_wait_for_its_end_and_start_no_task(paused, process, verb):
    pool, events, tasks = paused()
    tasks.submit()
    here = [worker.thread for worker in pool._engine.roster.workers]
    in_thread(verb, pool).result()
    assert pool.stats().paused
    if verb is VERBS["shrink"]:
        until(lambda: len(pool.stats().workers) == 1, "one goes")
    if verb is VERBS["soft_restart"]:
        for thread in here:
            thread.join(WAIT)
            assert not thread.is_alive()
    has_looked(pool)
    assert tasks.none_has_run()
    go_on(pool, process, events)
    tasks.all_run_once()


def test_all_workers_go_in_a_pause_and_it_ends_all_the_same(new_limited, process):
    pool, events = new_limited(1, limits={"idle": "1h"})
    assert pool.submit(where).result(WAIT) == 0
    pause(pool, process, events)
    (worker,) = pool._engine.roster.workers
    until(lambda: worker.wake in pool._engine.dispatch.idle, "it sleeps")
    worker.idle_since -= 7200
    pool._engine.look()
    events.wait_for(WorkerRetired, reason=Reason.IDLE)
    until(lambda: not pool.stats().workers, "it is gone")
    tasks = Tasks(pool)
    tasks.submit()
    process.others = BASE
    tasks.all_run_once()
    assert not pool.stats().paused


FORKING = """
    import os, time, warnings
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    from recyclepool import Limits, RecyclePool, WorkerLostError

    def until(happened):
        deadline = time.monotonic() + 20
        while not happened():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    limits = Limits(pool_memory="1MiB", memory_samples=1, sample_every=0.02, min_age=0)
    pool = RecyclePool(1, limits=limits)
    assert pool.submit(int).result(20) == 0
    until(lambda: pool.stats().paused)
    waits = [pool.submit(int) for _ in range(3)]
    child = os.fork()
    if not child:
        code = 1
        try:
            assert not pool.stats().paused
            assert all(isinstance(each.exception(20), WorkerLostError) for each in waits)
            assert [pool.submit(abs, -n).result(20) for n in range(20)] == list(range(20))
            until(lambda: pool.stats().paused)  # it has eyes of its own
            last = pool.submit(int)
            pool.close(20)
            assert last.result(20) == 0
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    pool.close(20)
    assert [each.result(20) for each in waits] == [0, 0, 0]
    print("well")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_in_a_pause_is_not_paused():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("well\n", 0), done.stderr
