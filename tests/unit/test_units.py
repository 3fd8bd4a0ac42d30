import sys
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recyclepool.errors import RecyclePoolError, UnitError
from recyclepool.units import format_duration, format_size, parse_duration, parse_size, percent_of

A_SIZE = "write a number and a unit (B, KiB MiB GiB TiB or kB MB GB TB), such as 512MiB"
A_DURATION = "write numbers with units (d h m s ms us), such as 1h30m or 500ms"
UNITS_ONCE = "write each unit once and the largest first, such as 1h30m"

SIZES = {
    "B": 1,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
    "Ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
    "Ti": 1024**4,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
}
SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (512, 512),
        (2**80, 2**80),
        ("0B", 0),
        ("10B", 10),
        ("512MiB", 512 * 1024**2),
        ("512Mi", 512 * 1024**2),
        ("512MB", 512_000_000),
        ("512 MiB", 512 * 1024**2),
        ("1.5GiB", 3 * 2**29),
        ("0.3KiB", 307),  # of 307.2
        ("0.1MB", 100_000),
        ("007kB", 7000),
        ("999999999999999TiB", 999_999_999_999_999 * 1024**4),
    ],
)
def test_reads_a_size(value: int | str, expected: int) -> None:
    assert parse_size(value) == expected


@pytest.mark.parametrize(("unit", "factor"), SIZES.items())
def test_knows_each_size_unit(unit: str, factor: int) -> None:
    assert parse_size(f"3{unit}") == 3 * factor


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("64M", "cache='64M': write 64MiB (powers of 1024) or 64MB (powers of 1000)"),
        ("64k", "cache='64k': write 64KiB (powers of 1024) or 64kB (powers of 1000)"),
        ("64K", "cache='64K': write 64KiB (powers of 1024) or 64kB (powers of 1000)"),
        ("1.5 G", "cache='1.5 G': write 1.5GiB (powers of 1024) or 1.5GB (powers of 1000)"),
        ("1t", "cache='1t': write 1TiB (powers of 1024) or 1TB (powers of 1000)"),
        ("512mb", "cache='512mb': the case of a unit counts; write 512MB"),
        ("512Mb", "cache='512Mb': the case of a unit counts; write 512MB"),
        ("50kb", "cache='50kb': the case of a unit counts; write 50kB"),
        ("1.5 gib", "cache='1.5 gib': the case of a unit counts; write 1.5GiB"),
        ("1ki", "cache='1ki': the case of a unit counts; write 1Ki"),
        ("10b", "cache='10b': the case of a unit counts; write 10B"),
        ("512", "cache='512': a size needs its unit; write 512MiB, or an int for bytes"),
        ("1.5", "cache='1.5': a size needs its unit; write 1.5MiB, or an int for bytes"),
        ("80%", "cache='80%': percentages are for limits only; write an amount, such as 512MiB"),
        ("-5MB", "cache='-5MB': a size cannot be negative; write 0 or more"),
        (-5, "cache=-5: a size cannot be negative; write 0 or more"),
        (True, 'cache=True: write an int (bytes) or text such as "512MiB"'),
        (1.5, 'cache=1.5: write an int (bytes) or text such as "512MiB"'),
        (None, 'cache=None: write an int (bytes) or text such as "512MiB"'),
        (b"1MB", "cache=b'1MB': write an int (bytes) or text such as \"512MiB\""),
        ("", f"cache='': {A_SIZE}"),
        ("MiB", f"cache='MiB': {A_SIZE}"),
        ("512Mbit", f"cache='512Mbit': {A_SIZE}"),
        (" 512MiB", f"cache=' 512MiB': {A_SIZE}"),
        ("512MiB\n", f"cache='512MiB\\n': {A_SIZE}"),
        ("512  MiB", f"cache='512  MiB': {A_SIZE}"),
        (".5GiB", f"cache='.5GiB': {A_SIZE}"),
        ("5.GiB", f"cache='5.GiB': {A_SIZE}"),
        ("+5MiB", f"cache='+5MiB': {A_SIZE}"),
        ("1_000B", f"cache='1_000B': {A_SIZE}"),
        ("1,000B", f"cache='1,000B': {A_SIZE}"),
        ("1e3B", f"cache='1e3B': {A_SIZE}"),
        ("\u0663B", f"cache='\u0663B': {A_SIZE}"),  # an Arabic-Indic three
        ("1GiB512MiB", f"cache='1GiB512MiB': {A_SIZE}"),
        ("1234567890123456B", f"cache='1234567890123456B': {A_SIZE}"),
    ],
)
def test_refuses_a_size_and_says_what_to_write(value: Any, message: str) -> None:
    with pytest.raises(UnitError) as refused:
        parse_size(value, name="cache")
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (90, 90.0),
        (0.25, 0.25),
        (timedelta(minutes=2, milliseconds=5), 120.005),
        ("0s", 0.0),
        ("90s", 90.0),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("0.1s", 0.1),
        ("2d", 172_800.0),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("2.5 s", 2.5),
        ("1h90m", 9000.0),
        ("1d2h3m4s5ms6us", 93_784.005006),
    ],
)
def test_reads_a_duration(value: float | str | timedelta, expected: float) -> None:
    seconds = parse_duration(value)
    assert seconds == expected
    assert type(seconds) is float


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("90", "age='90': a duration needs its unit; write 90s or the number 90"),
        ("1.5", "age='1.5': a duration needs its unit; write 1.5s or the number 1.5"),
        ("-90s", "age='-90s': a duration cannot be negative; write 0 or more"),
        (-1, "age=-1: a duration cannot be negative; write 0 or more"),
        (
            timedelta(seconds=-1),
            f"age={timedelta(seconds=-1)!r}: a duration cannot be negative; write 0 or more",
        ),
        ("30m1h", f"age='30m1h': {UNITS_ONCE}"),
        ("1h1h", f"age='1h1h': {UNITS_ONCE}"),
        (float("nan"), "age=nan: write a finite number of seconds"),
        (float("inf"), "age=inf: write a finite number of seconds"),
        (True, 'age=True: write a number (seconds) or text such as "1h30m"'),
        (None, 'age=None: write a number (seconds) or text such as "1h30m"'),
        (1j, 'age=1j: write a number (seconds) or text such as "1h30m"'),
        ("", f"age='': {A_DURATION}"),
        ("h", f"age='h': {A_DURATION}"),
        ("1H", "age='1H': write 1h"),
        ("5min", "age='5min': write 5m"),
        ("1w", f"age='1w': {A_DURATION}"),
        ("1h30", f"age='1h30': {A_DURATION}"),
        ("1h ", "age='1h ': write 1h"),
        (" 1h", "age=' 1h': write 1h"),
        ("1h  30m", "age='1h  30m': write 1h30m"),
        ("1h,30m", "age='1h,30m': write 1h30m"),
        ("1e3s", f"age='1e3s': {A_DURATION}"),
        ("1:30", f"age='1:30': {A_DURATION}"),
        ("6 hours", "age='6 hours': write 6h"),
        ("1 Hour, 30 minutes", "age='1 Hour, 30 minutes': write 1h30m"),
        ("2.5SECS", "age='2.5SECS': write 2.5s"),
        ("500 msec", "age='500 msec': write 500ms"),
        ("1. 5h", f"age='1. 5h': {A_DURATION}"),
        ("1 5h", f"age='1 5h': {A_DURATION}"),
        ("1,000s", f"age='1,000s': {A_DURATION}"),
        ("5 hours 1 day", f"age='5 hours 1 day': {A_DURATION}"),
        ("1 hour" * 20, f"age={'1 hour' * 20!r}: {A_DURATION}"),
        ("inf", f"age='inf': {A_DURATION}"),
    ],
)
def test_refuses_a_duration_and_says_what_to_write(value: Any, message: str) -> None:
    with pytest.raises(UnitError) as refused:
        parse_duration(value, name="age")
    assert str(refused.value) == message


def test_refuses_numbers_that_python_does_not_print() -> None:
    with pytest.raises(UnitError) as refused:
        parse_size(-(10**5000))
    assert str(refused.value) == "size=...: a size cannot be negative; write 0 or more"
    with pytest.raises(UnitError) as refused:
        parse_duration(10**5000)
    assert str(refused.value) == "duration=...: write a finite number of seconds"


def test_the_error_is_a_value_error_of_this_package() -> None:
    assert issubclass(UnitError, ValueError)
    assert issubclass(UnitError, RecyclePoolError)


def test_without_a_name_the_message_says_what_was_wanted() -> None:
    with pytest.raises(UnitError, match=r"^size='x': "):
        parse_size("x")
    with pytest.raises(UnitError, match=r"^duration='x': "):
        parse_duration("x")
    with pytest.raises(UnitError, match=r"^limit='x%': "):
        percent_of("x%")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("80%", 80.0),
        ("12.5%", 12.5),
        ("100 %", 100.0),
        ("0.01%", 0.01),
        ("512MiB", None),
        ("80", None),
        ("80%B", None),
        ("", None),
        (80, None),
        (None, None),
        (b"80%", None),
    ],
)
def test_reads_a_percentage(value: Any, expected: float | None) -> None:
    assert percent_of(value) == expected


@pytest.mark.parametrize("value", ["0%", "0.0%", "100.1%", "101%", "999999999999999%"])
def test_refuses_a_percentage_out_of_range(value: str) -> None:
    with pytest.raises(UnitError) as refused:
        percent_of(value, name="memory")
    advice = "write more than 0% and at most 100%, such as 80%"
    assert str(refused.value) == f"memory={value!r}: {advice}"


@pytest.mark.parametrize(
    "value",
    ["%", "-5%", "+5%", " 80%", "80  %", "8 0%", "80%%", ".5%", "5.%", "1e1%", "nan%", "\u0668%"],
)
def test_refuses_what_is_no_percentage(value: str) -> None:
    with pytest.raises(UnitError) as refused:
        percent_of(value, name="memory")
    advice = "write a number and a percent sign, such as 80% or 12.5%"
    assert str(refused.value) == f"memory={value!r}: {advice}"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (12, "12 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1 MiB"),
        (64 * 1024**2, "64 MiB"),
        (325_582_848, "310.5 MiB"),
        (1024**3, "1 GiB"),
        (5000 * 1024**4, "5000 TiB"),
        (-2048, "-2 KiB"),
    ],
)
def test_shows_a_size(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1e-9, "0 s"),
        (0.000_02, "20 us"),
        (0.000_999_9, "999.9 us"),
        (0.000_999_99, "1 ms"),
        (0.5, "500 ms"),
        (0.9999, "999.9 ms"),
        (0.999_99, "1 s"),
        (2.5, "2.5 s"),
        (59.94, "59.9 s"),
        (59.96, "1m"),
        (90, "1m 30s"),
        (3599.6, "1h"),
        (5400, "1h 30m"),
        (5429, "1h 30m"),
        (86_369, "23h 59m"),
        (86_371, "1d"),
        (216_000, "2d 12h"),
        (400 * 86_400, "400d"),
        (-90, "-1m 30s"),
    ],
)
def test_shows_a_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**15 - 1), st.sampled_from(sorted(SIZES)), st.sampled_from(["", " "]))
def test_reads_back_every_size(number: int, unit: str, space: str) -> None:
    assert parse_size(f"{number}{space}{unit}") == number * SIZES[unit]


@given(st.integers(0, 2**60))
def test_reads_what_format_size_shows(size: int) -> None:
    text = format_size(size)
    unit = SIZES[text.split()[1]]
    assert abs(parse_size(text) - size) <= unit // 20 + 1


@given(st.timedeltas(timedelta(0), timedelta(days=10**6)))
def test_reads_back_every_timedelta(span: timedelta) -> None:
    parts = (span.days, "d"), (span.seconds, "s"), (span.microseconds, "us")
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == parse_duration(span)


@given(st.floats(60, 10**9))
def test_reads_what_format_duration_shows_from_a_minute_on(seconds: float) -> None:
    text = format_duration(seconds)
    finest = 1 if seconds < 3599.5 else 60 if seconds < 86_370 else 3600
    assert abs(parse_duration(text) - seconds) <= finest / 2
    assert len(text.split()) <= 2


@given(st.floats(0, 59.94))
def test_reads_what_format_duration_shows_below_a_minute(seconds: float) -> None:
    shown = parse_duration(format_duration(seconds))
    assert shown == pytest.approx(seconds, rel=0.051, abs=1e-7)


@given(st.text())
def test_any_other_text_is_refused_by_name(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            message = f"x={text!r}: {parse(text, name='x') >= 0}"
        except UnitError as refused:
            message = str(refused)
        assert message.startswith(f"x={text!r}: ")
        assert not message.endswith("False")


def test_datetime_is_just_being_imported_by_another_thread(monkeypatch):
    monkeypatch.setitem(sys.modules, "datetime", ModuleType("datetime"))
    assert parse_duration(0.5) == 0.5
