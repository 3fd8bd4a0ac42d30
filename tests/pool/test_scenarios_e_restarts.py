# ruff: noqa: F401, F811 (fixtures are imported)
"""Scenarios E and R11 to R20, as far as they are about workers that are replaced."""

import contextlib
import gc
import logging
import random
import threading
import time
import weakref
from collections import Counter

import pytest
from listening import Events, Obedient, new_stuck, no_lingering
from staging import WAIT, in_thread, until

from recyclepool import (
    Limits,
    PoolClosedError,
    Reason,
    RecyclePool,
    State,
    TaskAbortedError,
    TaskTimeoutError,
    WorkerDue,
    WorkerReady,
    WorkerRetired,
    current_worker,
    per_worker,
)


def who():
    me = current_worker()
    return me.slot, me.generation


def generation():
    return current_worker().generation


def fill(pool, workers):
    """Have so many workers there."""
    together = threading.Barrier(workers)
    for future in [pool.submit(together.wait, WAIT) for _ in range(workers)]:
        future.result(WAIT)
    assert pool.wait_idle(WAIT)
    until(lambda: pool._engine.roster.serving() == workers)


class Census:
    """How many serve and live, after each order of the pool."""

    def __init__(self, pool):
        roster = pool._engine.roster
        self.serving, self.alive = [], []
        check = roster.check

        def look():
            check()
            # Who retires and still runs its task serves that one.
            serving = sum(
                w.state is State.SERVING or (w.state is State.RETIRING and not w.vacated)
                for w in roster.workers
            )
            self.serving.append(serving)
            self.alive.append(len(roster.workers))

        roster.check = look


# -- E1 -------------------------------------------------------------------------------------------


def test_e1_a_soft_restart_makes_new_values_and_tears_the_old_ones_down(new_pool):
    torn_down, local = [], threading.local()

    @per_worker
    def thing():
        me = current_worker()
        yield [me.slot, me.generation]
        torn_down.append((me.slot, me.generation))

    def look():
        me = current_worker()
        local.seen = getattr(local, "seen", 0) + 1
        cached = me.cache.get("made by")
        me.cache["made by"] = me.generation
        return thing(), local.seen, cached

    pool = new_pool(1)
    assert pool.submit(look).result(WAIT) == ([0, 1], 1, None)
    assert pool.submit(look).result(WAIT) == ([0, 1], 2, 1)
    assert pool.soft_restart().result(WAIT) == 1
    assert pool.submit(look).result(WAIT) == ([0, 2], 1, None)
    assert pool.submit(look).result(WAIT) == ([0, 2], 2, 2)
    until(lambda: torn_down == [(0, 1)])
    pool.close()
    assert torn_down == [(0, 1), (0, 2)]


# -- E3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["submit", "start", "options"])
def test_e3_destroy_in_the_midst_of_everything(new_pool, new_hold, again):
    """Tasks with deadlines, a restart under way, idle workers: gone and back with its minimum."""
    hold = new_hold()
    limits = Limits(age="1h", idle="1h", task_timeout="1h", hang="1h", grace=WAIT)
    pool = new_pool(4, min_workers=2, limits=limits)
    fill(pool, 4)
    endless = Obedient()
    running = [pool.submit(endless), pool.options(timeout="1h").submit(endless)]
    endless.wait_started(2)
    box = [hold]
    pool._engine._hooks = pool._engine._hooks._replace(initializer=lambda: box and box[0]())
    restart = pool.soft_restart()
    hold.wait_started()  # a successor starts
    destroying = in_thread(pool.destroy, WAIT)
    for future in running:
        assert isinstance(future.exception(WAIT), TaskAbortedError)
    assert isinstance(restart.exception(WAIT), PoolClosedError)
    box.clear()
    hold.release()
    report = destroying.result()
    assert (report.aborted, report.abandoned) == (2, ())
    assert pool.stats().workers == ()
    if again == "start":
        assert pool.start().result(WAIT) == 2
    else:
        view = pool.options(timeout="1h") if again == "options" else pool
        assert view.submit(int).result(WAIT) == 0
    until(lambda: pool._engine.roster.serving() == 2)
    assert pool.soft_restart().result(WAIT) == 2


# -- E6 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surge", [0, 1, 2, 4])
@pytest.mark.parametrize("workers", [1, 3])
def test_e6_a_soft_restart_under_load(new_pool, workers, surge):
    """No failed and no lost task, never fewer serving than there are, at most `surge` more."""
    pool = new_pool(workers, limits=Limits(max_surge=surge))
    fill(pool, workers)
    events, census, over, seen = Events(pool), Census(pool), [], []

    def load():
        while not over:
            futures = [pool.submit(divmod, n, 3) for n in range(20)]
            seen.extend(future.result(WAIT) for future in futures)

    loads = [in_thread(load) for _ in range(2)]
    try:
        for _ in range(5):
            assert pool.soft_restart().result(WAIT) == workers
    finally:
        over.append(True)
        for each in loads:
            each.result()
    assert len(seen) >= 40
    assert all(value == divmod(n % 20, 3) for n, value in enumerate(seen[:20]))
    assert max(census.alive) <= workers + surge
    assert min(census.serving) >= (workers if surge else workers - 1)
    stats = pool.stats()
    assert (stats.failed, stats.aborted, stats.lost, stats.timed_out) == (0, 0, 0, 0)
    assert stats.recycles == {"manual": 5 * workers}
    serving = [worker for worker in stats.workers if worker.state is State.SERVING]
    assert [(w.slot, w.generation) for w in serving] == [(slot, 6) for slot in range(workers)]
    events.wait_for(WorkerRetired, 5 * workers)
    assert Counter((e.slot, e.generation) for e in events.of(WorkerDue)) == Counter(
        (slot, number) for slot in range(workers) for number in range(1, 6)
    )


def test_e6_one_worker_whose_successor_takes_its_time(new_pool, new_hold):
    """The old one serves meanwhile, and the new one as soon as it is ready."""
    hold = new_hold()
    pool = new_pool(1, initializer=lambda: generation() > 1 and hold())
    assert pool.submit(generation).result(WAIT) == 1
    restart = pool.soft_restart()
    hold.wait_started()
    for _ in range(100):
        assert pool.submit(generation).result(WAIT) == 1
    assert not restart.done()
    (worker,) = [w for w in pool.stats().workers if w.state is State.SERVING]
    assert worker.due is Reason.MANUAL
    hold.release()
    assert restart.result(WAIT) == 1
    assert pool.submit(generation).result(WAIT) == 2


def test_e6_it_is_rolling(new_pool):
    """With a surge of one, one successor starts at a time; each slot gets its next generation."""
    starting, most = [], []

    def initializer():
        starting.append(1)
        most.append(len(starting))
        for _ in range(2000):
            pass
        starting.pop()

    pool = new_pool(4)
    fill(pool, 4)
    pool._engine._hooks = pool._engine._hooks._replace(initializer=initializer)
    assert pool.soft_restart().result(WAIT) == 4
    assert most == [1] * 4


def test_e6_a_task_that_runs_keeps_its_worker_as_long_as_it_takes(new_pool, new_spin):
    """A soft retirement waits for it; meanwhile that slot's successor is ready.

    That is one more alive. Who wants to go on with the other slots meanwhile allows two more.
    """
    pool, spin = new_pool(2, limits=Limits(max_surge=2)), new_spin()
    fill(pool, 2)
    long = pool.submit(lambda: (spin("long"), who()))
    spin.wait_started()
    restart = pool.soft_restart()
    until(lambda: sum(w.generation == 2 for w in pool.stats().workers) == 2)
    assert not long.done()
    assert pool.submit(generation).result(WAIT) == 2  # the other slot
    spin.release()
    value, (_, number) = long.result(WAIT)
    assert (value, number) == ("long", 1)
    assert restart.result(WAIT) == 2


def test_e6_a_second_call_covers_who_has_come_since(new_pool, new_hold):
    """What the first replaces the second need not; who became stale since, it does."""
    pool, hold = new_pool(2), new_hold()
    assert pool.submit(generation).result(WAIT) == 1
    assert len(pool.stats().workers) == 1
    box = [hold]
    pool._engine._hooks = pool._engine._hooks._replace(initializer=lambda: box and box[0]())
    first = pool.soft_restart()
    hold.wait_started()
    second = pool.soft_restart()  # covers the old one, and the successor that starts
    box.clear()
    hold.release()
    assert first.result(WAIT) == 1
    replaced = second.result(WAIT)
    assert replaced >= 1
    assert pool.submit(generation).result(WAIT) >= 2
    assert pool.soft_restart().result(WAIT) == 1
    assert pool.submit(generation).result(WAIT) >= 3


def test_e6_of_an_empty_pool(new_pool):
    """Nobody is there, so nobody is replaced, and nobody starts."""
    pool = new_pool(4, min_workers=2)
    assert pool.soft_restart().result(WAIT) == 0
    assert pool.recycle(3).result(WAIT) == 0
    assert pool.stats().workers == ()
    pool.submit(int).result(WAIT)
    pool.close()
    assert pool.soft_restart().result(WAIT) == 0
    assert pool.stats().workers == ()


@pytest.mark.parametrize("slot", [-1, 4, 100])
def test_e6_recycle_of_a_slot_that_is_not(new_pool, slot):
    with pytest.raises(ValueError, match="the pool has the slots 0 to 3"):
        new_pool(4).recycle(slot)


# -- age and idle ---------------------------------------------------------------------------------


def test_e_age_replaces_a_worker_and_no_task_notices(new_pool):
    pool = new_pool(2, limits=Limits(age=0.05, min_age="1h"))  # min_age is for memory only
    events = Events(pool)
    seen = []
    until(lambda: seen.append(pool.submit(divmod, 7, 2).result(WAIT)) or _oldest(pool) >= 4)
    assert set(seen) == {(3, 1)}
    retired = events.wait_for(WorkerRetired, 3)
    assert {event.reason for event in retired} == {Reason.AGE}
    assert all(event.age >= 0.05 * 0.9 for event in retired)
    assert all(event.why.endswith("old") for event in retired)
    assert pool.stats().failed == 0


def _oldest(pool):
    return max((worker.generation for worker in pool.stats().workers), default=0)


def test_e_age_while_its_task_runs(new_pool, new_hold):
    """It is due, and goes when its task is over: as long as that takes."""
    pool, hold = new_pool(1, limits=Limits(age=0.03)), new_hold()
    events = Events(pool)
    running = pool.submit(lambda: (hold(), generation()))
    hold.wait_started()
    events.wait_for(WorkerDue, generation=1, reason=Reason.AGE)
    until(lambda: sum(w.generation == 2 for w in pool.stats().workers))
    assert not running.done()
    hold.release()
    assert running.result(WAIT) == (None, 1)
    assert pool.submit(generation).result(WAIT) >= 2


def test_e_age_has_a_jitter_within_its_bounds(new_pool):
    """So that workers do not all go at once; never later than the age."""
    for jitter, least in ((0.1, 900.0), (0.0, 1000.0), (1, 0.0)):
        pool = new_pool(16, limits=Limits(age=1000, jitter=jitter))
        before = time.monotonic()
        fill(pool, 16)
        after = time.monotonic()
        expire = [worker.expires for worker in pool._engine.roster.workers]
        assert all(before + least <= when <= after + 1000 for when in expire)
        spread = max(expire) - min(expire)
        assert spread <= (1000 - least) + (after - before)
        if jitter:
            assert spread > (1000 - least) / 4
        pool.destroy()


def test_e_idle_lets_surplus_workers_go_down_to_the_minimum(new_pool):
    """The last that was busy stays warm; nobody follows who went."""
    pool = new_pool(4, min_workers=1, limits=Limits(idle=0.05))
    events = Events(pool)
    fill(pool, 4)
    events.wait_for(WorkerRetired, 3)
    (worker,) = pool.stats().workers
    assert worker.state is State.SERVING
    assert {e.reason for e in events.of(WorkerRetired)} == {Reason.IDLE}
    assert pool.submit(int).result(WAIT) == 0
    assert pool.stats().recycles == {"idle": 3}
    assert len(events.of(WorkerReady)) == 4
    fill(pool, 4)  # they come back when they are needed
    events.wait_for(WorkerRetired, 6)


def test_e_idle_with_no_minimum_leaves_an_empty_pool(new_pool):
    """Not a thread is left; the next task starts one."""
    before = set(threading.enumerate())
    pool = new_pool(2, limits=Limits(idle=0.03))
    for cycle in range(1, 4):
        assert pool.submit(generation).result(WAIT) == cycle
        until(lambda: pool.stats().workers == ())
        until(lambda: not set(threading.enumerate()) - before)
    assert pool.soft_restart().result(WAIT) == 0


def test_e_idle_does_not_touch_who_is_busy(new_pool, new_hold):
    pool, hold = new_pool(2, limits=Limits(idle=0.05)), new_hold()
    events = Events(pool)
    fill(pool, 2)
    running = pool.submit(lambda: (hold(), who())[1])
    hold.wait_started()
    (gone,) = events.wait_for(WorkerRetired)
    hold.release()
    assert running.result(WAIT)[0] != gone.slot
    began = time.monotonic()
    while time.monotonic() - began < 0.15:  # a worker that works again and again stays
        _, number = pool.submit(who).result(WAIT)
        assert number == 1
    assert len(events.of(WorkerRetired)) == 1


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"age": 0.02}, Reason.AGE),
        ({"idle": 0.02}, Reason.IDLE),
        ({"tasks": 2}, Reason.TASKS),
    ],
    ids=["age", "idle", "tasks"],
)
def test_e_report_only_tells_and_does_nothing(new_pool, caplog, limits, reason):
    caplog.set_level(logging.INFO, "recyclepool")
    pool = new_pool(1, limits=Limits(**limits, report_only=True))
    events = Events(pool)
    for _ in range(4):
        assert pool.submit(generation).result(WAIT) == 1
    (event, *_) = events.wait_for(WorkerDue, reason=reason)
    assert event.report_only
    line = str(event)
    assert "would be replaced" in line
    assert "(report only)" in line
    assert line in [record.getMessage() for record in caplog.records]
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert pool.submit(generation).result(WAIT) == 1
    assert pool.stats().recycles == {}
    pool.close()


# -- resize ---------------------------------------------------------------------------------------


def test_e_resize_up_and_down_while_tasks_run(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    futures = [pool.submit(lambda: (hold(), who()[0])[1]) for _ in range(6)]
    hold.wait_started(1)
    pool.resize(4)
    hold.wait_started(3)  # what was queued gets the new workers
    assert pool._max_workers == 4
    queued = [pool.submit(who) for _ in range(4)]
    pool.resize(2)
    assert pool.stats().max_workers == 2
    hold.release()
    slots = [future.result(WAIT) for future in futures]
    assert sorted(slots[:4]) == [0, 1, 2, 3]
    assert {future.result(WAIT)[0] for future in queued} <= {0, 1}
    until(lambda: len(pool.stats().workers) <= 2)
    assert pool.stats().recycles == {"resize": 2}
    pool.resize(3)
    fill(pool, 3)
    assert sorted(w.slot for w in pool.stats().workers) == [0, 1, 2]


def test_e_resize_while_a_restart_is_under_way(new_pool):
    """Who is of a slot that is no more has no successor; the restart has its end."""
    for _ in range(10):
        pool = new_pool(4, limits=Limits(max_surge=2))
        fill(pool, 4)
        restart = pool.soft_restart()
        pool.resize(2)
        assert 0 <= restart.result(WAIT) <= 4
        until(lambda pool=pool: len(pool.stats().workers) == 2)
        assert [w.slot for w in pool.stats().workers] == [0, 1]
        assert pool.submit(int).result(WAIT) == 0


def test_e_resize_refuses_what_makes_no_sense(new_pool):
    pool = new_pool(3, min_workers=2)
    for size, words in ((1, "the pool keeps min_workers=2"), (0, "max_workers"), (-1, "max_work")):
        with pytest.raises(ValueError, match=words):
            pool.resize(size)
    assert pool._max_workers == 3


# -- R11 to R16 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["recycle", "soft_restart", "resize"])
def test_r11_a_recycle_hurts_no_other(new_pool, new_spin, verb):
    """A task that runs all the time, beside workers that come and go."""
    pool, spin = new_pool(3), new_spin()
    long = pool.submit(lambda: (who(), spin("long")))
    spin.wait_started()
    for n in range(10):
        if verb == "recycle":
            pool.recycle(1).result(WAIT)
        elif verb == "resize":
            pool.resize(2 + n % 2)
        else:
            pool.soft_restart()
        assert [pool.submit(divmod, k, 3).result(WAIT) for k in range(10)] == [
            divmod(k, 3) for k in range(10)
        ]
    assert not long.done()
    spin.release()
    assert long.result(WAIT) == ((0, 1), "long")
    stats = pool.stats()
    assert (stats.failed, stats.aborted, stats.lost) == (0, 0, 0)


@pytest.mark.parametrize("verb", ["recycle", "soft_restart", "request"])
def test_r12_no_result_and_no_successor_waits_for_a_teardown(new_pool, new_hold, verb):
    teardown = new_hold()
    pool = new_pool(1, finalizer=teardown)

    def task():
        if verb == "request":
            current_worker().request_recycle()
        return generation()

    assert pool.submit(task).result(WAIT) == 1
    if verb == "recycle":
        assert pool.recycle(0).result(WAIT) == 1
    elif verb == "soft_restart":
        assert pool.soft_restart().result(WAIT) == 1
    teardown.wait_started()
    until(lambda: pool.submit(generation).result(WAIT) == 2)
    assert any(w.generation == 1 and w.state is State.RETIRING for w in pool.stats().workers)
    assert pool.wait_idle(WAIT)
    teardown.release()


def test_r14_no_task_starts_twice_and_none_is_lost(new_pool):
    """While workers are replaced, resized, timed out, cancelled and abandoned under the load."""
    limits = Limits(tasks=7, age=0.05, idle=0.05, task_timeout="10s", max_surge=2)
    pool = new_pool(3, limits=limits)
    started, accepted, over = [], [], []
    chance = random.Random(14)

    def note(token):
        started.append(token)
        return token

    def submit():
        while not over:
            burst = []
            for _ in range(20):
                token = object()
                burst.append((token, pool.submit(note, token)))
            accepted.extend(burst)
            for _, future in burst:
                with contextlib.suppress(TaskAbortedError):
                    future.result(WAIT)

    submitters = [in_thread(submit) for _ in range(2)]
    try:
        for _ in range(60):
            verb = chance.randrange(5)
            if verb == 0:
                pool.soft_restart()
            elif verb == 1:
                pool.recycle(0)
            elif verb == 2:
                pool.resize(chance.randrange(1, 5))
            elif verb == 3:
                endless = Obedient()
                late = pool.options(timeout=0.005).submit(endless)
                assert isinstance(late.exception(WAIT), TaskTimeoutError)
            else:
                endless = Obedient()
                future = pool.submit(endless)
                endless.wait_started()
                assert pool.cancel(future)
    finally:
        over.append(True)
        for submitter in submitters:
            submitter.result()
    assert pool.wait_idle(WAIT)
    assert len(accepted) > 100
    assert Counter(started) == Counter(token for token, _ in accepted)
    assert all(future.result(0) is token for token, future in accepted)
    report = pool.close(WAIT)
    assert report.abandoned == ()
    stats = pool.stats()
    assert stats.completed == len(accepted)


@pytest.mark.parametrize("verb", ["soft_restart", "recycle", "resize", "start"])
def test_r15_what_comes_during_a_destroy_leaves_no_worker(new_pool, verb):
    pool = new_pool(2, min_workers=1)
    calls = {
        "soft_restart": pool.soft_restart,
        "recycle": lambda: pool.recycle(0),
        "resize": lambda: pool.resize(2),
        "start": pool.start,
    }
    for _ in range(40):
        dispatch, barrier = pool._engine.dispatch, threading.Barrier(2)
        pool.submit(int).result(WAIT)

        def call(barrier=barrier):
            barrier.wait(WAIT)
            return calls[verb]()

        calling = in_thread(call)
        barrier.wait(WAIT)
        pool.destroy(WAIT)
        assert not any(worker.dispatch is dispatch for worker in pool._engine.roster.workers)
        outcome = calling.outcome()
        if hasattr(outcome, "exception"):
            assert isinstance(outcome.exception(WAIT), PoolClosedError | None.__class__)
        else:
            assert isinstance(outcome, PoolClosedError | None.__class__)
    pool.destroy(WAIT)
    assert pool.stats().workers == ()


def test_r16_a_failing_initializer_then_recovery_in_a_restart(new_pool, caplog):
    """Nothing is broken, since the old ones serve; the next restart does it."""
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")
    failing = []

    def initializer():
        if failing:
            raise OSError("database is away")

    pool = new_pool(2, initializer=initializer)
    fill(pool, 2)
    failing.append(True)
    assert "database is away" in str(pool.soft_restart().exception(WAIT))
    assert pool.submit(generation).result(WAIT) == 1
    failing.clear()
    assert pool.soft_restart().result(WAIT) == 2
    assert pool.submit(generation).result(WAIT) == 2
    assert not pool._broken


# -- R19, R20 -------------------------------------------------------------------------------------


def test_r19_every_future_settles_when_workers_are_lost_at_every_moment(new_pool, new_stuck):
    """Busy and stuck, starting, idle: here as timed out, not ready in time, and let go."""
    limits = Limits(
        task_timeout=0.03, grace=0.02, start_timeout=0.5, idle=0.02, max_abandoned=20, tasks=3
    )
    pool, stuck = new_pool(2, limits=limits), new_stuck()
    futures = []
    for n in range(30):
        futures.append(pool.submit(stuck if n % 10 == 0 else int))
        futures.append(pool.options(timeout=0.01).submit(Obedient() if n % 7 == 0 else int))
    for future in futures:
        assert isinstance(future.exception(WAIT), TaskTimeoutError | None.__class__)
    # On a busy machine one of the short ones may need its 10 ms, too.
    assert sum(future.exception(0) is not None for future in futures) >= 3 + 5
    stuck.release()
    until(lambda: pool.stats().workers == ())
    assert pool.stats().abandoned == 0


@pytest.mark.parametrize(
    "limits",
    [
        Limits(age=0.01),
        Limits(idle=0.01),
        Limits(task_timeout=0.01, hang=0.01),
        Limits(tasks=1),
        Limits(start_timeout=0.01),
    ],
    ids=lambda limits: str(limits)[7:20],
)
def test_r20_an_idle_pool_starts_nothing(new_pool, limits):
    """No worker and no watchdog before the first task, and none after the close."""
    before = set(threading.enumerate())
    pool = new_pool(4, min_workers=2, limits=limits)
    events = Events(pool)
    pool.stats()
    pool.stacks()
    repr(pool)
    assert pool.wait_idle(WAIT)
    assert pool.soft_restart().result(WAIT) == 0
    pool.options(timeout=0.01)
    until(lambda: not set(threading.enumerate()) - before)
    assert events.all == []
    assert pool.submit(int).result(WAIT) == 0
    pool.close()
    until(lambda: not set(threading.enumerate()) - before)
    told = len(events.all)
    pool.stats()
    time.sleep(0.03)  # the limits would have struck
    assert pool.stats().workers == ()
    assert not set(threading.enumerate()) - before
    assert len(events.all) == told


def test_r20_an_idle_worker_has_no_wake_ups(new_pool):
    """Of the watchdog, for what can only strike a worker that is busy."""
    pool = new_pool(1, limits=Limits(task_timeout=0.02, hang=0.02))
    assert pool.submit(int).result(WAIT) == 0
    assert pool.wait_idle(WAIT)
    watchdog = pool._engine.watchdog
    until(lambda: watchdog._sleep is None and watchdog.until > time.monotonic() + WAIT)
    until(lambda: not any(t.name.endswith("watchdog") for t in threading.enumerate()))
    late = pool.submit(Obedient())  # and it is there when it is needed
    assert isinstance(late.exception(WAIT), TaskTimeoutError)


# -- what is made ahead ---------------------------------------------------------------------------


def test_a_successor_is_made_before_it_is_wanted(new_pool):
    """From the second on: to recycle starts a thread that is there."""
    made, at_start = [], []

    class Thread(threading.Thread):
        def __init__(self, *args, **kwargs):
            made.append(self)
            super().__init__(*args, **kwargs)

    pool = new_pool(1, initializer=lambda: at_start.append(len(made)))
    engine = pool._engine
    engine.settings = engine.settings._replace(new_thread=Thread)
    assert pool.recycle(0).result(WAIT) == 0
    fill(pool, 1)
    for recycled in range(1, 4):
        assert pool.recycle(0).result(WAIT) == 1
        until(lambda: engine._spare is not None)
        assert len(made) == recycled + 2  # who came, and who will
    assert at_start == [1, 2, 3, 4]
    assert threading.current_thread() not in made
    pool.shutdown()
    assert engine._spare is None
    assert sum(thread.ident is not None for thread in made) == 4


def test_without_memory_to_make_one_ahead_the_pool_goes_on(new_pool, monkeypatch):
    pool = new_pool(1, limits=Limits(tasks=1))
    engine, wanted, failed = pool._engine, [], []
    make, new_worker = engine._make_worker, engine.roster._new_worker

    def make_if_wanted():
        if not wanted:
            failed.append(1)
            raise MemoryError
        return make()

    def new_worker_wanted(slot, generation):
        wanted.append(slot)
        try:
            return new_worker(slot, generation)
        finally:
            wanted.clear()

    monkeypatch.setattr(engine, "_make_worker", make_if_wanted)
    monkeypatch.setattr(engine.roster, "_new_worker", new_worker_wanted)
    assert [pool.submit(int).result(WAIT) for _ in range(5)] == [0] * 5
    until(lambda: len(failed) >= 4, "workers that left")
    assert engine._spare is None


def test_what_was_made_ahead_goes_with_the_pool(new_pool):
    """At once, and not when garbage is collected."""
    pool = new_pool(1)
    engine = pool._engine
    for _ in range(2):
        assert pool.recycle(0).result(WAIT) in (0, 1)
        fill(pool, 1)
    until(lambda: engine._spare is not None)
    worker, thread = engine._spare
    assert repr(worker) == "<Worker -1.-1 starting>"  # whoever looks at all objects sees it
    gone = weakref.ref(thread)
    del worker, thread
    gc.disable()
    try:
        pool.shutdown()
        assert gone() is None
    finally:
        gc.enable()


# -- garbage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["unused", "idle", "busy", "restarting", "subscribed"])
def test_a_dropped_pool_with_limits_ends(new_hold, state):
    """Its workers, its watchdog, and who tells its events; what it accepted is finished."""
    before, hold = set(threading.enumerate()), new_hold()
    limits = Limits(age="1h", idle="1h", task_timeout="1h", hang="1h", grace="1h")
    pool = RecyclePool(2, limits=limits)
    heard, futures = [], []
    if state != "unused":
        fill(pool, 2)
    if state == "subscribed":
        pool.subscribe(heard.append)
        pool.recycle(0).result(WAIT)
    if state in ("busy", "restarting"):
        futures = [pool.submit(hold, n) for n in range(5)]
        hold.wait_started(2)
    restart = pool.soft_restart() if state == "restarting" else None
    watched, engine = weakref.ref(pool), weakref.ref(pool._engine)
    del pool
    gc.collect()
    assert watched() is None
    if restart is not None:
        assert isinstance(restart.exception(WAIT), PoolClosedError)
    hold.release()
    assert [future.result(WAIT) for future in futures] == [*range(len(futures))]
    until(lambda: not set(threading.enumerate()) - before)
    del restart
    until(lambda: gc.collect() is not None and engine() is None)
    if state == "subscribed":
        assert sum(isinstance(event, WorkerRetired) for event in heard) == 3
