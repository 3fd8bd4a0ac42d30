"""A schedule fires, and the order that carries it out is broken off by a KeyboardInterrupt.

1. A pool's wall clock says that a schedule's time has come, or a slot has come or gone.
2. The main thread carries out the look; in turn, at each place of that, a KeyboardInterrupt is
   raised.
3. No firing is lost: each worker is replaced, once. What a resize made is complete.
"""

import threading
from collections import Counter

import forcing
import pytest
from forcing import (
    PATIENCE,
    Elsewhere,
    elsewhere,
    interrupted_everywhere,
    serves_on,
    until,
    with_idle,
    workers,
)

from recyclepool import PoolState, Schedule, State
from recyclepool._timetable import Timetable

pytestmark = pytest.mark.usefixtures("no_debug")

MIDNIGHT, HOUR = 20_000 * 86_400.0, 3600.0


def staffed(table, size, now):
    table.meet(range(size), now)
    return table


def scheduled(new_pool, schedule, size=2):
    """A pool with so many idle workers, and its wall clock: a list of one time."""
    pool = new_pool(size, schedule=schedule)
    now = [MIDNIGHT + 1]
    engine = pool._engine
    engine.settings = engine.settings._replace(wall=lambda: now[0])
    with_idle(pool, size)
    elsewhere(engine.look)
    until(lambda: engine.watchdog.timetable is not None, "it is armed")
    return pool, now


def all_are(pool, generation):
    """Wait until nobody comes or goes, and all are of that generation."""
    until(lambda: are_all(pool, generation), f"generation {generation}")


def are_all(pool, generation):
    wanted = [(generation, State.SERVING)] * pool._engine.roster.size
    return [(w.generation, w.state) for w in workers(pool)] == wanted


@pytest.fixture
def in_schedules_only(monkeypatch):
    """Interrupts come to what a firing is made of: of the rest other races are."""
    files = ("_watchdog.py", "_timetable.py", "schedule.py", "_staff.py")
    monkeypatch.setattr(forcing, "is_ours", lambda frame: frame.f_code.co_filename.endswith(files))


def test_a_firing_is_interrupted(new_pool, in_schedules_only):
    def stage():
        pool, now = scheduled(new_pool, ("@hourly", "every 1h"))
        now[0] += 2 * HOUR

        def check(where):
            elsewhere(pool._engine.look)  # where it had not begun
            all_are(pool, 2)
            assert pool.stats().recycles == {"schedule": 2}
            now[0] += HOUR
            elsewhere(pool._engine.look)
            all_are(pool, 3)
            pool.shutdown(wait=False)

        return pool._engine.look, check

    interrupted_everywhere(stage, 60)


def test_a_resize_beside_a_schedule_is_interrupted(new_pool, in_schedules_only):
    """Each slot that has come fires, and none that has gone."""

    def stage():
        pool, now = scheduled(new_pool, "every 1h")

        def check(where):
            elsewhere(pool.resize, 4)
            with_idle(pool, 4)
            elsewhere(pool._engine.look)
            now[0] += HOUR
            elsewhere(pool._engine.look)
            all_are(pool, 2)
            pool.shutdown(wait=False)

        return lambda: pool.resize(4), check

    interrupted_everywhere(stage, 30)


@pytest.mark.parametrize(("before", "after"), [(2, 5), (5, 2)])
def test_a_timetables_resize_is_interrupted(before, after):
    every = Schedule.every("1h")

    def stage():
        table = staffed(Timetable([every], "pool", MIDNIGHT + 1), before, MIDNIGHT + 1)

        def check(where):
            table.meet(range(after), MIDNIGHT + 1)  # as the watchdog does
            now = MIDNIGHT + 1 + HOUR
            assert Counter(slot for slot, _ in table.due(now)) == dict.fromkeys(range(after), 1)
            assert table.next_at <= now
            table.take(now)
            assert now < table.next_at < now + HOUR
            assert table.due(now) == []

        return lambda: table.meet(range(after), MIDNIGHT + 1), check

    interrupted_everywhere(stage, 8)


def test_what_is_due_and_taken_is_interrupted():
    """It stays due until it is taken; what is left is due again, and nothing else."""
    every, hourly = Schedule.every("1h"), Schedule.cron("@hourly")
    late = MIDNIGHT + 1 + HOUR

    def stage():
        table = staffed(Timetable([every, hourly], "pool", MIDNIGHT + 1), 2, MIDNIGHT + 1)
        told = []

        def look():
            told.extend(table.due(late))
            table.take(late)

        def check(where):
            look()
            assert set(told) == {(None, hourly), (0, every), (1, every)}
            assert Counter(told).most_common(1)[0][1] <= 2
            assert table.due(late) == []
            assert table.next_at > late
            for now in (late - 600, late):  # and the clock is set back
                assert table.due(now) == []
                table.take(now)

        return look, check

    interrupted_everywhere(stage, 20)


@pytest.mark.parametrize("verb", ["close", "destroy"])
def test_an_end_overtakes_a_firing_at_each_order(verb, new_pool):
    """Behind the n-th order of the restart, for each n. The end comes, and nobody is left."""
    for n in range(1, 40):
        pool, now = scheduled(new_pool, "@hourly", size=3)
        engine, called = pool._engine, threading.Event()
        reconcile, left = engine._orders._reconcile, [n]

        def count(*last, engine=engine, reconcile=reconcile, left=left, called=called):
            reconcile(*last)
            left[0] -= 1
            if left[0] == 0:
                called.set()
                end = engine.end if verb == "close" else engine.abort
                end(engine.dispatch)

        engine._orders._reconcile = count
        now[0] += HOUR
        elsewhere(engine.look)
        until(lambda c=called, p=pool: c.is_set() or are_all(p, 2))
        left[0] = 0
        ending = Elsewhere(pool.close)
        ending.result()
        assert engine.roster.state is PoolState.OPEN
        assert workers(pool) == []
        assert engine.watchdog.timetable is None
        serves_on(pool, 3)
        if not called.is_set():
            break
    assert n > 5, "there are more orders than that"
    assert pool.submit(int).result(PATIENCE) == 0
