"""How long does a scrape of many pools take?"""

import pytest
from prometheus_client import generate_latest
from pytest_benchmark.fixture import BenchmarkFixture

from .scrapes import MANY, SLOTS, many_pools, registered


@pytest.mark.parametrize("text", [False, True], ids=["samples", "text"])
def test_scrape(benchmark: BenchmarkFixture, text: bool) -> None:
    benchmark.group = f"a scrape of {MANY} pools x {SLOTS} slots"
    registry = registered()
    with many_pools():
        if text:
            benchmark.pedantic(generate_latest, (registry,), rounds=11, warmup_rounds=1)
        else:
            benchmark.pedantic(lambda: list(registry.collect()), rounds=11, warmup_rounds=1)
