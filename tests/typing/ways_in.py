"""What a type checker is to make of the ways in. Checked, never run: test_typing.py.

Wrong uses carry an ignore: a checker that finds nothing wrong there complains of the ignore.
"""

import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, assert_type

import recyclepool
from recyclepool import RecyclePool, per_worker
from recyclepool.snapshots import WorkerStack

T = TypeVar("T")


def price(article: str, pieces: int, *, discount: float = 0.0) -> float:
    return len(article) * pieces * (1.0 - discount)


def nothing() -> None:
    return None


def first(values: Sequence[T]) -> T:
    return values[0]


async def coroutine(article: str) -> float:
    return price(article, 1)


class Shop:
    def price(self, article: str) -> float:
        return price(article, 1)

    @classmethod
    def open(cls, name: str) -> "Shop":
        return cls()

    def __call__(self, pieces: int) -> str:
        return str(pieces)


def submit_takes_whatever_is_called(pool: RecyclePool) -> None:
    shop = Shop()
    assert_type(pool.submit(shop.price, "ink").result(), float)
    assert_type(pool.submit(Shop.open, "name").result(), Shop)
    assert_type(pool.submit(shop, 3).result(), str)
    assert_type(pool.submit(Shop).result(), Shop)
    assert_type(pool.submit(nothing).result(), None)
    assert_type(pool.submit(lambda: 3).result(), int)
    pool.submit(shop.price, 3)  # type: ignore[arg-type]
    pool.submit(shop, "3")  # type: ignore[arg-type]
    pool.submit(Shop.open)  # type: ignore[call-arg]
    pool.submit(nothing, 3)  # type: ignore[call-arg]
    pool.submit()  # type: ignore[call-arg]
    pool.submit(fn=nothing)  # type: ignore[call-arg]


def options_say_what_they_take(pool: RecyclePool) -> None:
    pool.options()
    pool.options(timeout="30s", key=("user", 7), name="resize", context="worker")
    pool.options(timeout=30, key=None, name=None, context=None)
    pool.options(timeout=0.5, context="submitter")
    pool.options("30s")  # type: ignore[call-arg]
    pool.options(time_out=3)  # type: ignore[call-arg]
    pool.options(name=3)  # type: ignore[arg-type]
    pool.options(context="task")  # type: ignore[arg-type]
    pool.options(timeout=[3])  # type: ignore[arg-type]
    pool.options(key=["a list"])  # type: ignore[arg-type]


def options_keep_the_result_type(pool: RecyclePool) -> None:
    view = pool.options(timeout="30s", key="ink", name="price", context="worker")
    future: Future[float] = view.submit(price, "ink", 3)
    assert_type(future.result(), float)
    assert_type(view.submit(price, "ink", 3, discount=0.1).result(), float)
    assert_type(view.submit(nothing).result(), None)
    assert_type(pool.options(key=7).submit(Shop).result(), Shop)
    for each in concurrent.futures.as_completed([future, pool.submit(price, "ink", 3)]):
        assert_type(each.result(), float)


def options_check_arguments(pool: RecyclePool) -> None:
    view = pool.options(timeout="30s")
    view.submit(price, "ink", "3")  # type: ignore[arg-type]
    view.submit(price, "ink")  # type: ignore[call-arg]
    view.submit(price, "ink", 3, rebate=0.1)  # type: ignore[call-arg]
    view.submit(price("ink", 3))  # type: ignore[arg-type]
    view.submit(price, "ink", 3, timeout=3)  # type: ignore[call-arg]
    view.close()  # type: ignore[attr-defined]


def many(pool: RecyclePool) -> None:
    assert_type(list(pool.map(price, ["ink"], [3])), list[float])
    assert_type(list(pool.map(price, ["ink"], [3], timeout=5, chunksize=2)), list[float])
    assert_type(list(pool.map_unordered(price, ["ink"], [3], buffersize=8)), list[float])
    results: Iterator[float] = pool.map(price, ["ink"], [3], buffersize=8)
    assert_type(next(results), float)
    view = pool.options(key="ink")
    assert_type(list(view.map(price, ["ink"], [3], timeout=5.0, buffersize=2)), list[float])
    assert_type(list(view.map_unordered(price, ["ink"], [3])), list[float])
    pool.map(price, ["ink"], timeout="5s")  # type: ignore[arg-type]
    pool.map(price, 3)  # type: ignore[arg-type]
    pool.map_unordered(price, ["ink"], buffersize="8")  # type: ignore[arg-type]
    pool.map_unordered(price, ["ink"], chunksize=8)  # type: ignore[call-arg]
    view.map(price, ["ink"], buffersize=1.5)  # type: ignore[arg-type]


async def run_keeps_the_result_type(pool: RecyclePool) -> None:
    assert_type(await pool.run(price, "ink", 3), float)
    assert_type(await pool.run(price, "ink", pieces=3, discount=0.1), float)
    assert_type(await pool.run(Shop().price, "ink"), float)
    assert_type(await pool.run(lambda: 3), int)
    assert_type(await pool.options(timeout="30s").run(price, "ink", 3), float)
    await pool.run(nothing)


async def run_checks_arguments(pool: RecyclePool) -> None:
    await pool.run(price, "ink", "3")  # type: ignore[arg-type]
    await pool.run(price, "ink")  # type: ignore[call-arg]
    await pool.run(price, "ink", 3, rebate=0.1)  # type: ignore[call-arg]
    await pool.run(price("ink", 3))  # type: ignore[arg-type]
    view = pool.options(key="ink")
    await view.run(price, "ink", "3")  # type: ignore[arg-type]
    await view.run(price)  # type: ignore[call-arg]


async def with_in_a_coroutine() -> None:
    async with RecyclePool(4) as pool:
        assert_type(pool, RecyclePool)
        assert_type(await pool.run(price, "ink", 3), float)


def back_pressure() -> None:
    RecyclePool(4, max_queue=100, on_full="block")
    RecyclePool(4, max_queue=None, on_full="raise")
    RecyclePool(4, on_full="wait")  # type: ignore[arg-type]
    RecyclePool(4, max_queue="100")  # type: ignore[arg-type]
    RecyclePool(4, max_queue=1.5)  # type: ignore[arg-type]


def looking(pool: RecyclePool, future: Future[Any]) -> None:
    assert_type(pool.stacks(), tuple[WorkerStack, ...])
    assert_type(pool.stacks()[0].task_name, str | None)
    assert_type(recyclepool.dump(), str)
    assert_type(pool.stats().max_queue, int | None)
    assert_type(pool.cancel(future), bool)
    recyclepool.dump(pool)  # type: ignore[call-arg]
    pool.cancel(3)  # type: ignore[arg-type]


def in_generic_code(pool: RecyclePool, fn: Callable[[], T]) -> T:
    return pool.options(name="generic").submit(fn).result()


async def awaited_in_generic_code(pool: RecyclePool, fn: Callable[[], T]) -> T:
    return await pool.options(name="generic").run(fn)


async def stream(pool: RecyclePool) -> AsyncIterator[float]:
    for article in ("ink", "pen"):
        yield await pool.run(price, article, 1)


@per_worker
def shop() -> Shop:
    return Shop()


@per_worker
def shop_with_an_end() -> Iterator[Shop]:
    yield Shop()


def per_worker_keeps_its_type(pool: RecyclePool) -> None:
    assert_type(shop().price("ink"), float)
    assert_type(shop_with_an_end().price("ink"), float)
    assert_type(pool.submit(shop).result(), Shop)
    assert_type(pool.options(key="ink").submit(shop_with_an_end).result(), Shop)
    pool.submit(shop, "ink")  # type: ignore[call-arg]
    shop_with_an_end().price(3)  # type: ignore[arg-type]
