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
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Orders"]

DEBUG = "RECYCLEPOOL_DEBUG"

logger = logging.getLogger("recyclepool")


class Orders:
    """Orders to one engine. Any thread, at any bytecode."""

    def __init__(self, reconcile: Callable[[], None], outside: Callable[[], None]) -> None:
        self.debug = bool(os.environ.get(DEBUG))
        self._reconcile = reconcile  # after each order, with the lock held
        self._outside = outside  # when the lock is free again: foreign code belongs there
        self._orders: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()

    def give(self, verb: Callable[..., None], *args: Any) -> None:
        """Have verb(*args) carried out, by this thread or by the one that is at it."""
        try:
            self._orders.append((verb, args))
        finally:
            self._carry_out()

    def _carry_out(self) -> None:
        try:
            while self._orders:
                held: list[bool] = []
                try:
                    held.extend(map(self._lock.acquire, (False,)))  # ORDERS 4
                    if not held[0]:
                        return
                    self._do_orders()
                finally:
                    if True in held:
                        self._lock.release()
            self._outside()
        except BaseException:
            if self._orders:
                self._carry_out()  # ORDERS 3
            raise

    def _do_orders(self) -> None:
        orders = self._orders
        while orders:
            verb, args = orders[0]
            try:
                verb(*args)
                self._reconcile()
            except Exception:
                # A mistake of ours, and not of whoever carries it out. It would fail for ever.
                orders.popleft()
                if self.debug:
                    raise
                logger.critical("recyclepool could not carry out %s", verb, exc_info=True)
            else:
                orders.popleft()
