import json
import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from logging import DEBUG, ERROR, INFO, WARNING

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
from recyclepool.events import (
    CacheTrimmed,
    Event,
    MemoryLimitTooLow,
    MemoryNotOwned,
    MemoryPressure,
    MemoryRelieved,
    MemoryReturned,
    PoolBroken,
    PoolClosed,
    PoolClosing,
    QueueFull,
    QueueRelieved,
    TaskTimedOut,
    TeardownFailed,
    WatchdogFailed,
    WorkerAbandoned,
    WorkerDue,
    WorkerLost,
    WorkerReady,
    WorkerRetired,
    WorkerStartFailed,
)
from recyclepool.snapshots import Reading
from recyclepool.states import BUCKETS

STACK = """\
  File "/srv/app.py", line 12, in main
    run()
  File "/srv/fetch.py", line 34, in fetch
    sock.recv(4096)
"""

# Each kind of event, in each of its forms: its level, and its line after the pool's name.
WHAT, WHERE = ("images", 1_700_000_000.5), (2, 7)
MIB = 2**20
ROOTS = (("cache['model']", 310 * MIB), ("@per_worker history", 12 * MIB))
EVENTS = [
    (
        WorkerReady(*WHAT, *WHERE, 1.25),
        DEBUG,
        "worker 2.7 is ready, its start took 1.2 s",
    ),
    (
        WorkerDue(*WHAT, *WHERE, Reason.AGE, "age 6h 1m, limit 6h"),
        DEBUG,
        "worker 2.7 is due to be replaced: age 6h 1m, limit 6h",
    ),
    (
        WorkerDue(*WHAT, *WHERE, Reason.AGE, "age 6h 1m, limit 6h", report_only=True),
        INFO,
        "worker 2.7 would be replaced: age 6h 1m, limit 6h (report only)",
    ),
    (
        WorkerRetired(*WHAT, *WHERE, Reason.TASKS, "", 10_000, 21_660.0, 0.02),
        INFO,
        "worker 2.7 retired: tasks; 10000 tasks in 6h 1m, gone after 20 ms",
    ),
    (
        WorkerRetired(*WHAT, *WHERE, Reason.REQUESTED, "the model is stale", 1, 60.0, 2.5),
        INFO,
        "worker 2.7 retired: requested: the model is stale; 1 task in 1m, gone after 2.5 s",
    ),
    (
        WorkerRetired(*WHAT, *WHERE, Reason.CLOSE, "", 0, 1.0, 0.0),
        DEBUG,
        "worker 2.7 retired: close; 0 tasks in 1 s, gone after 0 s",
    ),
    (
        WorkerLost(*WHAT, *WHERE, "MemoryError()"),
        ERROR,
        "worker 2.7 was lost, its driver died: MemoryError()",
    ),
    (
        WorkerAbandoned(*WHAT, *WHERE, Reason.HANG, "fetch", STACK),
        WARNING,
        (
            "worker 2.7 abandoned (hang): its task 'fetch' does not end, "
            'in File "/srv/fetch.py", line 34, in fetch'
        ),
    ),
    (
        WorkerAbandoned(*WHAT, *WHERE, Reason.CLOSE, None, ""),
        WARNING,
        "worker 2.7 abandoned (close): its thread does not end",
    ),
    (
        WorkerAbandoned(*WHAT, *WHERE, None, None, ""),
        WARNING,
        "worker 2.7 abandoned: its start does not end",
    ),
    (
        WorkerStartFailed(*WHAT, *WHERE, "OSError(24, 'Too many open files')", 1, 0.1),
        WARNING,
        "worker 2.7 could not be started: OSError(24, 'Too many open files'); next try in 100 ms",
    ),
    (
        WorkerStartFailed(*WHAT, *WHERE, "OSError()", 5, None),
        WARNING,
        "worker 2.7 could not be started (5 times in a row): OSError(); no other try",
    ),
    (
        TeardownFailed(*WHAT, *WHERE, "KeyError('model')"),
        WARNING,
        "worker 2.7: its teardown failed: KeyError('model')",
    ),
    (
        TaskTimedOut(*WHAT, *WHERE, "fetch", Reason.TIMEOUT, 30.0),
        WARNING,
        "worker 2.7: task 'fetch' timed out: it has run for 30 s",
    ),
    (
        TaskTimedOut(*WHAT, *WHERE, "fetch", Reason.TIMEOUT, 30.0, report_only=True),
        INFO,
        "worker 2.7: task 'fetch' would time out: it has run for 30 s (report only)",
    ),
    (
        TaskTimedOut(*WHAT, *WHERE, "fetch", Reason.HANG, 120.0),
        WARNING,
        "worker 2.7: task 'fetch' hangs: no sign of life for 2m",
    ),
    (
        TaskTimedOut(*WHAT, *WHERE, None, Reason.HANG, 120.0, report_only=True),
        INFO,
        "worker 2.7: a task hangs: no sign of life for 2m (report only)",
    ),
    (QueueFull(*WHAT, 100), WARNING, "its queue is full: 100 tasks wait"),
    (QueueRelieved(*WHAT, 50), INFO, "its queue is no longer full: 50 tasks wait"),
    (
        CacheTrimmed(*WHAT, *WHERE, 600 * MIB, 300 * MIB),
        INFO,
        "worker 2.7 owned 600 MiB; half of its cache went, and 300 MiB are left",
    ),
    (
        MemoryLimitTooLow(*WHAT, *WHERE, 600 * MIB, 512 * MIB),
        WARNING,
        (
            "worker 2.7 owns 600 MiB after its first task, and the limit is 512 MiB: too low for "
            "recycles to help, so they become rare"
        ),
    ),
    (
        MemoryNotOwned(*WHAT, *WHERE, "cache['app'] 80 MiB is also referred to from outside"),
        INFO,
        "worker 2.7: cache['app'] 80 MiB is also referred to from outside",
    ),
    (
        MemoryReturned(*WHAT, *WHERE, 330 * MIB, ROOTS, -320 * MIB, 8_000_000, None),
        INFO,
        (
            "worker 2.7 owned 330 MiB (cache['model'] 310 MiB, @per_worker history 12 MiB); "
            "the process fell by 320 MiB"
        ),
    ),
    (
        MemoryReturned(*WHAT, *WHERE, 330 * MIB, ROOTS[:1], 5 * MIB, 8_000_000, 0.012),
        INFO,
        (
            "worker 2.7 owned 330 MiB (cache['model'] 310 MiB); the process rose by 5 MiB, "
            "after a trim of 12 ms"
        ),
    ),
    (
        MemoryReturned(*WHAT, *WHERE, 0, (), 0, 8_000_000, 0.5),
        INFO,
        "worker 2.7 owned 0 B; the process fell by 0 B, after a trim of 500 ms",
    ),
    (
        MemoryPressure(*WHAT, 3 * 2**30, 2 * 2**30, "app.SEEN holds 1 GiB", paused=True),
        WARNING,
        (
            "the process takes 3 GiB, the limit is 2 GiB: app.SEEN holds 1 GiB; "
            "no task is started for a while"
        ),
    ),
    (
        MemoryPressure(*WHAT, 3 * 2**30, 2 * 2**30, "app.SEEN holds 1 GiB", paused=False),
        WARNING,
        "the process takes 3 GiB, the limit is 2 GiB: app.SEEN holds 1 GiB",
    ),
    (
        MemoryRelieved(*WHAT, 2**30, 2 * 2**30),
        INFO,
        "tasks are started again: the process takes 1 GiB, the limit is 2 GiB",
    ),
    (PoolClosing(*WHAT), DEBUG, "closing"),
    (PoolClosed(*WHAT, 1.5), DEBUG, "closed in 1.5 s"),
    (PoolBroken(*WHAT, "OSError()"), ERROR, "broken, it takes no tasks: OSError()"),
    (WatchdogFailed(*WHAT, "OSError()"), ERROR, "its watchdog failed: OSError()"),
]
KINDS = sorted({type(event) for event, _, _ in EVENTS}, key=lambda kind: kind.__name__)

FROZEN = [Histogram, Reading, WorkerStats, PoolStats, AbandonedWorker, CloseReport, Event, *KINDS]

each_event = pytest.mark.parametrize("event", [event for event, _, _ in EVENTS])


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
    assert tuple(sorted(set(BUCKETS))) == BUCKETS
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
    assert read["run"]["buckets"] == list(BUCKETS)
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


def test_a_reading():
    reading = Reading("owned", 310 * MIB, 1_700_000_000.5)
    assert (reading.is_bound, reading.undecided, reading.largest) == (False, 0, ())
    assert str(reading) == "310 MiB owned"
    assert str(replace(reading, is_bound=True)) == ">= 310 MiB owned"
    assert str(replace(reading, kind="rss", bytes=2**30)) == "1 GiB rss"


def test_readings_in_the_stats_are_ready_for_json(stats):
    process = Reading("rss", 2**30, 1_700_000_000.5)
    worker = Reading("owned", 330 * MIB, 1_700_000_000.5, True, 7, ROOTS)
    of_worker = WorkerStats(0, 1, State.SERVING, 5, 1.0, None, None, None, memory=worker)
    told = replace(stats, memory=process, paused=True, workers=(of_worker,)).as_dict()
    read = json.loads(json.dumps(told))
    assert list(read["memory"]) == [field.name for field in fields(Reading)]
    assert (read["memory"]["kind"], read["paused"]) == ("rss", True)
    assert read["workers"][0]["memory"]["largest"] == [list(root) for root in ROOTS]
    assert pickle.loads(pickle.dumps(worker)) == worker


def test_without_a_limit_of_memory_there_is_no_reading(stats):
    assert (stats.memory, stats.paused) == (None, False)


def test_as_dict_is_a_copy(stats):
    stats.as_dict()["recycles"].clear()
    assert stats.recycles["tasks"] == 2


def test_they_can_be_pickled(stats):
    assert pickle.loads(pickle.dumps(stats)) == stats
    report = CloseReport(abandoned=(AbandonedWorker(0, 1, "task", "stack"),), timed_out=True)
    assert pickle.loads(pickle.dumps(report)) == report


# ==== events =====================================================================================


def test_every_kind_is_in_the_table_and_has_a_name_to_import():
    public = [getattr(events, name) for name in events.__all__]
    kinds = [x for x in public if isinstance(x, type) and issubclass(x, Event)]
    assert {*kinds} == {Event, *KINDS}


@pytest.mark.parametrize(("event", "level", "line"), EVENTS)
def test_the_log_line_of_an_event(event, level, line):
    assert str(event) == f"pool 'images': {line}"
    assert event.level == level


@each_event
def test_an_event_is_ready_for_json(event):
    read = json.loads(json.dumps(event.as_dict()))
    assert list(read) == ["event", *(field.name for field in fields(event))]
    assert (read["event"], read["pool"], read["at"]) == (type(event).__name__, *WHAT)


@each_event
def test_an_event_can_be_pickled_and_compared(event):
    again = pickle.loads(pickle.dumps(event))
    assert again == event
    assert hash(again) == hash(event)
    assert replace(event, pool="other") != event


@each_event
def test_an_event_cannot_be_changed(event):
    with pytest.raises(FrozenInstanceError):
        event.pool = "other"
    with pytest.raises((AttributeError, TypeError)):  # TypeError: some versions, with slots
        event.other = 1


def test_the_repr_of_an_event():
    assert repr(WorkerLost("images", 2.5, 0, 1, "MemoryError()")) == (
        "WorkerLost(pool='images', at=2.5, slot=0, generation=1, error='MemoryError()')"
    )


def test_a_log_line_is_one_line_whatever_it_tells():
    event = WorkerRetired("a\nb", 0.0, 0, 1, Reason.REQUESTED, "one\r\ntwo\nthree", 0, 0.0, 0.0)
    assert str(event) == (
        "pool 'a\\nb': worker 0.1 retired: requested: one two three; 0 tasks in 0 s, gone after 0 s"
    )


def test_an_event_of_no_kind_has_a_line_too():
    assert (str(Event("images", 0.0)), Event("images", 0.0).level) == (
        "pool 'images': Event",
        DEBUG,
    )
