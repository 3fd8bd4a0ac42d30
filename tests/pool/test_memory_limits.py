"""Limits(memory=) on thread workers: who is replaced, when, in which order, and what is told."""

import threading
import time
from contextvars import ContextVar

import pytest
from listening import Events
from staging import WAIT, in_thread, until
from weighing import (
    MIB,
    NEVER,
    Script,
    blocks,
    cache,
    do,
    generation,
    keep,
    kept,
    let_go,
    read,
    recycles,
    soon,
    used,
)

from recyclepool import Reason, _looks, _probe, _relief, current_worker
from recyclepool.events import (
    CacheTrimmed,
    MemoryLimitTooLow,
    MemoryNotOwned,
    MemoryReturned,
    WorkerDue,
    WorkerReady,
    WorkerRetired,
)


@pytest.fixture(autouse=True)
def no_pause_between_trims(monkeypatch):
    """The thread that measures has less to wait for, and so has a test's end."""
    monkeypatch.setattr(_relief, "TRIM_PAUSE", 0.0)


@pytest.fixture
def slowly(monkeypatch):
    """However fast it grows."""
    monkeypatch.setattr(_probe, "FAR", NEVER)


# ==== who goes ===================================================================================


def test_who_owns_less_than_it_may_stays(new_pool):
    pool, events = used(new_pool, soon())
    before = time.time()
    do(pool, keep, 5)
    reading = read(pool, least=5 * MIB)
    assert reading.kind == "owned"
    assert 5 * MIB <= reading.bytes <= 5.2 * MIB
    assert before <= reading.at <= time.time()
    assert (do(pool, generation), recycles(pool)) == (1, 0)
    assert not events.of(WorkerDue)


def test_who_owns_more_than_it_may_is_replaced(new_pool, slowly):
    pool, events = used(new_pool, soon())
    do(pool, keep, 12)
    (retired,) = events.wait_for(WorkerRetired, reason=Reason.MEMORY)
    assert "12 MiB owned, the limit is 10 MiB: @per_worker kept 12 MiB" in retired.why
    assert recycles(pool) == 1
    assert do(pool, generation) == 2
    assert do(pool, lambda: len(kept())) == 0


def own_local(n):
    own_local.here.held = blocks(n)


own_local.here = threading.local()
variable = ContextVar("variable")
WAYS = {
    "@per_worker": keep,
    "cache": lambda n: cache(n, "model"),
    "thread-local": own_local,
    "context": lambda n: variable.get().extend(blocks(n)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_is_owned(new_pool, slowly, way):
    """The variable is one that the initializer has set."""
    pool, events = used(new_pool, soon("20MiB"), initializer=lambda: variable.set([]))
    do(pool, way, 15)
    assert 15 * MIB <= read(pool, least=15 * MIB).bytes <= 15.2 * MIB
    do(pool, keep, 25)
    events.wait_for(WorkerRetired, reason=Reason.MEMORY)


def test_a_reading_is_no_bound_where_all_was_decided(new_pool):
    pool, _ = used(new_pool, soon())
    do(pool, cache, 5)
    reading = read(pool, least=5 * MIB)
    assert reading.undecided <= 1  # a thread that is just ending may still refer to something


OF_A_MODULE = []


def share(objects):
    current_worker().cache["shared"] = objects


def test_what_somebody_else_holds_is_no_reason(new_pool):
    held = blocks(20)
    pool, _ = used(new_pool, soon())
    do(pool, share, held)
    do(pool, keep, 5)
    assert read(pool, least=5 * MIB).bytes <= 5.2 * MIB
    assert (do(pool, generation), recycles(pool)) == (1, 0)


def test_what_a_module_holds_is_no_reason(new_pool):
    pool, _ = used(new_pool, soon())
    OF_A_MODULE.extend(blocks(20))
    try:
        do(pool, lambda: share(OF_A_MODULE[:]))
        do(pool, keep, 5)
        assert read(pool, least=5 * MIB).bytes <= 5.2 * MIB
        assert (do(pool, generation), recycles(pool)) == (1, 0)
    finally:
        OF_A_MODULE.clear()


def test_what_two_workers_share_is_no_reason(new_pool):
    pool = new_pool(2, limits=soon())
    together, objects = threading.Barrier(2), [blocks(20)]

    def share_them():
        together.wait(WAIT)
        share(objects[0])
        together.wait(WAIT)

    for future in [pool.submit(share_them) for _ in range(2)]:
        future.result(WAIT)
    objects.clear()
    until(lambda: all(worker.memory is not None for worker in pool.stats().workers))
    assert all(worker.memory.bytes < MIB for worker in pool.stats().workers)
    assert recycles(pool) == 0


# ==== when =======================================================================================


@pytest.mark.parametrize(
    ("samples", "found", "looks"),
    [
        (1, [9.9, 10.1], 2),
        (3, [9.9, 10.1], 4),
        (3, [9.9, 10.1, 10.1, 9.9, 10.1], 7),
        (2, [9.9, 10, 10.1], 4),  # the limit itself is allowed
    ],
)
def test_so_many_readings_in_a_row(new_pool, monkeypatch, samples, found, looks):
    script = Script(monkeypatch, *found)
    pool = new_pool(1, limits=soon(memory_samples=samples))
    events = Events(pool)
    for n in range(len(found)):
        do(pool, int)
        script.wait(n + 1)
    events.wait_for(WorkerDue)
    assert script.looks == looks


def test_each_reading_counts_however_long_it_takes(new_pool, monkeypatch):
    """What comes after a look, and before it is judged, brings the next one no nearer."""
    saw, never = _looks.Looks.saw, threading.Event()

    def slow(self, *args):
        saw(self, *args)
        if script.looks % 2:
            never.wait(0.005)

    monkeypatch.setattr(_looks.Looks, "saw", slow)
    script = Script(monkeypatch, 10.1)
    pool = new_pool(1, limits=soon(memory_samples=10))
    events = Events(pool)
    do(pool, int)
    events.wait_for(WorkerDue)
    assert script.looks == 10


def test_readings_are_apart(new_pool, slowly):
    pool, events = used(new_pool, soon(memory_samples=4, sample_every=0.05))
    began = time.time()
    do(pool, keep, 12)
    events.wait_for(WorkerDue)
    assert events.wait_for(WorkerDue)[0].at - began >= 3 * 0.05


def test_readings_are_apart_between_tasks_too(new_pool, slowly):
    pool, events = used(new_pool, soon(memory_samples=4, sample_every=0.05))
    began = time.time()
    do(pool, keep, 12)
    until(lambda: do(pool, generation) == 2)
    assert events.wait_for(WorkerDue)[0].at - began >= 3 * 0.05


def test_a_young_worker_stays(new_pool, slowly):
    pool, events = used(new_pool, soon(min_age=0.3))
    do(pool, keep, 12)
    assert events.wait_for(WorkerRetired, reason=Reason.MEMORY)[0].age >= 0.3


def test_a_young_worker_stays_however_often_it_is_looked_at(new_pool, monkeypatch):
    script = Script(monkeypatch, 9.9, 10.1)
    pool, events = used(new_pool, soon(min_age=3600))
    do(pool, int)
    script.wait(10)
    assert not events.of(WorkerDue)


# 1.5 times the limit, or what it will be by the next reading: from 1 to 12 within one.
@pytest.mark.parametrize("found", [[9.9, 15.1], [1, 12]])
def test_far_above_it_nothing_is_waited_for(new_pool, monkeypatch, found):
    script = Script(monkeypatch, *found)
    patient = soon(min_age=3600, memory_samples=1000, sample_every=0.05)
    pool, events = used(new_pool, patient)
    do(pool, int)
    events.wait_for(WorkerRetired, reason=Reason.MEMORY)
    assert script.looks == 2


# ==== in which order =============================================================================


def test_half_of_the_cache_goes_first(new_pool):
    pool, events = used(new_pool, soon("8MiB"), cache="64MiB")
    do(pool, cache, 10)
    (trimmed,) = events.wait_for(CacheTrimmed)
    assert 10 * MIB <= trimmed.before <= 10.2 * MIB
    assert 5 * MIB <= trimmed.after <= 5.2 * MIB
    stats = pool.stats()
    assert (stats.cache.evictions["memory"], stats.cache.entries) == (5, 5)
    assert stats.workers[0].memory.bytes == trimmed.after
    assert do(pool, lambda: sorted(current_worker().cache)) == [5, 6, 7, 8, 9]
    assert (do(pool, generation), recycles(pool)) == (1, 0)
    assert not events.of(WorkerDue)


def test_where_half_of_the_cache_is_not_enough_the_worker_goes(new_pool, slowly):
    pool, events = used(new_pool, soon(), cache="64MiB")
    do(pool, lambda: (cache(4), keep(12)))
    (retired,) = events.wait_for(WorkerRetired, reason=Reason.MEMORY)
    assert "14 MiB owned" in retired.why  # after the trim
    assert not events.of(CacheTrimmed)


class Starts:
    """An initializer whose second run waits."""

    def __init__(self):
        self.go, self.count = threading.Event(), 0

    def __call__(self):
        self.count += 1
        assert self.count == 1 or self.go.wait(WAIT), "nobody let go"


@pytest.fixture
def starts(new_pool):
    initializer = Starts()
    yield initializer
    initializer.go.set()


def test_a_slow_leak_the_successor_comes_first(new_pool, slowly, starts):
    pool, events = used(new_pool, soon(), initializer=starts)
    do(pool, keep, 12)
    events.wait_for(WorkerDue, reason=Reason.MEMORY)
    assert do(pool, generation) == 1  # it serves meanwhile
    (worker,) = [w for w in pool.stats().workers if w.generation == 1]
    assert worker.due is Reason.MEMORY
    assert [name for name, _ in worker.memory.largest] == ["@per_worker kept"]
    starts.go.set()
    events.wait_for(WorkerRetired, reason=Reason.MEMORY)
    kinds = [type(e) for e in events.all if isinstance(e, WorkerReady | WorkerRetired)]
    assert kinds[-2:] == [WorkerReady, WorkerRetired]
    assert do(pool, generation) == 2


def test_a_fast_leak_the_worker_takes_no_other_task(new_pool, starts):
    pool, events = used(new_pool, soon(), initializer=starts)
    do(pool, keep, 20)
    events.wait_for(WorkerRetired, reason=Reason.MEMORY)
    late = pool.submit(generation)
    assert not events.of(WorkerReady, generation=2)
    starts.go.set()
    assert late.result(WAIT) == 2


def test_no_task_is_lost_to_recycles(new_pool):
    pool = new_pool(2, limits=soon())
    assert sorted(pool.map(lambda n: (keep(2), n)[1], range(200))) == [*range(200)]
    stats = pool.stats()
    assert (stats.completed, stats.failed, stats.lost) == (200, 0, 0)
    assert recycles(pool) >= 3


def closes(pool, hold, leaves=0):
    """It closes while a task is held, which leaves so many MiB behind: the tasks that follow it."""
    held = pool.submit(lambda: (hold(), keep(leaves)))
    hold.wait_started()
    later = [pool.submit(generation) for _ in range(3)]
    closing = in_thread(pool.close)
    until(lambda: pool._engine.dispatch.closing, "the close")
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 0.05, "the time of its next look")
    hold.release()
    held.result(WAIT)
    return later, closing


def test_a_drain_keeps_the_limit(new_pool, new_hold, slowly):
    """It may take long. Who is over the limit takes no other task of it."""
    pool, events = used(new_pool, soon())
    later, closing = closes(pool, new_hold(), leaves=12)
    assert [each.result(WAIT) for each in later] == [2, 2, 2]
    closing.result()
    events.wait_for(WorkerRetired, reason=Reason.MEMORY)


def test_a_drain_does_not_wait_for_the_successor_of_who_is_over_it(
    new_pool, new_hold, slowly, starts
):
    pool, events = used(new_pool, soon(), initializer=starts)
    do(pool, keep, 12)
    events.wait_for(WorkerDue, reason=Reason.MEMORY)
    later, closing = closes(pool, new_hold())
    events.wait_for(WorkerRetired, reason=Reason.MEMORY)
    starts.go.set()
    assert [each.result(WAIT) for each in later] == [2, 2, 2]
    closing.result()


def test_report_only_lets_a_drain_go_on(new_pool, new_hold, slowly):
    pool, _ = used(new_pool, soon(report_only=True))
    later, closing = closes(pool, new_hold(), leaves=12)
    assert [each.result(WAIT) for each in later] == [1, 1, 1]
    closing.result()


# ==== what is told ===============================================================================


def test_report_only_tells_once_and_does_nothing(new_pool, slowly):
    pool, events = used(new_pool, soon(report_only=True), cache="64MiB")
    do(pool, lambda: (cache(4), keep(12)))
    (due,) = events.wait_for(WorkerDue)
    assert due.report_only
    assert "16 MiB owned, the limit is 10 MiB: @per_worker kept 12 MiB" in due.why
    do(pool, keep, 1)
    read(pool, least=17 * MIB)
    assert len(events.of(WorkerDue)) == 1
    stats = pool.stats()
    assert (stats.cache.entries, recycles(pool)) == (4, 0)
    do(pool, let_go)
    read(pool, most=10 * MIB)
    do(pool, keep, 12)
    assert len(events.wait_for(WorkerDue, times=2)) == 2  # it was below it meanwhile


def test_the_largest_roots_are_named(new_pool, slowly):
    pool, events = used(new_pool, soon(), cache="64MiB")
    do(pool, lambda: [cache(8, "model"), keep(6), own_local(5), cache(1, "small")])
    (returned,) = events.wait_for(MemoryReturned)
    names = [name for name, _ in returned.largest]
    assert names[0] == "@per_worker kept"
    assert "held" in names[1]  # of the thread-local
    assert len(names) <= 3
    sizes = [size for _, size in returned.largest]
    assert sizes == sorted(sizes, reverse=True)
    assert all(n * MIB <= size <= (n + 0.2) * MIB for n, size in zip((6, 5), sizes, strict=False))
    assert sum(sizes) <= returned.owned_bytes
    for event in (events.wait_for(WorkerDue)[0], events.of(WorkerRetired)[0]):
        assert ": @per_worker kept 6 MiB, threading.local attribute 'held' 5 MiB" in event.why


def test_what_came_back_is_told(new_pool, slowly):
    pool, events = used(new_pool, soon())
    do(pool, keep, 12)
    (returned,) = events.wait_for(MemoryReturned)
    assert (returned.slot, returned.generation) == (0, 1)
    assert 12 * MIB <= returned.owned_bytes <= 12.2 * MIB
    assert returned.noise > 0
    assert returned.trim_seconds is None or returned.trim_seconds >= 0
    kinds = events.kinds()
    assert kinds.index("WorkerRetired") < kinds.index("MemoryReturned")


def test_that_much_is_held_elsewhere_is_told_once(new_pool, monkeypatch):
    monkeypatch.setattr(_probe, "CYCLES_PAUSE", 0.001)
    held = blocks(20)
    pool, events = used(new_pool, soon())
    do(pool, share, [held])
    do(pool, share, held)
    do(pool, keep, 9)
    seen = set()

    def look_again():
        do(pool, int)
        seen.add(pool.stats().workers[0].memory.at)
        return events.of(MemoryNotOwned)

    until(look_again, "MemoryNotOwned")
    seen.clear()
    until(lambda: look_again() and len(seen) >= 5)
    (told,) = events.of(MemoryNotOwned)
    assert told.what.startswith("cache['shared'] 20 MiB is also referred to from outside")
    assert recycles(pool) == 0
    assert len(held) == 20


# ==== a limit that is too low ====================================================================


def test_a_limit_that_is_too_low_is_told_and_recycles_become_rare(new_pool):
    """What the first task leaves behind is no growth: it is waited for, as for any other."""
    pool = new_pool(1, limits=soon(min_age=0.05))
    events = Events(pool)
    for n in range(1, 4):
        do(pool, keep, 12)
        events.wait_for(WorkerRetired, times=n, reason=Reason.MEMORY)
    (told,) = events.of(MemoryLimitTooLow)
    assert (told.generation, told.limit) == (1, 10 * MIB)
    assert 12 * MIB <= told.owned <= 12.2 * MIB
    ages = [event.age for event in events.of(WorkerRetired, reason=Reason.MEMORY)]
    assert all(age >= 0.05 * 2**n for n, age in enumerate(ages, 1)), ages


def test_it_is_told_again_after_it_was_enough(new_pool, slowly):
    pool = new_pool(1, limits=soon())
    events = Events(pool)
    for n in (1, 3):
        do(pool, keep, 12)
        events.wait_for(WorkerRetired, times=n, reason=Reason.MEMORY)
        if n == 1:
            until(lambda: do(pool, generation) == 2)
            read(pool, most=MIB)  # enough for that first task
            do(pool, keep, 12)
            events.wait_for(WorkerRetired, times=2, reason=Reason.MEMORY)
    assert [event.generation for event in events.of(MemoryLimitTooLow)] == [1, 3]


# ==== E4 =========================================================================================


def test_e4_only_the_worker_over_it_is_recycled(new_pool):
    pool = new_pool(3, limits=soon(min_age=0.2))
    together = threading.Barrier(3)

    def work(n):
        together.wait(WAIT)
        keep(2 if current_worker().slot == 1 else 0)
        return n

    futures = [pool.submit(work, n) for n in range(60)]
    assert [future.result(WAIT) for future in futures] == [*range(60)]
    assert recycles(pool) >= 1
    generations = {worker.slot: worker.generation for worker in pool.stats().workers}
    assert generations[0] == generations[2] == 1


@pytest.mark.parametrize("memory", [1, "1KiB"])
def test_e4_an_absurdly_low_limit_finishes_all_tasks_and_backs_off(new_pool, memory):
    pool = new_pool(2, limits=soon(memory, min_age=0.05))
    events = Events(pool)

    def work(n):
        kept()[:] = [bytes(2000)]
        return n

    do(pool, work, 0)
    events.wait_for(MemoryLimitTooLow)
    assert sorted(pool.map(work, range(2000))) == [*range(2000)]
    do(pool, time.sleep, 0.2)
    stats = pool.stats()
    assert (stats.completed, stats.failed, stats.lost) == (2002, 0, 0)
    assert recycles(pool) <= 12
    assert len(events.of(MemoryLimitTooLow)) == 1
    retired = events.of(WorkerRetired, reason=Reason.MEMORY)
    assert all(event.age >= 0.05 for event in retired), retired
