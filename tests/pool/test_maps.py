"""map() and map_unordered(): lazy with `buffersize`, in order or as they come, dropped, aborted."""

import gc
import itertools
import threading
import time
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from listening import new_stuck
from staging import WAIT, in_thread, until

from recyclepool import (
    Limits,
    PoolClosedError,
    QueueFullError,
    RecyclePool,
    TaskAbortedError,
    current_worker,
)

__all__ = ["new_stuck"]

VERBS = ("map", "map_unordered")
both = pytest.mark.parametrize("verb", VERBS)


class Asked:
    """An iterable that knows how far it was asked."""

    def __init__(self, values):
        self.count = 0
        self._values = iter(values)

    def __iter__(self):
        return self

    def __next__(self):
        value = next(self._values)
        self.count += 1
        return value


class Thing:
    def __init__(self, number):
        self.number = number


def queued(pool):
    return len(pool._engine.dispatch.queue)


# ---- what comes out -----------------------------------------------------------------------------


@both
@pytest.mark.parametrize("buffersize", [None, 1, 2, 7, 1000])
@pytest.mark.parametrize("view", [lambda pool: pool, lambda pool: pool.options(key=1, name="n")])
def test_all_results(new_pool, verb, buffersize, view):
    pool = new_pool(3)
    results = list(getattr(view(pool), verb)(divmod, range(50), [7] * 50, buffersize=buffersize))
    expected = [divmod(n, 7) for n in range(50)]
    assert (results if verb == "map" else sorted(results)) == expected
    assert pool.stats().submitted == 50


@both
def test_the_shortest_iterable_counts(new_pool, verb):
    pool = new_pool(1)
    longer = Asked(range(10))
    assert list(getattr(pool, verb)(pow, [2, 3], longer)) == [1, 3]
    assert pool.stats().submitted == 2


@both
@pytest.mark.parametrize("iterables", [(), ([],), ([], [1])])
@pytest.mark.parametrize("buffersize", [None, 3])
def test_nothing_to_do(new_pool, verb, iterables, buffersize):
    pool = new_pool(1)
    assert list(getattr(pool, verb)(pow, *iterables, buffersize=buffersize)) == []
    assert pool.stats().submitted == 0
    assert not pool.stats().workers


def test_the_order_is_that_of_the_calls(new_pool, new_hold):
    """Though the first ends last."""
    pool, hold = new_pool(2), new_hold()
    results = pool.map(lambda n: hold(n) if n == 0 else n, range(6))
    until(lambda: pool.stats().completed == 5)
    hold.release()
    assert list(results) == list(range(6))


def test_unordered_results_come_as_they_come(new_pool, new_hold):
    pool, hold = new_pool(2), new_hold()
    results = pool.map_unordered(lambda n: hold(n) if n == 0 else n, range(6))
    assert sorted(next(results) for _ in range(5)) == [1, 2, 3, 4, 5]
    hold.release()
    assert list(results) == [0]


def test_unordered_results_that_were_there_before_they_were_asked_for(new_pool):
    """In the order in which they came."""
    pool = new_pool(1)
    results = pool.map_unordered(int, "314159")
    until(lambda: pool.stats().completed == 6)
    assert list(results) == [3, 1, 4, 1, 5, 9]


@both
def test_it_is_an_iterator_and_stays_at_its_end(new_pool, verb):
    results = getattr(new_pool(1), verb)(int, "1")
    assert iter(results) is results
    assert next(results) == 1
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(results)


def test_chunksize_is_accepted(new_pool):
    """It matters to processes only."""
    pool = new_pool(1)
    assert list(pool.map(int, "123", chunksize=100)) == [1, 2, 3]
    assert list(pool.map(int, "123", timeout=WAIT, chunksize=2, buffersize=1)) == [1, 2, 3]
    assert pool.stats().submitted == 6, "each is a task of its own"


@both
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "buffersize must be None or > 0"),
        (-3, ValueError, "buffersize must be None or > 0"),
        (1.5, TypeError, "buffersize must be an integer or None"),
        ("3", TypeError, "buffersize must be an integer or None"),
    ],
)
def test_a_buffersize_that_is_none(new_pool, verb, value, error, message):
    """In the standard's words, first; said by the call, and nothing is sent."""
    pool, given = new_pool(1), Asked("123")
    with pytest.raises(error) as caught:
        getattr(pool, verb)(int, given, buffersize=value)
    assert str(caught.value).startswith(message)
    assert given.count == 0


# ---- how far it goes by itself ------------------------------------------------------------------


@both
def test_without_a_buffersize_all_is_sent_at_once(new_pool, new_hold, verb):
    """By the call, as the standard's: nobody need ask for a result."""
    pool, hold, given = new_pool(1), new_hold(), Asked(range(20))
    results = getattr(pool, verb)(hold, given)
    assert given.count == 20
    hold.wait_started()
    assert queued(pool) == 19
    hold.release()
    assert sorted(results) == list(range(20))


@both
@pytest.mark.parametrize("buffersize", [1, 4])
def test_with_one_no_more_are_sent_than_that(new_pool, verb, buffersize):
    """Beyond the results that were asked for: also when all are there since long."""
    pool, given = new_pool(2), Asked(itertools.count())
    results = getattr(pool, verb)(lambda n: n, given, buffersize=buffersize)
    assert given.count == buffersize
    for taken in range(1, 20):
        assert 0 <= next(results) < taken + buffersize
        assert given.count == buffersize + taken
    until(lambda: pool.stats().completed == given.count)
    assert given.count == buffersize + 19
    results.close()


@both
def test_an_infinite_iterable(new_pool, verb):
    """The consumer stops when it has enough: nothing is left to do."""
    pool = new_pool(2)
    results = getattr(pool, verb)(lambda n: n, itertools.count(), buffersize=5)
    assert sorted(itertools.islice(results, 100)) == pytest.approx(range(100), abs=6)
    del results
    assert pool.wait_idle(WAIT)
    stats = pool.stats()
    assert stats.completed + stats.cancelled == stats.submitted <= 105


@both
def test_an_iterable_that_waits_for_the_results_before_it(new_pool, verb):
    """With buffersize=1 each call may be made from the result of the one before the last."""
    pool, had = new_pool(1), [1]

    def calls():
        while had[-1] < 100:
            yield had[-1]

    results = getattr(pool, verb)(lambda n: n * 2, calls(), buffersize=1)
    had.extend(results)
    assert had[0] == 1
    assert had[-1] >= 100


# ---- errors -------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("buffersize", [None, 8])
def test_an_error_cancels_the_rest(new_pool, new_hold, verb, buffersize):
    pool, hold = new_pool(1), new_hold()

    def task(n):
        if n == 2:
            raise LookupError("two")
        return hold(n) if n == 3 else n

    results = getattr(pool, verb)(task, range(20), buffersize=buffersize)
    assert [next(results), next(results)] == [0, 1]
    hold.wait_started()
    with pytest.raises(LookupError, match="two"):
        next(results)
    assert all(task.cancelled() for task in pool._engine.dispatch.queue.copy())
    with pytest.raises(StopIteration):
        next(results)
    hold.release()
    assert pool.wait_idle(WAIT)
    stats = pool.stats()
    assert (stats.completed, stats.failed) == (3, 1)
    assert stats.cancelled == stats.submitted - 4


@both
@pytest.mark.parametrize("ending", ["dropped", "closed", "thrown into"])
def test_the_consumer_stops(new_pool, new_hold, verb, ending):
    """What is queued is cancelled; what runs goes on."""
    pool, hold = new_pool(1), new_hold()
    results = getattr(pool, verb)(lambda n: n and hold(n), range(10))
    assert next(results) == 0
    hold.wait_started()
    if ending == "dropped":
        del results
        gc.collect()
    elif ending == "closed":
        results.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt())
    hold.release()
    assert pool.wait_idle(WAIT)
    stats = pool.stats()
    assert (stats.completed, stats.cancelled) == (2, 8)


@both
@pytest.mark.parametrize("executor", ["the standard's", "ours"])
def test_a_consumer_that_wants_no_result(new_pool, verb, executor):
    """Nobody ever asks for one: all that was sent is run, as the standard's does it."""
    pool, done = new_pool(1), []
    if executor == "ours":
        getattr(pool, verb)(done.append, range(5))
        pool.close()
    else:
        with ThreadPoolExecutor(1) as standard:
            standard.map(done.append, range(5))
    assert done == list(range(5))


@both
def test_a_submit_that_fails_midway_cancels_what_was_sent(new_pool, new_hold, verb):
    """Nobody would have their results: the call itself raised."""
    hold = new_hold()
    pool = new_pool(1, max_queue=4, on_full="raise")
    with pytest.raises(QueueFullError):
        getattr(pool, verb)(hold, range(20))
    hold.release()
    assert pool.wait_idle(WAIT)
    stats = pool.stats()
    assert stats.completed <= 1, "the first may have begun"
    assert stats.cancelled >= 3
    assert stats.rejected_full == 1


@both
def test_an_iterable_that_raises_midway(new_pool, new_hold, verb):
    pool, hold = new_pool(1), new_hold()

    def calls():
        yield from range(3)
        hold.wait_started()
        raise LookupError("no fourth")

    with pytest.raises(LookupError, match="no fourth"):
        getattr(pool, verb)(hold, calls())
    hold.release()
    assert pool.wait_idle(WAIT)
    assert (pool.stats().completed, pool.stats().cancelled) == (1, 2)


@both
def test_an_iterable_that_raises_later(new_pool, verb):
    """While a result is asked for: it is raised there, and what was sent is cancelled."""
    pool = new_pool(1)

    def calls():
        yield from range(3)
        raise LookupError("no fourth")

    results = getattr(pool, verb)(lambda n: n, calls(), buffersize=2)
    assert next(results) == 0
    with pytest.raises(LookupError, match="no fourth"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert pool.wait_idle(WAIT)


@both
def test_the_pool_closes_between(new_pool, verb):
    """With a buffersize it submits later, too: then it may be refused."""
    pool = new_pool(1)
    results = getattr(pool, verb)(lambda n: n, range(9), buffersize=2)
    assert next(results) == 0
    pool.shutdown()
    with pytest.raises(PoolClosedError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@both
def test_the_pool_is_destroyed_between(new_pool, new_spin, verb):
    pool, spin = new_pool(1), new_spin()
    results = getattr(pool, verb)(spin, range(3))
    spin.wait_started()
    pool.destroy(WAIT)
    with pytest.raises((TaskAbortedError, CancelledError)):
        next(results)


# ---- timeout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffersize", [None, 3])
def test_a_timeout_is_for_all_of_it(new_pool, new_hold, buffersize):
    """From the call: results that are there then are handed out, the next raises."""
    pool, hold = new_pool(1), new_hold()
    began = time.monotonic()
    results = pool.map(
        lambda n: hold(n) if n == 2 else n, range(9), timeout=0.2, buffersize=buffersize
    )
    until(lambda: pool.stats().completed == 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(TimeoutError):
        next(results)
    assert time.monotonic() - began >= 0.2
    with pytest.raises(StopIteration):
        next(results)
    hold.release()
    assert pool.wait_idle(WAIT)
    stats = pool.stats()
    assert stats.cancelled == stats.submitted - 3


def test_a_timeout_hands_out_what_is_there(new_pool):
    """No result that exists is lost to a deadline that has passed."""
    pool = new_pool(1)
    results = pool.map(int, "123", timeout=0)
    until(lambda: pool.stats().completed == 3)
    assert list(results) == [1, 2, 3]


def test_a_timeout_in_words_is_refused(new_pool):
    pool, given = new_pool(1), Asked("123")
    with pytest.raises(TypeError, match="timeout='5s': write seconds as a number"):
        pool.map(int, given, timeout="5s")
    assert given.count == 0


# ---- what is kept -------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("buffersize", [None, 3])
def test_results_are_not_kept(new_pool, verb, buffersize):
    """Nor the arguments. To the caller they may be large."""
    pool = new_pool(1)
    results = getattr(pool, verb)(Thing, range(10), buffersize=buffersize)
    for _ in range(5):
        reference = weakref.ref(next(results))
        until(lambda: len(pool._engine.dispatch.idle) == 1)
        assert reference() is None
    results.close()


@both
def test_arguments_are_not_kept(new_pool, verb):
    pool, references = new_pool(1), []

    def calls():
        for number in range(6):
            thing = Thing(number)
            references.append(weakref.ref(thing))
            yield thing
            del thing

    results = getattr(pool, verb)(lambda thing: thing.number, calls(), buffersize=2)
    assert sorted(results) == list(range(6))
    until(lambda: len(pool._engine.dispatch.idle) == 1)
    assert [reference() for reference in references] == [None] * 6


@both
def test_an_error_that_was_raised_is_not_kept(new_pool, verb):
    pool = new_pool(1)

    class Own(Exception):
        pass

    def fail(_):
        raise Own

    results = getattr(pool, verb)(fail, range(3))
    with pytest.raises(Own) as caught:
        next(results)
    reference = weakref.ref(caught.value)
    del caught
    until(lambda: len(pool._engine.dispatch.idle) == 1)
    gc.collect()
    assert reference() is None


# ---- inside a task ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("buffersize", [None, 2])
def test_inside_a_task(new_pool, verb, buffersize):
    """Of the same pool, as long as there is a worker for it; of another one always."""
    pool, other = new_pool(2), new_pool(1)
    for inner in (pool, other):
        future = pool.submit(
            lambda inner: sorted(getattr(inner, verb)(int, "12345", buffersize=buffersize)), inner
        )
        assert future.result(WAIT) == [1, 2, 3, 4, 5]


@both
@pytest.mark.parametrize("by", ["cancel", "timeout", "destroy"])
def test_inside_a_task_that_is_aborted(new_pool, new_hold, verb, by):
    """It waits for a result: that ends, and what it had queued is cancelled."""
    outer, inner = new_pool(1, limits=Limits(grace=WAIT)), new_pool(1)
    hold, waits = new_hold(), threading.Event()

    def task():
        results = getattr(inner, verb)(hold, range(6))
        hold.wait_started()
        waits.set()
        return list(results)

    view = outer.options(timeout=1.0) if by == "timeout" else outer
    future = view.submit(task)
    assert waits.wait(WAIT)
    if by == "cancel":
        assert outer.cancel(future)
    elif by == "destroy":
        assert outer.destroy(WAIT).abandoned == ()
    assert future.exception(WAIT) is not None
    left = inner._engine.dispatch.queue.copy()
    assert len(left) == 5
    until(lambda: all(task.cancelled() for task in left), "what it had queued to be cancelled")
    hold.release()
    assert inner.wait_idle(WAIT)
    assert inner.stats().completed == 1
    assert outer.submit(lambda: current_worker().generation).result(WAIT) >= 1
    assert outer.stats().abandoned == 0


@both
def test_inside_a_task_that_is_aborted_again_and_again(new_pool, verb):
    """Wherever the abort gets it: no lock stays held, and both pools go on."""
    outer, inner = new_pool(2, limits=Limits(grace=WAIT)), new_pool(2)

    def task():
        while True:
            for _ in getattr(inner, verb)(int, "123456", buffersize=2):
                pass

    for pause in range(40):
        future = outer.submit(task)
        until(future.running)
        before = inner.stats().submitted
        until(lambda before=before, more=pause % 5: inner.stats().submitted >= before + more)
        assert outer.cancel(future)
        assert isinstance(future.exception(WAIT), TaskAbortedError)
    assert inner.wait_idle(WAIT)
    assert sorted(getattr(inner, verb)(int, "123")) == [1, 2, 3]
    assert outer.submit(int).result(WAIT) == 0
    assert outer.stats().abandoned == 0


@both
def test_two_consumers_of_two_maps(new_pool, verb):
    pool = new_pool(3)
    calls = [
        in_thread(
            lambda n=n: sorted(getattr(pool, verb)(divmod, range(200), [n] * 200, buffersize=9))
        )
        for n in (3, 5)
    ]
    for n, call in zip((3, 5), calls, strict=True):
        assert call.result() == [divmod(each, n) for each in range(200)]


@both
def test_a_map_over_a_stuck_task_ends_with_its_abandoned_worker(new_pool, new_stuck, verb):
    pool, stuck = new_pool(1, limits=Limits(grace=0.02)), new_stuck()
    results = getattr(pool.options(timeout=0.3), verb)(lambda n: stuck(n) if n else n, range(2))
    assert next(results) == 0
    with pytest.raises(TimeoutError):
        next(results)
    stuck.release()
    until(lambda: not pool.stats().abandoned)


@both
def test_a_dropped_pool_ends_though_its_results_are_kept(verb):
    pool = RecyclePool(2)
    results = getattr(pool, verb)(abs, range(-5, 5))
    threads = pool._threads
    del pool
    gc.collect()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert sorted(results) == sorted(map(abs, range(-5, 5)))
