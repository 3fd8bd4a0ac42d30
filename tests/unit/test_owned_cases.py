"""The reading of owned bytes against what a recycle frees, as tracemalloc sees it."""

import tracemalloc
from collections.abc import Iterator

import pytest

from benchmarks.accuracy import all_cases
from benchmarks.owned_stage import Case, measure
from recyclepool._owned import SUPPORTED

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="free-threaded: nothing can be proven")
NEXT_TO_NOTHING = 0.01


@pytest.fixture(autouse=True, scope="module")
def traced() -> Iterator[None]:
    tracemalloc.start(1)
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("case", all_cases(), ids=repr)
def test_the_reading_is_what_a_recycle_frees(case: Case) -> None:
    figures = measure(case)
    assert figures.complete
    assert figures.built > 30_000
    if case.frees:
        assert figures.freed > NEXT_TO_NOTHING * figures.built, figures
        assert abs(figures.error) <= case.tolerance, figures
    else:
        assert figures.freed < 0.25 * figures.built, figures
        assert abs(figures.owned - figures.freed) <= NEXT_TO_NOTHING * figures.built, figures
