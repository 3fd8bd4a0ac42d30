"""A model is loaded once in each worker; ``key=`` sends a customer's texts to where it is warm.

Run it: python examples/warm_model.py
"""

from collections import Counter
from collections.abc import Iterator

from recyclepool import Limits, RecyclePool, current_worker, per_worker

events: Counter[str] = Counter()


class Model:
    """Stands for what takes seconds and megabytes to load."""

    def __init__(self) -> None:
        self.weights = Counter("the quick brown fox jumps over the lazy dog")


@per_worker
def model() -> Iterator[Model]:
    events["model loaded"] += 1
    yield Model()
    events["model unloaded"] += 1  # when the worker goes


def score(customer: str, text: str) -> int:
    cache = current_worker().cache  # the worker's own: no lock, and gone with it
    tuned = cache.get(customer)
    if tuned is None:
        events["tuned for a customer"] += 1
        tuned = {letter: n + len(customer) for letter, n in model().weights.items()}
        cache.put(customer, tuned, size="100kB")  # its real size is for us to say
    return sum(tuned.get(letter, 0) for letter in text)


def run(*, keyed: bool) -> None:
    events.clear()
    customers = [f"customer {n}" for n in range(8)]
    with RecyclePool(4, min_workers=4, limits=Limits(tasks=1000)) as pool:
        pool.start().result()  # nobody waits for a cold worker
        for n in range(200):  # four at a time, as requests come
            some = [customers[(n * 3 + k) % 8] for k in range(4)]
            tasks = [
                pool.options(key=who if keyed else None).submit(score, who, "a text")
                for who in some
            ]
            assert all(task.result() > 0 for task in tasks)
    print(f"800 texts of 8 customers, {'with' if keyed else 'without'} key=: {dict(events)}")
    assert events["model loaded"] == events["model unloaded"] <= 4


if __name__ == "__main__":
    run(keyed=False)
    run(keyed=True)
