"""What callers wait for: each wait's answer is a question to the roster. No threads, no engine."""

from collections.abc import Callable
from typing import Any

import pytest

from recyclepool._dispatch import Dispatch
from recyclepool._future import Future
from recyclepool._gate import here
from recyclepool._roster import Roster
from recyclepool._waits import Replaced, Rested, Started, Wait, Waits
from recyclepool._worker import Worker
from recyclepool.errors import PoolClosedError
from recyclepool.states import Reason, State


def new_worker(slot: int, generation: int) -> Worker:
    worker = Worker()
    worker.take_slot(slot, generation, Dispatch(lambda: None), 0.0)
    return worker


def roster_of(size: int, serving: int, *, min_workers: int = 0, surge: int = 1) -> Roster:
    roster = Roster(size, new_worker, min_workers, surge)
    roster.demand(serving)
    roster.reconcile()
    for worker in roster.workers:
        roster.ready(worker)
    return roster


def leave(roster: Roster, worker: Worker, reason: Reason) -> None:
    roster.retire(worker, reason)
    roster.vacate(worker)
    roster.left(worker)


class Told:
    """In the place of a teller."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def add(self, future: Future[Any]) -> None:
        self.futures.append(future)


# ---- Started ------------------------------------------------------------------------------------


def test_started_is_answered_when_the_least_number_serve():
    roster = Roster(3, new_worker, 2)
    started = Started()
    assert started.answer(roster, 0) is None
    roster.want_minimum()
    roster.reconcile()
    for worker, answer in zip(roster.workers, (None, 2), strict=True):
        assert started.answer(roster, 0) is None
        roster.ready(worker)
        assert started.answer(roster, 0) == answer


def test_started_tells_of_all_who_serve():
    assert Started().answer(roster_of(3, 3, min_workers=1), 5) == 3


def test_a_pool_that_keeps_nobody_has_started_at_once():
    assert Started().answer(Roster(3, new_worker), 0) == 0


def test_any_start_that_fails_concerns_who_waits_for_the_start():
    assert Started().concerns(0)
    assert Started().concerns(7)


# ---- Replaced -----------------------------------------------------------------------------------


def replaced_of(*workers: Worker) -> Replaced:
    replaced = Replaced(object())
    replaced.aim(workers)
    return replaced


def test_replaced_by_nobody():
    assert replaced_of().answer(roster_of(2, 2), 0) == 0


def test_its_targets_are_decided_once():
    """The order may be done again, when their successors are here."""
    roster = roster_of(2, 2)
    replaced = replaced_of(roster.workers[0])
    replaced.aim(roster.workers)
    assert replaced.targets == (roster.workers[0],)


def test_one_that_was_followed_stays_so():
    """Its successor may be replaced in turn before the last of the others has followed."""
    roster = roster_of(2, 2)
    one, other = roster.workers
    replaced = replaced_of(one, other)
    leave(roster, one, Reason.MANUAL)
    roster.reconcile()
    successor = roster.workers[-1]
    roster.ready(successor)
    assert replaced.answer(roster, 0) is None
    leave(roster, other, Reason.MANUAL)
    leave(roster, successor, Reason.TASKS)
    roster.wanted = 2
    assert replaced.answer(roster, 0) is None
    roster.reconcile()
    starters = roster.starters()
    roster.ready(starters[other.slot])
    assert replaced.answer(roster, 0) == 2


def test_replaced_step_by_step():
    """The successor starts, is ready, waits for the end of the old one's task, and serves."""
    roster = roster_of(1, 1)
    (old,) = roster.workers
    replaced = replaced_of(old)
    assert replaced.answer(roster, 0) is None
    assert roster.make_due(old, Reason.MANUAL)
    assert replaced.answer(roster, 0) is None
    roster.reconcile()
    new = roster.workers[-1]
    assert replaced.answer(roster, 0) is None
    roster.ready(new)
    assert roster.superseded() == [(old, Reason.MANUAL)]
    roster.retire(old, Reason.MANUAL)
    assert new.state is State.STARTING  # it waits
    assert replaced.answer(roster, 0) is None
    roster.vacate(old)
    assert new.state is State.SERVING
    assert replaced.answer(roster, 0) == 1
    roster.left(old)
    assert replaced.answer(roster, 0) == 1


def test_replaced_without_a_surge():
    """There is a moment in which nobody is there: the answer waits for the successor."""
    roster = roster_of(1, 1, surge=0)
    (old,) = roster.workers
    replaced = replaced_of(old)
    leave(roster, old, Reason.MANUAL)
    assert not roster.workers
    assert replaced.answer(roster, 0) is None
    roster.reconcile()
    assert replaced.answer(roster, 0) is None
    roster.ready(roster.workers[0])
    assert replaced.answer(roster, 0) == 1


@pytest.mark.parametrize("reason", [Reason.IDLE, Reason.RESIZE])
def test_those_who_have_no_successor_are_not_counted(reason):
    roster = roster_of(2, 2)
    one, other = roster.workers
    replaced = replaced_of(one, other)
    leave(roster, one, reason)
    roster.wanted = 1
    assert replaced.answer(roster, 0) is None
    leave(roster, other, Reason.MANUAL)
    roster.reconcile()
    roster.ready(roster.workers[-1])
    assert replaced.answer(roster, 0) == 1


@pytest.mark.parametrize("reason", [Reason.TASKS, Reason.AGE, Reason.TIMEOUT, Reason.LOST])
def test_whoever_went_for_another_reason_is_replaced_too(reason):
    roster = roster_of(1, 1)
    (old,) = roster.workers
    replaced = replaced_of(old)
    leave(roster, old, reason)
    assert replaced.answer(roster, 0) is None
    roster.reconcile()
    roster.ready(roster.workers[0])
    assert replaced.answer(roster, 0) == 1


def test_who_is_not_concerned_is_not_waited_for():
    roster = roster_of(2, 1)
    old, replaced = roster.workers[0], replaced_of(roster.workers[0])
    leave(roster, old, Reason.MANUAL)
    roster.reconcile()
    roster.ready(roster.workers[0])
    roster.demand(2)
    roster.reconcile()
    assert any(w.state is State.STARTING for w in roster.workers)
    assert replaced.answer(roster, 0) == 1


def test_the_starts_that_concern_it_are_those_in_its_slots():
    roster = roster_of(3, 3)
    replaced = replaced_of(roster.workers[0], roster.workers[2])
    assert [replaced.concerns(slot) for slot in range(4)] == [True, False, True, False]


@pytest.mark.parametrize(
    "verb", [lambda r: r.wait(0), lambda r: r.result(0), lambda r: r._condition]
)
def test_the_pools_own_tasks_do_not_wait_for_it(verb, monkeypatch):
    crew = object()
    replaced = Replaced(crew)
    monkeypatch.setattr(here, "crew", crew)
    with pytest.raises(RuntimeError, match="it would wait for itself"):
        verb(replaced)
    replaced.settle(1, None)
    assert replaced.result(0) == 1
    assert replaced.wait(0)
    assert replaced._condition is not None


def test_another_pools_tasks_wait_for_it(monkeypatch):
    monkeypatch.setattr(here, "crew", object())
    assert not Replaced(object()).wait(0)


# ---- Rested -------------------------------------------------------------------------------------


def test_rested_when_nothing_is_queued_and_nobody_works():
    roster = roster_of(2, 2)
    rested = Rested()
    one, other = roster.workers
    for worker in roster.workers:
        worker.resting = False
    assert rested.answer(roster, 0) is None
    one.resting = True
    assert rested.answer(roster, 0) is None
    other.resting = True
    assert rested.answer(roster, 1) is None
    assert rested.answer(roster, 0) == 0


def test_who_is_in_its_teardown_works_no_more():
    roster = roster_of(1, 1)
    (worker,) = roster.workers
    worker.resting = False
    roster.retire(worker, Reason.MANUAL)
    assert Rested().answer(roster, 0) is None
    roster.vacate(worker)
    assert Rested().answer(roster, 0) == 0


def test_an_empty_pool_rests():
    assert Rested().answer(Roster(1, new_worker), 0) == 0
    assert not Rested().concerns(0)


# ---- Waits --------------------------------------------------------------------------------------


class Asked(Wait):
    """Its answer is what the test says; it concerns slot 0."""

    __slots__ = ("questions", "reply")

    def __init__(self, reply: int | None = None) -> None:
        super().__init__()
        self.reply = reply
        self.questions: list[int] = []

    def answer(self, roster: Roster, queued: int) -> int | None:
        self.questions.append(queued)
        return self.reply

    def concerns(self, slot: int) -> bool:
        return slot == 0


@pytest.fixture
def waits() -> Waits:
    return Waits(Told())  # type: ignore[arg-type]


@pytest.fixture
def settle(waits: Waits) -> Callable[..., None]:
    dispatch = Dispatch(lambda: None)
    dispatch.queue.append(Future())

    def settle(refusal: Exception | None = None) -> None:
        waits.settle(Roster(1, new_worker), dispatch, refusal)

    return settle


def test_a_wait_is_settled_as_soon_as_it_has_an_answer(waits, settle):
    wait = Asked()
    waits.add(wait)
    settle()
    assert (wait.done(), list(waits), len(waits)) == (False, [wait], 1)
    wait.reply = 0
    settle()
    assert wait.result(0) == 0
    assert not waits
    assert waits._teller.futures == [wait]
    assert wait.questions == [1, 1]  # how many are queued


def test_to_add_it_again_is_harmless(waits, settle):
    wait = Asked(3)
    waits.add(wait)
    waits.add(wait)
    assert len(waits) == 1
    settle()
    assert wait.result(0) == 3


def test_who_waits_for_a_pool_that_closes_is_refused(waits, settle):
    wait, rested = Asked(1), Rested()
    waits.add(wait)
    waits.add(rested)
    settle(PoolClosedError("it closes"))
    assert isinstance(wait.exception(0), PoolClosedError)
    assert not wait.questions
    assert not rested.done()  # a closing pool comes to rest too
    assert list(waits) == [rested]


def test_each_refusal_is_an_object_of_its_own(waits, settle):
    refusal, cause = PoolClosedError("it closes"), ValueError()
    refusal.__cause__ = cause
    waits.add(one := Asked())
    waits.add(other := Asked())
    settle(refusal)
    errors = [one.exception(0), other.exception(0)]
    assert len({id(error) for error in (refusal, *errors)}) == 3
    assert [str(error) for error in errors] == ["it closes"] * 2
    assert all(error.__cause__ is cause for error in errors)


def test_a_start_that_fails_fails_those_whom_it_concerns(waits, settle):
    wait = Asked()
    waits.add(wait)
    waits.fail(1, ValueError("elsewhere"))
    assert not wait.done()
    waits.fail(0, ValueError("here"))
    assert str(wait.exception(0)) == "here"
    settle()
    assert not waits


def test_one_that_was_given_up_is_forgotten(waits, settle):
    wait = Asked(1)
    waits.add(wait)
    wait.settle(None, None)
    settle()
    assert not waits
    assert wait.result(0) is None
    assert not waits._teller.futures


def test_who_waits_for_rest(waits, settle):
    assert not waits.for_rest()
    waits.add(Asked())
    assert not waits.for_rest()
    waits.add(rested := Rested())
    assert waits.for_rest()
    rested.settle(None, None)
    settle()
    assert not waits.for_rest()


def test_a_start_does_not_wait_for_a_moment_at_which_nobody_goes():
    """Without a surge, and an age shorter than a start, one of them always goes."""
    roster = Roster(2, new_worker, 2, 0)
    roster.want_minimum()
    roster.reconcile()
    first, second = roster.workers
    started = Started()
    roster.ready(first)
    assert started.answer(roster, 0) is None
    roster.retire(first, Reason.AGE)
    roster.ready(second)
    assert started.answer(roster, 0) == 2
