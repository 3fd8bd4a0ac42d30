"""When a probe looks at a worker that sleeps; when it has cycles decided, which costs more."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from recyclepool import _probe
from recyclepool._looks import Forecasts
from recyclepool._owned import Owned
from recyclepool._probe import CYCLES_PAUSE, GLANCE, NEAR, Probe
from recyclepool._rules import Rules

MIB = 2**20
LIMIT = 40 * MIB


class Crew:
    """Of an engine what a probe asks for."""

    def __init__(self) -> None:
        self.rules = Rules(memory=LIMIT)
        self.process = 100 * MIB
        self.settings = SimpleNamespace(rss=lambda: self.process)
        self.forecasts = Forecasts()
        self.roster = SimpleNamespace(serving=lambda: 1)
        self.told: list[str] = []

    def not_owned(self, worker: object, what: str) -> None:
        self.told.append(what)

    def probe(self) -> Any:
        sample = SimpleNamespace(bytes=0, undecided=1)
        worker = SimpleNamespace(tasks=0, cache=None, memory=sample)
        return Probe(worker, self, None)  # type: ignore[arg-type]


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Crew:
    monkeypatch.setattr(_probe, "monotonic", lambda: 1000.0)
    return Crew()


def found(cyclic: float = 0, acyclic: float = 0, undecided: int = 0, held: float = 0) -> Owned:
    owned = int((cyclic + acyclic) * MIB)
    sizes = (owned, int(cyclic * MIB), int(held * MIB), undecided, 1)
    return Owned(*sizes, not undecided, True, (), ())


def decide(probe: Any, tasks: int, result: Owned) -> None:
    probe._worker.tasks = tasks
    probe._note_cycles(result, 0.1)
    probe._note_look(result, 0.0, 1000.0)


def test_the_process_has_to_grow_first(crew: Crew) -> None:
    probe = crew.probe()
    assert not probe._wants_cycles()
    crew.process += LIMIT // 2
    assert probe._wants_cycles()
    probe._worker.memory.undecided = 0  # what is there is decided
    assert not probe._wants_cycles()


def test_what_the_one_before_gave_back_hides_nothing(crew: Crew) -> None:
    """Its cycles are freed when its successor is here already."""
    probe = crew.probe()
    crew.process -= 50 * MIB
    assert not probe._wants_cycles()
    crew.process += LIMIT // 2
    assert probe._wants_cycles()


def test_a_decision_that_was_cut_off_says_nothing(crew: Crew) -> None:
    probe = crew.probe()
    crew.process += LIMIT // 2
    decide(probe, 10, found(undecided=1000, held=50))
    assert not crew.told
    assert probe._cycles_pause == CYCLES_PAUSE
    assert 0 < probe._cycles_at - 1000.0 < CYCLES_PAUSE
    probe._cycles_at = 0.0
    assert probe._wants_cycles()


def test_what_is_held_is_told_when_it_is_known(crew: Crew) -> None:
    probe = crew.probe()
    result = found(held=50)._replace(held_by=(SimpleNamespace(__str__=str),))  # type: ignore[arg-type]
    decide(probe, 10, result)
    assert len(crew.told) == 1


def test_each_that_finds_none_is_followed_by_a_longer_pause(crew: Crew) -> None:
    probe = crew.probe()
    for times in (2, 4, 8):
        decide(probe, times, found())
        assert probe._cycles_at == 1000.0 + CYCLES_PAUSE * times


def test_the_next_is_made_when_they_are_near_the_limit(crew: Crew) -> None:
    """Looks between see none of them, and do not make forget what was decided."""
    probe = crew.probe()
    decide(probe, 10, found(cyclic=10))
    for tasks in range(11, 100):
        probe._worker.tasks = tasks
        near = tasks >= NEAR * LIMIT / MIB
        assert probe._wants_cycles() == near, tasks
        probe._note_look(found(undecided=1), 0.0, 1000.0)
        assert probe._looks._growth == pytest.approx(MIB, rel=0.001)
        assert probe._looks._owned == tasks * MIB


def test_a_successor_is_taken_to_grow_as_the_one_before(crew: Crew) -> None:
    decide(crew.probe(), 10, found(cyclic=20))
    probe = crew.probe()
    probe._worker.tasks = 15
    assert not probe._wants_cycles()
    probe._worker.tasks = 16
    assert probe._wants_cycles()
    decide(probe, 16, found())  # it is not
    probe._worker.tasks, probe._cycles_at = 100, 0.0
    assert not probe._wants_cycles()


def test_the_budget_is_for_all_that_it_may_have_taken(crew: Crew) -> None:
    probe = crew.probe()
    assert probe._cycles_budget() == LIMIT // _probe.SMALL
    crew.process += 10 * LIMIT
    assert probe._cycles_budget() == 11 * LIMIT // _probe.SMALL
    crew.process += 10**15
    assert probe._cycles_budget() == _probe.MOST


# ==== asleep =====================================================================================


class Broken:
    """A look that a task breaks off."""

    def run(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


def test_looks_that_tasks_break_off_wait_for_a_longer_sleep(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or they would cost all that may be spent, and none ever came between two tasks."""
    probe = crew.probe()
    probe._worker.tasks = 1
    assert probe._pause() == 0.0
    monkeypatch.setattr(Probe, "_pass", lambda *_: Broken())
    for times in (1, 2, 4, 8):
        assert probe._look(threading.Lock())
        assert probe._pause() == times * GLANCE
    monkeypatch.undo()
    probe._saw(found()._replace(stable=False), 0.0, early=False)
    assert probe._nap == 0.0
