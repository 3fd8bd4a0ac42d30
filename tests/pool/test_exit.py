"""The end of the interpreter, each in a process of its own."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

ENDS = 30.0  # seconds after which a process is not going to end

PRELUDE = """\
import os, signal, sys, threading, time
from recyclepool import RecyclePool

def say(*words):  # in one write: threads speak at the same time
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def on_interrupt(signum, frame):
    if not noticed.is_set():
        noticed.set()
        raise KeyboardInterrupt

def interrupt():  # until it is noticed: a signal that comes just before a thread sleeps waits
    while not noticed.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

noticed = threading.Event()
signal.signal(signal.SIGINT, on_interrupt)
"""


def run(script, *, status=0):
    """Run a script; return the lines that it printed. Nothing may be said on stderr."""
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=ENDS,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    if not status:
        assert ended.stderr == ""
    return ended.stdout.splitlines()


def test_s12_queued_tasks_are_finished_at_exit():
    lines = run(
        """
        def work(n):
            time.sleep(0.01)
            say(n)

        pool = RecyclePool(1, finalizer=lambda: say("finalized"))
        for n in range(5):
            pool.submit(work, n)
        say("main ends")
        """
    )
    assert lines[-1] == "finalized"
    assert [line for line in lines if line.isdigit()] == list("01234")
    assert "main ends" in lines[:2]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_s12_a_pool_that_is_never_closed(workers):
    """Unused, and with idle workers; each of those is finalized."""
    lines = run(
        f"""
        pool = RecyclePool(
            3, min_workers={workers}, finalizer=lambda: say("finalized")
        )
        say(pool.start().result(20))
        """
    )
    assert lines == [str(workers), *["finalized"] * workers]


def test_s12_a_dropped_pool_with_tasks():
    lines = run(
        """
        go = threading.Event()
        futures = [RecyclePool(1).submit(lambda: (go.wait(20), say("ran")))]
        go.set()
        """
    )
    assert lines == ["ran"]


@pytest.mark.parametrize(("end", "status"), [("sys.exit(3)", 3), ("raise ValueError", 1)])
def test_s12_main_ends_otherwise(end, status):
    lines = run(
        f"""
        pool = RecyclePool(2)
        for n in range(4):
            pool.submit(lambda: (time.sleep(0.01), say("ran")))
        {end}
        """,
        status=status,
    )
    assert lines == ["ran"] * 4


def test_s12_a_thread_that_was_given_up_does_not_hold_the_exit():
    lines = run(
        """
        pool, started = RecyclePool(1), threading.Event()
        pool.submit(lambda: (started.set(), threading.Event().wait()))
        started.wait(20)
        report = pool.destroy(0.05)
        say(len(report.abandoned), pool.submit(int).result(20))
        """
    )
    assert lines == ["1 0"]


def test_s12_a_task_may_not_submit_while_the_interpreter_ends():
    """As with the standard's."""
    lines = run(
        """
        def task():
            while not pool._shutdown:
                time.sleep(0.001)
            try:
                pool.submit(say, "never")
            except RuntimeError as error:
                say(error)

        pool = RecyclePool(2)
        pool.submit(task)
        """
    )
    assert len(lines) == 1
    assert "cannot schedule new futures after" in lines[0]


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("new", [True, False])
def test_s12_submit_from_atexit(used, new):
    """A pool made before, used or not, and one made there: refused, in the standard's words."""
    lines = run(
        f"""
        import atexit

        if {used}:
            before = RecyclePool(1)
            before.submit(int).result(20)

        def late():
            pool = RecyclePool(1) if {new} or not {used} else before
            try:
                say(pool.submit(int).result(20))
            except RuntimeError as error:
                say(error)
            pool.close()
            pool.destroy()
            pool.shutdown()
            say("over")

        atexit.register(late)
        """
    )
    assert "cannot schedule new futures after" in lines[0]
    assert lines[1:] == ["over"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("where", ["result", "close"])
def test_s11_ctrl_c_in_the_main_thread(where):
    """The program ends, by the interrupt: a task that runs is stopped, none that waits runs."""
    script = {
        "result": "future.result()",
        "close": "pool.close()",
    }[where]
    lines = run(
        f"""
        def task():
            go.wait(20)
            try:
                interrupt()
                while True:
                    time.sleep(0.001)  # its work
            except BaseException as error:
                say(type(error).__name__)
                raise

        pool, go = RecyclePool(1, finalizer=lambda: say("finalized")), threading.Event()
        future, queued = pool.submit(task), pool.submit(say, "never")
        go.set()
        {script}
        say("never")
        """,
        status=-signal.SIGINT,
    )
    assert lines == ["TaskAbort", "finalized"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_s11_ctrl_c_inside_with():
    """As the standard's: on the way out of the block, what was accepted is finished."""
    lines = run(
        """
        def task():
            go.wait(20)
            interrupt()
            time.sleep(0.1)
            say("task over")

        go = threading.Event()
        with RecyclePool(1, finalizer=lambda: say("finalized")) as pool:
            future, queued = pool.submit(task), pool.submit(say, "queued")
            go.set()
            future.result()
        say("never")
        """,
        status=-signal.SIGINT,
    )
    assert lines == ["task over", "queued", "finalized"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_s11_ctrl_c_that_is_caught_harms_no_pool():
    lines = run(
        """
        def task():
            interrupt()
            return go.wait(20)

        pool, go, ready = RecyclePool(1), threading.Event(), threading.Event()
        future = pool.submit(lambda: ready.wait(20) and task())
        try:
            ready.set()
            future.result()
        except KeyboardInterrupt:
            say("interrupted")
        go.set()
        say(future.result(20), pool.submit(int).result(20), pool.close().completed >= 0)
        """
    )
    assert lines == ["interrupted", "True 0 True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("state", ["unused", "idle", "busy", "queued", "closed"])
def test_s13_a_forked_child_exits_cleanly(state):
    """It has none of the parent's threads: it waits for none, and runs none of its tasks."""
    lines = run(
        f"""
        import warnings
        warnings.simplefilter("ignore")

        def task():
            running.set()
            go.wait(20)
            say("ran in the parent" if os.getpid() == parent else "ran in the child")

        parent, state = os.getpid(), {state!r}
        running, go = threading.Event(), threading.Event()
        pool = RecyclePool(1)
        if state != "unused":
            pool.submit(int).result(20)
        if state in ("busy", "queued"):
            pool.submit(task)
            running.wait(20)
        if state == "queued":
            pool.submit(task)
        if state == "closed":
            pool.close()
        child = os.fork()
        if not child:
            sys.exit(7)  # by way of the interpreter's end
        _, status = os.waitpid(child, 0)
        say(os.waitstatus_to_exitcode(status))
        go.set()
        """
    )
    ran = {"busy": 1, "queued": 2}.get(state, 0)
    assert lines == ["7", *["ran in the parent"] * ran]
