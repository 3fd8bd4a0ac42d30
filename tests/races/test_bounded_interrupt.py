"""A KeyboardInterrupt comes to a submitter that waits for a place, and to one that gives a place.

1. The main thread waits for a place, or it cancels a queued task; another submitter waits too.
2. The interrupt comes: while it sleeps; as it wakes for a place that it has not taken yet; or at
   each place in the pool's code, in turn.
3. A wake-up that it was given and did not use goes on to the next (BOUNDED 4). It leaves no sleeper
   of its own. At rest nobody waits beside a free place.
"""

import signal
import threading

import pytest
from bounding import Full, submitting
from forcing import Elsewhere, Interrupt, interrupted_everywhere

from recyclepool import _bounded
from recyclepool._bounded import BoundedDispatch
from recyclepool._future import OptionedFuture

main = threading.main_thread()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of POSIX")
def test_as_it_sleeps(new_pool):
    """By a real signal, in the C call in which it sleeps."""
    full = Full(new_pool(1, max_queue=1))
    interrupted = threading.Event()

    def raise_once(*_):
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def interrupt():
        full.waits()
        # A signal between CPython's last look and the sleep itself wakes nobody: so, again.
        while not interrupted.wait(0.01):
            signal.pthread_kill(main.ident, signal.SIGUSR1)

    outer = signal.signal(signal.SIGUSR1, raise_once)
    try:
        interrupting = Elsewhere(interrupt)
        with pytest.raises(KeyboardInterrupt):
            full.pool.submit(int)
        interrupting.result()
    finally:
        signal.signal(signal.SIGUSR1, outer)
    assert not full.dispatch.waiting
    waiting = submitting(full.pool)
    full.waits()
    full.free()
    assert not waiting.result().done()
    full.end()


def test_as_it_wakes(new_pool, monkeypatch):
    """It was taken out of those who wait: the next one has the place."""
    full = Full(new_pool(1, max_queue=1))
    sleep, following = _bounded.sleep_until, []

    def sleep_until(*args):
        sleep(*args)
        if threading.current_thread() is main:
            raise Interrupt

    def come():
        full.waits(1)
        following.append(submitting(full.pool))
        full.waits(2)
        full.free()

    monkeypatch.setattr(_bounded, "sleep_until", sleep_until)
    coming = Elsewhere(come)
    with pytest.raises(Interrupt):
        full.pool.submit(int)
    coming.result()
    assert not following[0].result().done()
    full.is_at_rest()
    full.end()


class Keeper:
    """As much of an engine as a bounded queue needs."""

    def __init__(self):
        self.cancelled = 0

    def want_worker(self):
        pass

    look_at_pressure = want_worker

    def may_wait(self):
        return None

    def full(self, why):
        return AssertionError(why)

    def count_cancelled(self):
        self.cancelled += 1


def sleeper():
    lock = threading.Lock()
    lock.acquire()
    return lock


class Tardy(BoundedDispatch):
    """The place comes when the submitter has tried in vain, and is about to sleep."""

    def offer(self, task):
        accepted = super().offer(task)
        if accepted is None and self.waiting:
            self.queue.popleft().begin()
        return accepted


@pytest.mark.parametrize("scene", ["a place is free", "a place comes", "the pool closes"])
def test_it_ceases_to_wait_wherever_it_is(scene):
    """It leaves no sleeper of its own, which would take a wake-up and use it for nothing."""

    def stage():
        dispatch, task = Tardy(Keeper(), 1), OptionedFuture(int)
        if scene == "a place comes":
            dispatch.put(OptionedFuture(int))
        dispatch.closing = scene == "the pool closes"

        def check(where):
            assert not dispatch.waiting
            if not where:
                assert list(dispatch.queue) == ([] if dispatch.closing else [task])

        return lambda: dispatch._wait(task), check

    interrupted_everywhere(stage, at_least=5)


def test_it_cancels_and_gives_its_place_wherever_it_is():
    """Two wait for the place that comes: one of them is woken."""

    def stage():
        dispatch, task = BoundedDispatch(Keeper(), 1), OptionedFuture(int)
        dispatch.put(task)
        first, second = sleeper(), sleeper()
        dispatch.waiting.extend([first, second])

        def check(where):
            if dispatch.queue:
                assert where, "it is still queued"
                return
            assert task.cancelled()
            assert not first.locked(), "a place is free, and nobody is told"
            assert second.locked() is (second in dispatch.waiting)
            if not where:
                assert second.locked()
                assert dispatch._keeper.cancelled == 1

        return task.cancel, check

    interrupted_everywhere(stage, at_least=5)
