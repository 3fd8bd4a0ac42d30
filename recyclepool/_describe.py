"""A pool in words: its repr, and all that its workers do.

Imported with the package, and imports nothing late: a signal handler may ask for it in the middle
of anything, an import too.
"""

from collections.abc import Iterator

from recyclepool._engine import Engine
from recyclepool._future import name_of
from recyclepool._stacks import stack_of, text_of
from recyclepool._worker import Worker
from recyclepool.states import PoolState, State
from recyclepool.units import format_duration

__all__ = ["at_work", "describe", "everybody"]


def describe(engine: Engine) -> str:
    """What stands in the repr: state, workers, queue."""
    roster = engine.roster
    workers = roster.workers.copy()
    serving = [w for w in workers if w.state is State.SERVING]
    busy = sum(not w.resting for w in serving)
    parts = [
        f"{len(serving)}/{roster.size} workers ({len(serving) - busy} idle, {busy} busy)",
        f"{len(engine.dispatch.queue)} queued",
    ]
    for state in (State.STARTING, State.RETIRING):
        count = sum(w.state is state for w in workers)
        if count:
            parts.append(f"{count} {state}")
    if roster.abandoned:
        parts.append(f"{len(roster.abandoned)} abandoned")
    closing = roster.state is PoolState.CLOSING and roster.terminal
    return f"{'shutting down' if closing else roster.state}: " + ", ".join(parts)


def at_work(engine: Engine) -> str:
    """A line for each worker, and under it where its thread is."""
    return "\n".join(line for worker in everybody(engine) for line in _lines(worker, engine))


def everybody(engine: Engine) -> list[Worker]:
    """The workers that are here, those too that were given up, by slot and generation."""
    here = [*engine.roster.workers, *engine.roster.abandoned]
    return sorted(here, key=lambda w: (w.slot, w.generation))


def _lines(worker: Worker, engine: Engine) -> Iterator[str]:
    now, task = engine.settings.clock(), worker.gate.task
    what = f"  worker {worker.slot}.{worker.generation} {worker.state}"
    if worker.due is not None and worker.state is State.SERVING:
        what += f", due ({worker.due})"
    if task is not None:
        ran = format_duration(max(0.0, now - worker.task_started))
        what += f", for {ran} in task {name_of(task)!r}"
    elif worker.resting and worker.state is State.SERVING:
        yield what + f", idle for {format_duration(max(0.0, now - worker.idle_since))}"
        return
    yield what
    yield from (f"  {line}" for line in text_of(stack_of(worker.gate.thread_id)).splitlines())
