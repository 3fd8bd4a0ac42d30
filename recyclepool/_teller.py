"""Runs the callbacks of futures that no driver settled, on short-lived threads of their own.

Who settles such a future may be a driver, a submitter, the collector or a signal handler, and
carries out somebody else's order: a callback that hangs must harm none of them.
"""

import sys
import threading
from collections import deque
from concurrent.futures._base import LOGGER
from time import monotonic
from typing import Any

from recyclepool._future import Future
from recyclepool._gate import guarded, here
from recyclepool._orders import daemons_allowed

__all__ = ["Teller"]


class Teller:
    """What a pool has to tell. Any thread may add; each callback is run once."""

    def __init__(self, name: str, crew: object) -> None:
        self._name = name
        self._crew = crew  # whose callbacks these are: they cannot wait for its end
        self._futures: deque[Future[Any]] = deque()
        self._telling: list[Future[None]] = []  # one for each thread, until it is done

    def add(self, future: Future[Any]) -> None:
        """It was settled, by the caller."""
        if future._done_callbacks:
            self._futures.append(future)

    def tell(self) -> None:
        """Have the callbacks run of what was added. Never waits for one."""
        if not self._futures:
            return
        told: Future[None] = Future()
        thread = threading.Thread(
            target=self._run, args=(told,), name=f"{self._name}_callbacks", daemon=daemons_allowed()
        )
        try:
            self._telling.append(told)
            if sys.is_finalizing():
                raise RuntimeError  # 3.11 does not say so, and waits for ever
            thread.start()
        except RuntimeError:  # no thread is to be had
            self._run(told)
        except BaseException:  # an interrupt: if it did not start, the next call tells
            if thread.ident is None:
                self._end(told)
            raise

    def join(self, timeout: float) -> None:
        """Wait for what is being told, `timeout` seconds at most. A callback does not wait."""
        deadline = monotonic() + timeout
        if here.crew is not self._crew:
            for told in self._telling.copy():
                guarded(told.wait, max(0.0, deadline - monotonic()))

    def _run(self, told: Future[None]) -> None:
        outer, here.crew = here.crew, self._crew
        try:
            while self._futures:
                self._tell_next()
        finally:
            here.crew = outer
            self._end(told)

    def _tell_next(self) -> None:
        try:
            future = self._futures.popleft()
        except IndexError:
            return  # another thread told it
        try:
            future.tell()
        except BaseException:
            LOGGER.exception("exception calling callback for %r", future)

    def _end(self, told: Future[None]) -> None:
        told.settle(None, None)
        try:
            self._telling.remove(told)
        except ValueError:
            pass  # done already, by a start that was broken off and went on all the same
