"""Do the roster's tests bite? Each decision of ``_roster.py`` is sabotaged: they have to see it.

A mutant is the module with one change: a condition negated, forced to be true or to be false, a
comparison or a state replaced by another, min and max, and and or, + and - exchanged, a number one
off, a statement left out. It is compiled as a module of its own, in this process, and handed to
the unit tests of the roster, and, if it survives those, to the state machine.

Those that nothing can tell from the original are listed here, each with its reason. One that is
listed, and dies or does not exist any more, fails the test too.
"""

import ast
import copy
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test as run_machine

from recyclepool import _roster
from recyclepool.states import PoolState, State

pytestmark = [pytest.mark.mutants, pytest.mark.timeout(600)]

SOURCE = Path(_roster.__file__).read_text()
UNIT = Path(__file__).parent.parent / "unit"

EQUIVALENT: dict[str, str] = {
    "module: MANY = 1000 -> MANY = 1001": "how many are counted before they are held",
    "module: MANY = 1000 -> MANY = 999": "how many are counted before they are held",
    "_move: if _ORDER.index(state) > _ORDER.index(worker.state): -> "
    "if _ORDER.index(state) >= _ORDER.index(worker.state):": "assigns the state that is there",
    "reconcile: if missing > 0: -> if True:": "no slots are found for none: only quicker",
    "reconcile: if missing > 0: -> if missing >= 0:": "no slots are found for none: only quicker",
    "reconcile: if missing > 0: -> if missing > -1:": "no slots are found for none: only quicker",
    "reconcile: if due: -> if True:": "nobody gets a successor: only quicker",
    "not_launched: self._move(worker, State.STOPPED) -> "
    "self._move(worker, State.RETIRING)": "_gone stops it; neither is active",
    "superseded: starting = State.STARTING in [w.state for w in self.workers] -> "
    "starting = State.SERVING in [w.state for w in self.workers]": "who replaces nobody stays",
    "superseded: if not starting and self.surge and (not self._shrunk): -> "
    "if False:": "nobody would go: only quicker",
    "superseded: if not starting and self.surge and (not self._shrunk): -> "
    "pass": "nobody would go: only quicker",
    "superseded: return [] -> pass": "nobody would go: only quicker",
    "superseded: elif holder is not None and holder.due is not None and starter.opened: -> "
    "elif holder is not None and starter.opened:": "it is due: the branch before",
    "_admit: if worker.opened and worker.state is State.STARTING "
    "and (worker.slot not in taken): -> "
    "if worker.opened and worker.slot not in taken:": "states only grow: _move",
    "may_serve: if not waiting: -> if False:": "of none there is none: only quicker",
    "may_serve: if not waiting: -> pass": "of none there is none: only quicker",
    "may_serve: return [] -> pass": "of none there is none: only quicker",
}

# ==== what is changed ============================================================================

Name = tuple[str, str, str]  # the function, its statement before and after

COMPARED: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
EXCHANGED = {"min": "max", "max": "min", "all": "any", "any": "all"}
MEMBERS = {"State": [s.name for s in State], "PoolState": [s.name for s in PoolState]}


def variants(node: ast.AST) -> Iterator[ast.AST | None]:
    """What may stand in the place of a node. None: nothing."""
    if isinstance(node, ast.If | ast.IfExp):
        for test in (ast.UnaryOp(ast.Not(), node.test), ast.Constant(True), ast.Constant(False)):
            yield changed(node, test=test)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield changed(node, ifs=[])
        yield changed(node, ifs=[ast.UnaryOp(ast.Not(), node.ifs[0]), *node.ifs[1:]])
    elif isinstance(node, ast.Compare):
        for other in COMPARED[type(node.ops[0])]:
            yield changed(node, ops=[other()])
    elif isinstance(node, ast.BoolOp):
        yield changed(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
        yield from without_one(node, "values", least=1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
        yield changed(node, op=ast.Sub() if isinstance(node.op, ast.Add) else ast.Add())
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in EXCHANGED:
            yield changed(node, func=ast.Name(EXCHANGED[node.func.id]))
        if node.func.id in ("min", "max"):
            yield from without_one(node, "args", least=1)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield ast.Constant(node.value + 1)
            yield ast.Constant(node.value - 1)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        for member in MEMBERS.get(node.value.id, ()):
            if member != node.attr:
                yield changed(node, attr=member)
    elif isinstance(node, ast.Assign) and len(node.targets) > 1:
        yield from without_one(node, "targets", least=1)
    if isinstance(node, ast.stmt) and not is_kept(node):
        yield None


def is_kept(node: ast.stmt) -> bool:
    """To leave it out would be no other program: a definition or a docstring."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return True
    return isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)


def changed(node: ast.AST, **fields: Any) -> ast.AST:
    other = copy.copy(node)
    for field, value in fields.items():
        setattr(other, field, value)
    return other


def without_one(node: ast.AST, field: str, *, least: int) -> Iterator[ast.AST]:
    items = getattr(node, field)
    for index in range(len(items)):
        rest = items[:index] + items[index + 1 :]
        if len(rest) == 1 and not isinstance(node, ast.Assign):
            yield rest[0]
        elif len(rest) >= least:
            yield changed(node, **{field: rest})


class Change(ast.NodeTransformer):
    """Puts one variant of the node number `place` in its place."""

    def __init__(self, place: int, variant: int) -> None:
        self.place, self.variant, self.seen = place, variant, -1

    def visit(self, node: ast.AST) -> Any:
        self.seen += 1
        if self.seen == self.place:
            other = list(variants(node))[self.variant]
            return ast.Pass() if other is None else other
        return self.generic_visit(node)


class Places(ast.NodeVisitor):
    """How many variants each node has, in the order in which Change visits them."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def visit(self, node: ast.AST) -> None:
        self.counts.append(len(list(variants(node))))
        self.generic_visit(node)


def mutants() -> dict[str, ast.Module]:
    """All of them, by what was changed."""
    places = Places()
    places.visit(ast.parse(SOURCE))
    found: dict[str, ast.Module] = {}
    original = lines(ast.parse(SOURCE))
    for place, count in enumerate(places.counts):
        for variant in range(count):
            tree = Change(place, variant).visit(ast.parse(SOURCE))
            name = describe(original, lines(ast.fix_missing_locations(tree)))
            assert name not in found
            found[name] = tree
    return found


def lines(tree: ast.AST) -> list[tuple[str, str]]:
    """The module's lines, each with the function that it is in."""
    function, told = "module", []
    for line in ast.unparse(tree).splitlines():
        if line.startswith("    def "):
            function = line.split()[1].partition("(")[0]
        told.append((function, line.strip()))
    return told


def describe(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> str:
    """The first line that differs, in which function, what it was and what it became."""
    first = next(i for i, (old, new) in enumerate(zip(before, after, strict=False)) if old != new)
    (function, old), (_, new) = before[first], after[first]
    same = sum(line == (function, old) for line in before[:first])
    return f"{function}: {old}{' [again]' * same} -> {new}"


# ==== who has to see it ==========================================================================


def load(path: Path) -> types.ModuleType:
    """A test module, by its file."""
    name = f"mutants_of_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unit_tests() -> list[Callable[[type], None]]:
    """The unit tests, as functions of the class that they test."""
    tests: list[Callable[[type], None]] = []
    for name, function in vars(load(UNIT / "test_roster.py")).items():
        if name.startswith("test_"):
            tests += [
                lambda cls, test=function, arguments=arguments: test(roster_class=cls, **arguments)
                for arguments in parameters(function)
            ]
    return tests


def parameters(function: Any) -> list[dict[str, Any]]:
    """What it is parametrized with: one name at most."""
    marks = [m for m in getattr(function, "pytestmark", []) if m.name == "parametrize"]
    if not marks:
        return [{}]
    (mark,) = marks
    name, values = mark.args
    return [{name: value} for value in values]


def survives(roster_class: type, tests: list[Callable[[type], None]]) -> bool:
    for test in tests:
        try:
            test(roster_class)
        except KeyboardInterrupt:
            raise
        except BaseException:  # a failure of pytest's is none of Exception's
            return False
    return True


def compiled(tree: ast.Module) -> type:
    """The class of a mutant."""
    module = types.ModuleType("mutant")
    exec(compile(tree, "<mutant>", "exec"), vars(module))
    roster_class: type = module.Roster
    return roster_class


def machine_test() -> Callable[[type], None]:
    """The state machine, as a function of the class that it tests. It does not shrink."""
    machine = load(UNIT / "test_roster_machine.py")
    profile = settings(machine.PROFILE, max_examples=60, phases=[Phase.generate])

    def run(roster_class: type) -> None:
        model = type("Model", (machine.Model,), {"roster_class": roster_class})
        run_machine(model, settings=profile)

    return run


def test_each_mutant_dies_or_is_listed():
    tests = unit_tests()
    machine = machine_test()
    assert survives(_roster.Roster, [*tests, machine])
    found = mutants()
    survivors = []
    for name, tree in found.items():
        try:
            roster_class = compiled(tree)
        except Exception:
            continue  # it cannot even be imported
        if survives(roster_class, tests) and survives(roster_class, [machine]):
            survivors.append(name)
    assert len(found) > 200
    unknown = [name for name in survivors if name not in EQUIVALENT]
    assert not unknown, f"{len(unknown)} of {len(found)} live:\n" + "\n".join(unknown)
    dead = [name for name in EQUIVALENT if name not in survivors]
    assert not dead, "listed, and dead or gone:\n" + "\n".join(dead)
