import _threading_local
import gc
import queue
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from recyclepool import _thread_locals
from recyclepool._thread_locals import HAS_SENTINELS, ThreadLocals, supported

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython" or "free-threading" in sys.version,
    reason="locals are seen on CPython with a GIL only",
)


class OneThread:
    """A thread that runs what it is told."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)

    def run(self, action: Callable[..., Any], *args: Any) -> Any:
        return self._executor.submit(action, *args).result(30)

    def end(self) -> None:
        self._executor.shutdown()


@pytest.fixture
def thread() -> Iterator[OneThread]:
    thread = OneThread()
    yield thread
    thread.end()


def in_a_thread(action: Callable[[], Any]) -> int | None:
    """Run it in a thread of its own, to the thread's end. Which was it?"""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert not problems, problems
    return thread.ident


def seen(locals_of_thread: ThreadLocals, *wanted: object) -> list[Any]:
    """The values of each of `wanted`, None where it is not seen; others are somebody else's."""
    found = {id(one): values for one, values in locals_of_thread.dicts()}
    return [found.get(id(one)) for one in wanted]


def test_is_supported_here() -> None:
    assert supported() is True


# ==== What is seen ===============================================================================


def test_each_thread_has_its_own_values_and_they_are_the_very_dicts() -> None:
    threads = [OneThread() for _ in range(4)]
    three = [threading.local() for _ in range(3)]

    def touch(number: int) -> tuple[ThreadLocals, list[Any]]:
        locals_of_thread = ThreadLocals()
        for place, one in enumerate(three):
            one.value = (number, place)
        return locals_of_thread, [vars(one) for one in three]

    touched = [thread.run(touch, number) for number, thread in enumerate(threads)]
    for number, thread in enumerate(threads):
        locals_of_thread, truth = touched[number]
        inside = thread.run(seen, locals_of_thread, *three)
        outside = seen(locals_of_thread, *three)
        assert inside == [{"value": (number, place)} for place in range(3)]
        assert all(one is other for one, other in zip(inside, truth, strict=True))
        assert all(one is other for one, other in zip(outside, truth, strict=True))
        thread.run(locals_of_thread.close)
        thread.end()


def test_values_that_come_and_go_after_it_was_made(thread: OneThread) -> None:
    locals_of_thread = thread.run(ThreadLocals)
    late = threading.local()
    assert seen(locals_of_thread, late) == [None]
    thread.run(setattr, late, "value", 1)
    assert seen(locals_of_thread, late) == [{"value": 1}]
    thread.run(delattr, late, "value")
    assert seen(locals_of_thread, late) == [{}]
    thread.run(locals_of_thread.close)


def test_a_local_that_the_thread_never_touched_is_not_seen(thread: OneThread) -> None:
    ours, both = threading.local(), threading.local()
    ours.value = both.value = "ours"
    thread.run(setattr, both, "value", "theirs")
    locals_of_thread = thread.run(ThreadLocals)
    assert seen(locals_of_thread, ours, both) == [None, {"value": "theirs"}]
    thread.run(locals_of_thread.close)


def test_nothing_is_seen_twice(thread: OneThread) -> None:
    some = [threading.local() for _ in range(20)]
    for one in some:
        thread.run(setattr, one, "value", 1)
    locals_of_thread = thread.run(ThreadLocals)
    ids = [id(one) for one, _ in locals_of_thread.dicts()]
    assert len(ids) == len(set(ids)) >= 20
    thread.run(locals_of_thread.close)


def test_two_of_one_thread_see_the_same(thread: OneThread) -> None:
    one = threading.local()
    thread.run(setattr, one, "value", 1)
    first, second = thread.run(ThreadLocals), thread.run(ThreadLocals)
    assert [id(pair[0]) for pair in first.dicts()] == [id(pair[0]) for pair in second.dicts()]
    thread.run(first.close)
    assert seen(second, one) == [{"value": 1}]
    thread.run(second.close)


def test_leaves_out_what_it_is_told_to() -> None:
    def check() -> None:
        one, other = threading.local(), threading.local()
        one.value = other.value = 1
        locals_of_thread = ThreadLocals()
        left = [pair[0] for pair in locals_of_thread.dicts(leave_out=(one,))]
        locals_of_thread.close()
        assert any(held is other for held in left)
        assert not any(held is one for held in left)

    in_a_thread(check)


def test_a_subclass_with_slots_and_arguments_that_are_dicts(thread: OneThread) -> None:
    class Slotted(threading.local):
        __slots__ = ("slot",)

        def __init__(self, **named: object) -> None:
            self.slot = {"slot": 1}
            self.value = named

    class Wide(threading.local):
        def __init__(self, first: object, **named: object) -> None:
            self.first = first

    slotted, wide = Slotted(a=1), Wide({"first": 1}, b=2)
    thread.run(getattr, slotted, "value")
    thread.run(getattr, wide, "first")
    locals_of_thread = thread.run(ThreadLocals)
    assert seen(locals_of_thread, slotted, wide) == [{"value": {"a": 1}}, {"first": {"first": 1}}]
    thread.run(locals_of_thread.close)


def test_locals_in_pure_python_are_not_seen(thread: OneThread) -> None:
    pure = _threading_local.local()
    thread.run(setattr, pure, "value", 1)
    locals_of_thread = thread.run(ThreadLocals)
    assert seen(locals_of_thread, pure) == [None]
    thread.run(locals_of_thread.close)


def test_no_code_of_a_subclass_runs(thread: OneThread) -> None:
    calls: list[str] = []

    class Meta(type):
        def __instancecheck__(cls, instance: object) -> bool:
            calls.append("isinstance")
            return True

    class Nosy(threading.local, metaclass=Meta):
        def __init__(self) -> None:
            calls.append("init")

        def __getattribute__(self, name: str) -> Any:
            calls.append(name)
            return super().__getattribute__(name)

        def __eq__(self, other: object) -> bool:
            calls.append("eq")
            return True

        def __hash__(self) -> int:
            calls.append("hash")
            return 1

        @property
        def __class__(self) -> Any:
            calls.append("class")
            return dict

    touched, untouched, other = Nosy(), Nosy(), threading.local()
    thread.run(setattr, touched, "value", 1)
    locals_of_thread = thread.run(ThreadLocals)
    assert "init" in calls
    calls.clear()
    inside = thread.run(locals_of_thread.dicts, (untouched, other))
    outside = locals_of_thread.dicts((untouched, other))
    assert calls == []
    for pairs in inside, outside:
        ids = [id(one) for one, _ in pairs]
        assert id(touched) in ids
        assert id(untouched) not in ids
    del inside, outside, pairs
    thread.run(locals_of_thread.close)


# ==== What is kept ===============================================================================


class Mortal:
    """Tells in which thread it is finalized."""

    def __init__(self, deaths: list[int]) -> None:
        self.deaths = deaths

    def __del__(self) -> None:
        self.deaths.append(threading.get_ident())  # threading has forgotten it by then


def test_values_are_finalized_in_their_thread_as_it_ends() -> None:
    one, deaths = threading.local(), []  # type: ignore[var-annotated]

    def check() -> None:
        locals_of_thread = ThreadLocals()
        one.value = Mortal(deaths)
        assert seen(locals_of_thread, one)[0] is vars(one)
        locals_of_thread.close()
        assert deaths == []

    thread_id = in_a_thread(check)
    assert deaths == [thread_id]


def test_a_look_keeps_neither_local_nor_values() -> None:
    def check() -> None:
        locals_of_thread = ThreadLocals()
        one, deaths = threading.local(), []  # type: ignore[var-annotated]
        one.value = Mortal(deaths)
        assert seen(locals_of_thread, one) != [None]
        del one.value
        assert len(deaths) == 1
        one.value = Mortal(deaths)
        assert seen(locals_of_thread, one) != [None]
        gone = weakref.ref(one)
        del one
        assert gone() is None
        assert len(deaths) == 2
        locals_of_thread.close()

    in_a_thread(check)


def test_what_made_it_is_not_seen() -> None:
    def check() -> None:
        first = ThreadLocals()
        before = len(first.dicts())
        more = [ThreadLocals() for _ in range(10)]
        assert len(first.dicts()) == before
        for locals_of_thread in [first, *more]:
            locals_of_thread.close()

    in_a_thread(check)


def test_a_look_adds_no_reference_that_stays() -> None:
    def check() -> None:
        one, value = threading.local(), object()
        one.value = value
        values = vars(one)
        before = sys.getrefcount(one), sys.getrefcount(value), sys.getrefcount(values)
        locals_of_thread = ThreadLocals()
        for _ in range(10):
            locals_of_thread.dicts()
        after = sys.getrefcount(one), sys.getrefcount(value), sys.getrefcount(values)
        assert after == before
        locals_of_thread.close()

    in_a_thread(check)


@pytest.mark.skipif(HAS_SENTINELS, reason="holds no dict of the thread's state")
def test_takes_a_reference_of_its_own_to_the_state_and_gives_it_back() -> None:
    def check() -> None:
        keeper: Any = ThreadLocals()
        state = keeper._reader._state
        before = sys.getrefcount(state)
        other = ThreadLocals()
        assert sys.getrefcount(state) == before + 1
        other.close()
        assert sys.getrefcount(state) == before
        keeper.close()
        assert sys.getrefcount(state) == before - 1

    in_a_thread(check)


# ==== Others change what is read =================================================================


class Churned(threading.local):
    number: int


def test_others_make_and_drop_locals_meanwhile() -> None:
    rounds, looks = 3000, 300
    handed_over: queue.SimpleQueue[Churned | None] = queue.SimpleQueue()
    made: queue.SimpleQueue[ThreadLocals] = queue.SimpleQueue()
    may_end = threading.Event()
    looked: list[int] = []

    def look(locals_of_thread: ThreadLocals) -> None:
        numbers = [vals for one, vals in locals_of_thread.dicts() if type(one) is Churned]
        # A local is seen as soon as it is made, before it has its number.
        assert all(not vals or list(vals) == ["number"] for vals in numbers)
        looked.append(len(numbers))

    def make() -> None:
        locals_of_thread = ThreadLocals()
        made.put(locals_of_thread)
        try:
            for number in range(rounds):
                one = Churned()
                one.number = number
                handed_over.put(one)
                del one
                if number % 10 == 0:
                    look(locals_of_thread)
            may_end.wait(60)
        finally:
            handed_over.put(None)
            locals_of_thread.close()

    def drop() -> None:
        while handed_over.get() is not None:
            pass

    def look_from_outside() -> None:
        try:
            locals_of_thread = made.get(timeout=60)
            for _ in range(looks):
                look(locals_of_thread)
        finally:
            may_end.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as executor:
            for done in [executor.submit(act) for act in (make, drop, look_from_outside)]:
                done.result(60)
    finally:
        sys.setswitchinterval(interval)
    assert len(looked) == rounds // 10 + looks
    assert any(looked)


class Restless:
    """A reader that finds its dicts changed `times` times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def read(self) -> list[tuple[object, dict[str, Any]]]:
        self.times -= 1
        if self.times >= 0:
            raise RuntimeError("dictionary changed size during iteration")
        return [(self, {"value": 1})]


@pytest.mark.parametrize(
    ("times", "found"), [(0, 1), (_thread_locals.ATTEMPTS - 1, 1), (_thread_locals.ATTEMPTS, 0)]
)
def test_reads_again_what_changed_but_not_forever(times: int, found: int) -> None:
    locals_of_thread: Any = ThreadLocals()
    locals_of_thread._reader = Restless(times)
    assert len(locals_of_thread.dicts()) == found
    locals_of_thread.close()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    was = gc.isenabled()
    locals_of_thread = ThreadLocals()
    try:
        (gc.enable if enabled else gc.disable)()
        locals_of_thread.dicts()
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
    locals_of_thread.close()


@pytest.mark.skipif(HAS_SENTINELS, reason="needs no pause of the collector")
@pytest.mark.parametrize("collects_anywhere", [True, False])
def test_the_collector_pauses_where_it_could_crash_the_look(
    collects_anywhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[bool] = []
    getweakrefs = weakref.getweakrefs

    def watched(dummy: object) -> list[Any]:
        paused.append(not gc.isenabled())
        return getweakrefs(dummy)

    monkeypatch.setattr(_thread_locals, "COLLECTS_ANYWHERE", collects_anywhere)
    monkeypatch.setattr(weakref, "getweakrefs", watched)
    one = threading.local()
    one.value = 1
    locals_of_thread = ThreadLocals()
    assert gc.isenabled()
    assert seen(locals_of_thread, one) == [{"value": 1}]
    assert gc.isenabled()
    assert set(paused) == {collects_anywhere}
    locals_of_thread.close()


# ==== The end ====================================================================================


def test_closes_twice_and_sees_nothing_afterwards() -> None:
    one = threading.local()
    one.value = 1
    locals_of_thread = ThreadLocals()
    assert seen(locals_of_thread, one) == [{"value": 1}]
    locals_of_thread.close()
    assert locals_of_thread.dicts() == []
    locals_of_thread.close()
    assert locals_of_thread.dicts(leave_out=(one,)) == []


def test_sees_nothing_after_its_thread_has_ended() -> None:
    kept: list[ThreadLocals] = []
    one = threading.local()

    def check() -> None:
        one.value = 1
        kept.append(ThreadLocals())
        if not HAS_SENTINELS:
            kept[0].close()

    in_a_thread(check)
    assert kept[0].dicts() == []


# ==== Where it does not work =====================================================================


def fails(*_: object) -> Any:
    raise LookupError("sabotaged")


class Found:
    """A reader that finds just this."""

    def __init__(self, *pairs: Any) -> None:
        self.pairs = list(pairs)

    def read(self) -> list[Any]:
        return self.pairs


@pytest.mark.parametrize(
    ("where", "name", "sabotage"),
    [
        (gc, "get_referents", lambda one: []),
        (gc, "get_referents", lambda one: [{}, {}]),
        (gc, "get_referents", fails),
        (weakref, "getweakrefs", lambda one: []),
        (weakref, "getweakrefs", fails),
        (_thread_locals, "_values_by_thread", lambda one: {"a": 1}),
        (_thread_locals, "_bound_to", lambda watch: None),
        (_thread_locals, "_bound_to", lambda watch: (lambda: None,)),
        (_thread_locals, "local", _threading_local.local),
        (_thread_locals, "HAS_SENTINELS", not HAS_SENTINELS),
        (_thread_locals, "_new_reader", lambda: Found((None, {}))),
        (_thread_locals, "_new_reader", lambda: Found((None, None))),
        (_thread_locals, "_new_reader", lambda: Found()),
        (_thread_locals, "_new_reader", fails),
        (sys, "version", "3.14.0 free-threading build"),
        (sys, "implementation", types.SimpleNamespace(name="pypy")),
    ],
)
def test_a_surprise_means_no_support(
    where: Any, name: str, sabotage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_thread_locals, "_supported", None)
        patch.setattr(where, name, sabotage)
        answer = supported()
        locals_of_thread = ThreadLocals()
        pairs = locals_of_thread.dicts()
    assert answer is False
    assert pairs == []
    locals_of_thread.close()


def test_a_copy_in_place_of_the_dict_means_no_support(monkeypatch: pytest.MonkeyPatch) -> None:
    new_reader = _thread_locals._new_reader

    def copies() -> Found:
        return Found(*((one, dict(values)) for one, values in new_reader().read()))

    monkeypatch.setattr(_thread_locals, "_supported", None)
    monkeypatch.setattr(_thread_locals, "_new_reader", copies)
    assert supported() is False


@pytest.mark.parametrize(("twice", "answer"), [(False, True), (True, False)])
def test_a_local_found_twice_means_no_support(
    twice: bool, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_reader = _thread_locals._new_reader

    def repeats() -> Found:
        return Found(*new_reader().read() * (1 + twice))

    monkeypatch.setattr(_thread_locals, "_supported", None)
    monkeypatch.setattr(_thread_locals, "_new_reader", repeats)
    assert supported() is answer


def test_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def try_out() -> bool:
        tries.append(1)
        return False

    monkeypatch.setattr(_thread_locals, "_supported", None)
    monkeypatch.setattr(_thread_locals, "_try_out", try_out)
    assert supported() is supported() is False
    assert ThreadLocals().dicts() == []
    assert len(tries) == 1
