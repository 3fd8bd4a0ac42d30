"""Objects that lie, structures that change, readers that fail: no pass breaks."""

import functools
import gc
import random
import sys
import threading
import types
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from recyclepool import _referents
from recyclepool._owned import SUPPORTED, Owned, Pass, Root, largest

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="free-threaded: nothing can be proven")

MIB = 2**20


def read(cache: dict[Any, Any], **kwargs: Any) -> Owned:
    result = Pass([Root("cache[{}]", cache)], **kwargs).run()
    assert result is not None
    largest(result)
    return result


# -- objects that lie ------------------------------------------------------------------------------

CALLS: list[str] = []


def foreign(name: str) -> Any:
    def method(self: Any, *args: Any) -> Any:
        CALLS.append(name)
        raise ZeroDivisionError(name)

    return method


NAMES = """
__sizeof__ __len__ __iter__ __repr__ __str__ __eq__ __bool__ __getattribute__ __getitem__
__format__ __contains__ __reversed__ __dir__ __index__ __int__ __call__ __get__ __next__
__instancecheck__ __subclasscheck__ __sub__ __lt__ values keys items
"""
LIES: dict[str, Any] = {name: foreign(name) for name in NAMES.split()}
LIES["__class__"] = property(foreign("__class__"))
LIES["__dict__"] = property(foreign("__dict__"))
LIES["base"] = LIES["dtype"] = property(foreign("attribute"))


class Meta(type):
    __eq__ = foreign("meta __eq__")
    __hash__ = foreign("meta __hash__")
    __repr__ = foreign("meta __repr__")
    __getattribute__ = foreign("meta __getattribute__")
    __instancecheck__ = __subclasscheck__ = foreign("meta check")  # type: ignore[assignment]
    __mro__ = __name__ = __module__ = property(foreign("meta property"))  # type: ignore


BASES = [object, list, dict, tuple, set, frozenset, int, str, bytes, ValueError, types.ModuleType]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
@pytest.mark.parametrize("meta", [type, Meta], ids=["type", "Meta"])
def test_no_code_of_theirs_runs(base: type, meta: type) -> None:
    liar = type.__call__(meta, "Liar", (base,), dict(LIES))
    arguments = {types.ModuleType: ("name",)}.get(base, ())  # type: ignore[call-overload]
    objects = [base.__new__(liar, *arguments) for _ in range(10)]
    if base is list:
        list.extend(objects[0], [[bytes(MIB)]])
    cache = {"x": objects, "own": bytes(MIB)}
    del objects
    CALLS.clear()
    result = read(cache)
    assert CALLS == []
    assert result.stable
    assert result.complete
    assert result.owned >= MIB * (2 if base is list else 1)
    del cache, liar
    gc.collect()


def test_a_sizeof_that_lies_is_not_asked() -> None:
    class Huge:
        def __sizeof__(self) -> int:
            return 10**12

    class Broken(list[Any]):
        __sizeof__ = str.__sizeof__  # type: ignore[assignment]

    class Odd(list[Any]):
        __sizeof__ = functools.partial(print)  # type: ignore[assignment]

    cache = {"x": [Huge() for _ in range(100)], "y": Broken([1000] * 1000), "z": Odd([1] * 1000)}
    result = read(cache)
    assert result.complete
    assert 20_000 < result.owned < 50_000


def test_a_class_that_calls_itself_ndarray() -> None:
    liar = type("ndarray", (), {"__module__": "numpy", "base": property(foreign("base"))})
    CALLS.clear()
    assert read({"x": [liar() for _ in range(10)]}).complete
    assert CALLS == []


def test_a_subclass_of_ndarray_is_not_finalized() -> None:
    numpy = pytest.importorskip("numpy")

    class Own(numpy.ndarray):  # type: ignore[misc]
        def __array_finalize__(self, other: Any) -> None:
            CALLS.append("__array_finalize__")

    array = numpy.empty(1000, dtype=object).view(Own)
    array[:] = [[i] for i in range(1000)]
    cache = {"x": array, "fields": numpy.zeros(3, dtype=[("a", object)]).view(Own)}
    del array
    CALLS.clear()
    assert read(cache).complete
    assert CALLS == []


def test_types_are_not_kept_alive() -> None:
    made = type("Made", (), {})
    gone = weakref.ref(made)
    known = len(_referents._kinds)
    assert read({"x": [made()]}).complete
    del made
    gc.collect()
    assert gone() is None
    assert len(_referents._kinds) <= known + 1


# -- readers ---------------------------------------------------------------------------------------


class Opaque:
    __slots__ = ("inside",)

    def __init__(self, inside: Any) -> None:
        self.inside = inside


@pytest.fixture
def registered() -> Iterator[Any]:
    before = dict(_referents._readers)

    def register(reader: Any) -> None:
        _referents.register(Opaque, reader)

    yield register
    _referents._readers.clear()
    _referents._readers.update(before)
    _referents._kinds.clear()


def test_a_reader_tells_what_is_hidden(registered: Any) -> None:
    registered(lambda o: (MIB, [o.inside, Opaque]))
    result = read({"x": Opaque([bytes(MIB)])})
    assert result.complete
    assert result.owned == pytest.approx(2 * MIB, rel=0.01)


def endless(o: Any) -> Any:
    while True:
        yield o


READERS: dict[str, Any] = {
    "nothing": lambda o: None,
    "no tuple": lambda o: 7,
    "three": lambda o: (1, [], []),
    "text": lambda o: ("many", [o.inside]),
    "negative": lambda o: (-(10**9), [o.inside]),
    "too much": lambda o: (10**30, [o.inside]),
    "not iterable": lambda o: (0, 5),
    "endless": lambda o: (0, endless(o)),
    "itself": lambda o: (0, [o] * 10),
    "new ones": lambda o: (0, [Opaque([bytes(MIB)])]),
    "others'": lambda o: (0, [sys.modules, sys, read, CALLS]),
    "twice": lambda o: (0, [o.inside, o.inside]),
    "raises": foreign("reader"),
    "exits": lambda o: sys.exit(3),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_cannot_break_a_pass(registered: Any, name: str) -> None:
    registered(READERS[name])
    cache = {"x": [Opaque([bytes(MIB)])], "own": bytes(MIB)}
    result = read(cache)
    assert MIB <= result.owned < 2.1 * MIB
    assert result.entered < 1000


def test_an_interrupt_passes_and_ends_it(registered: Any) -> None:
    def interrupted(o: Any) -> Any:
        raise KeyboardInterrupt

    registered(interrupted)
    work = Pass([Root("cache[{}]", {"x": [Opaque(1)]})])
    with pytest.raises(KeyboardInterrupt):
        work.run()
    result = work.run()
    assert result is not None
    assert not result.complete


def test_out_of_memory_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("recyclepool._owned.read", full)
    result = read({"x": [1000]})
    assert not result.complete
    assert not result.stable
    monkeypatch.setattr("recyclepool._owned._Walk._shares", full)
    assert read({"x": [1000]}).owned == 0


# -- structures that change ------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["dict", "set", "list", "holder"])
def test_a_container_that_changes_while_it_is_read(change: str) -> None:
    large: Any = {"dict": dict, "set": set, "list": list, "holder": dict}[change]
    if change in ("dict", "holder"):
        content = large((10**6 + i, [i]) for i in range(50_000))
    else:
        content = large(range(10**6, 10**6 + 50_000))
    cache = content if change == "holder" else {"x": content}
    work = Pass([Root("cache[{}]", cache)])
    for _ in range(30):
        assert work.run(seconds=0) is None
    if change == "list":
        del content[25_000:]
    else:
        content.pop(*([10**6] if type(content) is dict else []))
    del content
    result = work.run()
    assert result is not None
    assert result.complete == (change == "list")
    assert result.stable == (change == "list")


class Node:
    def __init__(self, parent: "Node | None", depth: int) -> None:
        self.parent = parent
        self.data = bytes(100)
        self.children = [Node(self, depth - 1) for _ in range(3)] if depth else []


def all_nodes(node: Node) -> list[Node]:
    return [node, *(below for child in node.children for below in all_nodes(child))]


def test_others_change_what_they_share_with_the_worker() -> None:
    shared = all_nodes(Node(None, 5))
    cache = {"own": [{"id": i} for i in range(1000)], "tree": Node(None, 4), "shared": shared[0]}
    roots = [Root("cache[{}]", cache)]
    quiet = read(cache).owned
    stop, changes = threading.Event(), [0, 0]
    enough = threading.Barrier(3)
    threads = [
        threading.Thread(target=shuffle, args=(shared, changes, k, stop, enough)) for k in (0, 1)
    ]
    for thread in threads:
        thread.start()
    enough.wait()
    results = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        for _ in range(6):
            work = Pass(roots)
            while (result := work.run(seconds=0.0002)) is None:
                stop.wait(0.0001)  # lets them run
            results.append(result)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        for thread in threads:
            thread.join()
    assert min(changes) > 100
    assert max(result.owned for result in results if result.stable) <= quiet * 1.001
    assert min(result.owned for result in results if result.complete) >= quiet * 0.999


def shuffle(
    nodes: list[Node], changes: list[int], k: int, stop: threading.Event, enough: threading.Barrier
) -> None:
    choose = random.Random(k)
    while not stop.is_set():
        a, b = choose.choice(nodes), choose.choice(nodes)
        if a.children and b.children:
            a.children[0], b.children[-1] = b.children[-1], a.children[0]
        a.data = bytes(choose.randrange(50, 150))
        a.parent = b
        changes[k] += 1
        if changes[k] == 100:
            enough.wait()


# -- shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_deeper_than_the_recursion_limit(twice: bool) -> None:
    depth = 100_000
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested, nested] if twice else [nested]
    cache = {"x": nested}
    del nested
    work = Pass([Root("cache[{}]", cache)])
    assert work.run(seconds=0) is None
    result = work.run()
    assert result is not None
    assert result.complete
    assert result.owned > depth * 64
    half = Pass([Root("cache[{}]", cache)])
    for _ in range(1000):
        half.run(seconds=0)
    cache.clear()
    del half


def test_a_ring_that_is_deep() -> None:
    ring: list[Any] = []
    last = ring
    for _ in range(20_000):
        last = [last]
    ring.append(last)
    cache = {"x": ring}
    del ring, last
    result = read(cache)
    assert result.complete
    assert result.cyclic > 20_000 * 64


@pytest.mark.skipif(sys.version_info < (3, 14), reason="frames borrow from 3.14 on")
def test_what_a_suspended_frame_borrows_is_not_counted() -> None:
    def generator(data: bytes) -> Iterator[int]:
        yield len((data, (yield 1)))

    held = [bytes(100_000) for _ in range(20)]
    suspended = [generator(data) for data in held]
    for made in suspended:
        next(made)
    del made
    assert len(gc.get_referents(suspended[0])) > len(set(map(id, gc.get_referents(suspended[0]))))
    cache = {"x": suspended}
    del suspended
    result = read(cache)
    assert result.owned < 50_000
    assert result.complete
    held.clear()
    assert read(cache).owned > 2_000_000


def test_a_lock_and_other_things_of_c() -> None:
    cache = {
        "lock": threading.Lock(),
        "event": threading.Event(),
        "local": threading.local(),
        "iterator": iter({"a": 1}.items()),
        "slice": slice([1], [2]),
        "method": [].append,
        "code": compile("1", "name", "eval"),
    }
    assert read(cache).complete


def test_finalizers_may_use_what_is_read() -> None:
    cache: dict[str, Any] = {}

    class Final:
        def __init__(self) -> None:
            self.me = [self]

        def __del__(self) -> None:
            cache.pop("other", None)

    cache |= {"x": [Final() for _ in range(2000)], "other": [1000]}
    work = Pass([Root("cache[{}]", cache)])
    while work.run(seconds=0) is None:
        cache.get("x", []).clear()
    assert work.run() is not None
    gc.collect()
