"""Do the watchdog's tests bite? Each decision of ``_watchdog.py`` is sabotaged: they must see it.

As for the roster (see test_roster_mutants.py, which knows how a module is changed): each mutant is
compiled as a module of its own, and handed to the unit tests of the watchdog, in this process.
Those that nothing can tell from the original, or that only threads can tell (the races see them),
are listed, each with its reason.
"""

import functools
import importlib.util
import inspect
import itertools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recyclepool import _watchdog

pytestmark = [pytest.mark.mutants, pytest.mark.timeout(300)]

SOURCE = Path(_watchdog.__file__).read_text()
TESTS = Path(__file__).parent.parent / "unit" / "test_watchdog.py"
LEAST = 100  # mutants

STARTER = "who starts rests and does not serve: nothing is found below either"
TYPE = "an annotation"
OVER = "`over` and `_sleep` mark one end: each is there for an interrupt between the two"
_STANDS = (
    "if sleep is not None and (not sleep.over) and (thread is not None) and thread.is_alive():"
)

_SHRINKS = "_next_deadline: shrinking = rules.idle < inf and roster.may_shrink()"
EQUIVALENT: dict[str, str] = {
    f"{_SHRINKS} -> shrinking = roster.may_shrink()": "spares a count",
    f"{_SHRINKS} -> shrinking = rules.idle <= inf and roster.may_shrink()": "spares a count",
    "_sleep_until: if sleep is not None and sleep.over: -> if False:": OVER,
    "_sleep_until: if sleep is not None and sleep.over: -> pass": OVER,
    "_sleep_until: self._sleep = None -> pass": OVER,
    f"_stand_by: {_STANDS} -> "
    "if sleep is not None and thread is not None and thread.is_alive():": OVER,
    f"_stand_by: {_STANDS} -> "
    "if sleep is not None and (not sleep.over) and thread.is_alive():": "they come together",
    "_run: while self._sleep is sleep and (not sleep.over): -> "
    "while self._sleep is sleep or not sleep.over:": OVER,
    "_run: while self._sleep is sleep and (not sleep.over): -> while not sleep.over:": OVER,
    "_run: while self._sleep is sleep and (not sleep.over): -> while self._sleep is sleep:": OVER,
    "module: if worker.state is State.STARTING: -> if False:": STARTER,
    "module: if worker.state is State.STARTING: -> pass": STARTER,
    "module: return Deadline(inf, Act.LOOK) -> pass": STARTER,
    "module: settings: Any -> pass": TYPE,
    "module: rules: Rules -> pass": TYPE,
    "module: roster: Roster -> pass": TYPE,
    "module: news: News -> pass": TYPE,
    "module: paused: Flag | None -> pass": TYPE,
    "module: if TYPE_CHECKING: -> if not TYPE_CHECKING:": TYPE,
    "module: if TYPE_CHECKING: -> if True:": TYPE,
    "module: if TYPE_CHECKING: -> if False:": TYPE,
    "module: if TYPE_CHECKING: -> pass": TYPE,
    "__init__: self._schedule_pause = inf -> pass": "set by each look, before it is read",
    "_wall: return None -> pass": "it ends there all the same",
    "__init__: self.lock.acquire() -> pass": "who makes a thread wakes it at once",
    "__init__: self._lingers_until = inf -> pass": "set by the first deadline, read later",
    "_act: elif act is Act.IDLE: -> elif True:": "a LOOK is put off with the clock",
    "_stand_by: self._sleep = None -> pass": "the next look finds that its thread is not alive",
}


def load(path: Path) -> types.ModuleType:
    name = f"watchdog_mutants_of_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mutants() -> dict[str, Any]:
    """As the roster's, of another source: without what only types or Protocols say."""
    changing = load(Path(__file__).parent / "test_roster_mutants.py")
    changing.SOURCE = SOURCE  # type: ignore[attr-defined]
    changing.MEMBERS = {}  # type: ignore[attr-defined]
    found: dict[str, Any] = {}
    ast = changing.ast
    places = changing.Places()
    places.visit(ast.parse(SOURCE))
    original = changing.lines(ast.parse(SOURCE))
    for place, count in enumerate(places.counts):
        for variant in range(count):
            tree = changing.Change(place, variant).visit(ast.parse(SOURCE))
            after = changing.lines(ast.fix_missing_locations(tree))
            if after != original:
                found.setdefault(changing.describe(original, after), tree)
    return found


def cases() -> list[Callable[[types.ModuleType], None]]:
    """The unit tests, each with each of its arguments, as functions of the module under test."""
    tests = load(TESTS)
    found: list[Callable[[types.ModuleType], None]] = []
    for name, function in vars(tests).items():
        if name.startswith("test_"):
            found += [
                functools.partial(run, tests, function, arguments)
                for arguments in parameters(function)
            ]
    return found


def run(
    tests: types.ModuleType, function: Any, arguments: dict[str, Any], module: types.ModuleType
) -> None:
    """One of them. Its fixtures are made here: there are four."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        wanted = inspect.signature(function).parameters
        given: dict[str, Any] = {"module": module, "monkeypatch": monkeypatch} | arguments
        if "engine" in wanted:
            given["engine"] = tests.Engine(module, monkeypatch)
        if "told_only" in wanted:
            rules = tests.RULES._replace(report_only=True)
            given["told_only"] = tests.Engine(module, monkeypatch, rules)
        function(**{name: given[name] for name in wanted})


def parameters(function: Any) -> list[dict[str, Any]]:
    rows: list[list[dict[str, Any]]] = []
    for mark in getattr(function, "pytestmark", []):
        names, values = mark.args
        names = [names] if isinstance(names, str) else list(names)
        rows.append([dict(zip(names, v if len(names) > 1 else [v], strict=True)) for v in values])
    return [functools.reduce(lambda a, b: a | b, row, {}) for row in itertools.product(*rows)]


def compiled(tree: Any) -> types.ModuleType:
    module = types.ModuleType("mutant")
    exec(compile(tree, "<mutant>", "exec"), vars(module))
    return module


class TooLong(BaseException):
    """A mutant that loops."""


def survives(module: types.ModuleType, tests: list[Callable[[types.ModuleType], None]]) -> bool:
    for test in tests:
        calls = 0

        def count(frame: Any, event: str, _: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > 200_000:
                raise TooLong

        sys.setprofile(count)
        try:
            test(module)
        except KeyboardInterrupt:
            raise
        except BaseException:
            return False
        finally:
            sys.setprofile(None)
    return True


def test_each_mutant_dies_or_is_listed():
    tests = cases()
    assert len(tests) > 100
    assert survives(_watchdog, tests)
    found = mutants()
    survivors = []
    for name, tree in found.items():
        try:
            module = compiled(tree)
        except Exception:
            continue  # it cannot even be imported
        if survives(module, tests):
            survivors.append(name)
    assert len(found) > LEAST
    unknown = [name for name in survivors if name not in EQUIVALENT]
    assert not unknown, f"{len(unknown)} of {len(found)} live:\n" + "\n".join(unknown)
    dead = [name for name in EQUIVALENT if name not in survivors]
    assert not dead, "listed, and dead or gone:\n" + "\n".join(dead)
