"""Functions, errors, callbacks and handlers that are not as they should be harm only themselves."""

import copy
import functools
import json
import logging
import pickle
import sys
import threading
from concurrent.futures import Future

import pytest
from staging import WAIT, until

from recyclepool import BrokenRecyclePool, Limits, RecyclePool, TaskAbortedError, pools


@pytest.mark.parametrize("arguments", [{}, {"a": 1}], ids=["plain", "keywords"])
def test_a_function_that_is_none_fails_its_own_future(new_pool, arguments):
    pool = new_pool(1)
    with pytest.raises(TypeError, match="not callable"):
        pool.submit(5, **arguments).result(WAIT)
    assert pool.submit(int).result(WAIT) == 0
    assert pool.stats().failed == 1


@pytest.mark.skipif(sys.version_info < (3, 14), reason="functools.Placeholder is of 3.14")
def test_a_placeholder_is_an_argument_like_others(new_pool):
    sentinel = functools.Placeholder
    assert new_pool(1).submit(dict, a=sentinel).result(WAIT) == {"a": sentinel}


def test_an_initializer_error_without_a_repr_breaks_the_pool(new_pool):
    class Bad(Exception):
        def __repr__(self):
            raise ValueError("no repr")

    def initializer():
        go.wait(WAIT)
        raise Bad

    go = threading.Event()
    logging.disable(logging.CRITICAL)
    try:
        pool = new_pool(1, initializer=initializer)
        future = pool.submit(int)
        go.set()
        with pytest.raises(BrokenRecyclePool, match="Bad"):
            future.result(WAIT)
        assert not pool.close(WAIT).timed_out
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_waiting_successors_leave_room_for_free_slots(new_pool, size):
    """As many tasks as slots meet, though each of their workers has a successor to come."""
    pool, all_here = new_pool(size, limits=Limits(tasks=1)), threading.Barrier(size)
    for _ in range(5):
        for future in [pool.submit(all_here.wait, WAIT) for _ in range(size)]:
            future.result(WAIT)


class Hostile:
    """A callable that answers no question."""

    def __init__(self):
        self.running, self.go = threading.Event(), threading.Event()

    def __getattr__(self, name):
        raise ValueError(name)

    def __call__(self):
        self.running.set()
        self.go.wait(WAIT)


def test_a_hostile_callable_is_shown_and_given_up(new_pool):
    pool, hostile = new_pool(1), Hostile()
    future = pool.submit(hostile)
    hostile.running.wait(WAIT)
    stats = pool.stats()
    assert stats.workers[0].task_name == "Hostile"
    json.dumps(stats.as_dict())
    assert pool.destroy(0.0).aborted == 1
    with pytest.raises(TaskAbortedError):
        future.result(0)
    hostile.go.set()
    assert pool.submit(int).result(WAIT) == 0


def test_a_partial_is_shown_by_its_function(new_pool):
    pool, hold = new_pool(1), threading.Event()
    future = pool.submit(functools.partial(hold.wait, WAIT))
    until(lambda: pool.stats().workers[0].task_name)
    assert pool.stats().workers[0].task_name == "Event.wait"
    hold.set()
    future.result(WAIT)


def test_no_lock_stays_held_when_a_task_is_aborted_inside_pools(new_pool):
    pool, looks = new_pool(2), []  # no Event: an abort may leave the standard's locked

    def look():
        while True:
            pools()
            looks.append(1)

    for _ in range(20):
        looks.clear()
        pool.submit(look)
        until(lambda: looks)
        pool.destroy(WAIT)
    found: Future[int] = Future()  # type: ignore[type-arg, unused-ignore]
    thread = threading.Thread(target=lambda: found.set_result(len(pools())), daemon=True)
    thread.start()
    assert found.result(WAIT)


def test_callbacks_that_exit_do_not_silence_others(new_pool, new_hold, caplog):
    pool, hold, called = new_pool(1), new_hold(), []
    pool.submit(hold)
    hold.wait_started(1)
    queued = [pool.submit(int) for _ in range(8)]
    for number, future in enumerate(queued):
        future.add_done_callback(sys.exit if number % 2 else called.append)
    pool.destroy(0.1)
    until(lambda: len(called) == 4)
    assert called == queued[::2]


def test_a_log_filter_that_raises_costs_no_worker(new_pool):
    class Raise(logging.Filter):
        def filter(self, record):
            raise ValueError("in a filter")

    def finalizer():
        raise OSError("in a finalizer")

    log, refuse = logging.getLogger("recyclepool"), Raise()
    log.addFilter(refuse)
    try:
        pool = new_pool(1, finalizer=finalizer)
        pool.submit(int).result(WAIT)
        assert not pool.close(WAIT).timed_out
    finally:
        log.removeFilter(refuse)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_pool_is_not_copied(new_pool, copied):
    pool = new_pool(1)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copied(pool)
    assert pool.submit(int).result(WAIT) == 0


def test_a_subclass_says_its_own_name(new_pool):
    class Mine(RecyclePool):
        pass

    pool = Mine(1)
    assert repr(pool).startswith("<Mine ")
    pool.shutdown()


def test_times_without_end_are_possible(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    pool.submit(hold)
    hold.wait_started(1)
    pool.submit(int).add_done_callback(repr)
    hold.release()
    assert pool.destroy(float("inf")).aborted in (0, 1)
    assert not pool.close(10**400).timed_out
