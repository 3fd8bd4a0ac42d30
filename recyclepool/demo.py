"""``recyclepool demo``: the main job, on real input, and the smoke test.

A pool reads part of the running interpreter's standard library. Its workers are replaced by task
count while it runs; between the two passes it is closed and used again. Then the same is done one
after another, and the two results have to be equal: nothing lost, nothing twice.

- Pass 1, *read*, parses each file. Its workers count identifiers for themselves and hand the count
  over when they retire, so that the total is right only if every one retired, and once.
- Pass 2, *link*, looks up each name that a file uses of other modules. What it looks into is parsed
  once by each worker and kept in its cache.
"""

import ast
import hashlib
import platform
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Generator, Mapping, MutableMapping
from concurrent.futures import Future, wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from recyclepool import Limits, RecyclePool, current_worker, per_worker
from recyclepool._demo_view import Frame, Interrupted, Screen, Stop, about_the_gil, details, reasons

__all__ = ["compare", "run", "sources"]

PACKAGES = """
    asyncio collections concurrent ctypes curses dbm email html http importlib json logging
    multiprocessing re sqlite3 tomllib unittest urllib venv wsgiref xml xmlrpc zoneinfo
"""
LARGEST = 40_000  # bytes: ast.parse holds the GIL until it is done
FEWEST = 50  # files
# 3.11 counts the depth of all parsers in one place. A garbage collection amid one may let another
# thread in, and the count is wrong then: "AST constructor recursion depth mismatch".
PARSING = Lock() if sys.version_info < (3, 12) else nullcontext()
REDRAW_EVERY = 0.1
PASSES = {
    "read": "pass 1 of 2: parse each file",
    "link": "pass 2 of 2: link their names, the pool reopened",
}
OK = "OK: the same as the sequential run, nothing lost, nothing twice."
NOT_OK = "NOT the same as the sequential run."


@dataclass(frozen=True, slots=True)
class Source:
    module: str
    path: Path

    @property
    def package(self) -> str:
        """What a relative import in this file is relative to."""
        return self.module if self.path.stem == "__init__" else self.module.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Record:
    """The answer of one task."""

    task: str
    facts: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """What a module defines at its top level, and the ``(module, name)`` that it uses of others."""

    defined: frozenset[str]
    used: tuple[tuple[str, str], ...]
    dynamic: bool  # it has a ``from x import *``


def sources(root: Path) -> dict[str, Source]:
    """The files of the job, by module, always in the same order."""
    paths = [path for path in root.glob("*.py") if not path.name.startswith("_")]
    for package in PACKAGES.split():
        paths += (root / package).rglob("*.py")
    found = {}
    for path in sorted(paths):
        parts = path.relative_to(root).with_suffix("").parts
        if path.is_file() and path.stat().st_size <= LARGEST and not {"test", "tests"} & {*parts}:
            module = ".".join(parts).removesuffix(".__init__")
            found[module] = Source(module, path)
    return found


def _tree(text: bytes) -> ast.Module:
    with PARSING:
        return ast.parse(text)


def read(source: Source, identifiers: Counter[str]) -> Record:
    """Pass 1: what is in this file."""
    text = source.path.read_bytes()
    kinds: Counter[str] = Counter()
    shape = hashlib.sha256()
    for node in ast.walk(_tree(text)):
        kind = type(node).__name__
        kinds[kind] += 1
        shape.update(kind.encode())
        if isinstance(node, ast.Name):
            identifiers[node.id] += 1
    functions = kinds["FunctionDef"] + kinds["AsyncFunctionDef"]
    facts = (text.count(b"\n"), functions, kinds["ClassDef"], shape.hexdigest())
    return Record(f"read {source.module}", facts)


def link(source: Source, files: Mapping[str, Source], cache: MutableMapping[Any, Names]) -> Record:
    """Pass 2: where the names that this file uses of other modules come from."""
    found: Counter[str] = Counter()
    for module, name in _names(source, cache).used:
        target = _names(files[module], cache) if module in files else None
        if target is None:
            found["elsewhere"] += 1
        elif name in target.defined or f"{module}.{name}" in files:
            found["defined"] += 1
        else:
            found["dynamic" if target.dynamic else "missing"] += 1
    return Record(f"link {source.module}", tuple(sorted(found.items())))


def _names(source: Source, cache: MutableMapping[Any, Names]) -> Names:
    names = cache.get(source.module)
    if names is None:
        names = cache[source.module] = _parse(source)
    return names


def _parse(source: Source) -> Names:
    tree = _tree(source.path.read_bytes())
    used: list[tuple[str, str]] = []
    known: dict[str, str] = {}
    attributes: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            attributes.append((node.value.id, node.attr))
        elif isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = source.package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            used += [(module, alias.name) for alias in node.names]
    used += [(known[name], attr) for name, attr in attributes if name in known]
    defined: set[str] = set()
    nodes: list[ast.AST] = [*tree.body]
    for node in nodes:  # grows while it is walked
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name):
            defined.add(node.id)
        else:
            nodes += ast.iter_child_nodes(node)
    return Names(frozenset(defined), tuple(dict.fromkeys(used)), "*" in defined)


@dataclass(frozen=True, slots=True)
class Farewell:
    slot: int
    reason: str
    hits: int
    misses: int


@dataclass(slots=True)
class Outcome:
    """What a run has to show: of the pool's one, appended to by its workers."""

    answers: list[Record] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)  # by the tasks themselves, when they start
    identifiers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each pass


def sequential(files: Mapping[str, Source], stop: Stop) -> Outcome:
    outcome = Outcome()
    cache: dict[str, Names] = {}
    for what in PASSES:
        began = time.monotonic()
        for source in files.values():
            stop.check()
            outcome.answers.append(
                read(source, outcome.identifiers) if what == "read" else link(source, files, cache)
            )
        outcome.seconds.append(time.monotonic() - began)
    return outcome


class Crew:
    """The job as the pool's workers do it."""

    def __init__(self, files: Mapping[str, Source]) -> None:
        self.files = files
        self.outcome = Outcome()
        self.gone: list[Farewell] = []
        self.now: dict[int, str] = {}  # slot -> what its worker reads or links
        self._handing_over = Lock()
        self._identifiers = per_worker(self._count)

    def read(self, module: str) -> Record:
        self._begin("read", module)
        return read(self.files[module], self._identifiers())

    def link(self, module: str) -> Record:
        self._begin("link", module)
        return link(self.files[module], self.files, current_worker().cache)

    def _begin(self, what: str, module: str) -> None:
        self.outcome.ran.append(f"{what} {module}")
        self.now[current_worker().slot] = module

    def _count(self) -> Generator[Counter[str], None, None]:
        mine: Counter[str] = Counter()
        yield mine
        with self._handing_over:
            self.outcome.identifiers.update(mine)

    def left(self) -> dict[int, list[str]]:
        """Why the workers of each slot went, the latest first."""
        reasons: dict[int, list[str]] = {}
        for gone in reversed(self.gone):
            reasons.setdefault(gone.slot, []).append(gone.reason)
        return reasons

    def farewell(self) -> None:
        """The pool's finalizer: the worker that leaves says why."""
        worker = current_worker()
        cache = worker.cache.stats()
        self.gone.append(Farewell(worker.slot, str(worker.leaving), cache.hits, cache.misses))


def pooled(pool: RecyclePool, crew: Crew, screen: Screen, stop: Stop, limit: int) -> None:
    """Both passes, each in an epoch of its own: the pool is closed after it, and used again."""
    outcome = crew.outcome
    for title, task in zip(PASSES.values(), (crew.read, crew.link), strict=True):
        began = time.monotonic()
        futures = []
        for module in crew.files:
            stop.check()
            futures.append(pool.submit(task, module))
            futures[-1].add_done_callback(partial(_collect, outcome))
        pending: set[Future[Record]] = set(futures)
        while pending:
            _, pending = wait(pending, timeout=REDRAW_EVERY)
            stop.check()
            screen.show(
                Frame(
                    title=title,
                    stats=pool.stats(),
                    done=len(futures) - len(pending),
                    total=len(futures),
                    seconds=time.monotonic() - began,
                    limit=limit,
                    now=crew.now,
                    left=crew.left(),
                )
            )
        report = pool.close()
        outcome.seconds.append(time.monotonic() - began)
        screen.say(f"{title}: {outcome.seconds[-1]:.2f} s; closed in {report.seconds:.3f} s")


def _collect(outcome: Outcome, future: Future[Record]) -> None:
    """Runs once for each future that is settled, so that a second settling would be seen."""
    if future.cancelled():
        outcome.failures.append("cancelled")
    elif error := future.exception():
        outcome.failures.append(repr(error))
    else:
        outcome.answers.append(future.result())


def compare(expected: Outcome, got: Outcome) -> dict[str, list[str]]:
    """What is wrong with the pool's result. Nothing is, if every list is empty."""
    tasks = {record.task: record for record in expected.answers}
    settled, ran = Counter(record.task for record in got.answers), Counter(got.ran)
    counts, right = got.identifiers, expected.identifiers
    return {
        "lost": [task for task in tasks if not (settled[task] and ran[task])],
        "twice": [task for task, times in (settled | ran).items() if times > 1],
        "different": [one.task for one in got.answers if one != tasks.get(one.task)],
        "miscounted": [name for name in counts | right if counts[name] != right[name]],
        "failed": got.failures,
    }


def summary(expected: Outcome, crew: Crew, wrong: Mapping[str, list[str]]) -> str:
    got, gone = crew.outcome, crew.gone
    pooled, alone = ([f"{seconds:6.2f} s" for seconds in run.seconds] for run in (got, expected))
    return f"""
              pool   sequential
  read    {pooled[0]}     {alone[0]}
  link    {pooled[1]}     {alone[1]}
{about_the_gil()}

workers   {len(gone)} came and went: {reasons(Counter(farewell.reason for farewell in gone))}
cache     {sum(one.hits for one in gone)} hits, {sum(one.misses for one in gone)} misses
answers   {len(got.answers)} of {len(expected.answers)}: {len(wrong["lost"])} lost, \
{len(wrong["twice"])} twice, {len(wrong["different"])} different
counts    {got.identifiers.total()} of {expected.identifiers.total()} identifiers, \
handed over by each worker when it left

{details(wrong)}{NOT_OK if any(wrong.values()) else OK}"""


def run(workers: int, tasks_per_worker: int) -> int:
    """Does it all and returns the exit code."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sources(root)
    if len(files) < FEWEST:
        print(
            f"recyclepool demo reads the standard library's sources, and found {len(files)} of its "
            f"files in {root}: this Python seems to come without them, or in a zip file.",
            file=sys.stderr,
        )
        return 2
    crew, screen = Crew(files), Screen(sys.stdout)
    limits = Limits(tasks=tasks_per_worker)
    pool = RecyclePool(workers, name="demo", limits=limits, finalizer=crew.farewell)
    screen.say(
        f"{len(files)} files of Python {platform.python_version()}'s standard library; "
        f"{workers} workers, each for {tasks_per_worker} tasks"
    )
    with Stop() as stop:
        try:
            pooled(pool, crew, screen, stop, tasks_per_worker)
            screen.say("and now without a pool, one after another")
            expected = sequential(files, stop)
        except Interrupted:
            report, stats = pool.destroy(), pool.stats()
            screen.say(
                f"interrupted: {stats.completed} tasks done, {report.cancelled} cancelled, "
                f"{report.aborted} aborted; the pool ended in {report.seconds:.2f} s"
            )
            return stop.exit_code
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    wrong = compare(expected, crew.outcome)
    screen.say(summary(expected, crew, wrong))
    return 1 if any(wrong.values()) else 0
