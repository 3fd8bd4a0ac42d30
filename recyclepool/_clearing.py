"""What becomes of queued tasks that nobody will run. With the engine's lock held."""

from collections.abc import Iterator
from typing import Any, TypeVar

from recyclepool._dispatch import Dispatch
from recyclepool._future import Future
from recyclepool._teller import Teller
from recyclepool._worker import Tally

__all__ = ["cancel_queue", "fail_queue", "like"]

E = TypeVar("E", bound=BaseException)


def cancel_queue(dispatch: Dispatch, tally: Tally, teller: Teller) -> None:
    """They are cancelled."""
    for task in _queued(dispatch):
        if task.withdraw():
            teller.add(task)
        task.begin()  # tells wait() and as_completed()
        if dispatch.take_back(task):
            tally.cancelled += 1


def fail_queue(dispatch: Dispatch, error: BaseException, tally: Tally, teller: Teller) -> None:
    """They fail, each with an exception object of its own."""
    for task in _queued(dispatch):
        # Begun by us, no worker begins it; one that was faster runs it, and it does not fail. Begun
        # and still in the queue: an interrupt broke us off.
        if task.begin() or (task.running() and dispatch.take_back(task)):
            task.settle(None, like(error))
            task.drop_call()
            tally.failed += 1
            teller.add(task)
            dispatch.take_back(task)
        elif dispatch.take_back(task):
            tally.cancelled += 1


def _queued(dispatch: Dispatch) -> Iterator[Future[Any]]:
    """The first in the queue, again and again until there is none: who asks takes it out.

    It is settled first and taken out then, so an interrupt between loses nothing; a worker that
    takes it meanwhile finds it settled.
    """
    queue = dispatch.queue
    while queue:
        try:
            task = queue[0]
        except IndexError:
            return
        yield task


def like(error: E) -> E:
    """The same exception as an object of its own."""
    own = type(error)(*error.args)
    own.__cause__ = error.__cause__
    return own
