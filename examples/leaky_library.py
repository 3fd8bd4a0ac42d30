"""A C library whose handle grows with each use is measured, and closed by a recycle of its worker.

The memory is malloc's, so no collector frees it.
Run it: python examples/leaky_library.py
"""

import ctypes
from collections.abc import Iterator

from recyclepool import Limits, RecyclePool, current_worker, per_worker

libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None

BLOCK, MOST = 64 * 1024, 1024 * 1024
TASKS = 50  # this limit is exact; MOST is exceeded until the successor is ready
sizes: list[int] = []  # of the handles, when they were closed


class Handle:
    """What a call leaves behind is freed with the handle only."""

    def __init__(self) -> None:
        self.blocks: list[int] = []

    def parse(self, text: str) -> int:
        self.blocks.append(libc.malloc(BLOCK))  # the leak
        return len(text.split())

    def close(self) -> None:
        sizes.append(len(self.blocks) * BLOCK)
        for block in self.blocks:
            libc.free(block)


@per_worker
def handle() -> Iterator[Handle]:
    yield (library := Handle())
    library.close()


def parse(text: str) -> int:
    words = handle().parse(text)
    if len(handle().blocks) * BLOCK >= MOST:  # it serves on until its successor is ready
        current_worker().request_recycle(f"the library holds more than {MOST} bytes")
    return words


def main() -> None:
    with RecyclePool(2, name="parser", limits=Limits(tasks=TASKS)) as pool:
        assert sum(pool.map(parse, ["two words"] * 1000, buffersize=10)) == 2000
    print(f"leaked in all: {sum(sizes) // 1024} KiB, at most {max(sizes) // 1024} KiB in one")
    print(f"workers went: {dict(pool.stats().recycles)}")
    assert (sum(sizes), max(sizes) <= TASKS * BLOCK) == (1000 * BLOCK, True)


if __name__ == "__main__":
    main()
