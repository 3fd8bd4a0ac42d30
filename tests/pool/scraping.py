"""What is read of a registry, by prometheus_client's own parser."""

import gc
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from recyclepool import metrics

Series = tuple[str, tuple[tuple[str, str], ...]]


def registered() -> CollectorRegistry:
    """A registry of its own, in which the pools are shown: not those that others left to be found.

    A dropped pool that is part of a cycle is there until garbage is collected.
    """
    gc.collect()
    registry = CollectorRegistry()
    metrics.register(registry)
    return registry


class Scrape:
    """One scrape: its families, and the number of each series. Unparsed it is ten times faster."""

    def __init__(self, registry: CollectorRegistry, *, parsed: bool = True) -> None:
        text = generate_latest(registry).decode() if parsed else ""
        found = text_string_to_metric_families(text) if parsed else registry.collect()
        self.families = {family.name: family for family in found}
        self.numbers: dict[Series, float] = {}
        for family in self.families.values():
            for sample in family.samples:
                series = (sample.name, tuple(sorted(sample.labels.items())))
                assert series not in self.numbers, f"twice: {series}"
                self.numbers[series] = sample.value

    def get(self, name: str, pool: str, **labels: Any) -> float | None:
        """The number of one series, None if it is not there. `name` without its prefix."""
        words = {"pool": pool, **{key: str(label) for key, label in labels.items()}}
        return self.numbers.get((f"recyclepool_{name}", tuple(sorted(words.items()))))

    def labels(self, name: str, label: str, pool: str) -> set[str]:
        """The values of a label in the series of a pool."""
        return {
            dict(labels)[label]
            for series, labels in self.numbers
            if series == f"recyclepool_{name}" and dict(labels)["pool"] == pool
        }

    def pools(self) -> set[str]:
        """The pools that are shown."""
        return {dict(labels)["pool"] for series, labels in self.numbers if "recyclepool_" in series}

    def counters(self) -> dict[Series, float]:
        """What must never go back."""
        ends = ("_total", "_bucket", "_sum", "_count")
        return {series: n for series, n in self.numbers.items() if series[0].endswith(ends)}


def must_not_go_back(before: Scrape, after: Scrape) -> None:
    """Each counter of a scrape is there in the next one, and no smaller."""
    later = after.counters()
    for series, number in before.counters().items():
        assert later[series] >= number, series
