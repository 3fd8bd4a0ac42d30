"""A signal handler touches the very future whose lock the interrupted code holds.

1. The main thread is in a method of the future, and holds its lock.
2. A signal handler runs there, on the same thread, and cancels that future, asks it, adds a
   callback.
3. It does not wait for the lock, as it is the holder: neither hangs.
"""

import signal

from forcing import Spied, elsewhere, once

from recyclepool._future import Future


def test_a_handler_in_the_middle_of_a_method():
    future, calls = Future(), []
    future._lock = lock = Spied(future._lock)
    seen = []

    def handler(*_):
        seen.extend([future.cancel(), future.cancelled(), "cancelled" in repr(future)])
        future.add_done_callback(calls.append)

    outer = signal.signal(signal.SIGUSR1, handler)
    try:
        lock.after_acquire = once(lambda: signal.raise_signal(signal.SIGUSR1))
        future.add_done_callback(calls.append)
    finally:
        signal.signal(signal.SIGUSR1, outer)
    assert seen == [True, True, True]
    assert calls == [future, future]


def test_the_standards_wait_calls_methods_of_futures_that_it_holds():
    def touch():
        future = Future()
        with future._condition:
            assert future.cancel()
            assert future.exception if future.done() else False
            return future.cancelled()

    assert elsewhere(touch)
