"""What limits come to, as numbers."""

import subprocess
import sys
from datetime import timedelta
from math import inf

import pytest

from recyclepool import Limits
from recyclepool._rules import Rules


def test_a_pool_without_limits_has_none():
    rules = Rules()
    assert rules.tasks == 0
    for name in ("age", "idle", "task_timeout", "hang", "start_timeout", "teardown", "patience"):
        assert getattr(rules, name) == inf, name
    assert (rules.memory, rules.pool_memory, rules.weighs) == (inf, inf, False)


def test_limits_without_any():
    """They bound how long a worker may take to come and to go, and that is all."""
    assert Limits().rules() == Rules(start_timeout=60.0, teardown=5.0)


@pytest.mark.parametrize("name", ["age", "idle", "task_timeout", "hang", "start_timeout"])
@pytest.mark.parametrize(
    ("written", "seconds"),
    [(90, 90.0), (0.25, 0.25), ("1m30s", 90.0), (timedelta(seconds=90), 90.0), (None, inf)],
)
def test_durations(name, written, seconds):
    value = getattr(Limits(**{name: written}).rules(), name)
    assert value == seconds
    assert type(value) is float


@pytest.mark.parametrize(
    ("written", "grace", "teardown"), [("1500ms", 1.5, 1.5), (0.1, 0.1, 1.0), (0, 0.0, 1.0)]
)
def test_grace_is_for_tasks_and_for_teardowns(written, grace, teardown):
    """A teardown has a second at least: it was told nothing, and is not at fault."""
    rules = Limits(grace=written).rules()
    assert (rules.grace, rules.teardown) == (grace, teardown)


@pytest.mark.parametrize(
    ("limit", "rule", "value"),
    [
        ("tasks", "tasks", 10),
        ("max_surge", "surge", 0),
        ("max_surge", "surge", 3),
        ("max_abandoned", "max_abandoned", 0),
        ("max_abandoned", "max_abandoned", None),
        ("jitter", "jitter", 0.0),
        ("report_only", "report_only", True),
        ("memory", "memory", 2**20),
        ("pool_memory", "pool_memory", 2**30),
        ("memory_samples", "memory_samples", 1),
        ("sample_every", "sample_every", 0.5),
        ("min_age", "min_age", 0.0),
    ],
)
def test_the_rest_is_as_it_was_written(limit, rule, value):
    rules = Limits(**{limit: value}).rules()
    assert getattr(rules, rule) == value
    assert rules == Limits().rules()._replace(**{rule: value})


@pytest.mark.parametrize("name", ["memory", "pool_memory"])
def test_sizes(name):
    assert getattr(Limits(**{name: "1.5MiB"}).rules(), name) == 1_572_864
    assert getattr(Limits(**{name: None}).rules(), name) == inf


@pytest.mark.parametrize(
    ("limits", "weighs"),
    [({}, False), ({"age": 1}, False), ({"memory": 1}, True), ({"pool_memory": "80%"}, True)],
)
def test_who_has_a_limit_of_memory_has_to_know_it(limits, weighs):
    assert Limits(**limits).rules().weighs is weighs


def test_no_number_of_tasks_is_none():
    assert Limits(tasks=None).rules().tasks == 0


@pytest.mark.parametrize(
    ("limits", "patience"),
    [
        ({}, inf),
        ({"task_timeout": 3}, 3.0),
        ({"hang": 2}, 2.0),
        ({"task_timeout": 3, "hang": 2}, 2.0),
        ({"task_timeout": 2, "hang": 3}, 2.0),
        ({"age": 1, "idle": 1, "start_timeout": 1, "grace": 1}, inf),
    ],
)
def test_patience(limits, patience):
    assert Limits(**limits).rules().patience == patience


OF_LIMITS = ["limits", "_watchdog"]
OF_MEMORY = ["_probe", "_relief", "_owned", "_roots", "_census", "_host_memory"]


@pytest.mark.parametrize(
    ("written", "unused"),
    [("None", OF_LIMITS + OF_MEMORY), ("recyclepool.Limits(tasks=9, age=9, hang=9)", OF_MEMORY)],
)
def test_a_pool_imports_nothing_for_limits_that_it_does_not_have(written, unused):
    lookup = f"""
import recyclepool, sys
with recyclepool.RecyclePool(1, limits={written}) as pool:
    pool.submit(int).result()
    pool.stats()
names = {{"recyclepool." + name for name in {unused}}}
sys.exit(" ".join(names & set(sys.modules)) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", lookup], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
