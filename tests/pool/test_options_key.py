"""pool.options(key=): tasks of the same key prefer the same warm slot, and starve nobody."""

import asyncio
import os
import random
import threading
import warnings
from collections import Counter, deque
from concurrent.futures import wait

import pytest
from staging import WAIT, in_thread, until

from recyclepool import Limits, PoolClosedError, Reason, current_worker

KEYS = 240


def slot():
    return current_worker().slot


def all_asleep(pool, count):
    """Every worker is idle, so each key finds its best."""
    dispatch = pool._engine.dispatch
    until(lambda: len(dispatch.idle) == count and not dispatch.queue)


def warm(pool, count):
    """Have it start so many workers."""
    together = threading.Barrier(count)
    for future in [pool.submit(together.wait, WAIT) for _ in range(count)]:
        future.result(WAIT)
    all_asleep(pool, count)
    return pool


def slot_of(pool, key, count):
    """Where a task of this key goes when all are idle."""
    all_asleep(pool, count)
    return pool.options(key=key).submit(slot).result(WAIT)


def slots_of(pool, keys, count):
    return {key: slot_of(pool, key, count) for key in keys}


def block(pool, hold, slots):
    """Have the workers of these slots hold."""
    keys = {}
    for key in range(1000):
        keys.setdefault(slot_of(pool, key, pool.stats().max_workers), key)
        if keys.keys() >= set(slots):
            break
    held = [pool.options(key=keys[each]).submit(lambda: (slot(), hold())[0]) for each in slots]
    hold.wait_started(len(slots))
    return held


# ---- the same slot ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["user-7", 7, 0, -1, "", (), ("user", 7), frozenset({1}), 2.5, b"k"]
)
def test_the_same_key_goes_to_the_same_slot(new_pool, key):
    """Also 0 and the empty ones: only None is no key."""
    pool = warm(new_pool(4), 4)
    assert len({slot_of(pool, key, 4) for _ in range(25)}) == 1


def test_equal_keys_are_one_key(new_pool):
    pool = warm(new_pool(4), 4)
    for key, equal in [(1, 1.0), (1, True), ("ab", "".join(["a", "b"])), ((1, 2), (1.0, 2.0))]:
        assert slot_of(pool, key, 4) == slot_of(pool, equal, 4)


def test_a_key_is_hashed_once_and_not_kept(new_pool):
    """By options(), in the caller's thread: its code never runs in the midst of the pool's."""

    class Key:
        hashed = 0

        def __hash__(self):
            Key.hashed += 1
            return 5

        def __eq__(self, other):
            raise AssertionError("compared")

    pool = warm(new_pool(2), 2)
    view = pool.options(key=Key())
    for _ in range(10):
        view.submit(slot).result(WAIT)
    assert Key.hashed == 1


def test_the_verbs_of_one_view_go_to_the_same_slot(new_pool):
    pool = warm(new_pool(4), 4)
    for key in range(8):
        expected = slot_of(pool, key, 4)
        view = pool.options(key=key)
        ways = [
            lambda view: view.submit(slot).result(WAIT),
            lambda view: next(view.map(lambda _: slot(), [0])),
            lambda view: next(view.map_unordered(lambda _: slot(), [0])),
            lambda view: asyncio.run(view.run(slot)),
        ]
        for way in ways:
            all_asleep(pool, 4)
            assert way(view) == expected


def test_many_keys_are_balanced_over_the_slots(new_pool):
    """Whatever they look like: numbers in a row, numbers with a step, words."""
    pool = warm(new_pool(4), 4)
    for kind in (int, lambda n: n * 64, lambda n: n << 32, "user-{}".format):
        counts = Counter(slots_of(pool, map(kind, range(KEYS)), 4).values())
        assert sorted(counts) == [0, 1, 2, 3]
        assert min(counts.values()) > KEYS / 4 / 2, counts
        assert max(counts.values()) < KEYS / 4 * 2, counts


def test_it_survives_a_recycle_of_the_slot(new_pool):
    pool = warm(new_pool(3), 3)
    before = slots_of(pool, range(30), 3)
    for each in range(3):
        pool.recycle(each).result(WAIT)
    assert slots_of(pool, range(30), 3) == before
    pool.soft_restart().result(WAIT)
    assert slots_of(pool, range(30), 3) == before
    assert {worker.generation for worker in pool.stats().workers} == {3}


def test_it_survives_the_limit_of_tasks(new_pool):
    """A worker that goes after each second task leaves its keys to its successor."""
    pool = warm(new_pool(2, limits=Limits(tasks=2)), 2)
    where = {key: Counter() for key in range(6)}
    for _ in range(20):
        for key, counts in where.items():
            until(lambda: len([w for w in pool.stats().workers if w.state == "serving"]) == 2)
            counts[slot_of(pool, key, 2)] += 1
    for key, counts in where.items():
        assert counts.most_common(1)[0][1] >= 15, (key, counts)  # one that goes is no choice


def test_it_survives_close_and_reopening(new_pool):
    pool = warm(new_pool(3), 3)
    before = slots_of(pool, range(30), 3)
    pool.close()
    assert slots_of(warm(pool, 3), range(30), 3) == before


def test_a_resize_moves_only_the_keys_that_it_must(new_pool):
    """Those of the slot that goes; and when it comes again they all move back."""
    pool = warm(new_pool(4), 4)
    before = slots_of(pool, range(60), 4)
    pool.resize(3)
    until(lambda: len(pool.stats().workers) == 3)
    after = slots_of(pool, range(60), 3)
    assert {key for key in before if before[key] != after[key]} == {
        key for key in before if before[key] == 3
    }
    assert set(after.values()) == {0, 1, 2}
    pool.resize(4)
    assert slots_of(warm(pool, 4), range(60), 4) == before


# ---- a preference, and no more ------------------------------------------------------------------


def test_another_worker_when_the_preferred_one_is_busy(new_pool, new_hold):
    pool, hold = warm(new_pool(2), 2), new_hold()
    best = slot_of(pool, "key", 2)
    (held,) = block(pool, hold, [best])
    assert [pool.options(key="key").submit(slot).result(WAIT) for _ in range(5)] == [1 - best] * 5
    hold.release()
    assert held.result(WAIT) == best
    assert slot_of(pool, "key", 2) == best, "and back, as soon as it can"


def test_the_second_best_is_always_the_same_too(new_pool, new_hold):
    pool, hold = warm(new_pool(4), 4), new_hold()
    best = slot_of(pool, "key", 4)
    block(pool, hold, [best])
    seen = {slot_of(pool, "key", 3) for _ in range(20)}
    assert len(seen) == 1
    hold.release()


def test_a_task_never_waits_beside_an_idle_worker(new_pool, new_hold):
    """As many tasks of one key as there are workers: all run at once."""
    pool = warm(new_pool(4), 4)
    together = threading.Barrier(4)
    view = pool.options(key="key")
    for _ in range(10):
        futures = [view.submit(lambda: (together.wait(WAIT), slot())[1]) for _ in range(4)]
        assert sorted(future.result(WAIT) for future in futures) == [0, 1, 2, 3]


def test_with_a_full_house_tasks_wait_in_order(new_pool, new_hold):
    """A key overtakes nobody, and nobody starves behind keys."""
    pool, hold, order = new_pool(1), new_hold(), []
    pool.submit(hold)
    hold.wait_started()
    view = pool.options(key="key")
    for n in range(50):
        (pool if n % 7 == 3 else view).submit(order.append, n)
    hold.release()
    pool.close()
    assert order == list(range(50))


def test_a_stream_of_one_key_starves_nobody(new_pool):
    """Both workers are kept busy with tasks of one key; a task without one is run all the same."""
    pool = warm(new_pool(2), 2)
    view, over = pool.options(key="key"), threading.Event()

    def again(_=None):
        if not over.is_set():
            view.submit(int).add_done_callback(again)

    try:
        for _ in range(6):
            again()
        for n in range(20):
            assert pool.submit(int, str(n)).result(WAIT) == n
            assert pool.options(key="other").submit(int, str(n)).result(WAIT) == n
    finally:
        over.set()
    assert pool.wait_idle(WAIT)


@pytest.mark.parametrize("min_workers", [0, 1])
def test_a_pool_that_starts_empty_grows_to_all_its_slots(new_pool, min_workers):
    """Though one worker could do it all: only keys that have their slot find it warm."""
    pool = new_pool(4, min_workers=min_workers)
    keys = iter(range(10**6))

    def one_more():
        pool.options(key=next(keys)).submit(slot).result(WAIT)
        return len([w for w in pool.stats().workers if w.state == "serving"]) == 4

    until(one_more)
    where = slots_of(pool, range(60), 4)
    assert set(where.values()) == {0, 1, 2, 3}
    assert slots_of(pool, range(60), 4) == where


def test_a_pool_without_keys_does_not_grow_for_nothing(new_pool):
    pool = new_pool(4)
    for _ in range(20):
        assert pool.submit(slot).result(WAIT) == 0
        all_asleep(pool, 1)
    assert len(pool.stats().workers) == 1


def test_one_key_does_not_start_workers_for_others(new_pool):
    """At most those up to its slot: what is not wanted is not started."""
    pool = new_pool(4)
    view = pool.options(key="key")
    for _ in range(30):
        view.submit(int).result(WAIT)
        pool.wait_idle(WAIT)
    until(lambda: all(w.state == "serving" for w in pool.stats().workers))
    grown = len(pool.stats().workers)
    best = slot_of(warm(pool, 4), "key", 4)
    assert grown == best + 1


def test_its_own_task_may_use_a_key(new_pool):
    """From inside: the worker that asks is busy, so another is found, or the queue."""
    pool = warm(new_pool(2), 2)

    def outer(key):
        mine = slot()
        inner = pool.options(key=key).submit(slot)
        return mine, inner.result(WAIT)

    for key in range(10):
        all_asleep(pool, 2)
        mine, other = pool.options(key=key).submit(outer, key).result(WAIT)
        assert {mine, other} == {0, 1}


# ---- settled exactly once -----------------------------------------------------------------------

VERBS = {
    "close": lambda pool: pool.close(),
    "close in no time": lambda pool: pool.close(0),
    "destroy": lambda pool: pool.destroy(WAIT),
    "retire": lambda pool: retire_all(pool),
    "soft_restart": lambda pool: pool.soft_restart().result(WAIT),
    "resize": lambda pool: (pool.resize(1), pool.resize(3)),
}


def retire_all(pool):
    """The very workers that tasks are handed to, without waiting for successors."""
    for worker in pool._engine.roster.workers.copy():
        pool._engine.retire(worker, Reason.MANUAL)


@pytest.mark.parametrize("verb", VERBS)
def test_handed_tasks_are_settled_once_whatever_comes(new_pool, verb):
    """Tasks with keys are submitted all the time while the pool is ended, or its workers are."""
    pool = warm(new_pool(3), 3)
    ran, told, futures = deque(), deque(), [deque() for _ in range(2)]
    over = threading.Event()

    def submit(mine, seed):
        choice = random.Random(seed)
        while not over.is_set():
            number = (seed, len(mine))
            try:
                future = pool.options(key=choice.randrange(6)).submit(ran.append, number)
            except PoolClosedError:
                continue
            future.add_done_callback(lambda _, n=number: told.append(n))
            mine.append((number, future))
            if len(mine) % 8 == 0:
                wait([future], WAIT)  # the workers fall idle between

    submitters = [in_thread(submit, mine, seed) for seed, mine in enumerate(futures)]
    try:
        for _ in range(30):
            had = len(ran)
            until(lambda had=had: len(ran) > had)
            VERBS[verb](pool)
    finally:
        over.set()
        for submitter in submitters:
            submitter.result()
    pool.close()
    numbers = [number for mine in futures for number, _ in mine]
    assert all(future.done() for mine in futures for _, future in mine)
    until(lambda: len(told) >= len(numbers))
    assert sorted(told) == sorted(numbers), "told of once each"
    assert len(ran) == len(set(ran)), "none ran twice"
    good = [n for mine in futures for n, f in mine if not f.cancelled() and not f.exception(0)]
    assert set(good) <= set(ran)
    assert pool._engine.dispatch.queue == deque()
    stats = pool.stats()
    settled = stats.completed + stats.cancelled + stats.aborted + stats.failed
    assert settled == stats.submitted >= len(numbers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_parents_hash_seed_is_the_childs(new_pool):
    """Keys of a forked child prefer the slots that they preferred in the parent."""
    pool = warm(new_pool(3), 3)
    before = slots_of(pool, ["a", "b", "c", "d"], 3)
    answer, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            same = slots_of(warm(pool, 3), ["a", "b", "c", "d"], 3) == before
            os.write(tell, b"same" if same else b"other")
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(answer, "rb") as pipe:
        assert pipe.read() == b"same"
    os.waitpid(child, 0)
