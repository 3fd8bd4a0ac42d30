"""Of four workers one leaks, and the others take and drop much: only the leaker is replaced."""

import json
import threading

import pytest
from listening import Events
from staging import WAIT
from weighing import MIB, blocks, do, kept

from recyclepool import Limits, Reason, _relief, current_worker
from recyclepool.events import WorkerRetired

PIECES = 10  # tasks until all of it has leaked
LEAKER = 1  # its slot
LOCAL = threading.local()


@pytest.fixture(autouse=True)
def no_pause_between_trims(monkeypatch):
    """The thread that measures has less to wait for, and so has a test's end."""
    monkeypatch.setattr(_relief, "TRIM_PAUSE", 0.0)


def in_per_worker_list(size):
    kept().extend(blocks(size // MIB))


def in_cache(size):
    cache = current_worker().cache
    cache.put(len(cache), bytearray(size), size=0)  # no budget sees it


def in_thread_local(size):
    LOCAL.held = [*getattr(LOCAL, "held", ()), *blocks(size // MIB)]


def in_arrays(size):
    numpy = pytest.importorskip("numpy")
    kept().append(numpy.ones(size // 8))


def in_bytes(size):
    kept().extend(bytes(1000) for _ in range(size // 1033))


WAYS = {
    "per-worker list": in_per_worker_list,
    "cache": in_cache,
    "thread-local": in_thread_local,
    "arrays": in_arrays,
    "bytes": in_bytes,
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def churn():
    """What comes and goes with a task: a document, and an array of 10 MB."""
    document = json.dumps([{"number": n, "text": "x" * 20} for n in range(2000)])
    assert len(json.loads(document)) == 2000
    try:
        import numpy
    except ImportError:
        return sum(bytearray(10_000_000)[::1000])
    return float(numpy.ones(1_250_000).sum())


def leak_and_churn(new_pool, way, megabytes, limit):
    """Tasks in rounds, one for each worker. The slots that were recycled, and the events."""
    limits = Limits(memory=limit, memory_samples=1, sample_every=0.02, min_age=0)
    pool = new_pool(4, limits=limits, cache="1GiB")
    events = Events(pool)
    together = threading.Barrier(4)

    def work(leaks):
        together.wait(WAIT)
        if current_worker().slot == LEAKER and leaks:
            way(megabytes * MIB // PIECES)
        elif current_worker().slot != LEAKER:
            churn()

    for n in range(PIECES + 1):  # the first leaves nothing behind
        for future in [pool.submit(work, n) for _ in range(4)]:
            future.result(WAIT)
    events.wait_for(WorkerRetired, reason=Reason.MEMORY)
    do(pool, int)
    return {event.slot for event in events.of(WorkerRetired, reason=Reason.MEMORY)}, pool


@ways
def test_only_the_leaker_is_recycled(new_pool, way):
    if way is in_arrays:
        pytest.importorskip("numpy")
    for _ in range(2):
        slots, pool = leak_and_churn(new_pool, way, 20, "10MiB")
        assert slots == {LEAKER}
        assert sum(pool.stats().recycles.values()) == pool.stats().recycles["memory"]
        pool.close()


@pytest.mark.soak
@pytest.mark.timeout(600)
@ways
def test_only_the_leaker_of_100_mb_is_recycled_in_20_runs(new_pool, way):
    if way is in_arrays:
        pytest.importorskip("numpy")
    for _ in range(20):
        slots, pool = leak_and_churn(new_pool, way, 100, "50MiB")
        assert slots == {LEAKER}
        pool.close()
