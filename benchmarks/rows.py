"""The rows of the report. A new row is one more ``Row`` in ``ROWS``."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Literal

from recyclepool import RecyclePool

from .affinity import RANDOM_DISPATCH, hit_rate
from .fresh import IMPORTS, Idle, idle, import_ms, leak, queued_bytes
from .loads import (
    OURS,
    POOLS,
    RAW,
    STDLIB,
    WATCHED_POOLS,
    burst,
    cpu,
    hand_overs,
    trips,
    unwatched,
    weighed,
)
from .restarts import (
    AT_REST,
    BARE_THREAD,
    SECOND_THREAD,
    Ready,
    Succession,
    latency,
    p99_wait,
    recycle,
    restartable,
    saturated,
    start_thread,
)
from .scrapes import (
    EVERY,
    MANY,
    SLOTS,
    a_page,
    collecting,
    longest_trip,
    many_pools,
    registered,
    scraped_burst,
)

UNWATCHED = "itself, all off"
UNSCRAPED = "itself, not scraped"
PAGE = "the whole page"
SCRAPE = "the scrape"

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


def upper_bound(figures: list[float]) -> float:
    """The upper end of the 95 % interval of their median, however they are distributed."""
    count = len(figures)
    rank = math.ceil((count + 1 + 1.96 * math.sqrt(count)) / 2)
    return sorted(figures)[min(rank, count) - 1]  # six pairs at least bound it


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question: how it is measured, against whom, and what it must reach."""

    key: str
    question: str
    measure: Callable[[bool], Samples]  # called in a fresh process with "is it quick?"
    unit: str  # of a sample
    peers: tuple[str, ...] = (STDLIB,)  # must and aim hold against each; none: for the samples
    beside: tuple[str, ...] = ()  # measured and reported only
    figure: Callable[[float, float], float] = times
    figure_unit: str = "x"
    digits: int = 2  # of a figure
    summary: Callable[[list[float]], float] = median  # of the figures
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

    cases = {name: partial(case, make) for name, make in WATCHED_POOLS.items()}
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


def leaks(quick: bool) -> Samples:
    return {OURS: [leak(300 if quick else 3_000) for _ in range(1 if quick else 5)]}


def imports(quick: bool) -> Samples:
    for name in IMPORTS:
        import_ms(name)  # writes the bytecode, warms the file cache
    return alternate(11 if quick else 21, {name: partial(import_ms, name) for name in IMPORTS})


def restart_throughput(quick: bool) -> Samples:
    tasks = 200 if quick else 600
    with restartable() as pool:
        cases = {
            OURS: partial(saturated, pool, tasks, True),
            AT_REST: partial(saturated, pool, tasks, False),
        }
        return alternate(5 if quick else 41, cases)


def restart_wait(quick: bool) -> Samples:
    with restartable() as pool:
        cases = {
            OURS: partial(p99_wait, pool, itertools.count(), True),
            AT_REST: partial(p99_wait, pool, itertools.count(), False),
        }
        return alternate(5 if quick else 81, cases)


def recycle_latency(quick: bool) -> Samples:
    count = 10 if quick else 50
    ready, succession = Ready(), Succession()
    with RecyclePool(1, min_workers=1, initializer=ready.now) as pool:
        pool.start().result()
        cases = {
            OURS: partial(latency, partial(recycle, pool, ready), count),
            BARE_THREAD: partial(latency, partial(start_thread, ready), count),
            SECOND_THREAD: partial(latency, succession.start_thread, count),
        }
        samples = alternate(5 if quick else 31, cases)
        succession.end()
        return samples


def watching(quick: bool) -> Samples:
    """Long samples of pools that live on: a worker's memory is looked at once a second or less."""
    with weighed(2) as ours, unwatched(2) as plain:
        for pool in (ours, plain):
            burst(pool, 100)
        tasks = 500 if quick else 8_000
        cases = {OURS: partial(cpu, ours, tasks), UNWATCHED: partial(cpu, plain, tasks)}
        return alternate(5 if quick else 61, cases)


def idling(limits: bool, field: Callable[[Idle], float], quick: bool) -> Samples:
    """Processes that do nothing do not disturb each other: all samples at once."""
    with ThreadPoolExecutor(5) as runs:
        samples = runs.map(partial(idle, limits), [1.0 if quick else 5.0] * 5)
        return {OURS: [field(sample) for sample in samples]}


def affinity(workers: int, load: float, quick: bool) -> Samples:
    """One seed a round: the same things, needed by the same tasks at the same times, in both."""
    tasks = 200 if quick else 1_000
    halves = itertools.count()

    def case(keyed: bool) -> float:
        return hit_rate(workers, load, tasks, next(halves) // 2, keyed)

    cases = {OURS: partial(case, True), RANDOM_DISPATCH: partial(case, False)}
    return alternate(5 if quick else 7, cases)


def scraping(quick: bool) -> Samples:
    registry, tasks = registered(), 5_000 if quick else 100_000
    with RecyclePool(4) as pool:
        burst(pool, 500)
        cases = {
            OURS: partial(scraped_burst, pool, tasks, registry),
            UNSCRAPED: partial(scraped_burst, pool, tasks, None),
        }
        return alternate(5 if quick else 20, cases)


def scrapes(quick: bool) -> Samples:
    registry = registered()
    with many_pools():
        cases = {OURS: collecting(registry), PAGE: a_page(registry)}
        return alternate(5 if quick else 31, cases)


def trips_while_scraped(quick: bool) -> Samples:
    registry = registered()
    with many_pools() as pools:
        found = [longest_trip(pools[0], registry) for _ in range(5 if quick else 31)]
    longest, took = map(list, zip(*found, strict=True))
    return {OURS: longest, SCRAPE: took}


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
            note='throughput: `Limits(age="6h", hang="2m")` and stats on, contexts carried (the'
            " submitter has a variable set)",
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


def idle_rows() -> Iterable[Row]:
    note = (
        "idle: fresh processes, 5 s each; wake-ups are the voluntary context switches of all"
        " threads but the one that measures; the limits are age, hang, memory"
        " and pool_memory"
    )
    for limits in (False, True):
        key, which = ("-limits", "with limits") if limits else ("", "without limits")
        yield Row(
            key=f"idle-wakeups{key}",
            question=f"idle pool of 8, {which}: wake-ups",
            measure=partial(idling, limits, lambda sample: sample.wakeups),
            unit="a second",
            peers=(),
            figure_unit="a second",
            better="lower",
            must=1.0 if limits else 0.0,
            aim=0.2 if limits else 0.0,
            note=note,
        )
        yield Row(
            key=f"idle-cpu{key}",
            question=f"idle pool of 8, {which}: CPU time",
            measure=partial(idling, limits, lambda sample: sample.cpu),
            unit="s an hour",
            peers=(),
            figure_unit="s an hour",
            better="lower",
            note=note,
        )


def restart_rows() -> Iterable[Row]:
    note = (
        "soft restart: 4 workers with an initializer of 25 us, tasks of 50 us of Python and 1 ms of"
        " waiting; windows with one soft restart and without, in alternation. Throughput: 600 tasks"
        " queued at once, some 170 ms. Wait: submit to start, at half load, random arrivals, the"
        " same in both, 300 tasks in some 170 ms"
    )
    yield Row(
        key="soft-restart-throughput",
        question="soft restart of all workers under load, thread: throughput",
        measure=restart_throughput,
        unit="us a task",
        peers=(AT_REST,),
        must=0.95,
        aim=0.99,
        digits=3,
        note=note,
    )
    yield Row(
        key="soft-restart-wait",
        question="soft restart of all workers under load, thread: p99 wait",
        measure=restart_wait,
        unit="us",
        peers=(AT_REST,),
        figure=share,
        better="lower",
        must=1.3,
        aim=1.1,
        note=note,
    )


def affinity_rows() -> Iterable[Row]:
    for load in (0.1, 0.5):
        for workers in (4, 8):
            low = load <= 0.1
            yield Row(
                key=f"affinity-{workers}-load-{load * 100:.0f}",
                question=f"affinity: hit rate of a per-worker cache, thread, {workers} workers,"
                f" {load:.0%} load",
                measure=partial(affinity, workers, load),
                unit="of the tasks",
                peers=(RANDOM_DISPATCH,),
                figure=share,
                must=0.65 * workers if low else None,
                aim=0.72 * workers if low else None,
                note="affinity: each worker's cache holds 16 entries, the keys are 16 x workers,"
                " uniform; Poisson arrivals, tasks of 2 ms of waiting; 1 000 count, once the caches"
                " are full. Random dispatch: the same tasks in a pool of the same shape, each with"
                " a key of its own. No more than 1 x workers is possible",
            )


def metrics_rows() -> Iterable[Row]:
    size = f"{MANY} pools x {SLOTS} slots"
    yield Row(
        key="metrics-throughput",
        question="no-op throughput, thread, 4 workers, with metrics registered and scraped",
        measure=scraping,
        unit="us a task",
        peers=(UNSCRAPED,),
        must=0.97,
        digits=3,
        note=f"metrics: ten bursts of 10 000 tasks a sample, 20 pairs; scraped every {EVERY} s, as"
        " text",
    )
    yield Row(
        key="metrics-scrape",
        question=f"a scrape of {size}",
        measure=scrapes,
        unit="ms",
        peers=(),
        figure_unit="ms",
        better="lower",
        must=50.0,
        note=f"a scrape of {size}, each with a worker: until all figures are there as samples,"
        " 12 700 of them; what prometheus_client takes to write them as text is in the next row",
    )
    yield Row(
        key="metrics-page",
        question=f"a scrape of {size}, text included",
        measure=lambda quick: {OURS: scrapes(quick)[PAGE]},
        unit="ms",
        peers=(),
        figure_unit="ms",
        better="lower",
    )
    yield Row(
        key="metrics-waits",
        question=f"the longest round trip of a task during a scrape of {size}",
        measure=trips_while_scraped,
        unit="ms",
        peers=(SCRAPE,),
        figure=share,
        better="lower",
        must=0.5,
        note="the longest round trip: of all that one thread makes while another scrapes, text"
        " included; the share of the scrape's time. A task that waited for the scrape had 1 x."
        " Python hands the interpreter on after 5 ms, so a trip is two of those at most",
    )


ROWS = (
    *throughput_rows(),
    *round_trip_rows(),
    *restart_rows(),
    *affinity_rows(),
    Row(
        key="recycle-latency",
        question="recycle, decision to successor ready, thread",
        measure=recycle_latency,
        unit="us",
        peers=(BARE_THREAD,),
        beside=(SECOND_THREAD,),
        figure=share,
        better="lower",
        must=1.5,
        aim=1.1,
        note="recycle: from `pool.recycle(0)` of an idle worker to the end of its successor's"
        " initializer, which notes the time, against a thread that does the same, and against one"
        " that starts, as the successor does, while the one before it lives",
    ),
    Row(
        key="watching",
        question="cost of watching, thread: CPU time with memory, age and hang on",
        measure=watching,
        unit="us a task",
        peers=(UNWATCHED,),
        figure=share,
        digits=3,
        summary=upper_bound,
        better="lower",
        must=1.03,
        aim=1.01,
        cores=1,
        note="watching: the figure is the upper end of the 95 % interval of the median ratio of 61"
        " pairs of 8 000 tasks of 50 to 200 us of Python, 2 workers that own 50 000 objects each,"
        " on one core; what the watchdog takes by itself is in the idle rows",
    ),
    *idle_rows(),
    *metrics_rows(),
    Row(
        key="leak",
        question="a leak of 1.5 MiB a call, 3 000 calls, 4 workers of 64 MiB: peak of the process",
        measure=leaks,
        unit="x what there was, and what they may own",
        peers=(),
        better="lower",
        must=1.2,
        aim=1.05,
        note="leak: 4.4 GiB in all, as fast as four threads can fill it; a fresh process a sample",
    ),
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
