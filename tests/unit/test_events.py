import json
import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from recyclepool import (
    AbandonedWorker,
    CacheStats,
    CloseReport,
    Histogram,
    Limits,
    PoolState,
    PoolStats,
    Reason,
    RecyclePool,
    State,
    WorkerStats,
    events,
)

FROZEN = [Histogram, WorkerStats, PoolStats, AbandonedWorker, CloseReport]


@pytest.fixture
def stats():
    """Of a pool that has done something, and is quiet: one worker of the second generation."""
    with RecyclePool(2, name="events", limits=Limits(tasks=2)) as pool:
        assert [pool.submit(int).result() for _ in range(3)] == [0, 0, 0]
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
        pool.close()
        yield pool.stats()


def test_the_names_are_sorted():
    assert events.__all__ == sorted(events.__all__, key=lambda name: (name != name.upper(), name))


@pytest.mark.parametrize("value", FROZEN)
def test_each_is_frozen_and_has_slots(value):
    assert is_dataclass(value)
    assert value.__dataclass_params__.frozen
    assert "__dict__" not in dir(value)
    assert value.__doc__


def test_to_assign_is_an_error(stats):
    report = CloseReport()
    with pytest.raises(FrozenInstanceError):
        report.completed = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        stats.queued = 1


def test_an_empty_report():
    assert CloseReport() == CloseReport(0, 0, 0, (), False, 0.0)


@pytest.mark.parametrize("states", [State, PoolState, Reason])
def test_the_enumerations_are_their_words(states):
    assert all(member == member.value == str(member) == member.name.lower() for member in states)
    assert json.dumps(list(states)) == json.dumps([member.value for member in states])


def test_states_grow_in_the_order_in_which_they_are_listed():
    assert [*State] == ["starting", "serving", "retiring", "stopped", "abandoned"]


def test_a_histogram_counts():
    assert tuple(sorted(set(events.BUCKETS))) == events.BUCKETS
    histogram = Histogram((1.0, 2.0), (3, 4, 5), 17.0)
    assert histogram.count == 12


def test_the_stats_of_a_quiet_pool(stats):
    assert isinstance(stats, PoolStats)
    assert (stats.name, stats.backend, stats.state) == ("events", "thread", PoolState.OPEN)
    assert (stats.submitted, stats.completed, stats.failed) == (4, 3, 1)
    assert (stats.queued, stats.oldest_queued, stats.utilization) == (0, None, 0.0)
    assert (stats.cancelled, stats.aborted, stats.abandoned) == (0, 0, 0)
    assert stats.recycles["tasks"] == 2
    assert stats.run.count == stats.wait.count == 4
    assert len(stats.run.counts) == len(stats.run.buckets) + 1
    assert isinstance(stats.cache, CacheStats)
    assert stats.workers == ()


def test_the_stats_are_ready_for_json(stats):
    told = stats.as_dict()
    assert list(told) == [field.name for field in fields(PoolStats)]
    read = json.loads(json.dumps(told))
    assert read["state"] == "open"
    assert read["recycles"]["tasks"] == 2
    assert read["run"]["buckets"] == list(events.BUCKETS)
    assert read["cache"]["evictions"] == {}
    assert read["workers"] == []


def test_a_worker_in_the_stats_is_ready_for_json():
    with RecyclePool(1) as pool:
        pool.start().result()
        assert pool.submit(int).result() == 0
        stats = pool.stats()
        (worker,) = json.loads(json.dumps(stats.as_dict()))["workers"]
        assert (worker["slot"], worker["generation"], worker["state"]) == (0, 1, "serving")
        assert (worker["tasks"], worker["task_name"], worker["task_running"]) == (1, None, None)
        assert list(worker) == [field.name for field in fields(WorkerStats)]


def test_as_dict_is_a_copy(stats):
    stats.as_dict()["recycles"].clear()
    assert stats.recycles["tasks"] == 2


def test_they_can_be_pickled(stats):
    assert pickle.loads(pickle.dumps(stats)) == stats
    report = CloseReport(abandoned=(AbandonedWorker(0, 1, "task", "stack"),), timed_out=True)
    assert pickle.loads(pickle.dumps(report)) == report
