import gc
import pickle
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from datetime import timedelta
from typing import Any, get_args

import pytest
from cachetools import cached, cachedmethod
from hypothesis import example, given
from hypothesis import strategies as st

from recyclepool.cache import EvictionCause, WorkerCache
from recyclepool.errors import UnitError
from recyclepool.snapshots import CacheStats


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> WorkerCache:
    return WorkerCache(100, clock=clock)


def evictions(cache: WorkerCache) -> dict[str, int]:
    return {cause: n for cause, n in cache.stats().evictions.items() if n}


def check_books(cache: WorkerCache) -> None:
    held = list(cache._entries.values())
    assert cache.currsize == sum(entry.size for entry in held) <= cache.maxsize
    assert all(key == entry.key for key, entry in cache._entries.items())
    assert set(cache._order) == set(held)
    timed = {entry.key for entry in held if entry.expires is not None}
    assert timed <= {key for _, _, key in cache._expiries}


# A mapping


def test_is_a_mapping(cache: WorkerCache) -> None:
    cache["a"] = 1
    cache.put("b", 2, size=10)
    assert cache["a"] == 1
    assert cache.get("b") == 2
    assert cache.get("c") is None
    assert cache.get("c", 3) == 3
    assert "a" in cache
    assert "c" not in cache
    assert len(cache) == 2
    assert list(cache) == list(cache.keys()) == ["a", "b"]
    assert list(cache.values()) == [1, 2]
    assert list(cache.items()) == [("a", 1), ("b", 2)]
    del cache["a"]
    assert dict(cache) == {"b": 2}
    assert cache == {"b": 2}
    assert cache.pop("b") == 2
    assert not cache


def test_none_and_unhashable_keys(cache: WorkerCache) -> None:
    cache[None] = 1
    assert cache[None] == 1
    unhashable: Any = []
    with pytest.raises(TypeError):
        cache.put(unhashable, 1)
    check_books(cache)


@pytest.mark.parametrize(
    "lookup", [lambda c: c["a"], lambda c: c.__delitem__("a"), lambda c: c.pop("a")]
)
def test_a_key_that_is_not_there(cache: WorkerCache, lookup: Callable[[Any], object]) -> None:
    with pytest.raises(KeyError, match=r"^'a'$"):
        lookup(cache)


def test_pop_takes_out_and_counts_as_use(cache: WorkerCache) -> None:
    cache.put("a", 1, size=10)
    assert cache.pop("a", 5) == 1
    assert cache.pop("a", 5) == 5
    assert cache.pop("a", None) is None
    assert (cache.stats().hits, cache.stats().misses) == (1, 2)
    assert evictions(cache) == {"deleted": 1}
    assert cache.currsize == 0


def test_popitem_takes_the_least_recently_used(cache: WorkerCache, clock: Clock) -> None:
    cache["late"] = 0
    cache.put("gone", 0, size=1, ttl=1)
    cache.put("a", 1, size=1)
    assert cache["late"] == 0
    clock.now += 1
    assert cache.popitem() == ("a", 1)
    assert cache.popitem() == ("late", 0)
    with pytest.raises(KeyError, match="is empty"):
        cache.popitem()
    assert evictions(cache) == {"ttl": 1, "deleted": 2}


def test_clear_keeps_the_counts(cache: WorkerCache, clock: Clock) -> None:
    for key in range(5):
        cache.put(key, key, size=20, ttl=10 * (key + 1))
    assert cache[4] == 4
    clock.now += 10
    cache.clear()
    assert cache.stats() == CacheStats(
        entries=0,
        bytes=0,
        budget=100,
        hits=1,
        misses=0,
        evictions={"size": 0, "ttl": 1, "replaced": 0, "deleted": 4, "memory": 0},
    )
    cache[0] = 0
    assert list(cache) == [0]


# The budget


def test_makes_room_from_the_least_recently_used(cache: WorkerCache) -> None:
    for key in "abcd":
        cache.put(key, key.upper(), size=25)
    assert cache["a"] == "A"
    cache.put("e", "E", size=50)
    assert list(cache) == ["d", "a", "e"]
    assert cache.currsize == 100
    assert evictions(cache) == {"size": 2}


def test_looking_is_not_using(cache: WorkerCache) -> None:
    for key in "ab":
        cache.put(key, key, size=50)
    assert "a" in cache
    assert len(cache) == 2
    assert [list(cache), list(cache.values()), list(cache.items())]
    assert ("a", "a") in cache.items()
    assert "a" in cache.values()
    assert cache == {"a": "a", "b": "b"}
    cache.put("c", "c", size=50)
    assert list(cache) == ["b", "c"]
    assert (cache.stats().hits, cache.stats().misses) == (0, 0)


def test_a_value_may_take_the_whole_budget(cache: WorkerCache) -> None:
    cache["small"] = 0
    cache.put("all", 1, size=100)
    assert list(cache) == ["all"]


def test_refuses_what_is_larger_than_the_budget(cache: WorkerCache) -> None:
    cache.put("other", 1, size=60)
    cache.put("a", 1, size=40)
    with pytest.raises(ValueError, match=r"^101 B do not fit into 100 B$"):
        cache.put("a", 2, size=101)
    assert list(cache) == ["other"]
    assert evictions(cache) == {"replaced": 1}
    check_books(cache)


def test_replacing_counts_the_new_size_only(cache: WorkerCache) -> None:
    cache.put("a", 1, size=100)
    cache.put("a", 2, size=90)
    assert cache["a"] == 2
    assert cache.currsize == 90
    assert evictions(cache) == {"replaced": 1}


def test_without_a_size_it_is_what_sys_says() -> None:
    cache = WorkerCache("1MiB")
    cache["list"] = [b"x" * 5000]
    cache["bytes"] = b"x" * 5000
    assert cache.currsize == sys.getsizeof([None]) + sys.getsizeof(b"x" * 5000)


def test_an_empty_budget_takes_only_what_counts_nothing() -> None:
    cache = WorkerCache(0)
    cache.put("a", 1, size=0)
    assert list(cache) == ["a"]
    with pytest.raises(ValueError, match="do not fit into 0 B"):
        cache["b"] = 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: WorkerCache(-1), "budget=-1: a size cannot be negative; write 0 or more"),
        (
            lambda c: WorkerCache("64M"),
            "budget='64M': write 64MiB (powers of 1024) or 64MB (powers of 1000)",
        ),
        (
            lambda c: c.put("a", 2, size=1.5),
            'size=1.5: write an int (bytes) or text such as "512MiB"',
        ),
        (
            lambda c: c.put("a", 2, ttl="90"),
            "ttl='90': a duration needs its unit; write 90s or the number 90",
        ),
        (lambda c: c.put("a", 2, ttl=-1), "ttl=-1: a duration cannot be negative; write 0 or more"),
    ],
)
def test_refuses_what_it_cannot_read_and_changes_nothing(
    cache: WorkerCache, call: Callable[[Any], object], message: str
) -> None:
    cache["a"] = 1
    before = cache.stats()
    with pytest.raises(UnitError) as refused:
        call(cache)
    assert str(refused.value) == message
    assert cache.stats() == before


# The time to live


def test_an_entry_lives_until_its_time(cache: WorkerCache, clock: Clock) -> None:
    cache.put("number", 1, size=1, ttl=60)
    cache.put("text", 1, size=1, ttl="1m")
    cache.put("span", 1, size=1, ttl=timedelta(minutes=1))
    cache.put("none", 1, size=1)
    clock.now += 59.5
    assert len(cache) == 4
    clock.now += 0.5
    assert list(cache) == ["none"]
    assert cache.currsize == 1
    assert evictions(cache) == {"ttl": 3}


MISSES: list[Callable[[WorkerCache], object]] = [
    lambda cache: cache.get("a") is None,
    lambda cache: "a" not in cache,
    lambda cache: len(cache) == 0,
    lambda cache: list(cache) == [],
    lambda cache: list(cache.items()) == [],
    lambda cache: list(cache.values()) == [],
    lambda cache: cache.pop("a", None) is None,
    lambda cache: cache.setdefault("b", 1) == 1 and list(cache) == ["b"],
]


@pytest.mark.parametrize("look", MISSES)
def test_an_expired_entry_is_a_miss_and_goes_away(
    cache: WorkerCache, clock: Clock, look: Callable[[WorkerCache], object]
) -> None:
    cache.put("a", 1, size=5, ttl=1)
    clock.now += 1
    assert cache.stats().entries == 1
    assert look(cache)
    assert cache.stats().evictions["ttl"] == 1
    assert cache.currsize == sum(sys.getsizeof(value) for value in cache.values())
    check_books(cache)


def test_deleting_an_expired_entry_is_a_key_error(cache: WorkerCache, clock: Clock) -> None:
    cache.put("a", 1, ttl=1)
    clock.now += 1
    with pytest.raises(KeyError):
        del cache["a"]
    assert evictions(cache) == {"ttl": 1}


def test_what_has_expired_goes_before_what_lives(cache: WorkerCache, clock: Clock) -> None:
    cache.put("old", 1, size=50)
    cache.put("short", 1, size=50, ttl=1)
    clock.now += 1
    cache.put("new", 1, size=50)
    assert list(cache) == ["old", "new"]
    assert evictions(cache) == {"ttl": 1}


def test_replacing_renews_or_lifts_the_time(cache: WorkerCache, clock: Clock) -> None:
    for key in ("renewed", "lifted"):
        cache.put(key, 1, size=1, ttl=1)
    cache.put("renewed", 2, size=1, ttl=5)
    cache.put("lifted", 2, size=1)
    clock.now += 1
    assert list(cache) == ["renewed", "lifted"]
    clock.now += 4
    assert list(cache) == ["lifted"]


def test_keys_that_are_not_comparable_expire_at_one_time(cache: WorkerCache, clock: Clock) -> None:
    for key in (1, "a", None, 2j):
        cache.put(key, key, size=1, ttl=1)
    clock.now += 1
    assert len(cache) == 0


def test_expiries_of_replaced_entries_do_not_pile_up(cache: WorkerCache, clock: Clock) -> None:
    for n in range(2000):
        cache.put(n % 5, n, size=10, ttl=1000)
    assert len(cache._expiries) < 100
    check_books(cache)
    clock.now += 1000
    assert len(cache) == 0


def test_items_are_of_the_moment(cache: WorkerCache, clock: Clock) -> None:
    for n in range(4):
        cache.put(n, n, size=1, ttl=1)
    seen = []
    for key, value in cache.items():
        clock.now += 1
        cache.put(("new", key), value, size=1)
        seen.append(key)
    assert seen == [0, 1, 2, 3]


# Trimming


def test_trim_lets_the_least_recently_used_go_until_the_rest_is_small_enough(
    cache: WorkerCache,
) -> None:
    for key in "abcd":
        cache.put(key, key, size=20)
    assert cache["a"] == "a"
    cache.trim(45)
    assert list(cache) == ["d", "a"]
    assert cache.currsize == 40
    assert evictions(cache) == {"memory": 2}
    check_books(cache)


@pytest.mark.parametrize("size", [40, 41, 100, 1000, "1KiB"])
def test_trim_of_what_is_small_enough_changes_nothing(cache: WorkerCache, size: Any) -> None:
    cache.put("a", 1, size=40)
    cache.trim(size)
    assert (list(cache), evictions(cache)) == (["a"], {})


@pytest.mark.parametrize("size", [0, "0B", 39])
def test_trim_of_everything(cache: WorkerCache, size: Any) -> None:
    cache.put("a", 1, size=40)
    cache.trim(size)
    assert (len(cache), cache.currsize, evictions(cache)) == (0, 0, {"memory": 1})
    check_books(cache)


def test_trim_of_an_empty_cache() -> None:
    cache = WorkerCache(0)
    cache.trim(0)
    assert evictions(cache) == {}


def test_trim_lets_what_expired_go_first(cache: WorkerCache, clock: Clock) -> None:
    cache.put("used before", 1, size=40)
    cache.put("over", 1, size=40, ttl=5)
    clock.now += 5
    cache.trim(40)
    assert list(cache) == ["used before"]
    assert evictions(cache) == {"ttl": 1}


def test_the_budget_stays_after_a_trim(cache: WorkerCache) -> None:
    cache.put("a", 1, size=100)
    cache.trim(50)
    cache.put("b", 1, size=100)
    assert (cache.maxsize, cache.currsize) == (100, 100)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-1, "size=-1: a size cannot be negative; write 0 or more"),
        ("5", "size='5': a size needs its unit; write 5MiB, or an int for bytes"),
        (2.5, 'size=2.5: write an int (bytes) or text such as "512MiB"'),
        (None, 'size=None: write an int (bytes) or text such as "512MiB"'),
        (
            "50%",
            "size='50%': percentages are for limits only; write an amount, such as 512MiB",
        ),
    ],
)
def test_trim_to_no_size(cache: WorkerCache, size: Any, message: str) -> None:
    cache.put("a", 1, size=40)
    with pytest.raises(UnitError) as caught:
        cache.trim(size)
    assert str(caught.value) == message
    assert list(cache) == ["a"]


# Looking from outside


def test_stats_and_repr_change_nothing(cache: WorkerCache, clock: Clock) -> None:
    cache.put("a", 1, size=30, ttl=1)
    cache.put("b", 1, size=30)
    clock.now += 1
    first = cache.stats()
    assert repr(cache) == "<WorkerCache: 2 entries, 60 B of 100 B>"
    assert cache.stats() == first
    assert (first.entries, first.bytes, first.budget) == (2, 60, 100)
    assert (cache.maxsize, cache.currsize) == (100, 60)


def test_stats_stay_as_they_were_and_can_be_sent(cache: WorkerCache) -> None:
    stats = cache.stats()
    cache["a"] = 1
    del cache["a"]
    assert {*stats.evictions} == {*get_args(EvictionCause)}
    assert not any(stats.evictions.values())
    assert pickle.loads(pickle.dumps(stats)) == stats
    with pytest.raises(FrozenInstanceError):
        stats.hits = 1  # type: ignore[misc]


def test_another_thread_may_read_stats_all_the_time() -> None:
    cache = WorkerCache(1000)
    started, done = threading.Event(), threading.Event()
    faults: list[object] = []
    reads = 0

    def watch() -> None:
        nonlocal reads
        hits = 0
        try:
            while not done.is_set():
                stats = cache.stats()
                if stats.hits < hits or len(stats.evictions) != 5 or not repr(cache):
                    faults.append(stats)
                hits = stats.hits
                reads += 1
                started.set()
        except BaseException as fault:
            faults.append(fault)
        finally:
            started.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert started.wait(10)
        for n in range(20_000):
            cache.put(n % 97, n, size=n % 60, ttl=0 if n % 5 == 0 else None)
            cache.get(n % 89)
            if n % 1000 == 0:
                cache.clear()
    finally:
        done.set()
        watcher.join(10)
        sys.setswitchinterval(interval)
    assert not watcher.is_alive()
    assert faults == []
    assert reads > 0
    check_books(cache)


# Values whose end runs foreign code


class Last:
    """Runs something in its end."""

    def __init__(self, words: Callable[[], object]) -> None:
        self.words = words

    def __del__(self) -> None:
        self.words()


def put_too_much(cache: WorkerCache) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        cache.put("a", 0, size=101)


ENDS: dict[str, Callable[[WorkerCache], object]] = {
    "evicted": lambda cache: cache.put("new", 0, size=100),
    "replaced": lambda cache: cache.put("a", 0, size=40),
    "too large": lambda cache: put_too_much(cache),
    "deleted": lambda cache: cache.__delitem__("a"),
    "popped": lambda cache: cache.pop("a"),
    "popitem": lambda cache: cache.popitem(),
    "cleared": lambda cache: cache.clear(),
    "trimmed": lambda cache: cache.trim(40),
}
REENTRIES: dict[str, Callable[[WorkerCache], object]] = {
    "same key": lambda cache: cache.put("a", "again", size=30),
    "same key, timed": lambda cache: cache.put("a", "again", size=30, ttl=5),
    "other key": lambda cache: cache.put("x", "again", size=70),
    "whole budget": lambda cache: cache.put("x", "again", size=100),
    "clear": lambda cache: cache.clear(),
    "trim": lambda cache: cache.trim(0),
    "pop": lambda cache: cache.pop("b", None),
    "look": lambda cache: [len(cache), list(cache.items()), cache.get("b"), "a" in cache],
}


@pytest.mark.parametrize("reenter", REENTRIES.values(), ids=REENTRIES.keys())
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_the_books_are_right_when_a_value_ends(
    cache: WorkerCache,
    end: Callable[[WorkerCache], object],
    reenter: Callable[[WorkerCache], object],
) -> None:
    ends = []

    def words() -> None:
        check_books_inside(cache)
        reenter(cache)
        check_books_inside(cache)
        ends.append(1)

    cache.put("a", Last(words), size=40)
    cache.put("b", 1, size=40)
    end(cache)
    gc.collect()
    assert ends == [1]
    check_books(cache)


def check_books_inside(cache: WorkerCache) -> None:
    # The budget may be passed here: it can be in the middle of making room.
    assert cache.currsize == sum(entry.size for entry in cache._entries.values())


def test_an_expired_value_may_put_itself_anew(cache: WorkerCache, clock: Clock) -> None:
    cache.put("a", Last(lambda: cache.put("a", "again", size=7, ttl=5)), size=40, ttl=1)
    clock.now += 1
    cache.put("b", 1, size=1)
    assert list(cache.items()) == [("a", "again"), ("b", 1)]
    assert cache.currsize == 8
    check_books(cache)


def test_the_last_word_is_the_callers(cache: WorkerCache) -> None:
    cache["a"] = Last(lambda: cache.put("a", "from the end", size=1))
    cache["a"] = "from the caller"
    assert cache["a"] == "from the caller"
    assert evictions(cache) == {"replaced": 2}


@dataclass(frozen=True)
class Key:
    """Hashed and compared in Python, where the collector may run too."""

    n: int


@pytest.mark.parametrize("kind", [int, Key])
def test_the_collector_may_run_at_any_step(kind: Callable[[int], Any]) -> None:
    cache = WorkerCache(200)
    rounds = 0

    def words() -> None:
        nonlocal rounds
        rounds += 1
        cache.put(kind(rounds % 7), rounds, size=20, ttl=1000 if rounds % 2 else None)
        cache.pop(kind(rounds % 3), None)
        if rounds % 50 == 0:
            cache.clear()

    def litter() -> None:
        cycle: list[object] = [Last(words)]
        cycle.append(cycle)

    threshold = gc.get_threshold()
    gc.set_threshold(2, 2, 2)
    try:
        for n in range(3000):
            litter()
            cache.put(kind(n % 11), [n], size=30, ttl=1000 if n % 3 else 0)
            cache.get(kind(n % 5))
            assert len(list(cache.items())) <= 10
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert rounds > 1000
    check_books(cache)


# Against a model


class Model:
    """What the cache should do, said slowly: (value, size, end) by key, the next to go first."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.now = 0.0
        self.held: OrderedDict[int, tuple[int, int, float]] = OrderedDict()

    def expire(self) -> None:
        for key in [k for k, (_, _, end) in self.held.items() if end <= self.now]:
            del self.held[key]

    def put(self, key: int, value: int, size: int, ttl: float | None) -> bool:
        self.expire()
        self.held.pop(key, None)
        if size > self.budget:
            return False
        self.held[key] = (value, size, float("inf") if ttl is None else self.now + ttl)
        self.cut(self.budget)
        return True

    def trim(self, size: int) -> None:
        self.expire()
        self.cut(size)

    def cut(self, size: int) -> None:
        while sum(s for _, s, _ in self.held.values()) > size:
            self.held.popitem(last=False)

    def get(self, key: int) -> int | None:
        self.expire()
        if key not in self.held:
            return None
        self.held.move_to_end(key)
        return self.held[key][0]


keys = st.integers(0, 5)
steps = st.one_of(
    st.tuples(st.just("put"), keys, st.integers(0, 12), st.none() | st.integers(0, 4).map(float)),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("pop"), keys),
    st.tuples(st.just("in"), keys),
    st.tuples(st.just("popitem")),
    st.tuples(st.just("trim"), st.integers(0, 12)),
    st.tuples(st.just("wait"), st.integers(0, 3)),
)


@example([("put", 1, 6, None), ("put", 0, 5, 0.0)])
@given(st.lists(steps, max_size=60))
def test_does_what_the_model_does(script: list[tuple[Any, ...]]) -> None:
    clock = Clock()
    clock.now = 0.0
    cache, model = WorkerCache(10, clock=clock), Model(10)
    hits = misses = stored = 0
    for n, (verb, *args) in enumerate(script):
        if verb == "put":
            key, size, ttl = args
            fits = True
            try:
                cache.put(key, n, size=size, ttl=ttl)
            except ValueError:
                fits = False
            assert fits == model.put(key, n, size, ttl)
            stored += fits
        elif verb == "get":
            expected = model.get(*args)
            assert cache.get(*args) == expected
            hits, misses = hits + (expected is not None), misses + (expected is None)
        elif verb == "pop":
            expected = model.get(args[0])
            model.held.pop(args[0], None)
            assert cache.pop(args[0], None) == expected
            hits, misses = hits + (expected is not None), misses + (expected is None)
        elif verb == "in":
            model.expire()
            assert (args[0] in cache) == (args[0] in model.held)
        elif verb == "trim":
            model.trim(*args)
            cache.trim(*args)
        elif verb == "popitem":
            model.expire()
            if model.held:
                key, (value, _, _) = model.held.popitem(last=False)
                assert cache.popitem() == (key, value)
        else:
            clock.now += args[0]
            model.now += args[0]
        check_books(cache)
    model.expire()
    assert list(cache.items()) == [(key, value) for key, (value, _, _) in model.held.items()]
    assert len(cache) == len(model.held)
    stats = cache.stats()
    assert (stats.hits, stats.misses) == (hits, misses)
    assert stats.bytes == sum(size for _, size, _ in model.held.values())
    assert sum(stats.evictions.values()) == stored - stats.entries


# With cachetools


def test_cachetools_cached() -> None:
    cache = WorkerCache("10kB")
    calls = []

    @cached(cache, info=True)
    def load(n: int) -> bytes:
        calls.append(n)
        return bytes(n)

    for n in (100, 100, 50_000, 50_000, 100):
        assert load(n) == bytes(n)
    assert calls == [100, 50_000, 50_000]  # what is too large is not kept
    assert (load.cache_info().hits, load.cache_info().misses) == (2, 3)
    assert (cache.stats().hits, cache.stats().misses) == (2, 3)
    assert load.cache_info().currsize == 1
    load.cache_clear()
    assert len(cache) == 0


def test_cachetools_cached_with_a_lock() -> None:
    @cached(WorkerCache(1000), lock=threading.Lock())
    def load(n: int) -> bytes:
        return bytes(n)

    assert load(10) == load(10) == bytes(10)
    assert load(5000) == bytes(5000)


def test_cachetools_cachedmethod() -> None:
    class Source:
        def __init__(self) -> None:
            self.cache = WorkerCache("1MiB")
            self.calls = 0

        @cachedmethod(lambda self: self.cache)
        def load(self, n: int) -> int:
            self.calls += 1
            return n * 2

    source, other = Source(), Source()
    assert source.load(4) == source.load(4) == other.load(4) == 8
    assert (source.calls, other.calls) == (1, 1)
