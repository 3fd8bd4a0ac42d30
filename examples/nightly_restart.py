"""All workers are replaced at night, one after the other, while the service goes on.

The pool has no schedules yet: a thread of one's own does it.
Run it: python examples/nightly_restart.py
"""

import threading
from collections.abc import Callable
from datetime import datetime, time, timedelta

from recyclepool import PoolClosedError, RecyclePool, WorkerStartError, current_worker


def until(at: time) -> float:
    """The seconds until it is that late again on the clock on the wall."""
    now = datetime.now().astimezone()
    next_time = datetime.combine(now.date(), at)
    if next_time.astimezone() <= now:
        next_time += timedelta(days=1)
    return (next_time.astimezone() - now).total_seconds()


def restart_nightly(
    pool: RecyclePool, stop: threading.Event, pause: Callable[[], float] = lambda: until(time(3))
) -> None:
    while not stop.wait(pause()):
        try:
            replaced = pool.soft_restart().result()
            print(f"soft restart: {replaced} workers replaced")
        except PoolClosedError:
            pass  # closed meanwhile: it has no workers now
        except WorkerStartError as error:
            print(f"soft restart failed, the old worker serves on: {error}")


def serve(n: int) -> tuple[int, int]:
    return n, current_worker().generation


def main() -> None:
    stop = threading.Event()
    with RecyclePool(3, name="nightly", min_workers=3) as pool:
        pool.start().result()
        # Here a night is 50 ms long; leave the pause out for three o'clock.
        clock = threading.Thread(target=restart_nightly, args=(pool, stop, lambda: 0.05))
        clock.start()
        served = 0
        while pool.stats().recycles.get("manual", 0) < 6:  # two nights
            n, _ = pool.submit(serve, served).result()
            assert n == served  # none is lost
            served += 1
        stop.set()
        clock.join()
    print(f"{served} tasks served, none lost; it is {until(time(3)):.0f} s to three o'clock")
    assert all(0 < until(time(hour)) <= 25 * 3600 for hour in range(24))


if __name__ == "__main__":
    main()
