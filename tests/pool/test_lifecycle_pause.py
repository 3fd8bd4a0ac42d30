# ruff: noqa: F401, F811 (fixtures are imported)
"""Every verb, two at a time, while dispatch is paused. See test_lifecycle_verbs.py.

The process is too big, and recycles do not help. No task starts before the process is small again,
or an end begins: that ends the pause, and what was accepted is finished or cancelled, once.
"""

import asyncio
import gc
from collections import Counter
from itertools import combinations_with_replacement
from time import monotonic

import pytest
from listening import no_lingering
from squeezing import BASE, FLOOD, LIMIT, on_all, process
from stages import (
    ABORTED,
    ABORTS,
    CANCELLED,
    CLOSED,
    ENDS,
    LIMITS,
    SHUTDOWNS,
    Stage,
    allowed,
    alone,
    called,
    quiet,
    staged,
)
from stages import VERBS as ALL_VERBS
from staging import WAIT, Spin, in_thread, until

from recyclepool import Limits, PoolState, _relief
from recyclepool._future import Future
from recyclepool._stats import snapshot
from recyclepool.states import State

STATES = ["paused_idle", "paused_queued", "paused_busy", "paused_full"]
VERBS = [verb for verb in ALL_VERBS if verb != "options_submit"]
RESUMING = {*ENDS, "drop", "relieve"}  # the pause is over with these
CALL = (divmod, 7, 2)


@pytest.fixture
def new_stage(monkeypatch, process):
    # It takes its time, for a text.
    monkeypatch.setattr(_relief, "largest_containers", lambda *_, **__: ())
    yield from staged(lambda: PausedStage(process))


class PausedStage(Stage):
    """A pool that is paused since its process became too big. Its thread wakes when it is told."""

    limits = Limits(
        **LIMITS, pool_memory=LIMIT, memory_samples=1, sample_every="1h", min_age=0, jitter=0
    )

    def __init__(self, process):
        self.process = process
        self.queued, self.running, self.accepted = [], [], []  # futures
        self.blocked = []  # calls
        self.ran = Counter()  # of the queued ones
        self.told = Counter()  # of settled futures
        self.spin = Spin()
        self.warm = 0  # tasks that ran before
        super().__init__()

    def _make(self, size, **options):
        super()._make(size, **options)
        self.engine = self.pool._engine

    def take_down(self):
        self.spin.release()
        super().take_down()

    # The states.

    def paused_idle(self):
        self._warm_up(2)
        self._pause()

    def paused_queued(self):
        """Its workers have been woken, and wait for the pause's end."""
        self.paused_idle()
        self._queue(3)

    def paused_busy(self):
        """Nobody else is here: no worker is started in a pause."""
        self.task = self.pool.submit(self.spin, divmod(7, 2))
        self.running = [self.task]
        self.watch(self.task)
        self.spin.wait_started()
        self._pause()
        self._queue(3)

    def paused_full(self):
        self.pool.shutdown()
        self._make(2, max_queue=1)
        self.paused_idle()
        self._queue(1)  # one worker is woken for it: the other gets none of these either
        pool = self.pool
        self.blocked = [
            in_thread(pool.submit, *CALL),
            in_thread(lambda: asyncio.run(pool.run(*CALL))),
        ]
        until(lambda: len(self.engine.dispatch.waiting) == 2, "they wait for a place")

    def _warm_up(self, size):
        on_all(self.pool, count=size)
        self.warm = size
        until(lambda: len(self.engine.dispatch.idle) == size, "they sleep")

    def _pause(self):
        pressure = self.engine.relief._pressure
        pressure._eased_at = monotonic()  # to do it now would wake those who sleep

        def pauses():
            pressure.recycled(monotonic(), FLOOD, FLOOD, 1)  # it did not help
            self.process.others = FLOOD
            self.engine.relief.look()
            return self.engine.paused is not None

        until(pauses, "it pauses")

    def _queue(self, count):
        self.queued = [self.pool.submit(self._run, number) for number in range(count)]
        for task in self.queued:
            self.watch(task)

    def _run(self, number):
        self.ran[number] += 1
        return divmod(7, 2)

    def watch(self, task):
        task.add_done_callback(lambda task: self.told.update([task]))

    def books(self):
        """How tasks have ended, by the pool's own count."""
        stats = snapshot(self.engine)
        return Counter(
            {
                "done": stats.completed,
                CANCELLED: stats.cancelled,
                ABORTED: stats.aborted,
                CLOSED: stats.rejected,
            }
        )

    def relieve(self):
        """The process is small again."""
        self.process.others = BASE
        self.engine.relief.look()


def call_together(stage, verbs):
    """What comes of them. Then the pause is over, and so is the task that ran."""
    calls = list(zip(verbs, stage.call_together(verbs), strict=True))
    if not RESUMING & {*verbs}:
        _check_pause(stage, calls)
        stage.relieve()
    draining = set() if ABORTS & {*verbs} else {"close", "shutdown"}
    if stage.running and not {"shrink", *ABORTS} & {*verbs}:
        assert "TimeoutError" not in map(called, stage.queued)  # another worker takes them
        if draining >= {*verbs}:
            assert not any(call.is_over() for _, call in calls)
    for verb, call in calls:
        if verb not in draining:
            call.outcome()
    stage.spin.release()
    outcomes = [call.outcome() for _, call in calls]
    for verb, outcome in zip(verbs, outcomes, strict=True):
        if verb == "submit" and isinstance(outcome, Future):
            stage.accepted.append(outcome)
            stage.watch(outcome)
    return [called(outcome) for outcome in outcomes]


def _check_pause(stage, calls):
    """It goes on: nobody waits for its end, but who submits to a full queue."""
    blocked = stage.blocked.copy()
    for verb, call in calls:
        if verb != "submit":
            outcome = call.outcome()
            if not stage.running:  # a successor of who runs a task waits for that
                assert called(outcome) != "TimeoutError"
        elif stage.blocked:
            blocked.append(call)
        else:
            assert not call.outcome().done()
    until(lambda: not any(map(_is_to_go, stage.engine.roster.workers)), "they go")
    assert stage.pool.stats().paused
    assert not stage.ran
    assert all(task.cancelled() or not task.done() for task in stage.queued)
    place = "cancel_queued" in dict(calls)
    assert sum(call.is_over() for call in blocked) <= place


def _is_to_go(worker):
    return worker.state is State.RETIRING and worker.gate.task is None


CASES = [
    (verbs, state)
    for count in (1, 2)
    for state in STATES
    for verbs in combinations_with_replacement(VERBS, count)
    if state != "paused_full" or "drop" not in verbs  # who is blocked holds the pool
]


@pytest.mark.parametrize(
    ("verbs", "state"), CASES, ids=["+".join([*verbs, state]) for verbs, state in CASES]
)
def test_verbs_at_once(new_stage, verbs, state):
    stage = new_stage()
    getattr(stage, state)()
    outcomes = call_together(stage, verbs)
    for verb, outcome, other in zip(verbs, outcomes, verbs[::-1], strict=True):
        may_be = allowed(verb, other, state) if len(verbs) == 2 else alone(verb, state)
        assert outcome in may_be, (verb, other, outcome)
    _check_end(stage, verbs, outcomes)


def _check_end(stage, verbs, outcomes):
    """Everything is settled as it should be, and counted, and the pool is not paused."""
    blocked = [called(call.outcome()) for call in stage.blocked]
    _check_blocked(verbs, blocked)
    queued = [called(task) for task in stage.queued]
    _check_queued(stage, verbs, outcomes, queued)
    running = [called(task) for task in stage.running]
    assert {*running} <= ({"done"} if not {"cancel", *ABORTS} & {*verbs} else {ABORTED})
    for task in [*stage.queued, *stage.running, *stage.accepted]:
        until(lambda task=task: stage.told[task], "it is told")
        assert stage.told[task] == 1
    ended = Counter([*queued, *blocked, *running, *map(called, stage.accepted)])
    ended["done"] += stage.warm
    ended[CLOSED] += sum(
        (verb, outcome) == ("submit", CLOSED) for verb, outcome in zip(verbs, outcomes, strict=True)
    )
    until(lambda: stage.books() == ended, f"{stage.books()} is {ended}")
    _check_pool(stage, verbs)


def _check_blocked(verbs, told):
    if not ENDS & {*verbs}:
        assert {*told} <= {"done"}
    elif not {"cancel_queued", "relieve"} & {*verbs}:  # which make places, if they are faster
        assert {*told} <= {CLOSED}
    elif ABORTS & {*verbs}:
        assert {*told} <= {"done", CLOSED, CANCELLED, ABORTED}
    else:
        assert {*told} <= {"done", CLOSED}


def _check_queued(stage, verbs, outcomes, queued):
    cancelled = ("cancel_queued", "yes") in zip(verbs, outcomes, strict=True)
    if not ABORTS & {*verbs}:
        assert {*queued[:1]} <= ({CANCELLED, ABORTED} if cancelled else {"done"})
        assert {*queued[1:]} <= {"done"}
    assert {*queued} <= {"done", CANCELLED, ABORTED}
    for number, word in enumerate(queued):
        assert stage.ran[number] in {"done": {1}, CANCELLED: {0}, ABORTED: {0, 1}}[word]


def _check_pool(stage, verbs):
    pool, engine = stage.pool, stage.engine
    if pool is None:
        until(lambda: gc.collect() is not None and stage.watched() is None, "it is dropped")
    if pool is None or SHUTDOWNS & {*verbs}:
        until(lambda: engine.roster.state is PoolState.SHUTDOWN, "it is shut down")
    else:
        pool.close(WAIT)
        assert pool.stats().state is PoolState.OPEN
        assert [pool.submit(abs, -n).result(WAIT) for n in range(3)] == [0, 1, 2]
        assert pool.wait_idle(WAIT)
    assert engine.paused is None
    assert not engine.dispatch.queue


def test_a_pool_with_nothing_to_do_is_idle_in_a_pause(new_stage):
    stage = new_stage()
    stage.paused_busy()
    for task in stage.queued:
        assert stage.pool.cancel(task)
    stage.engine.cancel_queued()  # and none is left in the queue
    stage.spin.release()
    assert stage.task.result(WAIT) == (3, 1)
    assert stage.pool.wait_idle(0.1)
