"""What a worker may hold together with others, in cycles, or in things of C."""

import collections
import contextvars
import functools
import itertools
import threading
import types
from collections.abc import Iterator
from typing import Any

from recyclepool._owned import Root

from .owned_cases import Plain, records
from .owned_stage import N, Stage, case

# -- things of C -----------------------------------------------------------------------------------


@case()
def byte_buffers(stage: Stage) -> None:
    from array import array
    from io import BytesIO

    stage.cache["x"] = [array("d", range(200)) for _ in range(N // 8)]
    stage.cache["y"] = [BytesIO(bytes([i % 256]) * 3000) for i in range(N // 8)]
    stage.cache["z"] = [bytearray(3000) for _ in range(N // 8)]


@case()
def memoryview_chains(stage: Stage) -> None:
    view = memoryview(bytearray(1_000_000))
    for _ in range(100):
        view = view[1:].cast("B")
    stage.cache["x"] = view


@case()
def patterns(stage: Stage) -> None:
    import re

    stage.cache["x"] = [re.compile(f"(?P<name>a|b{i})[0-9]+ of {i} {'x?' * 20}") for i in range(60)]
    re.purge()


@case()
def queues(stage: Stage) -> None:
    from asyncio import Queue as AsyncQueue
    from queue import Queue

    for i in range(N // 20):
        queue: Any = AsyncQueue() if i % 2 else Queue()
        for n in range(20):
            queue.put_nowait([bytes(100), n])
        stage.cache[i] = queue


@case()
def futures_of_asyncio(stage: Stage) -> None:
    import asyncio

    loop = asyncio.new_event_loop()
    stage.outside.append(loop)
    stage.after.append(loop.close)
    for i in range(N):
        future = loop.create_future()
        future.set_result([bytes(500), i])
        stage.cache[i] = future


@case()
def mapping_proxies(stage: Stage) -> None:
    stage.cache["x"] = [types.MappingProxyType({f"key {i}": [1000 + i]}) for i in range(N)]


@case()
def weak_containers(stage: Stage) -> None:
    """The weak ones keep nothing alive; the dictionary with weak keys keeps its values."""
    import weakref

    alive = [Plain(i) for i in range(N // 4)]
    stage.outside.append(alive)
    stage.cache["values"] = weakref.WeakValueDictionary(
        (f"key {i}", o) for i, o in enumerate(alive)
    )
    stage.cache["keys"] = weakref.WeakKeyDictionary((o, [bytes(300)]) for o in alive)
    stage.cache["set"] = weakref.WeakSet(alive)


# -- cycles and roots ------------------------------------------------------------------------------


class Node:
    def __init__(self, parent: "Node | None", depth: int) -> None:
        self.parent = parent
        self.data = bytes(100)
        self.children = [Node(self, depth - 1) for _ in range(3)] if depth else []


@case()
def tree_with_parents(stage: Stage) -> None:
    stage.cache["x"] = Node(None, 7)


@case()
def ring_of_lists(stage: Stage) -> None:
    ring = [[bytes(500)] for _ in range(N // 2)]
    for a, b in itertools.pairwise([*ring, ring[0]]):
        a.append(b)  # type: ignore[arg-type]
    stage.cache["x"] = ring.pop()


@case()
def shared_between_entries(stage: Stage) -> None:
    both = records(N // 2)
    stage.cache |= {"a": {"data": both}, "b": [both, [bytes([1]) * 100_000]]}


@case()
def atom_shared_between_entries(stage: Stage) -> None:
    stage.cache["a"] = stage.cache["b"] = bytes([1]) * 1_000_000


@case()
def thread_locals(stage: Stage) -> None:
    local = threading.local()
    ready, go = threading.Event(), threading.Event()

    def worker() -> None:
        local.session = records(N // 2)
        local.buffer = bytes([7]) * 200_000
        stage.roots.append(Root("threading.local attribute {}", vars(local)))
        ready.set()
        go.wait()

    thread = threading.Thread(target=worker)
    thread.start()
    ready.wait()
    stage.recycle += (go.set, thread.join)


@case()
def context_of_the_worker(stage: Stage) -> None:
    variable = contextvars.ContextVar[Any]("variable")
    context = contextvars.Context()
    context.run(variable.set, records(N // 2))
    stage.outside.append(context.copy())  # it still holds the first
    context.run(variable.set, records(N // 2))
    stage.roots.append(Root("context", context))
    worker = [context]
    stage.recycle.append(worker.clear)
    stage.outside.append(variable)


# -- what a recycle does not free ------------------------------------------------------------------


@case(frees=False)
def list_of_a_module(stage: Stage) -> None:
    stage.outside.append(records())
    stage.cache["x"] = stage.outside[0]


@case()
def own_index_over_the_list_of_a_module(stage: Stage) -> None:
    stage.outside.append(records())
    index = [(row, str(row["id"]) * 5) for row in stage.outside[0]]
    stage.cache["x"] = {"table": stage.outside[0], "index": index}


@case()
def half_of_the_records_outside(stage: Stage) -> None:
    stage.cache["x"] = records()
    stage.outside.append(stage.cache["x"][::2])


@case()
def shared_by_two_workers(stage: Stage) -> None:
    both = records()
    stage.outside.append({"x": both})
    stage.cache["x"] = [both, bytes([1]) * 100_000]


@case(frees=False)
def results_that_the_caller_holds(stage: Stage) -> None:
    stage.outside.append([bytes([i % 256]) * 25_000 for i in range(200)])
    stage.cache |= enumerate(stage.outside[0])


@case()
def in_the_frame_of_a_running_thread(stage: Stage) -> None:
    stage.cache |= {"x": records(), "y": [bytes([1]) * 100_000]}
    started, go = threading.Event(), threading.Event()

    def task() -> None:
        mine = stage.cache["x"]
        started.set()
        go.wait()
        del mine

    thread = threading.Thread(target=task)
    thread.start()
    started.wait()
    stage.after += (go.set, thread.join)


@case(frees=False)
def one_node_of_a_cyclic_tree_held(stage: Stage) -> None:
    stage.cache["x"] = Node(None, 7)
    stage.outside.append(stage.cache["x"].children[1].children[0])


@case()
def generators_over_held_objects(stage: Stage) -> None:
    """The suspended frames borrow what the caller holds."""

    def numbers(data: bytes) -> Iterator[int]:
        yield len((data, (yield 1)))

    stage.outside.append([bytes([i % 256]) * 1000 for i in range(N // 4)])
    stage.cache["x"] = [numbers(data) for data in stage.outside[0]]
    for generator in stage.cache["x"]:
        next(generator)


@case(frees=False)
def members_of_an_enum(stage: Stage) -> None:
    import enum

    color = enum.Enum("color", [f"name_{i}" for i in range(N // 4)])
    stage.outside.append(color)
    stage.cache["x"] = set(color), list(color)


@case(frees=False)
def views_of_held_things(stage: Stage) -> None:
    table = {f"key {i}": [i] for i in range(N)}
    buffer = bytearray(1_000_000)
    stage.outside += (table, buffer)
    stage.cache["proxy"] = types.MappingProxyType(table)
    stage.cache["view"] = memoryview(buffer)[10:]
    stage.cache["partial"] = functools.partial(print, table)
    stage.cache["map"] = collections.ChainMap(table)
    stage.cache["iterator"] = iter(table.items())


# -- numpy, pandas ---------------------------------------------------------------------------------


@case(needs="numpy")
def arrays(stage: Stage) -> None:
    import numpy

    stage.cache["x"] = [numpy.full((100, 100), i, dtype=float) for i in range(40)]


@case(needs="numpy")
def views_of_an_own_array(stage: Stage) -> None:
    import numpy

    base = numpy.ones(200_000)
    stage.cache["x"] = [base[i::100] for i in range(100)]


@case(needs="numpy")
def views_of_the_array_of_somebody(stage: Stage) -> None:
    import numpy

    base = numpy.ones(500_000)
    stage.outside.append(base)
    stage.cache["x"] = [base[i * 100 : (i + 1) * 100] for i in range(1000)]


@case(needs="numpy")
def array_of_objects(stage: Stage) -> None:
    import numpy

    array = numpy.empty(N, dtype=object)
    for i in range(N):
        array[i] = [f"element {i}"]
    stage.cache |= {"x": array[::2].T, "y": memoryview(numpy.ones(20_000))}


@case(needs="numpy")
def array_of_held_objects(stage: Stage) -> None:
    import numpy

    stage.outside.append(records(N // 2))
    array = numpy.empty(N // 2, dtype=object)
    array[:] = stage.outside[0]
    stage.cache["x"] = array


@case(needs="numpy")
def array_with_fields_of_objects(stage: Stage) -> None:
    import numpy

    array = numpy.zeros(N, dtype=[("a", "f8"), ("b", object)])
    array["b"] = [(f"element {i}",) for i in range(N)]
    stage.cache["x"] = array


def frame() -> Any:
    import numpy
    import pandas

    objects = pandas.Series([f"object {i}" for i in range(2 * N)], dtype=object)
    columns = {"a": range(2 * N), "b": numpy.ones(2 * N), "d": objects}
    return pandas.DataFrame(columns | {"c": [f"row {i}" for i in range(2 * N)]})


@case(needs="pandas", tolerance=0.1)
def data_frame(stage: Stage) -> None:
    stage.cache["x"] = frame()


@case(needs="pandas", tolerance=0.1)
def data_frame_in_use(stage: Stage) -> None:
    used = frame().set_index("c")
    used.loc["row 77"]
    used.groupby("b").a.sum()
    stage.cache |= {"x": used, "slice": used.iloc[10:500], "series": used["a"]}


@case(needs="pandas", frees=False, tolerance=0.1)
def data_frame_that_the_caller_holds(stage: Stage) -> None:
    stage.outside.append(frame())
    stage.cache["x"] = stage.outside[0]
