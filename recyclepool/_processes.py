"""What becomes of pools when their process exits, or forks."""

import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic

from recyclepool import _engine
from recyclepool._endings import abort, await_shutdown
from recyclepool._engine import Engine

__all__ = ["in_forked_child", "watch"]

IMPORTED_LATE = (
    "random",
    "traceback",
    "recyclepool._inject",
    "recyclepool._probe",
    "recyclepool._relief",
    "recyclepool._stats",
    "recyclepool._timetable",
    "recyclepool._watchdog",
    "recyclepool.events",
    "recyclepool.limits",
    "recyclepool.snapshots",
)
LAST_WORDS = 1.0  # seconds that subscribers may take at exit

_engines: "weakref.WeakValueDictionary[int, Engine]" = weakref.WeakValueDictionary()
_in_child: list[Callable[[], None]] = []
_watching = False


def watch(engine: Engine) -> None:
    """Have the engine's tasks finished before the interpreter exits, as the standard does.

    And make the engine's copy in the child of a fork a fresh one.
    """
    global _watching
    if not _watching and not _engine.exiting:
        _watching = True
        os.register_at_fork(before=_finish_imports, after_in_child=_after_fork)
        try:
            threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
        except RuntimeError:
            _engine.exiting = True
    _engines[id(engine)] = engine
    if _engine.exiting:
        engine.end(engine.dispatch, terminal=True)


def in_forked_child(action: Callable[[], None]) -> None:
    """Have it called there, before the engines are made anew. It must not wait for a lock."""
    _in_child.append(action)


def _all_engines() -> list[Engine]:
    """Other threads may make pools meanwhile: `valuerefs` copies in one C call."""
    return [engine for ref in _engines.valuerefs() if (engine := ref()) is not None]


def _at_exit() -> None:
    """Finish what was accepted. After an uncaught Ctrl-C: stop it, within its grace.

    Another Ctrl-C breaks this off, and the interpreter exits: its workers are daemons.
    """
    _engine.exiting = True
    engines = _all_engines()
    for engine in engines:
        engine.end(engine.dispatch, terminal=True)
    if _was_interrupted():
        for engine in engines:
            engine.abort(engine.dispatch)  # all of them, before the first is waited for
        for engine in engines:
            abort(engine, engine.dispatch, engine.rules.grace)
    for engine in engines:
        await_shutdown(engine)
    deadline = monotonic() + LAST_WORDS
    for engine in engines:
        engine.news.join(max(0.0, deadline - monotonic()))


def _was_interrupted() -> bool:
    """Did a KeyboardInterrupt end the program? At a prompt it may be long ago."""
    return isinstance(getattr(sys, "last_value", None), KeyboardInterrupt) and not hasattr(
        sys, "ps1"
    )


def _finish_imports() -> None:
    """What another thread is just importing could never be imported in the child."""
    for name in IMPORTED_LATE:
        importlib.import_module(name)


def _after_fork() -> None:
    host_memory = sys.modules.get("recyclepool._host_memory")
    if host_memory is not None:
        host_memory.begin_anew()  # it has the parent's figures open
    for action in _in_child:
        action()
    for engine in _all_engines():
        engine.begin_anew()
