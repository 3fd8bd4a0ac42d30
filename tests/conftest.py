"""What holds for every test: nothing is left over, and the pools check their own invariants."""

import contextlib
import gc
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import pytest

from recyclepool import RecyclePool, pools

GRACE = 10.0  # seconds that threads get to end after a test


@pytest.fixture(autouse=True)
def nothing_left_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread and no pool with work or workers survives its test; all pools check themselves."""
    monkeypatch.setenv("RECYCLEPOOL_DEBUG", "1")
    before = set(threading.enumerate())
    yield
    left = _still_alive(before)
    open_pools = [pool for pool in pools() if _is_in_use(pool)]
    if left or open_pools:  # do not spoil the tests that follow
        told = f"{open_pools=}\n" + "\n".join(map(_stack, left))
        for pool in open_pools:
            pool.destroy(0.1)
        pytest.fail(f"left over by the test: {told}")


def _still_alive(before: set[threading.Thread]) -> list[threading.Thread]:
    deadline = time.monotonic() + GRACE
    if set(threading.enumerate()) - before:
        gc.collect()  # a dropped pool that is part of a cycle ends its threads only then
    for thread in set(threading.enumerate()) - before:
        with contextlib.suppress(RuntimeError):  # enumerated just before it starts
            thread.join(max(0.0, deadline - time.monotonic()))
    return [thread for thread in threading.enumerate() if thread not in before]


def _is_in_use(pool: RecyclePool) -> bool:
    stats = pool.stats()
    return bool(stats.queued or stats.workers)


def _stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    lines = traceback.format_stack(frame) if frame is not None else []
    return f"{thread!r}\n" + "".join(lines)
