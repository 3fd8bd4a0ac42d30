"""The seam between a driver and what carries its tasks.

A backend is a few verbs, called by the driver in its own thread, but for ``interrupt`` and
``kill``. The unit of the seam is the loop, not the task: a call, a tuple and a look for each task
would cost the thread backend 10 to 20 % of its throughput.
"""

from collections.abc import Callable
from contextvars import Context
from typing import Any, NamedTuple, Protocol

from recyclepool._worker import Worker
from recyclepool.backends.thread import Thread

__all__ = ["Backend", "BackendFactory", "Hooks", "Thread", "resolve"]


class Backend(Protocol):
    """The carrier of one worker's tasks."""

    def open(self) -> None:
        """Return when it is ready for tasks (initializer done), or raise what made that fail."""

    def serve(self) -> None:
        """Take tasks from the worker's dispatch, run and settle them, until the worker is to go.

        A worker that slept may have been handed one, which comes before all else (DISPATCH 9).
        """

    def interrupt(self, task: Any) -> bool:
        """Ask the running task to stop, from any thread, again and again. False: no, or late."""

    def kill(self) -> bool:
        """End it now, from any thread, again and again. False: it cannot be done (a thread)."""

    def close(self) -> None:
        """Teardown and finalizer, inside the worker, then release. May raise what they raised.

        Called once, also when open() raised: then there is no finalizer to run.
        """


class Hooks(NamedTuple):
    """What a pool has its workers do, beside tasks."""

    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    finalizer: Callable[[], object] | None
    isolated: bool  # a task sees its submitter's context variables, or none: nothing another left
    on_last_task: Callable[[Worker], None]  # called as the last task of a worker starts
    # Of a worker whose tasks run in its own thread, called in it with the worker and its context:
    # what looks at its memory. None: nobody wants to know.
    new_probe: Callable[[Worker, Context], Any] | None = None


class BackendFactory(Protocol):
    """Makes backends, and says what they can do: the pool checks its options against that."""

    @property
    def name(self) -> str:
        """The word for it in ``backend=``, in stats and in labels."""

    @property
    def shares_objects(self) -> bool:
        """Do its tasks see the caller's own objects?"""

    @property
    def can_kill(self) -> bool:
        """Can a task that does not want to stop be stopped?"""

    def __call__(self, worker: Worker, hooks: Hooks) -> Backend:
        """The backend of one worker."""


_BUILT_IN: dict[str, Callable[[], BackendFactory]] = {"thread": Thread}
_TO_COME = ("interpreter", "process", "ray")


def resolve(backend: "str | BackendFactory") -> "BackendFactory":
    """The factory for a name, built in or an entry point of ``recyclepool.backends``."""
    if not isinstance(backend, str):
        if isinstance(backend, type) or not callable(backend) or not hasattr(backend, "can_kill"):
            raise TypeError(
                f'backend={backend!r}: write a name, such as "thread", or backends.Thread()'
            )
        return backend
    if backend in _BUILT_IN:
        return _BUILT_IN[backend]()
    # Only here: to import these costs more than all of recyclepool.
    from difflib import get_close_matches
    from importlib.metadata import entry_points

    plugins = {point.name: point for point in entry_points(group="recyclepool.backends")}
    if backend in plugins:
        factory: BackendFactory = plugins[backend].load()()
        return factory
    known = [*_BUILT_IN, *plugins]
    close = get_close_matches(backend, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "known here: " + ", ".join(map(repr, known))
    state = "to come" if backend in _TO_COME else "not known"
    raise ValueError(f"backend={backend!r} is {state}: {hint}")
