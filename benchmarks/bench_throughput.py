"""How fast do no-op tasks go through, submitted one by one?"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .loads import WATCHED_POOLS, burst

TASKS = 10_000


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("pool", WATCHED_POOLS)
def test_throughput(benchmark: BenchmarkFixture, pool: str, workers: int) -> None:
    benchmark.group = f"{TASKS} no-op tasks, thread, {workers} workers"
    with WATCHED_POOLS[pool](workers) as executor:
        benchmark.pedantic(burst, (executor, TASKS), rounds=11, warmup_rounds=1)
