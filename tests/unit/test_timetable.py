"""What of a pool's schedules is due, and for which slot: every time is the test's own."""

import itertools
import random
from collections import Counter
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_watchdog import NOW, WALL, Engine, fired, scheduled

from recyclepool import _watchdog
from recyclepool._timetable import LONGEST_NAP, Timetable
from recyclepool.schedule import Schedule, phase

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
MIDNIGHT = 20_000 * DAY  # in UTC
DAILY, HOURLY = Schedule.cron("@daily"), Schedule.cron("@hourly")
SIX_HOURS, SEVEN_MINUTES = Schedule.every("6h"), Schedule.every("7m")

Due = list[tuple[int | None, Schedule]]


def staffed(table: Timetable, size: int, now: float) -> Timetable:
    table.meet(range(size), now)
    return table


def table(*schedules: Schedule, size: int = 3, now: float = MIDNIGHT + 1) -> Timetable:
    return staffed(Timetable(schedules, "pool", now), size, now)


def taken(table: Timetable, now: float) -> Due:
    """What is due, once."""
    due = table.due(now)
    assert table.due(now) == due, "it is due until it is taken"
    table.take(now)
    assert table.due(now) == [], "and not after that"
    return due


def moments(table: Timetable, until: float) -> list[tuple[float, int | None, Schedule]]:
    """All that fires until then, by a clock that stops at each firing."""
    found = []
    while table.next_at <= until:
        now = table.next_at
        due = taken(table, now)
        assert due, "it says that something fires"
        found += [(now, *each) for each in due]
    return found


# ---- when, and for whom -------------------------------------------------------------------------


def test_the_calendar_is_for_all_slots_at_once() -> None:
    one = table(DAILY, HOURLY)
    assert one.next_at == MIDNIGHT + HOUR
    assert taken(one, MIDNIGHT + HOUR - 0.001) == []
    assert taken(one, MIDNIGHT + HOUR) == [(None, HOURLY)]
    assert taken(one, MIDNIGHT + 1.5 * HOUR) == []
    for hour in range(2, 24):
        assert taken(one, MIDNIGHT + hour * HOUR) == [(None, HOURLY)]
    assert taken(one, MIDNIGHT + DAY) == [(None, DAILY), (None, HOURLY)]


def test_an_interval_is_for_each_slot_at_a_time_of_its_own() -> None:
    found = moments(table(SIX_HOURS, size=5), MIDNIGHT + 1 + 6 * HOUR)
    assert sorted(slot for _, slot, _ in found if slot is not None) == [0, 1, 2, 3, 4]
    for moment, slot, schedule in found:
        assert schedule == SIX_HOURS
        own = phase("pool", slot or 0)
        assert moment == SIX_HOURS.next_after(MIDNIGHT + 1, phase=own)


@pytest.mark.parametrize("size", [2, 10, 50])
def test_no_two_slots_come_together(size: int) -> None:
    times = [moment for moment, *_ in moments(table(SIX_HOURS, size=size), MIDNIGHT + 6 * HOUR)]
    least = min(later - earlier for earlier, later in pairwise(times))
    assert least > 6 * HOUR / size / 3


def test_pools_do_not_come_together() -> None:
    pools = [staffed(Timetable([SIX_HOURS], f"pool-{n}", MIDNIGHT), 1, MIDNIGHT) for n in range(10)]
    assert len({round(pool.next_at / MINUTE) for pool in pools}) >= 8


def test_both_kinds_side_by_side() -> None:
    found = Counter(
        (slot, schedule)
        for _, slot, schedule in moments(table(DAILY, SIX_HOURS, size=2), MIDNIGHT + 2 * DAY + 1)
    )
    assert found == {(None, DAILY): 2, (0, SIX_HOURS): 8, (1, SIX_HOURS): 8}


def test_several_intervals_are_each_shifted() -> None:
    found = Counter(
        (slot, schedule)
        for _, slot, schedule in moments(
            table(SIX_HOURS, SEVEN_MINUTES, size=2), MIDNIGHT + 42 * HOUR + 1
        )
    )
    assert found == {
        (slot, each): n for slot in (0, 1) for each, n in [(SIX_HOURS, 7), (SEVEN_MINUTES, 360)]
    }


# ---- the wall clock is set ----------------------------------------------------------------------


def test_what_was_missed_is_due_once() -> None:
    one = table(HOURLY, SIX_HOURS, size=2)
    due = taken(one, MIDNIGHT + 3 * DAY + 60)
    assert Counter(due) == {(None, HOURLY): 1, (0, SIX_HOURS): 1, (1, SIX_HOURS): 1}
    assert MIDNIGHT + 3 * DAY + 60 < one.next_at <= MIDNIGHT + 3 * DAY + HOUR


@pytest.mark.parametrize("back", [1.0, 30 * MINUTE, 59 * MINUTE])
def test_what_has_been_due_is_not_due_again(back: float) -> None:
    one = table(HOURLY, SIX_HOURS)
    late = MIDNIGHT + 12 * HOUR + 60
    assert taken(one, late)
    for now in (late - back, late - back / 2, late):
        assert (None, HOURLY) not in taken(one, now)
    assert (None, HOURLY) in taken(one, MIDNIGHT + 13 * HOUR)


def test_a_clock_that_is_set_back_by_days_is_believed() -> None:
    one = table(HOURLY)
    assert taken(one, MIDNIGHT + 3 * DAY)
    assert taken(one, MIDNIGHT + 60) == []
    assert one.next_at == MIDNIGHT + HOUR
    assert taken(one, MIDNIGHT + HOUR) == [(None, HOURLY)]


def test_a_step_back_is_seen_before_anything_fires() -> None:
    """Nothing was due in between, so nothing was asked: all the same it knows where it was."""
    one = table(DAILY)
    assert taken(one, MIDNIGHT + 12 * HOUR) == []
    assert taken(one, MIDNIGHT - 12 * HOUR) == []
    assert one.next_at == MIDNIGHT
    assert taken(one, MIDNIGHT) == [(None, DAILY)]


STEPS = st.lists(st.floats(-3 * HOUR, 3 * HOUR) | st.floats(0.0, 10 * MINUTE), max_size=40)


@given(steps=STEPS, schedules=st.sampled_from([(HOURLY,), (HOURLY, SIX_HOURS), (SEVEN_MINUTES,)]))
def test_it_never_rests_for_longer_than_two_intervals(
    steps: list[float], schedules: tuple[Schedule, ...]
) -> None:
    """Wherever the clock is set; and what is due is due once for each slot."""
    interval = 7 * MINUTE if SEVEN_MINUTES in schedules else HOUR
    now = MIDNIGHT
    one = staffed(Timetable(schedules, "pool", now), 2, now)
    for step in steps:
        now += step
        due = taken(one, now)
        assert len(set(due)) == len(due)
        assert step > 0 or not due
        assert now < one.next_at <= now + 2 * interval


# ---- due and take -------------------------------------------------------------------------------


def test_who_was_broken_off_between_due_and_take_finds_it_again() -> None:
    one = table(HOURLY)
    assert one.due(MIDNIGHT + HOUR) == [(None, HOURLY)]
    assert one.due(MIDNIGHT + HOUR + 0.1) == [(None, HOURLY)]
    assert one.due(MIDNIGHT + 5 * HOUR) == [(None, HOURLY)]
    one.take(MIDNIGHT + 5 * HOUR)
    assert one.due(MIDNIGHT + 5 * HOUR) == []


def test_to_take_what_is_not_due_changes_nothing() -> None:
    one = table(HOURLY, SIX_HOURS)
    before = one.next_at
    one.take(MIDNIGHT + 2)
    one.take(MIDNIGHT - DAY)
    assert taken(one, MIDNIGHT + 2) == []
    assert one.next_at == before


@pytest.mark.parametrize("wrong", [-inf, float("nan"), None, "noon"])
def test_a_clock_that_tells_nonsense_for_a_while_harms_nothing(wrong: object) -> None:
    one = table(HOURLY, SIX_HOURS)
    for verb in (one.due, one.take, one.delay):
        try:
            verb(wrong)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            pass
    assert taken(one, MIDNIGHT + 2) == []
    assert (None, HOURLY) in taken(one, MIDNIGHT + HOUR)
    assert (None, HOURLY) in taken(one, MIDNIGHT + 2 * HOUR)


# ---- how long to sleep --------------------------------------------------------------------------


def test_it_is_asked_again_within_a_minute_and_never_in_the_past() -> None:
    one = table(HOURLY)
    assert one.delay(MIDNIGHT + 1) == LONGEST_NAP == 60.0
    assert one.delay(MIDNIGHT + HOUR - 59.5) == 59.5
    assert one.delay(MIDNIGHT + HOUR) == one.delay(MIDNIGHT + 2 * HOUR) == 0.0
    assert one.delay(MIDNIGHT - 30 * DAY) == 60.0


def test_one_that_never_fires_is_asked_once_a_minute() -> None:
    late = Schedule.cron("0 0 1 1 *")
    one = Timetable([late], "pool", 253_399_999_999.0)  # in the last hours of 9999
    assert one.next_at == inf
    assert one.delay(253_399_999_999.0) == 60.0
    assert taken(one, 253_399_999_999.5) == []


# ---- slots come and go --------------------------------------------------------------------------


def test_a_slot_that_comes_fires_at_its_next_time_and_for_nothing_before() -> None:
    one = table(SIX_HOURS, size=1)
    one.meet(range(4), MIDNIGHT + DAY)
    assert taken(one, MIDNIGHT + DAY) == [(0, SIX_HOURS)]  # who was there has missed something
    found = Counter(slot for _, slot, _ in moments(one, MIDNIGHT + DAY + 6 * HOUR))
    assert found == {0: 1, 1: 1, 2: 1, 3: 1}


def test_a_slot_that_is_no_more_fires_nothing() -> None:
    one = table(SIX_HOURS, size=4)
    one.meet(range(2), MIDNIGHT + 2)
    assert Counter(slot for _, slot, _ in moments(one, MIDNIGHT + DAY)) == {0: 4, 1: 4}
    one.meet(range(3), MIDNIGHT + DAY)
    assert Counter(slot for _, slot, _ in moments(one, MIDNIGHT + 2 * DAY)) == {0: 4, 1: 4, 2: 4}


def test_the_soonest_goes_with_its_slot() -> None:
    one = table(SIX_HOURS, size=50)
    first = one.due(one.next_at)[0][0]
    assert first
    soonest = one.next_at
    one.meet(range(first), MIDNIGHT + 2)
    assert one.next_at > soonest
    one.meet(range(50), MIDNIGHT + 2)
    assert one.next_at == soonest


def test_times_of_the_calendar_do_not_mind_how_many_slots_there_are() -> None:
    one = table(DAILY, size=1)
    one.meet(range(10**6), MIDNIGHT + 2)  # at once
    assert one.next_at == MIDNIGHT + DAY
    assert taken(one, MIDNIGHT + DAY) == [(None, DAILY)]


def test_who_stays_is_not_due_again_because_others_come() -> None:
    one = table(SIX_HOURS, size=2)
    now = MIDNIGHT + 6 * HOUR + 1
    assert {slot for slot, _ in taken(one, now)} == {0, 1}
    one.meet(range(5), now)
    assert taken(one, now) == []
    one.meet(range(1), now)
    assert taken(one, now) == []


# ---- 72 hours -----------------------------------------------------------------------------------


def test_no_drift_in_72_hours_in_any_slot() -> None:
    """Asked late each time, by a clock that is set a little now and then."""
    rng, one, now = random.Random(7), table(SEVEN_MINUTES, DAILY, size=8), MIDNIGHT + 1
    found: dict[int | None, list[float]] = {}
    while now < MIDNIGHT + 72 * HOUR:
        now += one.delay(now) + rng.choice((0.0, 0.01, 0.2)) - rng.choice((0.0, 0.0, 0.1))
        for slot, _ in taken(one, now):
            found.setdefault(slot, []).append(now)
    assert [round(moment - MIDNIGHT) for moment in found.pop(None)] == [DAY, 2 * DAY, 3 * DAY]
    for slot in range(8):
        right = MIDNIGHT + 1
        for moment in found[slot]:
            right = SEVEN_MINUTES.next_after(right, phase=phase("pool", slot))
            assert right <= moment < right + 0.5
        assert len(found[slot]) in (617, 618)  # 72 hours


def test_no_drift_in_72_hours_of_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps by a clock that gains eight seconds a day on the wall's, and it looks late."""
    engine = scheduled(Engine(_watchdog, monkeypatch), "@hourly", "every 7m")
    engine.wall = lambda: WALL + NOW + (engine.now - NOW) / 1.0001
    fired_at: dict[Any, list[float]] = {}
    looks = 0
    late = itertools.cycle((0.0, 0.002, 0.2))
    while engine.wall() < WALL + NOW + 72 * HOUR:
        for _, slot, schedule in fired(engine, engine.watchdog.until + next(late)):
            fired_at.setdefault((slot, schedule), []).append(engine.wall())
        looks += 1
    assert {key: len(found) for key, found in fired_at.items()} == {
        (None, "0 * * * * (UTC)"): 72,
        (0, "every 7m"): 617,
        (1, "every 7m"): 617,
    }
    for (slot, _), found in fired_at.items():
        interval = HOUR if slot is None else 7 * MINUTE
        first = found[0]
        for number, moment in enumerate(found):
            assert abs(moment - first - number * interval) < 0.5
    assert looks <= 72 * 60 + 1 + sum(map(len, fired_at.values())) * 2
