"""Many submitters of all kinds, workers and cancels at a bounded queue, for a short while.

1. Threads that block, threads that are refused, coroutines and other pools' tasks submit; some of
   the tasks are cancelled, some of the awaits too; the threads are switched as often as can be.
2. No more tasks are accepted than may be queued, but for those that workers have taken.
3. At the end everything is settled, and counted once; nobody waits beside a free place.
"""

import asyncio
import random
import sys
import threading

import pytest
from bounding import Full
from forcing import PATIENCE, Elsewhere, until, with_idle

from recyclepool import Limits, QueueFullError


@pytest.fixture(autouse=True)
def switching():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("most", [1, 3])
def test_so_many_places_and_no_more(most, new_pool):
    """Nobody takes a task: of those who come together as many are accepted as there are places."""
    full = Full(new_pool(1, max_queue=most, on_full="raise"), 0)
    threads, rounds, accepted, refused = 4, 60, [], []
    together = threading.Barrier(threads + 1)

    def come():
        for _ in range(rounds):
            together.wait(PATIENCE)
            for _ in range(2):
                try:
                    accepted.append(full.pool.submit(int))
                except QueueFullError:
                    refused.append(1)
            together.wait(PATIENCE)
            together.wait(PATIENCE)

    calls = [Elsewhere(come) for _ in range(threads)]
    for n in range(1, rounds + 1):
        together.wait(PATIENCE)
        together.wait(PATIENCE)
        assert len(full.dispatch.queue) == most
        assert len(accepted) == most * n
        assert all(future.cancel() for future in accepted[-most:])
        assert not full.dispatch.queue
        together.wait(PATIENCE)
    for call in calls:
        call.result()
    stats = full.pool.stats()
    assert stats.rejected_full == len(refused) == rounds * (2 * threads - most)
    assert stats.cancelled == rounds * most
    full.end()


@pytest.mark.parametrize("most", [1, 4])
def test_everything_is_settled(most, new_pool):
    """`taken` is written before a task is out of its worker's hands: it never lags by more."""
    workers, each = 2, 150
    limits = Limits(tasks=40)
    pool, other = with_idle(new_pool(workers, max_queue=most, limits=limits), 1), new_pool(2)
    rng = random.Random(most)
    futures, begun, beyond, over = [], [], [], threading.Event()
    awaited = []

    def task():
        begun.append(1)

    def watch():
        while not over.is_set():
            accepted = len(futures)
            settled = sum(future.cancelled() for future in futures[:accepted]) + len(begun)
            # Not yet counted: what each worker has just taken.
            if accepted - settled > most + workers:
                beyond.append((accepted, settled))

    def submit_and_cancel():
        for n in range(each):
            future = pool.submit(task)
            futures.append(future)
            if n % 3 == 0:
                future.cancel()

    def submit_many():
        for future in pool.map(lambda _: begun.append(1), range(each)):
            assert future is None

    async def await_many():
        async def run_one(n):
            run = asyncio.ensure_future(pool.run(int))
            if n % 4 == 0:
                await asyncio.sleep(rng.random() / 1000)
                run.cancel()
            try:
                awaited.append(await run)
            except asyncio.CancelledError:
                awaited.append("cancelled")

        await asyncio.gather(*(run_one(n) for n in range(each)))

    watching = Elsewhere(watch)
    calls = [Elsewhere(submit_and_cancel) for _ in range(3)]
    calls += [Elsewhere(lambda: asyncio.run(await_many()))]
    inner = [other.submit(submit_and_cancel) for _ in range(2)]
    for call in calls:
        call.result()
    for future in inner:
        assert future.result(PATIENCE) is None
    over.set()
    watching.result()
    assert not beyond
    Elsewhere(submit_many).result()
    assert Elsewhere(pool.wait_idle, PATIENCE).result()
    dispatch = pool._engine.dispatch
    assert not dispatch.waiting
    assert not dispatch.queue
    assert len(futures) == 5 * each
    assert all(future.done() for future in futures)
    cancelled = sum(future.cancelled() for future in futures)
    assert len(begun) == 5 * each - cancelled + each
    assert len(awaited) == each
    until(lambda: pool.stats().submitted == _settled(pool))
    stats = pool.stats()
    lost = awaited.count("cancelled")  # before they were accepted, or queued, or as they ran
    assert 0 <= stats.cancelled - cancelled <= lost
    assert len(begun) + each - lost <= stats.completed - 1 <= len(begun) + each
    assert (stats.rejected, stats.queued) == (0, 0)
    Elsewhere(pool.close).result()


def _settled(pool):
    stats = pool.stats()
    return stats.completed + stats.failed + stats.cancelled


def test_it_closes_again_and_again(new_pool):
    """Submitters who are told so come again. What was accepted is run, by whichever epoch."""
    pool, over, refused = new_pool(2, max_queue=2), threading.Event(), []
    futures = []

    def submit():
        while not over.is_set():
            try:
                futures.append(pool.submit(int))
            except RuntimeError:
                refused.append(1)

    calls = [Elsewhere(submit) for _ in range(3)]
    for n in range(12):
        count = len(futures)
        until(lambda count=count: len(futures) > count + 3)
        Elsewhere(pool.close).result() if n % 2 else Elsewhere(pool.destroy, PATIENCE).result()
    over.set()
    for call in calls:
        call.result()
    Elsewhere(pool.close).result()
    assert all(future.done() for future in futures)
    until(lambda: pool.stats().submitted == _settled(pool) + pool.stats().aborted)
    stats = pool.stats()
    assert stats.submitted == len(futures)
    assert stats.rejected == len(refused)
