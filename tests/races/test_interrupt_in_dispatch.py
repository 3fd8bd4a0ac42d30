"""A KeyboardInterrupt comes between taking a worker out of the idle stack and waking it.

1. Two workers sleep. The main thread wakes one (for a task), wakes that one (to retire it) or wakes
   all.
2. In turn, at each place of that, a KeyboardInterrupt is raised.
3. A worker is in the stack and sleeps, or it is not and was woken: none is lost. (To take out and
   to wake is one C call, so there is no place between them.)
"""

import threading

import pytest
from forcing import interrupted_everywhere

from recyclepool._dispatch import Dispatch


class Sleeper:
    """As much of a worker as dispatch sees."""

    def __init__(self):
        self.wake = threading.Lock()
        self.wake.acquire()


@pytest.mark.parametrize("verb", ["wake_one", "look", "rouse", "rouse_all", "put"])
def test_a_worker_is_asleep_or_awake(verb):
    def stage():
        dispatch = Dispatch(lambda: None)
        sleepers = [Sleeper(), Sleeper()]
        dispatch.idle.extend(sleeper.wake for sleeper in sleepers)

        def action():
            if verb == "rouse":
                dispatch.rouse(sleepers[0])
            elif verb == "put":
                dispatch.put(sleepers[0])
            else:
                getattr(dispatch, verb)()

        def check(where):
            for sleeper in sleepers:
                assert (sleeper.wake in dispatch.idle) is sleeper.wake.locked(), where
            if not where:
                assert len(dispatch.idle) == (0 if verb == "rouse_all" else 1)
            if verb == "put":
                assert not dispatch.queue or len(dispatch.idle) == 1, "a task without a taker"

        return action, check

    interrupted_everywhere(stage, at_least=0 if verb == "wake_one" else 1)
