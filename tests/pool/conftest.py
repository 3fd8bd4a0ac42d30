"""Pools and tasks that are taken down after a test, whatever became of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from recyclepool import PoolState, RecyclePool

pytest.register_assert_rewrite("refusing", "stages", "staging")

from staging import Hold, Spin  # noqa: E402


@pytest.fixture
def new_pool() -> Iterator[Callable[..., RecyclePool]]:
    """RecyclePool, for pools that are shut down when the test is over."""
    made = []

    def make(*args: Any, **kwargs: Any) -> RecyclePool:
        made.append(RecyclePool(*args, **kwargs))
        return made[-1]

    yield make
    for pool in made:
        if pool.stats().state is not PoolState.SHUTDOWN:
            pool.destroy(5.0)
        pool.shutdown()


@pytest.fixture
def new_hold(new_pool: object) -> Iterator[Callable[[], Hold]]:
    """Hold, for tasks that are let go before the pools are taken down."""
    yield from _released(Hold)


@pytest.fixture
def new_spin(new_pool: object) -> Iterator[Callable[[], Spin]]:
    """Spin, likewise."""
    yield from _released(Spin)


def _released(kind: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    made = []

    def make() -> Any:
        made.append(kind())
        return made[-1]

    yield make
    for task in made:
        task.release()
