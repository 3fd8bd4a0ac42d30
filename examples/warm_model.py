"""A model that is costly to load is loaded once in each worker, and unloaded when the worker goes.

Run it: python examples/warm_model.py
"""

from collections import Counter
from collections.abc import Iterator

from recyclepool import Limits, RecyclePool, current_worker, per_worker

loaded: list[tuple[int, int]] = []
unloaded: list[tuple[int, int]] = []


class Model:
    """Stands for what takes seconds and megabytes to load."""

    def __init__(self) -> None:
        self.weights = Counter("the quick brown fox jumps over the lazy dog")

    def score(self, text: str) -> int:
        return sum(self.weights[letter] for letter in text)


@per_worker
def model() -> Iterator[Model]:
    worker = current_worker()
    loaded.append((worker.slot, worker.generation))
    yield Model()
    unloaded.append((worker.slot, worker.generation))


def score(text: str) -> int:
    cache = current_worker().cache
    if text not in cache:
        cache[text] = model().score(text)
    return int(cache[text])


def main() -> None:
    texts = [f"text number {n % 50}" for n in range(500)]
    pool = RecyclePool(2, name="scorer", limits=Limits(tasks=100))
    scores = list(pool.map(score, texts))
    report = pool.close()
    print(f"{len(scores)} scores, {report.cancelled} lost")
    print(f"the model was loaded {len(loaded)} times, for {len(texts)} tasks")
    print(f"why workers went: {pool.stats().recycles}")
    assert sorted(loaded) == sorted(unloaded)


if __name__ == "__main__":
    main()
