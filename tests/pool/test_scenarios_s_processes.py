"""Scenarios S11 to S13 in pools with limits: Ctrl-C, the interpreter's end, forks. In processes."""

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

ENDS = 30.0  # seconds after which a process is not going to end

PRELUDE = """\
import os, signal, sys, threading, time, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from recyclepool import *

def say(*words):  # in one write: threads speak at the same time
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def spin():
    while True:
        pass

def stuck():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()  # one C call: nothing gets through to it

def in_child(action):
    '''Fork; the child does this and ends without the interpreter's end. Its exit status.'''
    child = os.fork()
    if child:
        return wait_for(child)
    try:
        action()
        os._exit(0)
    except BaseException as error:
        say("child:", repr(error))
        os._exit(1)

def wait_for(child):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"
"""

needs_signals = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Program:
    """A script in a process of its own; its lines, and signals to it."""

    def __init__(self, script):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines, self.errors = [], ""
        self._said = queue.SimpleQueue()
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._listen)]
        for reader in self._readers:
            reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._said.put(self.lines[-1])

    def _listen(self):
        self.errors = self.process.stderr.read()

    def wait_for(self, word, timeout=ENDS):
        """False: it has not said so."""
        deadline = time.monotonic() + timeout
        try:
            while self._said.get(timeout=max(0.0, deadline - time.monotonic())) != word:
                pass
        except queue.Empty:
            assert timeout < ENDS, f"never said {word!r}: {self.lines}"
            return False
        return True

    def interrupt(self, noticed=None):
        """Send the signal; if it says when it has noticed, until it does.

        One that comes just before a sleep does not wake it: so it is everywhere in Python.
        """
        self.process.send_signal(signal.SIGINT)
        while noticed is not None and not self.wait_for(noticed, 0.5):
            assert self.process.poll() is None, (self.lines, self.errors)
            self.process.send_signal(signal.SIGINT)

    def end(self):
        """Its exit status; what it said is in `lines` and `errors`."""
        try:
            self.process.wait(ENDS)
        finally:
            self.process.kill()
            self.process.wait()
            for reader in self._readers:
                reader.join()
            self.process.stdout.close()
            self.process.stderr.close()
        return self.process.returncode


def run(script):
    """The lines of a program that ends well, and says nothing on stderr."""
    program = Program(script)
    status = program.end()
    assert (status, program.errors) == (0, "")
    return program.lines


# -- S11: Ctrl-C ----------------------------------------------------------------------------------


@needs_signals
@pytest.mark.parametrize("limits", ["None", 'Limits(task_timeout="1h", grace=10)'])
def test_s11_an_uncaught_ctrl_c_stops_what_runs_and_cancels_what_is_queued(limits):
    """The program ends by the interrupt; the running task gets TaskAbort, the others never run."""
    program = Program(
        f"""
        began = []

        def task():
            try:
                began.append(1)
                spin()
            except TaskAbort:
                say("aborted")
                raise

        pool = RecyclePool(1, limits={limits}, finalizer=lambda: say("finalized"))
        running = pool.submit(task)
        running.add_done_callback(lambda f: say(type(f.exception()).__name__))
        queued = pool.submit(say, "never")
        queued.add_done_callback(lambda f: say("cancelled", f.cancelled()))
        while not began:
            time.sleep(0.001)
        try:
            say("waiting")
            running.result()
        finally:
            say("interrupted")
        """
    )
    program.wait_for("waiting")
    program.interrupt("interrupted")
    assert program.end() == -signal.SIGINT
    assert "KeyboardInterrupt" in program.errors
    said = set(program.lines)
    assert program.lines.index("interrupted") < program.lines.index("aborted")
    said -= {"waiting", "interrupted"}
    assert said == {"aborted", "TaskAbortedError", "cancelled True", "finalized"}


@needs_signals
def test_s11_a_stuck_task_gets_its_grace_then_the_program_ends():
    program = Program(
        """
        pool = RecyclePool(1, limits=Limits(grace=0.3))
        began = []
        future = pool.submit(lambda: (began.append(1), stuck()))
        while not began:
            time.sleep(0.001)
        try:
            say("waiting")
            future.result()
        finally:
            say("interrupted")
        """
    )
    program.wait_for("waiting")
    program.interrupt("interrupted")
    began = time.monotonic()
    assert program.end() == -signal.SIGINT
    assert time.monotonic() - began < 0.3 + 0.5 + ENDS / 3


@needs_signals
def test_s11_the_second_ctrl_c_ends_at_once():
    """While the first one's grace goes on: an hour here."""
    program = Program(
        """
        began = []

        def task():
            while True:
                try:
                    began.append(1)
                    spin()
                except TaskAbort:
                    say("told to stop")

        pool = RecyclePool(1, limits=Limits(grace="1h"))
        future = pool.submit(task)
        while not began:
            time.sleep(0.001)
        try:
            say("waiting")
            future.result()
        finally:
            say("interrupted")
        """
    )
    program.wait_for("waiting")
    program.interrupt("interrupted")
    program.wait_for("told to stop")
    while program.process.poll() is None:
        program.interrupt()
        time.sleep(0.05)
    assert program.end() != 0
    assert "KeyboardInterrupt" in program.errors


@needs_signals
@pytest.mark.parametrize("where", ["with", "close", "shutdown"])
def test_s11_ctrl_c_while_the_main_thread_drains(where):
    """It breaks the wait off, and the exit stops what runs. `with` drains, as the standard's."""
    program = Program(
        f"""
        began = []

        def task():
            began.append(1)
            spin()

        def drain_with():
            with pool:
                try:
                    say("waiting")
                    future.result()
                finally:
                    say("first")

        def drain_close():
            say("waiting")
            pool.close()

        def drain_shutdown():
            say("waiting")
            pool.shutdown()

        pool = RecyclePool(1, limits=Limits(grace=5))
        future = pool.submit(task)
        while not began:
            time.sleep(0.001)
        try:
            drain_{where}()
        finally:
            say("broken off")
        """
    )
    program.wait_for("waiting")
    if where == "with":
        program.interrupt("first")
    program.interrupt("broken off")
    assert program.end() == -signal.SIGINT
    assert "KeyboardInterrupt" in program.errors


@needs_signals
def test_s11_ctrl_c_that_is_caught_leaves_a_pool_with_limits_as_it_was():
    program = Program(
        """
        pool = RecyclePool(1, limits=Limits(task_timeout="1h", age="1h"))
        go = threading.Event()
        future = pool.submit(lambda: go.wait(20))
        try:
            say("running")
            future.result()
        except KeyboardInterrupt:
            say("interrupted")
        queued = pool.submit(divmod, 7, 2)
        go.set()
        say(future.result(20), queued.result(20), pool.soft_restart().result(20))
        say(pool.close().completed >= 0)
        """
    )
    program.wait_for("running")
    program.interrupt("interrupted")
    assert program.end() == 0
    assert program.errors == ""
    assert program.lines == ["running", "interrupted", "True (3, 1) 1", "True"]


# -- S12: the interpreter's end -------------------------------------------------------------------


def test_s12_queued_tasks_are_finished_and_nobody_is_recycled():
    """A new worker for each task is part of finishing them; age and restarts are over."""
    lines = run(
        """
        pool = RecyclePool(1, limits=Limits(tasks=1, age="1h"), finalizer=lambda: say("finalized"))
        go = threading.Event()
        pool.submit(go.wait, 20)
        for n in range(5):
            pool.submit(say, n)
        restart = pool.soft_restart()
        threading.Thread(target=lambda: (time.sleep(0.05), go.set())).start()
        """
    )
    assert [line for line in lines if line.isdigit()] == list("01234")
    assert lines.count("finalized") == 6


@pytest.mark.parametrize(
    "limits",
    ["Limits(task_timeout=0.1, grace=0.1)", "Limits(hang=0.1, grace=0.1)", "Limits(grace=0.1)"],
)
def test_s12_a_stuck_task_with_a_deadline_does_not_hold_the_exit(limits):
    """Its time goes on while the interpreter ends; what was queued behind it runs."""
    lines = run(
        f"""
        pool = RecyclePool(1, limits={limits})
        view = pool.options(timeout=0.1) if "=0.1, " not in {limits!r} else pool
        late = view.submit(stuck)
        late.add_done_callback(lambda f: say(type(f.exception()).__name__))
        queued = pool.submit(say, "ran")
        while not late.running():
            time.sleep(0.001)
        say("main ends")
        """
    )
    assert sorted(lines) == ["TaskTimeoutError", "main ends", "ran"]


def test_s12_an_endless_task_with_a_deadline_is_stopped_at_exit():
    lines = run(
        """
        def task():
            try:
                spin()
            finally:
                say("stopped")

        pool = RecyclePool(1, finalizer=lambda: say("finalized"))
        pool.options(timeout=0.1).submit(task)
        """
    )
    assert lines == ["stopped", "finalized"]


@pytest.mark.parametrize("state", ["unused", "idle", "restarting", "failing"])
def test_s12_a_pool_with_limits_that_is_never_closed(state):
    """Its watchdog does not hold the exit, whatever it waits for."""
    lines = run(
        f"""
        import logging
        logging.getLogger("concurrent.futures").setLevel(100)
        logging.getLogger("recyclepool").setLevel(100)
        state, failing = {state!r}, []

        def initializer():
            if failing:
                raise OSError
            if current_worker().generation > 1:
                time.sleep(0.05)

        limits = Limits(age="1h", idle="1h", task_timeout="1h", hang="1h")
        pool = RecyclePool(2, limits=limits, initializer=initializer)
        if state != "unused":
            pool.submit(int).result(20)
        if state == "failing":
            failing.append(1)
        if state in ("restarting", "failing"):
            restart = pool.soft_restart()
            if state == "failing":
                say(type(restart.exception(20)).__name__)
        say("main ends")
        """
    )
    assert lines[-1] == "main ends"


def test_s12_an_abandoned_worker_does_not_hold_the_exit():
    """Of a pool that is open, and of one that broke of them."""
    lines = run(
        """
        import logging
        logging.getLogger("recyclepool").setLevel(100)
        for most in (1, 0):
            pool = RecyclePool(1, limits=Limits(task_timeout=0.05, grace=0.05, max_abandoned=most))
            say(type(pool.submit(stuck).exception(20)).__name__)
            while not pool.stats().abandoned:
                time.sleep(0.001)
            say(pool.stats().state)
        """
    )
    assert lines == ["TaskTimeoutError", "open", "TaskTimeoutError", "broken"]


# -- S13: fork ------------------------------------------------------------------------------------


@needs_fork
@pytest.mark.parametrize("state", ["unused", "idle", "busy", "queued", "restarting", "closed"])
def test_s13_the_child_has_a_fresh_pool_that_works(state):
    """With all its limits; the parent's is as it was."""
    lines = run(
        f"""
        state = {state!r}
        go, running = threading.Event(), threading.Event()
        pool = RecyclePool(2, min_workers=1, limits=Limits(
            age="1h", idle="1h", task_timeout="1h", tasks=100), name="forked")
        pending = []
        if state != "unused":
            pool.submit(int).result(20)
        if state in ("busy", "queued", "restarting"):
            pending = [pool.submit(lambda: (running.set(), go.wait(20))[1])]
            running.wait(20)
        if state == "queued":
            pending += [pool.submit(go.wait, 20) for _ in range(3)]
        restart = pool.soft_restart() if state == "restarting" else None
        if state == "closed":
            pool.close()

        def child():
            stats = pool.stats()
            assert (stats.queued, stats.workers, stats.state) == (0, (), "open"), stats
            for future in [*pending, *([restart] if restart and not restart.done() else [])]:
                error = future.exception(20)
                assert isinstance(error, WorkerLostError), error
            assert pool.submit(divmod, 7, 2).result(20) == (3, 1)
            assert pool.soft_restart().result(20) >= 1
            assert pool.start().result(20) >= 1
            late = pool.options(timeout=0.03).submit(spin)
            assert isinstance(late.exception(20), TaskTimeoutError)
            assert pool.wait_idle(20)
            events = []
            pool.subscribe(events.append)
            assert not pool.close(20).timed_out
            assert pool.submit(int).result(20) == 0
            pool.shutdown()
            say("child is well")

        say(in_child(child))
        go.set()
        say([future.result(20) for future in pending] == [True] * len(pending))
        say(pool.submit(divmod, 7, 2).result(20), pool.soft_restart().result(20) >= 0)
        """
    )
    assert lines == ["child is well", "0", "True", "(3, 1) True"]


@needs_fork
def test_s13_a_task_forks():
    """The child ends in the task; the parent's task goes on, and its pool."""
    lines = run(
        """
        pool = RecyclePool(2, limits=Limits(task_timeout="1h"))

        def task(n):
            def child():
                assert pool.submit(divmod, n, 2).result(20) == divmod(n, 2)
                assert current_worker(None) is not None or True
                pool.close(20)
            return in_child(child)

        say([future.result(20) for future in [pool.submit(task, n) for n in range(4)]])
        say(pool.submit(int).result(20), pool.stats().completed)
        """
    )
    assert lines == ["[0, 0, 0, 0]", "0 5"]


@needs_fork
def test_s13_a_task_forks_and_its_child_returns():
    """A driver that returns from it leaves: nothing of the parent's queue runs a second time."""
    lines = run(
        """
        pool, parent = RecyclePool(1, finalizer=lambda: say("final", os.getpid() == parent)), 0
        parent = os.getpid()
        children = []

        def task():
            child = os.fork()
            if child:
                children.append(child)
            return child

        def note(n):
            say("task", n, os.getpid() == parent)

        go = threading.Event()
        pool.submit(go.wait, 20)
        future = pool.submit(task)
        queued = [pool.submit(note, n) for n in range(3)]
        go.set()
        for each in queued:
            each.result(20)
        assert future.result(20) in children
        try:
            say("child", wait_for(children[0]))
        except ChildProcessError:
            pass
        pool.close()
        """
    )
    assert [line for line in lines if line.startswith("task")] == [
        f"task {n} True" for n in range(3)
    ]
    assert "final True" in lines
    assert "final False" not in lines
    assert "child hangs" not in lines


@needs_fork
def test_s13_preloaded_as_by_gunicorn():
    """Made and warmed before the forks, used in each child, which ends by the interpreter's end."""
    lines = run(
        """
        pool = RecyclePool(2, min_workers=2, name="preloaded", limits=Limits(age="1h"))
        pool.start().result(20)
        children = []
        for n in range(3):
            child = os.fork()
            if not child:
                assert pool.start().result(20) == 2
                futures = [pool.submit(abs, -k) for k in range(50)]
                assert [future.result(20) for future in futures] == [*range(50)]
                pool.submit(say, "queued in a child")
                sys.exit(n)
            children.append(child)
        say([wait_for(child) for child in children])
        assert pool.submit(int).result(20) == 0
        """
    )
    assert lines.count("queued in a child") == 3
    assert "[0, 1, 2]" in lines


@needs_fork
@pytest.mark.parametrize("limits", ["None", 'Limits(tasks=50, age="1h", task_timeout="1h")'])
@pytest.mark.parametrize("start", ["warm", "cold"])
def test_s13_a_fork_while_others_hammer_the_pool(start, limits):
    """The child's pool works: no lock of it is held by a thread that is not there.

    Cold: the first fork comes while the first worker starts, and what it needs is imported.
    """
    lines = run(
        f"""
        pool = RecyclePool(2, limits={limits})
        if {start!r} == "warm":
            pool.submit(int).result(20)
            pool.stats()
        over, submitted, events = [], [0], []
        pool.subscribe(events.append)

        def hammer(view):
            while not over:
                futures = [view.submit(divmod, n, 3) for n in range(5)]
                for future in futures:
                    future.result(20)
                pool.stats()
                submitted[0] += 5

        threads = [
            threading.Thread(target=hammer, args=(view,))
            for view in (pool, pool.options(timeout=20))
        ]
        restarter = threading.Thread(
            target=lambda: [over or pool.soft_restart().result(20) for _ in range(100)]
        )
        for thread in (*threads, restarter):
            thread.start()

        def child():
            assert pool.submit(divmod, 7, 2).result(10) == (3, 1)
            assert pool.options(timeout=10).submit(divmod, 7, 2).result(10) == (3, 1)
            assert pool.soft_restart().result(10) >= 1
            assert pool.stats().name == pool.name
            assert pool.wait_idle(10)
            assert not pool.close(10).timed_out
            other = RecyclePool(1)
            assert other.submit(int).result(10) == 0
            other.shutdown()

        for _ in range(25):
            status = in_child(child)
            if status != 0:
                say("a child:", status)
        over.append(True)
        for thread in (*threads, restarter):
            thread.join(20)
        say(submitted[0] > 0, pool.submit(int).result(20))
        """
    )
    assert lines == ["True 0"]


@needs_fork
def test_s13_a_shut_down_pool_stays_so_in_the_child():
    lines = run(
        """
        pool = RecyclePool(1)
        pool.submit(int).result(20)
        pool.shutdown()

        def child():
            try:
                pool.submit(int)
            except PoolClosedError:
                say("refused")

        say(in_child(child))
        """
    )
    assert lines == ["refused", "0"]
