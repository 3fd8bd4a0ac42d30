import collections
import functools
import gc
import logging
import os
import subprocess
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from recyclepool import RecyclePool, _census, _referents, memory
from recyclepool._census import Container, largest_containers

MIB = 2**20
FULL = 5 * MIB
ALL = 10**6
GATHER_HANDLERS = _census._Census._gather_handlers
LIBRARY = os.path.dirname(os.__file__)

Module = Callable[..., types.ModuleType]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    """Have a module of the program, with these names in it. The program has no others.

    A census of all that the tests have imported takes a second.
    """
    program: set[str] = set()
    monkeypatch.setattr(_census._Census, "_gather_handlers", lambda _: None)  # pytest's
    is_skipped = _census._is_skipped
    monkeypatch.setattr(
        _census, "_is_skipped", lambda n, names: n not in program or is_skipped(n, names)
    )

    def make(name: str = "shop.store", **names: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__dict__.update(names)
        monkeypatch.setitem(sys.modules, name, made)
        program.add(name)
        return made

    return make


class Read:
    """Objects of a library that has taught the pool to read them."""

    def __init__(self, data: bytes) -> None:
        self.data = data


@pytest.fixture
def read_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    monkeypatch.setattr(_referents, "_readers", _referents._readers.copy())
    monkeypatch.setattr(_referents, "_kinds", {})
    return lambda read: memory.register(Read, read)


def blocks(size: int = FULL, each: int = 10_000) -> list[bytes]:
    return [bytes(each) for _ in range(size // each)]


def census(count: int = ALL, seconds: float = 30.0) -> dict[str, Container]:
    """What it says, by name; the time limit is no matter."""
    return {one.name: one for one in largest_containers(count=count, seconds=seconds)}


def reading(name: str, count: int = ALL, seconds: float = 30.0) -> Container | None:
    return census(count, seconds).get(name)


def weight(name: str, said: dict[str, Container] | None = None) -> int:
    found = (census() if said is None else said).get(name)
    assert found is not None
    assert not found.is_estimate
    return found.bytes


def about(size: int) -> Any:
    return pytest.approx(size, rel=0.1)


# ==== what is found ==============================================================================


def test_names_the_largest_first(module: Module) -> None:
    module("shop.store", ORDERS=blocks(3 * FULL), small=[])
    module("shop.users", SESSIONS=dict(enumerate(blocks(2 * FULL))))
    found = largest_containers(count=2)
    assert [one.name for one in found] == ["shop.store.ORDERS", "shop.users.SESSIONS"]
    assert [one.bytes for one in found] == [about(3 * FULL), about(2 * FULL)]
    assert len(largest_containers(count=1)) == 1


def test_finds_what_a_real_program_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PLANTED", blocks(10 * FULL), raising=False)
    found = census()
    assert found[f"{__name__}.PLANTED"].bytes == about(10 * FULL)
    assert any(name.startswith(("pytest", "_pytest")) for name in found)
    assert len(found) > 100


class Point:
    def __init__(self, data: bytes) -> None:
        self.data = data


class Slotted:
    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def cached_calls() -> Any:
    @functools.lru_cache(1000)
    def load(key: int) -> bytes:
        return bytes(10_000)

    for key in range(FULL // 10_000):
        load(key)
    return load


def remembering() -> Any:
    kept = blocks()
    return lambda: kept


def in_a_default() -> Any:
    def load(key: int, cache: Any = {}) -> Any:  # noqa: B006
        return cache.setdefault(key, bytes(10_000))

    for key in range(FULL // 10_000):
        load(key)
    return load


def in_an_attribute() -> Any:
    def load() -> None: ...

    load.cache = blocks()  # type: ignore[attr-defined]
    return load


def keeping_records() -> Any:
    handler = logging.Handler()
    handler.records = blocks()  # type: ignore[attr-defined]
    return handler


def collecting() -> Any:
    thread = threading.Thread(target=print)
    thread.seen = blocks()  # type: ignore[attr-defined]
    return thread


def failed() -> Any:
    def fail() -> None:
        rows = blocks()
        raise ValueError(len(rows))

    try:
        fail()
    except ValueError as error:
        return [error]


def kept_futures() -> Any:
    with RecyclePool(1) as pool:
        return [pool.submit(bytes, 10_000) for _ in range(FULL // 10_000)]


def linked() -> list[Any]:
    chain: list[Any] = []
    for block in blocks():
        chain = [block, chain]
    return chain


SHAPES: dict[str, Callable[[], Any]] = {
    "list": blocks,
    "tuple": lambda: tuple(blocks()),
    "set": lambda: set(map(bytes.__add__, blocks(), map(str.encode, map(str, range(524))))),
    "deque": lambda: collections.deque(blocks()),
    "dict of values": lambda: dict(enumerate(blocks())),
    "dict of keys": lambda: {str(n) * 2500: n for n in range(1000, 1000 + FULL // 10_000)},
    "OrderedDict": lambda: collections.OrderedDict(enumerate(blocks())),
    "defaultdict": lambda: collections.defaultdict(list, {1: blocks()}),
    "nested": lambda: {"a": [{"b": (blocks(),)}]},
    "instances": lambda: [Point(block) for block in blocks()],
    "slots": lambda: [Slotted(block) for block in blocks()],
    "one instance": lambda: Point(b"".join(blocks())),
    "lru_cache": cached_calls,
    "closure": remembering,
    "default": in_a_default,
    "attribute": in_an_attribute,
    "handler": keeping_records,
    "futures": kept_futures,
    "thread": collecting,
    "exceptions": failed,
    "partial": lambda: functools.partial(print, blocks()),
    "bytearray": lambda: bytearray(FULL),
    "bytes": lambda: bytes(FULL),
    "linked list": linked,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_weighs_each_shape(module: Module, shape: str) -> None:
    module(THING=SHAPES[shape]())
    assert weight("shop.store.THING") == about(FULL)


def test_reads_large_ones_bit_by_bit(module: Module) -> None:
    many = 3 * _referents.LARGE
    shapes = {
        "LIST": [bytes(100) for _ in range(many)],
        "SET": {b"%0100d" % n for n in range(many)},
        "DEQUE": collections.deque(bytes(100) for _ in range(many)),
        "DICT": {n: bytes(100) for n in range(many)},
        "TUPLE": tuple(bytes(100) for _ in range(many)),
    }
    module(**shapes)
    one, said = sys.getsizeof(bytes(100)), census()
    for name, shape in shapes.items():
        keys = sum(map(sys.getsizeof, shape)) if name == "DICT" else 0
        expected = sys.getsizeof(shape) + many * one + keys
        assert weight(f"shop.store.{name}", said) == pytest.approx(expected, rel=0.01), name


def test_finds_what_classes_hold(module: Module) -> None:
    class Inner:
        CACHE = blocks()

    class Registry:
        known: ClassVar = dict(enumerate(blocks()))
        inner = Inner

    class Imported:
        known = blocks()

    for kind in (Inner, Registry):
        kind.__module__ = "shop.store"
    module(Registry=Registry, Imported=Imported)
    said = census()
    assert weight("shop.store.Registry.known", said) == about(FULL)
    assert weight("shop.store.Registry.inner.CACHE", said) == about(FULL)
    assert reading("shop.store.Imported.known") is None


def test_knows_views_and_objects_of_numpy(module: Module) -> None:
    numpy = pytest.importorskip("numpy")
    objects = numpy.empty(FULL // 10_000, dtype=object)
    objects[:] = blocks()
    objects = numpy.concatenate([objects] * 20)  # large enough to count by itself
    module(VIEWS=[numpy.zeros(FULL, "u1")[:5]], ARRAY=numpy.zeros(FULL, "u1"), OBJECTS=[objects])
    for name in ("VIEWS", "ARRAY", "OBJECTS"):
        assert weight(f"shop.store.{name}") == about(FULL)


def test_registered_readers_are_asked(module: Module, read_by: Callable[[Any], None]) -> None:
    read_by(lambda thing: (FULL, [thing.data]))
    module(THINGS=[Read(bytes(FULL)), Read(b"")])
    assert weight("shop.store.THINGS") == about(3 * FULL)


def test_what_is_shared_inside_counts_once(module: Module) -> None:
    block = blocks()
    ring: list[Any] = [block, (block,), {"block": block}]
    ring.append(ring)
    module(RING=ring)
    assert weight("shop.store.RING") == about(FULL)


def test_a_container_with_a_name_is_its_own(module: Module) -> None:
    inner = blocks()
    module("shop.store", OUTER=[inner, blocks(2 * FULL)], INNER=inner)
    said = census()
    assert weight("shop.store.INNER", said) == about(FULL)
    assert weight("shop.store.OUTER", said) == about(2 * FULL)


def test_of_several_names_the_likely_home_is_told(module: Module) -> None:
    orders = blocks()
    module("shop", __path__=[], ORDERS=orders)
    module("shop.store", ORDERS=orders)
    found = [one.name for one in largest_containers(ALL) if one.name.endswith(".ORDERS")]
    assert found == ["shop.store.ORDERS"]


# ==== what is left out ===========================================================================


def test_the_standard_library_and_this_package_are_left_out(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    module("recyclepool._thing", KEPT=blocks())
    module("json.thing", KEPT=blocks())
    module("program", KEPT=blocks(), __dunder__=blocks())
    found = [one.name for one in largest_containers(ALL)]
    assert "program.KEPT" in found
    assert not [name for name in found if name.startswith(("recyclepool", "json."))]
    assert "program.__dunder__" not in found


@pytest.mark.parametrize("file", ["/srv/shop/profile.py", f"{LIBRARY}/site-packages/profile.py"])
def test_a_module_that_is_called_like_a_standard_one(module: Module, file: str) -> None:
    module("profile", SESSIONS=blocks(), __file__=file)
    module("queue", SESSIONS=blocks(), __file__=f"{LIBRARY}/queue.py")
    assert list(census()) == ["profile.SESSIONS"]


def test_does_not_enter_what_leads_to_everything(module: Module) -> None:
    far = module("elsewhere", __kept__=blocks())
    names: dict[str, Any] = {"__builtins__": {}, "far": blocks()}
    exec("def function(): return 1", names)
    ours = type("Ours", (), {"__module__": "recyclepool.pool"})()
    ours.kept = blocks()
    logger = logging.Logger("own")
    logger.kept = blocks()  # type: ignore[attr-defined]
    here = threading.local()
    here.kept = blocks()
    kind = type("Kind", (), {"KEPT": blocks()})
    far.__dict__["kind"] = kind
    leads = [far, far.__dict__, names["function"], ours, here, logger, kind]
    module(LEADS=[*leads, sys._getframe(), weakref.ref(kind)])
    assert weight("shop.store.LEADS") < MIB


# ==== no foreign code ============================================================================


class Calls:
    """Counts what is run of a class that is full of traps."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def trap(self, name: str) -> Callable[..., Any]:
        def trapped(*_: Any, **__: Any) -> Any:
            self.seen.append(name)
            raise RuntimeError(name)

        return trapped


TRAPS = (
    "__len__ __iter__ __hash__ __eq__ __sizeof__ __getitem__ __bool__ __repr__ keys items values"
)
LOOKS = "__getattribute__ __getattr__"


@pytest.mark.parametrize("base", [dict, list, set, tuple, collections.deque, object, bytearray])
def test_no_method_of_an_object_is_run(module: Module, base: type) -> None:
    calls = Calls()
    body: dict[str, Any] = {name: calls.trap(name) for name in (TRAPS + " " + LOOKS).split()}
    body["__class__"] = property(calls.trap("__class__"))
    kind = type("Trap", (base,), body)
    trap = base.__new__(kind)
    if base is list:
        list.extend(trap, blocks())
    elif base is dict:
        dict.__setitem__(trap, 1, blocks())
    module(THING=trap, LIST=[trap])
    found = largest_containers(ALL)
    assert calls.seen == []
    if base in (list, dict):
        assert next(one for one in found if one.name == "shop.store.THING").bytes == about(FULL)


def test_no_metaclass_is_asked(module: Module) -> None:
    calls = Calls()
    traps = "__getattribute__ __hash__ __eq__ __instancecheck__ __subclasscheck__ __len__"
    body: dict[str, Any] = {name: calls.trap(name) for name in traps.split()}
    for name in ("__dict__", "__mro__", "__sizeof__", "__module__"):
        body[name] = property(calls.trap(name))
    meta = type("Meta", (type,), body)
    kind = meta("Kind", (), {"__module__": "shop.store", "KEPT": blocks()})
    thing = object.__new__(kind)
    calls.seen.clear()  # what it took to make them
    module(Kind=kind, THING=thing)
    assert weight("shop.store.Kind.KEPT") == about(FULL)
    assert calls.seen == []


def test_lazy_modules_are_not_loaded(monkeypatch: pytest.MonkeyPatch, module: Module) -> None:
    calls = Calls()
    body = {"__getattr__": calls.trap("get"), "__getattribute__": calls.trap("get")}
    lazy = type("Lazy", (types.ModuleType,), body)("lazy")
    types.ModuleType.__getattribute__(lazy, "__dict__")["KEPT"] = blocks()
    body["__class__"] = property(calls.trap("class"))
    module("lazy")
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    for name, odd in (("proxy", type("Proxy", (), body)()), ("none", None)):
        module(name)
        monkeypatch.setitem(sys.modules, name, odd)  # type: ignore[arg-type]
    module("with_hook", __getattr__=calls.trap("hook"))
    assert weight("lazy.KEPT") == about(FULL)
    assert calls.seen == []


LAZY = """
import importlib.util, sys
spec = importlib.util.find_spec("wave")
loader = importlib.util.LazyLoader(spec.loader)
spec.loader = loader
module = importlib.util.module_from_spec(spec)
sys.modules["a_lazy_one"] = sys.modules["wave"] = module
loader.exec_module(module)
from recyclepool._census import largest_containers
largest_containers()
assert type(module) is not type(sys), "it was loaded"
"""


def test_a_lazy_loader_stays_lazy() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True, timeout=60)


# ==== bounds, changes, leftovers =================================================================


def sessions(count: int) -> dict[str, dict[str, Any]]:
    return {f"user{n}": {"id": n, "page": bytes(1000)} for n in range(count)}


MANY_SMALL: dict[str, Callable[[], Any]] = {
    "list": lambda: [bytes(1000) for _ in range(10_000)],
    "dict": lambda: {n: bytes(1000) for n in range(10_000)},
    "set": lambda: {b"%01000d" % n for n in range(10_000)},
    "ordered": lambda: collections.OrderedDict((n, bytes(1000)) for n in range(10_000)),
    "of an instance": lambda: Point(typing.cast(bytes, sessions(10_000))),
    "of lists": lambda: [[bytes(1000) for _ in range(100)] for _ in range(100)],
    "growing": lambda: [bytes(n // 5) for n in range(10_000)],
}


@pytest.mark.parametrize(
    ("kind", "most"), [*((kind, 9000) for kind in MANY_SMALL), ("list", 3000), ("dict", 3000)]
)
def test_too_many_objects_are_estimated(
    module: Module, monkeypatch: pytest.MonkeyPatch, kind: str, most: int
) -> None:
    made = module(MANY=MANY_SMALL[kind](), FEW=blocks())
    whole = weight("shop.store.MANY")
    monkeypatch.setattr(_census, "MOST_OBJECTS", most)
    many = reading("shop.store.MANY")
    assert many is not None
    assert many.is_estimate
    assert many.bytes == pytest.approx(whole, rel=0.25)
    assert weight("shop.store.FEW") == about(FULL)
    assert made


def test_without_time_each_is_still_looked_at(module: Module) -> None:
    module(MANY=[[n] for n in range(1000, 100_000)], BIG=[bytearray(FULL)])
    said = census(seconds=0.0)
    many = said["shop.store.MANY"]
    assert many.is_estimate
    assert many.bytes == about(weight("shop.store.MANY"))
    assert weight("shop.store.BIG", said) == about(FULL)


def test_the_time_is_for_the_largest(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_census, "FOLLOWED", 1)
    module(MANY=[[n] for n in range(1000, 10_000)], MORE=[[n] for n in range(1000, 50_000)])
    said = census()
    assert said["shop.store.MANY"].is_estimate
    assert not said["shop.store.MORE"].is_estimate


def remember_in(keys: list[int]) -> Any:
    remembered = functools.lru_cache(None)(lambda key: bytes(100))
    for key in keys:
        remembered(key)
    return remembered


MANY = list(range(3 * _referents.LARGE))
GROWING: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "dict": (lambda: {n: bytes(100) for n in MANY}, lambda it: it.update({-len(it): b""})),
    "dict of str": (
        lambda: {str(n): bytes(100) for n in MANY},
        lambda it: it.update({f"-{len(it)}": b""}),
    ),
    "set": (lambda: {b"%0100d" % n for n in MANY}, lambda it: it.add(len(it))),
    "deque": (lambda: collections.deque(bytes(100) for _ in MANY), lambda it: it.append(b"")),
    "ordered": (
        lambda: collections.OrderedDict((n, bytes(100)) for n in MANY),
        lambda it: it.update({-len(it): b""}),
    ),
    "own set": (
        lambda: type("Own", (set,), {})(b"%0100d" % n for n in MANY),
        lambda it: it.add(len(it)),
    ),
    "lru_cache": (lambda: remember_in(MANY), lambda it: it(-it.cache_info().currsize)),
}


@pytest.mark.parametrize("kind", GROWING)
def test_what_grows_meanwhile_is_counted(module: Module, kind: str) -> None:
    make, grow = GROWING[kind]
    module(THING=make())
    before = weight("shop.store.THING")
    census = _census._Census()
    census.gather()
    (walk,) = census.walks
    steps = 0
    while walk.go_on(census._borders):
        grow(sys.modules["shop.store"].THING)
        steps += 1
    assert steps > 10
    assert not walk.reading().is_estimate
    assert walk.reading().bytes == pytest.approx(before, rel=0.01)


def test_an_interrupt_of_a_reader_costs_its_step(
    module: Module, read_by: Callable[[Any], None]
) -> None:
    def read(_: object) -> Any:
        raise KeyboardInterrupt

    read_by(read)
    module(THINGS=[Read(b"") for _ in range(100)], LATER=blocks())
    said = census()
    assert said["shop.store.THINGS"].is_estimate
    assert weight("shop.store.LATER", said) == about(FULL)


def test_a_reader_that_waits_ends_it(
    module: Module, read_by: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def read(_: object) -> tuple[int, tuple[()]]:
        now[0] += 1
        return 1, ()

    read_by(read)
    monkeypatch.setattr(_census, "monotonic", lambda: now[0])
    module(THINGS=[Read(b"") for _ in range(1000)], LATER=blocks())
    said = census()
    assert said["shop.store.THINGS"].is_estimate
    assert now[0] <= _census.PATIENCE + _referents.SLOW_CHUNK
    assert "shop.store.LATER" not in said  # as nothing is known of it


def test_programs_that_change_all_the_time(module: Module) -> None:
    made = module(THING={}, LIST=[], SET=set())
    stop = threading.Event()

    def churn() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            made.__dict__[f"name{n % 50}"] = [n]
            made.__dict__.pop(f"name{(n + 25) % 50}", None)
            made.THING[n % 9000] = {n: [n]}
            made.THING.pop((n * 7) % 9000, None)
            made.LIST[:] = made.LIST[-5000:] + [{n}] * 10
            made.SET ^= {n % 6000, (n * 3) % 6000}

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(5):
            assert all(type(one) is Container for one in largest_containers(seconds=0.05))
    finally:
        stop.set()
        thread.join()


def test_odd_names_do_no_harm(module: Module) -> None:
    calls = Calls()
    name = type("Name", (str,), {"startswith": calls.trap("startswith")})("odd")
    made = module()
    made.__dict__[name] = blocks()
    made.__dict__[3] = blocks()  # type: ignore[index]
    made.__dict__["KEPT"] = blocks()
    assert weight("shop.store.KEPT") == about(FULL)
    assert calls.seen == []


def test_an_odd_name_like_that_of_a_package(module: Module) -> None:
    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            raise ArithmeticError

    module("shop.odd").__dict__[Name("__path__")] = []
    module(KEPT=blocks())
    assert weight("shop.store.KEPT") == about(FULL)


def test_a_handler_is_known_to_its_logger(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module()
    monkeypatch.setattr(_census._Census, "_gather_handlers", GATHER_HANDLERS)
    handler = keeping_records()
    audit = logging.getLogger("a.test.of.the.census")
    monkeypatch.setattr(audit, "handlers", [handler])
    monkeypatch.setattr(logging.root, "handlers", [handler])  # it is counted once
    assert weight("a handler of logging.getLogger('')") == about(FULL)
    assert f"a handler of logging.getLogger({audit.name!r})" not in census()


def test_what_else_is_to_be_weighed(module: Module) -> None:
    module(KEPT=blocks())
    found = largest_containers(ALL, also={"the queue": blocks(2 * FULL), "nothing": []})
    assert [one.name for one in found] == ["the queue", "shop.store.KEPT", "nothing"]
    assert found[0].bytes == about(2 * FULL)


def test_keeps_nothing_alive(module: Module) -> None:
    thing = Point(b"")
    gone = weakref.ref(thing)
    made = module(THINGS=[thing])
    del thing
    largest_containers()
    made.THINGS.clear()
    gc.collect()
    assert gone() is None


def test_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_census._Census, "gather", lambda _: 1 / 0)
    assert largest_containers() == []
