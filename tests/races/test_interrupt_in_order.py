"""An order is broken off by a KeyboardInterrupt, and done again.

1. An order is there: a worker is to retire, has left, was the last to leave; an epoch is to end, is
   to be aborted; a pool is to be started.
2. The main thread carries it out; in turn, at each place of that, a KeyboardInterrupt is raised.
3. The main thread carries it out to its end all the same before the interrupt goes on. (One
   exception: the interrupt comes before it began. Then the next who orders something does.)
4. The engine's lock is free, and the pool serves on, in the same epoch or in the next.
"""

import dis
import itertools
import sys
import threading

import pytest
from forcing import (
    BEFORE_THE_ORDER,
    PATIENCE,
    Elsewhere,
    Interrupt,
    elsewhere,
    interrupted_everywhere,
    is_free,
    looks,
    noop,
    serves_on,
    settled_and_free,
    told,
    until,
    wait,
    with_idle,
    workers,
)

from recyclepool import PoolState, Reason
from recyclepool._future import Future
from recyclepool._orders import Orders

pytestmark = pytest.mark.usefixtures("no_debug")


def began(where):
    """Was the order begun when the interrupt came?"""
    return where not in BEFORE_THE_ORDER and not where.endswith((".retire: start", ".end: start"))


def test_retire_is_interrupted(new_pool):
    def stage():
        pool = with_idle(new_pool(2), 2)
        engine, worker = pool._engine, workers(pool)[0]

        def check(where):
            if began(where):
                worker.thread.join(PATIENCE)
                assert not worker.thread.is_alive(), "it sleeps on"
                assert pool.stats().recycles == {"tasks": 1}
            serves_on(pool)

        return lambda: engine.retire(worker, Reason.TASKS), check

    interrupted_everywhere(stage, 40)


def test_left_is_interrupted(new_pool):
    def stage():
        pool = with_idle(new_pool(2), 2)
        engine, worker = pool._engine, workers(pool)[0]
        with engine._orders._lock:  # its orders stay where they are
            worker.leaving = Reason.TASKS
            engine.dispatch.rouse(worker)
            worker.thread.join(PATIENCE)
        assert len(engine._orders._orders) == 2

        def check(where):
            if not began(where):
                engine._orders._carry_out()
            assert worker not in workers(pool)
            assert len(workers(pool)) == 2, "no successor"
            serves_on(pool)

        return engine._orders._carry_out, check

    interrupted_everywhere(stage, 50)


def test_the_end_of_an_epoch_is_interrupted(new_pool):
    """The last worker has left; the next epoch is put in place."""

    def stage():
        closing, go = threading.Event(), threading.Event()

        def linger():
            closing.set()
            assert go.wait(PATIENCE)

        pool = with_idle(new_pool(2, finalizer=linger), 1)
        engine, dispatch = pool._engine, pool._engine.dispatch
        engine.end(dispatch)
        wait(closing)
        thread = workers(pool)[0].thread
        with engine._orders._lock:
            go.set()
            thread.join(PATIENCE)
        assert len(engine._orders._orders) == 1
        another = Elsewhere(dispatch.ended.wait, None)
        until(lambda: dispatch.ended._sleepers, "somebody who waits for the end")

        def check(where):
            if began(where):
                assert dispatch.ended.done()
            else:
                engine._orders._carry_out()
            another.result()
            assert pool.stats().state is PoolState.OPEN
            serves_on(pool)

        return engine._orders._carry_out, check

    interrupted_everywhere(stage, 30)


@pytest.mark.parametrize("scene", ["idle", "busy"])
def test_close_is_interrupted(scene, new_pool):
    """Also in its wait for the end. The drain goes on, and may be waited for again."""

    def stage():
        pool = with_idle(new_pool(2), 2)
        dispatch = pool._engine.dispatch
        ran = threading.Event()
        if scene == "busy":
            go, started = threading.Event(), threading.Event()

            def last():
                started.set()
                assert go.wait(PATIENCE)
                ran.set()

            pool.submit(last)
            wait(started)
            helper = Elsewhere(lambda: (until(lambda: dispatch.ended._sleepers), go.set()))

        def check(where):
            if scene == "busy":
                go.set()
                elsewhere(pool.close)
                assert ran.is_set()
            elsewhere(pool.close)
            assert dispatch.ended.done()
            settled_and_free([dispatch.ended])
            if scene == "busy":
                dispatch.ended._sleepers = [None]  # the helper may still wait for the main thread
                helper.result()
            serves_on(pool)

        return pool.close, check

    interrupted_everywhere(stage, 50)


def test_destroy_is_interrupted(new_pool):
    def stage():
        pool = new_pool(1)
        dispatch = pool._engine.dispatch
        started, never, calls = threading.Event(), Future(), []

        def sleep_on():
            started.set()
            never.result()

        running = pool.submit(sleep_on)
        wait(started)
        queued = [pool.submit(noop) for _ in range(2)]
        waiting = []
        for future in (running, *queued):
            future.add_done_callback(calls.append)
            waiting.append(Elsewhere(future.wait, None))
            until(lambda future=future: future._sleepers, "somebody who waits for it")

        def check(where):
            elsewhere(pool.destroy, PATIENCE)
            assert dispatch.ended.done()
            for each in waiting:
                each.result()
            settled_and_free([running, *queued, dispatch.ended])
            told(pool)
            assert len(calls) == len(set(calls)), "a callback ran twice"
            if not where:
                assert len(calls) == 3
            serves_on(pool, 1)

        return lambda: pool.destroy(PATIENCE), check

    interrupted_everywhere(stage, 100)


def test_start_is_interrupted(new_pool):
    def stage():
        pool = new_pool(2, min_workers=2)

        def check(where):
            assert elsewhere(lambda: pool.start().result(PATIENCE)) == 2
            serves_on(pool)

        return pool.start, check

    interrupted_everywhere(stage, 50)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a trace function can interrupt but once")
def test_no_number_of_interrupts_leaves_the_lock_held(new_pool):
    """A second one comes while the first is on its way out, at each place in turn."""
    engine = new_pool(1)._engine
    for first in itertools.count():
        for second in itertools.count():
            places = Interrupts(first, second)
            try:
                places.watch(lambda: engine._orders.give(noop))
            except Interrupt:
                pass
            assert is_free(engine._orders._lock), f"{first}, {second}: the lock is held"
            engine._orders._carry_out()
            assert not engine._orders._orders
            if places.raised < 2:
                break
        if places.raised < 1:
            break
    assert first > 10


class Interrupts:
    """As Places, with two interrupts: the second that many places after the first."""

    def __init__(self, first, second):
        self.raised = 0
        self._due = [first, second]
        self._before = {}

    def watch(self, action):
        monitoring, tool = sys.monitoring, sys.monitoring.OPTIMIZER_ID
        event = monitoring.events.INSTRUCTION
        codes = [verb.__code__ for verb in (Orders.give, Orders._carry_out, Orders._do_orders)]
        monitoring.use_tool_id(tool, "interrupts")
        monitoring.register_callback(tool, event, self._instruction)
        try:
            for code in codes:
                monitoring.set_local_events(tool, code, event)
            return action()
        finally:
            for code in codes:
                monitoring.set_local_events(tool, code, 0)
            monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)
            self._before.clear()

    def _instruction(self, code, offset):
        frame, operation = sys._getframe(1), dis.opname[code.co_code[offset]]
        before = self._before.get(frame, "RESUME")
        self._before[frame] = operation
        if operation != "PUSH_EXC_INFO" and looks(before) and self._due:
            self._due[0] -= 1
            if self._due[0] < 0:
                self._due.pop(0)
                self.raised += 1
                raise Interrupt
