"""A worker leaves in haste while nobody can carry out its order.

1. Somebody has the engine's lock, and is at it for long: it waits for the GIL, say.
2. A worker finds that it is far over its memory limit. It marks itself.
3. It takes no further task, and lets go of what it owned, though no order was carried out yet.
4. The order is carried out some time: a successor comes, no task is lost, all is counted.
"""

import os
import threading

import pytest
from forcing import PATIENCE, serves_on, until, wait, workers

from recyclepool import Limits, Reason, RecyclePool, WorkerRetired, per_worker
from recyclepool._looks import Looks
from recyclepool._probe import Probe

MIB = 2**20
LIMITS = Limits(memory=10 * MIB, memory_samples=1, sample_every=0.01, min_age=0, jitter=0)


@per_worker
def kept():
    return []


def keep(count):
    kept().append(bytearray(b"x") * (count * MIB))


def grow(started, go):
    """A task, after which its worker is far over its limit."""
    started.set()
    wait(go)
    keep(40)


def watched(torn_down):
    """A pool of one worker, which has been looked at."""
    pool = RecyclePool(1, limits=LIMITS, finalizer=torn_down.set)
    pool.submit(keep, 1).result(PATIENCE)
    until(lambda: pool.stats().workers[0].memory, "a look")
    return pool


def outgrown(pool):
    """One recycle for its memory, and no worker lost."""
    return pool.stats().recycles == {"memory": 1}


def test_it_does_not_wait_for_its_order():
    torn_down, started, go = (threading.Event() for _ in range(3))
    with watched(torn_down) as pool:
        task = pool.submit(grow, started, go)
        wait(started)
        with pool._engine._orders._lock:
            later = [pool.submit(int, n) for n in range(3)]
            go.set()
            wait(torn_down)
            assert task.done()
            assert not any(each.done() for each in later)
            assert pool.stats().recycles == {}
        pool._engine.look()  # as the holder does, after its release
        assert [each.result(PATIENCE) for each in later] == [0, 1, 2]
        until(lambda: outgrown(pool), "its end")
        torn_down.clear()
        serves_on(pool, 1)


def test_its_order_is_carried_out_while_its_teardown_hangs():
    """By the watchdog's thread, which it calls: the worker itself has no time."""
    hold, torn_down = threading.Event(), threading.Event()

    class Hanging(threading.Event):
        def set(self):
            if not torn_down.is_set():
                torn_down.set()
                wait(hold)

    try:
        with watched(Hanging()) as pool:
            (worker,) = workers(pool)
            pool.submit(keep, 40).result(PATIENCE)
            wait(torn_down)
            until(lambda: outgrown(pool), "its order")
            assert workers(pool) == [worker]
            assert not worker.vacated
            assert pool.wait_idle(PATIENCE), "no task is queued, and none runs"
            hold.set()
            assert pool.submit(int, 7).result(PATIENCE) == 7
            until(lambda: worker not in workers(pool), "its end")
            serves_on(pool, 1)
    finally:
        hold.set()


def retired(pool):
    """The reasons and words of all who have gone."""
    told = []
    pool.subscribe(lambda e: isinstance(e, WorkerRetired) and told.append((e.reason, e.why)))
    return told


def test_a_restart_that_is_ordered_before_it():
    """It is due for another reason when its order is carried out. It goes for its memory."""
    torn_down, started, go = (threading.Event() for _ in range(3))
    with watched(torn_down) as pool:
        told = retired(pool)
        pool.submit(grow, started, go)
        wait(started)
        with pool._engine._orders._lock:
            restart = pool.recycle(0)
            go.set()
            wait(torn_down)
        pool._engine.look()
        restart.result(PATIENCE)
        until(lambda: told, "its end")
        ((reason, why),) = told
        assert reason is Reason.MEMORY
        assert why.startswith("memory: ")
        assert "@per_worker kept" in why
        serves_on(pool, 1)


def test_a_restart_that_retires_it_as_it_is_looked_at(monkeypatch):
    """It goes for that, and in no haste: its successor is there."""
    torn_down, looked, go_on = (threading.Event() for _ in range(3))
    judge = Probe._judge

    def slowly(probe, found, *args):
        if found.owned > 20 * MIB:
            looked.set()
            wait(go_on)
        judge(probe, found, *args)

    with watched(torn_down) as pool:
        told, (worker,) = retired(pool), workers(pool)
        monkeypatch.setattr(Probe, "_judge", slowly)
        pool.submit(keep, 40).result(PATIENCE)
        wait(looked)
        restart = pool.recycle(0)
        until(lambda: worker.leaving, "its successor")
        go_on.set()
        restart.result(PATIENCE)
        until(lambda: told, "its end")
        assert told == [(Reason.MANUAL, "recycle()")]
        assert not worker.in_haste
        serves_on(pool, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_its_teardown_forks():
    """Before its order is carried out. The child's copy of it is none of the child's workers."""
    children, (heard, tell) = [], os.pipe()

    class Forking(threading.Event):
        def set(self):
            if children:
                return
            child = os.fork()
            if not child:
                threading.Thread(target=report).start()  # and the copy goes on, to its end
            children.append(child)

    def report():
        ended = worker.gate.lock.acquire(timeout=PATIENCE)
        os.write(tell, f"{ended} {pool.stats().recycles}".encode())
        os._exit(0)

    with watched(Forking()) as pool:
        (worker,) = workers(pool)
        with pool._engine._orders._lock:
            pool.submit(keep, 40).result(PATIENCE)
            until(lambda: children, "the fork")
        pool._engine.look()
        assert os.read(heard, 100) == b"True {}"
        os.waitpid(children[0], 0)
        until(lambda: outgrown(pool), "its end")
        serves_on(pool, 1)
    os.close(heard)
    os.close(tell)


def test_a_sleeper_is_given_no_further_task(monkeypatch):
    """It is looked at as it sleeps, in the idle stack: it takes itself out of that."""
    torn_down = threading.Event()
    with watched(torn_down) as pool:
        monkeypatch.setattr(Looks, "is_due", lambda *_: False)  # not between two tasks
        with pool._engine._orders._lock:
            pool.submit(keep, 40).result(PATIENCE)
            wait(torn_down)
            assert not pool._engine.dispatch.idle
        pool._engine.look()
        assert pool.submit(int, 7).result(PATIENCE) == 7
        until(lambda: outgrown(pool), "its end")
        serves_on(pool, 1)


def test_the_last_who_serves_was_retired_as_it_is_looked_at(monkeypatch):
    """What looks may cost is shared by those who serve: nobody does, and it is one all the same."""
    torn_down = threading.Event()
    with watched(torn_down) as pool:
        (worker,) = workers(pool)
        seen = worker.memory
        while worker.memory is seen:  # that it grows is known
            pool.submit(keep, 1).result(PATIENCE)
        monkeypatch.setattr(pool._engine.roster, "serving", lambda: 0)
        pool.submit(keep, 40).result(PATIENCE)
        until(lambda: pool.stats().recycles, "a recycle")
        assert set(pool.stats().recycles) == {"memory"}  # slow looks may have found it before
        monkeypatch.undo()
        serves_on(pool, 1)
