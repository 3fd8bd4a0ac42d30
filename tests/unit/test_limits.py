import pickle
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from math import inf
from typing import Any

import pytest

from recyclepool import Limits, UnitError, _host_memory
from recyclepool._rules import Rules

DEFAULTS = {field.name: field.default for field in fields(Limits)}

# Of each that works: what it is in the rules of the pool.
RULES = {
    "tasks": "tasks",
    "age": "age",
    "idle": "idle",
    "task_timeout": "task_timeout",
    "hang": "hang",
    "jitter": "jitter",
    "grace": "grace",
    "start_timeout": "start_timeout",
    "max_surge": "surge",
    "max_abandoned": "max_abandoned",
    "report_only": "report_only",
    "memory": "memory",
    "pool_memory": "pool_memory",
    "memory_samples": "memory_samples",
    "sample_every": "sample_every",
    "min_age": "min_age",
}

DEADLINES = ("age", "idle", "task_timeout", "hang", "start_timeout")  # more than 0, or None
SPANS = ("min_age", "grace")  # 0 or more
COUNTS = ("tasks", "max_surge", "max_abandoned", "memory_samples")
SIZES = ("memory", "pool_memory")


def refused(error: type[Exception], **limit: Any) -> str:
    with pytest.raises(error) as caught:
        Limits(**limit)
    assert type(caught.value) is error
    return str(caught.value)


# ==== all of them ================================================================================


def test_every_limit_is_off_by_default():
    assert Limits().tasks is None
    assert all(DEFAULTS[name] is None for name in ("memory", "memory_hard", "pool_memory"))
    assert all(DEFAULTS[name] is None for name in ("age", "idle", "task_timeout", "hang"))


def test_the_rest_has_defaults_that_make_sense():
    limits = Limits()
    assert (limits.min_age, limits.jitter, limits.grace) == (10.0, 0.1, 5.0)
    assert limits.start_timeout == 60.0
    assert (limits.max_surge, limits.max_abandoned, limits.report_only) == (1, None, False)
    assert (limits.memory_samples, limits.sample_every) == (3, 1.0)


def test_the_lists_of_fields_are_whole():
    assert {*RULES, "memory_hard"} == {*DEFAULTS}
    kinds = {*DEADLINES, *SPANS, *COUNTS, *SIZES}
    assert kinds | {"sample_every", "jitter", "report_only"} == {*RULES}


@pytest.mark.parametrize("value", [2**30, "1GiB", "80%", 0, "x"])
def test_a_hard_limit_of_memory_needs_what_is_not_there_yet(value):
    assert refused(ValueError, memory_hard=value) == (
        "Limits(memory_hard=...) needs workers that can be killed, which this version does not "
        'have: write memory="512MiB", which replaces a worker between two tasks'
    )


def test_what_the_refusal_of_a_hard_limit_says_works_does():
    assert Limits(memory="512MiB").rules().memory == 512 * 2**20


@pytest.mark.parametrize("name", DEFAULTS)
def test_to_write_its_default_is_allowed(name):
    assert Limits(**{name: DEFAULTS[name]}) == Limits()


def test_all_that_are_not_for_memory():
    limits = Limits(tasks=10_000, age="6h", idle="5m", task_timeout="30s", hang="2m")
    assert (limits.tasks, limits.age, limits.idle) == (10_000, 21_600.0, 300.0)
    assert (limits.task_timeout, limits.hang) == (30.0, 120.0)


# ==== durations ==================================================================================


@pytest.mark.parametrize("name", [*DEADLINES, *SPANS, "sample_every"])
@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (1, 1.0),
        (0.25, 0.25),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        (timedelta(minutes=1), 60.0),
        (0.01, 0.01),
        (10**9, 1e9),
    ],
)
def test_a_duration_is_kept_in_seconds(name, written, seconds):
    kept = getattr(Limits(**{name: written}), name)
    assert kept == seconds
    assert type(kept) is float
    assert Limits(**{name: written}) == Limits(**{name: seconds})


@pytest.mark.parametrize("name", DEADLINES)
def test_none_is_no_limit(name):
    assert getattr(Limits(**{name: None}), name) is None


@pytest.mark.parametrize("name", DEADLINES)
@pytest.mark.parametrize("nothing", [0, 0.0, "0s", timedelta(0)])
def test_a_limit_of_nothing_is_refused(name, nothing):
    assert refused(ValueError, **{name: nothing}) == (
        f"Limits({name}={nothing!r}): write more than 0, or None for no limit"
    )


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("nothing", [0, "0s"])
def test_a_span_may_be_nothing(name, nothing):
    assert getattr(Limits(**{name: nothing}), name) == 0.0


@pytest.mark.parametrize("name", [*DEADLINES, *SPANS])
def test_a_duration_may_be_very_short(name):
    assert getattr(Limits(**{name: 1e-9}), name) == 1e-9


@pytest.mark.parametrize("pause", [0, 0.0, "0s", 0.009, "9ms", timedelta(0), 1e-9])
def test_readings_are_not_taken_without_a_pause(pause):
    assert refused(ValueError, sample_every=pause) == (
        f"Limits(sample_every={pause!r}): write 0.01 seconds or more, such as sample_every=1.0"
    )


@pytest.mark.parametrize("name", [*SPANS, "sample_every"])
def test_a_span_is_never_none(name):
    message = f'Limits({name}=None): write a duration, such as {name}="5s"'
    assert refused(TypeError, **{name: None}) == message


@pytest.mark.parametrize("name", [*DEADLINES, *SPANS, "sample_every"])
@pytest.mark.parametrize(
    ("written", "message"),
    [
        (-1, "=-1: a duration cannot be negative; write 0 or more"),
        ("-1s", "='-1s': a duration cannot be negative; write 0 or more"),
        ("90", "='90': a duration needs its unit; write 90s or the number 90"),
        (inf, "=inf: write a finite number of seconds"),
        (True, '=True: write a number (seconds) or text such as "1h30m"'),
        ([1], '=[1]: write a number (seconds) or text such as "1h30m"'),
    ],
)
def test_a_duration_that_cannot_be_read(name, written, message):
    assert refused(UnitError, **{name: written}) == name + message


# ==== sizes ======================================================================================


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    ("written", "size"),
    [
        (1, 1),
        (2**40, 2**40),
        ("512MiB", 512 * 2**20),
        ("512 MB", 512_000_000),
        ("1.5GiB", 3 * 2**29),
        (None, inf),
    ],
)
def test_a_size(name, written, size):
    limits = Limits(**{name: written})
    assert getattr(limits.rules(), name) == size
    assert getattr(limits, name) == (written if written is None else size)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    ("written", "size"), [("10%", 100), ("12.5 %", 125), ("100%", 1000), ("0.5%", 5)]
)
def test_a_percentage_is_of_what_the_container_has_when_the_pool_is_made(
    monkeypatch, name, written, size
):
    limits = Limits(**{name: written})
    assert getattr(limits, name) == written
    monkeypatch.setattr(_host_memory, "container_limit", lambda: (1000, "a test"))
    assert getattr(limits.rules(), name) == size
    monkeypatch.setattr(_host_memory, "container_limit", lambda: (10**6, "a test"))
    assert getattr(limits.rules(), name) == size * 1000


def test_a_percentage_of_what_nobody_knows(monkeypatch):
    monkeypatch.setattr(_host_memory, "container_limit", lambda: (0, "the host's memory"))
    limits = Limits(memory="10%")
    with pytest.raises(UnitError) as caught:
        limits.rules()
    said = "memory='10%': the host's memory is unknown here; write an amount: 512MiB"
    assert str(caught.value) == said


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("nothing", [0, "0B", "0MiB", "0 kB"])
def test_a_size_of_nothing_is_refused(name, nothing):
    assert refused(ValueError, **{name: nothing}) == (
        f"Limits({name}={nothing!r}): write more than 0, or None for no limit"
    )


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    ("written", "message"),
    [
        (-1, "a size cannot be negative; write 0 or more"),
        (True, 'write an int (bytes) or text such as "512MiB"'),
        (1.5, 'write an int (bytes) or text such as "512MiB"'),
        (inf, 'write an int (bytes) or text such as "512MiB"'),
        ([1], 'write an int (bytes) or text such as "512MiB"'),
        (b"80%", 'write an int (bytes) or text such as "512MiB"'),
        ("512", "a size needs its unit; write 512MiB, or an int for bytes"),
        ("512M", "write 512MiB (powers of 1024) or 512MB (powers of 1000)"),
        ("512mb", "the case of a unit counts; write 512MB"),
        ("0%", "write more than 0% and at most 100%, such as 80%"),
        ("101%", "write more than 0% and at most 100%, such as 80%"),
        ("-5%", "write a number and a percent sign, such as 80% or 12.5%"),
        ("much %", "write a number and a percent sign, such as 80% or 12.5%"),
    ],
)
def test_a_size_that_cannot_be_read(name, written, message):
    assert refused(UnitError, **{name: written}) == f"{name}={written!r}: {message}"


# ==== numbers ====================================================================================


class Number:
    """As numpy's integers are."""

    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("number", [1, 2, 10_000, 10**30])
def test_a_count(name, number):
    assert getattr(Limits(**{name: number}), name) == number


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_that_is_like_an_int(name):
    kept = getattr(Limits(**{name: Number()}), name)
    assert kept == 3
    assert type(kept) is int


@pytest.mark.parametrize("name", ["max_surge", "max_abandoned"])
def test_a_count_of_none_at_all(name):
    assert getattr(Limits(**{name: 0}), name) == 0


@pytest.mark.parametrize("name", ["tasks", "max_abandoned"])
def test_a_count_that_is_left_open(name):
    assert getattr(Limits(**{name: None}), name) is None


@pytest.mark.parametrize("tasks", [0, -1])
def test_tasks_that_are_too_few(tasks):
    message = f"Limits(tasks={tasks}): write 1 or more, or None for no limit"
    assert refused(ValueError, tasks=tasks) == message


@pytest.mark.parametrize("samples", [0, -1])
def test_readings_that_are_too_few(samples):
    message = f"Limits(memory_samples={samples}): write 1 or more"
    assert refused(ValueError, memory_samples=samples) == message


def test_less_than_none():
    assert refused(ValueError, max_surge=-1) == "Limits(max_surge=-1): write 0 or more"
    assert refused(ValueError, max_abandoned=-1) == (
        "Limits(max_abandoned=-1): write 0 or more, or None"
    )


@pytest.mark.parametrize("number", [True, False, 10.0, "10", "10_000", [1], timedelta(1)])
def test_a_count_that_is_no_number(number):
    assert refused(TypeError, tasks=number) == (
        f"Limits(tasks={number!r}): write how many as an int, such as tasks=10_000, or None"
    )
    assert refused(TypeError, max_abandoned=number) == (
        f"Limits(max_abandoned={number!r}): write how many as an int, such as max_abandoned=1, "
        f"or None"
    )
    assert refused(TypeError, max_surge=number) == (
        f"Limits(max_surge={number!r}): write how many as an int, such as max_surge=1"
    )
    assert refused(TypeError, memory_samples=number) == (
        f"Limits(memory_samples={number!r}): write how many as an int, such as memory_samples=1"
    )


@pytest.mark.parametrize("name", ["max_surge", "memory_samples"])
def test_a_count_that_is_never_none(name):
    message = f"Limits({name}=None): write how many as an int, such as {name}=1"
    assert refused(TypeError, **{name: None}) == message


@pytest.mark.parametrize("jitter", [0, 0.0, 0.5, 1, 1.0])
def test_jitter(jitter):
    kept = Limits(jitter=jitter).jitter
    assert kept == jitter
    assert type(kept) is float


@pytest.mark.parametrize("jitter", [-0.1, 1.1, 2, -1, inf, -inf, float("nan")])
def test_jitter_that_is_no_part_of_one(jitter):
    message = f"Limits(jitter={jitter!r}): write a number from 0 to 1, such as 0.1"
    assert refused(ValueError, jitter=jitter) == message


@pytest.mark.parametrize("jitter", [None, True, False, "10%", [0.1], 1j])
def test_jitter_that_is_no_number(jitter):
    message = f"Limits(jitter={jitter!r}): write a number from 0 to 1, such as 0.1"
    assert refused(TypeError, jitter=jitter) == message


@pytest.mark.parametrize("report_only", [True, False])
def test_report_only(report_only):
    assert Limits(report_only=report_only).report_only is report_only


@pytest.mark.parametrize("report_only", [None, 0, 1, "yes", []])
def test_report_only_that_is_no_answer(report_only):
    message = f"Limits(report_only={report_only!r}): write True or False"
    assert refused(TypeError, report_only=report_only) == message


# ==== what the pool reads ========================================================================


def test_the_rules_of_a_pool_without_limits():
    """start_timeout, grace for teardowns: only with Limits(); else there is nothing to watch."""
    assert Rules() == Rules(
        tasks=0,
        age=inf,
        idle=inf,
        task_timeout=inf,
        hang=inf,
        jitter=0.1,
        grace=5.0,
        start_timeout=inf,
        teardown=inf,
        surge=1,
        max_abandoned=None,
        report_only=False,
        memory=inf,
        pool_memory=inf,
        memory_samples=3,
        sample_every=1.0,
        min_age=10.0,
    )
    assert Limits(start_timeout=None).rules() == Rules(teardown=5.0)
    assert Limits().rules() == Rules(start_timeout=60.0, teardown=5.0)


@pytest.mark.parametrize(
    ("name", "written", "rule"),
    [
        ("tasks", 5, 5),
        ("tasks", None, 0),
        ("age", "6h", 21_600.0),
        ("age", None, inf),
        ("idle", 60, 60.0),
        ("idle", None, inf),
        ("task_timeout", timedelta(minutes=1), 60.0),
        ("task_timeout", None, inf),
        ("hang", "2m", 120.0),
        ("hang", None, inf),
        ("jitter", 0, 0.0),
        ("start_timeout", "10s", 10.0),
        ("start_timeout", None, inf),
        ("max_surge", 0, 0),
        ("max_abandoned", 0, 0),
        ("max_abandoned", None, None),
        ("report_only", True, True),
        ("memory", "1MiB", 2**20),
        ("memory", None, inf),
        ("pool_memory", 2**30, 2**30),
        ("pool_memory", None, inf),
        ("memory_samples", 1, 1),
        ("sample_every", "20ms", 0.02),
        ("min_age", "1m", 60.0),
        ("min_age", 0, 0.0),
    ],
)
def test_what_becomes_of_a_limit_in_the_rules(name, written, rule):
    rules = Limits(**{name: written}).rules()
    assert getattr(rules, RULES[name]) == rule
    others = Limits().rules()._asdict().items() - rules._asdict().items()
    assert {name for name, _ in others} <= {RULES[name]}


def test_grace_holds_for_tasks_and_for_teardowns():
    assert Limits(grace="2s").rules() == Limits().rules()._replace(grace=2.0, teardown=2.0)


@pytest.mark.parametrize(
    ("limits", "patience"),
    [
        (Limits(), inf),
        (Limits(task_timeout=3), 3.0),
        (Limits(hang=2), 2.0),
        (Limits(hang=2, task_timeout=3), 2.0),
        (Limits(age=1, idle=1, memory=1, pool_memory=1), inf),
    ],
)
def test_patience_is_how_long_a_task_may_run_unseen(limits, patience):
    assert limits.rules().patience == patience


@pytest.mark.parametrize(
    ("limits", "weighs"),
    [
        (Limits(), False),
        (Limits(age=1, idle=1, tasks=1, hang=1), False),
        (Limits(memory_samples=1, sample_every=1, min_age=0), False),
        (Limits(memory=2**40), True),
        (Limits(pool_memory=2**40), True),
        (Limits(memory=1, report_only=True), True),
    ],
)
def test_memory_is_looked_at_where_a_limit_asks_for_it(limits, weighs):
    assert limits.rules().weighs is weighs


# ==== values =====================================================================================


def test_a_limit_that_is_not_there():
    with pytest.raises(TypeError, match="memry"):
        Limits(memry=1)  # type: ignore[call-arg]


def test_they_are_values():
    assert Limits(memory="1KiB") == Limits(memory=1024)
    limits = Limits(tasks=5, age="1h", memory="80%", sample_every="2s")
    assert limits == Limits(tasks=5, age=3600, memory="80%", sample_every=2)
    assert limits != Limits(tasks=5, age="1h", memory="81%", sample_every="2s")
    assert limits != Limits(tasks=5, age="1h", pool_memory="80%", sample_every="2s")
    assert limits != Limits(tasks=5)
    assert limits != Limits()
    assert hash(limits) == hash(Limits(tasks=5, age=3600, memory="80%", sample_every=2))
    assert pickle.loads(pickle.dumps(limits)) == limits
    with pytest.raises(FrozenInstanceError):
        limits.tasks = 6  # type: ignore[misc]
