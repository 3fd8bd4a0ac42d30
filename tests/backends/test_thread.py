"""The thread backend keeps the contract; and so does another, which proves the seam."""

import importlib.metadata
import operator
import queue
import threading
from bisect import bisect_left
from time import monotonic

import pytest
from contract import WAIT, BackendContract, noted, stay, until, who

from recyclepool import RecyclePool, TaskAbortedError, backends
from recyclepool._gate import here
from recyclepool.states import BUCKETS


class TestThread(BackendContract):
    def factory(self):
        return backends.Thread()


class TestThreadWithoutInterrupt(BackendContract):
    interrupts = False

    def factory(self):
        return backends.Thread(interrupt=False)


def test_thread_is_the_default():
    with RecyclePool(1) as default, RecyclePool(1, backend="thread") as named:
        assert default.stats().backend == named.stats().backend == "thread"
        assert default.submit(who).result(WAIT) == (0, 1)


# -- a second backend: each worker's tasks run on a helper thread behind its driver ---------------


class Relay:
    """Makes them. It is no subclass of anything: a factory is what looks like one."""

    name = "relay"
    shares_objects = True
    can_kill = False

    def __call__(self, worker, hooks):
        return RelayBackend(worker, hooks)


class RelayBackend:
    """Sends each task to its helper, and waits for what comes back."""

    def __init__(self, worker, hooks):
        self.worker, self.hooks = worker, hooks
        self.opened = False
        self.sent, self.received = queue.SimpleQueue(), queue.SimpleQueue()
        self.helper = threading.Thread(target=self.help, daemon=True, name="relay")

    # in the driver

    def open(self):
        self.crew = here.crew
        self.helper.start()
        try:
            self.call(self.hooks.initializer or int, *self.hooks.initargs)
        except BaseException:
            self.sent.put(None)
            self.helper.join()
            raise
        self.opened = True

    def call(self, action, *args, **kwargs):
        """Have the helper do something, and wait for what comes of it."""
        self.sent.put((action, args, kwargs))
        value, error = self.received.get()
        if error is None:
            return value
        try:
            raise error
        finally:
            del error

    def serve(self):
        worker, dispatch = self.worker, self.worker.dispatch
        last_look = worker.resting = False
        while worker.leaving is None:
            try:
                task = dispatch.queue.popleft()
            except IndexError:
                if last_look:
                    return
                worker.idle_since = monotonic()
                last_look = dispatch.fall_asleep(worker)
                if not worker.handed:
                    continue
                task = worker.handed.pop()
            if task.begin():
                worker.tasks += 1
                if worker.tasks == worker.last_task:
                    self.hooks.on_last_task(worker)
                self.run(task)
            else:
                worker.tally.cancelled += 1
            del task

    def run(self, task):
        worker, tally = self.worker, self.worker.tally
        worker.task_started = started = monotonic()
        waited = started - task.queued_at
        tally.wait_counts[bisect_left(BUCKETS, waited)] += 1
        tally.wait_seconds += waited
        worker.gate.task = task
        value = error = None
        action, arguments = task.fn, task.args
        if task.context is not None:
            action, arguments = task.context.run, (task.fn, *task.args)
        try:
            value = self.call(action, *arguments, **(task.kwargs or {}))
        except BaseException as raised:
            error = raised
        worker.gate.task = action = arguments = None
        task.drop_call()
        ran = monotonic() - started
        tally.run_seconds += ran
        settled = task.settle(value, error)
        good = settled and error is None
        counts = tally.run_counts if good else tally.spoilt_counts
        counts[bisect_left(BUCKETS, ran)] += 1
        tally.failed += settled and not good
        if settled:
            task._invoke_callbacks()
        del task, error

    def interrupt(self, task):
        return False

    def kill(self):
        return False

    def close(self):
        worker, errors = self.worker, []
        if not self.helper.is_alive():
            return
        steps = worker.teardowns[::-1]
        if self.opened and self.hooks.finalizer is not None:
            steps.append(self.hooks.finalizer)
        for step in steps:
            try:
                self.call(step)
            except BaseException as error:
                errors.append(error)
        worker.teardowns.clear()
        worker.values.clear()
        worker.clear_cache()
        self.sent.put(None)
        self.helper.join()
        if errors:
            raise BaseExceptionGroup("while a worker closed", errors)

    # in the helper

    def help(self):
        here.worker, here.crew = self.worker, self.crew
        for action, args, kwargs in iter(self.sent.get, None):
            value = error = None
            try:
                value = operator.call(action, *args, **kwargs)
            except BaseException as raised:
                error = raised
            action = args = kwargs = None
            self.received.put((value, error))
            value = error = None


class TestRelay(BackendContract):
    interrupts = False

    def factory(self):
        return Relay()


def test_a_backend_as_an_object():
    with RecyclePool(2, backend=Relay()) as pool:
        names = {pool.submit(lambda: threading.current_thread().name).result(WAIT) for _ in "123"}
        assert names == {"relay"}
        assert pool.stats().backend == "relay"
        assert sum(pool.map(abs, range(-50, 0))) == 1275


class EntryPoint:
    name = "relay"

    def load(self):
        return Relay


@pytest.fixture
def installed(monkeypatch):
    """As if a distribution had installed it."""
    asked = []

    def entry_points(*, group):
        asked.append(group)
        return [EntryPoint()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return asked


def test_a_backend_by_its_entry_point(installed):
    with RecyclePool(1, backend="relay") as pool:
        assert pool.submit(who).result(WAIT) == (0, 1)
        assert pool.stats().backend == "relay"
    assert installed == ["recyclepool.backends"]


def test_what_is_built_in_needs_no_look_at_what_is_installed(installed):
    with RecyclePool(1, backend="thread") as pool:
        assert pool.submit(who).result(WAIT) == (0, 1)
    assert installed == []


def test_a_name_that_nearly_is_one(installed):
    with pytest.raises(ValueError, match="backend='relais' is not known: did you mean 'relay'"):
        RecyclePool(1, backend="relais")
    with pytest.raises(ValueError, match="known here: 'thread', 'relay'"):
        RecyclePool(1, backend="gpu")


def test_a_stuck_helper_is_given_up_with_its_worker(tmp_path):
    """The stack in the report is the driver's; the late result goes nowhere."""
    with RecyclePool(1, backend=Relay()) as pool:
        future = pool.submit(stay, tmp_path, "late")
        until(lambda: noted(tmp_path / "started"))
        (stuck,) = pool.destroy(0.05).abandoned
        assert (stuck.task_name, stuck.slot, stuck.generation) == ("stay", 0, 1)
        assert "received.get" in stuck.stack
        (tmp_path / "go").touch()
        until(lambda: pool.stats().abandoned == 0)
        assert isinstance(future.exception(0), TaskAbortedError)
        assert pool.submit(who).result(WAIT) == (0, 2)
