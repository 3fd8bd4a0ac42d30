"""A full queue, every way into it, and every end of its pool."""

import asyncio

import pytest
from staging import WAIT, in_thread, until

# Every way in; each gives 7 in the end.
WAYS = {
    "submit": lambda pool: pool.submit(int, "7").result(WAIT),
    "map": lambda pool: next(pool.map(int, ["7"])),
    "map lazily": lambda pool: next(pool.map(int, ["7"], buffersize=1)),
    "map_unordered": lambda pool: next(pool.map_unordered(int, ["7"])),
    "run": lambda pool: asyncio.run(pool.run(int, "7")),
    "options submit": lambda pool: pool.options(timeout=WAIT).submit(int, "7").result(WAIT),
    "options key": lambda pool: pool.options(key="k").submit(int, "7").result(WAIT),
    "options map": lambda pool: next(pool.options(name="n").map(int, ["7"])),
    "options map_unordered": lambda pool: next(pool.options(key="k").map_unordered(int, ["7"])),
    "options run": lambda pool: asyncio.run(pool.options(timeout=WAIT).run(int, "7")),
    "options key run": lambda pool: asyncio.run(pool.options(key="k").run(int, "7")),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
ENDS = {
    "close": lambda pool: pool.close(),
    "close in time": lambda pool: pool.close(0.01),
    "destroy": lambda pool: pool.destroy(WAIT),
    "shutdown": lambda pool: pool.shutdown(),
    "shutdown later": lambda pool: pool.shutdown(wait=False),
    "shutdown cancels": lambda pool: pool.shutdown(cancel_futures=True),
}
ends = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)


def fill(pool, task):
    """Have `task` run by its one worker, and its queue full. The queued futures."""
    pool.submit(task)
    task.wait_started()
    return [pool.submit(int) for _ in range(pool.stats().max_queue)]


def blocked(pool, count=1):
    """Wait until so many submitters wait for a place, and there is none."""
    dispatch = pool._engine.dispatch
    until(
        lambda: len(dispatch.waiting) == count and len(dispatch.queue) == dispatch.most,
        f"{count} wait for a place",
    )


def has_all_its_places(pool, hold):
    """So many are accepted, and no more."""
    pool.submit(hold)
    hold.wait_started()
    most, queued = pool.stats().max_queue, []
    for _ in range(most):
        call = in_thread(pool.submit, int)
        queued.append(call.result())
    assert pool.stats().queued == most
    late = in_thread(pool.submit, int)
    blocked(pool)
    assert not late.is_over()
    hold.release()
    assert [future.result(WAIT) for future in [*queued, late.result()]] == [0] * (most + 1)
