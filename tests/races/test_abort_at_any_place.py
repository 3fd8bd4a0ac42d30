"""A task is to be aborted at any place of what it calls of the pool, or for its futures.

1. A task calls submit(), result(), wait() and so on. At one place of that, in turn at each where
   CPython looks at its eval breaker, it is held.
2. Another thread retires its worker and asks for its abort. It injects, or leaves its wish.
3. The task goes on. TaskAbort surfaces there, or as soon as it is out of the pool's code.
4. The future gets TaskAbortedError; no lock is held, neither of the gate nor of a future nor of the
   engine; whoever settles those futures does not hang; what was submitted, runs; a callback of a
   cancelled future was not left out. A successor serves.
"""

import concurrent.futures
import threading

import pytest
from forcing import (
    PATIENCE,
    Elsewhere,
    Places,
    Steps,
    abort,
    elsewhere,
    is_free,
    is_ours,
    serves_on,
    settled_and_free,
    with_idle,
    workers,
)

from recyclepool import TaskAbortedError, current_worker
from recyclepool._future import Future

STANDARD = {concurrent.futures._base.__file__, threading.__file__}


# What the task does. It puts its own futures into the list, with the calls of their callbacks.


def submit(pool, futures):
    pool.submit(int).result(PATIENCE)


def submit_and_cancel(pool, futures):
    future, calls = pool.submit(int), []
    futures.append((future, calls))
    future.add_done_callback(calls.append)
    future.add_done_callback(calls.append)
    future.cancel()


def cancel(pool, futures):
    future, calls = Future(), []
    futures.append((future, calls))
    future.add_done_callback(calls.append)
    future.add_done_callback(calls.append)
    future.cancel()


def result_in_time(pool, futures):
    future = Future()
    futures.append((future, None))
    with pytest.raises(TimeoutError):
        future.result(0.0)


def wait_for_a_child(pool, futures):
    concurrent.futures.wait([pool.submit(int)], PATIENCE)


def wait_in_time(pool, futures):
    mine = [Future(), Future()]
    futures.extend((future, None) for future in mine)
    concurrent.futures.wait(mine, 0.0)


def as_completed(pool, futures):
    for future in concurrent.futures.as_completed([pool.submit(int), pool.submit(int)], PATIENCE):
        future.result()


def settle(pool, futures):
    future, calls = Future(), []
    futures.append((future, calls))
    future.add_done_callback(calls.append)
    future.add_done_callback(calls.append)
    future.set_running_or_notify_cancel()
    future.set_result(42)


def look(pool, futures):
    repr(pool)
    pool.stats()
    assert not current_worker().stopping.is_set()
    assert not current_worker().stopping.wait(0.0)


WAYS = [
    submit,
    submit_and_cancel,
    cancel,
    result_in_time,
    wait_for_a_child,
    wait_in_time,
    as_completed,
    settle,
    look,
]


def counts(frame):
    return is_ours(frame) or frame.f_code.co_filename in STANDARD


@pytest.mark.usefixtures("no_debug")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_it_surfaces_where_it_may(way, new_pool):
    pool = new_pool(2)
    steps = Steps(pool._engine.dispatch)
    with_idle(pool, 2)
    for n in range(2000):
        where = abort_at(n, way, pool, steps)
        if not where:
            break
    assert n > 15
    settled_and_free(steps.accepted)
    serves_on(pool)


def abort_at(n, way, pool, steps):
    futures, answers, aborted = [], [], []
    ask, asked = threading.Lock(), threading.Lock()
    ask.acquire()
    asked.acquire()

    def hold():
        ask.release()
        asked.acquire()

    places = Places(n, hold, counts)

    def parent():
        places.watch(lambda: way(pool, futures))

    def abort_it():
        ask.acquire()
        if places.where:
            aborted.extend(w for w in workers(pool) if w.gate.task is future)
            answers.append(abort(pool, aborted[0], future))
        asked.release()

    aborting = Elsewhere(abort_it)
    future = pool.submit(parent)
    error = future.exception(PATIENCE)
    if not places.where:
        ask.release()
    aborting.result()
    try:
        if places.where:
            assert answers[0] in ([True], [None])
            assert isinstance(error, TaskAbortedError), error
            aborted[0].thread.join(PATIENCE)
            assert elsewhere(is_free, aborted[0].gate.lock), "the gate is held"
        else:
            assert error is None
        assert is_free(pool._engine._orders._lock), "the engine's lock is held"
        for mine, calls in futures:
            if mine.cancelled() or (mine.done() and way is settle):
                assert calls == [mine, mine], "a callback was left out"
            assert is_free(mine._lock), "a future's lock is held"
            elsewhere(mine.settle, None, None)
    except BaseException as failure:
        failure.add_note(f"aborted at place {n}: {places.where}")
        raise
    return places.where
