"""What a worker may hold: data, objects, functions. What others hold as well: owned_shared.py."""

import collections
import dataclasses
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

from .owned_stage import N, Stage, case


def records(n: int = N) -> list[Any]:
    return [
        {"id": 10**6 + i, "name": f"name {i}", "tags": [f"tag {i}", "common"]} for i in range(n)
    ]


# -- plain data ------------------------------------------------------------------------------------


@case()
def dicts(stage: Stage) -> None:
    stage.cache["x"] = records()


@case()
def dict_of_str_keys(stage: Stage) -> None:
    stage.cache["x"] = {f"a rather long key {i}": i % 7 for i in range(5 * N)}


@case()
def dict_of_tuple_keys(stage: Stage) -> None:
    stage.cache["x"] = {(i, str(i)): 1.5 * i for i in range(N)}


@case()
def sets_and_frozensets(stage: Stage) -> None:
    pairs = [({f"a{i}", f"b{i}"}, frozenset((f"c{i}", 1000 * i))) for i in range(N // 2)]
    stage.cache["x"] = pairs


@case()
def blobs(stage: Stage) -> None:
    stage.cache["x"] = [bytes([i % 256]) * 25_000 for i in range(100)]


@case()
def strings(stage: Stage) -> None:
    stage.cache["x"] = [f"text {i} " * 10 for i in range(N)]


@case()
def interned_strings(stage: Stage) -> None:
    stage.cache["x"] = [sys.intern(f"interned string number {i} of {id(stage)}") for i in range(N)]


@case()
def deques(stage: Stage) -> None:
    stage.cache["x"] = [collections.deque([i * 1000, str(i)]) for i in range(N // 4)]


@case()
def ordered_dicts(stage: Stage) -> None:
    ordered = collections.OrderedDict
    stage.cache["x"] = [
        ordered((f"key {i} {j}", i * 1000 + j) for j in range(5)) for i in range(N // 4)
    ]


@case()
def default_dicts_and_counters(stage: Stage) -> None:
    stage.cache["x"] = [
        (
            collections.defaultdict(list, {f"key {i}": [i]}),
            collections.Counter({f"word {i}": 1000 + i}),
        )
        for i in range(N // 4)
    ]


@case()
def many_entries(stage: Stage) -> None:
    stage.cache |= {f"key {i}": [i * 1000, f"value {i}"] for i in range(N)}
    stage.cache["key 777"].append(bytes([1]) * 1_000_000)


@case()
def deep_list(stage: Stage) -> None:
    nested: list[Any] = []
    for _ in range(20_000):
        nested = [nested]
    stage.cache["x"] = nested


@case()
def chain_maps(stage: Stage) -> None:
    stage.cache["x"] = [
        collections.ChainMap({f"a{i}": 1000 + i}, {f"b{i}": str(i)}) for i in range(N // 2)
    ]


@case()
def named_tuples(stage: Stage) -> None:
    point = collections.namedtuple("point", "x y label")
    stage.outside.append(point)
    stage.cache["x"] = [point(1.5 * i, 2.5 * i, f"point {i}") for i in range(N)]


@case()
def dates(stage: Stage) -> None:
    from datetime import UTC, datetime, timedelta

    start = datetime(2020, 1, 1, tzinfo=UTC)
    stage.cache["x"] = {start + timedelta(minutes=i): timedelta(seconds=i) for i in range(N)}


@case()
def decimals(stage: Stage) -> None:
    from decimal import Decimal
    from fractions import Fraction

    stage.cache["x"] = [(Decimal(i) / 7, Fraction(i + 10**6, 7)) for i in range(N)]


# -- objects ---------------------------------------------------------------------------------------


class Plain:
    def __init__(self, i: int) -> None:
        self.a, self.b, self.c = i * 1000, str(i), [i * 1000 + 1]


class Nine:
    def __init__(self, i: int) -> None:
        for name in "abcdefghi":
            setattr(self, name, float(i))


class Slotted:
    __slots__ = ("a", "b", "c")

    def __init__(self, i: int) -> None:
        self.a, self.b, self.c = i * 1000, str(i), [i * 1000 + 1]


class SlottedWithDict(Slotted):
    def __init__(self, i: int) -> None:
        super().__init__(i)
        self.d, self.e = float(i), f"more of {i}"


@dataclasses.dataclass
class Data:
    a: int
    b: str
    c: list[int]


class OwnList(list[Any]):
    pass


class OwnDict(dict[Any, Any]):
    pass


@case()
def instances(stage: Stage) -> None:
    stage.cache["x"] = [Plain(i) for i in range(N)]


@case()
def instances_with_9_attributes(stage: Stage) -> None:
    stage.cache["x"] = [Nine(i) for i in range(N)]


@case(tolerance=0.25 if sys.version_info[:3] == (3, 13, 0) else 0.05)  # there it is invisible
def instances_whose_dict_was_asked_for(stage: Stage) -> None:
    stage.cache["x"] = [Plain(i) for i in range(N)]
    for o in stage.cache["x"]:
        vars(o)


@case()
def instances_with_slots(stage: Stage) -> None:
    stage.cache["x"] = [Slotted(i) for i in range(N)]


@case()
def slots_and_dict(stage: Stage) -> None:
    stage.cache["x"] = [SlottedWithDict(i) for i in range(N)]


@case()
def data_classes(stage: Stage) -> None:
    stage.cache["x"] = [Data(i * 1000, str(i), [i * 1000 + 1]) for i in range(N)]


@case()
def subclasses_of_list_and_dict(stage: Stage) -> None:
    stage.cache["x"] = [
        (OwnList([i * 1000, str(i)]), OwnDict({f"k{i}": i * 1000})) for i in range(N)
    ]


@case()
def large_subclasses(stage: Stage) -> None:
    table = OwnDict((f"key {i}", [i]) for i in range(2 * N))
    table.note = bytes(100_000)  # type: ignore[attr-defined]
    stage.cache["x"] = table, OwnList(map(str, range(10_000, 20_000)))
    stage.cache["y"] = collections.OrderedDict((f"key {i}", 1000 + i) for i in range(2 * N))


@case()
def namespaces(stage: Stage) -> None:
    stage.cache["x"] = [types.SimpleNamespace(a=1000 + i, b=str(i)) for i in range(N)]


@case()
def bound_methods(stage: Stage) -> None:
    stage.cache["x"] = [Service() for _ in range(N // 40)]


class Service:
    def __init__(self) -> None:
        self.items = [bytes(100) for _ in range(50)]
        self.add = self.items.append
        self.callback = self.run  # a cycle

    def run(self) -> None:
        pass


# -- functions and what they hold ------------------------------------------------------------------


@case()
def caches_of_str_calls(stage: Stage) -> None:
    for size in (None, N):
        function = functools.lru_cache(size)(lambda key: [key, key + "!"])
        for i in range(N // 2):
            function(f"argument {i}")
        stage.cache[size] = function


@case()
def caches_of_int_calls(stage: Stage) -> None:
    function = functools.lru_cache(N)(lambda a, b: (a, b))
    for i in range(N):
        function(i * 1000, b=i * 1000)
    stage.cache["x"] = function


@case()
def closures(stage: Stage) -> None:
    def over(*values: Any) -> Any:
        def inner(more: Any = [bytes(200)]) -> Any:  # noqa: B006
            return values, more

        return inner

    stage.cache["x"] = [over(i * 1000, str(i), [i]) for i in range(N)]


@case()
def partial_chains(stage: Stage) -> None:
    chain: Any = functools.partial(print)
    for i in range(N):
        wrapped = functools.partial(map, chain, key=[1000 + i])
        chain = wrapped
    stage.cache["x"] = chain


@case()
def generators(stage: Stage) -> None:
    def numbers(start: int) -> Iterator[int]:
        data = [bytes(300)]
        pair = data, data
        yield start
        yield len(pair)

    stage.cache["x"] = [numbers(i * 1000) for i in range(N // 4)]
    for generator in stage.cache["x"]:
        next(generator)


@case()
def coroutines(stage: Stage) -> None:
    @types.coroutine
    def wait() -> Iterator[None]:
        yield

    async def work(i: int) -> None:
        data = [bytes(300), 1000 + i]
        await wait()
        data.clear()

    waiting = [work(i) for i in range(N // 4)]
    for coroutine in waiting:
        coroutine.send(None)
    stage.cache["x"] = waiting


@case()
def iterators_half_way(stage: Stage) -> None:
    stage.cache["x"] = [zip(iter([bytes(200), str(i)]), map(str, [i])) for i in range(N)]  # noqa: B905


@case()
def exceptions_with_tracebacks(stage: Stage) -> None:
    def fail(i: int) -> None:
        payload = [bytes(300), i]
        raise ValueError(payload[1])

    errors = stage.cache["x"] = []
    for i in range(N // 4):
        try:
            fail(i * 1000)
        except ValueError as error:
            # This frame is among those that it keeps: it is not of the worker.
            errors.append(error.with_traceback(error.__traceback__.tb_next))  # type: ignore[union-attr]


@case()
def exception_groups(stage: Stage) -> None:
    def one(i: int) -> Exception:
        return ExceptionGroup(f"group {i}", [ValueError(f"text {i}"), KeyError(1000 + i)])

    stage.cache["x"] = [one(i) for i in range(N)]
