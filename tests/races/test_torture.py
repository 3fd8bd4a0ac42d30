"""Thousands of hostile moments: what is forced elsewhere, one a file, comes here by chance.

All checks are of one kind: afterwards each accepted future was settled once and its callbacks ran
once, no lock is held, no thread and no task is left, no driver died, and no worker served after an
abort.

In the suite it runs small. `pytest -m soak tests/races` runs it at full scale;
RECYCLEPOOL_TORTURE=40 at ten times that (4 is what it is without).
"""

import concurrent.futures
import gc
import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections import Counter, deque
from functools import partial

import pytest
from forcing import Elsewhere, Rigged, abort, elsewhere, is_free, noop, told, until, workers

from recyclepool import PoolClosedError, RecyclePool, TaskAbortedError
from recyclepool._future import Future
from recyclepool._gate import Gate

PATIENCE = 60.0
FULL = float(os.environ.get("RECYCLEPOOL_TORTURE", "4"))

scales = pytest.mark.parametrize(
    "scale",
    [
        pytest.param(0.04, id="small"),
        pytest.param(
            FULL, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(900 * max(1.0, FULL))]
        ),
    ],
)

pytestmark = pytest.mark.usefixtures("no_debug")


class WatchedGate(Gate):
    """Counts the tasks that begin after an abort."""

    __slots__ = ("late",)

    def __init__(self):
        self.late = 0
        super().__init__()

    @property
    def task(self):
        return Gate.task.__get__(self)

    @task.setter
    def task(self, task):
        if task is not None and self.aborted:
            self.late += 1
        Gate.task.__set__(self, task)


class WatchedQueue(deque):
    """Remembers what was put in for good."""

    def __init__(self, count):
        super().__init__()
        self.accepted = {}
        self._count = count

    def append(self, task):
        task._done_callbacks = [self._count]
        super().append(task)
        self.accepted[id(task)] = task

    def remove(self, task):
        super().remove(task)
        self.accepted.pop(id(task), None)


class Watched:
    """A pool of which everything is remembered until inspect()."""

    def __init__(self, size):
        self.workers = []
        self.calls = Counter()
        self.settled_here = 0
        self.pool = RecyclePool(size, backend=Rigged(self._rig))
        self.submit = self.pool.submit
        self.engine = self.pool._engine
        self.dispatch = self.engine.dispatch
        self.dispatch.queue = WatchedQueue(self._call)

    def _rig(self, worker):
        worker.gate = WatchedGate()
        self.workers.append(worker)

    def _call(self, future):
        self.calls[id(future)] += 1

    def settle(self, future, error):
        """As a deadline does it. False: it has its end already."""
        if not future.settle(None, error):
            return False
        self.settled_here += 1
        future._invoke_callbacks()
        return True

    def inspect(self, *, exactly=True):
        """Close it, and look for damage. How many tasks it had."""
        Elsewhere(self.pool.close, PATIENCE).result()
        futures = list(self.dispatch.queue.accepted.values())
        for worker in self.workers:
            worker.thread.join(PATIENCE)
            assert not worker.thread.is_alive(), worker
            assert is_free(worker.gate.lock), "a gate is held"
            assert not worker.gate.late, "a worker served after an abort"
        assert is_free(self.engine._orders._lock), "the engine's lock is held"
        assert not self.engine._orders._orders
        assert not self.dispatch.queue
        assert not self.dispatch.idle
        assert not workers(self.pool)
        assert all(future.done() for future in futures), "a future was never settled"
        assert all(is_free(future._lock) for future in futures), "a future's lock is held"
        told(self.pool)
        if exactly:
            wrong = {self.calls[id(future)] for future in futures} - {1}
            assert not wrong, f"callbacks were called {wrong} times"
            total = self.engine.books.total()
            counted = total.completed + total.failed + total.aborted + total.cancelled
            assert counted + self.settled_here == len(futures)
        return len(futures)


@pytest.fixture(autouse=True)
def no_driver_dies(caplog):
    yield
    died = [r for r in caplog.records if r.levelno >= logging.CRITICAL]
    died += [r for r in caplog.records if r.name == "recyclepool" and r.levelno >= logging.ERROR]
    assert not [r.getMessage() for r in died]


@pytest.fixture
def switch_often():
    """Threads take turns every few bytecodes."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    yield
    sys.setswitchinterval(interval)


# ---- aborting what tasks do ---------------------------------------------------------------------


def task_kinds(pool, never, rng):
    """Sixteen ways to be hard to stop."""

    def submitting():
        while True:
            pool.submit(noop)

    def submitting_and_cancelling():
        while True:
            pool.submit(noop).cancel()

    def waiting_for_children():
        while True:
            pool.submit(noop).result()

    def waiting_for_ever():
        never.result()

    def waiting_with_timeouts():
        while True:
            try:
                never.result(0.0002)
            except TimeoutError:
                pass

    def waiting_the_standard_way():
        while True:
            children = [pool.submit(noop) for _ in range(3)]
            until = rng.choice(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
            concurrent.futures.wait(children, return_when=until)

    def iterating_the_standard_way():
        while True:
            for child in concurrent.futures.as_completed([pool.submit(noop) for _ in range(3)]):
                child.result()

    def waiting_the_standard_way_for_ever():
        concurrent.futures.wait([never, pool.submit(noop)])

    def waiting_in_a_callback():
        pool.submit(noop).add_done_callback(lambda _: pool.submit(noop).cancel())
        while True:
            pool.submit(noop).add_done_callback(lambda future: future.result())

    def looking():
        mine = Future()
        while True:
            repr(never), never.done(), mine.add_done_callback(id)
            mine._done_callbacks.clear()

    def spinning():
        while True:
            for _ in range(1000):
                pass

    def calling():
        def inner(n):
            return n and inner(n - 1)

        while True:
            inner(20)

    def swallowing():
        end = time.monotonic() + 0.003
        while time.monotonic() < end:
            try:
                while time.monotonic() < end:
                    pool.submit(noop)
            except BaseException:
                pass
        return "swallowed"

    def finishing():
        for _ in range(rng.randrange(3000)):
            pass

    def failing():
        for _ in range(rng.randrange(3000)):
            pass
        raise ValueError

    def finalizing():
        class Noisy:
            def __del__(self):
                pool.submit(noop)

        end = time.monotonic() + 0.003
        while time.monotonic() < end:
            Noisy()

    return list(locals().values())[3:]


@scales
@pytest.mark.parametrize("interval", [0.005, 0.00001])
def test_tasks_are_aborted(scale, interval, monkeypatch):
    """Half of them as at a deadline: the caller has his answer, the worker's own comes late."""
    swallowed = []  # by the interpreter, in finalizers: the abort is asked for again
    monkeypatch.setattr(sys, "unraisablehook", swallowed.append)
    watched, never = Watched(3), Future()
    outcomes = Counter()

    def abort_many(seed, rounds):
        rng = random.Random(seed)
        kinds = task_kinds(watched, never, rng)
        assert len(kinds) == 16
        for n in range(rounds):
            outcomes[abort_one(kinds[n % 16], rng, by_deadline=rng.random() < 0.5)] += 1

    def abort_one(kind, rng, by_deadline):
        future = watched.submit(kind)
        worker = None
        until(lambda: future.done() or running(future), kind.__name__)
        worker = running(future)
        if kind.__name__ not in ("finishing", "failing"):
            time.sleep(rng.choice((0, 0, 0.0001, 0.0005, 0.002)))  # its work
        if worker is not None:
            if by_deadline:
                watched.settle(future, TimeoutError("deadline"))
            pauses = (0.01 * 2**n for n in itertools.count())
            while worker.gate.task is future:
                abort(watched.pool, worker, future)
                again = time.monotonic() + next(pauses)
                until(partial(over_or_late, worker, future, again))
        error = future.exception(PATIENCE)
        assert error is None or isinstance(error, (TaskAbortedError, TimeoutError, ValueError))
        return type(error)

    def over_or_late(worker, future, again):
        return worker.gate.task is not future or time.monotonic() > again

    def running(future):
        return next((w for w in workers(watched.pool) if w.gate.task is future), None)

    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        aborting = [Elsewhere(abort_many, seed, max(16, int(600 * scale))) for seed in range(2)]
        for each in aborting:
            each.thread.join(900 * max(1.0, scale))
            each.result()
    finally:
        sys.setswitchinterval(before)
        never.cancel()
    watched.inspect()
    assert is_free(never._lock)
    assert outcomes[TaskAbortedError] > 3
    assert outcomes[TimeoutError] > 3


# ---- foreign code inside the pool's own ---------------------------------------------------------


@pytest.fixture
def alarm():
    """Call a handler every so often in the main thread."""

    def start(handler, seconds):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)

    outer = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, outer)


@scales
def test_signal_handlers_submit(scale, alarm, switch_often):
    watched, handled = Watched(3), []

    def handle(*_):
        handled.append(1)
        watched.submit(noop)

    alarm(handle, 0.0001)
    end = time.monotonic() + 20 * scale
    while time.monotonic() < end:
        mine = [watched.submit(noop) for _ in range(200)]
        mine[0].result(PATIENCE)
        concurrent.futures.wait(mine, PATIENCE)
    alarm(handle, 0)
    assert len(handled) > 20
    watched.inspect()


@scales
def test_interrupts_come(scale, alarm, switch_often, monkeypatch):
    """At any bytecode of submit, result and cancel. Each time both workers still serve."""
    watched, armed, interrupts, swallowed = Watched(2), [], 0, []
    monkeypatch.setattr(sys, "unraisablehook", swallowed.append)  # by a weakref callback

    def interrupt(*_):
        if armed:
            raise KeyboardInterrupt

    alarm(interrupt, 0.0003)
    end = time.monotonic() + 20 * scale
    while time.monotonic() < end:
        try:
            armed.append(1)
            while True:
                future = watched.submit(noop)
                future.add_done_callback(id)
                watched.submit(noop).cancel()
                future.result(PATIENCE)
                repr(future)
        except KeyboardInterrupt:
            armed.clear()
        except RuntimeError as error:
            armed.clear()
            if "un-acquired" not in str(error):  # from a release, after an acquire was broken off
                raise
        armed.clear()
        interrupts += 1
        barrier = threading.Barrier(2)
        for each in [watched.submit(barrier.wait, PATIENCE) for _ in range(2)]:
            each.result(PATIENCE)
    alarm(interrupt, 0)
    assert interrupts > 20
    watched.inspect(exactly=False)


@scales
def test_finalizers_submit(scale, switch_often):
    watched, finalized, thresholds, over = Watched(3), [], gc.get_threshold(), []

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            if not over:  # what is collected late would open the pool again
                finalized.append(1)
                watched.submit(noop)

    def make_garbage():
        Cycle()
        weakref.ref(Cycle(), lambda _: None)

    gc.set_threshold(7, 2, 2)
    try:
        for _ in range(int(1500 * scale)):
            mine = [watched.submit(make_garbage) for _ in range(20)]
            Cycle()
            for future in mine:
                future.result(PATIENCE)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    over.append(1)
    assert len(finalized) > 200
    watched.inspect()


# ---- dispatch -----------------------------------------------------------------------------------


@scales
def test_no_wake_up_is_lost(scale, switch_often):
    """Pairs of tasks that need each other, from two threads: all four workers are needed."""
    watched = Watched(4)

    def pair_up():
        for _ in range(int(25000 * scale)):
            barrier = threading.Barrier(2)
            for each in [watched.submit(barrier.wait, PATIENCE) for _ in range(2)]:
                each.result(PATIENCE)

    pairing = [Elsewhere(pair_up) for _ in range(2)]
    for each in pairing:
        each.thread.join(900 * max(1.0, scale))
        each.result()
    watched.inspect()


@scales
def test_young_pools_start_enough_workers(scale, switch_often):
    """The same in new pools: the second worker is started while the first takes a task."""
    for _ in range(int(5000 * scale)):
        pool = RecyclePool(2)
        barrier = threading.Barrier(2)
        for each in [pool.submit(barrier.wait, PATIENCE) for _ in range(2)]:
            each.result(PATIENCE)
        pool.close()


@scales
def test_pools_close_under_submitters(scale, switch_often):
    """Accepted tasks run, the others are refused; the pool may be open again by then."""
    rng = random.Random(1)
    for _ in range(int(200 * scale)):
        watched = Watched(2)
        watched.pool.shutdown = watched.pool.close

        def submit_until_refused(watched=watched):
            accepted = []
            dispatch = watched.dispatch
            try:
                while watched.engine.dispatch is dispatch:
                    accepted.append(watched.submit(int))
            except PoolClosedError:
                pass
            return accepted

        submitting = [Elsewhere(submit_until_refused) for _ in range(3)]
        time.sleep(rng.choice((0, 0.0001, 0.001)))  # their work
        elsewhere(watched.pool.close)
        for each in submitting:
            for future in each.result():
                assert future.result(PATIENCE) == 0
        watched.inspect(exactly=False)


# ---- settle -------------------------------------------------------------------------------------


@scales
def test_one_settles(scale, switch_often):
    """Two settle one future, three wait for it, each in another way."""
    for _ in range(int(2000 * scale)):
        settle_one()


def settle_one():
    future, seen, won = Future(), [], []
    future.begin()
    future.add_done_callback(seen.append)
    start = threading.Barrier(5)

    def settle(value):
        start.wait(PATIENCE)
        if future.settle(value, None):
            won.append(value)
            future._invoke_callbacks()

    def ask():
        start.wait(PATIENCE)
        seen.append(future.result(PATIENCE))

    def iterate():
        start.wait(PATIENCE)
        ended = concurrent.futures.as_completed([future], PATIENCE)
        seen.extend(each.result() for each in ended)

    def wait():
        start.wait(PATIENCE)
        done, pending = concurrent.futures.wait([future], PATIENCE, "FIRST_EXCEPTION")
        assert future.done()
        assert (done, pending) == ({future}, set())

    racing = [Elsewhere(settle, 1), Elsewhere(settle, 2), *map(Elsewhere, (ask, iterate, wait))]
    for each in racing:
        each.result()
    assert len(won) == 1
    assert Counter(map(id, seen)) == Counter(map(id, [future, won[0], won[0]]))
    assert is_free(future._lock)
    assert not future._waiters
