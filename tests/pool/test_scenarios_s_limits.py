# ruff: noqa: F401, F811 (fixtures are imported)
"""Scenarios S, as far as they are about limits of time, replacements, timeouts and the log."""

import contextlib
import logging
import threading
import time

import pytest
from listening import Events, Obedient, new_stuck, no_lingering
from staging import WAIT, in_thread, until

from recyclepool import (
    BrokenRecyclePool,
    CloseReport,
    Limits,
    PoolState,
    Reason,
    State,
    TaskAbort,
    TaskAbortedError,
    TaskTimedOut,
    TaskTimeoutError,
    WorkerAbandoned,
    WorkerDue,
    WorkerReady,
    WorkerRetired,
    WorkerStartError,
    WorkerStartFailed,
    _staff,
    current_worker,
)


def who():
    me = current_worker()
    return me.slot, me.generation


def spin(seconds):
    """Work, in Python."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


# -- S5: a deliberate recycle is one line of the log ----------------------------------------------


def by_recycle(pool):
    pool.recycle(0).result(WAIT)


def by_soft_restart(pool):
    pool.soft_restart().result(WAIT)


def by_request(pool):
    pool.submit(lambda: current_worker().request_recycle("the index is stale")).result(WAIT)


def by_a_task(pool):
    pool.submit(int).result(WAIT)


def by_waiting(pool):
    pass


RECYCLES = {
    "recycle": (by_recycle, {}, Reason.MANUAL, "manual: recycle()"),
    "soft_restart": (by_soft_restart, {}, Reason.MANUAL, "manual: soft_restart()"),
    "request": (by_request, {}, Reason.REQUESTED, "requested: the index is stale"),
    "tasks": (by_a_task, {"tasks": 2}, Reason.TASKS, "tasks; 2 tasks in "),
    "age": (by_waiting, {"age": 0.05}, Reason.AGE, "age: "),
    "idle": (by_waiting, {"idle": 0.05}, Reason.IDLE, "idle for 50 ms"),
}


@pytest.mark.parametrize("way", RECYCLES)
def test_s5_a_deliberate_recycle_is_one_line_with_its_reason(new_pool, caplog, way):
    """At INFO, and never a warning."""
    caplog.set_level(logging.INFO, "recyclepool")
    recycle, limits, reason, words = RECYCLES[way]
    pool = new_pool(1, name=f"s5-{way}", limits=Limits(**limits))
    events = Events(pool)
    assert pool.submit(int).result(WAIT) == 0
    recycle(pool)
    (event, *_) = events.wait_for(WorkerRetired)
    assert (event.slot, event.generation, event.reason) == (0, 1, reason)
    of_this_worker = [r for r in caplog.records if "worker 0.1 " in r.getMessage()]
    (record,) = of_this_worker
    assert record.levelno == logging.INFO
    assert record.name == "recyclepool"
    line = record.getMessage()
    assert line.startswith(f"pool 's5-{way}': worker 0.1 retired: {words}")
    assert "\n" not in line
    pool.close()
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


def test_s5_resize_is_a_line_for_each_that_goes_and_a_close_is_none(new_pool, caplog):
    caplog.set_level(logging.INFO, "recyclepool")
    pool, together = new_pool(3), threading.Barrier(3)
    events = Events(pool)
    for future in [pool.submit(together.wait, WAIT) for _ in range(3)]:
        future.result(WAIT)
    pool.resize(1)
    events.wait_for(WorkerRetired, 2)
    pool.close()
    events.wait_for(WorkerRetired, 3)
    lines = sorted(record.getMessage() for record in caplog.records)
    assert [("resize" in line, "worker 1.1" in line) for line in lines] == [
        (True, True),
        (True, False),
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_s5_what_went_wrong_is_a_warning(new_pool, new_stuck, caplog):
    """One line for the timeout, one for the worker that had to be given up."""
    caplog.set_level(logging.INFO, "recyclepool")
    pool = new_pool(1, name="s5", limits=Limits(task_timeout=0.03, grace=0.03))
    events, stuck = Events(pool), new_stuck()
    assert isinstance(pool.submit(stuck).exception(WAIT), TaskTimeoutError)
    events.wait_for(WorkerAbandoned)
    first, second = caplog.records
    assert first.levelno == second.levelno == logging.WARNING
    assert first.getMessage().startswith("pool 's5': worker 0.1: task 'Stuck' timed out: it has")
    assert second.getMessage().startswith("pool 's5': worker 0.1 abandoned (timeout): its task")


def test_s5_the_whole_life_of_a_pool_as_events(new_pool):
    """In order, each once; the fields tell who and why."""
    pool = new_pool(1, name="life", limits=Limits(tasks=2))
    events = Events(pool)
    assert [pool.submit(who).result(WAIT) for _ in range(2)] == [(0, 1)] * 2
    events.wait_for(WorkerRetired, reason=Reason.TASKS)
    until(lambda: pool._engine.roster.serving() == 1)
    assert pool.recycle(0).result(WAIT) == 1
    events.wait_for(WorkerRetired, reason=Reason.MANUAL)
    pool.close()
    until(lambda: "PoolClosed" in events.kinds())
    assert (
        events.kinds()
        == [
            "WorkerReady",  # 0.1
            "WorkerReady",  # 0.2, while the last task of 0.1 runs, or just after it
            "WorkerRetired",
            "WorkerDue",  # 0.2
            "WorkerReady",  # 0.3
            "WorkerRetired",
            "PoolClosing",
            "WorkerRetired",  # 0.3
            "PoolClosed",
        ]
        or events.kinds()[1:3] == ["WorkerRetired", "WorkerReady"]
    )
    assert [(e.generation, e.reason) for e in events.of(WorkerRetired)] == [
        (1, Reason.TASKS),
        (2, Reason.MANUAL),
        (3, Reason.CLOSE),
    ]
    assert {event.pool for event in events.all} == {"life"}
    times = [event.at for event in events.all]
    assert times == sorted(times)
    assert all(event.age >= event.seconds >= 0 for event in events.of(WorkerRetired))


def test_s5_who_unsubscribed_hears_no_more(new_pool):
    pool = new_pool(1)
    events, others = Events(pool), Events(pool)
    pool.submit(int).result(WAIT)
    events.wait_for(WorkerReady)
    others.wait_for(WorkerReady)
    events.unsubscribe()
    events.unsubscribe()
    pool.close()
    others.wait_for(WorkerRetired)
    assert events.kinds() == ["WorkerReady"]


def test_s5_a_subscriber_that_raises_or_hangs_harms_nobody(new_pool, new_hold, caplog):
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")
    pool, hold = new_pool(1, limits=Limits(tasks=1)), new_hold()

    def raises(event):
        raise ValueError(event)

    pool.subscribe(raises)
    pool.subscribe(hold)
    assert [pool.submit(who).result(WAIT) for _ in range(5)] == [(0, n) for n in range(1, 6)]
    hold.wait_started()
    report = pool.close(WAIT)
    assert not report.timed_out
    hold.release()


# -- S6, and what else becomes of a task that ran too long ----------------------------------------

TIMES = {
    "task_timeout": (Limits(task_timeout=0.03), Reason.TIMEOUT),
    "hang": (Limits(hang=0.03), Reason.HANG),
    "options": (Limits(), Reason.TIMEOUT),
    "options_without_limits": (None, Reason.TIMEOUT),
}


def submit_timed(pool, way, fn, *args):
    if way.startswith("options"):
        return pool.options(timeout=0.03).submit(fn, *args)
    return pool.submit(fn, *args)


@pytest.mark.parametrize("way", TIMES)
def test_s6_after_a_timeout_the_next_result_on_that_slot_is_the_next_tasks(new_pool, way):
    limits, reason = TIMES[way]
    pool = new_pool(1, limits=limits)
    events, endless = Events(pool), Obedient()
    late = submit_timed(pool, way, endless)
    queued = [pool.submit(who) for _ in range(3)]
    error = late.exception(WAIT)
    assert isinstance(error, TaskTimeoutError)
    assert isinstance(error, TimeoutError)
    assert "30 ms" in str(error)
    assert [future.result(WAIT) for future in queued] == [(0, 2)] * 3
    (event,) = events.wait_for(TaskTimedOut)
    assert (event.slot, event.generation, event.reason) == (0, 1, reason)
    assert event.task_name == "Obedient"
    assert event.seconds >= 0.03
    (event,) = events.wait_for(WorkerRetired)
    assert (event.generation, event.reason) == (1, reason)
    stats = pool.stats()
    assert (stats.timed_out, stats.completed, stats.aborted) == (1, 3, 0)
    assert stats.recycles == {str(reason): 1}
    assert late.exception(0) is error


@pytest.mark.parametrize("way", TIMES)
def test_s6_even_if_it_ends_in_a_result_after_all(new_pool, new_stuck, way):
    """A late result of an abandoned worker goes nowhere; the future was settled at the deadline."""
    limits, reason = TIMES[way]
    pool = new_pool(1, limits=Limits(**_fields(limits), grace=0.03))
    events, stuck = Events(pool), new_stuck()
    late = submit_timed(pool, way, stuck, "late")
    assert isinstance(late.exception(WAIT), TaskTimeoutError)
    (event,) = events.wait_for(WorkerAbandoned)
    assert (event.reason, event.task_name) == (reason, "Stuck")
    assert pool.submit(who).result(WAIT) == (0, 2)
    (shown,) = [w for w in pool.stats().workers if w.state is State.ABANDONED]
    assert (shown.slot, shown.generation, shown.task_name) == (0, 1, "Stuck")
    assert "listening.py" in shown.stack
    assert "1 abandoned" in repr(pool)
    before = pool.stats()
    stuck.release()
    until(lambda: pool.stats().abandoned == 0)
    assert isinstance(late.exception(0), TaskTimeoutError)
    after = pool.stats()
    assert (after.completed, after.timed_out) == (before.completed, before.timed_out) == (1, 1)
    assert pool.submit(who).result(WAIT) == (0, 2)


def _fields(limits):
    if limits is None:
        return {}
    return {n: v for n in ("task_timeout", "hang") if (v := getattr(limits, n)) is not None}


def test_s6_the_future_does_not_wait_for_what_becomes_of_the_worker(new_pool, new_stuck):
    """It is settled at the deadline, however long the grace is; its callbacks run."""
    pool, stuck = new_pool(1, limits=Limits(task_timeout=0.03, grace="1h")), new_stuck()
    told = []
    future = pool.submit(stuck)
    future.add_done_callback(lambda f: told.append((f, threading.current_thread().name)))
    assert isinstance(future.exception(WAIT), TaskTimeoutError)
    until(lambda: told)
    ((whose, thread),) = told
    assert whose is future
    assert thread.endswith("_callbacks")  # of its own: its driver is stuck
    assert pool.stats().abandoned == 0  # it has its grace


def test_s6_a_callback_of_a_timed_out_future_that_hangs_harms_nobody(new_pool, new_stuck, new_hold):
    pool, stuck, hold = new_pool(1, limits=Limits(task_timeout=0.03)), new_stuck(), new_hold()
    future = pool.submit(stuck)
    future.add_done_callback(hold)
    hold.wait_started()
    stuck.release()
    assert pool.submit(who).result(WAIT) == (0, 2)
    another = pool.submit(Obedient())
    assert isinstance(another.exception(WAIT), TaskTimeoutError)
    assert pool.submit(who).result(WAIT) == (0, 3)


def test_s6_a_heartbeat_keeps_a_task_that_is_slow(new_pool):
    """A hang counts from the last of them."""
    pool = new_pool(1, limits=Limits(hang=0.1))

    def alive():
        for _ in range(15):
            spin(0.02)
            current_worker().heartbeat()
        return who()

    assert pool.submit(alive).result(WAIT) == (0, 1)

    def stops_beating():
        for _ in range(3):
            spin(0.02)
            current_worker().heartbeat()
        Obedient()()

    began = time.monotonic()
    error = pool.submit(stops_beating).exception(WAIT)
    assert isinstance(error, TaskTimeoutError)
    assert time.monotonic() - began >= 0.16
    assert "no sign of life for 100 ms" in str(error)


def test_s6_a_thread_of_the_task_may_beat_for_it(new_pool):
    pool = new_pool(1, limits=Limits(hang=0.2))

    def task():
        me, over = current_worker(), []

        def beat():
            while not over:
                me.heartbeat()
                time.sleep(0.005)

        thread = threading.Thread(target=beat)
        thread.start()
        spin(0.5)
        over.append(True)
        thread.join(WAIT)
        return who()

    assert pool.submit(task).result(WAIT) == (0, 1)


def test_s6_the_earliest_of_several_deadlines_counts(new_pool):
    pool = new_pool(1, limits=Limits(task_timeout="1h", hang="1h"))
    error = pool.options(timeout=0.02).submit(Obedient()).exception(WAIT)
    assert "ran longer than 20 ms" in str(error)
    other = new_pool(1, limits=Limits(task_timeout=0.02, hang="1h"))
    error = other.options(timeout="1h").submit(Obedient()).exception(WAIT)
    assert "ran longer than 20 ms" in str(error)


def test_s6_the_time_counts_from_the_start_of_the_run(new_pool, new_hold):
    """Not from submit: what waits long in the queue is not late."""
    hold, clock = new_hold(), time.monotonic
    pool = new_pool(1)
    pool.submit(hold)
    hold.wait_started()
    future = pool.options(timeout=0.2).submit(who)
    began = clock()
    until(lambda: clock() - began > 0.25)
    hold.release()
    assert future.result(WAIT) == (0, 1)


def test_s6_a_task_that_ends_in_time_has_no_deadline_left(new_pool):
    """Nor does a deadline of one task hit the next."""
    pool = new_pool(1, limits=Limits(task_timeout=0.2))
    events = Events(pool)
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert pool.submit(who).result(WAIT) == (0, 1)
    assert pool.options(timeout=0.05).submit(who).result(WAIT) == (0, 1)
    spin(0.1)
    assert pool.submit(who).result(WAIT) == (0, 1)
    assert events.of(TaskTimedOut) == []


def test_s6_others_are_not_touched(new_pool, new_spin):
    """Two workers: one is timed out and replaced, the other's task goes on."""
    pool, other = new_pool(2), new_spin()
    well = pool.submit(lambda: (other("well"), who()))
    other.wait_started()
    late = pool.options(timeout=0.02).submit(Obedient())
    assert isinstance(late.exception(WAIT), TaskTimeoutError)
    assert pool.submit(who).result(WAIT) == (1, 2)
    other.release()
    assert well.result(WAIT) == ("well", (0, 1))


@pytest.mark.parametrize("way", ["task_timeout", "hang"])
def test_s6_report_only_tells_and_lets_it_run(new_pool, way):
    limits, reason = TIMES[way]
    pool = new_pool(1, limits=Limits(**_fields(limits), report_only=True))
    events, over = Events(pool), threading.Event()

    def slow():
        over.wait(WAIT)
        return who()

    future = pool.submit(slow)
    (event,) = events.wait_for(TaskTimedOut)
    assert (event.report_only, event.reason) == (True, reason)
    assert event.level == logging.INFO
    assert not future.done()
    spin(0.1)
    over.set()
    assert future.result(WAIT) == (0, 1)
    assert len(events.of(TaskTimedOut)) == 1  # once for a task
    assert pool.submit(who).result(WAIT) == (0, 1)
    stats = pool.stats()
    assert (stats.timed_out, stats.completed, stats.recycles) == (0, 2, {})
    # What one task was given holds all the same.
    error = pool.options(timeout=0.02).submit(Obedient()).exception(WAIT)
    assert isinstance(error, TaskTimeoutError)


def test_s6_an_abort_that_is_swallowed_is_followed_by_others(new_pool):
    """A task that catches everything is told again, until it ends."""
    pool = new_pool(1, limits=Limits(task_timeout=0.03, grace=WAIT))
    swallowed = []

    def stubborn():
        for _ in range(3):
            try:
                Obedient()()
            except TaskAbort:
                swallowed.append(1)
        return "late"

    future = pool.submit(stubborn)
    assert isinstance(future.exception(WAIT), TaskTimeoutError)
    assert pool.submit(who).result(WAIT) == (0, 2)
    assert len(swallowed) == 3


# -- more abandoned workers than there may be -----------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 2])
def test_s_past_max_abandoned_the_pool_is_broken(new_pool, new_stuck, most, caplog):
    """And says so, rather than leak threads without end; a close opens it anew."""
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")
    limits = Limits(task_timeout=0.02, grace=0.02, max_abandoned=most)
    pool, stuck = new_pool(1, limits=limits), new_stuck()
    events = Events(pool)
    for n in range(most):
        assert isinstance(pool.submit(stuck).exception(WAIT), TaskTimeoutError)
        events.wait_for(WorkerAbandoned, n + 1)
        assert pool.submit(int).result(WAIT) == 0
    last = pool.submit(stuck)
    queued = pool.submit(int)
    assert isinstance(last.exception(WAIT), TaskTimeoutError)
    error = queued.exception(WAIT)
    assert isinstance(error, BrokenRecyclePool)
    words = f"{most + 1} threads are stuck in tasks that do not end, and no more than {most}"
    assert words in str(error)
    assert pool.stats().state is PoolState.BROKEN
    assert pool.stats().abandoned == most + 1
    for verb in (lambda: pool.submit(int), lambda: pool.options(timeout=1).submit(int)):
        with pytest.raises(BrokenRecyclePool, match=words):
            verb()
    assert isinstance(pool.start().exception(WAIT), BrokenRecyclePool)
    report = pool.close()
    assert len(report.abandoned) == most + 1
    assert pool.stats().state is PoolState.OPEN
    assert pool.submit(int).result(WAIT) == 0
    stuck.release()
    until(lambda: pool.stats().abandoned == 0)


def test_s_who_comes_back_makes_room_for_another(new_pool, new_stuck):
    """max_abandoned counts those that live."""
    pool = new_pool(1, limits=Limits(task_timeout=0.02, grace=0.02, max_abandoned=1))
    for n in range(1, 5):
        stuck = new_stuck()
        assert isinstance(pool.submit(stuck).exception(WAIT), TaskTimeoutError)
        until(lambda: pool.stats().abandoned == 1)
        assert pool.submit(who).result(WAIT) == (0, n + 1)
        stuck.release()
        until(lambda: pool.stats().abandoned == 0)
    assert pool.stats().state is PoolState.OPEN


# -- S17 ------------------------------------------------------------------------------------------


@pytest.fixture
def scarce(monkeypatch):
    """Pools whose worker threads can be made to run out."""
    monkeypatch.setattr(_staff, "FIRST_PAUSE", 0.01)
    out = []

    class Thread(threading.Thread):
        def start(self):
            if out and self.name.rpartition("_")[2].isdigit():
                raise RuntimeError("can't start new thread")
            super().start()

    def make_scarce(pool):
        engine = pool._engine
        engine.settings = engine.settings._replace(new_thread=Thread)
        return out

    return make_scarce


def test_s17_who_lives_serves(new_pool, new_hold, scarce):
    """Ten workers are asked for, three are to be had: all tasks run."""
    pool, hold = new_pool(10), new_hold()
    out = scarce(pool)
    running = [pool.submit(hold, n) for n in range(3)]
    hold.wait_started(3)
    out.append(True)
    queued = [pool.submit(divmod, n, 3) for n in range(50)]
    assert len(pool._engine.roster.workers) == 3
    hold.release()
    assert [future.result(WAIT) for future in running] == [0, 1, 2]
    assert [future.result(WAIT) for future in queued] == [divmod(n, 3) for n in range(50)]
    out.clear()


def test_s17_submit_raises_only_if_nobody_lives(new_pool, scarce):
    pool = new_pool(2)
    out = scarce(pool)
    out.append(True)
    for _ in range(3):
        with pytest.raises(WorkerStartError, match="no thread can be started"):
            pool.submit(int)
    assert isinstance(pool.start().result(WAIT), int)  # it wants nobody
    assert pool.stats().queued == 0
    out.clear()
    assert pool.submit(int).result(WAIT) == 0


@pytest.mark.parametrize("verb", ["recycle", "soft_restart"])
def test_s17_a_successor_for_which_there_is_no_thread(new_pool, scarce, verb):
    """The old worker serves on; an event tells; it is replaced when there are threads again."""
    pool = new_pool(1)
    out = scarce(pool)
    assert pool.submit(who).result(WAIT) == (0, 1)
    events = Events(pool)
    out.append(True)
    replaced = pool.recycle(0) if verb == "recycle" else pool.soft_restart()
    error = replaced.exception(WAIT)
    assert isinstance(error, WorkerStartError)
    assert "no thread can be started" in str(error)
    events.wait_for(WorkerStartFailed, 3)
    assert pool.submit(who).result(WAIT) == (0, 1)
    assert pool.stats().state is PoolState.OPEN
    out.clear()
    (event,) = events.wait_for(WorkerRetired)
    assert (event.generation, event.reason) == (1, Reason.MANUAL)
    assert pool.submit(who).result(WAIT)[1] > 1


def test_s17_a_worker_is_stuck_and_there_is_no_thread_for_its_successor(new_pool, scarce):
    """What is queued is told, or served as soon as there is one; nothing waits for ever."""
    pool = new_pool(1)
    out = scarce(pool)
    endless = Obedient()
    late = pool.options(timeout=0.05).submit(endless)
    endless.wait_started()
    out.append(True)
    queued = pool.submit(who)
    assert isinstance(late.exception(WAIT), TaskTimeoutError)
    until(lambda: queued.done() or pool.stats().failed_starts)
    out.clear()
    with contextlib.suppress(WorkerStartError):
        assert queued.result(WAIT)[1] > 1
    assert pool.submit(int).result(WAIT) == 0


# -- S20: a task is stopped in the pool's own code ------------------------------------------------


@pytest.mark.parametrize("how", ["task_timeout", "hang", "options", "cancel"])
@pytest.mark.parametrize("where", ["submit", "cancel", "result", "callback", "stats", "heartbeat"])
def test_s20_a_task_is_stopped_inside_the_pools_code(new_pool, monkeypatch, how, where):
    """No lock stays held, nothing is lost, and its slot goes on."""
    # The interpreter swallows, and tells of, an abort that surfaces in a weakref callback.
    monkeypatch.setattr("sys.unraisablehook", id)
    limits = {"task_timeout": {"task_timeout": 0.02}, "hang": {"hang": 0.02}}.get(how, {})
    pool = new_pool(1, limits=Limits(**limits, grace=WAIT))
    other = new_pool(1)
    made, calls, ended = [], [], []

    def callback(future):
        calls.append(future)
        sum(range(50))
        ended.append(future)

    def task():
        me = current_worker()
        while True:
            future = other.submit(divmod, 7, 2)
            made.append(future)
            if where == "cancel":
                future.cancel()
            elif where == "result":
                future.result()
            elif where == "callback":
                future.add_done_callback(callback)
                future.cancel()
            elif where == "stats":
                other.stats()
                repr(other)
            elif where == "heartbeat" and how != "hang":
                me.heartbeat()

    for n in range(4):
        view = pool.options(timeout=0.02) if how == "options" else pool
        future = view.submit(task)
        if how == "cancel":
            until(lambda: made)
            assert pool.cancel(future)
        wanted = TaskAbortedError if how == "cancel" else TaskTimeoutError
        assert isinstance(future.exception(WAIT), wanted)
        assert pool.submit(who).result(WAIT) == (0, n + 2)
        for submitted in made:
            assert submitted.cancelled() or submitted.result(WAIT) == (3, 1)
        until(lambda: len(ended) == len(calls))
        del made[:], calls[:], ended[:]
    assert other.submit(int).result(WAIT) == 0
    assert pool.stats().abandoned == 0
    for each in (pool, other):
        assert each.close(WAIT).abandoned == ()


def test_s20_a_task_that_sleeps_in_the_pools_code_is_woken(new_pool, new_hold):
    """It waits for a future, for `stopping`, for another pool's rest or end."""
    other, hold = new_pool(1), new_hold()
    pool = new_pool(1, limits=Limits(task_timeout=0.05, grace=WAIT))
    never = other.submit(hold)
    hold.wait_started()
    for n, sleep in enumerate(
        [
            never.result,
            lambda: current_worker().stopping.wait() and never.result(),
            other.wait_idle,
            other.close,
        ]
    ):
        assert isinstance(pool.submit(sleep).exception(WAIT), TaskTimeoutError)
        assert pool.submit(who).result(WAIT) == (0, n + 2)
    assert pool.stats().abandoned == 0
    hold.release()
    never.result(WAIT)
    other.close()
    assert other.submit(int).result(WAIT) == 0


def test_s20_a_task_that_is_stopped_while_it_replaces_and_resizes(new_pool, monkeypatch):
    """The verbs of its own pool that a task may call."""
    monkeypatch.setattr("sys.unraisablehook", id)
    pool = new_pool(3, limits=Limits(task_timeout=0.03, grace=WAIT, max_abandoned=0))

    def task():
        size = 0
        while True:
            size += 1
            pool.resize(2 + size % 2)
            pool.recycle(0)
            pool.soft_restart()
            current_worker().request_recycle("again")
            pool.cancel(pool.submit(int))
            spin(0.001)

    for _ in range(3):
        assert isinstance(pool.submit(task).exception(WAIT), TaskTimeoutError)
    assert pool.wait_idle(WAIT)
    pool.resize(2)
    assert pool.soft_restart().result(WAIT) >= 0
    assert pool.submit(int).result(WAIT) == 0
    assert pool.close(WAIT).abandoned == ()


# -- S21: own tasks -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["task", "callback", "initializer", "finalizer", "subscriber"])
@pytest.mark.parametrize(
    ("verb", "told"),
    [
        (lambda pool: pool.wait_idle(), "wait_idle()"),
        (lambda pool: pool.wait_idle(0.1), "wait_idle()"),
        (lambda pool: pool.close(), "close()"),
        (lambda pool: pool.destroy(), "destroy()"),
        (lambda pool: pool.shutdown(), "shutdown(wait=True)"),
    ],
    ids=["wait_idle", "wait_idle_in_time", "close", "destroy", "shutdown"],
)
def test_s21_what_would_wait_for_itself_raises(new_pool, place, verb, told):
    errors = []

    def attempt(*_):
        try:
            verb(pool)
        except RuntimeError as error:
            errors.append(str(error))

    pool = new_pool(
        1,
        initializer=attempt if place == "initializer" else None,
        finalizer=attempt if place == "finalizer" else None,
    )
    if place == "subscriber":
        pool.subscribe(attempt)
    future = pool.submit(attempt if place == "task" else int)
    if place == "callback":
        gate = threading.Event()
        future = pool.submit(gate.wait, WAIT)
        future.add_done_callback(attempt)
        gate.set()
    future.result(WAIT)
    if place == "finalizer":
        pool.close()
    until(lambda: errors)
    assert errors[0].startswith(f"{told} was called from one of the tasks or callbacks of <Recycle")
    assert "it would wait for itself" in errors[0]
    assert pool.submit(int).result(WAIT) == 0


@pytest.mark.parametrize(
    "wait",
    [
        lambda future: future.result(0.1),
        lambda future: future.exception(0.1),
        lambda future: __import__("concurrent.futures").futures.wait([future], 0.1),
        lambda future: list(__import__("concurrent.futures").futures.as_completed([future], 0.1)),
    ],
    ids=["result", "exception", "wait", "as_completed"],
)
@pytest.mark.parametrize("verb", ["recycle", "soft_restart"])
def test_s21_so_does_waiting_for_a_replacement(new_pool, new_hold, verb, wait):
    """From a task; to ask for it is allowed, and a callback may be added."""
    hold = new_hold()
    pool = new_pool(1, initializer=lambda: current_worker().generation > 1 and hold())
    told = []

    def task():
        future = pool.recycle(0) if verb == "recycle" else pool.soft_restart()
        future.add_done_callback(told.append)
        try:
            return wait(future)
        except RuntimeError as error:
            return str(error)

    message = pool.submit(task).result(WAIT)
    assert "one of the pool's own tasks or callbacks waits for its workers to be rep" in message
    hold.release()
    until(lambda: told)
    assert told[0].result(0) == 1
    assert pool.submit(who).result(WAIT) == (0, 2)


def test_s21_another_pools_task_may_wait(new_pool):
    outer, inner = new_pool(1), new_pool(1)
    inner.submit(int).result(WAIT)

    def task():
        assert inner.soft_restart().result(WAIT) == 1
        assert inner.wait_idle(WAIT)
        return inner.close(WAIT)

    assert isinstance(outer.submit(task).result(WAIT), CloseReport)


# -- pool.cancel, in each state of a task ---------------------------------------------------------


def test_cancel_of_a_queued_task(new_pool, new_hold):
    pool, hold, told = new_pool(1), new_hold(), []
    pool.submit(hold)
    hold.wait_started()
    queued = pool.submit(told.append)
    queued.add_done_callback(told.append)
    assert pool.cancel(queued)
    assert queued.cancelled()
    assert told == [queued]
    assert pool.cancel(queued)  # as future.cancel(): it is cancelled
    hold.release()
    assert pool.submit(who).result(WAIT) == (0, 1)


def test_cancel_of_a_running_task(new_pool):
    """It has its end at once; its worker is replaced."""
    pool, endless = new_pool(1), Obedient()
    events, told = Events(pool), []
    running = pool.submit(endless)
    running.add_done_callback(told.append)
    endless.wait_started()
    assert not running.cancel()  # the standard's
    assert pool.cancel(running)
    assert isinstance(running.exception(0), TaskAbortedError)
    assert not running.cancelled()
    until(lambda: told == [running])
    (event,) = events.wait_for(WorkerRetired)
    assert (event.generation, event.reason) == (1, Reason.MANUAL)
    assert "cancelled" in event.why
    assert not pool.cancel(running)  # it has its end
    assert pool.submit(who).result(WAIT) == (0, 2)
    stats = pool.stats()
    assert (stats.aborted, stats.completed, stats.cancelled) == (1, 1, 0)


def test_cancel_of_a_running_task_that_is_stuck(new_pool, new_stuck):
    """It has its end at once all the same; its worker is given up after the grace."""
    pool, stuck = new_pool(1, limits=Limits(grace=0.05)), new_stuck()
    events = Events(pool)
    running = pool.submit(stuck)
    stuck.wait_started()
    assert pool.cancel(running)
    assert isinstance(running.exception(0), TaskAbortedError)
    (event,) = events.wait_for(WorkerAbandoned)
    assert event.reason is Reason.MANUAL
    assert pool.submit(who).result(WAIT) == (0, 2)


@pytest.mark.parametrize("ending", [int, lambda: 1 / 0], ids=["result", "error"])
def test_cancel_of_a_task_that_is_over(new_pool, ending):
    pool = new_pool(1)
    over = pool.submit(ending)
    error = over.exception(WAIT)
    assert not pool.cancel(over)
    assert over.exception(0) is error
    assert pool.submit(who).result(WAIT) == (0, 1)
    pool.close()
    assert not pool.cancel(over)


def test_cancel_of_another_pools_running_task(new_pool, new_spin):
    """It is not this pool's to stop."""
    pool, other, spinning = new_pool(1), new_pool(1), new_spin()
    running = other.submit(spinning, "well")
    spinning.wait_started()
    assert not pool.cancel(running)
    spinning.release()
    assert running.result(WAIT) == "well"
    with pytest.raises(TypeError, match="a future that this pool has made"):
        pool.cancel("not a future")


def test_cancel_by_several_at_once_is_true_for_one(new_pool):
    """And the task's own end may be first."""
    pool = new_pool(1)
    for _ in range(30):
        together, endless = threading.Barrier(3), Obedient()
        running = pool.submit(endless)
        endless.wait_started()

        def cancel(together=together, running=running):
            together.wait(WAIT)
            return pool.cancel(running)

        calls = [in_thread(cancel) for _ in range(3)]
        assert sorted(call.result() for call in calls) == [False, False, True]
        assert isinstance(running.exception(0), TaskAbortedError)
    assert pool.stats().aborted == 30
    assert pool.submit(int).result(WAIT) == 0


def test_a_task_may_cancel_itself(new_pool):
    """It ends where it stands."""
    pool, box, went_on = new_pool(1), [], []

    def task():
        until(lambda: box)
        pool.cancel(box[0])
        went_on.append(1)

    box.append(pool.submit(task))
    assert isinstance(box[0].exception(WAIT), TaskAbortedError)
    assert pool.submit(who).result(WAIT) == (0, 2)
    assert went_on == []


# -- wait_idle, stacks, request_recycle -----------------------------------------------------------


def test_wait_idle(new_pool, new_hold):
    pool, hold = new_pool(2), new_hold()
    assert pool.wait_idle()  # unused
    futures = [pool.submit(hold, n) for n in range(5)]
    hold.wait_started(2)
    assert not pool.wait_idle(0.01)
    assert not pool.wait_idle(0)
    waits = [in_thread(pool.wait_idle) for _ in range(3)]
    hold.release()
    assert [wait.result() for wait in waits] == [True] * 3
    assert all(future.done() for future in futures)
    assert pool.wait_idle(0)
    pool.close()
    assert pool.wait_idle(0)


def test_wait_idle_sees_a_task_that_another_submitted(new_pool):
    """At rest means: nothing queued, nothing running, callbacks included."""
    pool, seen = new_pool(2), []

    def chain(n):
        if n:
            pool.submit(chain, n - 1)
        else:
            spin(0.02)
            seen.append("over")

    pool.submit(chain, 50)
    assert pool.wait_idle(WAIT)
    assert seen == ["over"]


def test_wait_idle_while_the_pool_closes_and_is_destroyed(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    pool.submit(hold)
    hold.wait_started()
    waiting = in_thread(pool.wait_idle)
    closing = in_thread(pool.close)
    until(lambda: pool.stats().state is PoolState.CLOSING)
    assert not pool.wait_idle(0.01)
    hold.release()
    assert waiting.result()
    closing.result()

    endless = Obedient()
    pool.submit(endless)
    endless.wait_started()
    waiting = in_thread(pool.wait_idle)
    pool.destroy(WAIT)
    assert waiting.result()


def test_wait_idle_after_a_worker_was_given_up(new_pool, new_stuck):
    """Its task has its end: nobody waits for the thread."""
    pool, stuck = new_pool(1, limits=Limits(task_timeout=0.02, grace=0.02)), new_stuck()
    pool.submit(stuck)
    assert pool.wait_idle(WAIT)
    assert pool.stats().abandoned == 1


def test_stacks_show_what_every_worker_does(new_pool, new_hold, new_stuck):
    pool, hold, stuck = new_pool(2, limits=Limits(grace=0.02)), new_hold(), new_stuck()

    def busy_in_here():
        hold()

    pool.submit(busy_in_here)
    hold.wait_started()
    timed = pool.options(timeout=0.02).submit(stuck)
    assert isinstance(timed.exception(WAIT), TaskTimeoutError)
    until(lambda: pool.stats().abandoned == 1)
    assert pool.submit(who).result(WAIT) == (1, 2)
    assert pool.stats().workers[1].state is State.ABANDONED
    first, second, third = pool.stacks()
    assert (first.slot, first.generation, first.state) == (0, 1, State.SERVING)
    assert first.task_name.endswith("busy_in_here")
    assert "in busy_in_here\n" in first.stack
    assert (second.slot, second.generation, second.state) == (1, 1, State.ABANDONED)
    assert "listening.py" in second.stack
    assert (third.slot, third.generation, third.task_name) == (1, 2, None)
    assert "fall_asleep" in third.stack


def test_request_recycle_tells_why(new_pool):
    """Due at once, replaced after its task; asked twice, the first counts."""
    pool = new_pool(1, limits=Limits(min_age="1h"))  # for memory only
    events = Events(pool)

    def task():
        me = current_worker()
        me.request_recycle("its index is stale")
        me.request_recycle("another reason")
        return who()

    assert pool.submit(task).result(WAIT) == (0, 1)
    (event,) = events.wait_for(WorkerRetired)
    assert (event.reason, event.why) == (Reason.REQUESTED, "its index is stale")
    (event,) = events.of(WorkerDue)
    assert event.why == "its index is stale"
    assert pool.submit(who).result(WAIT) == (0, 2)
    with pytest.raises(TypeError, match="write why in words"):
        pool.submit(lambda: current_worker().request_recycle(5)).result(WAIT)
    assert pool.submit(who).result(WAIT) == (0, 2)
    assert pool.stats().recycles == {"requested": 1}
