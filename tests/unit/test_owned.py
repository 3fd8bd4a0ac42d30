"""What a pass says: figures, names, bounds, slices."""

import gc
import itertools
import sys
import threading
import time
import tracemalloc
import weakref
from typing import Any

import pytest

from recyclepool import _owned
from recyclepool._holders import shown
from recyclepool._owned import SUPPORTED, Holder, Owned, Pass, Root, Share, largest

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="free-threaded: nothing can be proven")

MIB = 2**20


def read(cache: dict[Any, Any], **kwargs: Any) -> Owned:
    result = Pass([Root("cache[{}]", cache)], **kwargs).run()
    assert result is not None
    return result


def sizes(result: Owned) -> dict[str, int]:
    return {" + ".join(share.names): share.bytes for share in result.shares}


class Node:
    def __init__(self, parent: "Node | None", depth: int) -> None:
        self.parent = parent
        self.data = bytes(1000)
        self.children = [Node(self, depth - 1) for _ in range(3)] if depth else []


# -- figures ---------------------------------------------------------------------------------------


def test_nothing() -> None:
    result = Pass([]).run()
    assert result == (0, 0, 0, 0, 0, True, True, (), ())
    empty = read({})
    assert empty.owned == sys.getsizeof({})
    assert (empty.complete, empty.stable) == (True, True)


def test_owned_and_held() -> None:
    mine, held = bytes(MIB), [bytes(2 * MIB)]
    result = read({"own": [bytes(3 * MIB)], "mine": mine, "list": held})
    assert result.owned == pytest.approx(3 * MIB, rel=0.01)
    assert result.held == pytest.approx(3 * MIB, rel=0.01)
    large = [share.names for share in result.held_by if share.bytes > MIB / 2]
    assert large == [("cache['list']",), ("cache['mine']",)]
    assert result.complete
    assert result.stable


def test_cycles_are_owned_and_need_the_collector() -> None:
    result = read({"tree": Node(None, 4), "plain": bytes(MIB)})
    assert result.owned - result.cyclic == pytest.approx(MIB, rel=0.02)
    assert result.cyclic > 121 * 1000
    assert result.complete


def test_without_cycles_they_are_undecided() -> None:
    result = read({"tree": Node(None, 4), "plain": bytes(MIB)}, cycles=False)
    assert result.undecided >= 1
    assert not result.complete
    assert result.stable
    assert (result.cyclic, result.owned) == (0, pytest.approx(MIB, rel=0.02))


def test_a_cycle_that_is_held_at_one_place_is_held() -> None:
    tree = Node(None, 4)
    node = tree.children[1].children[2]
    cache = {"tree": tree}
    del tree
    result = read(cache)
    assert result.owned < 1000
    assert result.held > 121 * 1000
    assert node is cache["tree"].children[1].children[2]


def test_the_program_is_never_walked() -> None:
    here = sys.modules[__name__]
    cache = {"module": here, "function": read, "class": Node, "modules": sys.modules}
    assert read(cache).entered < 1000
    cache["made here"] = lambda: here
    assert read(cache).entered < 1000


def test_a_value_that_knows_its_holder() -> None:
    cache: dict[str, Any] = {}
    cache["x"] = [cache, bytes(MIB)]
    result = read(cache)
    assert result.complete
    assert result.owned == pytest.approx(MIB, rel=0.01)
    cache.clear()


# -- bounds ----------------------------------------------------------------------------------------


def test_a_budget_makes_it_a_lower_bound() -> None:
    cache = {i: [bytes(100)] for i in range(50_000)}
    whole, part = read(cache), read(cache, budget=10_000)
    assert whole.complete
    assert not part.complete
    assert part.stable
    assert 10_000 < part.entered < 13_000
    assert 0 < part.owned < whole.owned


def test_the_budget_of_the_second_phase_is_its_own() -> None:
    cache = {"a": [[str(i)] for i in range(3000)], "tree": Node(None, 7)}
    part = read(cache, budget=7000)
    assert not part.complete
    assert part.undecided > 0
    assert part.cyclic == 0
    assert read(cache, budget=20_000).complete


def test_enough_stops_early() -> None:
    cache = {i: [bytes(100)] for i in range(50_000)}
    result = read(cache, enough=100_000)
    assert not result.complete
    assert 100_000 <= result.owned < 3_000_000
    assert result.entered < 10_000


# -- slices ----------------------------------------------------------------------------------------


def test_slices_find_the_same() -> None:
    cache = {"tree": Node(None, 6), "rows": [{"id": i, "n": str(i)} for i in range(5000)]}
    whole = read(cache)
    work = Pass([Root("cache[{}]", cache)])
    slices = 0
    while (result := work.run(seconds=0)) is None:
        slices += 1
    assert slices > 10
    assert result == whole
    assert work.run() is result


LARGE = {
    "list": lambda: [None] * 3_000_000,
    "list of lists": lambda: [[None] * 4000 for _ in range(1000)],
    "dict": lambda: dict.fromkeys(range(1_000_000)),
    "dict of dicts": lambda: [dict.fromkeys(range(500)) for _ in range(1000)],
    "str": lambda: "x" * 10_000_000,
    "key": lambda: {"x" * 10_000_000: 1},
    "subclass": lambda: type("Own", (list,), {})([None] * 2_000_000),
    "records": lambda: [{"id": i} for i in range(100_000)],
}


def steps_of_look(cache: Any) -> list[float]:
    """The seconds of processor time of each step of a look, but for the four longest.

    A step looks long in which the processor was taken away.
    """
    gc.collect()
    gc.disable()
    try:
        steps, result = [], None
        work = Pass([Root("cache[{}]", cache)])
        while result is None:
            start = time.thread_time()
            result = work.run(seconds=0)
            steps.append(time.thread_time() - start)
    finally:
        gc.enable()
    assert result.complete
    return sorted(steps)[:-4] if len(steps) > 5 else steps


@pytest.mark.parametrize("name", LARGE)
def test_no_step_is_long(name: str) -> None:
    """In one of three looks: beside other programs all steps of one may take longer."""
    cache = {"x": LARGE[name]()}
    assert any(max(steps_of_look(cache)) < 0.003 for _ in range(3))


def test_a_holder_with_a_million_entries_is_read_in_slices() -> None:
    cache = dict.fromkeys(range(1_000_000))
    work = Pass([Root("cache[{}]", cache)])
    start = time.thread_time()
    assert work.run(seconds=0) is None
    assert time.thread_time() - start < 0.005
    assert read(cache).complete


def test_an_almost_empty_worker_is_cheap() -> None:
    roots = [Root("cache[{}]", {"x": 1})]
    fastest = min(_seconds(lambda: Pass(roots).run()) for _ in range(200))
    assert fastest < 0.0002  # 15 to 30 us where nothing else runs


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_what_is_remembered_is_little() -> None:
    cache = {"x": [{"id": i, "tags": [str(i)]} for i in range(20_000)]}
    read(cache)
    tracemalloc.start(1)
    try:
        result = read(cache)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * result.entered


# -- names -----------------------------------------------------------------------------------------


def test_what_several_roots_hold_is_named_after_all_of_them() -> None:
    both = [bytes(MIB)]
    cache = {"a": [both], "b": {"x": both}, "c": [bytes(2 * MIB)]}
    del both
    result = read(cache)
    assert [str(share) for share in largest(result, 2)] == [
        "cache['c'] 2 MiB",
        "cache['a'] + cache['b'] 1 MiB",
    ]
    assert sum(share.bytes for share in result.shares) == result.owned


def test_an_atom_that_several_roots_hold() -> None:
    cache = {"a": 1, "b": 2}
    cache["a"] = cache["b"] = bytes(MIB)  # type: ignore[assignment]
    result = read(cache)
    assert sizes(result)["cache['a'] + cache['b']"] == pytest.approx(MIB, rel=0.01)
    assert result.held < 100


def test_many_roots_are_not_named() -> None:
    shared = [bytes(MIB)]
    cache = dict.fromkeys(range(10), shared)
    del shared
    assert str(largest(read(cache), 1)[0]) == "shared by many roots 1 MiB"


def test_the_heavy_entry_of_a_group_is_found() -> None:
    cache = {f"key {i}": [str(i)] for i in range(2000)}
    cache["key 777"].append(bytes(2 * MIB))  # type: ignore[arg-type]
    result = read(cache)
    first, second = largest(result, 2)
    assert str(first) == "cache['key 777'] 2 MiB"
    assert second.names == ("cache[...] (2000 entries)",)
    assert first.bytes + second.bytes <= result.owned
    assert len(largest(result)) == 3


class Foreign:
    def __repr__(self) -> str:
        raise AssertionError("a foreign repr")

    __str__ = __format__ = __repr__  # type: ignore[assignment]


class OwnText(str):
    __slots__ = ()

    def __repr__(self) -> str:
        raise AssertionError("a foreign repr")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("model", "'model'"),
        (b"\x00", r"b'\x00'"),
        ("x" * 41, f"'{'x' * 30}'..."),
        ("\n\ud800", r"'\n\ud800'"),
        (17, "17"),
        (10**5000, "<int>"),
        (None, "None"),
        (True, "True"),
        (("user", 17), "('user', 17)"),
        ((1,), "(1,)"),
        (((1,), 2), "((...), 2)"),
        (tuple(range(9)), "<tuple>"),
        (Foreign(), "<Foreign>"),
        (OwnText("x"), "<OwnText>"),
        ((Foreign(),), "(<Foreign>,)"),
    ],
    ids=lambda value: value if type(value) is str and len(value) < 20 else "key",
)
def test_keys_are_shown_without_their_code(key: Any, name: str) -> None:
    assert shown(key) == name
    assert f"cache[{name}]" in sizes(read({key: [1000]}))


def test_reprs_do_not_show_what_is_held() -> None:
    root = Root("cache[{}]", {"x": Foreign()})
    assert repr(root) == "<Root cache[{}]>"
    assert "Foreign" not in repr(Pass([root]).run())
    assert repr(Share(("a", "b"), 2048)) == "<Share a + b 2 KiB>"


# -- what is let go of -----------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "del", "done"])
def test_nothing_is_kept_alive(end: str) -> None:
    cache = {"tree": Node(None, 6), "twice": [[[1000]] * 2 for _ in range(5000)]}
    gone = weakref.ref(cache["tree"])
    gc.collect()
    gc.disable()
    try:
        work: Pass | None = Pass([Root("cache[{}]", cache)])
        assert work is not None
        steps = 0
        while work.run(seconds=0) is None and end != "done" and steps < 8:
            steps += 1
        assert end == "done" or _records() > 0
        if end == "close":
            work.close()
        elif end == "del":
            work = None
        else:
            work.run()
        assert _records() == 0
    finally:
        gc.enable()
    cache.clear()
    gc.collect()
    assert gone() is None
    if end == "close":
        assert work is not None
        assert work.run() == _owned.NOTHING


def _records() -> int:
    return sum(type(o) is _owned._Record for o in gc.get_objects())


def test_it_holds_no_collection_back() -> None:
    cache = {"x": [Node(None, 1)]}
    work = Pass([Root("cache[{}]", cache)])
    work.run()
    gone = weakref.ref(cache["x"][0])
    cache.clear()
    gc.collect()
    assert gone() is None
    assert work.run() is not None


def test_a_holder_of_ones_own() -> None:
    class Pair(Holder):
        def count(self) -> int:
            return 2

        def reader(self, start: int) -> Any:
            parts = iter(held[start:])
            return lambda n: [*itertools.islice(parts, n)]

        def name(self, references: list[Any]) -> str:
            return "part"

    held: Any = [bytes(MIB), [bytes(MIB)]]
    result = Pass([Root("pair {}", Pair())]).run()
    assert result is not None
    # The tuple slice that the reader iterates over refers to them as well.
    assert result.owned in range(3 * MIB)
    assert result.complete


def test_any_thread_may_read() -> None:
    cache = {"x": [bytes(MIB)]}
    found: list[Owned] = []
    thread = threading.Thread(target=lambda: found.append(read(cache)))
    thread.start()
    thread.join()
    assert found == [read(cache)]
