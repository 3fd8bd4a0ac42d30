"""Pools that are taken down after a test, whatever became of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from forcing import PATIENCE

from recyclepool import PoolState, RecyclePool


@pytest.fixture
def new_pool() -> Iterator[Callable[..., RecyclePool]]:
    """RecyclePool, for pools that are shut down when the test is over."""
    made: list[RecyclePool] = []

    def make(*args: Any, **kwargs: Any) -> RecyclePool:
        made.append(RecyclePool(*args, **kwargs))
        return made[-1]

    yield make
    for pool in made:
        if pool.stats().state is not PoolState.SHUTDOWN:
            pool.destroy(min(5.0, PATIENCE))
        pool.shutdown(wait=False)


@pytest.fixture
def no_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools do not check themselves after each order: who interrupts them does it, at the end."""
    monkeypatch.delenv("RECYCLEPOOL_DEBUG", raising=False)
