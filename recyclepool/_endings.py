"""How an epoch ends: close, destroy, shutdown.

``Dispatch.ended`` is settled when no worker of the epoch is left and nothing is queued, and the
next epoch is in place. All who end an epoch together wait for that one future; whose deadline
comes first, aborts.
"""

from typing import TYPE_CHECKING

from recyclepool._dispatch import Dispatch
from recyclepool._engine import Engine
from recyclepool._gate import guarded
from recyclepool._stacks import text_of
from recyclepool._worker import Tally
from recyclepool.states import PoolState

if TYPE_CHECKING:
    from recyclepool.snapshots import AbandonedWorker, CloseReport

__all__ = ["abort", "await_shutdown", "close", "destroy", "shut_down"]

FIRST_PAUSE = 0.01  # seconds after which a task that swallowed its abort gets another; doubles
LEAST_GRACE = 0.05  # seconds that a worker without a task may take to go
ESCALATION = 0.5  # seconds that close(timeout) takes at most to stop what is left at its deadline


def close(engine: Engine, timeout: float | None) -> "CloseReport":
    """See RecyclePool.close."""
    from recyclepool.snapshots import CloseReport

    if engine.roster.state is PoolState.SHUTDOWN:
        return CloseReport()
    began, before, dispatch = engine.settings.clock(), engine.books.total(), engine.dispatch
    engine.end(dispatch)
    timed_out = not guarded(dispatch.ended.wait, timeout)
    if timed_out:
        abort(engine, dispatch, ESCALATION)
    return _report(engine, began, before, dispatch, timed_out)


def destroy(engine: Engine, grace: float) -> "CloseReport":
    """See RecyclePool.destroy."""
    from recyclepool.snapshots import CloseReport

    if engine.roster.state is PoolState.SHUTDOWN:
        return CloseReport()
    began, before, dispatch = engine.settings.clock(), engine.books.total(), engine.dispatch
    abort(engine, dispatch, grace)
    return _report(engine, began, before, dispatch, timed_out=False)


def shut_down(engine: Engine, *, wait: bool, cancel_queued: bool) -> None:
    """See RecyclePool.shutdown."""
    if cancel_queued and engine.paused is not None:
        engine.cancel_queued()  # the end resumes dispatch
    engine.end(engine.dispatch, terminal=True)
    if cancel_queued:
        engine.cancel_queued()
    if wait:
        await_shutdown(engine)


def await_shutdown(engine: Engine) -> None:
    """Wait until the pool has ended for good.

    A close under way may end its epoch first: then it is the next one that ends for good.
    """
    while engine.roster.state is not PoolState.SHUTDOWN:
        guarded(engine.dispatch.ended.wait, None)


def abort(engine: Engine, dispatch: Dispatch, grace: float) -> None:
    """End the epoch within `grace` seconds, and give up who has not ended by then."""
    clock, pause = engine.settings.clock, FIRST_PAUSE
    deadline = clock() + max(grace, LEAST_GRACE)
    while True:
        engine.abort(dispatch)
        left = deadline - clock()
        over = guarded(dispatch.ended.wait, max(0.0, min(pause, left)))
        if over or left <= 0.0:
            break
        pause *= 2
    if not over:
        _give_up(engine, dispatch)
    engine.teller.join(max(0.0, deadline - clock()))


def _give_up(engine: Engine, dispatch: Dispatch) -> None:
    for worker in engine.roster.workers.copy():
        if worker.dispatch is dispatch:
            engine.abandon(worker)
    guarded(dispatch.ended.wait, ESCALATION)


def _abandoned(dispatch: Dispatch) -> "tuple[AbandonedWorker, ...]":
    """Who was given up in this epoch, for whatever reason, and where it is stuck."""
    from recyclepool.snapshots import AbandonedWorker

    return tuple(
        AbandonedWorker(worker.slot, worker.generation, task_name, text_of(stack))
        for worker in dispatch.given_up
        for task_name, stack in [worker.given_up]
    )


def _report(
    engine: Engine,
    began: float,
    before: Tally,
    dispatch: Dispatch,
    timed_out: bool,
) -> "CloseReport":
    from recyclepool.snapshots import CloseReport

    after = engine.books.total()
    return CloseReport(
        completed=after.completed + after.failed - before.completed - before.failed,
        cancelled=after.cancelled - before.cancelled,
        aborted=_stopped(after) - _stopped(before),
        abandoned=_abandoned(dispatch),
        timed_out=timed_out,
        seconds=engine.settings.clock() - began,
    )


def _stopped(tally: Tally) -> int:
    return tally.aborted + tally.timed_out + tally.lost
