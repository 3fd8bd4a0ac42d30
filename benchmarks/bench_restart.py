"""What does a soft restart of all workers do to the tasks that are under way?"""

import itertools
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .restarts import ARRIVALS, WORKERS, p99_wait, restartable, saturated

TASKS = 600

both = pytest.mark.parametrize("restart", [True, False], ids=["restart", "rest"])


@both
def test_throughput(benchmark: BenchmarkFixture, restart: bool) -> None:
    benchmark.group = f"{TASKS} tasks of 1 ms, thread, {WORKERS} workers"
    with restartable() as pool:
        benchmark.pedantic(saturated, (pool, TASKS, restart), rounds=11, warmup_rounds=1)


@both
def test_wait(benchmark: BenchmarkFixture, restart: bool) -> None:
    """The time is that of the arrivals; what counts is the wait."""
    benchmark.group = f"{ARRIVALS} tasks of 1 ms at half load, thread, {WORKERS} workers"
    seeds = itertools.count()
    waits: list[float] = []
    with restartable() as pool:
        benchmark.pedantic(lambda: waits.append(p99_wait(pool, seeds, restart)), rounds=21)
    benchmark.extra_info["p99 wait, us: the median"] = median(waits)
