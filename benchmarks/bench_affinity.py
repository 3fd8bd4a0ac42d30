"""Do tasks with a key find what they need in the cache of their worker? The time is that of the
arrivals; what counts is the hit rate.
"""

import itertools
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .affinity import hit_rate

TASKS = 500


@pytest.mark.parametrize("load", [0.1, 0.5])
@pytest.mark.parametrize("workers", [4, 8])
@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "random"])
def test_affinity(benchmark: BenchmarkFixture, keyed: bool, workers: int, load: float) -> None:
    benchmark.group = f"{TASKS} tasks of 2 ms, thread, {workers} workers, {load:.0%} load"
    seeds = itertools.count()
    rates: list[float] = []
    benchmark.pedantic(
        lambda: rates.append(hit_rate(workers, load, TASKS, next(seeds), keyed)), rounds=3
    )
    benchmark.extra_info["hit rate: the median"] = median(rates)
