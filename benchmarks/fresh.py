"""Measures that need a fresh process for every sample: memory, import, and the idle pool."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from time import process_time, sleep
from typing import NamedTuple

from recyclepool import Limits, RecyclePool
from recyclepool._host_memory import process_rss

from .loads import OURS, POOLS, REQUEST, STDLIB, burst, noop

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


class Idle(NamedTuple):
    """What a pool of 8 costs while it has nothing to do."""

    wakeups: float  # a second
    cpu: float  # seconds an hour


def idle(limits: bool, seconds: float) -> Idle:
    """Watch a pool for so long, with or without limits."""
    code = f"from benchmarks.fresh import rest; rest({limits}, {seconds})"
    return Idle(*map(float, run("-c", code).split()))


def rest(limits: bool, seconds: float) -> None:
    """Warm a pool up, do nothing, print what that took."""
    some = Limits(age="6h", hang="2m", memory="512MiB", pool_memory="90%") if limits else None
    with RecyclePool(8, min_workers=8, limits=some) as pool:
        pool.start().result()
        burst(pool, 1_000)
        sleep(0.5)
        before = switches()
        start = process_time()
        sleep(seconds)
        used = process_time() - start
        wakeups = sum(count - before.get(tid, 0) for tid, count in switches().items())
    print(wakeups / seconds, used / seconds * 3_600)


def leak(calls: int) -> float:
    """The peak of a process that leaks, in units of what it had before and what workers may own."""
    code = f"from benchmarks.fresh import leak_on; leak_on({calls})"
    return float(run("-c", code, seconds=600))


def leak_on(calls: int) -> None:
    """Four workers that may own 64 MiB each keep 1.5 MiB a call."""
    kept = threading.local()
    limits = Limits(memory="64MiB", memory_samples=1, min_age=0.5, sample_every=0.2)

    def keep(_: int) -> None:
        kept.__dict__.setdefault("blocks", []).append(b"x" * (3 << 19))

    with RecyclePool(4, limits=limits) as pool:
        list(pool.map(noop_for, range(100)))
        base = most = process_rss()
        for n, _ in enumerate(pool.map_unordered(keep, range(calls))):
            if n % 4 == 0:
                most = max(most, process_rss())
    print(most / (base + (4 * 64 << 20)))


def noop_for(_: int) -> None:
    pass


def switches() -> dict[str, int]:
    """How often each thread but this one has gone to sleep: as often as it woke up."""
    own = str(threading.get_native_id())
    counts = {}
    for task in Path("/proc/self/task").iterdir():
        if task.name != own:
            status = (task / "status").read_text()
            counts[task.name] = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return counts
