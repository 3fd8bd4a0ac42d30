import contextvars
import functools
import gc
import itertools
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from recyclepool import WorkerCache, per_worker
from recyclepool._gate import here
from recyclepool._owned import SUPPORTED, Owned, Pass, largest
from recyclepool._roots import roots_of
from recyclepool._worker import Worker

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="free-threaded: nothing can be proven")

MIB = 2**20


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """One that this thread drives: no pool, no thread."""
    worker = Worker(budget=100 * MIB)
    worker.cache = WorkerCache(worker.budget)
    monkeypatch.setattr(here, "worker", worker, raising=False)
    return worker


def read(worker: Worker, *args: Any, **kwargs: Any) -> Owned:
    result = Pass(roots_of(worker, *args, **kwargs)).run()
    assert result is not None
    assert result.stable
    return result


def sizes(result: Owned) -> dict[str, int]:
    return {" + ".join(share.names): share.bytes for share in result.shares}


def test_an_empty_worker_owns_next_to_nothing(worker: Worker) -> None:
    assert read(worker).owned < 1000
    worker.cache = None
    assert roots_of(worker) == []
    assert read(worker).owned == 0
    assert read(worker).complete


def test_an_entry_is_all_of_its_key_and_its_value(worker: Worker) -> None:
    cache = worker.cache
    assert cache is not None
    cache["model"] = [bytes(MIB)]
    cache[("long key", "k" * MIB)] = 1
    result = read(worker)
    assert result.complete
    assert result.held < 200  # str constants of this file
    assert sizes(result)["cache['model']"] == pytest.approx(MIB, rel=0.01)
    assert [share.bytes // MIB for share in largest(result, 2)] == [1, 1]
    names = {str(share) for share in largest(result, 2)}
    assert names == {
        "cache['model'] 1 MiB",
        f"cache[('long key', '{'k' * 30}'...)] 1 MiB",
    }


@pytest.mark.parametrize("ttl", [None, 1000])
def test_a_key_is_the_entrys_though_the_cache_has_it_four_times(
    worker: Worker, ttl: float | None
) -> None:
    cache = worker.cache
    assert cache is not None
    for i in range(10):
        cache.put(f"{i}" * 100_000, None, ttl=ttl, size=1)
    result = read(worker)
    assert (result.complete, result.undecided) == (True, 0)
    assert result.held < 200  # None, up to 3.11
    assert result.owned == pytest.approx(MIB, rel=0.06)
    ten = [share for share in result.shares if share.bytes > 99_000]
    assert [len(share.names) for share in ten] == [1] * 10
    assert all("itself" not in share.names[0] for share in ten)


def test_keys_that_were_replaced_are_the_caches_own(worker: Worker) -> None:
    cache = worker.cache
    assert cache is not None
    for i in (1, 2, 3):
        cache.put("k" * 100_000 + str(i)[:0], i, ttl=1000, size=1)
    result = read(worker)
    assert result.complete
    assert result.held < 100
    assert sizes(result)["cache[...] itself"] > 200_000
    assert result.owned == pytest.approx(300_000, rel=0.05)


def test_the_truth_of_a_cache_in_use() -> None:
    # What lies in Python's lists of free tuples was allocated before anybody traced it.
    taken = [tuple(range(size)) for size in (2, 3) for _ in range(3000)]
    tracemalloc.start(1)
    worker = Worker(budget=100 * MIB)
    cache = worker.cache = WorkerCache(worker.budget)
    for i in range(1000):
        cache.put((i, f"key {i}"), [f"text {i}" * 20, 1000 + i], ttl=1000 if i % 2 else None)
    for i in range(0, 1000, 3):
        cache.pop((i, f"key {i}"))
    cache[(4, "key 4")].append(cache)  # a value that knows its cache
    result = read(worker)
    assert result.complete
    owned = result.owned
    assert result.cyclic == 0
    del result
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        worker.cache = cache = None
        gc.collect()  # the value that knows its cache
        assert owned == pytest.approx(before - tracemalloc.get_traced_memory()[0], rel=0.05)
    finally:
        tracemalloc.stop()
        taken.clear()


def test_many_entries_are_read_in_groups_and_the_heavy_one_is_found(worker: Worker) -> None:
    cache = worker.cache
    assert cache is not None
    for i in range(5000):
        cache[f"key {i}"] = [i]
    cache["key 777"].append(bytes(2 * MIB))
    result = read(worker)
    assert result.complete
    assert len(result.shares) < 300
    names = [str(share) for share in largest(result, 2)]
    assert names[0] == "cache['key 777'] 2 MiB"
    assert names[1].startswith("cache[...] (5000 entries) ")


def test_what_others_hold_is_held(worker: Worker) -> None:
    cache = worker.cache
    assert cache is not None
    mine = bytes(MIB)
    cache["a"] = mine
    cache["b"] = cache["c"] = [bytes(MIB)]
    result = read(worker)
    assert sizes(result)["cache['b'] + cache['c']"] == pytest.approx(MIB, rel=0.01)
    assert result.held == pytest.approx(MIB, rel=0.01)
    assert result.held_by[0].names == ("cache['a']",)


def test_values_that_know_the_worker_do_not_lead_to_the_pool(worker: Worker) -> None:
    cache = worker.cache
    assert cache is not None
    cache["x"] = {"worker": worker, "cache": cache, "data": bytes(MIB)}
    result = read(worker)
    assert result.complete
    assert result.owned == pytest.approx(MIB, rel=0.01)
    assert result.entered < 20


def test_per_worker_values_go_with_their_generators(worker: Worker) -> None:
    @per_worker
    def table() -> list[bytes]:
        return [bytes(MIB)]

    @per_worker
    def connection() -> Iterator[list[bytes]]:
        opened = [bytes(2 * MIB)]
        spare = opened, bytes(MIB)
        yield opened
        opened.clear()
        del spare

    table()
    connection()
    result = read(worker)
    assert result.complete
    assert result.held < 20_000  # their code
    where = "test_per_worker_values_go_with_their_generators.<locals>."
    assert [(s.names, s.bytes // MIB) for s in result.shares[:2]] == [
        ((f"@per_worker {where}connection",), 3),
        ((f"@per_worker {where}table",), 1),
    ]
    worker.teardowns.pop()()


def test_a_factory_without_a_usable_name(worker: Worker) -> None:
    class Factory:
        def __call__(self) -> bytes:
            return bytes(MIB)

        def __repr__(self) -> str:
            return "F" * 500

    per_worker(Factory())()
    result = read(worker)
    assert len(result.shares[0].names[0]) < 100
    assert result.owned == pytest.approx(MIB, rel=0.01)


def test_teardowns_of_nobody_are_not_lost(worker: Worker) -> None:
    worker.teardowns.append(functools.partial(print, bytes(MIB)))
    assert read(worker).owned == pytest.approx(MIB, rel=0.01)


def test_thread_locals_and_context(worker: Worker) -> None:
    local = threading.local()
    variable = contextvars.ContextVar[Any]("variable")
    context = contextvars.Context()
    context.run(variable.set, [bytes(2 * MIB)])
    pairs: list[tuple[object, dict[str, Any]]] = []

    def run() -> None:
        local.session = [bytes(MIB)]
        local.lock = threading.Lock()
        pairs.append((local, vars(local)))
        result.append(read(worker, pairs, context))

    result: list[Owned] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    pairs.clear()
    names = sizes(result[0])
    assert names["threading.local attribute 'session'"] == pytest.approx(MIB, rel=0.01)
    assert names["context"] == pytest.approx(2 * MIB, rel=0.01)
    assert result[0].complete


def test_a_result_does_not_keep_the_cache(worker: Worker) -> None:
    import weakref

    cache = worker.cache
    assert cache is not None
    for i in range(2000):
        cache[i] = [i]
    gone = weakref.ref(cache)
    result = read(worker)
    assert any(share.group for share in result.shares)
    worker.cache = cache = None
    assert gone() is None
    assert largest(result)


def test_sliced_while_the_cache_is_used() -> None:
    """That must not happen, and is no harm: it raises nothing, and is not said to be proven."""
    worker = Worker(budget=100 * MIB)
    cache = worker.cache = WorkerCache(worker.budget)
    for i in range(3000):
        cache[i] = [str(i)]
    work = Pass(roots_of(worker))
    assert work.run(seconds=0) is None
    for i in itertools.count(3000):
        cache[i] = [str(i)]
        if (result := work.run(seconds=0)) is not None:
            break
    assert not result.stable
    assert not result.complete
