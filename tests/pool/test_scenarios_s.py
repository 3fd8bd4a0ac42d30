"""Scenarios S: tasks, what they raise, what they hold, and where they submit from."""

import contextlib
import contextvars
import gc
import logging
import signal
import sys
import threading
import time
import weakref

import pytest
from staging import WAIT, abort, in_thread, until

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    TaskAbort,
    TaskAbortedError,
    TaskTimeoutError,
    current_worker,
)


class Thing:
    """What can be watched by a weak reference."""


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_s2_a_count_of_tasks_with_dying_workers_and_closes_never_hangs(new_pool, caplog, tasks):
    """A thread does not crash; the nearest is a callback that kills its worker."""
    caplog.set_level(logging.CRITICAL + 1, "recyclepool")
    pool = new_pool(3, limits=Limits(tasks=tasks))

    def die(_):
        raise SystemExit

    for cycle in range(15):
        futures = []
        for n in range(20):
            futures.append(pool.submit(divmod, n, 3))
            if n % 5 == cycle % 5:
                with contextlib.suppress(SystemExit):  # it is over already: this thread calls it
                    futures[-1].add_done_callback(die)
        if cycle % 3 == 0:
            pool.close()
        assert [future.result(WAIT) for future in futures] == [divmod(n, 3) for n in range(20)]
    pool.close()
    assert pool.stats().completed == 300


@pytest.mark.parametrize("outcome", ["result", "error", "keyword", "cancelled", "aborted", "late"])
def test_s3_an_idle_worker_holds_nothing_of_its_last_task(new_pool, new_spin, outcome):
    pool, spin = new_pool(1), new_spin()
    argument, made = Thing(), []

    def task(argument, keyword=None):
        if outcome == "error":
            raise ValueError(argument)
        if outcome in ("aborted", "late"):
            spin()
        made.append(weakref.ref(value := Thing()))
        return value

    watched = [weakref.ref(argument), weakref.ref(task)]
    if outcome == "keyword":
        future = pool.submit(task, None, keyword=argument)
    else:
        future = pool.submit(task, argument)
    if outcome == "cancelled":
        blocked = new_spin()
        future.result(WAIT)
        first = pool.submit(blocked)
        blocked.wait_started()
        future = pool.submit(task, argument)
        assert future.cancel()
        blocked.release()
        first.result(WAIT)
    elif outcome == "aborted":
        spin.wait_started()
        assert abort(pool, future, TaskTimeoutError("too long"))
    elif outcome == "late":
        spin.wait_started()
        assert future.settle(None, TaskTimeoutError("too long"))  # and nobody stops it
        spin.release()
    with contextlib.suppress(Exception):
        future.result(WAIT)
    del task, argument, future
    until(lambda: len(pool._engine.dispatch.idle) == len(pool._threads))
    watched += made
    del made[:]
    gc.collect()
    assert [reference() for reference in watched] == [None] * len(watched)


def test_s3_a_queued_future_that_is_settled_keeps_no_arguments(new_pool, new_hold, caplog):
    """Cancelled, or failed because its pool broke: the caller may keep the future for long."""
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    hold = new_hold()

    def initializer():
        hold()
        raise ValueError("fails")

    pool = new_pool(1, initializer=initializer)
    watched, futures = [], []
    for _ in range(2):
        thing = Thing()
        watched.append(weakref.ref(thing))
        futures.append(pool.submit(id, thing))
        del thing
    hold.wait_started()
    assert futures[1].cancel()
    assert watched[1]() is None
    hold.release()
    assert isinstance(futures[0].exception(WAIT), BrokenRecyclePool)
    until(lambda: pool.stats().failed_starts)
    gc.collect()
    assert watched[0]() is None


def test_s4_each_future_has_its_own_exception(new_pool, new_hold, new_spin, caplog):
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    hold = new_hold()

    def initializer():
        hold()
        raise ValueError("fails")

    pool = new_pool(2, initializer=initializer)
    futures = [pool.submit(int) for _ in range(6)]
    hold.release()
    errors = [future.exception(WAIT) for future in futures]
    assert {type(error) for error in errors} == {BrokenRecyclePool}
    assert len(set(map(id, errors))) == 6

    other, spin = new_pool(4), new_spin()
    futures = [other.submit(spin) for _ in range(4)]
    spin.wait_started(4)
    other.destroy()
    errors = [future.exception(WAIT) for future in futures]
    assert {type(error) for error in errors} == {TaskAbortedError}
    assert len(set(map(id, errors))) == 4


class Unusual(Exception):
    """Made with more than it tells; here that harms nobody, since nothing is pickled."""

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code

    def __reduce__(self):
        raise TypeError("not to be pickled")


class Rude(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain"),
        Unusual("unusual", 7),
        Rude("rude"),
        SystemExit(3),
        KeyboardInterrupt("in a task"),
        GeneratorExit(),
        StopIteration(5),
        ExceptionGroup("several", [ValueError(1), OSError(2)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_s10_whatever_a_task_raises_ends_up_in_its_future(new_pool, error):
    """In threads nothing is pickled: functions, arguments, results may be anything."""
    pool = new_pool(1)
    thread = pool.submit(threading.get_ident).result(WAIT)

    def task():
        raise error

    future = pool.submit(task)
    assert future.exception(WAIT) is error
    with pytest.raises(type(error)) as caught:
        future.result(0)
    assert caught.value is error
    assert pool.submit(threading.get_ident).result(WAIT) == thread, "the worker survives"
    assert pool.stats().failed == 1


def test_s10_what_cannot_be_pickled_is_no_matter(new_pool):
    pool = new_pool(1)
    lock = threading.Lock()
    assert pool.submit(lambda given: given, lock).result(WAIT) is lock


def test_s15_the_submitting_thread_may_end(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    futures = in_thread(lambda: [pool.submit(hold, n) for n in range(3)]).result()
    hold.release()
    assert [future.result(WAIT) for future in futures] == [0, 1, 2]


def test_s15_tasks_of_a_pool_whose_thread_has_gone_find_its_variables(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    variable = contextvars.ContextVar("variable")

    def submit():
        variable.set("from a thread that has gone")
        return pool.submit(lambda: (hold(), variable.get())[1])

    future = in_thread(submit).result()
    hold.release()
    assert future.result(WAIT) == "from a thread that has gone"


def test_s16_pools_inside_tasks_of_pools(new_pool):
    outer = new_pool(2)

    def task(n):
        inner = new_pool(2)
        me = current_worker()
        values = list(inner.map(lambda k: (k * n, current_worker().generation), range(5)))
        inner.submit(int).result(WAIT)
        report = inner.close(WAIT)
        inner.shutdown()
        assert repr(current_worker()) == repr(me)
        return values, report.timed_out

    for n, (values, timed_out) in enumerate(outer.map(task, range(6))):
        assert values == [(k * n, 1) for k in range(5)]
        assert not timed_out


def test_s16_a_task_may_end_another_pool_with_tasks_of_that_pool(new_pool, new_spin):
    """Not its own; and one pool inside itself by way of another is its own affair."""
    outer, inner, spin = new_pool(1), new_pool(1), new_spin()
    stuck = inner.submit(spin)
    spin.wait_started()
    report = outer.submit(inner.destroy, WAIT).result(WAIT)
    assert report.aborted == 1
    assert isinstance(stuck.exception(0), TaskAbortedError)


# -- S18: context variables -----------------------------------------------------------------------

request = contextvars.ContextVar("request", default=None)
database = contextvars.ContextVar("database", default=None)


@pytest.mark.parametrize("context", [None, "submitter"])
def test_s18_a_task_sees_its_submitters_variables(new_pool, context):
    pool = new_pool(1, context=context)

    def task(number):
        seen = request.get()
        request.set(f"set by task {number}")  # a copy: nobody else sees it
        return seen

    def submit(number):
        request.set(f"request {number}")
        seen = pool.submit(task, number).result(WAIT)
        return seen, request.get()

    for number in range(3):
        wanted = f"request {number}"
        outcome = contextvars.copy_context().run(submit, number)
        assert outcome == (wanted, wanted)
    assert pool.submit(task, 9).result(WAIT) is None


def test_s18_what_the_initializer_set_wins(new_pool):
    pool = new_pool(1, initializer=lambda: database.set("of this worker"))

    def submit():
        database.set("of the submitter")
        request.set("of the submitter")
        return pool.submit(lambda: (database.get(), request.get())).result(WAIT)

    assert contextvars.copy_context().run(submit) == ("of this worker", "of the submitter")


def test_s18_worker_is_the_standards_behaviour(new_pool):
    """What a task sets stays in the worker, and the submitter's is not seen."""
    pool = new_pool(1, context="worker", initializer=lambda: database.set("of this worker"))

    def task():
        seen = request.get(), database.get()
        request.set("set by the first task")
        return seen

    def submit():
        request.set("of the submitter")
        database.set("of the submitter")
        return [pool.submit(task).result(WAIT) for _ in range(2)]

    assert contextvars.copy_context().run(submit) == [
        (None, "of this worker"),
        ("set by the first task", "of this worker"),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_s18_a_variable_is_not_kept_alive_after_its_task(new_pool, fails):
    pool = new_pool(1)
    watched = []

    def task():
        if fails:
            raise ValueError
        watched.append(weakref.ref(request.get()))

    def submit():
        thing = Thing()
        watched.append(weakref.ref(thing))
        request.set(thing)
        return pool.submit(task)

    future = contextvars.copy_context().run(submit)
    assert isinstance(future.exception(WAIT), ValueError if fails else type(None))
    until(lambda: pool._engine.dispatch.idle)
    gc.collect()
    assert [reference() for reference in watched] == [None] * len(watched)
    assert future.done()  # and it is still here


# -- S19: foreign code in the middle of submit ----------------------------------------------------


def _is_inside_submit():
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "submit":
            return True
        frame = frame.f_back
    return False


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_s19_a_signal_handler_submits_inside_submit(new_pool):
    pool = new_pool(2)
    inside, handled, submitted = [], [], []

    def handle(signum, frame):
        inside.append(_is_inside_submit())
        handled.append(pool.submit(divmod, 7, 2))

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        deadline = time.monotonic() + WAIT
        while sum(inside) < 20 and time.monotonic() < deadline:
            submitted.append(pool.submit(divmod, 9, 4))
            if len(submitted) % 500 == 0:
                submitted[-1].result(WAIT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert sum(inside) >= 20
    assert all(future.result(WAIT) == (3, 1) for future in handled)
    assert all(future.result(WAIT) == (2, 1) for future in submitted)


@pytest.mark.parametrize("way", ["__del__", "weakref"])
def test_s19_what_the_collector_calls_submits_inside_submit(new_pool, way):
    pool = new_pool(2)
    inside, made = [], []

    def foreign(_=None):
        inside.append(_is_inside_submit())
        made.append(pool.submit(divmod, 7, 2))

    class Cycle:
        def __init__(self):
            self.itself = self

        if way == "__del__":

            def __del__(self):
                foreign()

    references = []
    futures = []
    gc.collect()
    gc.disable()
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(200):
            cycle = Cycle()
            if way == "weakref":
                references.append(weakref.ref(cycle, foreign))
            del cycle
            gc.enable()
            futures.append(pool.submit(divmod, 9, 4))
            gc.disable()
    finally:
        gc.set_threshold(*before)
        gc.enable()
    gc.collect()
    assert sum(inside) > 0
    assert len(inside) == 200
    assert all(future.result(WAIT) == (3, 1) for future in made)
    assert all(future.result(WAIT) == (2, 1) for future in futures)
    pool.close()
    assert pool.stats().completed == 400


# -- S20: a deadline strikes in the pool's own code -----------------------------------------------


@pytest.mark.parametrize("where", ["submit", "cancel", "result", "callback", "stats"])
def test_s20_a_task_is_timed_out_inside_the_pools_code(new_pool, where, monkeypatch):
    """No lock stays held, nothing is lost, and its slot goes on."""
    # The interpreter swallows, and tells of, an abort that surfaces in a weakref callback (GATE 2).
    # Who is told must be no Python code: the next abort would surface there.
    monkeypatch.setattr(sys, "unraisablehook", id)
    pool, other = new_pool(2), new_pool(1)
    made, calls, ended = [], [], []

    def callback(future):
        calls.append(future)
        sum(range(50))
        ended.append(future)

    def task(running):
        running.set()
        while True:
            future = other.submit(divmod, 7, 2)
            made.append(future)
            if where == "cancel":
                future.cancel()
            elif where == "result":
                future.result()
            elif where == "callback":
                future.add_done_callback(callback)
                future.cancel()
            elif where == "stats":
                other.stats()
                repr(other)

    for _ in range(15):
        running = threading.Event()
        future = pool.submit(task, running)
        assert running.wait(WAIT)
        until(lambda: made)
        (worker,) = [w for w in pool._engine.roster.workers if w.gate.task is future]
        backend = worker.backend
        assert abort(pool, future, TaskTimeoutError("too long"))
        deadline = time.monotonic() + WAIT
        while worker.thread.is_alive():  # an abort may be swallowed: it is asked for again
            backend.interrupt(future)
            worker.thread.join(0.01)
            assert time.monotonic() < deadline
        assert isinstance(future.exception(0), TaskTimeoutError)
        assert pool.submit(divmod, 9, 4).result(WAIT) == (2, 1)
        for future in made:
            assert future.cancelled() or future.result(WAIT) == (3, 1)
        until(lambda: len(ended) == len(calls))
        del made[:], calls[:], ended[:]
    assert other.submit(int).result(WAIT) == 0
    for each in pool, other:
        each.close(WAIT)
        assert each.stats().workers == ()


def test_s20_the_next_result_on_that_slot_is_the_next_tasks(new_pool, new_spin):
    pool, spin = new_pool(1), new_spin()
    future = pool.submit(spin, "late")
    queued = pool.submit(lambda: (current_worker().slot, current_worker().generation))
    spin.wait_started()
    assert abort(pool, future, TaskTimeoutError("too long"))
    assert isinstance(future.exception(0), TaskTimeoutError)
    assert queued.result(WAIT) == (0, 2)


def test_s20_an_abort_that_a_task_swallows_harms_nobody(new_pool):
    """Its worker still goes, and what it returns counts for nothing."""
    pool, started, swallowed = new_pool(1), threading.Event(), []

    def stubborn():
        started.set()
        try:
            while True:
                time.sleep(0.001)  # its work
        except TaskAbort:
            swallowed.append(1)
        return "late"

    future = pool.submit(stubborn)
    others = [pool.submit(divmod, n, 3) for n in range(5)]
    assert started.wait(WAIT)
    assert abort(pool, future, TaskTimeoutError("too long"))
    assert [other.result(WAIT) for other in others] == [divmod(n, 3) for n in range(5)]
    assert swallowed == [1]
    assert isinstance(future.exception(0), TaskTimeoutError)
    pool.close()
    assert pool.stats().completed == 5
