"""The process forks at nasty moments, and the child uses its copy of the pool.

1. A task runs, others are queued. The process forks: in a done callback, in an initializer, in a
   finalizer, in a task; or while another thread holds the engine's lock, a future's lock, a
   worker's gate, the lock of stats, or is in the middle of telling.
2. The child's copy is a fresh, empty pool: it runs tasks, closes, and is usable again. The futures
   of the parent that are pending fail there. Nobody waits for a lock that nobody holds.
3. The parent goes on as if nothing had been.
"""

import os
import signal
import threading
import traceback

import pytest
from forcing import PATIENCE, Rigged, Spied, serves_on, wait, with_idle, workers

from recyclepool import Limits, PoolState, WorkerLostError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def fork_and(in_child):
    """Fork; what went wrong in the child, as text. It ends there, whatever happens."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.alarm(int(PATIENCE) or 1)  # a child that hangs dies
            try:
                in_child()
            except BaseException:
                os.write(tell, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        wrong = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        wrong += f"the child hung: signal {os.WTERMSIG(status)}"
    return wrong


def is_fresh(pool, pending=()):
    """To be called in the child."""
    for future in pending:
        assert isinstance(future.exception(1), WorkerLostError), future
    stats = pool.stats()
    assert stats.state is PoolState.OPEN
    assert not stats.workers
    assert (stats.queued, stats.submitted, stats.abandoned) == (0, 0, 0)
    barrier = threading.Barrier(2)
    for each in [pool.submit(barrier.wait, PATIENCE) for _ in range(2)]:
        each.result(PATIENCE)
    assert pool.options(timeout=PATIENCE).submit(int).result(PATIENCE) == 0
    assert closed(pool)
    assert pool.submit(int, "7").result(PATIENCE) == 7
    assert closed(pool)


def closed(pool):
    """Wait for its end as another thread would: this one may be the copy of a worker's."""
    done = []
    thread = threading.Thread(target=lambda: done.append(pool.close()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(done)


class Scene:
    """A pool of two, in which a task runs and another is queued."""

    def __init__(self, new_pool, **options):
        self.go, self.started = threading.Event(), threading.Semaphore(0)
        self.pool = with_idle(new_pool(2, **options), 2)
        self.running = [self.pool.submit(self._hold) for _ in range(2)]
        for _ in self.running:
            assert self.started.acquire(timeout=PATIENCE)
        self.queued = self.pool.submit(int)

    def _hold(self):
        self.started.release()
        assert self.go.wait(PATIENCE)
        return "parent"

    def fork(self):
        return fork_and(lambda: is_fresh(self.pool, [*self.running, self.queued]))

    def goes_on(self):
        self.go.set()
        assert [f.result(PATIENCE) for f in self.running] == ["parent"] * 2
        assert self.queued.result(PATIENCE) == 0
        serves_on(self.pool)


@pytest.mark.parametrize("watched", [False, True])
def test_the_main_thread_forks(watched, new_pool):
    scene = Scene(new_pool, limits=Limits(hang=1000, idle=1000) if watched else None)
    assert not scene.fork()
    scene.goes_on()


@pytest.mark.parametrize(
    "held",
    ["the engine's lock", "a future's lock", "a gate", "the queued future's", "stats", "role"],
)
def test_another_thread_holds_a_lock(held, new_pool):
    scene = Scene(new_pool)
    engine = scene.pool._engine
    lock = {
        "the engine's lock": engine._orders._lock,
        "a future's lock": scene.running[0]._lock,
        "a gate": workers(scene.pool)[0].gate.lock,
        "the queued future's": scene.queued._lock,
        "stats": engine.looking,
        "role": engine.news._role,
    }[held]
    has_it, may_go = threading.Event(), threading.Event()

    def hold():
        with lock:
            has_it.set()
            wait(may_go)

    holder = threading.Thread(target=hold)
    holder.start()
    wait(has_it)
    try:
        assert not scene.fork()
    finally:
        may_go.set()
        holder.join(PATIENCE)
    scene.goes_on()


def test_orders_lie_in_the_deque(new_pool):
    """What others ordered just before, and the lock's holder has not done yet, is the parent's."""
    scene = Scene(new_pool)
    engine = scene.pool._engine
    with engine._orders._lock:
        engine.resize(3)
        waiting = scene.pool.soft_restart()
        assert not scene.fork()
    engine.look()
    scene.go.set()
    assert waiting.result(PATIENCE) == 3  # the third came for the task that is queued
    scene.pool.resize(2)
    scene.goes_on()


def test_who_waits_for_a_restart_or_for_rest_fails_there(new_pool):
    scene = Scene(new_pool)
    restart, rest = scene.pool.soft_restart(), scene.pool._engine.rest()
    wrong = fork_and(lambda: is_fresh(scene.pool, [restart, rest, scene.queued]))
    assert not wrong
    scene.go.set()
    assert restart.result(PATIENCE) == 2
    assert rest.wait(PATIENCE)
    scene.goes_on()


@pytest.mark.parametrize("place", ["task", "done callback", "initializer", "finalizer"])
def test_a_worker_forks(place, new_pool):
    """Its copy runs nothing of the parent's: no other task, no callback twice, no finalizer."""
    wrong, over = [], threading.Event()

    def fork():
        wrong.append(fork_and(lambda: is_fresh(pools[0])))
        over.set()

    options = {place: fork} if place in ("initializer", "finalizer") else {}
    if place == "initializer":
        armed = [1]
        options = {"initializer": lambda: armed and armed.pop() and fork()}
    elif place == "finalizer":
        closing = []
        options = {"finalizer": lambda: closing and closing.pop() and fork()}
    pool = new_pool(2, **options)
    pools = [pool]
    if place == "task":
        assert pool.submit(fork).exception(PATIENCE) is None
    elif place == "done callback":
        go = threading.Event()
        future = pool.submit(go.wait, PATIENCE)
        future.add_done_callback(lambda _: fork())
        go.set()
    else:
        if place == "finalizer":
            closing.append(1)
            with_idle(pool, 2)
            pool.recycle(0).result(PATIENCE)
        else:
            pool.submit(int)
    wait(over)
    assert wrong == [""]
    serves_on(pool)


@pytest.mark.parametrize("place", ["task", "done callback", "initializer"])
def test_a_worker_forks_and_its_copy_returns(place, new_pool):
    """It leaves: the child's process ends with it, and nothing of the parent's ran twice."""
    told, tell = os.pipe()
    here, children, over = os.getpid(), [], threading.Event()

    def fork():
        child = os.fork()
        if child:
            children.append(child)
            over.set()
        else:
            signal.alarm(int(PATIENCE) or 1)

    def count(*_):
        os.write(tell, b"p" if os.getpid() == here else b"c")

    armed = [1]
    options = {"finalizer": count}
    if place == "initializer":
        options["initializer"] = lambda: armed and armed.pop() and fork()
    pool, go = new_pool(1, **options), threading.Event()
    first = pool.submit(go.wait, PATIENCE)
    if place == "done callback":
        first.add_done_callback(lambda _: fork())
    elif place == "task":
        pool.submit(fork)
    rest = [pool.submit(count) for _ in range(3)]
    go.set()
    wait(over)
    for future in rest:
        future.result(PATIENCE)
    serves_on(pool, 1)
    _, status = os.waitpid(children[0], 0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        ran = pipe.read()
    assert not os.WIFSIGNALED(status), "the child hung"
    assert b"c" not in ran, "the child ran what is the parent's"
    assert ran.count(b"p") == 4


def test_while_a_worker_holds_the_lock_of_the_future_that_it_settles(new_pool):
    """The fork comes in the middle of settle(), on another thread."""
    pool, go = with_idle(new_pool(2), 2), threading.Event()
    inside, may_go = threading.Event(), threading.Event()
    future = pool.submit(go.wait, PATIENCE)
    future._lock = lock = Spied(future._lock)

    def settling():
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            wait(may_go)

    lock.after_acquire = settling
    go.set()
    wait(inside)
    try:
        wrong = fork_and(lambda: is_fresh(pool))
    finally:
        may_go.set()
    assert not wrong
    assert future.result(PATIENCE)
    serves_on(pool)


def test_as_a_successor_is_made_ahead(new_pool, monkeypatch):
    """In the child who made it goes on: its thread, made before, could not be started there."""
    pool = with_idle(new_pool(1, limits=Limits(hang=60)), 1)
    engine = pool._engine
    engine._spare, make, wrong = None, engine._make_worker, []

    def in_child():
        monkeypatch.setattr(engine, "_make_worker", make)
        assert engine._spare is None
        assert pool.submit(int).result(PATIENCE) == 0
        assert workers(pool)[0].watch is engine.watchdog

    def fork_as_it_is_made():
        spare = make()
        dispatch = engine.dispatch
        wrong.append(fork_and(in_child))
        engine.dispatch = engine.new_dispatch()  # as the child has another
        wrong.append(dispatch)
        return spare

    monkeypatch.setattr(engine, "_make_worker", fork_as_it_is_made)
    engine._make_ahead()
    assert wrong[0] == ""
    assert engine._spare is None
    engine.dispatch = wrong[1]
    monkeypatch.undo()
    engine._make_ahead()
    assert engine._spare is not None
    assert pool.submit(int).result(PATIENCE) == 0


@pytest.mark.xfail(strict=True, reason="known: see docs/architecture.md, Exit and fork")
def test_between_taking_a_task_and_showing_it(new_pool):
    """Another worker has just taken it out of the queue: it is in no place that is seen."""
    taken, may_go, gates = threading.Event(), threading.Event(), []

    class Gate:
        """Shows its task late."""

        def __init__(self, real):
            object.__setattr__(self, "real", real)

        def __getattr__(self, name):
            return getattr(self.real, name)

        def __setattr__(self, name, value):
            if name == "task" and value is not None and value.fn is threading.get_ident:
                taken.set()
                wait(may_go)
            setattr(self.real, name, value)

    def rig(worker):
        worker.gate = Gate(worker.gate)
        gates.append(worker.gate)

    pool = with_idle(new_pool(2, backend=Rigged(rig)), 2)
    future = pool.submit(threading.get_ident)
    wait(taken)
    try:
        wrong = fork_and(lambda: is_fresh(pool, [future]))
    finally:
        may_go.set()
    assert future.result(PATIENCE)
    serves_on(pool)
    assert not wrong
