"""The load for tasks with a key: requests for things, some of which each worker has cached."""

from random import Random
from time import perf_counter, sleep

from recyclepool import RecyclePool, current_worker

RANDOM_DISPATCH = "random dispatch"

HELD = 16  # entries of a worker's cache: each counts for one byte
RUN = 2.2e-3  # seconds that a worker is busy with a task, wake-ups late: the load is at most that


def requested(thing: int) -> bool:
    """A task that needs a thing and then waits for 2 ms. Did its worker have it in the cache?"""
    cache = current_worker().cache
    found = thing in cache
    if found:
        cache[thing]  # it was used: others go first
    else:
        cache.put(thing, None, size=1)
    sleep(2e-3)
    return found


def hit_rate(workers: int, load: float, tasks: int, seed: int, keyed: bool) -> float:
    """The part of the tasks that find what they need, once the caches are full.

    There are as many things as all caches hold together, each as likely as the others. A seed
    stands for the things, for who needs which, and for when. Without `keyed` each task has a key of
    its own, so that any idle worker may get it: with none, the last that fell idle always would.
    """
    random = Random(seed)
    things = [random.getrandbits(60) for _ in range(workers * HELD)]
    warm_up = 5 * len(things)
    futures = []
    with RecyclePool(workers, min_workers=workers, cache=HELD) as pool:
        pool.start().result()
        due = perf_counter()
        for _ in range(warm_up + tasks):
            due += random.expovariate(load * workers / RUN)
            thing, other = random.choice(things), random.getrandbits(60)
            sleep(max(0.0, due - perf_counter()))
            futures.append(pool.options(key=thing if keyed else other).submit(requested, thing))
        return sum(future.result() for future in futures[warm_up:]) / tasks
