"""Runs the callbacks of futures that no driver settled, on short-lived threads of their own.

Who settles such a future may be a driver, a submitter, the collector or a signal handler, and
carries out somebody else's order: a callback that hangs must harm none of them.
"""

import _thread
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from recyclepool._future import Future
from recyclepool._gate import here

__all__ = ["Teller", "daemons_allowed"]

# Where they are not (some sub-interpreters), a stuck worker holds up the end.
daemons_allowed: Callable[[], bool] = getattr(_thread, "daemon_threads_allowed", lambda: True)


class Teller:
    """What a pool has to tell. Any thread may add; each callback is run once."""

    def __init__(self, name: str, crew: object) -> None:
        self._name = name
        self._crew = crew  # whose callbacks these are: they cannot wait for its end
        self._futures: deque[Future[Any]] = deque()
        self._threads: list[threading.Thread] = []

    def add(self, future: Future[Any]) -> None:
        """It was settled, by the caller."""
        if future._done_callbacks:
            self._futures.append(future)

    def tell(self) -> None:
        """Have the callbacks run of what was added. Never waits for one."""
        if not self._futures:
            return
        name = f"{self._name}_callbacks"
        thread = threading.Thread(target=self._run, name=name, daemon=daemons_allowed())
        try:
            self._threads.append(thread)
            thread.start()
        except RuntimeError:  # no thread is to be had
            self._threads.remove(thread)
            self._run()
        except BaseException:  # an interrupt: the next call tells
            if thread.ident is None and thread in self._threads:
                self._threads.remove(thread)
            raise

    def join(self, timeout: float) -> None:
        """Wait until what was told is done, or for `timeout` seconds."""
        deadline = monotonic() + timeout
        for thread in self._threads.copy():
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))

    def _run(self) -> None:
        outer, here.crew = here.crew, self._crew
        try:
            while True:
                self._futures.popleft()._invoke_callbacks()  # type: ignore[attr-defined]
        except IndexError:
            pass
        finally:
            here.crew = outer
            thread = threading.current_thread()
            if thread in self._threads:
                self._threads.remove(thread)
