"""The README and docs/: their code runs, their signatures are the real ones, their links lead on.

A block of Python is a program, and runs in a process of its own. What stands above it may say more:

- ``<!-- continues -->``: it goes on where the block before it in its page ends.
- ``<!-- signatures of MODULE -->``: it only shows what is in a module, and is compared with that.

Where a line prints and has a comment behind, that is what it prints; ``...`` stands for anything.
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from recyclepool import Limits, RecyclePool, metrics

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
CONTINUES, SIGNATURES = "continues", "signatures of "
MOST_WORDS = 700
# Without an underscore, and for other rooms only.
INTERNAL = {("Limits", "rules"), ("recyclepool.units", "percent_of")}
MODULES = {"backends", "memory"}  # of the package: each has a place of its own

BLOCK = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block of a page."""

    page: Path
    line: int
    mark: str
    language: str
    code: str

    @property
    def shows(self) -> str:
        """The module whose signatures it shows, or ""."""
        return self.mark.removeprefix(SIGNATURES) if self.mark.startswith(SIGNATURES) else ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, m.start(3)) + 1, m[1] or "", m[2], m[3])
        for m in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHOWN = [block for block in PYTHON if block.shows]


def programs() -> Iterator[Any]:
    """Each block that runs, behind those that it goes on from. Their lines keep their numbers."""
    program: list[Block] = []
    for block, after in zip(PYTHON, [*PYTHON[1:], None], strict=True):
        if not block.shows:
            program = [*program, block] if block.mark == CONTINUES else [block]
            if after is None or after.mark != CONTINUES:
                yield pytest.param(program, id=str(program[0]))


# -- the code runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("program", list(programs()))
def test_it_runs_and_prints_what_it_says(program: list[Block]) -> None:
    code = ""
    for block in program:
        code += "\n" * (block.line - 1 - code.count("\n")) + block.code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for said in PRINTED.findall(code):
        pattern = re.escape(said).replace(re.escape("..."), ".*")
        found = [line for line in lines if re.fullmatch(pattern, line)]
        assert found, (said, done.stdout)
        lines.remove(found[0])


def test_each_block_is_read() -> None:
    """None is lost to a fence or a mark that is written in another way."""
    for page in PAGES:
        text = page.read_text()
        fences = re.findall(r"^ *(?:```|~~~)", text, re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(page)), page.name
    assert {block.language for block in BLOCKS} <= {"python", "sh", ""}
    marked = [block.mark for block in PYTHON if block.mark and not block.shows]
    assert set(marked) <= {CONTINUES}


# -- the pages ------------------------------------------------------------------------------------


def test_readme_is_short() -> None:
    """Code, tables and links included."""
    assert len(README.read_text().split()) <= MOST_WORDS


def test_readme_commands_are_marked_and_are_one_line_each() -> None:
    text = README.read_text()
    for marker in ("run", "test"):
        found = re.findall(rf"<!-- {marker} -->\n```sh\n(.*)\n```", text)
        assert len(found) == 1, marker


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them of the headings."""
    text = BLOCK.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), target
        assert not anchor or anchor in anchors_of(goal), target


def test_the_readme_leads_to_each_page() -> None:
    text = README.read_text()
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text] == []


# -- the signatures -------------------------------------------------------------------------------


class Plain(ast.NodeTransformer):
    """A signature as a reader has it: no quotes, no module names, no private defaults."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            try:
                return self.visit(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                pass  # a text with a space in it
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        node.value = self.visit(node.value)
        if not (isinstance(node.value, ast.Name) and node.value.id == "Literal"):
            node.slice = self.visit(node.slice)  # its words are no types in quotes
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in ("futures", "abc", "threading"):
            return ast.Name(node.attr)
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        if node.kwarg is not None and node.kwarg.arg == "unknown":
            node.kwarg = None  # it is there for a better message
        for defaults in (node.defaults, node.kw_defaults):
            for index, default in enumerate(defaults):
                if isinstance(default, ast.Name) and default.id.startswith("_"):
                    defaults[index] = ast.Constant(...)
        for argument in (*node.posonlyargs, *node.args, *node.kwonlyargs, node.vararg, node.kwarg):
            if argument is not None and argument.annotation is not None:
                argument.annotation = self.visit(argument.annotation)
        return node


FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def signature(node: ast.AST) -> str:
    """One member in one line."""
    if isinstance(node, FUNCTION):
        node.returns = node.returns and Plain().visit(node.returns)
        arguments = ast.unparse(Plain().visit(node.args))
        kept = ("property", "overload", "classmethod", "staticmethod")
        marks = [f"@{ast.unparse(mark)} " for mark in node.decorator_list]
        mark = "".join(mark for mark in marks if mark.strip(" @") in kept)
        word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{mark}{word} {node.name}({arguments}){returns}"
    if isinstance(node, ast.AnnAssign):
        node.annotation = Plain().visit(node.annotation)
    return ast.unparse(node)


def name_in(node: ast.AST) -> str | None:
    if isinstance(node, (*FUNCTION, ast.ClassDef)):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else None


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module or class, and what it has for type checkers."""
    for node in body:
        if isinstance(node, ast.If):
            yield from statements(node.body)
        else:
            yield node


def is_public(name: str | None) -> bool:
    return name is not None and not name.startswith("_")


def described(name: str, body: list[ast.stmt]) -> dict[str, list[str]]:
    """The members of what has that name in a body; a function or value is its only one."""
    nodes = [node for node in statements(body) if name_in(node) == name]
    overloads = [n for n in nodes if isinstance(n, FUNCTION) and "@overload" in signature(n)]
    found: dict[str, list[str]] = {}
    for node in overloads or nodes:
        if not isinstance(node, ast.ClassDef):
            found.setdefault("", []).append(signature(node))
            continue
        bases = found.setdefault("bases", [])
        for base in node.bases:
            plain = ast.unparse(Plain().visit(base))
            if plain.startswith("_"):  # its members are shown as if they were the class's own
                for member, lines in described(plain, body).items():
                    found.setdefault(member, []).extend(lines)
            elif plain not in bases:  # a page may show a class in several blocks
                bases.append(plain)
        for member in node.body:
            word = name_in(member)
            if word is not None and (is_public(word) or word.startswith("__")):
                found.setdefault(word, []).append(signature(member))
    return found


def real(module: Any, name: str) -> dict[str, list[str]]:
    """What the source has under that public name."""
    thing = getattr(module, name)
    home = sys.modules[getattr(thing, "__module__", None) or module.__name__]
    if not home.__name__.startswith("recyclepool"):
        home = module
    source = ast.parse(inspect.getsource(home)).body
    found = described(name, source) or described(name, ast.parse(inspect.getsource(module)).body)
    if isinstance(thing, type):
        above = [c for c in thing.__mro__[1:] if c.__module__.startswith("recyclepool")]
        for cls in above:
            if is_public(cls.__name__):  # what it has anew is said there
                for member in [m for m in found if m in vars(cls) and is_public(m)]:
                    if member != "bases":
                        del found[member]
    return found


def shown_names(module: str) -> list[str]:
    bodies = [ast.parse(block.code).body for block in SHOWN if block.shows == module]
    return list(dict.fromkeys(name for body in bodies for name in map(name_in, body) if name))


NAMES = [(m, n) for m in dict.fromkeys(b.shows for b in SHOWN) for n in shown_names(m)]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[f"{m}.{n}" for m, n in NAMES])
def test_what_is_shown_is_what_there_is(module: str, name: str) -> None:
    bodies = [ast.parse(block.code).body for block in SHOWN if block.shows == module]
    shown = described(name, [node for body in bodies for node in body])
    there = real(importlib.import_module(module), name)
    for member in [m for m in there if m not in shown]:
        if member.startswith("__") or (name, member) in INTERNAL:
            del there[member]  # a special method is shown where that tells more than its name
    assert shown == there


@pytest.mark.parametrize(
    "module",
    [f"recyclepool{room}" for room in ("", ".backends", ".memory", ".metrics", ".units")],
)
def test_every_public_name_is_shown(module: str) -> None:
    names = set(importlib.import_module(module).__all__)
    if module == "recyclepool":
        assert names >= MODULES
        names -= MODULES
    assert set(shown_names(module)) == {name for name in names if (module, name) not in INTERNAL}


# -- the metrics ----------------------------------------------------------------------------------

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
ROW = re.compile(r"^\| `recyclepool_(\w+)` \| (\w+) \| ([\w`, ]*)\|", re.MULTILINE)


def test_every_metric_is_shown_with_its_type() -> None:
    suffixes = {"counter": "_total", "info": "_info"}
    there = {(f.name + suffixes.get(f.type, ""), f.type) for f in metrics.Hub().describe()}
    shown = [(f"recyclepool_{name}", kind) for name, kind, _ in ROW.findall(REFERENCE)]
    assert sorted(shown) == sorted(there)


def test_metrics_have_the_labels_that_are_shown() -> None:
    labels = {name: set(re.findall(r"\w+", words)) for name, _, words in ROW.findall(REFERENCE)}
    there = {"info": {"backend", "version"}}
    there |= {"worker_memory_bytes": {"slot", "kind"}, "memory_bytes": {"kind"}}  # not looked yet
    limits = Limits(memory="1GiB", pool_memory="100GiB")
    options: Any = {"max_queue": 9, "limits": limits, "schedule": "@daily", "name": "shown"}
    with RecyclePool(1, **options) as pool:
        pool.submit(int).result(60)
        samples = [sample for family in metrics.Hub().collect() for sample in family.samples]
    for sample in samples:
        name = re.sub("_(bucket|sum|count)$", "", sample.name.removeprefix("recyclepool_"))
        there[name] = set(sample.labels) - {"pool", "le"}
    assert labels == there


def test_every_alert_is_shown() -> None:
    alerts = re.findall(r"alert: (\w+)", (ROOT / "docs" / "alerts.yml").read_text())
    assert re.findall(r"^\| `(RecyclePool\w+)` \|", REFERENCE, re.MULTILINE) == alerts
