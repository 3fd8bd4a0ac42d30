"""How long does one no-op task take, there and back?"""

import os
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .cores import pin
from .loads import POOLS, RAW, hand_overs, trips

TRIPS = 500


@pytest.fixture(params=[1, 2])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.sched_getaffinity(0)
    if len(before) < request.param:
        pytest.skip(f"needs {request.param} cores")
    pin(request.param)
    yield request.param
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("pool", POOLS)
def test_round_trip(benchmark: BenchmarkFixture, pool: str, workers: int, cores: int) -> None:
    benchmark.group = f"{TRIPS} round trips, thread, {workers} workers, on {cores} cores"
    with POOLS[pool](workers) as executor:
        benchmark.pedantic(trips, (executor, TRIPS), rounds=21, warmup_rounds=1)


def test_raw_hand_overs(benchmark: BenchmarkFixture, cores: int) -> None:
    benchmark.group = f"{TRIPS} times {RAW}, on {cores} cores"
    benchmark.pedantic(hand_overs, (TRIPS,), rounds=21, warmup_rounds=1)
