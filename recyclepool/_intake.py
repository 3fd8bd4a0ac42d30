"""The ways in for tasks, beside submit() itself: with options, many at once, and awaited."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from recyclepool._arguments import buffersize_of, function_of, iterables_of, seconds_of
from recyclepool._bounded import BoundedDispatch
from recyclepool._engine import Engine
from recyclepool._future import Future
from recyclepool._gate import Flag, guarded
from recyclepool.errors import WorkerStartError
from recyclepool.states import PoolState

if TYPE_CHECKING:
    import asyncio
    from concurrent import futures

__all__ = ["accept", "await_result", "await_shutdown", "in_order", "unordered"]

T = TypeVar("T")


def accept(engine: Engine, task: Future[T], key: int | None = None) -> Future[T]:
    """As in submit(), which has no time to call this. With the gate held."""
    dispatch = engine.dispatch
    try:
        if key is not None and engine.hand(dispatch, task, key):
            return task
        if not dispatch.put(task):
            raise engine.reject()
    except WorkerStartError:
        if dispatch.take_back(task) or isinstance(task._exception, WorkerStartError):
            raise
    return task


# -- many at once ---------------------------------------------------------------------------------


def in_order(
    submit: Callable[..., "futures.Future[T]"],
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    buffersize: int | None,
) -> Iterator[T]:
    """See RecyclePool.map."""
    buffersize, timeout = buffersize_of(buffersize), seconds_of("timeout", timeout)
    calls = _calls("map", fn, iterables)
    deadline = None if timeout is None else monotonic() + timeout
    tasks: deque[futures.Future[T]] = deque()

    def send(count: int | None) -> None:
        for args in islice(calls, count):
            tasks.append(submit(fn, *args))

    _or_cancel(tasks, send, buffersize)
    return _in_order(tasks, None if buffersize is None else send, deadline)


def _in_order(
    tasks: "deque[futures.Future[T]]", send: Callable[[int], None] | None, deadline: float | None
) -> Iterator[T]:
    """It knows the pool (by `send`) only as long as it needs it: one that is dropped ends."""
    try:
        while tasks:
            if send is not None:
                send(1)
            yield _result(tasks.popleft(), deadline)
    finally:
        _cancel(tasks)


def unordered(
    submit: Callable[..., "futures.Future[T]"],
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    buffersize: int | None,
) -> Iterator[T]:
    """See RecyclePool.map_unordered."""
    buffersize = buffersize_of(buffersize)
    calls = _calls("map_unordered", fn, iterables)
    pending: set[futures.Future[T]] = set()
    arrived: deque[futures.Future[T]] = deque()
    some_arrived = Flag()

    def arrive(task: "futures.Future[T]") -> None:
        arrived.append(task)
        some_arrived.set()

    def send(count: int | None) -> None:
        for args in islice(calls, count):
            task = submit(fn, *args)
            pending.add(task)
            task.add_done_callback(arrive)

    _or_cancel(pending, send, buffersize)
    return _as_they_come(pending, arrived, some_arrived, None if buffersize is None else send)


def _as_they_come(
    pending: "set[futures.Future[T]]",
    arrived: "deque[futures.Future[T]]",
    some_arrived: Flag,
    send: Callable[[int], None] | None,
) -> Iterator[T]:
    def next_arrival() -> "futures.Future[T]":
        while not arrived:
            some_arrived.clear()
            if not arrived:  # cleared, THEN looked: who arrives later sets it
                some_arrived.wait()
        task = arrived.popleft()
        pending.remove(task)
        if send is not None:
            send(1)
        return task

    try:
        while pending:
            yield _result(next_arrival(), None)
    finally:
        _cancel(pending)


def _calls(
    verb: str, fn: Callable[..., Any], iterables: tuple[Iterable[Any], ...]
) -> Iterator[tuple[Any, ...]]:
    """The arguments of one call after the other."""
    return zip(*iterables_of(verb, function_of(verb, fn), iterables))  # noqa: B905  # as map()


def _result(task: "futures.Future[T]", deadline: float | None) -> T:
    """Keeps neither the task nor its result: to the caller they may be large."""
    try:
        return task.result(None if deadline is None else deadline - monotonic())
    finally:
        task.cancel()
        del task


def _or_cancel(
    tasks: "Iterable[futures.Future[T]]", send: Callable[[int | None], None], count: int | None
) -> None:
    """Nobody would have the results of those that were sent before one could not be."""
    try:
        send(count)
    except BaseException:
        _cancel(tasks)
        raise


def _cancel(tasks: "Iterable[futures.Future[Any]]") -> None:
    for task in tasks:
        task.cancel()


# -- awaited --------------------------------------------------------------------------------------


async def await_result(engine: Engine, task: Future[T], key: int | None = None) -> T:
    """See RecyclePool.run."""
    import asyncio

    loop = asyncio.get_running_loop()  # first: what is refused is not run
    dispatch = engine.dispatch
    if not isinstance(dispatch, BoundedDispatch):
        guarded(accept, engine, task, key)
    elif key is None or not guarded(engine.hand, dispatch, task, key):
        accepted = guarded(dispatch.offer, task)
        if accepted is None:
            why = engine.may_wait(awaits=True)
            if why is not None:
                raise engine.full(why)
            accepted = await _wait_for_place(loop, dispatch, task)
        if not accepted:
            raise guarded(engine.reject)
    try:
        return await asyncio.wrap_future(task)
    finally:
        del task  # or the traceback of its exception would keep that


async def await_shutdown(engine: Engine) -> None:
    """As shut_down(), for a coroutine."""
    import asyncio

    engine.end(engine.dispatch, terminal=True)
    while engine.roster.state is not PoolState.SHUTDOWN:
        # Who cancels the await does not cancel the end.
        await asyncio.shield(asyncio.wrap_future(engine.dispatch.ended))


async def _wait_for_place(
    loop: "asyncio.AbstractEventLoop", dispatch: BoundedDispatch, task: Future[Any]
) -> bool:
    sleeper = _Sleeper(loop, dispatch, task)
    try:
        guarded(dispatch.line_up, sleeper)
        return await sleeper.accepted
    except BaseException:
        if not dispatch.step_out(sleeper):
            task.cancel()  # it has a place, or is just given one: nobody wants it any more
        raise


class _Sleeper:
    """A coroutine that waits for a place (BOUNDED 6)."""

    def __init__(
        self, loop: "asyncio.AbstractEventLoop", dispatch: BoundedDispatch, task: Future[Any]
    ) -> None:
        self.accepted: asyncio.Future[bool] = loop.create_future()
        self._loop = loop
        self._dispatch = dispatch
        self._task = task

    def release(self) -> None:
        """Have its task take the place, then tell it. RuntimeError: its loop is closed."""
        if self._loop.is_closed():
            raise RuntimeError
        try:
            accepted, error = self._dispatch.offer(self._task), None
        except Exception as raised:  # no worker can be started
            accepted, error = False, raised
            self._dispatch.take_back(self._task)
        if accepted is None:
            self._dispatch.waiting.append(self)
            return
        if self._task.cancelled():
            self._dispatch.drop(self._task)
        try:
            self._loop.call_soon_threadsafe(self._tell, accepted, error)
        except BaseException:
            self._task.cancel()  # the loop was closed just now
            raise

    def _tell(self, accepted: bool, error: Exception | None) -> None:
        if self.accepted.done():
            return  # cancelled
        if error is None:
            self.accepted.set_result(accepted)
        else:
            self.accepted.set_exception(error)
