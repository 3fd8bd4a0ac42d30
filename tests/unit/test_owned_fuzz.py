"""Random graphs of all sorts of containers, with cycles, partly held from outside.

The reading is compared with what is freed, and with trial deletion over a map of all objects.
"""

import collections
import functools
import gc
import random
import sys
import threading
import tracemalloc
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from recyclepool import _referents
from recyclepool._owned import SUPPORTED, Pass, Root

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="free-threaded: nothing can be proven")

GRAPHS = 60


class Thing:
    def __init__(self, *content: Any) -> None:
        self.content = content

    def method(self) -> None:
        pass


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, *content: Any) -> None:
        self.a, self.b = content[0], content[1:]


class OwnDict(dict[Any, Any]):
    pass


class OwnList(list[Any]):
    pass


def suspended(*content: Any) -> Any:
    def generator(a: Any, rest: Any) -> Iterator[Any]:
        both = a, rest
        yield both
        yield len((a, (yield rest)))

    made = generator(content[0], content[1:])
    next(made)
    next(made)
    return made


def closure(*content: Any) -> Any:
    first, rest = content[0], content[1:]

    def inner(default: Any = first) -> Any:
        return first, rest, default

    return inner


def error(*content: Any) -> Any:
    def raising(a: Any, *rest: Any) -> None:
        raise LookupError([a, rest])

    try:
        raising(*content)
    except LookupError as raised:
        return raised.with_traceback(raised.__traceback__.tb_next)  # type: ignore[union-attr]


def remembering(*content: Any) -> Any:
    @functools.lru_cache(len(content))
    def function(i: int, text: str) -> Any:
        return content[i]

    for i in range(len(content)):
        function(i, f"argument {i}")
    return function


def keyed(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *content: kind((f"key {i} {id(content)}", x) for i, x in enumerate(content))


MAKERS: list[Callable[..., Any]] = [
    lambda *content: list(content),
    lambda *content: content,
    lambda *content: OwnList(content),
    lambda *content: collections.deque(content),
    lambda *content: dict(enumerate(content, 10**6)),
    lambda *content: functools.partial(print, *content),
    lambda *content: types.SimpleNamespace(a=content[0], b=content[1:]),
    lambda *content: Thing(*content).method,
    lambda *content: iter([*content]),
    lambda *content: map(str, content),
    keyed(dict),
    keyed(OwnDict),
    keyed(collections.OrderedDict),
    keyed(lambda pairs: collections.defaultdict(list, pairs)),
    keyed(lambda pairs: types.MappingProxyType(dict(pairs))),
    Thing,
    Slots,
    suspended,
    closure,
    error,
    remembering,
]


def build(choose: random.Random) -> tuple[dict[str, Any], list[Any]]:
    """A cache, and what is held outside."""

    def payload() -> list[bytes]:
        return [bytes(choose.randrange(3000, 30_000))]

    everything: list[Any] = [payload() for _ in range(20)]
    holes: list[Any] = []  # filled later, which makes the cycles
    for _ in range(choose.randrange(20, 150)):
        hole = payload()
        holes.append(hole)
        content = [*choose.choices(everything, k=choose.randrange(1, 4)), payload()]
        if choose.random() < 0.4:
            content.append(hole)
        everything.append(choose.choice(MAKERS)(*content))
    for hole in holes:
        if choose.random() < 0.3:
            hole.append(choose.choice(everything))
    outside = [choose.choice(everything) for _ in range(choose.choice((0, 1, 1, 2, 8)))]
    if choose.random() < 0.3:
        outside.append(choose.choice(holes))
    cache = {f"entry {i}": choose.choice(everything) for i in range(choose.randrange(1, 25))}
    return cache, outside


def references_of(objects: list[Any]) -> tuple[int, list[Any]]:
    sources: list[Any] = []
    found: list[Any] = []
    size = _referents.read(objects, sources)
    while sources:
        if type(sources[-1]) is _referents.Unread:
            size += _referents.read_slowly(sources)
        else:
            found += _referents.take(sources)
    return size, found


def counts_of(objects: dict[int, Any]) -> dict[int, int]:
    return dict(zip(objects, map(sys.getrefcount, objects.values()), strict=True))


OURS = counts_of({0: object()})[0]


def by_full_map(cache: dict[str, Any]) -> tuple[int, int]:
    """The bytes that are owned, and all that are reachable: the textbook way."""
    objects: dict[int, Any] = {}
    seen: collections.Counter[int] = collections.Counter()
    edges: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    never = {
        id(cache),
        *(id(vars(m)) for m in list(sys.modules.values()) if hasattr(m, "__dict__")),
    }
    todo = [*cache, *cache.values()]
    seen.update(map(id, todo))
    while todo:
        o = todo.pop()
        if id(o) in objects or id(o) in never or _referents.form_of(o) == _referents.STOP:
            continue
        objects[id(o)] = o
        sizes[id(o)], references = references_of([o])
        edges[id(o)] = list(map(id, references))
        seen.update(edges[id(o)])
        todo += references
    o = references = None  # type: ignore[assignment]
    held = [i for i, n in counts_of(objects).items() if n - OURS != seen[i]]
    gone = set(held)
    while held:
        for i in edges[held.pop()]:
            if i in objects and i not in gone:
                gone.add(i)
                held.append(i)
    own = sys.getsizeof(cache)
    return own + sum(n for i, n in sizes.items() if i not in gone), own + sum(sizes.values())


def test_random_graphs_are_read_as_they_are_freed() -> None:
    total_owned = total_freed = 0
    tracemalloc.start(1)
    gc.freeze()
    try:
        for seed in range(GRAPHS):
            owned, freed = compare(seed)
            total_owned += owned
            total_freed += freed
    finally:
        gc.unfreeze()
        tracemalloc.stop()
    assert total_freed > GRAPHS * 100_000
    assert total_owned == pytest.approx(total_freed, rel=0.001)


def built(seed: int) -> tuple[dict[str, Any], list[Any]]:
    """In a thread: tracebacks keep the frames that called, which would be those of pytest."""
    made: list[tuple[dict[str, Any], list[Any]]] = []
    thread = threading.Thread(target=lambda: made.append(build(random.Random(seed))))
    thread.start()
    thread.join()
    return made.pop()


def compare(seed: int) -> tuple[int, int]:
    cache, outside = built(seed)
    gc.collect()
    result = Pass([Root("cache[{}]", cache)]).run()
    assert result is not None
    assert result.complete, seed
    assert result.stable, seed
    owned = result.owned
    assert sum(share.bytes for share in result.shares) == owned
    full, reachable = by_full_map(cache)
    assert abs(owned - full) <= 0.001 * reachable, seed
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    cache.clear()
    gc.collect()
    freed = before - tracemalloc.get_traced_memory()[0]
    assert -0.015 < (owned - freed) / reachable < 0.015, seed
    del outside
    return owned, freed
