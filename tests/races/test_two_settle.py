"""A deadline settles a future while its result comes.

1. The worker is in settle(): it has read that the future runs, and has not yet stored its result.
2. The deadline settles the future too. It comes to the lock, and has to wait there.
3. The worker stores the result. The deadline reads the state again, and has lost.
4. One of them won; the result is the winner's; the callbacks run once.
"""

import threading

from forcing import Elsewhere, Spied, noop, once, wait

from recyclepool._future import Future


class SlowlyRead(Future):
    """Its state can be seen while it is read."""

    __slots__ = ("after_read",)

    @property
    def _state(self):
        state = Future._state.__get__(self)
        self.after_read()
        return state

    @_state.setter
    def _state(self, state):
        Future._state.__set__(self, state)


def test_one_of_two_wins():
    future, calls, arrived, deadline = SlowlyRead.__new__(SlowlyRead), [], threading.Event(), []
    future.after_read = noop
    future.__init__()
    future.begin()
    future.add_done_callback(calls.append)
    future._lock = lock = Spied(future._lock)

    def settle():
        lock.before_acquire = arrived.set
        try:
            return future.settle(None, TimeoutError())
        finally:
            arrived.set()

    def come():
        deadline.append(Elsewhere(settle))
        wait(arrived)

    future.after_read = once(come)
    won = [future.settle(42, None), deadline[0].result()]
    assert sorted(won) == [False, True]
    if won[0]:
        assert future.result() == 42
    else:
        assert isinstance(future.exception(), TimeoutError)
