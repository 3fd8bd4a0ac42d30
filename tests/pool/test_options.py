"""pool.options(): timeout, name and context, with each of its verbs. Keys: test_options_key.py."""

import asyncio
import contextvars
import functools
import gc
import weakref
from concurrent.futures import CancelledError

import pytest
from listening import Events, Obedient
from staging import WAIT, until

import recyclepool
from recyclepool import (
    Limits,
    PoolClosedError,
    Reason,
    RecyclePool,
    TaskTimeoutError,
    WorkerAbandoned,
    current_worker,
    per_worker,
)
from recyclepool.events import TaskTimedOut, WorkerRetired

variable = contextvars.ContextVar("variable", default="nothing")
preset = contextvars.ContextVar("preset", default="nothing")

# The verbs, each as verb(view, fn) -> what became of fn().
VERBS = {
    "submit": lambda view, fn: view.submit(fn).result(WAIT),
    "map": lambda view, fn: next(view.map(lambda _: fn(), [0], timeout=WAIT)),
    "map, lazily": lambda view, fn: next(view.map(lambda _: fn(), [0], buffersize=1)),
    "map_unordered": lambda view, fn: next(view.map_unordered(lambda _: fn(), [0])),
    "run": lambda view, fn: asyncio.run(view.run(fn)),
}
each_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())


# ---- the view -----------------------------------------------------------------------------------


@each_verb
def test_no_options_is_the_pool_itself(new_pool, verb):
    pool = new_pool(1)
    assert verb(pool.options(), lambda: 7) == verb(pool, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        verb(pool.options(), lambda: 1 / 0)


def test_a_view_may_be_used_again_and_again(new_pool):
    pool = new_pool(2)
    view = pool.options(timeout="1h", key="key", name="name", context="worker")
    assert [view.submit(divmod, n, 3).result(WAIT) for n in range(5)] == [
        divmod(n, 3) for n in range(5)
    ]
    assert list(view.map(divmod, range(5), [3] * 5)) == [divmod(n, 3) for n in range(5)]


def test_keywords_are_the_functions(new_pool):
    """Nothing of what the options are called is taken from a task's own keywords."""

    def echo(**given):
        return given

    given = {"timeout": 1, "key": 2, "name": 3, "context": 4, "fn": 5, "self": 6, "args": 7}
    view = new_pool(1).options(timeout="1h", key="key", name="name")
    assert view.submit(echo, **given).result(WAIT) == given
    assert asyncio.run(view.run(echo, **given)) == given


def test_the_repr_of_a_view(new_pool):
    pool = new_pool(1, name="shown")
    assert repr(pool.options()).startswith("<Options (none) of <RecyclePool 'shown' ")
    told = repr(pool.options(timeout="2s", key="secret", name="resize"))
    assert told.startswith("<Options timeout=2.0 name='resize' key=... of <RecyclePool 'shown' ")
    assert "secret" not in told


def test_a_view_keeps_its_pool_alive():
    """Dropped with it, the pool ends."""
    view = RecyclePool(1).options(name="name")
    gc.collect()
    assert view.submit(int).result(WAIT) == 0
    engine = weakref.ref(view._engine)
    threads = [worker.thread for worker in engine().roster.workers]
    del view
    gc.collect()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


@each_verb
def test_a_view_of_a_pool_that_is_shut_down(new_pool, verb):
    pool = new_pool(1)
    view = pool.options(name="name", key="key")
    pool.shutdown()
    with pytest.raises(PoolClosedError):
        verb(view, int)


def test_a_view_of_a_pool_that_is_used_again(new_pool):
    """An epoch ends: the view is of the pool, not of that."""
    pool = new_pool(1)
    view = pool.options(timeout="1h", key="key")
    assert view.submit(int).result(WAIT) == 0
    pool.close()
    assert view.submit(int).result(WAIT) == 0
    pool.destroy()
    assert view.submit(int).result(WAIT) == 0


@pytest.mark.parametrize("key", [[], {}, {1: 2}, ([],)])
def test_a_key_without_a_hash(new_pool, key):
    with pytest.raises(TypeError) as caught:
        new_pool(1).options(key=key)
    assert str(caught.value) == (
        f"key={key!r}: write something that has a hash, such as a str, an int or a tuple"
    )


# ---- timeout ------------------------------------------------------------------------------------


@each_verb
def test_timeout(new_pool, verb):
    """The task is stopped, whatever way it came, and the worker replaced."""
    pool = new_pool(1, limits=Limits(grace=WAIT))
    with pytest.raises(TaskTimeoutError, match="ran longer than 20 ms"):
        verb(pool.options(timeout=0.02), Obedient())
    assert verb(pool.options(timeout=WAIT), lambda: current_worker().generation) == 2
    assert pool.stats().timed_out == 1


def test_only_the_tasks_of_the_view_have_its_timeout(new_pool, new_hold):
    pool, hold = new_pool(2, limits=Limits(grace=WAIT)), new_hold()
    other = pool.submit(hold, "other")
    hold.wait_started()
    assert isinstance(
        pool.options(timeout=0.02).submit(Obedient()).exception(WAIT), TaskTimeoutError
    )
    assert not other.done()
    hold.release()
    assert other.result(WAIT) == "other"
    assert pool.stats().timed_out == 1


def test_the_timeout_of_map_is_for_all_of_it_and_that_of_the_view_for_each(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    results = pool.options(timeout="1h").map(hold, range(3), timeout=0.02)
    hold.wait_started()
    with pytest.raises(TimeoutError) as caught:
        next(results)
    assert type(caught.value) is TimeoutError, "no task timed out"
    hold.release()
    until(lambda: pool.stats().completed == 1)
    assert pool.stats().cancelled == 2


def test_the_map_of_a_view_goes_on_to_raise_what_a_task_raised(new_pool):
    pool = new_pool(1, limits=Limits(grace=WAIT))
    results = pool.options(timeout=0.3).map(lambda fn: fn(), [int, Obedient(), int])
    assert next(results) == 0
    with pytest.raises(TaskTimeoutError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


# ---- names --------------------------------------------------------------------------------------


def where_named(pool):
    """What the task that runs is called, wherever it is shown."""
    (worker,), (stack,) = pool.stats().workers, pool.stacks()
    (dumped,) = [
        line
        for line in recyclepool.dump().splitlines()
        if line.startswith("  worker ") and " in task " in line
    ]
    return worker.task_name, stack.task_name, dumped.split(" in task ")[1]


@each_verb
def test_a_name_is_shown_while_the_task_runs(new_pool, verb):
    pool = new_pool(1)
    seen = verb(pool.options(name="resize image"), lambda: where_named(pool))
    assert seen == ("resize image", "resize image", "'resize image'")


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (Obedient(), "Obedient"),
        (functools.partial(Obedient()), "Obedient"),
        (Obedient().__call__, "Obedient.__call__"),
    ],
    ids=["object", "partial", "method"],
)
def test_without_a_name_it_is_the_functions(new_pool, fn, name):
    pool = new_pool(1, limits=Limits(grace=WAIT))
    error = pool.options(timeout=0.05).submit(fn).exception(WAIT)
    assert str(error) == f"{name} ran longer than 50 ms"


def test_a_name_that_is_no_text_runs_no_code_of_the_task(new_pool):
    """Shown is what the pool was given: never the repr of a callable, which may be anything's."""

    class Nasty:
        def __call__(self):
            return where_named(pool)

        def __repr__(self):
            raise AssertionError("asked for its repr")

        def __getattr__(self, name):
            raise AssertionError(f"asked for its {name}")

    pool = new_pool(1)
    named, _, _ = pool.submit(Nasty()).result(WAIT)
    assert named.endswith("Nasty")
    named, _, _ = pool.options(name="nice").submit(Nasty()).result(WAIT)
    assert named == "nice"


def test_a_name_stands_in_the_error_and_in_the_events(new_pool):
    pool = new_pool(1, limits=Limits(grace=WAIT))
    events = Events(pool)
    error = pool.options(timeout=0.02, name="fetch it").submit(Obedient()).exception(WAIT)
    assert str(error) == "fetch it ran longer than 20 ms"
    (timed_out,) = events.wait_for(TaskTimedOut)
    assert (timed_out.task_name, timed_out.reason) == ("fetch it", Reason.TIMEOUT)
    assert "task 'fetch it' timed out" in str(timed_out)
    (retired,) = events.wait_for(WorkerRetired)
    assert retired.why == "fetch it ran longer than 20 ms"


def test_a_name_stands_in_the_error_of_a_hang(new_pool):
    pool = new_pool(1, limits=Limits(hang=0.02, grace=WAIT))
    error = pool.options(name="fetch it").submit(Obedient()).exception(WAIT)
    assert str(error) == "fetch it gave no sign of life for 20 ms"


def test_a_name_in_several_lines_is_one_line_of_an_event(new_pool):
    pool = new_pool(1, limits=Limits(grace=WAIT))
    events = Events(pool)
    pool.options(timeout=0.02, name="one\ntwo").submit(Obedient()).exception(WAIT)
    (timed_out,) = events.wait_for(TaskTimedOut)
    assert timed_out.task_name == "one\ntwo"
    assert len(str(timed_out).splitlines()) == 1
    assert "one\\ntwo" in str(timed_out)


def test_a_name_stands_in_what_was_abandoned(new_pool, new_hold):
    """In the event, in stats and stacks afterwards, and in the report of the end."""
    pool, hold = new_pool(2, limits=Limits(grace=0.02)), new_hold()
    events = Events(pool)
    pool.options(timeout=0.02, name="first").submit(hold)
    (event,) = events.wait_for(WorkerAbandoned)
    assert event.task_name == "first"
    until(lambda: pool.stats().abandoned == 1)
    assert [w.task_name for w in pool.stats().workers if w.state == "abandoned"] == ["first"]
    assert [w.task_name for w in pool.stacks() if w.state == "abandoned"] == ["first"]
    assert "in task 'first'" in recyclepool.dump()
    pool.options(name="second").submit(hold)
    hold.wait_started(2)
    report = pool.destroy(0.02)
    assert sorted(worker.task_name for worker in report.abandoned) == ["first", "second"]
    hold.release()
    until(lambda: not pool.stats().abandoned)


# ---- whose variables ----------------------------------------------------------------------------


@pytest.mark.parametrize("mine", ["submitter", "worker"])
@pytest.mark.parametrize("pools", ["submitter", "worker"])
@each_verb
def test_whose_variables_a_task_sees(new_pool, verb, pools, mine):
    """The options' word counts, not the pool's; without one, the pool's does."""
    pool = new_pool(1, context=pools)

    def ask():
        variable.set("the submitter's")
        explicit = verb(pool.options(context=mine), variable.get)
        return explicit, verb(pool.options(name="name"), variable.get)

    seen = {"submitter": "the submitter's", "worker": "nothing"}
    assert contextvars.Context().run(ask) == (seen[mine], seen[pools])


@pytest.mark.parametrize("mine", ["submitter", "worker"])
@pytest.mark.parametrize("pools", ["submitter", "worker"])
@each_verb
def test_what_the_initializer_set_wins(new_pool, verb, pools, mine):
    pool = new_pool(1, context=pools, initializer=lambda: preset.set("the initializer's"))

    def ask():
        preset.set("the submitter's")
        return verb(pool.options(context=mine), preset.get)

    assert contextvars.Context().run(ask) == "the initializer's"
    # Of a submitter without any variables too.
    assert contextvars.Context().run(verb, pool.options(context=mine), preset.get) == (
        "the initializer's"
    )


@pytest.mark.parametrize("pools", ["submitter", "worker"])
def test_a_task_leaves_nothing_to_tasks_with_their_submitters_variables(new_pool, pools):
    pool = new_pool(1, context=pools)
    mine = pool.options(context="submitter")

    def ask():
        pool.options(context="worker").submit(variable.set, "left").result(WAIT)
        pool.submit(variable.set, "left").result(WAIT)
        mine.submit(variable.set, "left").result(WAIT)
        return mine.submit(variable.get).result(WAIT)

    assert contextvars.Context().run(ask) == "nothing"


def test_a_pool_of_workers_variables_keeps_what_tasks_leave(new_pool):
    """As the standard's does. A task with its submitter's between them changes nothing of that."""
    pool = new_pool(1, context="worker")
    pool.submit(variable.set, "left").result(WAIT)
    pool.options(context="submitter").submit(variable.set, "elsewhere").result(WAIT)
    assert pool.submit(variable.get).result(WAIT) == "left"
    assert pool.options(context="worker").submit(variable.get).result(WAIT) == "left"


@pytest.mark.parametrize("pools", ["submitter", "worker"])
def test_the_variables_are_those_of_the_submit_not_of_the_view(new_pool, new_hold, pools):
    pool, hold = new_pool(1, context=pools), new_hold()
    view = pool.options(context="submitter")

    def ask():
        variable.set("when it was submitted")
        pool.submit(hold)
        future = view.submit(variable.get)
        variable.set("when it ran")
        hold.release()
        return future.result(WAIT)

    assert contextvars.Context().run(ask) == "when it was submitted"


@pytest.mark.parametrize("pools", ["submitter", "worker"])
def test_the_variables_are_not_kept(new_pool, pools):
    """S18: nobody holds them when the task has ended, though the caller keeps the future."""

    class Thing:
        pass

    pool = new_pool(1, context=pools)

    def ask():
        thing = Thing()
        variable.set(thing)
        return weakref.ref(thing), pool.options(context="submitter").submit(int)

    reference, future = contextvars.Context().run(ask)
    assert future.result(WAIT) == 0
    until(lambda: len(pool._engine.dispatch.idle) == 1)
    gc.collect()
    assert reference() is None


# ---- in all, as ever ----------------------------------------------------------------------------


def test_a_task_with_options_is_a_future_like_others(new_pool, new_hold):
    pool, hold, told = new_pool(1), new_hold(), []
    view = pool.options(timeout="1h", key="key", name="name")
    running, queued = view.submit(hold, "ran"), view.submit(int)
    hold.wait_started()
    assert running.running()
    assert not running.cancel()
    queued.add_done_callback(told.append)
    assert queued.cancel()
    assert told == [queued]
    with pytest.raises(CancelledError):
        queued.result(0)
    hold.release()
    assert running.result(WAIT) == "ran"


def test_a_running_task_with_options_is_stopped_by_cancel(new_pool, new_spin):
    pool, spin = new_pool(1), new_spin()
    future = pool.options(timeout="1h", key="key", name="name").submit(spin)
    spin.wait_started()
    assert pool.cancel(future)
    assert pool.options(key="key").submit(lambda: current_worker().generation).result(WAIT) == 2


@per_worker
def model():
    return object()


def test_per_worker_is_the_slots_for_all_views(new_pool):
    pool = new_pool(1)
    views = [pool, pool.options(key=1), pool.options(key=2), pool.options(context="worker")]
    assert len({id(view.submit(model).result(WAIT)) for view in views}) == 1


def test_no_code_of_the_task_runs_for_its_name(new_pool, new_hold):
    hold = new_hold()

    class Meta(type):
        def __getattribute__(cls, name):
            assert name != "__qualname__"
            return super().__getattribute__(name)

    class Task(metaclass=Meta):
        def __init__(self):
            hold()

    class Name(str):
        __slots__ = ()

        def __str__(self):
            raise AssertionError

        __repr__ = __format__ = __str__

    pool = new_pool(2)
    futures = [pool.submit(Task), pool.options(name=Name("resize")).submit(hold)]
    hold.wait_started(2)
    names = [worker.task_name for worker in pool.stats().workers]
    assert sorted(name.rpartition(".")[2] for name in names) == ["Task", "resize"]
    assert "'resize'" in recyclepool.dump()
    hold.release()
    for future in futures:
        future.result(WAIT)
