import copy
import pickle
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from math import inf, nan, nextafter
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given
from hypothesis import strategies as st

import recyclepool
from recyclepool.errors import UnitError
from recyclepool.schedule import _CHECKS, Agenda, Schedule, phase

HOUR, DAY = 3600.0, 86_400.0
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC).timestamp()  # a Wednesday
MIDNIGHT = NOON - 12 * HOUR
LATER = st.floats(0.0, 2e11) | st.integers(0, 2 * 10**11)
SCHEDULES = st.sampled_from(
    [
        Schedule.cron("0 3 * * *", tz="Europe/Berlin"),
        Schedule.cron("*/7 * * * *", tz="Australia/Lord_Howe"),
        Schedule.cron("30 2 1,15 * SUN", tz="America/New_York"),
        Schedule.cron("@yearly"),
        Schedule.every("6h"),
        Schedule.every(0.01),
        Schedule.every(0.1),
        Schedule.every("1h0.7s"),
    ]
)
PHASES = st.floats(0.0, 1.0, exclude_max=True)


def at(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"


# ==== what a schedule is =========================================================================


def test_the_package_has_it() -> None:
    assert recyclepool.Schedule is Schedule


@pytest.mark.parametrize(
    ("written", "same", "shown"),
    [
        ("0 3 * * *", Schedule.cron("0 3 * * *"), "Schedule.cron('0 3 * * *')"),
        (" 0  3 * *\tmon\n", Schedule.cron("0 3 * * MON"), "Schedule.cron('0 3 * * MON')"),
        ("@hourly", Schedule.cron("0 * * * *"), "Schedule.cron('0 * * * *')"),
        ("@daily", Schedule.cron("0 0 * * *"), "Schedule.cron('0 0 * * *')"),
        (" @midnight ", Schedule.cron("@daily"), "Schedule.cron('0 0 * * *')"),
        ("@weekly", Schedule.cron("0 0 * * 0"), "Schedule.cron('0 0 * * 0')"),
        ("@monthly", Schedule.cron("0 0 1 * *"), "Schedule.cron('0 0 1 * *')"),
        ("@yearly", Schedule.cron("0 0 1 1 *"), "Schedule.cron('0 0 1 1 *')"),
        ("@annually", Schedule.cron("@yearly"), "Schedule.cron('0 0 1 1 *')"),
        ("every 6h", Schedule.every(timedelta(hours=6)), "Schedule.every('6h')"),
        ("every  1h 30m", Schedule.every(5400), "Schedule.every('1h 30m')"),
        ("every 1d2h3m", Schedule.every(93_780), "Schedule.every(93780.0)"),
    ],
)
def test_text_and_calls_say_the_same(written: str, same: Schedule, shown: str) -> None:
    (schedule,) = Schedule.parse(written)
    assert schedule == same
    assert hash(schedule) == hash(same)
    assert repr(schedule) == shown
    assert eval(shown, {"Schedule": Schedule}) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule == copy.deepcopy(schedule)


def test_several_are_kept_in_order_and_once() -> None:
    own = Schedule.cron("0 3 * * *", tz="Europe/Berlin")
    found = Schedule.parse(["every 6h", own, "@daily", "0 0 * * *", "every 360m"])
    assert found == (Schedule.every("6h"), own, Schedule.cron("@daily"))
    assert Schedule.parse(own) == (own,)


@pytest.mark.parametrize("zone", [None, "UTC", UTC, ZoneInfo("UTC"), timezone.utc])  # noqa: UP017
def test_utc_is_utc_however_it_is_written(zone: str | None) -> None:
    schedule = Schedule.cron("0 3 * * *", tz=zone)
    assert schedule == Schedule.cron("0 3 * * *")
    assert repr(schedule) == "Schedule.cron('0 3 * * *')"
    assert str(schedule) == "0 3 * * * (UTC)"


def test_zones_are_told_apart_by_their_names() -> None:
    by_name = Schedule.cron("0 3 * * *", tz="Europe/Berlin")
    assert by_name == Schedule.cron("0 3 * * *", tz=ZoneInfo.no_cache("Europe/Berlin"))
    assert by_name != Schedule.cron("0 3 * * *", tz="Europe/Paris")
    assert by_name != Schedule.cron("0 3 * * *")
    assert by_name != "0 3 * * *"
    assert repr(by_name) == "Schedule.cron('0 3 * * *', tz='Europe/Berlin')"
    assert str(by_name) == "0 3 * * * (Europe/Berlin)"
    assert pickle.loads(pickle.dumps(by_name)) == by_name


def test_an_interval_is_not_an_expression() -> None:
    assert Schedule.every("1h") != Schedule.cron("@hourly")
    assert str(Schedule.every("90m")) == "every 1h 30m"
    assert str(Schedule.every(93_780)) == "every 93780.0"
    assert (Schedule.every("6h").interval, Schedule.every("6h").expression) == (21_600.0, "")
    assert (Schedule.cron("@daily").interval, Schedule.cron("@daily").expression) == (
        None,
        "0 0 * * *",
    )


def test_cannot_be_changed_or_made_directly() -> None:
    schedule = Schedule.every("6h")
    with pytest.raises(AttributeError, match="make another one"):
        schedule.interval = 7.0
    with pytest.raises(TypeError, match=r"write Schedule.cron\(...\), Schedule.every\(...\) or"):
        Schedule("0 3 * * *")
    assert schedule.interval == 21_600.0


# ==== what is refused ============================================================================

NOT_FIVE = (
    "not five: write minute hour day-of-month month day-of-week, such as "
    '"0 3 * * *", or "@daily", or "every 6h"'
)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("60 3 * * *", "minute 60 is out of range: write 0 to 59"),
        ("-1 3 * * *", "minute -1 is out of range: write 0 to 59"),
        ("0 25 * * *", "hour 25 is out of range: write 0 to 23"),
        ("0 24 * * *", "hour 24 is out of range: write 0 to 23; midnight is 0"),
        ("0 22-25 * * *", "hour 25 is out of range: write 0 to 23"),
        ("0 3 0 * *", "day of month 0 is out of range: write 1 to 31"),
        ("0 3 * 13 *", "month 13 is out of range: write 1 to 12"),
        ("0 3 * * 8", "day of week 8 is out of range: write 0 to 7"),
        ("0 3 * * 1,9", "day of week 9 is out of range: write 0 to 7"),
        ("x 3 * * *", "minute X is not known: write 0 to 59"),
        ("1.5 3 * * *", "minute 1.5 is not known: write 0 to 59"),
        ("² 3 * * *", "minute ² is not known: write 0 to 59"),
        ("- 3 * * *", "minute - is not known: write 0 to 59"),
        ("0 3 ? * 1", "day of month ? is not known: write *"),
        ("0 3 15W * *", "day of month 15W is not known: write 1 to 31"),
        ("0 3 * JUNE *", "month JUNE is not known: did you mean JUN?"),
        ("0 3 * mrz *", "month MRZ is not known: write 1 to 12, or JAN to DEC"),
        ("0 3 * MON *", "month MON is not known: write 1 to 12, or JAN to DEC"),
        ("0 3 * * monday", "day of week MONDAY is not known: did you mean MON?"),
        ("0 3 * * L", "day of week L is not known: write 0 to 7, or SUN to SAT"),
        ("0 3 * * 1#6", "day of week 1#6 is not known: write 0 to 7, or SUN to SAT"),
        ("0 3,,4 * * *", "hour 3,,4: a value is missing beside a comma"),
        ("0 3, * * *", "hour 3,: a value is missing beside a comma"),
        ("0 22-2 * * *", "hour 22-2 runs backwards: write 22-23,0-2"),
        ("0 3 * NOV-FEB *", "month NOV-FEB runs backwards: write NOV-DEC,JAN-FEB"),
        ("0 3 * * FRI-MON", "day of week FRI-MON runs backwards: write FRI-SAT,SUN-MON"),
        ("0 3 * * 7-2", "day of week 7-2 runs backwards: write 0-2"),
        ("*/0 * * * *", "minute step 0 is not 1 to 59: write such as */2"),
        ("*/x * * * *", "minute step X is not 1 to 59: write such as */2"),
        ("*/90 * * * *", 'minute step 90 is not 1 to 59: write "every 90m"'),
        ("0 */36 * * *", 'hour step 36 is not 1 to 23: write "every 36h"'),
        ("0 3 */40 * *", 'day of month step 40 is not 1 to 30: write "every 40d"'),
        ("0 3 * */12 *", "month step 12 is not 1 to 11: write such as */2"),
        ("0 3 * * */7", "day of week step 7 is not 1 to 6: write such as */2"),
        ("0 0 30 2 *", "never fires: month 2 has no day 30"),
        ("0 0 31 feb,apr *", "never fires: month FEB,APR has no day 31"),
        ("0 0 */20 * 1L", "never fires: in 50 years there is no such day"),
        ("", f"has 0 fields, {NOT_FIVE}"),
        ("3", f"has 1 field, {NOT_FIVE}"),
        ("0 3 * *", f"has 4 fields, {NOT_FIVE}"),
        ("0 0 3 * * ? *", f"has 7 fields, {NOT_FIVE}"),
        (
            "0 0 3 * * *",
            (
                "has 6 fields, and seconds are not supported: "
                'write minute hour day-of-month month day-of-week, such as "0 3 * * *"'
            ),
        ),
        ("0 3 * * *, 0 4 * * *", 'several are a tuple: write ("0 3 * * *", "every 6h")'),
        ("@daily,@hourly", 'several are a tuple: write ("0 3 * * *", "every 6h")'),
        ("every 6h, @daily", 'several are a tuple: write ("0 3 * * *", "every 6h")'),
        ("0 3 * * MON-SUN", "day of week MON-SUN runs backwards: write MON-SAT,SUN"),
        ("every 99999999d", "write 10000d or less, such as 6h"),
        ("@dayly", 'did you mean "@daily"?'),
        ("@Daily", 'did you mean "@daily"?'),
        ("daily", 'did you mean "@daily"?'),
        ("@reboot", "a pool that starts has new workers anyway: leave it out"),
        (
            "@noon",
            "known are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually",
        ),
        ("@every 6h", 'write "every 6h"'),
        ("every", 'write "every 6h", or a cron expression'),
        ("Every 6h", 'write "every 6h"'),
        ("6h", 'write "every 6h"'),
        ("6 hours", 'write "every 6h"'),
        ("every 6 hours", 'write "every 6h"'),
        ("every 6H", 'write "every 6h"'),
        ("every 2 weeks", 'write "every 14d"'),
        ("every day", 'write "every 1d"'),
        ("every 6", 'an interval needs its unit; write "every 6h" or "every 6m"'),
        ("every 0s", "write 10ms or more, such as 6h"),
        ("every 9ms", "write 10ms or more, such as 6h"),
        ("every -6h", "a duration cannot be negative; write 0 or more"),
        ("every blue moon", "write numbers with units (d h m s ms us), such as 1h30m or 500ms"),
        ("3:30", 'write "30 3 * * *"'),
        (
            "CRON_TZ=Europe/Berlin 0 3 * * *",
            'write Schedule.cron("0 3 * * *", tz="Europe/Berlin")',
        ),
    ],
)
def test_wrong_text_is_told_what_is_wrong_with_it(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^schedule=") as caught:
        Schedule.parse(written)
    assert str(caught.value) == f"schedule={written!r}: {message}"


HOW = 'write text such as "0 3 * * *", "@daily" or "every 6h", or a Schedule'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, f"schedule=None: {HOW}"),
        (True, f"schedule=True: {HOW}"),
        (b"@daily", f"schedule=b'@daily': {HOW}"),
        ({"@daily"}, f"schedule={{'@daily'}}: {HOW}"),
        (3600, "schedule=3600: write Schedule.every(3600)"),
        (
            timedelta(hours=1),
            f"schedule={timedelta(hours=1)!r}: write Schedule.every({timedelta(hours=1)!r})",
        ),
        (["@daily", None], f"schedule[1]=None: {HOW}"),
        ((("@daily",),), f"schedule[0]=('@daily',): {HOW}"),
    ],
)
def test_what_is_no_text_is_a_type_error(value: object, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        Schedule.parse(value)
    assert str(caught.value) == message


def test_several_are_told_which_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"^when\[1\]='@dayly': did you mean \"@daily\"\?$"):
        Schedule.parse(("@daily", "@dayly"), name="when")
    with pytest.raises(ValueError, match=r"^schedule=\(\): write one schedule or more, or None"):
        Schedule.parse(())


def test_a_long_text_is_not_told_in_full() -> None:
    with pytest.raises(ValueError, match=r"has 5000 fields, not five") as caught:
        Schedule.parse("* " * 5000)
    assert len(str(caught.value)) < 500


def test_calls_name_their_own_parameters() -> None:
    with pytest.raises(
        ValueError, match=r"^expression='0 25 \* \* \*': hour 25 is out of range: write 0 to 23$"
    ):
        Schedule.cron("0 25 * * *")
    with pytest.raises(TypeError, match=r'^expression=3: write text such as "0 3 \* \* \*"$'):
        Schedule.cron(3)
    with pytest.raises(UnitError, match=r"^interval='6 hours': write 6h$"):
        Schedule.every("6 hours")
    with pytest.raises(ValueError, match=r"^interval=0: write 10ms or more, such as 6h$"):
        Schedule.every(0)


def test_what_is_right_to_cron_is_right_here() -> None:
    for expression in (
        "5/15 0 LW * *",
        "0 3 L,1 */2 *",
        "0 3 * * MON#1,5L,7",
        "0-30/7 1,2-4 31 1 0",
    ):
        assert Schedule.cron(expression).next_after(NOON) < inf


@given(
    st.integers(0, 4),
    st.text("0123456789*/-,L#W", min_size=1, max_size=5)
    | st.from_regex(r"\A(\*|[0-9]{1,2}|MON|JAN)(-([0-9]{1,2}|SAT|DEC))?(/[0-9]{1,2})?\Z"),
)
def test_refuses_what_cronsim_refuses_and_steps_that_are_too_large(place: int, field: str) -> None:
    fields = ["*"] * 5
    fields[place] = field
    wrong = _CHECKS[place].wrong(field)
    try:
        CronSim(" ".join(fields), datetime(2000, 1, 1))
    except CronSimError:
        assert wrong
    else:
        assert not wrong or "/" in field


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("Europe/Berln", "tz='Europe/Berln': did you mean \"Europe/Berlin\"?"),
        ("europe/berlin", "tz='europe/berlin': did you mean \"Europe/Berlin\"?"),
        ("berlin", "tz='berlin': did you mean \"Europe/Berlin\"?"),
        ("utc", "tz='utc': did you mean \"UTC\"?"),
        ("+02:00", "tz='+02:00': write the name of a zone, such as \"Europe/Berlin\""),
        ("", "tz='': write the name of a zone, such as \"Europe/Berlin\""),
        (
            "../etc/passwd",
            "tz='../etc/passwd': write the name of a zone, such as \"Europe/Berlin\"",
        ),
        ("a\0b", "tz='a\\x00b': write the name of a zone, such as \"Europe/Berlin\""),
    ],
)
def test_unknown_zones_are_refused(zone: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^tz=") as caught:
        Schedule.cron("@daily", tz=zone)
    assert str(caught.value) == message


def test_a_folder_of_zones_is_no_zone() -> None:
    with pytest.raises(ValueError, match=r"^tz='Europe': "):
        Schedule.cron("@daily", tz="Europe")


@pytest.mark.parametrize("zone", [2, timezone(timedelta(hours=2)), b"UTC"])
def test_what_names_no_zone_is_a_type_error(zone: object) -> None:
    with pytest.raises(TypeError, match=r"^tz=.*: write the name of a zone, such as"):
        Schedule.cron("@daily", tz=zone)


def test_a_zone_without_a_name_is_refused() -> None:
    path = next(f"{root}/Europe/Berlin" for root in zoneinfo.TZPATH)
    with open(path, "rb") as file:
        nameless = ZoneInfo.from_file(file)
    with pytest.raises(ValueError, match=r"it has no name: write ZoneInfo.from_file\(file, key="):
        Schedule.cron("@daily", tz=nameless)


@pytest.fixture
def no_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that has no time zone data, neither of its own nor from PyPI."""
    kept = zoneinfo.TZPATH
    for name in {"tzdata", *(name for name in sys.modules if name.startswith("tzdata"))}:
        monkeypatch.setitem(sys.modules, name, None)
    zoneinfo.reset_tzpath(to=[])
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(to=kept)


@pytest.mark.usefixtures("no_zones")
def test_without_time_zone_data_it_says_what_to_install() -> None:
    with pytest.raises(ValueError, match=r"^tz=") as caught:
        Schedule.cron("0 3 * * *", tz="Europe/Berlin")
    told = "tz='Europe/Berlin': there is no time zone data here: pip install tzdata"
    assert str(caught.value) == told


@pytest.mark.usefixtures("no_zones")
def test_utc_needs_no_time_zone_data() -> None:
    assert at(Schedule.cron("0 3 * * *", tz="UTC").next_after(NOON)) == "2026-03-05 03:00:00"


# ==== when it fires ==============================================================================


def test_an_expression_fires_when_it_says() -> None:
    found = Schedule.cron("0 3 * * MON").next_after(NOON)
    assert at(found) == "2026-03-09 03:00:00"
    assert at(Schedule.cron("0 3 * * *", tz="Asia/Kolkata").next_after(NOON)) == (
        "2026-03-04 21:30:00"
    )


def test_the_next_is_strictly_after() -> None:
    schedule = Schedule.cron("0 12 * * *")
    for moment in (NOON - 0.001, NOON - 2e-7, NOON - 1):
        assert schedule.next_after(moment) == NOON
    for moment in (NOON, NOON + 2e-7, NOON + 0.5):
        assert schedule.next_after(moment) == NOON + DAY


def test_intervals_are_counted_from_1970_and_shifted_by_a_phase() -> None:
    schedule = Schedule.every("6h")
    assert schedule.next_after(NOON - 1) == NOON
    assert schedule.next_after(NOON) == NOON + 6 * HOUR
    assert schedule.next_after(NOON, phase=0.25) == NOON + 1.5 * HOUR
    assert schedule.next_after(NOON + 1.5 * HOUR, phase=0.25) == NOON + 7.5 * HOUR
    assert schedule.next_after(0, phase=0.5) == 3 * HOUR


def test_rounding_hides_no_firing() -> None:
    schedule, phase = Schedule.every("6h"), 0.6202761081423259
    firing = (85_174 + phase) * 21_600
    just_before = nextafter(firing, 0)
    assert just_before / 21_600 - phase == 85_174  # as if it were the firing
    assert schedule.next_after(just_before, phase=phase) == firing


def test_times_of_the_calendar_have_no_phase() -> None:
    assert Schedule.cron("0 13 * * *").next_after(NOON, phase=0.7) == NOON + HOUR


@given(SCHEDULES, LATER, PHASES)
def test_the_next_is_the_first_one_after(schedule: Schedule, moment: float, phase: float) -> None:
    found = schedule.next_after(moment, phase=phase)
    assert found > moment
    between = min((moment + found) / 2, found - 1e-4)
    if moment < between < found:
        assert schedule.next_after(between, phase=phase) == found
    later = schedule.next_after(found, phase=phase)
    assert later > found
    if schedule.interval:
        assert later - found == pytest.approx(schedule.interval, abs=2e-4)


@given(SCHEDULES, LATER, LATER)
def test_a_later_moment_has_no_earlier_next(schedule: Schedule, one: float, other: float) -> None:
    one, other = sorted((one, other))
    assert schedule.next_after(one) <= schedule.next_after(other)


@pytest.mark.parametrize("schedule", [Schedule.cron("@daily"), Schedule.every("6h")])
def test_what_is_no_moment_is_refused(schedule: Schedule) -> None:
    told = r"write seconds since 1970, as of time.time\(\) or of moment.timestamp\(\)$"
    for moment in (None, True, "now", datetime(2026, 3, 4), timedelta(1)):
        with pytest.raises(TypeError, match=told):
            schedule.next_after(moment)
    for number in (nan, inf, -inf, NOON * 1000, -1e12):
        with pytest.raises(ValueError, match="in no year from 1 to 9999; " + told):
            schedule.next_after(number)
    for wrong in (-0.1, 1.0, nan):
        with pytest.raises(ValueError, match="write a number from 0 up to, not including, 1"):
            schedule.next_after(NOON, phase=wrong)


def test_a_moment_before_1970_is_one() -> None:
    assert Schedule.every("6h").next_after(-HOUR) == 0.0
    assert Schedule.cron("0 3 * * *").next_after(-DAY) == -21 * HOUR


# ==== phases =====================================================================================


def test_a_phase_is_the_same_in_every_process() -> None:
    assert phase("pool") == pytest.approx(0.848355760332)
    assert phase("pool", 1) == pytest.approx(0.466389749082)
    assert phase("p\udcff\u00f6l", 10**6) < 1.0


@pytest.mark.parametrize("prefix", ["pool-", "RecyclePool-", "", "schnell "])
def test_pools_and_slots_do_not_come_together(prefix: str) -> None:
    found = {pool: [phase(f"{prefix}{pool}", slot) for slot in range(50)] for pool in range(10)}
    everyone = sorted(one for slots in found.values() for one in slots)
    assert everyone[0] >= 0.0
    assert everyone[-1] < 1.0
    for slots in found.values():
        assert least_gap(slots) > 0.4 / 50
    for window in range(100):  # of a hundredth: 5 on average
        crowd = sum(window / 100 <= one < (window + 1) / 100 for one in everyone)
        assert 1 <= crowd <= 10
    assert least_gap([slots[0] for slots in found.values()]) > 0.0005


def least_gap(phases: list[float]) -> float:
    ordered = sorted(phases)
    gaps = [later - one for one, later in pairwise(ordered)]
    return min(*gaps, ordered[0] + 1 - ordered[-1])


# ==== the agenda =================================================================================


def taken(agenda: Agenda, now: float) -> tuple[Schedule, ...]:
    """Those that are due, each once."""
    due = agenda.due(now)
    assert agenda.due(now) == due  # until they are taken
    agenda.take(now)
    return due


def test_nothing_is_due_before_its_time_and_once_at_it() -> None:
    agenda = Agenda(Schedule.parse("0 12 * * *"), NOON - HOUR)
    assert agenda.next_at == NOON
    assert taken(agenda, NOON - 0.001) == ()
    assert taken(agenda, NOON) == Schedule.parse("0 12 * * *")
    assert taken(agenda, NOON) == ()
    assert agenda.next_at == NOON + DAY


def test_several_are_due_together_or_each_by_itself() -> None:
    daily, interval = Schedule.parse(("0 12 * * *", "every 6h"))
    agenda = Agenda((daily, interval), NOON - 7 * HOUR)
    assert taken(agenda, NOON - 6 * HOUR) == (interval,)
    assert taken(agenda, NOON) == (daily, interval)
    assert taken(agenda, NOON + 1) == ()
    assert taken(agenda, NOON + 6 * HOUR) == (interval,)


def test_one_without_schedules_is_never_due() -> None:
    agenda = Agenda((), NOON)
    assert agenda.next_at == inf
    assert taken(agenda, NOON + DAY) == ()


def test_intervals_have_the_phase_of_the_agenda() -> None:
    agenda = Agenda(Schedule.parse(("every 6h", "0 13 * * *")), NOON, phase=0.5)
    assert agenda.next_at == NOON + HOUR
    assert taken(agenda, NOON + HOUR) == Schedule.parse("0 13 * * *")
    assert agenda.next_at == NOON + 3 * HOUR


def test_what_was_missed_is_due_once() -> None:
    agenda = Agenda(Schedule.parse("every 6h"), NOON)
    assert len(taken(agenda, NOON + 10 * DAY + HOUR)) == 1
    assert taken(agenda, NOON + 10 * DAY + HOUR) == ()
    assert agenda.next_at == NOON + 10 * DAY + 6 * HOUR


def test_a_clock_that_is_set_back_a_little_fires_nothing_twice() -> None:
    agenda = Agenda(Schedule.parse("@hourly"), NOON - 1)
    assert taken(agenda, NOON + 60)
    for _ in range(3):  # and forward again
        assert not taken(agenda, NOON - 30 * 60)
        assert agenda.next_at == NOON + HOUR
        assert not taken(agenda, NOON)
        assert not taken(agenda, NOON + 61)
    assert taken(agenda, NOON + HOUR)


def test_a_clock_that_is_set_back_before_the_first_firing_has_fired_nothing() -> None:
    agenda = Agenda(Schedule.parse("@hourly"), NOON + 60)
    assert not taken(agenda, NOON - 60)
    assert agenda.next_at == NOON
    assert taken(agenda, NOON)


def test_a_clock_that_is_set_back_by_more_than_an_interval_silences_nothing() -> None:
    agenda = Agenda(Schedule.parse(("@hourly", "0 10 * * *")), NOON - 1)
    hourly = Schedule.parse("@hourly")
    assert taken(agenda, NOON) == hourly
    assert not taken(agenda, NOON - 3 * HOUR + 60)
    assert agenda.next_at == NOON - 2 * HOUR
    assert len(taken(agenda, NOON - 2 * HOUR)) == 2
    for hour in range(-1, 20):  # beyond what had been due before
        moment = NOON + hour * HOUR
        assert not taken(agenda, moment - 1)
        assert not taken(agenda, moment - 1.001)  # as clocks are set all the time
        assert taken(agenda, moment) == hourly


def test_a_clock_that_is_set_back_by_days_is_believed() -> None:
    agenda = Agenda(Schedule.parse("every 6h"), NOON - 1)
    assert taken(agenda, NOON)
    assert not taken(agenda, NOON - 30 * DAY + 60)
    assert agenda.next_at == NOON - 30 * DAY + 6 * HOUR


def test_small_steps_back_add_up_to_a_large_one() -> None:
    agenda = Agenda(Schedule.parse("@hourly"), NOON - 1)
    assert taken(agenda, NOON)
    moment = NOON
    for _ in range(1000):
        moment -= 600.0
        taken(agenda, moment)
        assert agenda.next_at <= moment + 2 * HOUR


def test_one_day_that_comes_again_is_passed_over_once() -> None:
    agenda = Agenda(Schedule.parse("0 12 * * *"), NOON - 1)
    assert taken(agenda, NOON + 60)
    assert not taken(agenda, NOON - DAY + 60)
    assert agenda.next_at == NOON + DAY  # of the two only the later one had been due


def test_a_clock_that_is_set_forward_fires_once_and_goes_on_from_there() -> None:
    agenda = Agenda(Schedule.parse(("@hourly", "@yearly")), NOON)
    assert taken(agenda, NOON + 3 * DAY + 60) == Schedule.parse("@hourly")
    assert not taken(agenda, NOON + 3 * DAY + 61)
    assert agenda.next_at == NOON + 3 * DAY + HOUR


def test_a_clock_that_began_in_1970_fires_once_when_it_is_set() -> None:
    agenda = Agenda(Schedule.parse("0 12 * * *"), 5.0)
    assert taken(agenda, NOON + 60)
    assert agenda.next_at == NOON + DAY


@given(
    st.lists(st.floats(-5.0, 5.0) | st.floats(0.0, 1.0), max_size=60),
    st.sampled_from(["@hourly", "every 1h", "*/20 * * * *"]),
)
def test_is_never_silent_for_more_than_two_intervals(steps: list[float], text: str) -> None:
    (schedule,) = Schedule.parse(text)
    interval = 1200.0 if text.startswith("*") else HOUR
    agenda, now = Agenda((schedule,), NOON), NOON
    for step in steps:
        now += step * HOUR
        next_at = agenda.next_at
        assert bool(taken(agenda, now)) == (step > 0 and next_at <= now)
        assert now < agenda.next_at <= now + 2 * interval
        assert taken(agenda, now) == ()


@pytest.mark.parametrize(
    ("text", "least"),
    [("every 6h", 6 * HOUR), ("every 7m", 420.0), ("*/15 * * * *", 900.0), ("every 0.7h", 2520.0)],
)
def test_no_drift_in_72_hours(text: str, least: float) -> None:
    """By a watchdog that sleeps by one clock, wakes late, and reads another."""
    (schedule,) = Schedule.parse(text)
    wall, late, moments = MIDNIGHT + 1, 0.0, []
    agenda = Agenda((schedule,), wall)
    while wall < MIDNIGHT + 72 * HOUR:
        wall += min(60.0, max(0.0, agenda.next_at - wall)) + late
        late = (late + 0.0137) % 0.25
        if taken(agenda, wall):
            moments.append(wall)
    firsts = schedule.next_after(MIDNIGHT + 1)
    exact = [firsts + place * least for place in range(len(moments))]
    assert len(moments) == pytest.approx(72 * HOUR / least, abs=1)
    assert all(0 <= found - right < 0.26 for found, right in zip(moments, exact, strict=True))
