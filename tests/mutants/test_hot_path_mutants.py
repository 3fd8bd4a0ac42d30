"""Do the forced interleavings bite? Each mutant drops one step of a protocol: its test has to fail.

A mutant is a copy of the package with a piece of its text replaced. The tests of `tests/races` run
against it in a process of their own, with little patience; none of them is left to chance. The copy
without a change passes the same tests.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import recyclepool

pytestmark = [pytest.mark.mutants, pytest.mark.timeout(300)]

PACKAGE = Path(recyclepool.__file__).parent
RACES = Path(__file__).parent.parent / "races"
CONFIGURATION = RACES.parent.parent / "pyproject.toml"

AT_A_TIME = 2
PATIENCE = 2  # seconds for which a test waits for what will never come
LIMIT = 12  # seconds for a test that hangs
FAILED = 1  # pytest's word for it: not an error while collecting, not an interrupt

# Whatever a mutant leaves behind is not waited for at exit.
RUN = "import os, pytest, sys; code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(code)"


@dataclass(frozen=True)
class Mutant:
    """What is dropped, where, and which test has to see it."""

    name: str
    test: str  # as pytest wants it, in tests/races, with an expression for -k after a space
    file: str
    changes: tuple[tuple[str, str], ...]


def mutant(name: str, test: str, file: str, *changes: tuple[str, str]) -> Mutant:
    return Mutant(name, test, file, changes)


SETTLE = (
    'runs the callbacks."""\n        lock = self._lock\n',
    'runs the callbacks."""\n        lock = new_rlock()\n',
)

MUTANTS = [
    # -- settle ---------------------------------------------------------------------------------
    mutant("settle without the lock: two win", "test_two_settle.py", "_future.py", SETTLE),
    mutant(
        "settle without the lock: not seen, or twice",
        "test_as_completed_sees_a_future_once.py",
        "_future.py",
        SETTLE,
    ),
    mutant(
        "who lost settles once more",
        "test_as_completed_sees_a_future_once.py",
        "_future.py",
        (
            "                self._wake()  # an interrupt may",
            "                self._rouse()  # may",
        ),
    ),
    mutant(
        "who lost wakes nobody",
        "test_interrupt_in_order.py -k destroy",
        "_future.py",
        ("                self._wake()  # an interrupt may", "                # an interrupt may"),
    ),
    mutant(
        "a plain lock in futures",
        "test_handler_touches_the_locked_future.py",
        "_gate.py",
        ("new_rlock = _thread.RLock", "new_rlock = _thread.allocate_lock"),
    ),
    mutant(
        "a lock is taken before the try",
        "test_interrupt_in_future.py",
        "_future.py",
        ("        try:\n            lock.acquire()\n", "        lock.acquire()\n        try:\n"),
    ),
    # -- dispatch -------------------------------------------------------------------------------
    mutant(
        "no look after publishing",
        "test_task_comes_as_worker_falls_idle.py",
        "_dispatch.py",
        ("        elif self.queue:\n            self.look()\n", ""),
    ),
    mutant(
        "no look at the mark after publishing",
        "test_retire_against_falling_asleep.py",
        "_dispatch.py",
        ("        if worker.leaving is not None or self.closing:", "        if self.closing:"),
    ),
    mutant(
        "no look at closing after publishing",
        "test_close_after_a_failed_popleft.py",
        "_dispatch.py",
        (
            "        if worker.leaving is not None or self.closing:",
            "        if worker.leaving is not None:",
        ),
    ),
    mutant(
        "wake in two calls",
        "test_interrupt_in_dispatch.py",
        "_dispatch.py",
        (
            (
                '= map(\n            operator.methodcaller("release"), iter(self.idle.pop, None)\n'
                "        ).__next__"
            ),
            "= lambda: self.idle.pop().release()",
        ),
    ),
    mutant(
        "rouse in two calls",
        "test_interrupt_in_dispatch.py",
        "_dispatch.py",
        (
            "            list(map(_call, (partial(self.idle.remove, wake), wake.release)))\n",
            "            self.idle.remove(wake)\n            wake.release()\n",
        ),
    ),
    mutant(
        "submit's look not in a finally",
        "test_interrupt_in_submit.py",
        "_dispatch.py",
        (
            "        try:\n            self.queue.append(task)\n        finally:\n",
            "        self.queue.append(task)\n        if True:\n",
        ),
    ),
    mutant(
        "no second look at closing",
        "test_close_overtakes_submit.py",
        "_dispatch.py",
        ("        return not self.closing or not self.take_back(task)", "        return True"),
    ),
    mutant(
        "leave without a last look",
        "test_close_after_a_failed_popleft.py",
        "backends/thread.py",
        (
            "last_look = dispatch.fall_asleep(worker)\n",
            "last_look = dispatch.fall_asleep(worker)\n                if last_look: return True\n",
        ),
    ),
    mutant(
        "a retired worker serves on",
        "test_retire_against_falling_asleep.py",
        "backends/thread.py",
        ("while worker.leaving is None and", "while"),
    ),
    mutant(
        "who is about to run a task counts as one who takes one",
        "test_task_comes_as_worker_takes_one.py",
        "backends/thread.py",
        ("worker.resting = False", "False"),
    ),
    mutant(
        "who waits for his slot counts as one who takes a task",
        "test_successor_waits_for_its_slot.py",
        "_roster.py",
        (" and w.slot not in taken", ""),
    ),
    # -- orders ---------------------------------------------------------------------------------
    mutant(
        "retire takes out before it marks",
        "test_retire_against_falling_asleep.py",
        "_staff.py",
        (
            "        if worker.leaving is None:\n            if reason is not worker.due:\n",
            (
                "        worker.dispatch.rouse(worker)\n"
                "        if worker.leaving is None:\n            if reason is not worker.due:\n"
            ),
        ),
        (
            "        taken_out = worker.dispatch.rouse(worker)\n",
            "        taken_out = False\n",
        ),
    ),
    mutant(
        "who leaves does not look for a sleeper",
        "test_leaver_looks.py",
        "_staff.py",
        ("        if dispatch.queue and dispatch.idle:\n            dispatch.look()\n", ""),
    ),
    mutant(
        "who leaves does not look for a successor",
        "test_leaver_looks.py",
        "_staff.py",
        (
            "            self._note_vacated(worker)\n        self.demand()\n",
            "            self._note_vacated(worker)\n",
        ),
        (
            "        self.demand()\n        self._make_ahead()\n",
            "        self._make_ahead()\n",
        ),
    ),
    mutant(
        "a worker is started without a look at the queue",
        "test_no_worker_starts_behind_close.py",
        "_engine.py",
        ("        self._order(self.demand)\n", "        self._order(self.roster.demand, 1)\n"),
    ),
    mutant(
        "no look at the orders after the release",
        "test_order_within_an_order.py",
        "_orders.py",
        (
            "            while self._orders:\n",
            "            for _ in range(bool(self._orders)):\n",
        ),
        (
            "                if self._orders and self._hand_over():\n                    break\n",
            "",
        ),
    ),
    mutant(
        "an order is popped before it is done",
        "test_interrupt_in_order.py -k retire",
        "_orders.py",
        ("            verb, args = orders[0]\n", "            verb, args = orders.popleft()\n"),
        ("                orders.popleft()\n", "                pass\n"),
    ),
    mutant(
        "an order that was broken off is not done again",
        "test_interrupt_in_order.py -k retire",
        "_orders.py",
        ("            if self._orders:\n                self._carry_out()  # ORDERS 3\n", ""),
    ),
    mutant(
        "the engine's lock is taken and noted in two calls",
        "test_interrupt_in_order.py -k retire",
        "_orders.py",
        (
            "held.extend(map(self._lock.acquire, (False,)))",
            "held.append(self._lock.acquire(False))",
        ),
    ),
    mutant(
        "the engine's lock is waited for",
        "test_order_within_an_order.py",
        "_orders.py",
        (
            "held.extend(map(self._lock.acquire, (False,)))",
            "held.extend(map(self._lock.acquire, (True,)))",
        ),
    ),
    # -- gate -----------------------------------------------------------------------------------
    mutant(
        "submit without the gate",
        "test_abort_in_the_pools_code.py",
        "pool.py",
        (
            "gate = here.gate\n        if gate is not None:\n            gate.enter()  # GATE 4",
            "gate = None\n        if gate is not None:\n            gate.enter()  # GATE 4",
        ),
    ),
    mutant(
        "result and the rest without the gate",
        "test_abort_at_any_place.py -k cancel",
        "_gate.py",
        (
            "    gate = here.gate\n    if gate is None:\n        return action(*args)\n",
            "    gate = None\n    if gate is None:\n        return action(*args)\n",
        ),
    ),
    mutant(
        "a Condition without the gate",
        "test_abort_at_any_place.py -k wait_in_time",
        "_gate.py",
        (
            (
                "            gate.enter()\n        taken = bool(self._lock.acquire(*args))\n"
                "        here.inside += taken\n        if not taken and gate is not None:\n"
                "            gate.leave()\n        return taken\n"
            ),
            "            pass\n        return bool(self._lock.acquire(*args))\n",
        ),
        (
            (
                "        self._lock.release()\n        here.inside -= 1\n        gate = here.gate\n"
                "        if gate is not None:\n            gate.leave()\n"
            ),
            "        self._lock.release()\n",
        ),
    ),
    mutant(
        "inject without the gate",
        "test_abort_in_the_pools_code.py",
        "_gate.py",
        (
            "            held.extend(map(lock.acquire, (False,)))\n            if not held[0]:\n",
            "            if False:\n",
        ),
    ),
    mutant(
        "inject into one's own thread",
        "test_abort_by_its_own_thread.py",
        "_gate.py",
        ("        if here.gate is self:\n", "        if False:\n"),
    ),
    mutant(
        "no catch around the driver's acquire",
        "test_abort_in_the_drivers_acquire.py",
        "backends/thread.py",
        ("except BaseException as surfaced:", "except ZeroDivisionError as surfaced:"),
    ),
    mutant(
        "no catch around the acquire at the entry",
        "test_abort_while_entering.py",
        "_gate.py",
        (
            "        except BaseException:\n            if lock._is_owned():",
            "        except ZeroDivisionError:\n            if lock._is_owned():",
        ),
    ),
    mutant(
        "a wish is not looked for",
        "test_abort_in_the_pools_code.py",
        "_gate.py",
        ("        if self.wishes and not self.depth:\n            self.surrender()\n", ""),
    ),
    mutant(
        "a late wish takes the place of another",
        "test_late_wish.py",
        "_gate.py",
        (
            "        self.wishes[task] = True\n",
            "        self.wishes[task] = True\n        self._forget_all_but(task)\n",
        ),
        (
            "    def request_abort(",
            (
                "    def _forget_all_but(self, task):\n"
                "        for other in set(self.wishes) - {task}:\n"
                "            del self.wishes[other]\n\n"
                "    def request_abort("
            ),
        ),
    ),
    mutant(
        "no sleeper is shown",
        "test_abort_wakes_a_sleeper.py",
        "_gate.py",
        ("outer, gate.sleeper = gate.sleeper, sleeper", "outer = gate.sleeper"),
    ),
    mutant(
        "no look at the wishes before sleeping",
        "test_abort_wakes_a_sleeper.py -k before",
        "_gate.py",
        (
            (
                "        while not over() and not (gate is not None and gate.is_due()):\n"
                "            if deadline is None:\n                sleeper.acquire()\n"
            ),
            (
                "        while not over():\n"
                "            if deadline is None:\n                sleeper.acquire()\n"
                "                if gate is not None and gate.is_due():\n"
                "                    break\n"
            ),
        ),
    ),
    mutant(
        "the standard's waiters as they are",
        "test_abort_wakes_a_sleeper.py",
        "_future.py",
        ("self._waiters = _Waiters()", "self._waiters = []"),
    ),
    mutant(
        "an aborted worker serves on",
        "test_aborted_worker_serves_no_other.py",
        "backends/thread.py",
        ("while worker.leaving is None and", "while"),
    ),
    mutant(
        "an abort is asked for once",
        "test_abort_swallowed.py",
        "_endings.py",
        (
            "    while True:\n        engine.abort(dispatch)\n",
            "    engine.abort(dispatch)\n    while True:\n",
        ),
    ),
]

BY_NAME = {each.name: each for each in MUTANTS}
assert len(BY_NAME) == len(MUTANTS)


class Runs:
    """The runs of this session: started together, two at a time, and asked for one by one."""

    def __init__(self, directory: Path, names: list[str]) -> None:
        self._directory = directory
        self._executor = ThreadPoolExecutor(AT_A_TIME)
        self._runs: dict[str, Future[subprocess.CompletedProcess[str]]] = {}
        for number, name in enumerate(names):
            self._runs[name] = self._executor.submit(self._run, number, name)

    def outcome(self, name: str) -> subprocess.CompletedProcess[str]:
        """Of the mutant of that name; of the original for ""."""
        return self._runs[name].result()

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def _run(self, number: int, name: str) -> subprocess.CompletedProcess[str]:
        copy = self._directory / str(number)
        shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        if not name:
            return self._test(copy, sorted({each.test.split()[0] for each in MUTANTS}))
        mutated = BY_NAME[name]
        file = copy / PACKAGE.name / mutated.file
        text = file.read_text()
        for old, new in mutated.changes:
            if old not in text:
                raise LookupError(f"{mutated.file} has changed: it does not contain\n{old}")
            text = text.replace(old, new)
        file.write_text(text)
        test, _, expression = mutated.test.partition(" -k ")
        return self._test(copy, [test], expression, impatient=True)

    def _test(
        self, copy: Path, tests: list[str], expression: str = "", *, impatient: bool = False
    ) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(copy)}
        command = [sys.executable, "-c", RUN, "-q", "-p", "no:cacheprovider", "--tb=short"]
        command += [f"--config-file={CONFIGURATION}", f"--rootdir={copy}", f"--confcutdir={RACES}"]
        command += [
            f"-k={expression}",
            f"--timeout={LIMIT if impatient else 60}",
            "--timeout-method=thread",
        ]
        if impatient:
            environment["RACES_PATIENCE"] = str(PATIENCE)
            command += ["--exitfirst"]
        command += [str(RACES / test) for test in tests]
        return subprocess.run(
            command,
            cwd=copy,
            env=environment,
            timeout=280,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    wanted = [
        item.callspec.params.get("name", "") if hasattr(item, "callspec") else ""
        for item in request.session.items
        if item.path == Path(__file__)
    ]
    runs = Runs(tmp_path_factory.mktemp("mutants"), wanted)
    yield runs
    runs.close()


def test_the_original_passes(runs: Runs) -> None:
    outcome = runs.outcome("")
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize("name", BY_NAME)
def test_a_mutant_dies(name: str, runs: Runs) -> None:
    outcome = runs.outcome(name)
    assert outcome.returncode == FAILED, f"{name}: survived\n{outcome.stdout}"
