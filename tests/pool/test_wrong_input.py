"""What cannot be meant is refused at once, and the message says what to write instead."""

import math
import re

import pytest
from staging import WAIT, until

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    OutsideWorkerError,
    PoolClosedError,
    RecyclePool,
    UnitError,
    backends,
    current_worker,
    per_worker,
    pools,
)

KNOWN = (
    "max_workers, thread_name_prefix, initializer, initargs, name, backend, limits, schedule, "
    "min_workers, max_queue, on_full, cache, context, finalizer"
)
LIMITS = "write limits=Limits(tasks=10_000), with recyclepool's Limits, or None"
TOO_FEW = "write 1 or more, or leave it out for the standard's number"

CONSTRUCTOR = [
    ({"max_workers": 0}, ValueError, f"max_workers must be greater than 0, and is 0: {TOO_FEW}"),
    ({"max_workers": -3}, ValueError, f"max_workers must be greater than 0, and is -3: {TOO_FEW}"),
    (
        {"max_workers": "4"},
        TypeError,
        "max_workers='4': write a whole number, such as max_workers=4",
    ),
    (
        {"max_workers": "16"},
        TypeError,
        "max_workers='16': write a whole number, such as max_workers=16",
    ),
    (
        {"max_workers": "many"},
        TypeError,
        "max_workers='many': write a whole number, such as max_workers=4",
    ),
    (
        {"max_workers": True},
        TypeError,
        "max_workers=True: write a whole number, such as max_workers=4",
    ),
    (
        {"max_workers": 2.0},
        TypeError,
        "max_workers=2.0: write a whole number, such as max_workers=4",
    ),
    (
        {"backend": "tread"},
        ValueError,
        "backend='tread' is not known: did you mean 'thread'?",
    ),
    ({"backend": "gpu"}, ValueError, "backend='gpu' is not known: known here: 'thread'"),
    (
        {"backend": backends.Thread},
        TypeError,
        f'backend={backends.Thread!r}: write a name, such as "thread", or backends.Thread()',
    ),
    (
        {"backend": None},
        TypeError,
        'backend=None: write a name, such as "thread", or backends.Thread()',
    ),
    (
        {"max_worker": 3},
        TypeError,
        "RecyclePool() has no parameter 'max_worker': did you mean 'max_workers'?",
    ),
    (
        {"limit": Limits()},
        TypeError,
        "RecyclePool() has no parameter 'limit': did you mean 'limits'?",
    ),
    (
        {"reuse": True},
        TypeError,
        f"RecyclePool() has no parameter 'reuse': known are {KNOWN}",
    ),
    (
        {"finalizer": 3},
        TypeError,
        "finalizer must be a callable, and is 3: write the function's name, without ()",
    ),
    (
        {"initializer": "connect"},
        TypeError,
        "initializer must be a callable, and is 'connect': write the function's name, without ()",
    ),
    ({"limits": {}}, TypeError, f"limits={{}}: {LIMITS}"),
    ({"limits": {"tasks": 3}}, TypeError, f"limits={{'tasks': 3}}: {LIMITS}"),
    ({"limits": 3}, TypeError, f"limits=3: {LIMITS}"),
    (
        {"cache": "64M"},
        UnitError,
        "cache='64M': write 64MiB (powers of 1024) or 64MB (powers of 1000)",
    ),
    ({"cache": -1}, UnitError, "cache=-1: a size cannot be negative; write 0 or more"),
    (
        {"cache": True},
        UnitError,
        'cache=True: write an int (bytes) or text such as "512MiB"',
    ),
    (
        {"context": "x"},
        ValueError,
        'context=\'x\': write "submitter" or "worker", or None',
    ),
    (
        {"context": True},
        ValueError,
        'context=True: write "submitter" or "worker", or None',
    ),
    (
        {"max_workers": 2, "min_workers": 3},
        ValueError,
        "min_workers=3: write 0 to max_workers, which is 2",
    ),
    (
        {"max_workers": 2, "min_workers": -1},
        ValueError,
        "min_workers=-1: write 0 to max_workers, which is 2",
    ),
    (
        {"min_workers": "1"},
        TypeError,
        "min_workers='1': write a whole number, such as min_workers=1",
    ),
    (
        {"min_workers": True},
        TypeError,
        "min_workers=True: write a whole number, such as min_workers=1",
    ),
    ({"name": 5}, TypeError, "name=5: write a word, such as name='images'"),
    ({"name": ""}, TypeError, "name='': write a word, such as name='images'"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), CONSTRUCTOR, ids=[str(row[0])[:40] for row in CONSTRUCTOR]
)
def test_the_constructor(arguments, error, message):
    before = pools()
    with pytest.raises(error) as caught:
        RecyclePool(**arguments)
    assert type(caught.value) is error
    assert str(caught.value) == message
    assert pools() == before


def test_a_word_that_may_mean_two():
    with pytest.raises(TypeError, match=r"parameter 'workers': did you mean .*'max_workers'"):
        RecyclePool(workers=3)


def test_initargs_that_are_no_arguments():
    with pytest.raises(TypeError, match=r"initargs=5: write a tuple, such as initargs=\(5,\)"):
        RecyclePool(initializer=int, initargs=5)


def test_a_cache_of_none():
    with pytest.raises(UnitError, match=r"cache=None: .*\b0\b"):
        RecyclePool(cache=None)


def test_a_name_that_is_taken(new_pool):
    new_pool(1, name="taken")
    with pytest.raises(ValueError, match="taken") as caught:
        RecyclePool(1, name="taken")
    shown = "<RecyclePool 'taken' open: 0/1 workers (0 idle, 0 busy), 0 queued>"
    message = str(caught.value)
    assert message.startswith(f"name='taken' is taken by {shown}: names are unique in a process")
    assert "shutdown()" in message, "what to do about it"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tasks": 0}, ValueError, "Limits(tasks=0): write 1 or more, or None for no limit"),
        ({"tasks": -1}, ValueError, "Limits(tasks=-1): write 1 or more, or None for no limit"),
        (
            {"tasks": "5"},
            TypeError,
            "Limits(tasks='5'): write how many as an int, such as tasks=10_000, or None",
        ),
        (
            {"tasks": True},
            TypeError,
            "Limits(tasks=True): write how many as an int, such as tasks=10_000, or None",
        ),
        (
            {"memory": "512M"},
            UnitError,
            "memory='512M': write 512MiB (powers of 1024) or 512MB (powers of 1000)",
        ),
    ],
    ids=str,
)
def test_limits(arguments, error, message):
    with pytest.raises(error) as caught:
        Limits(**arguments)
    assert str(caught.value) == message


NUMBER = "write seconds as a number, such as"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pool: pool.close(timeout="5"), f"timeout='5': {NUMBER} timeout=5.0"),
        (lambda pool: pool.close(True), f"timeout=True: {NUMBER} timeout=5.0"),
        (lambda pool: pool.close(math.nan), f"timeout=nan: {NUMBER} timeout=5.0"),
        (
            lambda pool: pool.destroy(None),
            "grace=None: write how many seconds a task may take to stop, such as 1.0",
        ),
        (lambda pool: pool.destroy(grace="1"), f"grace='1': {NUMBER} grace=5.0"),
    ],
    ids=["close text", "close bool", "close nan", "destroy None", "destroy text"],
)
def test_the_verbs(new_pool, new_hold, call, message):
    """And the pool does not begin to close."""
    pool, hold = new_pool(1), new_hold()
    future = pool.submit(hold, "went on")
    with pytest.raises(TypeError) as caught:
        call(pool)
    assert str(caught.value) == message
    hold.release()
    assert future.result(WAIT) == "went on"
    assert pool.submit(int).result(WAIT) == 0


@pytest.mark.parametrize("timeout", [math.inf, 10**9, 0, -1, 0.5])
def test_any_number_of_seconds_will_do(new_pool, timeout):
    pool = new_pool(1)
    pool.close(timeout)
    pool.destroy(timeout)
    assert pool.submit(int).result(WAIT) == 0


def test_what_is_submitted_need_not_be_callable(new_pool):
    """As with the standard's, its future says so."""
    error = new_pool(1).submit(5).exception(WAIT)
    assert isinstance(error, TypeError)
    assert str(error) == "'int' object is not callable"


# -- per_worker and current_worker ----------------------------------------------------------------


@per_worker
def connection():
    return object()


def test_outside_a_worker():
    with pytest.raises(OutsideWorkerError) as caught:
        current_worker()
    assert str(caught.value) == (
        "current_worker() was called outside a worker: it is for tasks, initializers and "
        "finalizers of a RecyclePool. current_worker(None) gives None here instead"
    )
    assert current_worker(None) is None
    assert current_worker("default") == "default"
    with pytest.raises(OutsideWorkerError) as caught:
        connection()
    assert str(caught.value) == (
        "@per_worker connection() was called outside a worker: call it in a task of a RecyclePool"
    )


def test_per_worker_of_what_is_no_function():
    with pytest.raises(TypeError) as caught:
        per_worker(3)
    assert str(caught.value) == (
        "@per_worker needs a function without arguments, not 3: "
        "write @per_worker alone, above its def"
    )


def test_per_worker_that_needs_itself(new_pool):
    @per_worker
    def ouroboros():
        return ouroboros()

    error = new_pool(1).submit(ouroboros).exception(WAIT)
    assert isinstance(error, RecursionError)
    assert re.fullmatch(r"@per_worker \S*ouroboros\(\) needs itself", str(error))


@pytest.mark.parametrize("yields", [0, 2])
def test_per_worker_that_yields_none_or_two(new_pool, caplog, yields):
    @per_worker
    def generator():
        for _ in range(yields):
            yield "value"

    pool = new_pool(1)
    future = pool.submit(generator)
    if yields:
        assert future.result(WAIT) == "value"
        pool.close()
        told = re.compile(r"@per_worker \S*generator\(\) has more than one yield")
        until(lambda: told.search(caplog.text), "the teardown's error to be told")
    else:
        assert isinstance(future.exception(WAIT), RuntimeError)
        assert re.fullmatch(r"@per_worker \S*generator\(\) has no yield", str(future.exception(0)))


def test_per_worker_that_fails_is_tried_again(new_pool):
    calls = []

    @per_worker
    def flaky():
        calls.append(1)
        if len(calls) == 1:
            raise OSError("not yet")
        return "made"

    pool = new_pool(1)
    assert isinstance(pool.submit(flaky).exception(WAIT), OSError)
    assert [pool.submit(flaky).result(WAIT) for _ in range(3)] == ["made"] * 3
    assert len(calls) == 2


# -- refusals -------------------------------------------------------------------------------------


def test_a_pool_that_is_shut_down(new_pool):
    pool = new_pool(1, name="gone")
    pool.shutdown()
    message = (
        "cannot schedule new futures after shutdown: pool 'gone' was shut down for good. "
        "close() instead leaves a pool that can be used again"
    )
    with pytest.raises(PoolClosedError) as caught:
        pool.submit(int)
    assert str(caught.value) == message
    assert str(pool.start().exception(WAIT)) == message


def test_a_pool_that_closes(new_pool, new_hold):
    pool, hold = new_pool(1, name="busy"), new_hold()
    pool.submit(hold)
    hold.wait_started()
    pool._engine.end(pool._engine.dispatch)
    with pytest.raises(PoolClosedError) as caught:
        pool.submit(int)
    assert str(caught.value) == (
        "pool 'busy' is closing: submit again when close() or destroy() has returned"
    )
    hold.release()
    pool.close()


def test_a_pool_that_is_broken(new_pool, caplog):
    caplog.set_level(51, "concurrent.futures")
    pool = new_pool(1, name="ill", initializer=lambda: 1 / 0)
    pool.submit(int).exception(WAIT)
    with pytest.raises(BrokenRecyclePool) as caught:
        pool.submit(int)
    assert str(caught.value) == (
        "pool 'ill' is broken: its workers cannot be started "
        "(ZeroDivisionError('division by zero')). "
        "close() or destroy() it, and it may be tried again"
    )
