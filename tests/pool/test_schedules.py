# ruff: noqa: F401, F811 (fixtures are imported)
"""Scheduled restarts (E7, and S5 and B5 with a schedule): by a wall clock of the test's own."""

import gc
import logging
import os
import threading
import time
import weakref
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from listening import Events, Obedient, new_stuck, no_lingering
from scheduling import (
    DAY,
    HOUR,
    MIDNIGHT,
    MINUTE,
    Scheduled,
    Wall,
    at_rest,
    fill,
    generations,
    new_scheduled,
    watchdog_threads,
    who,
)
from staging import WAIT, in_thread, until
from test_scenarios_s_processes import needs_fork, run

from recyclepool import (
    Limits,
    PoolState,
    Reason,
    RecyclePool,
    Schedule,
    ScheduleFired,
    State,
    TaskTimeoutError,
    WatchdogFailed,
    WorkerDue,
    WorkerReady,
    WorkerRetired,
    _watchdog,
)
from recyclepool.schedule import phase

HOURLY = "0 * * * * (UTC)"


class Gate:
    """An initializer that is held for the workers that come while it is closed."""

    def __init__(self):
        self._go = threading.Event()
        self._go.set()
        self.waiting = 0

    def __call__(self):
        if not self._go.is_set():
            self.waiting += 1
            assert self._go.wait(WAIT), "nobody opened it"

    def close(self):
        self._go.clear()

    def open(self):
        self._go.set()

    def wait_until_somebody_starts(self, count=1):
        until(lambda: self.waiting >= count, "a successor starts")


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()


# -- E7: by the calendar --------------------------------------------------------------------------


def test_e7_all_are_replaced_at_the_time_of_the_calendar(new_scheduled):
    made = new_scheduled(3, "0 3 * * *").fill(3)
    pool, wall, events = made.pool, made.wall, made.events
    wall.jump_to(MIDNIGHT + 3 * HOUR - 0.01)
    assert made.fired() == []
    assert made.generations() == [1, 1, 1]
    wall.jump_to(MIDNIGHT + 3 * HOUR)
    assert made.wait_fired(1) == [("0 3 * * * (UTC)", None, 3, 0)]
    made.become(2, 2, 2)
    gone = events.wait_for(WorkerRetired, 3)
    assert {(e.reason, e.why) for e in gone} == {(Reason.SCHEDULE, "schedule: 0 3 * * * (UTC)")}
    assert pool.stats().recycles == {"schedule": 3}
    assert {e.why for e in events.of(WorkerDue)} == {"schedule: 0 3 * * * (UTC)"}
    wall.jump(HOUR)
    assert len(made.fired()) == 1
    made.become(2, 2, 2)
    wall.jump_to(MIDNIGHT + 27 * HOUR)
    made.become(3, 3, 3)
    assert len(made.fired()) == 2


@pytest.mark.parametrize(
    ("expression", "moments"),
    [  # in UTC, around both changes
        ("30 3 * * *", ["2026-03-28 02:30", "2026-03-29 01:30", "2026-03-30 01:30"]),
        ("30 2 * * *", ["2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"]),
    ],
)
def test_e7_a_zone_and_its_changes_of_the_clocks(expression, moments, new_scheduled):
    moments = [datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in moments]
    pool = new_scheduled(1, Schedule.cron(expression, tz="Europe/Berlin"))
    pool.wall.now = moments[0] - 10 * HOUR
    pool.fill(1)
    for number, moment in enumerate(moments):
        assert pool.pool.stats().next_schedule == moment
        pool.wall.jump_to(moment - 1)
        assert len(pool.fired()) == number
        pool.wall.jump_to(moment)
        pool.wait_fired(number + 1)
        pool.become(number + 2)


def test_e7_a_time_that_clocks_skip_comes_right_after_it(new_scheduled):
    pool = new_scheduled(1, (Schedule.cron("30 2 * * *", tz="Europe/Berlin"),))
    pool.wall.now = datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp()
    pool.fill(1)
    three = datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()
    assert pool.pool.stats().next_schedule == three
    pool.wall.jump_to(three)
    assert pool.wait_fired(1) == [("30 2 * * * (Europe/Berlin)", None, 1, 0)]


def test_e7_with_one_worker_that_starts_slowly_the_queue_is_served(new_scheduled, gate):
    made = new_scheduled(1, "@hourly", initializer=gate).fill(1)
    gate.close()
    made.wall.jump(HOUR)
    gate.wait_until_somebody_starts()
    assert [made.pool.submit(who).result(WAIT) for _ in range(20)] == [(0, 1)] * 20
    gate.open()
    made.become(2)
    assert made.pool.submit(who).result(WAIT) == (0, 2)
    made.events.wait_for(WorkerRetired)
    kinds = made.events.kinds()
    assert kinds.index("ScheduleFired") < kinds.index("WorkerRetired")
    assert [e.generation for e in made.events.of(WorkerReady)] == [1, 2]


@pytest.mark.parametrize("surge", [0, 1, 3])
def test_e7_no_task_is_lost_under_load(surge, new_scheduled):
    made, over, ran = new_scheduled(3, "@hourly", limits=Limits(max_surge=surge)).fill(3), [], []

    def load():
        while not over:
            futures = [made.pool.submit(divmod, n, 3) for n in range(20)]
            ran.extend(future.result(WAIT) == divmod(n, 3) for n, future in enumerate(futures))

    loading = in_thread(load)
    for number in range(2, 5):
        made.wall.jump(HOUR)
        made.wait_fired(number - 1)
        made.become(number, number, number)
    over.append(True)
    loading.result()
    assert all(ran)
    assert made.pool.stats().recycles == {"schedule": 9}
    assert made.fired() == [(HOURLY, None, 3, 0)] * 3


def test_e7_several_schedules_join_where_they_come_together(new_scheduled):
    made = new_scheduled(2, ("@daily", "@hourly", "@daily")).fill(2)
    made.wall.jump_to(MIDNIGHT + HOUR)
    made.become(2, 2)
    made.wall.jump_to(MIDNIGHT + DAY)
    made.become(3, 3)
    assert made.wait_fired(3) == [
        (HOURLY, None, 2, 0),
        ("0 0 * * * (UTC)", None, 2, 0),
        (HOURLY, None, 0, 2),
    ]


# -- E7: the wall clock is set --------------------------------------------------------------------


def test_e7_what_was_missed_fires_once(new_scheduled):
    made = new_scheduled(2, "@hourly").fill(2)
    made.wall.jump(3 * DAY)
    made.wait_fired(1)
    made.become(2, 2)
    made.wall.jump(60)
    assert len(made.fired()) == 1
    assert made.pool.stats().next_schedule == MIDNIGHT + 3 * DAY + HOUR
    made.wall.jump(HOUR)
    made.wait_fired(2)
    made.become(3, 3)


@pytest.mark.parametrize("back", [1.0, 30 * MINUTE, HOUR - 1])
def test_e7_a_clock_that_is_set_back_fires_nothing_twice(back, new_scheduled):
    made = new_scheduled(1, "@hourly").fill(1)
    made.wall.jump(HOUR)
    made.become(2)
    for _ in range(3):
        made.wall.jump(-back)
        made.wall.jump(back)
    assert len(made.wait_fired(1)) == 1
    made.become(2)
    made.wall.jump(HOUR)
    made.wait_fired(2)
    made.become(3)


def test_e7_a_clock_that_was_wrong_by_days_is_believed_again(new_scheduled):
    made = new_scheduled(1, "@hourly").fill(1)
    made.wall.jump(400 * DAY)
    made.become(2)
    made.wall.jump(-400 * DAY)
    made.become(2)
    made.wall.jump(HOUR)
    made.become(3)
    made.wait_fired(2)


def test_e7_a_clock_that_fails_is_told_once_and_hurts_nobody(new_scheduled, caplog):
    """A task's own time is up when it is up."""
    caplog.set_level(logging.CRITICAL, "recyclepool")
    made = new_scheduled(2, "@hourly").fill(2)
    pool, wall = made.pool, made.wall
    with wall.failing():
        wall.look()
        (event,) = made.events.wait_for(WatchdogFailed)
        assert "no clock" in event.error
        assert [pool.submit(abs, -n).result(WAIT) for n in range(9)] == [*range(9)]
        began = time.monotonic()
        late = pool.options(timeout=0.02).submit(Obedient())
        assert isinstance(late.exception(WAIT), TaskTimeoutError)
        assert time.monotonic() - began < _watchdog.FAILED_PAUSE
        assert pool.recycle(0).result(WAIT) == 1
        assert pool.submit(int).result(WAIT) == 0
    made.become(*made.generations())
    wall.jump(HOUR)
    made.wait_fired(1)
    assert len(made.events.of(WatchdogFailed)) == 1
    until(lambda: pool.stats().recycles.get("schedule"), "it goes on")


def test_e7_a_clock_that_fails_at_first_is_read_again(new_scheduled, caplog, monkeypatch):
    """By the watchdog itself: nobody else looks."""
    monkeypatch.setattr(_watchdog, "FAILED_PAUSE", 0.01)
    caplog.set_level(logging.CRITICAL, "recyclepool")
    made = new_scheduled(1, "@hourly")
    with made.wall.failing():
        assert made.pool.submit(int).result(WAIT) == 0
        made.events.wait_for(WatchdogFailed)
        until(lambda: watchdog_threads(made.pool), "it will come again")
    until(lambda: made.pool._engine.watchdog.timetable is not None, "it came again")


def test_e7_a_clock_that_fails_is_no_matter_of_who_asks_for_stats(new_scheduled):
    made = new_scheduled(1, "@hourly")
    with made.wall.failing():
        assert made.pool.stats().next_schedule is None
    assert made.pool.stats().next_schedule == MIDNIGHT + HOUR


# -- E7: a restart is under way -------------------------------------------------------------------


@pytest.mark.parametrize("other", ["soft_restart", "schedule"])
def test_e7_a_firing_joins_the_restart_that_is_under_way(other, new_scheduled, gate):
    """Who has come for that is as good as new, and is not replaced again."""
    made = new_scheduled(2, "@hourly", initializer=gate, limits=Limits(max_surge=1)).fill(2)
    fired = [(HOURLY, None, 2, 0)] if other == "schedule" else []
    gate.close()
    if other == "schedule":
        made.wall.jump(HOUR)
        restart = None
    else:
        restart = made.pool.soft_restart()
    gate.wait_until_somebody_starts()
    made.wall.jump(HOUR)
    assert made.wait_fired(len(fired) + 1) == [*fired, (HOURLY, None, 0, 2)]
    gate.open()
    if restart is not None:
        assert restart.result(WAIT) == 2
    made.become(2, 2)
    reasons = {"schedule": 2} if other == "schedule" else {"manual": 2}
    assert made.pool.stats().recycles == reasons
    made.wall.jump(HOUR)  # that one is over: the next replaces all again
    made.become(3, 3)


def test_e7_who_came_since_the_restart_began_stays(new_scheduled):
    """The first slot has its successor when the schedule fires, the second waits for its own."""
    made_ones, go = [], threading.Event()

    def initializer():
        made_ones.append(1)
        if len(made_ones) == 4:
            assert go.wait(WAIT)

    made = new_scheduled(2, "@hourly", initializer=initializer).fill(2)
    try:
        restart = made.pool.soft_restart()
        until(lambda: len(made_ones) == 4, "the second successor starts")
        until(lambda: made.generations() == [2, 1] or made.generations() == [1, 2])
        made.wall.jump(HOUR)
        assert made.wait_fired(1) == [(HOURLY, None, 0, 2)]
    finally:
        go.set()
    assert restart.result(WAIT) == 2
    made.become(2, 2)
    assert made.pool.stats().recycles == {"manual": 2}


@pytest.mark.parametrize("why", ["recycle", "age"])
def test_e7_one_who_is_replaced_for_another_reason_is_no_restart(why, new_scheduled, gate):
    """It joins; the others are replaced all the same."""
    made = new_scheduled(3, "@hourly", initializer=gate, limits=Limits(age="1h", jitter=0)).fill(3)
    gate.close()
    if why == "recycle":
        made.pool.recycle(0)
    else:
        made.pool._engine.roster.holders()[0].expires = 0.0
        made.wall.look()
    gate.wait_until_somebody_starts()
    made.wall.jump(HOUR)
    assert made.wait_fired(1) == [(HOURLY, None, 2, 1)]
    gate.open()
    made.become(2, 2, 2)


def test_e7_a_task_that_runs_for_days_holds_up_no_other_worker(new_scheduled, new_hold):
    """Its worker's successor is there; the restart is over for all others, again and again."""
    hold = new_hold()
    made = new_scheduled(3, "@hourly", limits=Limits(max_surge=3)).fill(3)
    task = made.pool.submit(hold)
    hold.wait_started()

    def free():
        workers = made.pool._engine.roster.workers.copy()
        return sorted(w.generation for w in workers if w.state is State.SERVING)

    for number in (2, 3, 4):
        made.wall.jump(HOUR)
        made.wait_fired(number - 1)
        until(lambda n=number: free() == [n, n], "the two others are replaced")
    hold.release()
    task.result(WAIT)
    until(lambda: at_rest(made.pool) and len(made.generations()) == 3)


def test_e7_a_soft_restart_while_one_fires_covers_all(new_scheduled, gate):
    made = new_scheduled(2, "@hourly", initializer=gate).fill(2)
    gate.close()
    made.wall.jump(HOUR)
    gate.wait_until_somebody_starts()
    restart = made.pool.soft_restart()
    gate.open()
    assert restart.result(WAIT) >= 2
    until(lambda: at_rest(made.pool))
    assert min(made.generations()) >= 2
    assert made.fired() == [(HOURLY, None, 2, 0)]


# -- E7: by intervals -----------------------------------------------------------------------------


def own_times(name, size, interval=HOUR, after=MIDNIGHT + 1):
    """When each slot's interval is over, the soonest first."""
    every = Schedule.every(interval)
    return sorted((every.next_after(after, phase=phase(name, n)), n) for n in range(size))


def test_e7_each_slot_has_its_own_time(new_scheduled):
    made = new_scheduled(4, "every 1h", name="phases").fill(4)
    expected = [1, 1, 1, 1]
    times = own_times("phases", 4)
    assert made.pool.stats().next_schedule == times[0][0]
    for number, (moment, slot) in enumerate(times, 1):
        made.wall.jump_to(moment - 0.01)
        assert len(made.fired()) == number - 1
        made.wall.jump_to(moment)
        assert made.wait_fired(number)[-1] == ("every 1h", slot, 1, 0)
        expected[slot] = 2
        made.become(*expected)
    assert {e.why for e in made.events.of(WorkerRetired)} == {"schedule: every 1h"}
    assert min(later[0] - earlier[0] for earlier, later in pairwise(times)) > 5 * MINUTE


def test_e7_slots_do_not_wait_for_each_other_and_one_joins_itself(new_scheduled, gate):
    """Each is due at its time, also while another's successor still starts."""
    made = new_scheduled(3, "every 1h", initializer=gate, name="slots").fill(3)
    gate.close()
    times = own_times("slots", 3)
    for moment, _ in times:
        made.wall.jump_to(moment)
    assert made.wait_fired(3) == [("every 1h", slot, 1, 0) for _, slot in times]
    made.wall.jump_to(times[0][0] + HOUR)
    assert made.wait_fired(4)[-1] == ("every 1h", times[0][1], 0, 1)
    gate.open()
    made.become(2, 2, 2)


def test_e7_pools_have_their_own_times(new_scheduled):
    pools = [new_scheduled(1, "every 6h", name=f"tenth-{n}").pool for n in range(10)]
    assert len({round(pool.stats().next_schedule) for pool in pools}) == 10


def test_e7_slots_come_and_go(new_scheduled):
    made = new_scheduled(2, "every 1h").fill(2)
    made.pool.resize(4)
    fill(made.pool, 4)
    made.wall.jump(HOUR)
    assert sorted(made.wait_fired(4)) == [("every 1h", slot, 1, 0) for slot in range(4)]
    made.become(2, 2, 2, 2)
    made.pool.resize(1)
    made.become(2)
    made.wall.jump(HOUR)
    assert made.wait_fired(5)[-1] == ("every 1h", 0, 1, 0)
    made.become(3)
    made.pool.resize(2)
    fill(made.pool, 2)
    before = made.generations()
    made.wall.look()
    assert made.generations() == before  # who has just come is not due
    made.wall.jump(HOUR)
    made.wait_fired(7)


def test_e7_a_slot_that_nobody_holds_fires_nothing(new_scheduled):
    made = new_scheduled(50, "every 1h").fill(2)
    made.wall.jump(HOUR)
    made.become(2, 2)
    assert sorted(made.fired()) == [("every 1h", 0, 1, 0), ("every 1h", 1, 1, 0)]


def test_e7_the_calendar_takes_those_who_are_there(new_scheduled):
    made = new_scheduled(2, "@hourly").fill(2)
    made.pool.resize(5)
    made.wall.jump(HOUR)
    assert made.wait_fired(1) == [(HOURLY, None, 2, 0)]
    made.become(2, 2)
    fill(made.pool, 5)
    made.pool.resize(3)
    until(lambda: len(made.generations()) == 3 and at_rest(made.pool))
    made.wall.jump(HOUR)
    assert made.wait_fired(2)[-1] == (HOURLY, None, 3, 0)


def test_e7_by_the_clocks_of_the_machine(new_pool):
    """And the watchdog's own thread: nobody else looks."""
    pool = new_pool(2, schedule="every 40ms")
    events = Events(pool)
    fill(pool, 2)
    events.wait_for(ScheduleFired, 6, due=1)
    events.wait_for(WorkerRetired, 4, reason=Reason.SCHEDULE)
    assert {e.slot for e in events.of(ScheduleFired)} == {0, 1}
    assert [pool.submit(divmod, 7, 2).result(WAIT) for _ in range(5)] == [(3, 1)] * 5


# -- beside everything else -----------------------------------------------------------------------


def test_without_a_surge_they_go_one_by_one(new_scheduled):
    made = new_scheduled(3, "@hourly", limits=Limits(max_surge=0)).fill(3)
    most = []
    check = made.pool._engine.roster.check

    def look():
        check()
        most.append(len(made.pool._engine.roster.workers))

    made.pool._engine.roster.check = look
    made.wall.jump(HOUR)
    made.become(2, 2, 2)
    assert max(most) == 3
    assert made.wait_fired(1) == [(HOURLY, None, 3, 0)]


def test_a_due_worker_whose_task_hangs(new_scheduled, new_stuck, caplog):
    """It is given up after its limit, and its slot has served on."""
    caplog.set_level(logging.CRITICAL, "recyclepool")
    stuck = new_stuck()
    limits = Limits(task_timeout=0.1, grace=0.05, jitter=0)
    made = new_scheduled(1, "@hourly", limits=limits).fill(1)
    task = made.pool.submit(stuck)
    stuck.wait_started()
    made.wall.jump(HOUR)
    assert isinstance(task.exception(WAIT), TaskTimeoutError)
    assert made.pool.submit(who).result(WAIT) == (0, 2)
    assert made.wait_fired(1) == [(HOURLY, None, 1, 0)]
    until(lambda: made.pool.stats().abandoned == 1)
    made.wall.jump(HOUR)
    assert made.wait_fired(2)[-1] == (HOURLY, None, 1, 0)
    made.become(3)


def test_a_due_worker_finishes_its_task(new_scheduled, new_hold):
    hold = new_hold()
    made = new_scheduled(1, "@hourly").fill(1)
    running, queued = made.pool.submit(hold, 7), made.pool.submit(who)
    hold.wait_started()
    made.wall.jump(HOUR)
    made.wait_fired(1)
    assert not running.done()
    hold.release()
    assert running.result(WAIT) == 7
    assert queued.result(WAIT)[0] == 0
    made.become(2)
    assert made.pool.stats().completed == 3


def test_report_only_holds_no_schedule_back(new_scheduled):
    made = new_scheduled(2, ("@hourly",), limits=Limits(age="1h", report_only=True)).fill(2)
    made.wall.jump(HOUR)
    assert made.wait_fired(1) == [(HOURLY, None, 2, 0)]
    made.become(2, 2)


def test_it_fires_while_dispatch_is_paused(new_scheduled):
    """As for a process that is too big: workers are replaced, and tasks wait on."""
    limits = Limits(pool_memory="100TiB", sample_every="1h")
    made = new_scheduled(2, "@hourly", limits=limits).fill(2)
    engine = made.pool._engine
    engine.order(engine.pause_dispatch)
    queued = [made.pool.submit(who) for _ in range(4)]
    made.wall.jump(HOUR)
    assert made.wait_fired(1) == [(HOURLY, None, 2, 0)]
    made.become(2, 2)
    assert not any(task.done() for task in queued)
    engine.order(engine.resume_dispatch)
    assert {task.result(WAIT)[1] for task in queued} == {2}


def test_starts_that_fail_are_tried_again_and_the_old_ones_serve(new_scheduled, caplog):
    caplog.set_level(logging.CRITICAL, "recyclepool")
    failing = []

    def initializer():
        if failing:
            raise failing.pop()

    made = new_scheduled(2, "@hourly", initializer=initializer).fill(2)
    failing.append(OSError("not now"))
    made.wall.jump(HOUR)
    assert [made.pool.submit(divmod, 7, 2).result(WAIT) for _ in range(5)] == [(3, 1)] * 5
    until(lambda: made.pool.stats().recycles == {"schedule": 2}, "it was tried again")


# -- when there is nobody to replace --------------------------------------------------------------


def test_a_pool_without_a_schedule_has_no_watchdog(new_pool):
    pool = new_pool(1)
    assert pool.submit(int).result(WAIT) == 0
    assert pool._engine.watchdog is None
    assert pool.stats().next_schedule is None


def test_its_thread_is_there_while_a_worker_is(new_scheduled):
    made = new_scheduled(1, "@yearly")
    assert not watchdog_threads(made.pool)
    made.wall.jump(HOUR)
    assert not watchdog_threads(made.pool)
    made.fill(1)
    assert len(watchdog_threads(made.pool)) == 1
    made.pool.close()
    until(lambda: not watchdog_threads(made.pool), "it ends")


def test_it_looks_once_a_minute_however_far_the_next_one_is(new_scheduled):
    made = new_scheduled(1, "@yearly").fill(1)
    watchdog, clock = made.pool._engine.watchdog, made.pool._engine.settings.clock
    left = watchdog.until - clock()
    assert 50 < left <= 60
    assert 50 < made.pool.stats().watchdog_due - made.pool.stats().watchdog_tick <= 60.5


def test_what_is_missed_before_the_first_worker_replaces_nobody(new_scheduled):
    made = new_scheduled(2, ("@hourly", "every 1h"))
    made.wall.jump(30 * DAY)
    made.fill(2)
    assert made.generations() == [1, 1]
    assert made.fired() == []
    made.wall.jump(HOUR)
    made.wait_fired(3)
    until(lambda: at_rest(made.pool) and min(made.generations()) == 2)


def test_who_comes_after_the_last_idle_worker_went_is_new(new_scheduled):
    made = new_scheduled(1, "@hourly", limits=Limits(idle=0.02))
    assert made.pool.submit(int).result(WAIT) == 0
    until(lambda: not made.pool.stats().workers, "it goes")
    made.wall.jump(5 * DAY)
    hold = threading.Event()
    task = made.pool.submit(hold.wait, WAIT)
    until(made.pool._engine.roster.serving)
    made.wall.look()
    assert made.fired() == []
    hold.set()
    assert task.result(WAIT)


@pytest.mark.parametrize("again", ["submit", "start"])
@pytest.mark.parametrize("verb", ["close", "destroy"])
def test_a_closed_pool_fires_nothing_and_begins_afresh(verb, again, new_scheduled):
    made = new_scheduled(2, ("@hourly", "every 1h"), min_workers=1).fill(2)
    getattr(made.pool, verb)(WAIT)
    until(lambda: not watchdog_threads(made.pool), "no thread is left")
    for _ in range(3):
        made.wall.jump(DAY)
    assert made.pool.stats().state is PoolState.OPEN
    assert made.pool.stats().workers == ()
    assert made.pool.stats().next_schedule > made.wall.now
    if again == "submit":
        assert made.pool.submit(int).result(WAIT) == 0
    else:
        assert made.pool.start().result(WAIT) == 1
    fill(made.pool, 2)
    made.wall.look()
    assert made.fired() == []
    before = made.generations()
    made.wall.jump(HOUR)
    made.wait_fired(3)
    until(lambda: at_rest(made.pool) and all(map(int.__gt__, made.generations(), before)))


def test_shutdown_ends_it(new_scheduled):
    made = new_scheduled(2, "@hourly").fill(2)
    made.pool.shutdown()
    made.wall.jump(DAY)
    assert made.fired() == []
    assert made.pool.stats().workers == ()
    assert made.pool.stats().next_schedule is None
    until(lambda: not watchdog_threads(made.pool), "no thread is left")


def test_b5_a_drain_is_not_disturbed(new_scheduled, new_hold):
    """Intake stops, tasks drain, and from the first on no schedule fires."""
    hold = new_hold()
    made = new_scheduled(1, "@hourly").fill(1)
    tasks = [made.pool.submit(hold, n) for n in range(3)]
    hold.wait_started()
    closing = in_thread(made.pool.close)
    until(lambda: made.pool.stats().state is PoolState.CLOSING)
    made.wall.jump(DAY)
    assert made.fired() == []
    (worker,) = made.pool.stats().workers  # the drain can be watched
    assert worker.generation == 1
    hold.release()
    assert [task.result(WAIT) for task in tasks] == [0, 1, 2]
    assert closing.result().completed == 3
    assert made.pool.stats().recycles.get("schedule") is None


def test_b5_a_restart_that_is_under_way_ends_with_the_pool(new_scheduled, gate):
    made = new_scheduled(2, "@hourly", initializer=gate).fill(2)
    gate.close()
    made.wall.jump(HOUR)
    gate.wait_until_somebody_starts()
    closing = in_thread(made.pool.close)
    until(lambda: made.pool.stats().state is not PoolState.OPEN)
    gate.open()
    closing.result()
    assert made.pool.stats().workers == ()
    assert made.pool.submit(int).result(WAIT) == 0
    assert made.pool.stats().recycles.get("schedule", 0) <= 1


def served(pool):
    """It has fired."""
    wall = Wall(pool)
    fill(pool, 2)
    wall.look()
    wall.jump(HOUR)
    until(lambda: generations(pool) == [2, 2] and at_rest(pool))
    return pool


@pytest.mark.parametrize("schedule", ["@hourly", "every 1h"])
def test_a_dropped_pool_is_collected_and_its_threads_end(schedule):
    before = set(threading.enumerate())
    watched = weakref.ref(served(RecyclePool(2, schedule=schedule)))
    until(lambda: gc.collect() is not None and watched() is None, "it is collected")
    until(lambda: not set(threading.enumerate()) - before, "its threads end")


@needs_fork
def test_the_child_of_a_fork_has_its_schedule():
    """Fresh: what was missed in the parent replaces nobody. The parent's goes on."""
    lines = run(
        """
        pool = RecyclePool(1, schedule=("@hourly", "every 1h"), name="forked")
        now = [1_700_000_000.0]
        pool._engine.settings = pool._engine.settings._replace(wall=lambda: now[0])
        events = []
        pool.subscribe(events.append)

        def generation():
            return pool.submit(lambda: current_worker().generation).result(20)

        def jump(seconds):
            before = pool.stats().recycles.get("schedule", 0)
            now[0] += seconds
            pool._engine.look()
            deadline = time.monotonic() + 20
            while pool.stats().recycles.get("schedule", 0) == before:
                assert time.monotonic() < deadline
                time.sleep(0.001)

        def child():
            assert pool.stats().workers == ()
            now[0] += 86400
            assert generation() == 1
            assert pool.stats().recycles == {}
            jump(3600)
            assert generation() == 2
            pool.shutdown()
            say("child is well")

        assert generation() == 1
        say(in_child(child))
        jump(3600)
        say(generation())
        """
    )
    assert lines == ["child is well", "0", "2"]


def test_the_interpreter_ends_with_a_schedule_and_work_left():
    lines = run(
        """
        pool = RecyclePool(2, schedule=("every 20ms", "@hourly"))
        fired = threading.Semaphore(0)
        pool.subscribe(lambda event: fired.release() if "schedule" in str(event) else None)
        for n in range(4):
            pool.submit(int).result(20)
            assert fired.acquire(timeout=20)
        pool.submit(lambda: (time.sleep(0.05), say("finished")))
        say("the end")
        """
    )
    assert lines == ["the end", "finished"]


# -- what is told ---------------------------------------------------------------------------------


def test_when_the_next_one_is(new_scheduled):
    made = new_scheduled(1, ("@daily", "0 6 * * *"))
    pool, wall = made.pool, made.wall
    assert pool.stats().next_schedule == MIDNIGHT + 6 * HOUR  # if somebody were here
    made.fill(1)
    assert pool.stats().next_schedule == MIDNIGHT + 6 * HOUR
    wall.jump(6 * HOUR)
    made.wait_fired(1)
    assert pool.stats().next_schedule == MIDNIGHT + DAY
    assert pool.stats().as_dict()["next_schedule"] == MIDNIGHT + DAY
    pool.close()
    assert pool.stats().next_schedule == MIDNIGHT + DAY
    wall.now += 20 * HOUR
    assert pool.stats().next_schedule == MIDNIGHT + DAY + 6 * HOUR


def test_s5_it_is_one_line_for_the_firing_and_one_for_each_worker(new_scheduled, caplog):
    """At INFO, and never a warning."""
    caplog.set_level(logging.INFO, "recyclepool")
    made = new_scheduled(2, "0 3 * * *", name="s5-schedule").fill(2)
    made.wall.jump(3 * HOUR)
    made.become(2, 2)
    made.events.wait_for(WorkerRetired, 2)
    made.pool._engine.news.join(WAIT)
    first, *others = [record.getMessage() for record in caplog.records]
    assert first == "pool 's5-schedule': schedule 0 3 * * * (UTC): 2 workers are replaced"
    assert sorted(line.partition(" retired: ")[0] for line in others) == [
        "pool 's5-schedule': worker 0.1",
        "pool 's5-schedule': worker 1.1",
    ]
    for line in others:
        assert " retired: schedule: 0 3 * * * (UTC);" in line
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_the_line_of_a_slot_and_of_a_firing_that_joins(new_scheduled, gate):
    made = new_scheduled(1, ("every 1h", "@daily"), initializer=gate, name="lines").fill(1)
    gate.close()
    made.wall.jump(DAY)
    made.wait_fired(2)
    gate.open()
    one, other = sorted(str(e).partition(": ")[2] for e in made.events.of(ScheduleFired))
    joined = ", 1 more by the restart that is under way"
    assert one == "schedule 0 0 * * * (UTC): 1 worker is replaced"
    assert other == f"schedule every 1h: 0 workers are replaced in slot 0{joined}"


# -- what is written ------------------------------------------------------------------------------


class Text(str):
    """Text of somebody's own."""

    __slots__ = ()


@pytest.mark.parametrize(
    "schedule",
    [
        "@hourly",
        Text("@hourly"),
        Schedule.cron("@hourly"),
        ["@hourly"],
        ("@hourly", Schedule.cron("0 * * * *"), " 0 * * * * "),
    ],
)
def test_the_ways_to_write_one(schedule, new_scheduled):
    made = new_scheduled(1, schedule).fill(1)
    made.wall.jump(HOUR)
    assert made.wait_fired(1) == [(HOURLY, None, 1, 0)]
    made.become(2)


@pytest.mark.parametrize(
    ("schedule", "error", "words"),
    [
        ((), ValueError, "None for none"),
        ("", ValueError, "five"),
        ("61 * * * *", ValueError, "minute 61"),
        (("@daily", "@dayly"), ValueError, r"schedule\[1\]"),
        (("@daily", None), TypeError, r"schedule\[1\]"),
        ((("@daily",),), TypeError, r"schedule\[0\]"),
        ({"@daily"}, TypeError, "write text"),
        (iter(["@daily"]), TypeError, "write text"),
        (b"@daily", TypeError, "write text"),
        (3600, TypeError, r"Schedule\.every\(3600\)"),
        (True, TypeError, "write text"),
        (0, TypeError, "schedule"),
        ("every 1ms", ValueError, "10ms"),
        (Schedule, TypeError, "write text"),
    ],
    ids=lambda value: repr(value).partition(" object")[0],
)
def test_what_is_none_is_refused_as_the_pool_is_made(schedule, error, words):
    with pytest.raises(error, match=words):
        RecyclePool(1, schedule=schedule)


def test_a_thousand_schedules(new_scheduled):
    """All of them due at once: each is told, and each worker is replaced once."""
    made = new_scheduled(2, [f"{n % 60} {n // 60 % 24} * * *" for n in range(800)]).fill(2)
    made.wall.jump(2 * DAY)
    fired = made.wait_fired(800)
    assert fired[0][2:] == (2, 0)
    assert {each[2:] for each in fired[1:]} == {(0, 2)}
    made.become(2, 2)
    assert made.pool.submit(int).result(WAIT) == 0


def test_thousands_of_slots(new_scheduled):
    made = new_scheduled(1, "every 6h").fill(1)
    made.pool.resize(5000)
    assert made.pool.submit(int).result(WAIT) == 0
    made.wall.jump(6 * HOUR)
    made.become(2)
    made.pool.resize(1)
    made.wall.jump(6 * HOUR)
    made.become(3)
