"""What the scenarios are staged with: tasks that last as long as the test wants, and waiting."""

import threading
import time
from collections.abc import Callable
from typing import Any

from recyclepool import Reason, RecyclePool

WAIT = 20.0  # seconds after which something that was to happen never will


class Hold:
    """A task that stays where it is until the test lets go. No abort gets through to it."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, value: Any = None) -> Any:
        self.started.release()
        assert self.go.wait(WAIT), "nobody let go"
        return value

    def wait_started(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.started.acquire(timeout=WAIT), "it did not start"

    def release(self) -> None:
        self.go.set()


class Spin(Hold):
    """The same, but an abort gets through: it is never long in one C call."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False

    def __call__(self, value: Any = None) -> Any:
        self.started.release()
        deadline = time.monotonic() + WAIT
        while not self.over:
            assert time.monotonic() < deadline, "nobody let go"
            time.sleep(0.001)  # its work
        return value

    def release(self) -> None:
        self.over = True


def until(happened: Callable[[], Any], what: str = "") -> None:
    """Wait for what has no event of its own."""
    deadline = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < deadline, f"never happened: {what or happened}"
        time.sleep(0.001)


def in_thread(action: Callable[..., Any], *args: Any) -> "Call":
    """Call it in a thread of its own."""
    return Call(action, *args)


class Call:
    """A call in a thread of its own; `result()` is what came of it."""

    def __init__(self, action: Callable[..., Any], *args: Any) -> None:
        self._action, self._args = action, args
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="caller")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._action(*self._args)
        except BaseException as error:
            self._error = error

    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def outcome(self) -> Any:
        """The value or the error."""
        self._thread.join(WAIT)
        assert self.is_over(), f"{self._action} does not return"
        return self._value if self._error is None else self._error

    def result(self) -> Any:
        outcome = self.outcome()
        if self._error is not None:
            raise self._error
        return outcome


def abort(pool: RecyclePool, future: Any, error: Exception) -> bool:
    """What a deadline does to a running task: its future is settled now, its worker goes.

    True if this was the settlement.
    """
    engine = pool._engine
    worker = next((w for w in engine.roster.workers if w.gate.task is future), None)
    if worker is None:
        return False
    backend = worker.backend
    engine.retire(worker, Reason.CLOSE)
    settled = future.settle(None, error)
    if settled:
        future._invoke_callbacks()
    backend.interrupt(future)
    return bool(settled)
