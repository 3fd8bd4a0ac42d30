import functools
import logging
import re
import threading
import time

import pytest

from recyclepool import (
    Limits,
    OutsideWorkerError,
    Reason,
    RecyclePool,
    WorkerCache,
    current_worker,
    per_worker,
)


@pytest.fixture
def pool():
    with RecyclePool(1) as pool:
        yield pool


def on_worker(pool, fn):
    return pool.submit(fn).result(30)


# ==== current_worker =============================================================================


def test_outside_a_worker_it_raises_and_says_what_to_do():
    with pytest.raises(OutsideWorkerError) as caught:
        current_worker()
    assert str(caught.value) == (
        "current_worker() was called outside a worker: it is for tasks, initializers and "
        "finalizers of a RecyclePool. current_worker(None) gives None here instead"
    )


def test_outside_a_worker_it_gives_the_default():
    assert current_worker(None) is None
    assert current_worker("nobody") == "nobody"


def test_in_a_task_it_is_the_worker(pool):
    def task():
        worker = current_worker()
        assert isinstance(worker.cache, WorkerCache)
        return (
            worker.slot,
            worker.generation,
            worker.leaving,
            worker.stopping.is_set(),
            repr(worker),
        )

    assert on_worker(pool, task) == (0, 1, None, False, "<CurrentWorker slot 0, generation 1>")
    assert on_worker(pool, lambda: current_worker(None).slot) == 0


def test_the_cache_stays_from_task_to_task(pool):
    assert on_worker(pool, lambda: current_worker().cache) is on_worker(
        pool, lambda: current_worker().cache
    )


def test_in_an_initializer_and_a_finalizer():
    seen = []

    def note():
        worker = current_worker()
        seen.append((worker.slot, worker.generation, worker.leaving, worker.stopping.is_set()))

    with RecyclePool(1, initializer=note, finalizer=note) as pool:
        on_worker(pool, int)
    assert seen == [(0, 1, None, False), (0, 1, Reason.CLOSE, True)]


def test_the_last_task_sees_that_its_worker_goes():
    with RecyclePool(1, limits=Limits(tasks=2)) as pool:
        seen = [on_worker(pool, lambda: current_worker().leaving) for _ in range(3)]
        assert seen == [None, Reason.TASKS, None]
        assert on_worker(pool, lambda: current_worker().generation) == 2


def test_a_thread_that_a_task_starts_is_no_worker(pool):
    seen = []

    def task():
        thread = threading.Thread(target=lambda: seen.append(current_worker(None)))
        thread.start()
        thread.join()

    on_worker(pool, task)
    assert seen == [None]


# ==== per_worker =================================================================================


def test_once_in_each_worker(pool):
    made = []

    @per_worker
    def thing():
        made.append(current_worker().generation)
        return object()

    assert on_worker(pool, thing) is on_worker(pool, thing)
    assert made == [1]


def test_workers_share_nothing():
    together = threading.Barrier(2, timeout=30)

    @per_worker
    def thing():
        together.wait()
        return object()

    with RecyclePool(2) as pool:
        first, second = [future.result(30) for future in [pool.submit(thing), pool.submit(thing)]]
    assert first is not second


def test_a_new_generation_makes_its_own():
    made = []

    @per_worker
    def thing():
        made.append(current_worker().generation)

    with RecyclePool(1, limits=Limits(tasks=2)) as pool:
        for _ in range(5):
            on_worker(pool, thing)
    assert made == [1, 2, 3]


def test_none_is_a_value_too(pool):
    made = []
    thing = per_worker(lambda: made.append(1))
    assert on_worker(pool, thing) is on_worker(pool, thing) is None
    assert made == [1]


def test_two_factories_of_one_function_are_two(pool):
    def factory():
        return object()

    assert on_worker(pool, per_worker(factory)) is not on_worker(pool, per_worker(factory))


def test_a_class_may_be_the_factory(pool):
    class Connection:
        pass

    connection = per_worker(Connection)
    assert isinstance(on_worker(pool, connection), Connection)
    assert on_worker(pool, connection) is on_worker(pool, connection)


def test_what_stands_after_the_yield_runs_at_the_end_the_last_made_first():
    seen = []

    def make(name):
        @per_worker
        def thing():
            seen.append(f"make {name}")
            yield name
            seen.append(f"end {name} in {current_worker().slot}")

        return thing

    first, second = make("first"), make("second")
    with RecyclePool(1, finalizer=lambda: seen.append("finalizer")) as pool:
        assert on_worker(pool, lambda: (first(), second(), first())) == ("first", "second", "first")
        assert seen == ["make first", "make second"]
    assert seen[2:] == ["end second in 0", "end first in 0", "finalizer"]


def test_one_that_needs_another_ends_before_it():
    seen = []

    @per_worker
    def outer():
        yield inner()
        seen.append("outer")

    @per_worker
    def inner():
        yield 1
        seen.append("inner")

    with RecyclePool(1) as pool:
        assert on_worker(pool, outer) == 1
    assert seen == ["outer", "inner"]


def test_each_worker_ends_its_own():
    seen = []

    @per_worker
    def thing():
        yield (generation := current_worker().generation)
        seen.append(generation)

    with RecyclePool(1, limits=Limits(tasks=1)) as pool:
        assert [on_worker(pool, thing) for _ in range(3)] == [1, 2, 3]
    assert sorted(seen) == [1, 2, 3]


@pytest.mark.parametrize("is_generator", [False, True])
def test_a_factory_that_raises_is_tried_again(pool, is_generator):
    errors = [ValueError("once"), KeyError("twice")]

    def plain():
        if errors:
            raise errors.pop(0)
        return "made"

    def generator():
        yield plain()

    thing = per_worker(generator if is_generator else plain)
    with pytest.raises(ValueError, match="once"):
        on_worker(pool, thing)
    with pytest.raises(KeyError):
        on_worker(pool, thing)
    assert on_worker(pool, thing) == on_worker(pool, thing) == "made"


def test_one_that_was_not_made_is_not_torn_down():
    seen = []

    @per_worker
    def thing():
        if not seen:
            seen.append("raised")
            raise ValueError("not made")
        yield
        seen.append("end")

    with RecyclePool(1) as pool, pytest.raises(ValueError, match="not made"):
        on_worker(pool, thing)
    assert seen == ["raised"]


def test_one_that_needs_itself(pool):
    @per_worker
    def thing():
        return [thing()]

    with pytest.raises(RecursionError) as caught:
        on_worker(pool, thing)
    assert str(caught.value).startswith("@per_worker test_one_that_needs_itself.<locals>.thing()")
    assert str(caught.value).endswith("needs itself")
    with pytest.raises(RecursionError):
        on_worker(pool, thing)  # it is tried again, and does not hang


def test_a_generator_that_does_not_yield(pool):
    @per_worker
    def thing():
        if not thing:
            yield

    with pytest.raises(RuntimeError, match=r"@per_worker .*thing\(\) has no yield"):
        on_worker(pool, thing)


def told_of(caplog):
    """The line that tells of the teardown: it comes on a thread of its own."""
    deadline = time.monotonic() + 20
    while not caplog.messages:
        assert time.monotonic() < deadline, "nothing was told"
        time.sleep(0.001)
    (line,) = caplog.messages
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    return line


def test_more_than_one_yield_is_told(caplog):
    seen = []

    @per_worker
    def thing():
        try:
            yield 1
            yield 2
        finally:
            seen.append("closed")

    with caplog.at_level(logging.WARNING, "recyclepool"), RecyclePool(1, name="it") as pool:
        assert on_worker(pool, thing) == 1
    assert seen == ["closed"]
    told = re.fullmatch(
        r"pool 'it': worker 0\.1: its teardown failed: ExceptionGroup\('while <Worker 0\.1 "
        r"retiring> closed', \[RuntimeError\('@per_worker \S*thing\(\) has more than one "
        r"yield'\)\]\)",
        told_of(caplog),
    )
    assert told, caplog.messages


def test_a_teardown_that_raises_keeps_no_other_from_running(caplog):
    seen = []

    def make(name):
        @per_worker
        def thing():
            yield
            seen.append(name)
            raise ValueError(name)

        return thing

    first, second = make("first"), make("second")
    finalizer = functools.partial(seen.append, "finalizer")
    with (
        caplog.at_level(logging.WARNING, "recyclepool"),
        RecyclePool(1, finalizer=finalizer) as pool,
    ):
        on_worker(pool, lambda: (first(), second()))
    assert seen == ["second", "first", "finalizer"]
    assert "[ValueError('second'), ValueError('first')]" in told_of(caplog)


def test_outside_a_worker_the_factory_is_not_called():
    @per_worker
    def thing():
        raise AssertionError

    with pytest.raises(OutsideWorkerError) as caught:
        thing()
    assert str(caught.value) == (
        "@per_worker test_outside_a_worker_the_factory_is_not_called.<locals>.thing() was called "
        "outside a worker: call it in a task of a RecyclePool"
    )


def test_a_factory_without_a_name(pool):
    thing = per_worker(functools.partial(int, "7"))
    with pytest.raises(OutsideWorkerError):
        thing()
    assert repr(thing).startswith("<per_worker ")
    assert on_worker(pool, thing) == 7


def test_it_keeps_what_the_function_says_of_itself():
    @per_worker
    def thing():
        """A thing."""

    assert (thing.__name__, thing.__doc__) == ("thing", "A thing.")
    assert repr(thing).startswith("<per_worker ")
    assert repr(thing).endswith("thing>")


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError) as caught:
        per_worker(7)  # type: ignore[call-overload]
    assert str(caught.value) == (
        "@per_worker needs a function without arguments, not 7: "
        "write @per_worker alone, above its def"
    )
