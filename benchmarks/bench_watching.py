"""What do limits cost that no worker meets? The report compares the CPU time."""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from recyclepool import RecyclePool

from .loads import cpu, unwatched, weighed

TASKS = 1_000


@pytest.mark.parametrize("make", [weighed, unwatched], ids=["watched", "all off"])
def test_watching(benchmark: BenchmarkFixture, make: Callable[[int], RecyclePool]) -> None:
    benchmark.group = f"{TASKS} tasks of 50 to 200 us, thread, 2 workers"
    with make(2) as pool:
        benchmark.extra_info["CPU us a task"] = benchmark.pedantic(
            cpu, (pool, TASKS), rounds=11, warmup_rounds=1
        )
