"""All workers are replaced at night, one after the other, while the service goes on.

Run it: python examples/nightly_restart.py
"""

import threading
from datetime import datetime
from zoneinfo import ZoneInfo

from recyclepool import Event, RecyclePool, Schedule, ScheduleFired, current_worker

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTLY = Schedule.cron("0 3 * * *", tz=BERLIN)
SOON = Schedule.every("100ms")  # nobody waits for the night here; leave it out
NIGHTS = 2


def serve(n: int) -> tuple[int, int]:
    return n, current_worker().generation


def main() -> None:
    restarted = threading.Event()
    firings: dict[int | None, int] = {}  # how often the schedule fired for each slot

    def on_event(event: Event) -> None:
        if isinstance(event, ScheduleFired):
            print(event)
            firings[event.slot] = firings.get(event.slot, 0) + 1
            if len(firings) == 3 and min(firings.values()) >= NIGHTS:
                restarted.set()

    with RecyclePool(3, name="nightly", min_workers=3, schedule=(NIGHTLY, SOON)) as pool:
        pool.subscribe(on_event)
        pool.start().result()
        served, generations = 0, set()
        while not restarted.is_set():
            n, generation = pool.submit(serve, served).result()
            assert n == served  # none is lost
            served += 1
            generations.add(generation)
        replaced = pool.stats().recycles.get("schedule", 0)
    print(f"{served} tasks served by {len(generations)} generations; {replaced} workers replaced")

    midnight = datetime(2026, 3, 29, tzinfo=BERLIN)  # clocks go from 2:00 to 3:00 in that night
    at = datetime.fromtimestamp(NIGHTLY.next_after(midnight.timestamp()), BERLIN)
    print(f"{NIGHTLY} fires at {at}, {(at.timestamp() - midnight.timestamp()) / 3600:.0f} h later")
    assert at.hour == 3


if __name__ == "__main__":
    main()
