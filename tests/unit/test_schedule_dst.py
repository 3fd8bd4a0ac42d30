"""Firings around the changes of summer time, against an enumeration of the minutes of UTC."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from math import inf
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from recyclepool.schedule import Schedule

MINUTE, HOUR = 60, 3600
HALF_HOUR = 30 * MINUTE
BEGIN, END = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2025, 2035))
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]


def any_day(day: date) -> bool:
    return True


class Case(NamedTuple):
    """What an expression says, without reading it."""

    minutes: set[int]
    hours: set[int]
    follows_clocks: bool  # it has nothing to make up for
    day: Callable[[date], bool] = any_day

    def shown(self, local: datetime) -> bool:
        fits = local.minute in self.minutes and local.hour in self.hours
        return fits and self.day(local.date())


ALL_HOURS = set(range(24))
CASES = {
    "0 0 * * *": Case({0}, {0}, False),
    "45 1 * * *": Case({45}, {1}, False),
    "0 2 * * *": Case({0}, {2}, False),
    "15 2 * * *": Case({15}, {2}, False),
    "10,40 2 * * *": Case({10, 40}, {2}, False),
    "0 3 * * *": Case({0}, {3}, False),
    "30 1-3 * * *": Case({30}, {1, 2, 3}, False),
    "0-59/20 2 * * *": Case({0, 20, 40}, {2}, False),
    "30 2 * * SUN": Case({30}, {2}, False, lambda day: day.weekday() == 6),
    "15 2 1-7 * FRI": Case({15}, {2}, False, lambda day: day.day <= 7 or day.weekday() == 4),
    "15 2 */2 * 0": Case({15}, {2}, False, lambda day: day.day % 2 == 1 and day.weekday() == 6),
    "*/15 * * * *": Case({0, 15, 30, 45}, ALL_HOURS, True),
    "0 * * * *": Case({0}, ALL_HOURS, True),
    "45 */2 * * *": Case({45}, set(range(0, 24, 2)), True),
    "*/20 1 * * *": Case({0, 20, 40}, {1}, True),
    "*/10 2 * * *": Case(set(range(0, 60, 10)), {2}, True),
    "*/15 3 * * *": Case({0, 15, 30, 45}, {3}, True),
    "*/30 0 * * SUN,SAT": Case({0, 30}, {0}, True, lambda day: day.weekday() >= 5),
}
# Of these there are few enough in ten years.
RARE = {
    "30 2 * * *": Case({30}, {2}, False),
    "0 3 * * MON-FRI": Case({0}, {3}, False, lambda day: day.weekday() < 5),
    "30 1 13 * 5": Case({30}, {1}, False, lambda day: day.day == 13 or day.weekday() == 4),
    "0 0 * 3,10 7": Case({0}, {0}, False, lambda d: d.month in (3, 10) and d.weekday() == 6),
    "30 2 L * *": Case({30}, {2}, False, lambda day: (day + timedelta(1)).day == 1),
    "0 2 29 2 *": Case({0}, {2}, False, lambda day: (day.month, day.day) == (2, 29)),
    "*/30 2 1 * *": Case({0, 30}, {2}, True, lambda day: day.day == 1),
}


def changes(zone: ZoneInfo) -> list[int]:
    """When the offset of `zone` changes, to half an hour: none of these zones is more precise."""
    found, last = [], None
    for moment in range(BEGIN, END, HALF_HOUR):
        offset = datetime.fromtimestamp(moment, zone).utcoffset()
        if last not in (None, offset):
            found.append(moment)
        last = offset
    return found


def expected(cases: dict[str, Case], moments: range, zone: ZoneInfo) -> dict[str, list[float]]:
    """When each fires, by looking at the clock at each of `moments`."""
    found: dict[str, list[float]] = {expression: [] for expression in cases}
    step = timedelta(seconds=moments.step)
    before = datetime.fromtimestamp(moments.start - moments.step, zone).replace(tzinfo=None)
    for moment in moments:
        now = datetime.fromtimestamp(moment, zone)
        local = now.replace(tzinfo=None, fold=0)
        skipped, ahead = [], before + step
        while ahead < local:
            skipped.append(ahead)
            ahead += step
        for expression, case in cases.items():
            if case.follows_clocks:
                fires = case.shown(local)
            else:
                fires = (case.shown(local) and not now.fold) or any(map(case.shown, skipped))
            if fires:
                found[expression].append(float(moment))
        before = local
    return found


def fired(schedule: Schedule, moments: range) -> Iterator[float]:
    moment = schedule.next_after(moments.start - 1)
    while moment < moments.stop:
        yield moment
        moment = schedule.next_after(moment)


def around(change: int, hours: int) -> range:
    return range(change - hours * HOUR, change + hours * HOUR, MINUTE)


@pytest.mark.parametrize("name", ZONES)
def test_around_the_changes_of_ten_years(name: str) -> None:
    zone = ZoneInfo(name)
    found = changes(zone)
    assert len(found) == 20
    schedules = {expression: Schedule.cron(expression, tz=zone) for expression in CASES}
    for change in found:
        window = around(change, 14)
        for expression, moments in expected(CASES, window, zone).items():
            assert list(fired(schedules[expression], window)) == moments, (expression, change)


@pytest.mark.parametrize("name", ZONES)
def test_every_day_of_ten_years(name: str) -> None:
    zone = ZoneInfo(name)
    window = range(BEGIN, END, HALF_HOUR)
    for expression, moments in expected(RARE, window, zone).items():
        assert list(fired(Schedule.cron(expression, tz=zone), window)) == moments, expression


@pytest.mark.parametrize("name", ZONES)
def test_from_any_moment_beside_a_change_the_next_is_the_same(name: str) -> None:
    zone = ZoneInfo(name)
    for change in changes(zone)[:2]:
        table = expected(CASES, around(change, 14), zone)
        for expression, moments in table.items():
            schedule = Schedule.cron(expression, tz=zone)
            for start in (*around(change, 2)[::7], change - 1, change, change + 1):
                for moment in (start, start + 59.999):
                    after = moments[bisect_right(moments, moment) :]
                    found = schedule.next_after(moment)
                    if after:
                        assert found == after[0], (expression, moment)
                    else:
                        assert found > change + 13 * HOUR


@pytest.mark.parametrize(
    ("name", "day", "least_gap"),
    [
        ("Africa/Cairo", (2026, 4, 23), 1),  # midnight is skipped
        ("Africa/Cairo", (2026, 10, 29), -1),  # midnight comes twice, from the day before
        ("America/Havana", (2026, 3, 8), 1),
        ("America/Havana", (2026, 11, 1), -1),
        ("Antarctica/Troll", (2026, 3, 29), 2),  # two hours
        ("Antarctica/Troll", (2026, 10, 25), -2),
        ("Pacific/Apia", (2011, 12, 30), 24),  # a day that was not
    ],
)
def test_changes_of_other_kinds(name: str, day: tuple[int, int, int], least_gap: int) -> None:
    zone = ZoneInfo(name)
    noon = int(datetime(*day, 12, tzinfo=UTC).timestamp())
    window = range(noon - 30 * HOUR, noon + 30 * HOUR, MINUTE)
    offsets = [
        datetime.fromtimestamp(moment, zone).utcoffset() for moment in (window[0], window[-1])
    ]
    assert offsets[1] - offsets[0] == timedelta(hours=least_gap)  # type: ignore[operator]
    cases = CASES | {"30 0,23 * * *": Case({30}, {0, 23}, False)}
    cases |= {"*/30 0,23 * * *": Case({0, 30}, {0, 23}, True)}
    for expression, moments in expected(cases, window, zone).items():
        assert list(fired(Schedule.cron(expression, tz=zone), window)) == moments, expression


# ==== what this comes down to, for readers =======================================================


def days(expression: str, zone: str, since: str, count: int) -> list[str]:
    schedule, moment = Schedule.cron(expression, tz=zone), datetime.fromisoformat(since).timestamp()
    shown = []
    for _ in range(count):
        moment = schedule.next_after(moment)
        shown.append(f"{datetime.fromtimestamp(moment, ZoneInfo(zone)):%d %H:%M %z}")
    return shown


def test_what_is_skipped_is_done_once_right_after() -> None:
    found = days("15,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", 3)
    assert found == ["29 03:00 +0200", "30 02:15 +0200", "30 02:45 +0200"]


def test_what_comes_twice_is_done_in_the_first() -> None:
    found = days("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00+02:00", 2)
    assert found == ["25 02:30 +0200", "26 02:30 +0100"]


def test_what_follows_clocks_is_done_in_both_and_not_in_what_is_skipped() -> None:
    found = days("*/30 2 * * *", "Europe/Berlin", "2026-10-25T02:10+02:00", 3)
    assert found == ["25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100"]
    found = days("*/30 2 * * *", "Europe/Berlin", "2026-03-29T01:10+01:00", 1)
    assert found == ["30 02:00 +0200"]


def test_a_change_by_half_an_hour_hides_nothing_of_the_hour_after_it() -> None:
    found = days("*/15 3 * * *", "Australia/Lord_Howe", "2026-10-04T01:10+10:30", 2)
    assert found == ["04 03:00 +1100", "04 03:15 +1100"]
    found = days("*/15 2 * * *", "Australia/Lord_Howe", "2026-04-05T01:10+11:00", 2)
    assert found == ["05 02:00 +1030", "05 02:15 +1030"]


def test_intervals_do_not_know_summer_time() -> None:
    schedule = Schedule.every("6h")
    change = datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()
    moment = schedule.next_after(change - 24 * HOUR)
    for _ in range(8):
        later = schedule.next_after(moment)
        assert later - moment == 6 * HOUR
        moment = later


def test_the_end_of_the_calendar_is_the_end() -> None:
    last_year = datetime(9999, 6, 1, tzinfo=UTC).timestamp()
    assert Schedule.cron("0 0 1 1 *", tz="Europe/Berlin").next_after(last_year) == inf
    assert Schedule.cron("*/5 * 1 1 *", tz="Europe/Berlin").next_after(last_year) == inf
    assert Schedule.every("3650d").next_after(last_year) == inf
    schedule, moment = Schedule.cron("0 3 * * *", tz="Europe/Berlin"), last_year
    while moment < inf:
        last, moment = moment, schedule.next_after(moment)
    assert datetime.fromtimestamp(last, UTC).year == 9999
