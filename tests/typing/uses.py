"""What a type checker is to make of uses of the package. Checked, never run: test_typing.py.

Wrong uses carry an ignore: a checker that finds nothing wrong there complains of the ignore.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import assert_type

from recyclepool import (
    CloseReport,
    Limits,
    PoolStats,
    RecyclePool,
    ThreadPoolExecutor,
    WorkerCache,
    backends,
    current_worker,
    per_worker,
    pools,
)


def price(article: str, pieces: int, *, discount: float = 0.0) -> float:
    return len(article) * pieces * (1.0 - discount)


def constructors() -> None:
    RecyclePool()
    RecyclePool(4, "prefix", print, ("argument",))
    RecyclePool(
        max_workers=4,
        name="images",
        backend="thread",
        limits=Limits(tasks=10_000),
        min_workers=1,
        cache="64MiB",
        context="submitter",
        finalizer=print,
    )
    RecyclePool(backend=backends.Thread(interrupt=False), cache=2**20, context="worker")
    RecyclePool(backend=backends.Thread)  # type: ignore[arg-type]
    RecyclePool(limits={"tasks": 3})  # type: ignore[arg-type]
    RecyclePool(context="x")  # type: ignore[arg-type]
    RecyclePool("4")  # type: ignore[arg-type]
    RecyclePool(initializer=3)  # type: ignore[arg-type]
    RecyclePool(cache=1.5)  # type: ignore[arg-type]
    RecyclePool(max_worker=3)  # type: ignore[call-arg]
    Limits(tasks="3")  # type: ignore[arg-type]


def submit_keeps_the_result_type(pool: RecyclePool) -> None:
    future: Future[float] = pool.submit(price, "ink", 3)
    assert_type(future.result(), float)
    assert_type(pool.submit(price, "ink", 3, discount=0.1).result(), float)
    assert_type(pool.submit(price, "ink", 3).result(timeout=5), float)
    assert_type(pool.submit(price, "ink", 3).exception(), BaseException | None)
    assert_type(pool.submit(int, "3").result(), int)


def submit_checks_arguments(pool: RecyclePool) -> None:
    pool.submit(price, "ink", "3")  # type: ignore[arg-type]
    pool.submit(price, "ink")  # type: ignore[call-arg]
    pool.submit(price, "ink", 3, rebate=0.1)  # type: ignore[call-arg]
    pool.submit(price("ink", 3))  # type: ignore[arg-type]


def futures_are_the_standards(pool: RecyclePool) -> None:
    def told(future: Future[float]) -> None:
        assert_type(future.result(), float)

    future = pool.submit(price, "ink", 3)
    future.add_done_callback(told)
    standard: Future[float] = future
    done, _ = concurrent.futures.wait([future, standard])
    assert_type(done, set[Future[float]])
    for each in concurrent.futures.as_completed([future]):
        assert_type(each.result(), float)


def it_is_an_executor() -> None:
    executor: concurrent.futures.Executor = RecyclePool()
    threads: concurrent.futures.ThreadPoolExecutor = ThreadPoolExecutor(4)
    with RecyclePool(4) as pool:
        assert_type(pool, RecyclePool)
        assert_type(list(pool.map(price, ["ink"], [3])), list[float])
    executor.shutdown(wait=False, cancel_futures=True)
    threads.shutdown()


async def awaited(pool: RecyclePool) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(pool)
    assert_type(await loop.run_in_executor(pool, price, "ink", 3), float)
    assert_type(await asyncio.wrap_future(pool.submit(price, "ink", 3)), float)


def life(pool: RecyclePool) -> None:
    started: Future[int] = pool.start()
    assert_type(started.result(), int)
    assert_type(pool.start().result(), int)
    assert_type(pool.close(), CloseReport)
    assert_type(pool.close(5), CloseReport)
    assert_type(pool.destroy(grace=0.5), CloseReport)
    assert_type(pool.stats(), PoolStats)
    assert_type(pools(), tuple[RecyclePool, ...])
    pool.close(timeout="5")  # type: ignore[arg-type]
    pool.destroy(None)  # type: ignore[arg-type]


class Connection:
    def query(self, text: str) -> list[str]:
        return [text]


@per_worker
def connection() -> Connection:
    return Connection()


@per_worker
def closing() -> Generator[Connection, None, None]:
    yield Connection()


@per_worker  # type: ignore[arg-type]
def with_arguments(name: str) -> Connection:
    return Connection()


per_worker(3)  # type: ignore[call-overload]


def per_worker_keeps_its_type(pool: RecyclePool) -> None:
    assert_type(connection(), Connection)
    assert_type(connection().query("all"), list[str])
    assert_type(closing(), Connection)
    assert_type(pool.submit(connection).result(), Connection)
    factory: Callable[[], Connection] = connection
    factory().query("all")
    connection("name")  # type: ignore[call-arg]


def in_a_task() -> None:
    me = current_worker()
    assert_type(me.slot, int)
    assert_type(me.generation, int)
    assert_type(me.cache, WorkerCache)
    assert_type(me.stopping.wait(0.5), bool)
    other = current_worker(None)
    if other is not None:
        assert_type(other.slot, int)
    print(other.slot)  # type: ignore[union-attr]
    me.slot = 3  # type: ignore[misc]


def futures_are_keys_for_as_completed(pool: RecyclePool) -> None:
    prices = {pool.submit(price, name, 1): name for name in ("ink", "pen")}
    for future in concurrent.futures.as_completed(prices):
        assert_type(prices[future], str)
