# ruff: noqa: F401, F811 (fixtures are imported)
"""Scenarios A: stopping a worker that holds background work, and one that does not stop."""

import subprocess
import sys
import textwrap
import threading
import time

import pytest
from listening import Events, Obedient, new_stuck, no_lingering
from staging import WAIT, in_thread, until

from recyclepool import (
    Limits,
    Reason,
    State,
    TaskAbortedError,
    TeardownFailed,
    WorkerAbandoned,
    WorkerRetired,
    current_worker,
    per_worker,
)

SLACK = WAIT / 4  # what a busy machine may add to a bound


class Producer:
    """Like a client library's: what it is sent is written by a thread of its own, at a flush."""

    def __init__(self, written, stopping=None):
        self._written, self._buffer = written, []
        self._over = threading.Event() if stopping is None else stopping
        self._thread = threading.Thread(target=self._loop, name="producer")
        self._thread.start()

    def send(self, thing):
        self._buffer.append(thing)

    def _loop(self):
        self._over.wait(WAIT)
        self._written.extend(self._buffer)

    def end(self):
        self._over.set()
        self._thread.join(WAIT)


def end_by_finalizer(written):
    """The task makes it, and the pool's finalizer ends it."""
    local = threading.local()

    def producer():
        if not hasattr(local, "producer"):
            local.producer = Producer(written)
        return local.producer

    return producer, lambda: local.producer.end()


def end_by_teardown(written):
    """A generator of @per_worker."""

    @per_worker
    def producer():
        made = Producer(written)
        yield made
        made.end()

    return producer, None


def end_by_itself(written):
    """The thread itself watches `stopping`."""

    @per_worker
    def producer():
        return Producer(written, current_worker().stopping)

    return producer, None


WAYS = [end_by_finalizer, end_by_teardown, end_by_itself]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "end",
    [
        lambda pool: pool.close(),
        lambda pool: pool.close(WAIT),
        lambda pool: pool.destroy(WAIT),
        lambda pool: pool.shutdown(),
        lambda pool: pool.soft_restart().result(WAIT),
        lambda pool: [pool.recycle(slot).result(WAIT) for slot in range(2)],
    ],
    ids=["close", "close_in_time", "destroy", "shutdown", "soft_restart", "recycle"],
)
def test_a1_the_background_thread_of_a_worker_is_ended_with_it(new_pool, way, end):
    """At once, and all that it had buffered is written."""
    written, together = [], threading.Barrier(2)
    producer, finalizer = way(written)
    initialized = []

    def initializer():
        initialized.append(1)
        if len(initialized) > 2 and finalizer is not None:
            producer()  # so that there is one to be ended

    def task(n):
        together.wait(WAIT)  # each worker has one
        producer().send(n)

    pool = new_pool(2, initializer=initializer, finalizer=finalizer)
    for future in [pool.submit(task, n) for n in range(20)]:
        future.result(WAIT)
    began = time.monotonic()
    end(pool)
    assert time.monotonic() - began < 1.0 + SLACK
    until(lambda: len(written) == 20)
    assert sorted(written) == list(range(20))


@pytest.mark.parametrize("way", ["finalizer", "teardown", "stopping"])
def test_a1_so_does_the_exit_of_the_program(way):
    script = """
        import os, threading
        from recyclepool import RecyclePool, current_worker, per_worker

        WAY = {way!r}
        over = threading.Event()

        def loop(flag):
            flag.wait(20)
            os.write(1, b"flushed\\n")

        def start(flag):
            # Not a daemon, as workers are: the interpreter waits for it.
            thread = threading.Thread(target=loop, args=(flag,), daemon=False)
            thread.start()
            return thread

        @per_worker
        def background():
            thread = start(over)
            yield thread
            over.set()
            thread.join()

        def task():
            if WAY == "teardown":
                background()
            else:
                start(over if WAY == "finalizer" else current_worker().stopping)

        pool = RecyclePool(1, finalizer=over.set if WAY == "finalizer" else None)
        pool.submit(task).result(20)
        os.write(1, b"main ends\\n")
        """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script.replace("{way!r}", repr(way)))],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["main ends", "flushed"]


def stuck_in_here(stuck):
    stuck()


@pytest.mark.parametrize("grace", ["1h", 0.01])
def test_a2_a_task_that_never_ends_does_not_keep_a_close(new_pool, new_stuck, grace):
    """It returns half a second after its deadline, whatever Limits.grace says, and tells."""
    pool, stuck = new_pool(2, limits=Limits(grace=grace)), new_stuck()
    events = Events(pool)
    future = pool.submit(stuck_in_here, stuck)
    stuck.wait_started()
    assert pool.submit(divmod, 7, 2).result(WAIT) == (3, 1)
    began = time.monotonic()
    report = pool.close(0.1)
    assert 0.1 <= time.monotonic() - began < 0.1 + 0.5 + SLACK
    assert report.timed_out
    assert (report.completed, report.aborted) == (0, 1)
    (worker,) = report.abandoned
    assert worker.task_name == "stuck_in_here"
    assert "in stuck_in_here\n" in worker.stack
    assert (worker.slot, worker.generation) == (0, 1)
    assert isinstance(future.exception(0), TaskAbortedError)

    stats = pool.stats()  # it is shown and counted, and the pool goes on without it
    assert stats.abandoned == 1
    (shown,) = stats.workers
    assert (shown.state, shown.task_name) == (State.ABANDONED, "stuck_in_here")
    assert "in stuck_in_here\n" in shown.stack
    (stack,) = pool.stacks()
    assert (stack.state, stack.task_name) == (State.ABANDONED, "stuck_in_here")
    assert "in stuck_in_here\n" in stack.stack
    (event,) = events.wait_for(WorkerAbandoned)
    assert (event.reason, event.task_name) == (Reason.CLOSE, "stuck_in_here")
    assert sorted(f.result(WAIT) for f in [pool.submit(abs, -n) for n in range(9)]) == [*range(9)]
    stuck.release()
    until(lambda: pool.stats().abandoned == 0)
    assert isinstance(future.exception(0), TaskAbortedError)


def test_a2_one_that_ends_when_it_is_told_to_is_not_abandoned(new_pool):
    pool, endless = new_pool(1), Obedient()
    future = pool.submit(endless)
    endless.wait_started()
    report = pool.close(0.05)
    assert (report.timed_out, report.aborted, report.abandoned) == (True, 1, ())
    assert isinstance(future.exception(0), TaskAbortedError)
    assert pool.submit(int).result(WAIT) == 0


def test_a2_every_stuck_worker_is_named_and_they_share_the_time(new_pool, new_stuck):
    """Four need no more than one does."""
    pool, stuck = new_pool(4), new_stuck()
    for _ in range(4):
        pool.submit(stuck)
    stuck.wait_started(4)
    began = time.monotonic()
    report = pool.close(0.2)
    assert time.monotonic() - began < 0.2 + 0.5 + SLACK
    assert sorted(worker.slot for worker in report.abandoned) == [0, 1, 2, 3]
    assert pool.stats().abandoned == 4
    assert pool.submit(int).result(WAIT) == 0


def test_a2_one_that_was_abandoned_before_is_named_by_the_close_too(new_pool, new_stuck):
    pool, stuck = new_pool(2, limits=Limits(task_timeout=0.02, grace=0.5)), new_stuck()
    events = Events(pool)
    pool.submit(stuck_in_here, stuck)
    events.wait_for(WorkerAbandoned)
    report = pool.close()
    (worker,) = report.abandoned
    assert worker.task_name == "stuck_in_here"
    assert not report.timed_out
    assert pool.submit(int).result(WAIT) == 0
    assert pool.close().abandoned == ()  # that was another epoch's


def test_a3_workers_that_need_most_of_the_time_all_finish(new_pool):
    """The budget is one deadline: they are waited for in parallel, and their teardowns too."""
    timeout = 2.0
    together = threading.Barrier(4)
    pool = new_pool(4, finalizer=lambda: together.wait(WAIT))

    def work(n):
        together.wait(WAIT)
        time.sleep(0.3 * timeout)  # its work
        return n

    futures = [pool.submit(work, n) for n in range(4)]
    report = pool.close(timeout)
    assert not report.timed_out
    assert report.completed == 4
    assert [future.result(0) for future in futures] == [0, 1, 2, 3]


# -- A4: a finalizer for each worker --------------------------------------------------------------


def leave_by_recycle(pool):
    assert pool.recycle(0).result(WAIT) == 1


def leave_by_soft_restart(pool):
    assert pool.soft_restart().result(WAIT) == 1


def leave_by_request(pool):
    pool.submit(lambda: current_worker().request_recycle("it wants to")).result(WAIT)


def leave_by_tasks(pool):
    for _ in range(2):
        pool.submit(int).result(WAIT)


def leave_by_waiting(pool):
    pass


def leave_by_running(pool):
    assert pool.submit(Obedient()).exception(WAIT) is not None


def leave_by_cancel(pool):
    endless = Obedient()
    future = pool.submit(endless)
    endless.wait_started()
    assert pool.cancel(future)


LEAVE = {
    "recycle": (leave_by_recycle, {}, Reason.MANUAL),
    "soft_restart": (leave_by_soft_restart, {}, Reason.MANUAL),
    "request": (leave_by_request, {}, Reason.REQUESTED),
    "tasks": (leave_by_tasks, {"tasks": 3}, Reason.TASKS),
    "age": (leave_by_waiting, {"age": 0.02}, Reason.AGE),
    "idle": (leave_by_waiting, {"idle": 0.02}, Reason.IDLE),
    "task_timeout": (leave_by_running, {"task_timeout": 0.02}, Reason.TIMEOUT),
    "hang": (leave_by_running, {"hang": 0.02}, Reason.HANG),
    "cancel": (leave_by_cancel, {}, Reason.MANUAL),
}


@pytest.mark.parametrize("way", LEAVE)
def test_a4_the_finalizer_runs_once_per_worker_and_generation(new_pool, way):
    """And knows what for."""
    leave, limits, reason = LEAVE[way]
    finalized = []

    def finalizer():
        me = current_worker()
        finalized.append((me.slot, me.generation, me.leaving))

    pool = new_pool(1, limits=Limits(**limits), finalizer=finalizer)
    events = Events(pool)
    assert pool.submit(int).result(WAIT) == 0
    leave(pool)
    events.wait_for(WorkerRetired, slot=0, generation=1, reason=reason)
    assert finalized[0] == (0, 1, reason)
    pool.close()
    assert len(set(finalized)) == len(finalized)
    assert [generation for _, generation, _ in finalized] == [*range(1, len(finalized) + 1)]
    expected = 1 if way == "idle" else 2
    assert len(finalized) == expected or way in ("age", "task_timeout", "hang", "cancel")
    assert len(events.wait_for(WorkerRetired, len(finalized))) == len(finalized)


def test_a4_and_when_its_slot_is_no_more(new_pool):
    finalized = []
    pool = new_pool(
        3, min_workers=1, finalizer=lambda: finalized.append((current_worker().slot, "finalized"))
    )
    events, together = Events(pool), threading.Barrier(3)
    for future in [pool.submit(together.wait, WAIT) for _ in range(3)]:
        future.result(WAIT)
    pool.resize(1)
    events.wait_for(WorkerRetired, 2, reason=Reason.RESIZE)
    assert sorted(finalized) == [(1, "finalized"), (2, "finalized")]
    pool.destroy(WAIT)
    assert sorted(finalized) == [(slot, "finalized") for slot in range(3)]


@pytest.mark.parametrize("error", [ValueError("in the teardown"), SystemExit(3)])
@pytest.mark.parametrize("way", ["recycle", "tasks", "idle", "hang"])
def test_a4_a_finalizer_that_raises_is_an_event_and_no_tasks_matter(new_pool, way, error):
    leave, limits, reason = LEAVE[way]

    def finalizer():
        raise error

    pool = new_pool(1, limits=Limits(**limits), finalizer=finalizer)
    events = Events(pool)
    assert pool.submit(divmod, 7, 2).result(WAIT) == (3, 1)
    leave(pool)
    (event,) = events.wait_for(TeardownFailed, generation=1)
    assert type(error).__name__ in event.error
    events.wait_for(WorkerRetired, generation=1, reason=reason)
    assert pool.submit(divmod, 9, 4).result(WAIT) == (2, 1)
    report = pool.close()
    assert (report.abandoned, report.timed_out) == ((), False)
    assert pool.stats().failed == 0


@pytest.mark.parametrize("way", ["recycle", "tasks", "request", "idle", "task_timeout"])
def test_a4_a_finalizer_that_hangs_is_given_up(new_pool, new_stuck, way):
    """After Limits.grace; meanwhile and afterwards the pool serves."""
    leave, limits, reason = LEAVE[way]
    teardown = new_stuck()

    def finalizer():
        if current_worker().generation == 1:
            teardown()

    pool = new_pool(1, limits=Limits(**limits, grace=0.05), finalizer=finalizer)
    events = Events(pool)
    assert pool.submit(divmod, 7, 2).result(WAIT) == (3, 1)
    leave(pool)
    teardown.wait_started()
    assert pool.submit(divmod, 9, 4).result(WAIT) == (2, 1)
    (event,) = events.wait_for(WorkerAbandoned)
    assert (event.generation, event.reason, event.task_name) == (1, reason, None)
    assert "in finalizer\n" in event.stack
    assert pool.submit(divmod, 9, 4).result(WAIT) == (2, 1)
    assert pool.stats().abandoned == 1
    teardown.release()
    until(lambda: pool.stats().abandoned == 0)


def test_a4_without_grace_a_worker_that_has_no_teardown_is_not_given_up(new_pool):
    """It is never told to stop a task, and has nothing to do but to go."""
    pool = new_pool(2, limits=Limits(grace=0))
    events = Events(pool)
    for _ in range(20):
        assert pool.submit(int).result(WAIT) == 0
        pool.recycle(0).result(WAIT)
        assert pool.close().abandoned == ()
    assert events.of(WorkerAbandoned) == []


def test_a4_a_destroy_gives_a_finalizer_its_grace(new_pool, new_hold):
    """One that needs a while is waited for; one that needs more than the grace is given up."""
    finalized, hold = [], new_hold()
    pool = new_pool(1, finalizer=lambda: (hold(), finalized.append(1)))
    pool.submit(int).result(WAIT)
    destroying = in_thread(pool.destroy, WAIT)
    hold.wait_started()
    assert not destroying.is_over()
    hold.release()
    assert destroying.result().abandoned == ()
    assert finalized == [1]


# -- A5 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [*LEAVE, "close", "destroy", "shutdown"])
def test_a5_a_thread_of_the_task_learns_that_its_worker_is_to_go(new_pool, way):
    """By `stopping`, whatever makes it go."""
    leave, limits, _ = LEAVE.get(way, (None, {}, None))
    pool = new_pool(1, limits=Limits(**limits))
    told, watching = threading.Event(), threading.Event()

    def watch(stopping):
        watching.set()
        if stopping.wait(WAIT):
            told.set()

    def task():
        threading.Thread(target=watch, args=(current_worker().stopping,)).start()

    pool.submit(task).result(WAIT)
    assert watching.wait(WAIT)
    if leave is None:
        getattr(pool, way)()
    else:
        leave(pool)
    assert told.wait(WAIT)


def test_a5_or_that_its_slot_is_no_more(new_pool):
    pool, together = new_pool(2), threading.Barrier(2)

    def task():
        together.wait(WAIT)
        return current_worker().slot, current_worker().stopping

    flags = dict(future.result(WAIT) for future in [pool.submit(task) for _ in range(2)])
    pool.resize(1)
    assert flags[1].wait(WAIT)
    assert not flags[0].is_set()


def test_a5_it_is_not_told_before(new_pool):
    pool = new_pool(1, limits=Limits(age="1h", idle="1h", task_timeout="1h", hang="1h"))
    stopping = pool.submit(lambda: current_worker().stopping).result(WAIT)
    assert pool.submit(lambda: current_worker().stopping).result(WAIT) is stopping
    pool.stats()
    assert not stopping.is_set()
    pool.close()
    assert stopping.is_set()
