"""What a thread keeps in its `threading.local` objects, without running a line of theirs.

There is no API for that, so this leans on how CPython builds them (Modules/_threadmodule.c):

- A local maps each thread to a dict of its values. The local alone holds that map; the thread
  holds a *dummy* or a *sentinel*: as the thread ends, that dies, and a weakref's callback drops
  the values.
- 3.13 on: a thread has one dummy, the key of all its maps, and one sentinel; each local that the
  thread touched hangs a weakref on the sentinel.
- 3.11 and 3.12: the thread's state dict has one dummy for each local, and the map's key is the
  local's weakref on that dummy.

The callback of such a weakref knows its local by a weakref of its own: that is the way from the
thread to its locals. `supported` tries it once in each process; where it fails, as on
free-threaded builds and other interpreters, nothing is ever seen. Nor are the pure Python
locals of `_threading_local`.
"""

import gc
import operator
import sys
import weakref
from collections.abc import Iterable
from functools import partial
from threading import local  # bound now: gevent replaces it later
from types import BuiltinFunctionType
from typing import Any

from recyclepool._stacks import COLLECTS_ANYWHERE

__all__ = ["ThreadLocals", "supported"]

Values = dict[str, Any]

HAS_SENTINELS = sys.version_info >= (3, 13)
ATTEMPTS = 4  # to read what other threads change meanwhile


class ThreadLocals:
    """The way to the locals of one thread. Made and closed by that thread; any thread may read.

    On 3.11 and 3.12 it holds the thread's state dict: if it is not closed before its thread ends,
    the values outlive the thread until it is closed or dropped.
    """

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader: _Reader | None = _new_reader() if supported() else None

    def dicts(self, leave_out: Iterable[object] = ()) -> list[tuple[object, Values]]:
        """Each local that the thread touched, with the thread's dict of its values.

        Not those in `leave_out`. The dicts are the very ones that the locals use, to be looked at
        only. Keep the list no longer than the look takes: it holds the locals and the values. If
        the thread ends amid a look from another one, the values are finalized in that other one.
        Empty where locals cannot be seen, after close, and after the thread's end.
        """
        reader = self._reader  # another thread may close us meanwhile
        if reader is None:
            return []
        unwanted = set(map(id, leave_out))  # by identity: a local may define __eq__
        for _ in range(ATTEMPTS):
            try:
                return [pair for pair in reader.read() if id(pair[0]) not in unwanted]
            except RuntimeError:  # a dict changed its size amid the walk
                pass
        return []

    def close(self) -> None:
        """Let go of the thread. Again is fine."""
        self._reader = None


_supported: bool | None = None  # not tried yet


def supported() -> bool:
    """Can locals be seen here? Tried once, with two locals of the calling thread."""
    global _supported
    if _supported is None:
        _supported = _try_out()
    return _supported


class _Awkward(local):
    """A local that holds other dicts too: in a slot, and the arguments that made it."""

    __slots__ = ("slot",)

    def __init__(self, **named: object) -> None:
        self.slot: dict[str, object] = {"slot": named}


def _try_out() -> bool:
    if sys.implementation.name != "cpython" or "free-threading" in sys.version:
        return False
    try:
        plain, awkward, value = local(), _Awkward(named=1), object()
        plain.value = awkward.value = value
        pairs = _new_reader().read()
        found = {id(one): values for one, values in pairs if isinstance(values, dict)}
        return len(found) == len(pairs) and all(
            found.get(id(one)) is vars(one) and vars(one) == {"value": value}
            for one in (plain, awkward)
        )
    except Exception:
        return False


class _BySentinel:
    """3.13 on."""

    __slots__ = ("_key", "_sentinel")

    def __init__(self) -> None:
        probe = local()
        (self._key,) = _values_by_thread(probe)
        (watch,) = gc.get_referents(probe)[-1]
        # A weakref of our own: nothing that the probe owns outlives it.
        self._sentinel = weakref.ref(watch())

    def read(self) -> list[tuple[object, Values]]:
        sentinel = self._sentinel()
        if sentinel is None:
            return []  # the thread has ended
        pairs = []
        for watch in weakref.getweakrefs(sentinel):
            target = _bound_to(watch)
            if type(target) is not tuple:
                continue
            one = target[0]()
            values = _values_by_thread(one).get(self._key)
            if values is not None:
                pairs.append((one, values))
        return pairs


class _ByState:
    """3.11 and 3.12."""

    __slots__ = ("_kind", "_state")

    def __init__(self) -> None:
        import ctypes

        state = ctypes.pythonapi["PyThreadState_GetDict"]  # not the one that others may have set up
        # It lends the dict. With py_object as its type, ctypes would take that for ours and free
        # it while the thread still uses it.
        state.restype = ctypes.c_void_p
        self._state: dict[object, object] = ctypes.cast(state(), ctypes.py_object).value
        probe = local()
        (watch,) = _values_by_thread(probe)
        self._kind = type(watch())

    def read(self) -> list[tuple[object, Values]]:
        pairs = []
        for dummy in list(self._state.values()):
            if type(dummy) is not self._kind:
                continue  # anybody may keep something in this dict
            for watch in _weakrefs_on(dummy):
                target = _bound_to(watch)
                if type(target) is not weakref.ref:
                    continue
                one = target()
                values = _values_by_thread(one).get(watch)
                if values is not None:
                    pairs.append((one, values))
        return pairs


_Reader = _BySentinel | _ByState


def _new_reader() -> _Reader:
    return _BySentinel() if HAS_SENTINELS else _ByState()


def _weakrefs_on(dummy: object) -> list[Any]:
    """weakref.getweakrefs(). On 3.11, no collection may come amid it.

    There it counts, makes a list, then fills it: if the making collects a local that was counted,
    it crashes. Paused, done and resumed in one C call: no other look can resume meanwhile.
    """
    if not (COLLECTS_ANYWHERE and gc.isenabled()):
        return weakref.getweakrefs(dummy)
    steps: Any = (gc.disable, partial(weakref.getweakrefs, dummy), gc.enable)
    done = list(map(operator.call, steps))
    watches: list[Any] = done[1]
    return watches


def _bound_to(watch: Any) -> Any:
    """What the callback of a local's weakref is bound to; None if the weakref is not a local's."""
    callback = watch.__callback__
    return callback.__self__ if type(callback) is BuiltinFunctionType else None


def _values_by_thread(one: object) -> dict[Any, Any]:
    """The map of a local: of the dicts that it refers to, the last. None, a dead one, has none."""
    for held in reversed(gc.get_referents(one)):
        if type(held) is dict:
            return held
    return {}
