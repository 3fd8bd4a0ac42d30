"""An abort surfaces in a finalizer or a weakref callback, and the interpreter swallows it.

1. A task runs. The pool is destroyed: TaskAbort is injected.
2. It surfaces in a __del__ (a weakref callback) that the task's own code brought about. The
   interpreter prints it and goes on: the task runs on as if nothing had been.
3. The abort is asked for again, while the same task runs; it surfaces in the task.
"""

import sys
import threading

import pytest
from forcing import PATIENCE, by_finalizer, by_weakref, wait

from recyclepool import TaskAbortedError
from recyclepool.errors import TaskAbort


@pytest.mark.parametrize("come", [by_finalizer, by_weakref])
def test_it_is_asked_for_again(come, new_pool, monkeypatch):
    pool = new_pool(1)
    swallowed, inside, went_on = [], threading.Event(), []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: swallowed.append(args.exc_type))

    def swallow():
        inside.set()
        while True:
            pass

    def task():
        come(swallow)
        went_on.append(1)
        while True:
            pass

    future = pool.submit(task)
    wait(inside)
    report = pool.destroy(PATIENCE)
    assert swallowed == [TaskAbort]
    assert went_on == [1]
    assert isinstance(future.exception(), TaskAbortedError)
    assert report.aborted == 1
    assert not report.abandoned


def test_one_that_the_task_swallows(new_pool):
    """The same for a task that catches it: until its grace is over, or it gives up."""
    pool = new_pool(1)
    inside, caught = threading.Event(), []

    def task():
        while len(caught) < 3:
            try:
                inside.set()
                while True:
                    pass
            except TaskAbort:
                caught.append(1)
        return "swallowed"

    future = pool.submit(task)
    wait(inside)
    report = pool.destroy(PATIENCE)
    assert caught
    assert isinstance(future.exception(), TaskAbortedError)
    assert not report.abandoned
