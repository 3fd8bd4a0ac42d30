"""Limits(tasks=N): every worker runs exactly N tasks, and the next one takes its slot."""

import threading
from collections import Counter

import pytest
from staging import WAIT, until

from recyclepool import Limits, current_worker, per_worker


def who(*_):
    me = current_worker()
    return me.slot, me.generation


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_one_worker_runs_exactly_that_many(new_pool, tasks):
    """One after the other, each in the same slot, each of the next generation."""
    pool = new_pool(1, limits=Limits(tasks=tasks))
    futures = [pool.submit(who) for _ in range(tasks * 10)]
    assert [future.result(WAIT) for future in futures] == [
        (0, 1 + n // tasks) for n in range(tasks * 10)
    ]


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("tasks", [1, 3, 7])
def test_every_worker_runs_exactly_that_many(new_pool, workers, tasks):
    pool = new_pool(workers, limits=Limits(tasks=tasks))
    counts = Counter(future.result(WAIT) for future in [pool.submit(who) for _ in range(300)])
    assert counts.total() == 300
    assert max(counts.values()) <= tasks
    last = {slot: max(generation for s, generation in counts if s == slot) for slot, _ in counts}
    for (slot, generation), count in counts.items():
        if generation < last[slot]:
            assert count == tasks, "it was replaced before its time"
    for slot, generation in last.items():  # none is left out
        assert {g for s, g in counts if s == slot} == set(range(1, generation + 1))
    pool.close()
    assert pool.stats().recycles["tasks"] == sum(count == tasks for count in counts.values())


def test_a_cancelled_task_does_not_count(new_pool, new_hold):
    pool, hold = new_pool(1, limits=Limits(tasks=3)), new_hold()
    first = pool.submit(hold)
    hold.wait_started()
    cancelled = [pool.submit(who) for _ in range(10)]
    ran = [pool.submit(who) for _ in range(4)]
    assert all(future.cancel() for future in cancelled)
    hold.release()
    first.result(WAIT)
    assert [future.result(WAIT) for future in ran] == [(0, 1), (0, 1), (0, 2), (0, 2)]


def test_a_task_that_fails_counts(new_pool):
    pool = new_pool(1, limits=Limits(tasks=2))
    assert isinstance(pool.submit(divmod, 1, 0).exception(WAIT), ZeroDivisionError)
    assert [pool.submit(who).result(WAIT) for _ in range(3)] == [(0, 1), (0, 2), (0, 2)]


def test_the_successor_is_there_while_the_last_task_runs(new_pool, new_hold):
    """Warm: its initializer is done. It takes no task before the slot is free."""
    hold, initialized = new_hold(), []
    pool = new_pool(
        1, limits=Limits(tasks=1), initializer=lambda: initialized.append(who()), name="warm"
    )
    last = pool.submit(lambda: (hold(), who())[1])
    hold.wait_started()
    until(lambda: initialized == [(0, 1), (0, 2)])
    following = pool.submit(who)
    hold.release()
    assert last.result(WAIT) == (0, 1)
    assert following.result(WAIT) == (0, 2)


@pytest.mark.parametrize("workers", [1, 3])
def test_never_more_tasks_than_workers(new_pool, workers):
    """A pool of one worker still runs one task at a time, as those who use it as a lock expect."""
    pool = new_pool(workers, limits=Limits(tasks=1))
    running, most, lock = [], [], threading.Lock()

    def task():
        with lock:
            running.append(1)
            most.append(len(running))
        for _ in range(100):
            sum(range(20))
        with lock:
            running.pop()

    for future in [pool.submit(task) for _ in range(200)]:
        future.result(WAIT)
    assert max(most) <= workers


def test_slots_are_independent(new_pool, new_hold):
    """A task that goes on in one slot keeps none of the other slots from its successors."""
    pool, hold = new_pool(2, limits=Limits(tasks=1)), new_hold()
    long = pool.submit(lambda: (hold(), who())[1])
    hold.wait_started()
    others = [pool.submit(who) for _ in range(10)]
    assert [future.result(WAIT) for future in others] == [(1, n) for n in range(1, 11)]
    hold.release()
    assert long.result(WAIT) == (0, 1)


def test_initializer_finalizer_and_teardown_are_run_once_each(new_pool):
    events = []

    def note(what):
        events.append((what, *who()))

    @per_worker
    def thing():
        note("made")
        yield "thing"
        note("torn down")

    pool = new_pool(
        2,
        limits=Limits(tasks=3),
        initializer=note,
        initargs=("initialized",),
        finalizer=lambda: note("finalized"),
    )
    for future in [pool.submit(thing) for _ in range(60)]:
        assert future.result(WAIT) == "thing"
    pool.close()
    counts = Counter(events)
    assert set(counts.values()) == {1}
    workers = {event[1:] for event in events}
    assert len(workers) >= 20
    for worker in workers:
        sequence = [what for what, *of in events if tuple(of) == worker]
        assert sequence in (
            ["initialized", "made", "torn down", "finalized"],
            ["initialized", "finalized"],  # a successor that found nothing left to do
        )


def test_a_finalizer_knows_why(new_pool):
    reasons = []
    pool = new_pool(
        1,
        limits=Limits(tasks=2),
        finalizer=lambda: reasons.append(str(current_worker().leaving)),
    )
    for _ in range(3):
        pool.submit(int).result(WAIT)
    pool.close()
    assert reasons == ["tasks", "close"]


def test_stopping_is_set_for_a_worker_in_its_last_task(new_pool, new_hold):
    """Who goes after this task may tell those that it started."""
    pool = new_pool(1, limits=Limits(tasks=1))
    flags = [pool.submit(lambda: current_worker().stopping).result(WAIT) for _ in range(3)]
    for flag in flags:
        assert flag.wait(WAIT)
    assert len(set(map(id, flags))) == 3


def test_generations_go_on_after_a_close(new_pool):
    pool = new_pool(1, limits=Limits(tasks=1))
    seen = []
    for _ in range(3):
        seen += [pool.submit(who).result(WAIT) for _ in range(3)]
        pool.close()
    generations = [generation for _, generation in seen]
    assert generations == sorted(set(generations))
    assert {slot for slot, _ in seen} == {0}


def test_recycles_are_counted_by_reason(new_pool):
    pool = new_pool(1, limits=Limits(tasks=2))
    for _ in range(7):
        pool.submit(int).result(WAIT)
    pool.close()
    assert pool.stats().recycles == {"tasks": 3, "close": 1}
