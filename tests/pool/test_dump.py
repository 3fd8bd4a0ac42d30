"""recyclepool.dump(): every pool of the process as text, safe wherever a signal handler may run."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from staging import WAIT, until

import recyclepool
from recyclepool import Limits, RecyclePool

PACKAGE = os.path.dirname(recyclepool.__file__) + os.sep


def sections():
    """What is told of each pool, by its first line."""
    parts = {}
    for line in recyclepool.dump().splitlines():
        if line.startswith("<RecyclePool "):
            head = line
            parts[head] = []
        else:
            parts[head].append(line)
    return parts


def of(pool):
    """What is told of one."""
    (lines,) = [
        lines
        for head, lines in sections().items()
        if head.startswith(f"<RecyclePool {pool.name!r} ")
    ]
    return "\n".join(lines)


# ---- what it says -------------------------------------------------------------------------------


def test_it_tells_of_every_pool_by_name(new_pool, new_hold):
    hold = new_hold()
    second, first = new_pool(2, name="b"), new_pool(1, name="a")
    gone = new_pool(1, name="gone")
    gone.submit(int).result(WAIT)
    gone.shutdown()

    def busy_in_here():
        hold()

    first.submit(busy_in_here)
    hold.wait_started()
    second.options(name="resize image").submit(hold)
    hold.wait_started()
    second.submit(int).result(WAIT)
    until(lambda: len(second._engine.dispatch.idle) == 1)
    heads = [head for head in sections() if " 'a' " in head or " 'b' " in head or "gone" in head]
    assert heads == [repr(first), repr(second)]
    told = of(first)
    assert told.startswith("  worker 0.1 serving, for ")
    assert "busy_in_here'\n" in told.splitlines()[0] + "\n"
    assert ", in busy_in_here\n" in told
    assert "    hold()\n" in told
    busy, idle = (line for line in of(second).splitlines() if line.startswith("  worker "))
    assert busy.startswith("  worker 0.1 serving, for ")
    assert busy.endswith("in task 'resize image'")
    assert idle.startswith("  worker 1.1 serving, idle for ")
    hold.release()


def test_a_pool_that_did_nothing_is_one_line(new_pool):
    pool = new_pool(3)
    assert of(pool) == ""
    assert repr(pool) in recyclepool.dump().splitlines()


def test_no_pool_no_text():
    script = "import recyclepool; assert recyclepool.dump() == '', recyclepool.dump()"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_it_tells_who_starts_who_is_due_and_who_was_given_up(new_pool, new_hold):
    start, stuck = new_hold(), new_hold()
    calls = []

    def initializer():
        calls.append(1)
        if len(calls) > 1:
            start()

    pool = new_pool(1, initializer=initializer, limits=Limits(grace=0.02))
    pool.submit(int).result(WAIT)
    pool.recycle(0)
    start.wait_started()
    told = of(pool)
    assert "  worker 0.1 serving, due (manual), idle for " in told
    assert "  worker 0.2 starting\n" in told
    assert ", in initializer\n" in told
    start.release()
    until(lambda: [w.generation for w in pool.stats().workers] == [2])
    pool.options(timeout=0.02, name="lost one").submit(stuck)
    stuck.wait_started()
    until(lambda: pool.stats().abandoned == 1)
    told = of(pool)
    assert "  worker 0.2 abandoned, for " in told
    assert " in task 'lost one'\n" in told
    assert ", in __call__\n" in told
    stuck.release()
    until(lambda: not pool.stats().abandoned)


def test_it_is_there_from_an_own_task_and_from_a_callback(new_pool):
    pool, told = new_pool(1, name="mine"), []
    assert ", in dump\n" in pool.submit(recyclepool.dump).result(WAIT)
    future = pool.submit(int)
    future.add_done_callback(lambda _: told.append(recyclepool.dump()))
    until(lambda: told)
    assert "<RecyclePool 'mine' " in told[0]


# ---- in a signal handler ------------------------------------------------------------------------


class AtEachLine:
    """Calls dump() before each line of the package that this thread runs: as a handler would."""

    def __init__(self):
        self.texts, self.places = [], set()

    def _trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        self.places.add((frame.f_code, frame.f_lineno))
        self.texts.append(recyclepool.dump())
        return self._trace

    def watch(self, action):
        outer = sys.gettrace()
        sys.settrace(self._trace)
        try:
            return action()
        finally:
            sys.settrace(outer)


def test_in_the_midst_of_construction():
    """A pool is told of when all of it is there, and not before."""
    lines = AtEachLine()
    pool = lines.watch(lambda: RecyclePool(2, name="new", max_queue=3, limits=Limits(idle="1h")))
    assert len(lines.places) > 50
    assert "'new'" not in lines.texts[0]
    assert repr(pool) in lines.texts[-1].splitlines()
    pool.shutdown()


VERBS = {
    "submit": lambda pool: pool.submit(int).result(WAIT),
    "submit with a key": lambda pool: pool.options(key=7, timeout="1h").submit(int).result(WAIT),
    "map": lambda pool: list(pool.map_unordered(int, "123", buffersize=1)),
    "cancel": lambda pool: pool.submit(time.sleep, 0).cancel(),
    "stats": lambda pool: (pool.stats(), pool.stacks(), repr(pool), recyclepool.dump()),
    "recycle": lambda pool: pool.soft_restart().result(WAIT),
    "resize": lambda pool: (pool.resize(1), pool.resize(3)),
    "close": lambda pool: (pool.submit(int), pool.close()),
    "destroy": lambda pool: (pool.submit(int), pool.destroy()),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
def test_in_the_midst_of_a_verb(new_pool, verb):
    pool = new_pool(3, name="watched")
    lines = AtEachLine()
    lines.watch(lambda: verb(pool))
    assert len(lines.places) > 5
    assert all("<RecyclePool 'watched' " in text for text in lines.texts)
    assert pool.submit(int).result(WAIT) == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_in_a_real_handler_while_pools_come_work_and_go():
    """A thousand signals at whatever moments they come."""
    told = []
    outer = signal.signal(signal.SIGALRM, lambda *_: told.append(recyclepool.dump()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while len(told) < 300:
            with RecyclePool(2) as pool:
                list(pool.map(int, "1234567"))
                pool.options(key="key").submit(int).result(WAIT)
                pool.soft_restart().result(WAIT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer)
    assert any(" serving" in text for text in told)


def test_while_another_thread_holds_what_there_is_to_hold(new_pool):
    """The engine's lock and a future's: to tell takes none of them."""
    pool = new_pool(1)
    future = pool.submit(int)
    future.result(WAIT)
    held, over = threading.Event(), threading.Event()

    def hold():
        with pool._engine._orders._lock, future._lock, pool._engine.looking:
            held.set()
            assert over.wait(WAIT)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(WAIT)
    told, mine = [], threading.Thread(target=lambda: told.append(recyclepool.dump()))
    mine.start()
    mine.join(WAIT / 4)
    hung = mine.is_alive()
    over.set()
    thread.join(WAIT)
    mine.join(WAIT)
    assert not hung
    assert told


IMPORTED = """
import sys, threading, traceback

import recyclepool
from recyclepool import RecyclePool

module = sys.argv[1]
pool, go, started = RecyclePool(1), threading.Event(), threading.Event()

def task():
    started.set()
    go.wait(20)

future = pool.submit(task)
started.wait(20)
wrong, texts = [], []

def trace(frame, event, _):
    if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == module:
        sys.modules["linecache"].clearcache() if "linecache" in sys.modules else None
        try:
            texts.append(recyclepool.dump())
        except BaseException:
            wrong.append(f"line {frame.f_lineno}: {traceback.format_exc(limit=-3)}")
    return trace

late = module not in sys.modules
if late:
    sys.settrace(trace)
    __import__(module)
    sys.settrace(None)
    assert texts or wrong, "no line of it was run"
assert "in task" in recyclepool.dump()
go.set()
pool.shutdown()
print(len(wrong), *wrong[:1])
"""

# What the package or the standard's printing of stacks imports late, on some version or other.
LATE = [
    "traceback",
    "linecache",
    "tokenize",
    "token",
    "re",
    "ast",
    "_colorize",
    "dataclasses",
    "asyncio",
    "inspect",
    "random",
    "recyclepool._stats",
    "recyclepool._watchdog",
    "recyclepool._inject",
    "recyclepool.limits",
    "recyclepool.events",
    "recyclepool.snapshots",
]


@pytest.mark.parametrize("module", LATE)
def test_in_the_midst_of_an_import(module):
    """At each line of a module's first import. What is imported with the package is no case."""
    if module == "_colorize" and sys.version_info < (3, 13):
        pytest.skip("not in this version")
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTED, module],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=Path(PACKAGE).parent,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "0", ran.stdout
