"""A program whose workers own much: a process of its own, so that what it takes can be measured.

Usage: leaking.py returned FORM MIB | leaking.py leak FORM CALLS. Its last line is JSON.
"""

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from recyclepool import Limits, MemoryReturned, RecyclePool, per_worker
from recyclepool._host_memory import process_rss

MIB = 2**20
LEAK = 3 * MIB // 2  # bytes a call
WAIT = 30.0

# Something of about so many bytes.
FORMS: dict[str, Callable[[int], Any]] = {
    "blocks": lambda size: bytearray(b"x") * size,
    "small objects": lambda size: [float(n) for n in range(size // 32)],
    "dicts": lambda size: [{"a": n, "b": n} for n in range(size // 200)],
    "1 KB bytes": lambda size: [bytes(1000) for _ in range(size // 1050)],
    "10 KB arrays": lambda size: [bytearray(b"x") * 10_000 for _ in range(size // 10_100)],
    "2.5 MB arrays": lambda size: [bytearray(b"x") * 2_500_000 for _ in range(size // 2_500_000)],
}


@per_worker
def kept() -> list[Any]:
    return []


def leak(form: str, size: int) -> int:
    kept().append(FORMS[form](size))
    return size


class Peak(threading.Thread):
    """The most that the process has taken since it began."""

    def __init__(self) -> None:
        super().__init__()
        self.base = self.most = process_rss()
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, process_rss())

    def end(self) -> int:
        self.over.set()
        self.join()
        return self.most


def returned(form: str, size: int) -> dict[str, Any]:
    """One worker, of two, owns that many bytes, and is replaced for it.

    A limit that is far below that is proven to be passed by a look between two tasks.
    """
    told: list[MemoryReturned] = []
    measured = threading.Event()

    def note(event: Any) -> None:
        if isinstance(event, MemoryReturned):
            told.append(event)
            measured.set()

    limits = Limits(memory=size // 8, memory_samples=1, min_age=0, sample_every=0.05)
    with RecyclePool(2, limits=limits) as pool:
        pool.subscribe(note)
        list(pool.map(leak, ["blocks"] * 4, [1] * 4))
        base = process_rss()
        tenth = size // 10
        # One task, as large as all of it: the worker is looked at when it ends.
        task = pool.submit(lambda: [leak(form, tenth) for _ in range(10)] and process_rss())
        before = task.result()
        while not measured.wait(0.02):
            pool.submit(int).result()  # a look between tasks
        after = process_rss()
    proven = told[0].owned_bytes
    return {"base": base, "before": before, "after": after, "proven": proven, "count": len(told)}


def leaking(form: str, calls: int) -> dict[str, Any]:
    """Four workers leak with each call."""
    limits = Limits(memory="64MiB", memory_samples=1, min_age=0.5, sample_every=0.2)
    with RecyclePool(4, limits=limits) as pool:
        list(pool.map(int, range(8)))
        peak = Peak()
        # Few of them queued: 100 000 futures would be 50 MB of the caller's.
        work = pool.map_unordered(lambda _: leak(form, LEAK), range(calls), buffersize=100)
        done = sum(size == LEAK for size in work)
        recycles = pool.stats().recycles.get("memory", 0)
        most = peak.end()
    return {"base": peak.base, "peak": most, "done": done, "recycles": recycles}


if __name__ == "__main__":
    verb, form, number = sys.argv[1:]
    if verb == "leak":
        print(json.dumps(leaking(form, int(number))))
    else:
        print(json.dumps(returned(form, int(number) * MIB)))
