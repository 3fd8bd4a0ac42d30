"""The rows of the report. A new row is one more ``Row`` in ``ROWS``."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from .fresh import IMPORTS, import_ms, queued_bytes
from .loads import POOLS, RAW, STDLIB, burst, hand_overs, trips

Samples = dict[str, list[float]]


def times(ours: float, peer: float) -> float:
    """How many times faster ours is, of two times."""
    return peer / ours


def share(ours: float, peer: float) -> float:
    """What part of the peer's ours is."""
    return ours / peer


def more(ours: float, peer: float) -> float:
    """How much ours adds to the peer's."""
    return ours - peer


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question: how it is measured, against whom, and what it must reach."""

    key: str
    question: str
    measure: Callable[[bool], Samples]  # called in a fresh process with "is it quick?"
    unit: str  # of a sample
    peers: tuple[str, ...] = (STDLIB,)  # must and aim hold against each of them
    beside: tuple[str, ...] = ()  # measured and reported only
    figure: Callable[[float, float], float] = times
    figure_unit: str = "x"
    better: Literal["higher", "lower"] = "higher"
    must: float | None = None  # None: reported only
    aim: float | None = None
    cores: int | None = None  # the process is pinned to so many before anything else
    note: str = ""

    def reaches(self, figure: float, wanted: float | None) -> bool:
        if wanted is None:
            return False
        return figure >= wanted if self.better == "higher" else figure <= wanted


def alternate(rounds: int, cases: Mapping[str, Callable[[], float]]) -> Samples:
    """One sample of each case a round; every other round runs backwards."""
    samples: Samples = {name: [] for name in cases}
    for turn in range(rounds):
        for name in list(cases)[:: -1 if turn % 2 else 1]:
            samples[name].append(cases[name]())
    return samples


def throughput(workers: int, quick: bool) -> Samples:
    tasks = 2_000 if quick else 20_000

    def case(make: Callable[[int], Executor]) -> float:
        with make(workers) as pool:
            burst(pool, 500)
            return burst(pool, tasks)

    cases = {name: partial(case, make) for name, make in POOLS.items()}
    return alternate(5 if quick else 31, cases)


def round_trip(workers: int, quick: bool) -> Samples:
    count = 100 if quick else 300

    def case(make: Callable[[int], Executor]) -> float:
        with make(workers) as pool:
            burst(pool, 64)
            trips(pool, 50)
            return trips(pool, count)

    cases = {name: partial(case, make) for name, make in POOLS.items()}
    return alternate(5 if quick else 31, {**cases, RAW: partial(hand_overs, count)})


def memory(quick: bool) -> Samples:
    tasks = 50_000 if quick else 1_000_000
    return alternate(5, {name: partial(queued_bytes, name, tasks) for name in POOLS})


def imports(quick: bool) -> Samples:
    for name in IMPORTS:
        import_ms(name)  # writes the bytecode, warms the file cache
    return alternate(11 if quick else 21, {name: partial(import_ms, name) for name in IMPORTS})


def some(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def throughput_rows() -> Iterable[Row]:
    for workers in (1, 4, 16):
        yield Row(
            key=f"throughput-thread-{workers}",
            question=f"no-op throughput, thread, {some(workers, 'worker')}, `submit` one by one",
            measure=partial(throughput, workers),
            unit="us a task",
            must=2.8,
            aim=4.0,
            note="throughput: stats on, contexts carried (the submitter has a variable set);"
            " no age or hang limit yet",
        )


def round_trip_rows() -> Iterable[Row]:
    for cores in (1, 2):
        for workers in (1, 4):
            yield Row(
                key=f"round-trip-thread-{workers}-cores-{cores}",
                question=f"no-op round trip, thread, {some(workers, 'worker')},"
                f" on {some(cores, 'core')}",
                measure=partial(round_trip, workers),
                unit="us",
                beside=(RAW,),
                must=0.85 if cores == 1 else None,
                aim=1.1 if cores == 1 else None,
                cores=cores,
                note="round trip: pinned to the cores, contexts carried, fresh pools each round;"
                " on two cores placement decides, so it is reported only",
            )


ROWS = (
    *throughput_rows(),
    *round_trip_rows(),
    Row(
        key="memory",
        question="memory of 1 000 000 queued tasks, thread, `submit` one by one",
        measure=memory,
        unit="bytes a task",
        figure=share,
        better="lower",
        must=0.35,
        aim=0.22,
        note="memory: growth of the resident set, contexts carried; a fresh process a sample",
    ),
    Row(
        key="import",
        question="import time of `recyclepool`",
        measure=imports,
        unit="ms",
        figure=more,
        figure_unit="ms",
        better="lower",
        must=15.0,
        aim=5.0,
        note="import: `from recyclepool import RecyclePool` against `from concurrent.futures.thread"
        " import ThreadPoolExecutor`, a fresh process for each sample; what ours adds",
    ),
)
