"""``recyclepool demo``: the main job, on real input, and the smoke test.

A pool reads part of the running interpreter's standard library. Its workers are replaced by task
count while it runs; between the two passes it is closed and used again. Then the same is done one
after another, and the two results have to be equal: nothing lost, nothing twice.

- Pass 1, *read*, parses each file. Its workers count identifiers for themselves and hand the count
  over when they retire, so that the total is right only if every one retired, and once.
- Pass 2, *link*, looks up each name that a file uses of other modules. What it looks into is parsed
  once by each worker and kept in its cache; what most files use, before its first task.

Three things are planted that a pool has to cope with: in pass 1 a task that spins for ever, which
is to time out and take nothing with it but its worker; in the middle of pass 2 a soft restart; all
through pass 2 a leak: a worker keeps a dump of each tree that it has linked. So what it owns grows
with its cache and beyond it: its limit of memory has the cache trimmed, or the worker recycled.
"""

import ast
import hashlib
import platform
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, MutableMapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from threading import Lock
from typing import Any, Never

from recyclepool import Limits, RecyclePool, current_worker, per_worker
from recyclepool._demo_memory import Track, memory
from recyclepool._demo_view import (
    Frame,
    Interrupted,
    Restart,
    Screen,
    Stop,
    Story,
    Who,
    about_the_gil,
    details,
    hang,
    reasons,
    soft_restart,
)
from recyclepool._gate import GatedLock
from recyclepool.cache import WorkerCache
from recyclepool.units import format_size

__all__ = ["compare", "run", "sources"]

PACKAGES = """
    asyncio collections concurrent ctypes curses dbm email html http importlib json logging
    multiprocessing re sqlite3 tomllib unittest urllib venv wsgiref xml xmlrpc zoneinfo
"""
LARGEST = 40_000  # bytes: ast.parse holds the GIL until it is done
FEWEST = 50  # files
MOST_USED = """
    os warnings re io types functools weakref socket contextlib abc email signal
"""
# 3.11 counts the depth of all parsers in one place. A garbage collection amid one may let another
# thread in, and the count is wrong then: "AST constructor recursion depth mismatch".
PARSING = GatedLock(Lock()) if sys.version_info < (3, 12) else None  # no abort leaves it held
HANG = 2.0  # seconds: an honest task says that it is alive every few milliseconds of its own time
STEPS = 500  # nodes of a tree from one sign of life to the next
PATIENCE = 30.0  # seconds until the planted task is cancelled: then its limit does not work
REDRAW_EVERY = 0.1
MEMORY = 2 * 2**20  # bytes that a worker may own: the dumps of some twenty files
LIMITS = Limits(memory=MEMORY, memory_samples=1, sample_every=0.1, min_age=0.5)
PASSES = {
    "read": "pass 1 of 2: parse each file",
    "link": "pass 2 of 2: link their names, the pool reopened",
}
OK = "OK: the same as the sequential run, nothing lost, nothing twice."
NOT_OK = "NOT the same as the sequential run."
NOT_AS_PLANNED = "NOT OK: the same as the sequential run, but what was planted went wrong."


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
    text: bytes


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
    if PARSING is None:
        return ast.parse(text)
    while not PARSING.acquire(True, REDRAW_EVERY):
        _alive()  # to wait for the others is not to hang
    try:
        return ast.parse(text)
    finally:
        PARSING.release()


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for number, node in enumerate(ast.walk(tree)):
        if number % STEPS == 0:
            _alive()
        yield node


def _alive() -> None:
    """Limits(hang=) counts from here anew. Without a pool there is nobody to tell."""
    worker = current_worker(None)
    if worker is not None:
        worker.heartbeat()


def read(source: Source, identifiers: Counter[str]) -> Record:
    """Pass 1: what is in this file."""
    text = source.path.read_bytes()
    kinds: Counter[str] = Counter()
    shape = hashlib.sha256()
    for node in _nodes(_tree(text)):
        kind = type(node).__name__
        kinds[kind] += 1
        shape.update(kind.encode())
        if isinstance(node, ast.Name):
            identifiers[node.id] += 1
    functions = kinds["FunctionDef"] + kinds["AsyncFunctionDef"]
    facts = (text.count(b"\n"), functions, kinds["ClassDef"], shape.hexdigest())
    return Record(f"read {source.module}", facts)


def link(
    source: Source,
    files: Mapping[str, Source],
    cache: MutableMapping[Any, Names],
    keep: Callable[[ast.Module], object],
) -> Record:
    """Pass 2: where the names that this file uses of other modules come from."""
    found: Counter[str] = Counter()
    for module, name in _parse(source, keep).used:
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
        names = _parse(source)
        if isinstance(cache, WorkerCache):
            cache.put(source.module, names, size=len(names.text))
        else:
            cache[source.module] = names
    return names


def _parse(source: Source, keep: Callable[[ast.Module], object] | None = None) -> Names:
    text = source.path.read_bytes()
    tree = _tree(text)
    if keep is not None:
        keep(tree)
    used: list[tuple[str, str]] = []
    known: dict[str, str] = {}
    attributes: list[tuple[str, str]] = []
    for node in _nodes(tree):
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
    return Names(frozenset(defined), tuple(dict.fromkeys(used)), "*" in defined, text)


@per_worker
def dumps() -> list[str]:
    """The planted leak: it only grows."""
    return []


def leak(tree: ast.Module) -> None:
    dumps().append(dump(tree))


def dump(tree: ast.Module) -> str:
    _alive()
    return ast.dump(tree, include_attributes=True)


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
                read(source, outcome.identifiers)
                if what == "read"
                else link(source, files, cache, dump)
            )
        outcome.seconds.append(time.monotonic() - began)
    return outcome


class Crew:
    """The job as the pool's workers do it."""

    def __init__(self, files: Mapping[str, Source]) -> None:
        self.files = files
        self.outcome = Outcome()
        self.now: dict[Who, str] = {}  # worker -> what it reads, links or else does
        self.spun_in: Who | None = None
        self.links = False  # what a worker warms up for
        self.hits = self.misses = 0  # of the caches of those who have gone
        self._handing_over = Lock()
        self._identifiers = per_worker(self._count)

    def read(self, module: str) -> Record:
        self._begin("read", module)
        return read(self.files[module], self._identifiers())

    def link(self, module: str) -> Record:
        self._begin("link", module)
        return link(self.files[module], self.files, current_worker().cache, leak)

    def spin(self) -> Never:
        """The planted task. It is not part of the job."""
        self.spun_in = self._note("planted: spins")
        while True:
            pass

    def _begin(self, what: str, module: str) -> None:
        self.outcome.ran.append(f"{what} {module}")
        self._note(module)

    def _note(self, now: str) -> Who:
        worker = current_worker()
        me = (worker.slot, worker.generation)
        self.now[me] = now
        return me

    def _count(self) -> Generator[Counter[str], None, None]:
        mine: Counter[str] = Counter()
        yield mine
        with self._handing_over:
            self.outcome.identifiers.update(mine)

    def warm_up(self) -> None:
        """The pool's initializer: a worker that is to link parses what most files use."""
        self._note("warming up")
        for module in MOST_USED.split() if self.links else ():
            if module in self.files:
                _names(self.files[module], current_worker().cache)

    def farewell(self) -> None:
        """The pool's finalizer: the worker that leaves says what its cache was good for."""
        cache = current_worker().cache.stats()
        with self._handing_over:
            self.hits += cache.hits
            self.misses += cache.misses


class Pooled:
    """Both passes, each in an epoch of its own: the pool is closed after it, and used again."""

    def __init__(
        self, pool: RecyclePool, crew: Crew, screen: Screen, stop: Stop, tasks_per_worker: int
    ) -> None:
        self.story = Story(pool.name)
        self.track = Track(MEMORY)
        self.planted: Future[Never] | None = None
        self.restart: Restart | None = None
        self._pool, self._crew, self._screen, self._stop = pool, crew, screen, stop
        self._limit = tasks_per_worker
        self._patience_ends = inf
        pool.subscribe(self.story.add)

    def run(self) -> None:
        crew, modules = self._crew, [*self._crew.files]
        few, half = len(modules) // 8, len(modules) // 2

        self._begin("read")
        self._submit(crew.read, modules[:few])
        planted = self._plant()
        self._submit(crew.read, modules[few:])
        self._watch([*self._futures, planted])
        self._end()

        crew.links = True
        self._screen.say(
            "planted: each worker keeps a dump of what it links; "
            f"the limit is memory={format_size(MEMORY)}"
        )
        self._begin("link")
        self._submit(crew.link, modules)
        self._watch([self._futures[half]])
        self._restart_softly()
        self._watch(self._futures)
        self._end()

    def _begin(self, what: str) -> None:
        self._title, self._began = PASSES[what], time.monotonic()
        self._futures: list[Future[Record]] = []
        self.track.clear()

    def _submit(self, task: Callable[[str], Record], modules: Iterable[str]) -> None:
        for module in modules:
            self._stop.check()
            future = self._pool.submit(task, module)
            future.add_done_callback(partial(_collect, self._crew.outcome))
            self._futures.append(future)

    def _plant(self) -> Future[Never]:
        self._screen.say(f"planted: a task that spins for ever; the limit is hang={HANG:g} s")
        self.planted = self._pool.submit(self._crew.spin)
        self._patience_ends = time.monotonic() + PATIENCE
        return self.planted

    def _restart_softly(self) -> None:
        before, began = self._pool.stats(), time.monotonic()
        replaced = self._pool.soft_restart()
        self._screen.say("half of pass 2 is done: soft_restart()")
        self._show()
        self._watch([replaced])
        seconds, error = time.monotonic() - began, replaced.exception()
        answer = replaced.result() if error is None else repr(error)
        self.restart = Restart(answer, seconds, before, self._pool.stats())

    def _watch(self, awaited: Iterable[Future[Any]]) -> None:
        """Show how it goes until all of these have their end."""
        pending = {*awaited}
        while pending:
            _, pending = wait(pending, timeout=REDRAW_EVERY)
            self._stop.check()
            if self.planted is not None and time.monotonic() > self._patience_ends:
                self._pool.cancel(self.planted)
            self._show()

    def _show(self) -> None:
        self._tell_news()
        stats, seconds = self._pool.stats(), time.monotonic() - self._began
        self.track.note(stats, seconds)
        self._screen.show(
            Frame(
                title=self._title,
                stats=stats,
                done=sum(future.done() for future in self._futures),
                total=len(self._futures),
                seconds=seconds,
                limit=self._limit,
                now=self._crew.now,
                left=self.story.left(),
                track=self.track,
            )
        )

    def _tell_news(self) -> None:
        news = self.story.news()
        if news:
            self._screen.say(*news)

    def _end(self) -> None:
        report, seconds = self._pool.close(), time.monotonic() - self._began
        self.story.wait_closed()
        self._tell_news()
        self._crew.outcome.seconds.append(seconds)
        self._screen.say(f"{self._title}: {seconds:.2f} s; closed in {report.seconds:.3f} s")


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


def summary(
    expected: Outcome,
    crew: Crew,
    recycles: Mapping[str, int],
    wrong: Mapping[str, list[str]],
    planted: tuple[str, str],
    owned: str,
    verdict: str,
) -> str:
    got = crew.outcome
    pooled, alone = ([f"{seconds:6.2f} s" for seconds in run.seconds] for run in (got, expected))
    return f"""
              pool   sequential
  read    {pooled[0]}     {alone[0]}
  link    {pooled[1]}     {alone[1]}
{about_the_gil()}

workers   {sum(recycles.values())} came and went: {reasons(recycles)}
hang      {planted[0]}
restart   {planted[1]}
{owned}
cache     {crew.hits} hits, {crew.misses} misses
answers   {len(got.answers)} of {len(expected.answers)}: {len(wrong["lost"])} lost, \
{len(wrong["twice"])} twice, {len(wrong["different"])} different
counts    {got.identifiers.total()} of {expected.identifiers.total()} identifiers, \
handed over by each worker when it left

{details(wrong)}{verdict}"""


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
    pool = RecyclePool(
        workers,
        name="demo",
        limits=replace(LIMITS, tasks=tasks_per_worker, hang=HANG),
        initializer=crew.warm_up,
        finalizer=crew.farewell,
    )
    screen.say(
        f"{len(files)} files of Python {platform.python_version()}'s standard library; "
        f"{workers} workers, each for {tasks_per_worker} tasks"
    )
    with Stop() as stop:
        pooled = Pooled(pool, crew, screen, stop, tasks_per_worker)
        try:
            pooled.run()
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
    hung, hung_well = hang(pooled.planted, crew.spun_in, pooled.story)
    restarted, restarted_well = soft_restart(pooled.restart, pooled.story)
    right, as_planned = not any(wrong.values()), hung_well and restarted_well
    verdict = NOT_OK if not right else OK if as_planned else NOT_AS_PLANNED
    recycles = pool.stats().recycles
    owned = memory(pooled.track, pooled.story.told(), blocks=screen.blocks)
    screen.say(summary(expected, crew, recycles, wrong, (hung, restarted), owned, verdict))
    return 0 if right and as_planned else 1
