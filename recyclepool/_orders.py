"""ORDERS: how many threads share one piece of bookkeeping, and none ever waits for it.

Garbage collection, a signal or an interrupt can bring foreign code in at any bytecode, and that
code may submit, close or drop a pool. So the lock is only ever *tried*: who wants something appends
an order to a deque, then tries the lock; the holder carries orders out and, AFTER it released the
lock, looks at the deque again.

1. No order is lost: it is appended before the lock is tried. Either the try succeeds, or the
   holder's look, which comes after its release, sees the order.
2. Nobody waits for the lock, and nobody can take it twice: it is a plain lock, and for a handler
   that interrupts the holder the try just fails. Who needs an answer waits for a future.
3. An order stays at the front of the deque until it is done. One that an interrupt broke off is
   done again, by the broken-off call itself on its way out or by the next one; to do one twice is
   harmless.
4. The lock is taken and noted in one C call, and released by the first call of the ``finally``:
   no interrupt, and no number of them, leaves it held.
5. Nobody is kept busy with the orders of others for long: after some of them the rest is left to a
   thread that is started for it.
"""

import _thread
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from recyclepool._gate import guarded, here

__all__ = ["Orders", "daemons_allowed"]

DEBUG = "RECYCLEPOOL_DEBUG"
MOST = 50  # orders that are carried out in one go

# Where they are not (some sub-interpreters), a stuck worker holds up the end.
daemons_allowed: Callable[[], bool] = getattr(_thread, "daemon_threads_allowed", lambda: True)

_Order = tuple[Callable[..., None], tuple[Any, ...]]

logger = logging.getLogger("recyclepool")


class Orders:
    """Orders to one engine. Any thread, at any bytecode."""

    def __init__(
        self,
        reconcile: Callable[[bool], None],
        outside: Callable[[], None],
        new_thread: Callable[..., threading.Thread] = threading.Thread,
        name: str = "orders",
    ) -> None:
        self.debug = bool(os.environ.get(DEBUG))
        # After each order, with the lock held. "Is it the last for now?": what follows from many
        # orders as well as from one is done after the last.
        self._reconcile = reconcile
        self._outside = outside  # when the lock is free again: foreign code belongs there
        self._new_thread = new_thread
        self._relief = 0  # the thread that was started last to go on
        self._name = name
        self._orders: deque[_Order] = deque()
        self._lock = threading.Lock()

    def give(self, verb: Callable[..., None], *args: Any) -> None:
        """Have verb(*args) carried out, by this thread or by the one that is at it.

        In a task no abort surfaces meanwhile (GATE 4): also not in what the standard library does
        to start a thread, whose own lock would stay held for ever.
        """
        guarded(self._carry_out, (verb, args))

    def leave(self, verb: Callable[..., None], *args: Any) -> None:
        """Have verb(*args) carried out by another thread, which is called after this."""
        self._orders.append((verb, args))

    def _carry_out(self, order: _Order | None = None) -> None:
        try:
            if order is not None:
                self._orders.append(order)
            while self._orders:
                held: list[bool] = []
                here.inside += 1
                try:
                    held.extend(map(self._lock.acquire, (False,)))  # ORDERS 4
                    if not held[0]:
                        return
                    self._do_orders()
                finally:
                    here.inside -= 1
                    if True in held:
                        self._lock.release()
                if self._orders and self._hand_over():
                    break
            self._outside()
        except BaseException:
            if self._orders:
                self._carry_out()  # ORDERS 3
            raise

    def _hand_over(self) -> bool:
        """Have another thread go on (ORDERS 5). False: there is none to be had, or it is that."""
        if _thread.get_ident() == self._relief:
            return False
        try:
            self._new_thread(
                target=self._relieve, name=self._name, daemon=daemons_allowed()
            ).start()
        except RuntimeError:
            return False
        return True

    def _relieve(self) -> None:
        self._relief = _thread.get_ident()
        try:
            self._carry_out()
        finally:
            self._relief = 0

    def _do_orders(self) -> None:
        orders, left = self._orders, MOST
        while orders and left:
            left -= 1
            verb, args = orders[0]
            try:
                verb(*args)
                self._reconcile(len(orders) == 1 or not left)
            except Exception:
                # A mistake of ours, and not of whoever carries it out. It would fail for ever.
                orders.popleft()
                if self.debug:
                    raise
                logger.critical("recyclepool could not carry out %s", verb, exc_info=True)
            else:
                orders.popleft()
