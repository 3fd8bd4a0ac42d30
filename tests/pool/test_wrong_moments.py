"""How wrong calls are found out, and what a pool says at the wrong moment."""

import asyncio
import functools
import inspect
from concurrent.futures import Future
from dataclasses import fields

import pytest
from refusing import Service, f, refused, with_argument
from staging import WAIT

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    PoolClosedError,
    QueueFullError,
    RecyclePool,
    per_worker,
)
from recyclepool._misfit import _OF_LIMITS
from recyclepool._options import Options

# -- at the wrong moment --------------------------------------------------------------------------

GONE = (
    "cannot schedule new futures after shutdown: pool 'images' was shut down for good. "
    "close() instead leaves a pool that can be used again"
)


@pytest.mark.parametrize(
    "call",
    [
        "pool.submit(f)",
        "pool.options(timeout=5).submit(f)",
        "pool.map(f, [1])",
        "pool.map_unordered(f, [1])",
        "asyncio.run(pool.run(f))",
        "pool.resize(3)",
        "pool.start().result(WAIT)",
        "pool.recycle(0).result(WAIT)",
        "pool.soft_restart().result(WAIT)",
    ],
)
def test_a_pool_that_was_shut_down(new_pool, call):
    pool = new_pool(2, name="images")
    pool.shutdown()
    refused(call, PoolClosedError, GONE, pool=pool)


@pytest.mark.parametrize(
    "call",
    [
        "pool.submit(f)",
        "pool.options(timeout=5).submit(f)",
        "pool.map(f, [1])",
        "pool.map_unordered(f, [1])",
        "asyncio.run(pool.run(f))",
        "pool.resize(3)",
        "pool.start().result(WAIT)",
        "pool.recycle(0).result(WAIT)",
        "pool.soft_restart().result(WAIT)",
    ],
)
def test_a_pool_that_is_closing(new_pool, new_hold, call):
    pool, hold = new_pool(2, name="images"), new_hold()
    running = pool.submit(hold, "done")
    hold.wait_started()
    pool._engine.end(pool._engine.dispatch)
    said = "pool 'images' is closing: submit again when close() or destroy() has returned"
    refused(call, PoolClosedError, said, pool=pool)
    hold.release()
    assert running.result(WAIT) == "done"


def test_a_pool_whose_queue_is_full(new_pool, new_hold):
    pool, hold = new_pool(1, name="images", max_queue=2, on_full="raise"), new_hold()
    pool.submit(hold)
    hold.wait_started()
    queued = [pool.submit(f), pool.submit(f)]
    said = "the queue of pool 'images' is full: 2 tasks wait, as many as may (max_queue=2)"
    for call in ("pool.submit(f)", "pool.map(f, [1])", "asyncio.run(pool.run(f))"):
        refused(call, QueueFullError, said, pool=pool)
    hold.release()
    assert [task.result(WAIT) for task in queued] == [0, 0]


def test_a_pool_whose_workers_cannot_start(new_pool, caplog):
    caplog.set_level(51)
    pool = new_pool(1, name="images", initializer=with_argument)
    pool.submit(f).exception(WAIT)
    refused(
        "pool.submit(f)",
        BrokenRecyclePool,
        "pool 'images' is broken: its workers cannot be started (TypeError(\"with_argument() "
        "missing 1 required positional argument: 'path'\")). "
        "close() or destroy() it, and it may be tried again",
        pool=pool,
    )


# -- what stays the standard's --------------------------------------------------------------------


@pytest.mark.parametrize("call", ["pool.submit()", "pool.submit(fn=f)"])
def test_submit_without_a_function(new_pool, call):
    said = "RecyclePool.submit() missing 1 required positional argument: 'fn'"
    refused(call, TypeError, said, pool=new_pool(1))


@pytest.mark.parametrize("verb", ["pool.submit", "pool.options(name='a').submit"])
def test_what_is_submitted_is_called_by_the_worker(new_pool, verb):
    refused(
        f"{verb}(f()).result(WAIT)", TypeError, "'int' object is not callable", pool=new_pool(1)
    )


def test_a_future_of_somebody_else(new_pool):
    future = Future()
    said = (
        f"cancel() takes a future that this pool has made, not {future!r}: "
        f"write cancel(future), with what submit() has returned"
    )
    refused("pool.cancel(future)", TypeError, said, pool=new_pool(1), future=future)


# -- how it is found out --------------------------------------------------------------------------


def with_parameters(cls):
    """Its public methods that have any, but those whose keywords are the task's."""
    methods = [m for name, m in vars(cls).items() if name[0] != "_" and inspect.isfunction(m)]
    signatures = {m: inspect.signature(m).parameters for m in [*methods, cls.__init__]}
    return [m for m, known in signatures.items() if len(known) > 1 and "kwargs" not in known]


@pytest.mark.parametrize(
    "method",
    [*with_parameters(RecyclePool), *with_parameters(Options)[:-1], Limits.__init__, per_worker],
    ids=lambda method: method.__qualname__,
)
def test_each_method_with_parameters_knows_them(method):
    with pytest.raises(TypeError, match=r"\(\) has no parameter 'zzz': known are \w+"):
        method(*[None][: method is not per_worker], zzz=1)


def test_type_errors_from_within_are_left_alone(new_pool):
    class Broken:
        def __iter__(self):
            raise TypeError("my own")

    class Unsized:
        def __index__(self):
            raise TypeError("my own")

    pool, broken = new_pool(1), Broken()
    refused("pool.map(f, broken)", TypeError, "my own", pool=pool, broken=broken)
    refused("pool.recycle(slot)", TypeError, "my own", pool=pool, slot=Unsized())


def test_sequences_of_the_old_kind_are_iterables(new_pool):
    class Old:
        def __getitem__(self, index):
            return "abc"[index]

    assert list(new_pool(1).map(str.upper, Old())) == ["A", "B", "C"]


def test_what_answers_to_every_attribute_is_no_coroutine_function(new_pool):
    class Proxy:
        def __getattr__(self, name):
            raise OSError(f"nobody is there to be asked for {name}")

        def __call__(self):
            return "called"

    pool = new_pool(1, initializer=Proxy(), finalizer=Proxy())
    assert asyncio.run(pool.run(Proxy())) == "called"


def test_objects_whose_call_is_a_coroutine_function(new_pool):
    with pytest.raises(TypeError, match="is a coroutine function: write await"):
        asyncio.run(new_pool(1).run(Service()))


def test_the_signatures_are_as_they_are_written():
    assert str(inspect.signature(RecyclePool.recycle)).startswith("(self, slot: int)")
    assert list(inspect.signature(RecyclePool).parameters) == [
        *("max_workers", "thread_name_prefix", "initializer", "initargs", "name", "backend"),
        *("limits", "schedule", "min_workers", "max_queue", "on_full", "cache", "context"),
        "finalizer",
    ]
    assert list(inspect.signature(Limits).parameters) == [field.name for field in fields(Limits)]
    assert RecyclePool.close.__name__ == "close"
    assert RecyclePool.close.__doc__.startswith("Finish everything accepted")


def test_the_words_of_limits_are_known_to_those_who_do_not_import_it():
    assert tuple(field.name for field in fields(Limits)) == _OF_LIMITS


def test_per_worker_takes_what_can_be_called_without_arguments(new_pool):
    def with_defaults(a=1, *rest, b=2, **others):
        return a, rest, b, others

    pool = new_pool(1)
    for factory in (with_defaults, functools.partial(with_argument, "x"), dict, [].copy):
        assert pool.submit(per_worker(factory)).result(WAIT) == factory()
