"""Measures that need a fresh process for every sample: memory and import."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from .loads import OURS, POOLS, REQUEST, STDLIB, noop

ROOT = Path(__file__).parent.parent

IMPORTS = {
    OURS: "from recyclepool import RecyclePool",
    STDLIB: "from concurrent.futures.thread import ThreadPoolExecutor",
}

TIMED = """\
from time import perf_counter
start = perf_counter()
{statement}
print((perf_counter() - start) * 1e3)
"""


def run(*args: str, python: str = sys.executable, seconds: float = 100) -> str:
    """What a fresh interpreter prints. It may write bytecode: compiling is not what we time."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [python, *args],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=seconds,
        check=True,
        text=True,
    )
    return done.stdout


def import_ms(pool: str) -> float:
    """Milliseconds that the import alone takes, without the start of the interpreter."""
    return float(run("-c", TIMED.format(statement=IMPORTS[pool])))


def queued_bytes(pool: str, tasks: int) -> float:
    """Resident bytes a queued task."""
    return float(run("-c", f"from benchmarks.fresh import queue; queue({pool!r}, {tasks})"))


def queue(name: str, tasks: int) -> None:
    """Queue tasks behind a busy worker, print the bytes of each, and leave without running them."""
    busy, never = threading.Event(), threading.Event()

    def occupy() -> None:
        busy.set()
        never.wait()

    pool = POOLS[name](1)
    pool.submit(occupy)
    busy.wait()
    futures: list[object] = [None] * tasks
    REQUEST.set(1)
    before = resident()
    for i in range(tasks):
        futures[i] = pool.submit(noop)
    print((resident() - before) / tasks, flush=True)
    os._exit(0)


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
