"""One pool through the life of a batch job: drained between batches, aborted when one goes wrong.

Run it: python examples/close_and_reopen.py
"""

import threading

from recyclepool import RecyclePool, TaskAbortedError


def work(n: int) -> int:
    return n * n


def main() -> None:
    pool = RecyclePool(4, name="batches")

    # A batch is finished, and every worker gives its memory back.
    batch = [pool.submit(work, n) for n in range(1000)]
    report = pool.close()
    assert all(future.done() for future in batch)
    print(f"closed: {len(batch)} tasks finished, {report.completed} of them while it closed")

    # The next submit opens the same pool again.
    print(f"reopened: {pool.submit(work, 12).result()}")

    # Something hangs: stop all of it, now.
    never, started = threading.Event(), threading.Barrier(5)

    def hang() -> None:
        started.wait()
        never.wait()

    stuck = [pool.submit(hang) for _ in range(6)]
    started.wait()
    report = pool.destroy(grace=0.2)
    never.set()
    ends = ["cancelled" if f.cancelled() else type(f.exception()).__name__ for f in stuck]
    print(f"destroyed: {report.aborted} aborted, {report.cancelled} cancelled: {sorted(set(ends))}")
    assert TaskAbortedError.__name__ in ends

    print(f"and again: {pool.submit(work, 5).result()}")
    pool.shutdown()


if __name__ == "__main__":
    main()
