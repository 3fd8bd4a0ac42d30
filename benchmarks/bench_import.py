"""What does the import cost? The time is that of a whole interpreter, with and without it."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .fresh import IMPORTS, run


@pytest.mark.parametrize("statement", ["pass", *IMPORTS.values()])
def test_import(benchmark: BenchmarkFixture, statement: str) -> None:
    benchmark.group = "import"
    benchmark.pedantic(run, ("-c", statement), rounds=11, warmup_rounds=1)
