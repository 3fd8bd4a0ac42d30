# ruff: noqa: F401, F811 (fixtures are imported)
"""Scenarios D: starts that take too long, and stops that come meanwhile.

D1 to D3 are about children and D7 about descriptors: thread workers have neither.
"""

import logging
import threading
import time

import pytest
from listening import Events, new_stuck, no_lingering
from staging import WAIT, in_thread, until

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    PoolBroken,
    PoolClosedError,
    PoolState,
    State,
    WorkerAbandoned,
    WorkerDue,
    WorkerReady,
    WorkerRetired,
    WorkerStartError,
    WorkerStartFailed,
    _staff,
    current_worker,
)

SLACK = WAIT / 4  # what a busy machine may add to a bound


@pytest.fixture(autouse=True)
def quiet(caplog):
    """No log lines on the terminal for workers that are made to fail."""
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr(_staff, "FIRST_PAUSE", 0.01)


class Initializer:
    """One that does what the test wants, and counts."""

    def __init__(self, act=None):
        self.act = act
        self.generations = []

    def __call__(self):
        self.generations.append(current_worker().generation)
        if self.act is not None:
            self.act()


def fail():
    raise OSError("database is away")


def generation():
    return current_worker().generation


# -- D4: a start that takes too long --------------------------------------------------------------


def test_d4_the_first_worker_ever_that_is_not_ready_in_time(new_pool, new_stuck):
    """It is abandoned, and what waits is told why; a close makes the pool try again."""
    stuck = new_stuck()
    initializer = Initializer(stuck)
    pool = new_pool(1, initializer=initializer, limits=Limits(start_timeout=0.05))
    events = Events(pool)
    began = time.monotonic()
    futures = [pool.submit(int) for _ in range(3)]
    for future in futures:
        error = future.exception(WAIT)
        assert isinstance(error, BrokenRecyclePool)
        assert "not ready after 50 ms" in str(error)
        assert isinstance(error.__cause__, WorkerStartError)
    assert time.monotonic() - began < 0.05 + SLACK
    (event,) = events.wait_for(WorkerAbandoned)
    assert (event.reason, event.task_name) == (None, None)
    assert "listening.py" in event.stack
    (event,) = events.wait_for(WorkerStartFailed)
    assert (event.failures, event.retry_in) == (1, None)
    assert pool.stats().state is PoolState.BROKEN
    assert pool.stats().abandoned == 1
    assert initializer.generations == [1]
    with pytest.raises(BrokenRecyclePool, match="not ready after"):
        pool.submit(int)

    pool.close()
    initializer.act = None
    assert pool.submit(int).result(WAIT) == 0
    stuck.release()
    until(lambda: pool.stats().abandoned == 0)
    assert pool.submit(int).result(WAIT) == 0  # what was late touched nothing


def test_d4_a_start_that_takes_its_time_is_waited_for(new_pool, new_hold):
    """No start_timeout, and one that is long enough."""
    for timeout in (None, "1h"):
        hold = new_hold()
        pool = new_pool(1, initializer=hold, limits=Limits(start_timeout=timeout))
        future = pool.submit(int)
        hold.wait_started()
        assert not future.done()
        hold.release()
        assert future.result(WAIT) == 0
        pool.close()


def test_d4_with_nobody_serving_the_pool_gives_up_after_five_in_a_row(
    new_pool, new_stuck, short_pauses
):
    """Each later than the one before, without spinning; what is queued is told why."""
    stuck = new_stuck()
    initializer = Initializer()
    limits = Limits(start_timeout=0.03, max_abandoned=10, tasks=1)
    pool = new_pool(1, initializer=initializer, limits=limits)
    events = Events(pool)
    initializer.act = lambda: generation() > 1 and stuck()
    assert pool.submit(generation).result(WAIT) == 1
    queued = [pool.submit(int) for _ in range(3)]
    for future in queued:
        error = future.exception(WAIT)
        assert isinstance(error, BrokenRecyclePool)
        assert "not ready after 30 ms" in str(error)
    events.wait_for(PoolBroken)
    failed = events.of(WorkerStartFailed)
    assert [event.failures for event in failed] == [1, 2, 3, 4, 5]
    for n, event in enumerate(failed[:4]):
        assert 0.01 * 2**n <= event.retry_in <= 0.01 * 2**n * 1.1
    assert failed[4].retry_in is None
    assert len(initializer.generations) == 1 + 5
    assert pool.stats().abandoned == 5
    assert pool.stats().failed_starts == 5
    initializer.act = None
    pool.destroy()
    assert pool.submit(int).result(WAIT) == 0


def test_d4_while_somebody_serves_it_is_tried_for_ever(new_pool, short_pauses):
    """More than five times in a row; then it succeeds."""
    initializer = Initializer()
    pool = new_pool(2, initializer=initializer)
    events = Events(pool)
    assert pool.submit(generation).result(WAIT) == 1
    initializer.act = fail
    assert isinstance(pool.recycle(0).exception(WAIT), WorkerStartError)
    events.wait_for(WorkerStartFailed, failures=6)
    assert pool.stats().state is PoolState.OPEN
    assert pool.submit(generation).result(WAIT) == 1
    initializer.act = None
    events.wait_for(WorkerRetired, slot=0, generation=1)
    assert pool.submit(generation).result(WAIT) == 2


def test_d4_a_pause_grows_no_longer_than_half_a_minute(new_pool):
    pool = new_pool(1, limits=Limits(jitter=0))
    engine = pool._engine
    pauses = []
    for failures in range(1, 100):
        engine.roster.failures = failures
        pauses.append(engine.start_pause())
    engine.roster.failures = 0
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[8:] == [25.6] + [30.0] * 90


def test_d4_one_that_comes_too_late_serves_nobody(new_pool, new_stuck, short_pauses):
    """It was given up while it started: its thread ends, without a task, with its finalizer."""
    stuck, served, finalized = new_stuck(), [], []
    initializer = Initializer(lambda: generation() == 2 and not served.append(1) and stuck())
    pool = new_pool(
        1,
        initializer=initializer,
        finalizer=lambda: finalized.append(threading.current_thread()),
        limits=Limits(start_timeout=0.05, max_abandoned=5),
    )
    events = Events(pool)
    assert pool.submit(generation).result(WAIT) == 1
    pool.recycle(0)
    (event,) = events.wait_for(WorkerAbandoned)
    assert (event.generation, event.reason) == (2, None)
    initializer.act = None
    events.wait_for(WorkerRetired, slot=0, generation=1)
    threads = {worker.thread for worker in pool._engine.roster.abandoned}
    stuck.release()
    until(lambda: pool.stats().abandoned == 0)
    for thread in threads:
        thread.join(WAIT)
    assert pool.submit(lambda: threading.current_thread() not in threads).result(WAIT)
    assert len(finalized) == 2  # it was ready, if too late; and the first worker
    assert set(finalized) > threads
    assert events.of(WorkerReady, generation=2) == []
    assert pool.stats().state is PoolState.OPEN


def test_d4_report_only_waits_and_tells(new_pool, new_hold):
    hold = new_hold()
    pool = new_pool(1, initializer=hold, limits=Limits(start_timeout=0.02, report_only=True))
    events = Events(pool)
    future = pool.submit(int)
    (event,) = events.wait_for(WorkerStartFailed)
    assert "not ready after 20 ms" in event.error
    assert not future.done()
    hold.release()
    assert future.result(WAIT) == 0
    assert pool.stats().abandoned == 0
    assert len(events.of(WorkerStartFailed)) == 1


# -- D5: a stop that comes while a successor starts -----------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        lambda pool: pool.close(),
        lambda pool: pool.close(WAIT),
        lambda pool: pool.destroy(WAIT),
        lambda pool: pool.shutdown(),
    ],
    ids=["close", "close_in_time", "destroy", "shutdown"],
)
@pytest.mark.parametrize("verb", ["recycle", "soft_restart", "age", "request"])
def test_d5_a_stop_while_a_successor_starts(new_pool, new_hold, end, verb):
    """Who waits for it is told; it never serves; after the end nobody starts."""
    hold, finalized = new_hold(), []
    initializer = Initializer()
    limits = Limits(age=0.02) if verb == "age" else Limits()
    pool = new_pool(
        1, initializer=initializer, limits=limits, finalizer=lambda: finalized.append(generation())
    )
    events = Events(pool)
    initializer.act = lambda: generation() > 1 and hold()
    pool.submit(int).result(WAIT)
    waiting = None
    if verb == "recycle":
        waiting = pool.recycle(0)
    elif verb == "soft_restart":
        waiting = pool.soft_restart()
    elif verb == "request":
        pool.submit(lambda: current_worker().request_recycle()).result(WAIT)
    hold.wait_started()
    ending = in_thread(end, pool)
    if waiting is not None:
        assert isinstance(waiting.exception(WAIT), PoolClosedError)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    hold.release()
    ending.result()
    assert pool.stats().workers == ()
    assert initializer.generations == [1, 2]
    assert len(events.of(WorkerReady, generation=2)) == 0
    assert finalized.count(1) == 1


def test_d5_after_a_failed_start_a_stop_is_not_followed_by_another_try(new_pool, short_pauses):
    """The pause is over when the pool is: nobody starts any more."""
    initializer = Initializer()
    pool = new_pool(1, initializer=initializer)
    events = Events(pool)
    pool.submit(int).result(WAIT)
    initializer.act = fail
    pool.recycle(0)
    events.wait_for(WorkerStartFailed, 2)
    pool.destroy(WAIT)
    tried = len(initializer.generations)
    watchdog = pool._engine.watchdog
    until(lambda: watchdog._sleep is None)  # it has nothing to come for
    assert len(initializer.generations) == tried


@pytest.mark.parametrize("queued", [1, 5])
def test_d5_a_drain_starts_workers_only_for_tasks_that_nobody_takes(new_pool, new_hold, queued):
    """With a new worker for each task: exactly as many as there are tasks."""
    hold, initializer = new_hold(), Initializer()
    pool = new_pool(1, min_workers=1, initializer=initializer, limits=Limits(tasks=1))
    running = pool.submit(hold)
    hold.wait_started()
    futures = [pool.submit(generation) for _ in range(queued)]
    until(lambda: len(initializer.generations) == 2)  # the successor of the last task's worker
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    hold.release()
    closing.result()
    assert running.done()
    assert [future.result(0) for future in futures] == [*range(2, queued + 2)]
    assert initializer.generations == [*range(1, queued + 2)]


def test_d5_a_drain_without_queued_tasks_starts_nobody(new_pool, new_hold):
    """Whatever min_workers says, and whoever was to be replaced."""
    hold, initializer = new_hold(), Initializer()
    pool = new_pool(3, min_workers=3, initializer=initializer, limits=Limits(max_surge=0))
    assert pool.start().result(WAIT) == 3
    running = [pool.submit(hold, n) for n in range(3)]
    hold.wait_started(3)
    restart = pool.soft_restart()
    closing = in_thread(pool.close)
    assert isinstance(restart.exception(WAIT), PoolClosedError)
    hold.release()
    closing.result()
    assert [future.result(0) for future in running] == [0, 1, 2]
    assert initializer.generations == [1, 1, 1]


# -- D6: a successor that never becomes ready -----------------------------------------------------


@pytest.mark.parametrize("verb", ["recycle", "soft_restart"])
@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_d6_the_old_worker_serves_on(new_pool, new_stuck, short_pauses, verb, how):
    """And an event tells. It is tried again after a while, and then it is replaced."""
    stuck, initializer = new_stuck(), Initializer()
    limits = Limits(start_timeout=0.05 if how == "hangs" else "1h", max_abandoned=100)
    pool = new_pool(2, initializer=initializer, limits=limits)
    events, together = Events(pool), threading.Barrier(2)
    for future in [pool.submit(together.wait, WAIT) for _ in range(2)]:
        future.result(WAIT)
    initializer.act = fail if how == "fails" else stuck
    replaced = pool.recycle(0) if verb == "recycle" else pool.soft_restart()
    error = replaced.exception(WAIT)
    assert isinstance(error, WorkerStartError)
    wanted = "database is away" if how == "fails" else "not ready after 50 ms"
    assert wanted in str(error)
    (event, *_) = events.wait_for(WorkerStartFailed)
    assert wanted in event.error
    assert event.retry_in is not None

    def work():
        together.wait(WAIT)
        return generation()

    for _ in range(5):  # two serve
        futures = [pool.submit(work) for _ in range(2)]
        assert [future.result(WAIT) for future in futures] == [1, 1]
    due = {w.slot for w in pool.stats().workers if w.due and w.state is State.SERVING}
    assert due == ({0} if verb == "recycle" else {0, 1})
    assert events.of(WorkerRetired) == []

    initializer.act = None
    events.wait_for(WorkerRetired, 1 if verb == "recycle" else 2, generation=1)
    until(lambda: pool._engine.roster.serving() == 2)
    futures = [pool.submit(work) for _ in range(2)]
    after = sorted(future.result(WAIT) for future in futures)
    assert after[1] > 1
    assert (after[0] == 1) is (verb == "recycle")
    assert len(events.of(WorkerDue)) == len(due)


def test_d6_one_that_is_replaced_for_its_age_too(new_pool, short_pauses):
    initializer = Initializer()
    pool = new_pool(1, initializer=initializer, limits=Limits(age=0.02))
    events = Events(pool)
    assert pool.submit(generation).result(WAIT) == 1
    initializer.act = fail
    events.wait_for(WorkerStartFailed, 3)
    serving = [w.generation for w in pool.stats().workers if w.state is State.SERVING]
    assert len(serving) == 1
    assert pool.submit(generation).result(WAIT) == serving[0]
    initializer.act = None
    events.wait_for(WorkerRetired, generation=serving[0])
    assert pool.submit(generation).result(WAIT) > serving[0]


def test_d6_without_a_surge_there_is_no_old_worker(new_pool, short_pauses):
    """It left first, so the pool has nobody until a start succeeds; no task is lost."""
    initializer = Initializer()
    pool = new_pool(1, initializer=initializer, limits=Limits(max_surge=0))
    events = Events(pool)
    assert pool.submit(generation).result(WAIT) == 1
    initializer.act = fail
    replaced = pool.soft_restart()
    assert isinstance(replaced.exception(WAIT), WorkerStartError)
    futures = [pool.submit(generation) for _ in range(3)]
    initializer.act = None
    assert [future.result(WAIT) for future in futures] == [2, 2, 2]
    assert len(events.of(WorkerStartFailed)) < 5


def test_d6_a_new_soft_restart_after_one_that_failed(new_pool, monkeypatch):
    """It waits for the same pause, and is settled when that has led to something."""
    monkeypatch.setattr(_staff, "FIRST_PAUSE", 0.1)
    initializer = Initializer()
    pool = new_pool(1, initializer=initializer)
    assert pool.submit(generation).result(WAIT) == 1
    initializer.act = fail
    assert isinstance(pool.soft_restart().exception(WAIT), WorkerStartError)
    initializer.act = None
    assert pool.soft_restart().result(WAIT) == 1
    assert pool.submit(generation).result(WAIT) == 2


def test_d5_a_start_that_is_overtaken_by_an_end_without_workers_is_told(new_pool):
    """The epoch ends in the very order that begins its end: nobody is here."""
    initialize = iter([None])
    pool = new_pool(1, initializer=lambda: next(initialize), min_workers=1, limits=Limits(tasks=1))
    events = Events(pool)
    pool.submit(int).result(WAIT)
    events.wait_for(WorkerStartFailed)
    events.wait_for(WorkerRetired)
    started = pool.start()  # starts are held back for a moment
    pool.destroy()
    assert isinstance(started.exception(WAIT), PoolClosedError | WorkerStartError)
