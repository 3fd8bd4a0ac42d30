"""What every backend promises. Each has its own subclass, which says what makes its workers.

The tasks here are functions of this module, and speak to the test by files and results: so they
mean the same where a task runs in another process. What needs shared objects says so.
"""

import contextvars
import gc
import threading
import time
import weakref
from pathlib import Path

import pytest

from recyclepool import (
    BrokenRecyclePool,
    Limits,
    OutsideWorkerError,
    PoolState,
    RecyclePool,
    TaskAbortedError,
    current_worker,
    per_worker,
)

WAIT = 20.0  # seconds after which something that was to happen never will


def until(happened):
    deadline = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


# -- what runs in the workers ---------------------------------------------------------------------

state = {}


def note(path, what):
    """Tell the test: one line in a file."""
    with open(path, "a") as file:
        file.write(f"{what}\n")


def noted(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def who(*_, **__):
    me = current_worker()
    return me.slot, me.generation


def initialize(path, value):
    state[who()] = value
    note(path, f"initialized {who()}")


def initialized():
    return state.get(who())


def fail_to_initialize(path):
    note(path, "tried")
    raise OSError("no initializer today")


def fail_unless(path):
    if not Path(path).exists():
        raise OSError("no initializer yet")


def raise_it(error):
    raise error


def stay(directory, value=None):
    """Stay in the worker until the test makes the file "go"."""
    note(directory / "started", who())
    deadline = time.monotonic() + WAIT
    while not (directory / "go").exists():
        assert time.monotonic() < deadline, "nobody let go"
        time.sleep(0.001)  # its work
    return value


@per_worker
def connection():
    made = object()
    yield id(made), who()
    note(current_worker().cache["path"], f"torn down {who()}")


def connect(path):
    current_worker().cache["path"] = path
    return connection()


def count_in_cache():
    cache = current_worker().cache
    cache["count"] = cache.get("count", 0) + 1
    return cache["count"]


class Finalizer:
    def __init__(self, path, error=None):
        self.path, self.error = path, error

    def __call__(self):
        note(self.path, f"finalized {who()}")
        if self.error is not None:
            raise self.error


class Thing:
    """What can be watched by a weak reference."""


variable = contextvars.ContextVar("variable", default="unset")


# -- the promises ---------------------------------------------------------------------------------


class BackendContract:
    """The promises of a backend's verbs, seen through a pool."""

    interrupts = True  # a running task that is not inside C code can be stopped

    def factory(self):
        raise NotImplementedError

    @pytest.fixture
    def new_pool(self, tmp_path):
        made = []

        def make(*args, **kwargs):
            made.append(RecyclePool(*args, backend=self.factory(), **kwargs))
            return made[-1]

        yield make
        note(tmp_path / "go", "on")
        for pool in made:
            if pool.stats().state is not PoolState.SHUTDOWN:
                pool.destroy(WAIT)
            pool.shutdown()

    @pytest.fixture
    def shared_objects(self):
        if not self.factory().shares_objects:
            pytest.skip("its tasks do not see the test's objects")

    # open

    def test_open_runs_the_initializer_before_any_task_and_once(self, new_pool, tmp_path):
        path = tmp_path / "notes"
        pool = new_pool(1, initializer=initialize, initargs=(path, "value"))
        assert [pool.submit(initialized).result(WAIT) for _ in range(3)] == ["value"] * 3
        assert noted(path) == ["initialized (0, 1)"]

    def test_open_is_over_before_start_is(self, new_pool, tmp_path):
        path = tmp_path / "notes"
        pool = new_pool(2, min_workers=2, initializer=initialize, initargs=(path, "value"))
        assert pool.start().result(WAIT) == 2
        assert len(noted(path)) == 2

    def test_open_that_raises_breaks_the_pool(self, new_pool, tmp_path, caplog):
        caplog.set_level(51, "concurrent.futures")
        path = tmp_path / "notes"
        pool = new_pool(
            1, initializer=fail_to_initialize, initargs=(path,), finalizer=Finalizer(path)
        )
        error = pool.submit(who).exception(WAIT)
        assert isinstance(error, BrokenRecyclePool)
        assert "no initializer today" in str(error)
        pool.close()
        assert noted(path) == ["tried"], "a finalizer answers to an initializer that succeeded"

    def test_open_may_be_tried_again(self, new_pool, tmp_path, caplog):
        caplog.set_level(51, "concurrent.futures")
        path = tmp_path / "fine"
        pool = new_pool(1, initializer=fail_unless, initargs=(path,))
        assert isinstance(pool.submit(who).exception(WAIT), BrokenRecyclePool)
        note(path, "from now on")
        pool.close()
        assert pool.submit(who).result(WAIT)[0] == 0

    # serve

    def test_serve_runs_what_is_queued_in_order(self, new_pool, tmp_path):
        path = tmp_path / "notes"
        pool = new_pool(1)
        futures = [pool.submit(note, path, n) for n in range(50)]
        assert [future.result(WAIT) for future in futures] == [None] * 50
        assert noted(path) == [str(n) for n in range(50)]

    def test_serve_passes_arguments_and_results(self, new_pool):
        pool = new_pool(2)
        assert pool.submit(divmod, 7, 2).result(WAIT) == (3, 1)
        assert pool.submit(int, "ff", base=16).result(WAIT) == 255
        assert pool.submit(dict, a=1).result(WAIT) == {"a": 1}
        assert pool.submit(dict).result(WAIT) == {}

    @pytest.mark.parametrize(
        "error",
        [ValueError("plain"), SystemExit(3), KeyboardInterrupt("in a task")],
        ids=lambda error: type(error).__name__,
    )
    def test_serve_leaves_errors_in_futures(self, new_pool, error):
        pool = new_pool(1)
        raised = pool.submit(raise_it, error).exception(WAIT)
        assert type(raised) is type(error)
        assert raised.args == error.args
        assert pool.submit(who).result(WAIT) == (0, 1), "the worker survives"

    def test_serve_passes_by_what_was_cancelled(self, new_pool, tmp_path):
        pool = new_pool(1)
        running = pool.submit(stay, tmp_path, "ran")
        until(lambda: noted(tmp_path / "started"))
        cancelled = [pool.submit(note, tmp_path / "never", n) for n in range(5)]
        last = pool.submit(who)
        assert all(future.cancel() for future in cancelled)
        note(tmp_path / "go", "on")
        assert running.result(WAIT) == "ran"
        assert last.result(WAIT) == (0, 1)
        assert noted(tmp_path / "never") == []
        until(lambda: pool.stats().cancelled == 5)

    def test_serve_counts(self, new_pool):
        pool = new_pool(1)
        for n in range(5):
            pool.submit(divmod, 7, n).exception(WAIT)
        pool.close()
        stats = pool.stats()
        assert (stats.submitted, stats.completed, stats.failed) == (5, 4, 1)
        assert (stats.run.count, stats.wait.count) == (5, 5)
        assert stats.busy_seconds >= 0

    def test_serve_shows_what_runs(self, new_pool, tmp_path):
        pool = new_pool(1)
        future = pool.submit(stay, tmp_path)
        until(lambda: noted(tmp_path / "started"))
        (worker,) = pool.stats().workers
        assert (worker.task_name, worker.tasks, worker.idle_for) == ("stay", 1, None)
        assert worker.task_running >= 0
        assert future.running()
        note(tmp_path / "go", "on")
        future.result(WAIT)
        until(lambda: pool.stats().workers[0].idle_for is not None)
        assert pool.stats().workers[0].task_name is None

    def test_serve_ends_when_the_worker_has_had_its_tasks(self, new_pool, tmp_path):
        """The hook of the last task: a successor starts, and takes over in the same slot."""
        path = tmp_path / "notes"
        pool = new_pool(1, limits=Limits(tasks=3), finalizer=Finalizer(path))
        futures = [pool.submit(who) for _ in range(9)]
        assert [future.result(WAIT) for future in futures] == [(0, 1 + n // 3) for n in range(9)]
        pool.close()
        stats = pool.stats()
        assert stats.recycles["tasks"] == 3
        assert sorted(set(noted(path))) == sorted(noted(path))

    def test_serve_ends_when_the_pool_closes(self, new_pool, tmp_path):
        """After everything that was accepted."""
        pool = new_pool(2)
        futures = [pool.submit(who) for _ in range(40)]
        pool.close()
        assert all(future.exception(0) is None for future in futures)
        assert pool.stats().workers == ()

    def test_serve_runs_callbacks_before_the_next_task(self, new_pool, shared_objects):
        """Settled, told, and only then available."""
        pool, order, go = new_pool(1), [], threading.Event()
        first = pool.submit(go.wait, WAIT)
        first.add_done_callback(lambda _: order.append("callback"))
        second = pool.submit(order.append, "task")
        go.set()
        first.result(WAIT)
        second.result(WAIT)
        assert order == ["callback", "task"]

    def test_serve_holds_nothing_while_idle(self, new_pool, shared_objects):
        pool, thing = new_pool(1), Thing()
        watched = weakref.ref(thing)
        future = pool.submit(id, thing)
        future.result(WAIT)
        del thing
        until(lambda: pool.stats().workers[0].idle_for is not None)
        until(lambda: pool._engine.dispatch.idle)
        gc.collect()
        assert watched() is None
        assert future.done()

    def test_serve_shows_the_submitters_context(self, new_pool, shared_objects):
        pool = new_pool(1)

        def submit():
            variable.set("of the submitter")
            return pool.submit(variable.get)

        assert contextvars.copy_context().run(submit).result(WAIT) == "of the submitter"
        assert pool.submit(variable.get).result(WAIT) == "unset"

    # what a task sees

    def test_a_task_knows_its_worker(self, new_pool):
        pool = new_pool(3, min_workers=3)
        pool.start().result(WAIT)
        slots = {future.result(WAIT)[0] for future in [pool.submit(who) for _ in range(30)]}
        assert slots <= {0, 1, 2}
        with pytest.raises(OutsideWorkerError):
            current_worker()

    def test_a_task_may_not_end_its_own_pool(self, new_pool, shared_objects):
        pool = new_pool(1)
        for end in (pool.close, pool.destroy, pool.shutdown):
            error = pool.submit(end).exception(WAIT)
            assert isinstance(error, RuntimeError)
            assert "it would wait for itself" in str(error)
        assert pool.submit(who).result(WAIT) == (0, 1)

    def test_per_worker_values_and_cache_stay_and_go_with_the_worker(self, new_pool, tmp_path):
        path = tmp_path / "notes"
        pool = new_pool(1, finalizer=Finalizer(path))
        first = [pool.submit(connect, path).result(WAIT) for _ in range(3)]
        assert len(set(first)) == 1
        assert [pool.submit(count_in_cache).result(WAIT) for _ in range(3)] == [1, 2, 3]
        pool.close()
        assert noted(path) == ["torn down (0, 1)", "finalized (0, 1)"]
        assert pool.submit(count_in_cache).result(WAIT) == 1
        assert pool.submit(connect, path).result(WAIT)[1] == (0, 2)

    def test_stopping_is_set_when_the_worker_is_to_go(self, new_pool, shared_objects):
        pool = new_pool(1)
        flag = pool.submit(lambda: current_worker().stopping).result(WAIT)
        assert not flag.is_set()
        pool.close()
        assert flag.is_set()

    # interrupt and kill

    def test_interrupt_ends_a_running_task(self, new_pool, tmp_path):
        if not self.interrupts:
            pytest.skip("it cannot: a task that does not look at `stopping` is abandoned")
        pool = new_pool(1)
        future = pool.submit(stay, tmp_path)
        until(lambda: noted(tmp_path / "started"))
        report = pool.destroy(WAIT)
        assert isinstance(future.exception(0), TaskAbortedError)
        assert (report.aborted, report.abandoned) == (1, ())
        assert pool.stats().abandoned == 0
        assert pool.submit(who).result(WAIT) == (0, 2)

    def test_interrupt_of_what_does_not_run_here_is_too_late(self, new_pool, tmp_path):
        pool = new_pool(1)
        over = pool.submit(who)
        over.result(WAIT)
        running = pool.submit(stay, tmp_path, "unharmed")
        until(lambda: noted(tmp_path / "started"))
        (worker,) = pool._engine.roster.workers
        assert worker.backend.interrupt(over) is False
        note(tmp_path / "go", "on")
        assert running.result(WAIT) == "unharmed"

    def test_kill_is_true_where_it_can_be_done_again_and_again(self, new_pool, tmp_path):
        pool = new_pool(1)
        pool.submit(stay, tmp_path)
        until(lambda: noted(tmp_path / "started"))
        (worker,) = pool._engine.roster.workers
        can = self.factory().can_kill
        assert [worker.backend.kill() for _ in range(3)] == [can] * 3

    def test_a_worker_that_stays_is_given_up(self, new_pool, tmp_path):
        """Killed, or abandoned: its future is settled, its slot free, and what is late is lost."""
        pool = new_pool(1)
        future = pool.submit(stay, tmp_path, "late")
        until(lambda: noted(tmp_path / "started"))
        report = pool.destroy(0.05)
        assert isinstance(future.exception(0), TaskAbortedError)
        assert report.aborted == 1
        assert pool.submit(who).result(WAIT) == (0, 2)
        note(tmp_path / "go", "on")
        until(lambda: pool.stats().abandoned == 0)
        assert isinstance(future.exception(0), TaskAbortedError)
        pool.close()
        assert pool.stats().completed == 1

    # close

    @pytest.mark.parametrize("end", ["close", "destroy", "shutdown"])
    def test_close_runs_the_finalizer_once_for_each_worker(self, new_pool, tmp_path, end):
        path = tmp_path / "notes"
        pool = new_pool(2, min_workers=2, finalizer=Finalizer(path))
        pool.start().result(WAIT)
        getattr(pool, end)()
        assert sorted(noted(path)) == ["finalized (0, 1)", "finalized (1, 1)"]

    def test_close_that_raises_reaches_no_task(self, new_pool, tmp_path, caplog):
        path = tmp_path / "notes"
        pool = new_pool(
            1, limits=Limits(tasks=2), finalizer=Finalizer(path, OSError("in the finalizer"))
        )
        futures = [pool.submit(divmod, n, 2) for n in range(6)]
        assert [future.result(WAIT) for future in futures] == [divmod(n, 2) for n in range(6)]
        report = pool.close()
        assert not report.timed_out
        until(lambda: "in the finalizer" in caplog.text)
        assert len(noted(path)) == len(set(noted(path))) >= 3

    def test_close_leaves_no_thread(self, new_pool):
        before = set(threading.enumerate())
        pool = new_pool(3, min_workers=3)
        pool.start().result(WAIT)
        assert set(threading.enumerate()) != before
        pool.close()
        until(lambda: set(threading.enumerate()) <= before)

    def test_close_and_open_again_and_again(self, new_pool):
        pool = new_pool(2)
        for epoch in range(1, 11):
            assert pool.submit(who).result(WAIT) == (0, epoch)
            (pool.close if epoch % 2 else pool.destroy)()
