"""What does a pool cost that has nothing to do? The time is that of the whole process."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .fresh import idle


@pytest.mark.parametrize("limits", [False, True], ids=["plain", "limits"])
def test_idle(benchmark: BenchmarkFixture, limits: bool) -> None:
    benchmark.group = "idle pool of 8, 5 s"
    found = benchmark.pedantic(idle, (limits, 5.0), rounds=1)
    benchmark.extra_info["wake-ups a second"] = found.wakeups
    benchmark.extra_info["CPU seconds an hour"] = found.cpu
