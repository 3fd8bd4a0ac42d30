"""What does a queued task weigh? The time is that of the whole process."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .fresh import queued_bytes
from .loads import POOLS

TASKS = 200_000


@pytest.mark.parametrize("pool", POOLS)
def test_memory(benchmark: BenchmarkFixture, pool: str) -> None:
    benchmark.group = f"{TASKS} queued tasks"
    benchmark.extra_info["bytes a task"] = benchmark.pedantic(queued_bytes, (pool, TASKS), rounds=3)
