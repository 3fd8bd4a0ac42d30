"""The roster's decisions, one by one: no threads, no engine.

Each test takes the class from a fixture, so that the mutation check can run it on sabotaged copies.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from recyclepool import _roster
from recyclepool._dispatch import Dispatch
from recyclepool._worker import Worker
from recyclepool.errors import WorkerLostError
from recyclepool.states import PoolState, Reason, State

ERROR = ValueError("the initializer is wrong")


@pytest.fixture
def roster_class() -> type[_roster.Roster]:
    return _roster.Roster


def new_worker(slot: int, generation: int) -> Worker:
    worker = Worker()
    worker.take_slot(slot, generation, Dispatch(lambda: None), 0.0)
    return worker


class Empty(Exception):
    """An exception that is false, as a foreign one may be."""

    def __len__(self) -> int:
        return 0


def make(
    roster_class: type[_roster.Roster],
    size: int = 3,
    *,
    serving: int = 0,
    min_workers: int = 0,
    surge: int = 1,
    max_abandoned: int | None = None,
) -> _roster.Roster:
    """A roster of which `serving` workers are ready, and busy."""
    roster = roster_class(
        size, new_worker, min_workers=min_workers, surge=surge, max_abandoned=max_abandoned
    )
    if serving:
        start(roster, serving)
        for worker in roster.workers:
            roster.ready(worker)
            worker.resting = False
    roster.check()
    return roster


def start(roster: _roster.Roster, count: int) -> list[Worker]:
    """Start `count` more workers for as many tasks that nobody else takes; these."""
    before = roster.workers.copy()
    for worker in before:
        worker.resting = False
    roster.demand(count)
    roster.reconcile()
    return [w for w in roster.workers if w not in before]


def facts(roster: _roster.Roster) -> dict[str, Any]:
    """All that is decided, as values."""
    kept = {
        k: v for k, v in vars(roster).items() if k not in ("workers", "abandoned", "_new_worker")
    }
    return kept | {
        "generations": roster.generations.copy(),
        "recycles": roster.recycles.copy(),
        "workers": [(w.slot, w.generation, w.state, w.reason, w.due) for w in roster.workers],
        "abandoned": [(w.slot, w.generation, w.state, w.reason, w.due) for w in roster.abandoned],
    }


def slots(workers: list[Worker]) -> list[tuple[int, int]]:
    return [(w.slot, w.generation) for w in workers]


# ==== a new roster ===============================================================================


def test_a_new_roster_is_open_and_wants_nobody(roster_class):
    roster = roster_class(3, new_worker)
    roster.check()
    assert facts(roster) == {
        "size": 3,
        "min_workers": 0,
        "surge": 1,
        "max_abandoned": None,
        "state": PoolState.OPEN,
        "terminal": False,
        "aborting": False,
        "broken": None,
        "wanted": 0,
        "workers": [],
        "abandoned": [],
        "generations": [0, 0, 0],
        "recycles": {},
        "failed_starts": 0,
        "failures": 0,
        "held_back": False,
        "_once_ready": False,
        "_shrunk": False,
    }
    roster.reconcile()
    assert roster.workers == []


# ==== demand =====================================================================================


def test_a_task_that_finds_nobody_wants_a_worker(roster_class):
    roster = make(roster_class)
    roster.demand(1)
    assert roster.wanted == 1
    roster.demand(2)
    assert roster.wanted == 2


def test_who_is_busy_takes_no_task(roster_class):
    roster = make(roster_class, 4, serving=2)
    roster.demand(1)
    assert roster.wanted == 3


def test_who_was_handed_one_takes_no_other(roster_class):
    roster = make(roster_class, 4, serving=2)
    one, other = roster.workers
    one.resting = other.resting = True
    one.handed.append(object())
    roster.demand(2)
    assert roster.wanted == 3
    roster.demand(1)
    assert roster.wanted == 3


def test_more_may_be_wanted_than_tasks_need(roster_class):
    roster = make(roster_class, 4, serving=1)
    roster.want(3)
    assert roster.wanted == 3
    roster.want(2)
    assert roster.wanted == 3
    roster.want(9)
    assert roster.wanted == 4


@pytest.mark.parametrize("state", [s for s in PoolState if s is not PoolState.OPEN])
def test_no_more_are_wanted_in_a_pool_that_is_not_open(roster_class, state):
    roster = make(roster_class, 4, serving=1)
    roster.state = state
    roster.want(3)
    assert roster.wanted == 1


def test_who_rests_takes_one(roster_class):
    roster = make(roster_class, 4, serving=2)
    roster.workers[0].resting = True
    roster.demand(1)
    assert roster.wanted == 2
    roster.demand(2)
    assert roster.wanted == 3
    roster.workers[1].resting = True
    roster.demand(2)
    assert roster.wanted == 3


def test_more_who_rest_than_tasks_want_nobody(roster_class):
    roster = make(roster_class, 4, serving=3)
    roster.wanted = 1
    for worker in roster.workers:
        worker.resting = True
    roster.demand(1)
    assert roster.wanted == 1


def test_who_starts_will_take_one(roster_class):
    roster = make(roster_class)
    start(roster, 1)
    roster.demand(1)
    assert roster.wanted == 1
    roster.demand(2)
    assert roster.wanted == 2


def test_who_is_to_go_takes_none(roster_class):
    roster = make(roster_class, 4, serving=2)
    retired = roster.workers[0]
    retired.resting = True
    roster.retire(retired, Reason.TASKS)
    roster.wanted = 0
    roster.demand(1)
    assert roster.wanted == 2  # one that is busy, and another for the task


def test_without_a_task_min_workers_are_not_asked_for(roster_class):
    roster = make(roster_class, 3, serving=1)
    roster.min_workers = 2
    roster.workers[0].resting = True
    roster.demand(0)
    assert roster.wanted == 1
    roster.demand(1)
    assert roster.wanted == 1


def test_a_successor_takes_none_while_a_task_runs_in_its_slot(roster_class):
    roster = make(roster_class, 3, serving=1)
    old = roster.workers[0]
    roster.retire(old, Reason.TASKS)
    roster.reconcile()
    assert [w.resting for w in roster.active()] == [True]
    roster.demand(1)
    assert roster.wanted == 2
    roster.wanted = 1
    roster.vacate(old)
    roster.demand(1)
    assert roster.wanted == 1


def test_demand_stops_at_the_size(roster_class):
    roster = make(roster_class, 3)
    roster.demand(100)
    assert roster.wanted == 3


def test_an_open_pool_never_wants_fewer_again(roster_class):
    roster = make(roster_class, 3)
    roster.demand(3)
    roster.demand(1)
    roster.demand(0)
    assert roster.wanted == 3


def test_min_workers_come_with_the_first_task_and_not_before(roster_class):
    roster = make(roster_class, 3, min_workers=2)
    roster.demand(0)
    assert roster.wanted == 0
    roster.demand(1)
    assert roster.wanted == 2
    roster.demand(3)
    assert roster.wanted == 3


def test_min_workers_come_with_start(roster_class):
    roster = make(roster_class, 3, min_workers=2)
    roster.want_minimum()
    assert roster.wanted == 2
    roster.wanted = 3
    roster.want_minimum()
    assert roster.wanted == 3


def test_closing_wants_workers_for_unserved_tasks_only(roster_class):
    roster = make(roster_class, 3, serving=2, min_workers=2)
    roster.wanted = 3
    roster.close()
    roster.demand(0)
    assert roster.wanted == 2  # those who are here
    for worker in roster.workers.copy():
        roster.retire(worker, Reason.TASKS)
    roster.demand(1)
    assert roster.wanted == 1
    roster.demand(100)
    assert roster.wanted == 3
    roster.demand(0)
    assert roster.wanted == 0


# ==== reconcile ==================================================================================


def test_reconcile_fills_the_lowest_slots(roster_class):
    roster = make(roster_class, 3)
    assert slots(start(roster, 2)) == [(0, 1), (1, 1)]
    assert slots(start(roster, 1)) == [(2, 1)]
    assert [w.state for w in roster.workers] == [State.STARTING] * 3
    roster.check()


def test_a_successor_gets_the_slot_and_the_next_generation(roster_class):
    roster = make(roster_class, 3, serving=3)
    roster.retire(roster.workers[1], Reason.TASKS)
    roster.reconcile()
    assert slots(roster.workers) == [(0, 1), (1, 1), (2, 1), (1, 2)]
    assert roster.generations == [1, 1, 1]  # it counts when it is ready
    roster.ready(roster.workers[-1])
    assert roster.generations == [1, 2, 1]
    roster.check()


def test_reconcile_adds_no_more_than_wanted(roster_class):
    roster = make(roster_class, 3)
    start(roster, 1)
    roster.reconcile()
    assert len(roster.workers) == 1
    roster.wanted = 0
    roster.reconcile()
    assert len(roster.workers) == 1


def test_fewer_wanted_than_there_are_sends_nobody_away_and_adds_nobody(roster_class):
    roster = make(roster_class, 4, serving=3)
    roster.wanted = 1
    roster.reconcile()
    assert len(roster.workers) == 3


def test_surge_bounds_how_many_leave_at_a_time(roster_class):
    roster = make(roster_class, 3, serving=3)
    for worker in roster.workers.copy():
        roster.retire(worker, Reason.TASKS)
    roster.reconcile()
    assert slots(roster.active()) == [(0, 2)]  # size 3, surge 1: four in all
    roster.check()
    roster.left(roster.workers[0])
    roster.reconcile()
    assert slots(roster.active()) == [(0, 2), (1, 2)]
    roster.check()


def test_without_surge_the_old_one_leaves_first(roster_class):
    roster = make(roster_class, 2, serving=2, surge=0)
    old = roster.workers[0]
    roster.retire(old, Reason.TASKS)
    roster.reconcile()
    assert slots(roster.active()) == [(1, 1)]
    roster.left(old)
    roster.reconcile()
    assert slots(roster.active()) == [(1, 1), (0, 2)]
    roster.check()


# ==== what is there ==============================================================================


def test_active_and_serving(roster_class):
    roster = make(roster_class, 4, serving=2)
    (starting,) = start(roster, 1)
    first, second = roster.workers[:2]
    assert roster.active() == [first, second, starting]
    assert roster.serving() == 2
    roster.retire(first, Reason.TASKS)
    assert roster.active() == [second, starting]
    assert roster.serving() == 1
    roster.abandon(second)
    assert roster.active() == [starting]
    assert roster.serving() == 0


def test_vacancies_are_empty_slots(roster_class):
    roster = make(roster_class, 3)
    assert roster.vacancies() == 3
    start(roster, 1)
    assert roster.vacancies() == 2
    start(roster, 2)
    assert roster.vacancies() == 0


def test_vacancies_are_bounded_by_those_who_still_leave(roster_class):
    roster = make(roster_class, 2, serving=2)
    first, second = roster.workers
    roster.retire(first, Reason.TASKS)
    assert roster.vacancies() == 1
    roster.retire(second, Reason.TASKS)
    assert roster.vacancies() == 1  # 2 slots are empty, and 1 more may be here
    roster.left(first)
    assert roster.vacancies() == 2
    roster.abandon(second)
    assert roster.vacancies() == 2  # abandoned ones do not count


def test_nobody_can_start_while_aborting_broken_or_after_the_end(roster_class):
    roster = make(roster_class)
    roster.close()
    assert roster.vacancies() == 3  # a drain may need workers
    roster.destroy()
    assert roster.vacancies() == 0
    roster.end()
    assert roster.vacancies() == 3
    roster.start_failed(start(roster, 1)[0], ERROR)
    assert roster.vacancies() == 0
    roster.close(terminal=True)
    roster.end()
    assert roster.state is PoolState.SHUTDOWN
    assert roster.vacancies() == 0


def test_an_error_that_is_false_breaks_the_pool_too(roster_class):
    roster = make(roster_class)
    roster.start_failed(start(roster, 1)[0], Empty())
    assert roster.vacancies() == 0


def test_after_destroy_no_worker_starts(roster_class):
    roster = make(roster_class, 3, serving=1)
    roster.destroy()
    assert start(roster, 5) == []


# ==== a worker's life ============================================================================


def test_ready_serves(roster_class):
    roster = make(roster_class)
    (worker,) = start(roster, 1)
    assert roster.serving() == 0
    roster.ready(worker)
    assert worker.state is State.SERVING
    assert worker.reason is None


def test_retire_counts_once_and_keeps_its_reason(roster_class):
    roster = make(roster_class, 2, serving=2)
    first, second = roster.workers
    roster.retire(first, Reason.TASKS)
    roster.retire(first, Reason.CLOSE)
    assert (first.state, first.reason) == (State.RETIRING, Reason.TASKS)
    assert roster.recycles == {Reason.TASKS: 1}
    roster.retire(second, Reason.TASKS)
    assert roster.recycles == {Reason.TASKS: 2}
    assert roster.workers == [first, second]
    assert roster.wanted == 2  # so successors follow


def test_one_that_is_retired_while_it_starts_never_serves(roster_class):
    roster = make(roster_class)
    (worker,) = start(roster, 1)
    roster.retire(worker, Reason.CLOSE)
    assert (worker.state, worker.reason) == (State.RETIRING, Reason.CLOSE)
    roster.ready(worker)
    assert worker.state is State.RETIRING
    roster.reconcile()
    roster.start_failed(roster.workers[-1], ERROR)
    assert roster.state is PoolState.OPEN  # it did become ready


def test_left(roster_class):
    roster = make(roster_class, 2, serving=2)
    first, second = roster.workers
    roster.retire(first, Reason.TASKS)
    roster.left(first)
    assert first.state is State.STOPPED
    assert roster.workers == [second]


def test_one_that_has_stopped_stays_so(roster_class):
    roster = make(roster_class, serving=1)
    (worker,) = roster.workers
    roster.left(worker)
    before = facts(roster)
    roster.ready(worker)
    roster.retire(worker, Reason.CLOSE)
    roster.start_failed(worker, ERROR)
    roster.not_launched(worker)
    roster.abandon(worker)
    roster.left(worker)
    assert worker.state is State.STOPPED
    assert facts(roster) == before


def test_abandon_gives_the_slot_free_and_leaving_ends_it(roster_class):
    roster = make(roster_class, 1, serving=1)
    (worker,) = roster.workers
    roster.abandon(worker)
    assert worker.state is State.ABANDONED
    assert (roster.workers, roster.abandoned) == ([], [worker])
    roster.reconcile()
    assert slots(roster.active()) == [(0, 2)]
    roster.check()
    roster.left(worker)
    assert worker.state is State.ABANDONED  # states only grow
    assert roster.abandoned == []
    assert slots(roster.active()) == [(0, 2)]


def test_what_an_abandoned_one_does_late_touches_nothing_in_the_next_epoch(roster_class):
    roster = make(roster_class, 2)
    (worker,) = start(roster, 1)
    roster.destroy()
    roster.retire(worker, Reason.CLOSE)
    roster.abandon(worker)
    roster.end()
    (successor,) = start(roster, 1)
    before = facts(roster)
    roster.ready(worker)
    roster.retire(worker, Reason.CLOSE)
    assert facts(roster) == before
    roster.start_failed(worker, ERROR)
    assert facts(roster) == before
    roster.not_launched(worker)
    assert facts(roster) == before
    roster.start_failed(successor, ERROR)
    assert roster.broken is ERROR  # nobody was ever ready in this epoch


# ==== a successor waits for its slot =============================================================


def with_successor(roster_class) -> tuple[_roster.Roster, Worker, Worker]:
    """A roster of 3 with one serving, one whose last task runs, and that one's successor."""
    roster = make(roster_class, 3, serving=2)
    old = roster.workers[0]
    roster.retire(old, Reason.TASKS)
    roster.reconcile()
    new = roster.workers[-1]
    assert new.slot == old.slot
    return roster, old, new


def test_a_successor_serves_when_the_old_one_runs_no_task_any_more(roster_class):
    roster, old, new = with_successor(roster_class)
    roster.ready(new)
    assert new.state is State.STARTING
    roster.vacate(old)
    assert new.state is State.SERVING
    assert old.state is State.RETIRING


@pytest.mark.parametrize("in_haste", [False, True])
def test_the_successor_of_one_in_haste_is_made_when_it_has_let_go(roster_class, in_haste):
    roster = make(roster_class, 2, serving=2)
    leaver = roster.workers[1]
    leaver.in_haste = in_haste
    roster.retire(leaver, Reason.MEMORY)
    assert roster.vacancies() == (not in_haste)
    roster.reconcile()
    assert [w.slot for w in roster.starters().values()] == [1] * (not in_haste)
    roster.vacate(leaver)
    assert roster.vacancies() == in_haste
    roster.reconcile()
    assert [w.slot for w in roster.starters().values()] == [1]


def test_nobody_waits_any_longer_for_one_in_haste_that_is_given_up(roster_class):
    roster = make(roster_class, 1, serving=1)
    leaver = roster.workers[0]
    leaver.in_haste = True
    roster.retire(leaver, Reason.MEMORY)
    roster.abandon(leaver)
    roster.reconcile()
    assert [w.slot for w in roster.workers] == [0]


def test_a_successor_that_is_late_serves_at_once(roster_class):
    roster, old, new = with_successor(roster_class)
    roster.vacate(old)
    assert new.state is State.STARTING  # it is not ready
    roster.ready(new)
    assert new.state is State.SERVING


@pytest.mark.parametrize("end", ["left", "abandon", "not_launched", "start_failed"])
def test_whatever_ends_the_old_one_lets_its_successor_serve(roster_class, end):
    roster, old, new = with_successor(roster_class)
    roster.ready(new)
    getattr(roster, end)(*(old, ERROR) if end == "start_failed" else (old,))
    assert new.state is State.SERVING


def test_who_need_not_wait_for_the_end_of_a_task(roster_class):
    roster, old, new = with_successor(roster_class)
    other = roster.workers[1]
    assert roster.may_serve() == [old, other]
    roster.vacate(old)
    assert roster.may_serve() == [old, other, new]
    (starting,) = start(roster, 1)
    assert roster.may_serve() == [old, other, new, starting]


def test_who_was_let_in_waits_no_more(roster_class):
    roster, old, new = with_successor(roster_class)
    old.admitted = roster.workers[1].admitted = True
    assert roster.may_serve() == []
    roster.vacate(old)
    assert roster.may_serve() == [new]
    new.admitted = True
    assert roster.may_serve() == []


def test_one_that_is_to_go_need_not_wait_either(roster_class):
    roster, old, new = with_successor(roster_class)
    roster.retire(new, Reason.CLOSE)
    assert new in roster.may_serve()
    assert old in roster.may_serve()


def test_a_task_in_another_slot_holds_nobody_up(roster_class):
    roster, old, _ = with_successor(roster_class)
    roster.demand(2)
    roster.left(old)
    roster.reconcile()
    other = roster.workers[-1]
    assert other.slot == 2
    roster.ready(other)
    assert other.state is State.SERVING


def test_all_who_held_the_slot_before_must_be_done(roster_class):
    roster = make(roster_class, 1, serving=1, surge=2)
    first = roster.workers[0]
    roster.retire(first, Reason.TASKS)
    roster.reconcile()
    second = roster.workers[1]
    roster.retire(second, Reason.TASKS)
    roster.reconcile()
    third = roster.workers[2]
    roster.check()
    roster.ready(third)
    roster.vacate(second)
    assert third.state is State.STARTING
    roster.vacate(first)
    assert third.state is State.SERVING


def test_one_that_was_retired_while_it_waited_is_not_let_in(roster_class):
    roster, old, new = with_successor(roster_class)
    roster.ready(new)
    roster.retire(new, Reason.CLOSE)
    roster.vacate(old)
    assert new.state is State.RETIRING


# ==== failing starts =============================================================================


def test_the_first_start_that_fails_breaks_the_pool(roster_class):
    roster = make(roster_class)
    (worker,) = start(roster, 1)
    roster.start_failed(worker, ERROR)
    assert roster.broken is ERROR
    assert roster.state is PoolState.BROKEN
    assert worker.state is State.STOPPED
    assert roster.workers == []
    assert roster.failed_starts == 1
    assert roster.generations == [0, 0, 0]
    assert not roster.held_back  # it is no matter of time


def test_a_start_that_fails_while_the_pool_closes_leaves_it_closing(roster_class):
    roster = make(roster_class)
    (worker,) = start(roster, 1)
    roster.close()
    roster.start_failed(worker, ERROR)
    assert roster.broken is ERROR
    assert roster.state is PoolState.CLOSING
    assert roster.is_over(1)


def test_once_one_was_ready_a_failing_start_holds_the_next_ones_back(roster_class):
    roster = make(roster_class, 4, serving=1)
    first, second = start(roster, 2)
    assert roster.wanted == 3
    roster.start_failed(first, ERROR)
    assert roster.broken is None
    assert roster.state is PoolState.OPEN
    assert roster.wanted == 3
    assert roster.held_back
    assert roster.vacancies() == 0
    roster.demand(2)
    roster.reconcile()
    assert len(roster.workers) == 2  # nobody tries again by himself
    roster.resume()
    assert not roster.held_back
    assert roster.vacancies() == 2
    roster.reconcile()
    assert len(roster.workers) == 3
    assert second in roster.workers
    assert roster.failed_starts == roster.failures == 1
    assert slots(roster.active()) == [(0, 1), (2, 1), (1, 1)]  # no generation is used up
    roster.check()


def test_one_that_gets_ready_ends_the_holding_back(roster_class):
    roster = make(roster_class, 4, serving=1)
    first, second = start(roster, 2)
    roster.start_failed(first, ERROR)
    roster.ready(second)
    assert not roster.held_back
    assert roster.failures == 0
    roster.reconcile()
    assert len(roster.workers) == 3


def test_of_starts_that_failed_side_by_side_the_first_counts(roster_class):
    roster = make(roster_class, 8, serving=1)
    for worker in start(roster, 6):
        roster.start_failed(worker, ERROR)
    assert roster.failed_starts == 6
    assert roster.failures == 1
    roster.resume()
    roster.reconcile()
    for worker in roster.workers[1:]:
        roster.start_failed(worker, ERROR)
    assert roster.failures == 2


def test_a_failing_start_leaves_what_is_wanted(roster_class):
    roster = make(roster_class, 4, serving=2)
    (worker,) = start(roster, 1)
    roster.wanted = 1
    roster.start_failed(worker, ERROR)
    assert roster.wanted == 1


def test_the_end_forgets_what_was_held_back(roster_class):
    roster = make(roster_class, 2, serving=1)
    fail(roster, 3)
    assert (roster.held_back, roster.failures) == (True, 3)
    roster.close()
    assert (roster.held_back, roster.failures) == (True, 3)
    roster.left(roster.workers[0])
    roster.end()
    assert (roster.held_back, roster.failures) == (False, 0)
    assert roster.failed_starts == 3


def fail(roster: _roster.Roster, times: int) -> None:
    for _ in range(times):
        roster.resume()
        (worker,) = start(roster, 1)
        roster.start_failed(worker, ERROR)


def test_five_failing_starts_in_a_row_with_nobody_serving_break(roster_class):
    roster = make(roster_class, 2, serving=1)
    roster.left(roster.workers[0])
    fail(roster, 4)
    assert roster.broken is None
    fail(roster, 1)
    assert roster.broken is ERROR
    assert roster.state is PoolState.BROKEN
    assert roster.failed_starts == 5


def test_with_somebody_serving_they_never_break_it(roster_class):
    roster = make(roster_class, 2, serving=1)
    fail(roster, 20)
    assert roster.broken is None
    assert roster.state is PoolState.OPEN
    roster.left(roster.workers[0])
    roster.wanted = 0
    fail(roster, 1)
    assert roster.broken is ERROR  # the 21st in a row


def test_one_that_gets_ready_ends_the_row(roster_class):
    roster = make(roster_class, 2, serving=1)
    roster.left(roster.workers[0])
    fail(roster, 4)
    roster.resume()
    (worker,) = start(roster, 1)
    roster.ready(worker)
    roster.left(worker)
    fail(roster, 4)
    assert roster.broken is None
    fail(roster, 1)
    assert roster.broken is ERROR


def test_the_next_epoch_forgets_that_one_was_ready(roster_class):
    roster = make(roster_class, 2, serving=1)
    roster.close()
    roster.left(roster.workers[0])
    roster.end()
    fail(roster, 1)
    assert roster.broken is ERROR


def test_a_thread_that_cannot_be_had_is_no_failure_of_the_initializer(roster_class):
    roster = make(roster_class, 3)
    first, second = start(roster, 2)
    roster.not_launched(second)
    assert second.state is State.STOPPED
    assert roster.workers == [first]
    assert roster.wanted == 1
    assert roster.failed_starts == roster.failures == 1
    assert roster.broken is None
    assert roster.state is PoolState.OPEN
    assert roster.held_back
    roster.demand(2)
    roster.reconcile()
    assert slots(roster.active()) == [(0, 1)]
    roster.resume()
    roster.reconcile()
    assert slots(roster.active()) == [(0, 1), (1, 1)]


def test_with_nobody_here_the_next_task_tries_again_at_once(roster_class):
    roster = make(roster_class, 3)
    for worker in start(roster, 2):
        roster.not_launched(worker)
    assert not roster.held_back
    assert roster.wanted == 0
    assert slots(start(roster, 1)) == [(0, 1)]


def test_threads_that_cannot_be_had_count_once_while_they_are_held_back(roster_class):
    roster = make(roster_class, 5, serving=1)
    for worker in start(roster, 3):
        roster.not_launched(worker)
    assert (roster.failed_starts, roster.failures) == (3, 1)
    roster.resume()
    (worker,) = start(roster, 1)
    roster.not_launched(worker)
    assert (roster.failed_starts, roster.failures) == (4, 2)


def test_a_start_that_is_late_counts_as_one_that_failed(roster_class):
    roster = make(roster_class, 3, serving=1)
    (worker,) = start(roster, 1)
    roster.abandon(worker, ERROR)
    assert worker.state is State.ABANDONED
    assert (roster.failed_starts, roster.failures, roster.held_back) == (1, 1, True)
    assert roster.broken is None
    roster.abandon(worker, ERROR)
    assert roster.failed_starts == 1
    assert roster.abandoned == [worker]
    roster.resume()
    roster.reconcile()
    assert slots(roster.active()) == [(0, 1), (1, 2)]  # two of one name at a time would confuse
    roster.check()


def test_the_first_start_that_is_late_breaks_the_pool(roster_class):
    roster = make(roster_class, 3)
    (worker,) = start(roster, 1)
    roster.abandon(worker, Empty())
    assert isinstance(roster.broken, Empty)
    assert roster.state is PoolState.BROKEN


def test_a_later_start_that_is_late_breaks_nothing_and_no_start_is_no_failure(roster_class):
    roster = make(roster_class, 3, serving=2)
    roster.abandon(roster.workers[0])
    assert (roster.failed_starts, roster.failures, roster.held_back) == (0, 0, False)


# ==== one that is due ============================================================================


def test_who_is_due_serves_until_its_successor_is_ready(roster_class):
    roster = make(roster_class, 2, serving=2)
    old, other = roster.workers
    assert roster.make_due(old, Reason.AGE) is True
    assert (old.due, old.state, other.due) == (Reason.AGE, State.SERVING, None)
    assert roster.superseded() == []
    roster.reconcile()
    new = roster.workers[-1]
    assert slots(roster.workers) == [(0, 1), (1, 1), (0, 2)]
    assert roster.active() == [old, other]  # who holds the slot is there
    assert roster.superseded() == []
    roster.check()
    roster.reconcile()
    assert len(roster.workers) == 3  # one successor is enough
    roster.ready(new)
    assert new.state is State.STARTING  # its slot is held
    assert new not in roster.may_serve()
    assert roster.superseded() == [(old, Reason.AGE)]
    roster.retire(old, Reason.AGE)
    assert new.state is State.STARTING  # a task may run in it
    roster.vacate(old)
    assert new.state is State.SERVING
    assert roster.superseded() == []
    assert roster.recycles == {Reason.AGE: 1}
    assert roster.wanted == 2
    roster.check()


def test_a_successor_that_fails_leaves_the_old_one_where_it_is(roster_class):
    roster = make(roster_class, 2, serving=2)
    old = roster.workers[0]
    roster.make_due(old, Reason.MANUAL)
    roster.reconcile()
    roster.start_failed(roster.workers[-1], ERROR)
    assert roster.superseded() == []
    assert (old.state, old.due) == (State.SERVING, Reason.MANUAL)
    roster.reconcile()
    assert len(roster.workers) == 2
    roster.resume()
    roster.reconcile()
    assert slots(roster.workers) == [(0, 1), (1, 1), (0, 2)]


def test_one_is_due_once(roster_class):
    roster = make(roster_class, 2, serving=1)
    (worker,) = roster.workers
    assert roster.make_due(worker, Reason.AGE) is True
    assert roster.make_due(worker, Reason.MANUAL) is False
    assert worker.due is Reason.AGE


def test_one_that_starts_may_be_due_and_starts_all_the_same(roster_class):
    roster = make(roster_class, 2)
    (worker,) = start(roster, 1)
    assert roster.make_due(worker, Reason.MANUAL) is True
    roster.reconcile()
    assert roster.superseded() == []
    assert roster.workers == [worker]
    roster.ready(worker)
    assert worker.state is State.SERVING
    roster.reconcile()
    assert slots(roster.workers) == [(0, 1), (0, 2)]


def test_one_that_goes_is_not_due(roster_class):
    roster = make(roster_class, 3, serving=3)
    first, second, third = roster.workers
    roster.retire(first, Reason.TASKS)
    roster.left(second)
    roster.abandon(third)
    assert not any(roster.make_due(worker, Reason.AGE) for worker in (first, second, third))
    assert (first.due, second.due, third.due) == (None, None, None)


def test_nobody_is_due_in_a_pool_that_is_not_open(roster_class):
    for end in ("close", "destroy", "break"):
        roster = make(roster_class, 2, serving=2)
        first, second = roster.workers
        roster.make_due(first, Reason.AGE)
        if end == "break":
            roster._break(ERROR)
            assert first.due is Reason.AGE
            roster.reconcile()
            assert roster.workers == [first, second]
        else:
            getattr(roster, end)()
            assert first.due is None
        assert roster.make_due(second, Reason.AGE) is False
        assert second.due is None


def test_as_many_successors_at_a_time_as_the_surge_allows(roster_class):
    roster = make(roster_class, 4, serving=4, surge=2)
    for worker in roster.workers:
        roster.make_due(worker, Reason.MANUAL)
    roster.reconcile()
    assert slots(roster.workers[4:]) == [(0, 2), (1, 2)]
    assert roster.superseded() == []
    roster.ready(roster.workers[4])
    assert roster.superseded() == [(roster.workers[0], Reason.MANUAL)]
    roster.reconcile()
    assert len(roster.workers) == 6
    roster.check()


def test_successors_leave_the_room_that_a_full_pool_needs(roster_class):
    roster = make(roster_class, 3, serving=1)
    roster.make_due(roster.workers[0], Reason.AGE)
    roster.reconcile()
    assert slots(roster.workers) == [(0, 1), (0, 2)]
    assert roster.vacancies() == 2
    start(roster, 2)
    assert slots(roster.workers[2:]) == [(1, 1), (2, 1)]
    roster.check()


def test_who_goes_for_another_reason_takes_up_the_surge(roster_class):
    roster = make(roster_class, 2, serving=2)
    first, second = roster.workers
    roster.retire(first, Reason.TASKS)
    roster.make_due(second, Reason.AGE)
    roster.reconcile()
    assert slots(roster.workers) == [(0, 1), (1, 1), (0, 2)]
    roster.left(first)
    roster.reconcile()
    assert slots(roster.workers) == [(1, 1), (0, 2), (1, 2)]
    roster.check()


def test_a_slot_that_is_empty_takes_up_the_surge_no_longer_than_it_is(roster_class):
    roster = make(roster_class, 2, serving=2)
    first, second = roster.workers
    roster.retire(first, Reason.IDLE)
    roster.wanted = 1
    roster.make_due(second, Reason.AGE)
    roster.reconcile()
    assert slots(roster.workers) == [(0, 1), (1, 1)]  # room for one, and a task may come
    roster.left(first)
    roster.reconcile()
    assert slots(roster.workers) == [(1, 1), (1, 2)]


def test_a_starter_of_an_empty_slot_takes_up_none(roster_class):
    roster = make(roster_class, 2, serving=1)
    start(roster, 1)
    roster.make_due(roster.workers[0], Reason.AGE)
    roster.reconcile()
    assert slots(roster.workers) == [(0, 1), (1, 1), (0, 2)]
    roster.check()


def test_without_surge_who_is_due_goes_when_nobody_else_comes_or_goes(roster_class):
    roster = make(roster_class, 3, serving=2, surge=0)
    first, second = roster.workers
    (starting,) = start(roster, 1)
    for worker in (first, second):
        roster.make_due(worker, Reason.MANUAL)
    roster.reconcile()
    assert len(roster.workers) == 3
    assert roster.superseded() == []  # another starts
    roster.ready(starting)
    assert roster.superseded() == [(first, Reason.MANUAL)]  # one at a time
    roster.retire(first, Reason.MANUAL)
    roster.reconcile()
    assert roster.superseded() == []
    roster.left(first)
    assert roster.superseded() == []  # first who follows it
    roster.reconcile()
    assert roster.superseded() == []
    roster.ready(roster.workers[-1])
    assert roster.superseded() == [(second, Reason.MANUAL)]


def test_without_surge_nobody_goes_whom_nobody_can_follow(roster_class):
    roster = make(roster_class, 3, serving=2, surge=0)
    first, _ = roster.workers
    (starting,) = start(roster, 1)
    roster.make_due(first, Reason.MANUAL)
    roster.start_failed(starting, ERROR)
    roster.wanted = 2
    assert roster.superseded() == []
    roster.resume()
    assert roster.superseded() == [(first, Reason.MANUAL)]
    roster.wanted = 1
    assert roster.superseded() == [(first, Reason.MANUAL)]


def test_with_surge_nobody_goes_before_its_successor_is_there(roster_class):
    roster = make(roster_class, 1, serving=1)
    roster.make_due(roster.workers[0], Reason.MANUAL)
    assert roster.superseded() == []


def test_a_successor_that_replaces_nobody_goes(roster_class):
    """The pool is closed while a successor starts: the old one is not replaced any more."""
    roster = make(roster_class, 2, serving=1)
    (old,) = roster.workers
    roster.make_due(old, Reason.AGE)
    roster.reconcile()
    new = roster.workers[-1]
    roster.close()
    assert roster.superseded() == [(new, Reason.CLOSE)]
    roster.retire(new, Reason.CLOSE)
    assert roster.superseded() == []
    assert old.state is State.SERVING


def test_a_successor_that_is_itself_due_takes_the_place_all_the_same(roster_class):
    roster = make(roster_class, 2, serving=1)
    (old,) = roster.workers
    roster.make_due(old, Reason.AGE)
    roster.reconcile()
    new = roster.workers[-1]
    assert roster.make_due(new, Reason.MANUAL) is True
    assert roster.superseded() == []
    roster.ready(new)
    assert roster.superseded() == [(old, Reason.AGE)]
    roster.close()
    new.due = Reason.REQUESTED
    assert roster.superseded() == [(new, Reason.REQUESTED)]


def test_when_the_old_one_goes_before_its_successor_is_ready_that_holds_the_slot(roster_class):
    roster = make(roster_class, 2, serving=1)
    (old,) = roster.workers
    roster.make_due(old, Reason.AGE)
    roster.reconcile()
    new = roster.workers[-1]
    roster.retire(old, Reason.TIMEOUT)
    assert roster.active() == [new]
    assert roster.superseded() == []
    roster.vacate(old)
    roster.left(old)
    roster.ready(new)
    assert new.state is State.SERVING
    assert old.reason is Reason.TIMEOUT
    roster.check()


def test_holders_and_starters(roster_class):
    roster = make(roster_class, 3, serving=2)
    first, second = roster.workers
    (third,) = start(roster, 1)
    roster.make_due(first, Reason.AGE)
    roster.reconcile()
    successor = roster.workers[-1]
    assert roster.holders() == {0: first, 1: second}
    assert roster.starters() == {0: successor, 2: third}
    roster.retire(second, Reason.TASKS)
    assert roster.holders() == {0: first}


# ==== fewer slots, and more ======================================================================


def test_more_slots(roster_class):
    roster = make(roster_class, 2, serving=2)
    roster.resize(4)
    assert (roster.size, roster.wanted) == (4, 2)
    assert roster.generations == [1, 1, 0, 0]
    assert roster.vacancies() == 2
    assert slots(start(roster, 2)) == [(2, 1), (3, 1)]
    assert not roster._shrunk
    roster.check()


def test_fewer_slots(roster_class):
    roster = make(roster_class, 4, serving=3)
    (starting,) = start(roster, 1)
    first, second, third = roster.workers[:3]
    roster.resize(2)
    assert (roster.size, roster.wanted) == (2, 2)
    assert roster.superseded() == [(third, Reason.RESIZE), (starting, Reason.RESIZE)]
    roster.check()
    for worker, reason in roster.superseded():
        roster.retire(worker, reason)
    assert roster.superseded() == []
    assert roster.active() == [first, second]
    assert roster.vacancies() == 0
    roster.reconcile()
    assert len(roster.workers) == 4
    roster.check()
    roster.retire(first, Reason.TASKS)
    roster.reconcile()
    assert slots(roster.active()) == [
        (1, 1),
        (0, 2),
    ]  # those of slots that are no more do not count
    roster.check()


def test_a_slot_that_comes_back_goes_on_with_its_generations(roster_class):
    roster = make(roster_class, 2, serving=2)
    second = roster.workers[1]
    roster.resize(1)
    assert roster.generations == [1, 1]
    roster.retire(second, Reason.RESIZE)
    roster.resize(2)
    roster.check()
    assert slots(start(roster, 1)) == [(1, 2)]
    roster.ready(roster.workers[-1])
    assert roster.workers[-1].state is State.STARTING  # a task may run in it
    roster.vacate(second)
    assert roster.workers[-1].state is State.SERVING


def test_the_same_size_changes_nothing(roster_class):
    roster = make(roster_class, 3, serving=2)
    before = facts(roster)
    roster.resize(3)
    assert facts(roster) == before


def test_a_slot_that_is_no_more_has_no_successor(roster_class):
    roster = make(roster_class, 2, serving=2)
    first, second = roster.workers
    roster.make_due(second, Reason.MANUAL)
    roster.resize(1)
    assert roster.superseded() == [(second, Reason.RESIZE)]
    roster.retire(second, Reason.RESIZE)
    roster.reconcile()
    assert roster.workers == [first, second]


def test_shrunk_when_some_go_half_way_more_than_allowed_may_be_here(roster_class):
    roster = make(roster_class, 3, serving=3, surge=0)
    for worker in roster.workers:
        roster.retire(worker, Reason.TASKS)
    roster.resize(1)
    roster.resize(2)
    roster.surge = -1  # as if more had gone half-way
    roster.check()
    roster._shrunk = False
    broken(roster, "more workers than size and surge allow")
    roster._shrunk = True
    roster.destroy()
    for worker in roster.workers.copy():
        roster.left(worker)
    roster.end()
    assert not roster._shrunk


# ==== fewer, when there is nothing to do =========================================================


def test_more_than_the_least_number_may_shrink(roster_class):
    roster = make(roster_class, 3, serving=2, min_workers=1)
    assert roster.may_shrink()
    roster.shrink()
    assert roster.wanted == 1
    roster.retire(roster.workers[0], Reason.IDLE)
    assert not roster.may_shrink()
    roster.reconcile()
    assert len(roster.active()) == 1
    roster.shrink()
    assert roster.wanted == 1


def test_without_a_least_number_nobody_may_be_left(roster_class):
    roster = make(roster_class, 3, serving=1)
    assert roster.may_shrink()
    roster.shrink()
    assert roster.wanted == 0


def test_a_pool_that_ends_does_not_shrink(roster_class):
    roster = make(roster_class, 3, serving=2)
    roster.close()
    assert not roster.may_shrink()


# ==== one that is given up =======================================================================


@pytest.mark.parametrize("most", [None, 0, 1])
def test_more_abandoned_than_are_allowed_break_the_pool(roster_class, most):
    roster = make(roster_class, 3, serving=3, max_abandoned=most)
    allowed = 3 if most is None else most
    for _ in range(allowed):
        if not roster.workers:
            start(roster, 1)
        roster.abandon(roster.workers[0])
        assert roster.state is PoolState.OPEN
    if not roster.workers:
        start(roster, 1)
    roster.abandon(roster.workers[0])
    assert roster.state is PoolState.BROKEN
    assert isinstance(roster.broken, WorkerLostError)
    assert str(roster.broken) == (
        f"{allowed + 1} threads are stuck in tasks that do not end, "
        f"and no more than {allowed} may be (max_abandoned)"
    )
    assert roster.vacancies() == 0


def test_one_that_came_back_does_not_count(roster_class):
    roster = make(roster_class, 3, serving=3, max_abandoned=1)
    first, second, _ = roster.workers
    roster.abandon(first)
    roster.left(first)
    roster.abandon(second)
    assert roster.state is PoolState.OPEN


def test_a_pool_that_ends_is_not_broken_by_who_is_given_up(roster_class):
    roster = make(roster_class, 3, serving=3, max_abandoned=0)
    roster.destroy()
    for worker in roster.workers.copy():
        roster.abandon(worker)
    assert roster.broken is None
    assert roster.state is PoolState.CLOSING
    assert roster.is_over(0)


# ==== the pool's life ============================================================================


def test_close_and_end_open_the_next_epoch(roster_class):
    roster = make(roster_class, 2, serving=1)
    roster.close()
    assert roster.state is PoolState.CLOSING
    assert not roster.terminal
    assert not roster.aborting
    assert not roster.is_over(0)
    roster.left(roster.workers[0])
    assert not roster.is_over(1)
    assert roster.is_over(0)
    roster.end()
    assert roster.state is PoolState.OPEN
    assert roster.wanted == 0
    assert slots(start(roster, 1)) == [(0, 2)]  # generations go on
    roster.check()


def test_an_open_pool_is_not_over(roster_class):
    assert not make(roster_class).is_over(0)


def test_terminal_ends_in_shutdown(roster_class):
    roster = make(roster_class)
    roster.close(terminal=True)
    assert roster.state is PoolState.CLOSING
    assert roster.terminal
    roster.end()
    assert roster.state is PoolState.SHUTDOWN
    roster.check()


def test_a_close_beside_a_shutdown_does_not_take_it_back(roster_class):
    roster = make(roster_class)
    roster.close(terminal=True)
    roster.close()
    roster.destroy()
    assert roster.terminal
    roster = make(roster_class)
    roster.close()
    roster.close(terminal=True)
    assert roster.terminal


def test_nothing_opens_a_pool_after_shutdown(roster_class):
    roster = make(roster_class)
    roster.close(terminal=True)
    roster.end()
    roster.close()
    assert roster.state is PoolState.SHUTDOWN
    roster.destroy()
    assert roster.state is PoolState.SHUTDOWN
    assert not roster.is_over(0)
    assert start(roster, 1) == []


def test_destroy_is_over_when_nobody_is_left_whatever_is_queued(roster_class):
    roster = make(roster_class, 2, serving=1)
    roster.destroy()
    assert roster.state is PoolState.CLOSING
    assert roster.aborting
    assert not roster.is_over(0)
    roster.abandon(roster.workers[0])
    assert roster.is_over(1)
    roster.end()
    assert roster.state is PoolState.OPEN
    assert not roster.aborting
    assert len(start(roster, 1)) == 1


def test_the_end_heals_a_broken_pool(roster_class):
    roster = make(roster_class, 2)
    fail(roster, 1)
    assert not roster.is_over(0)  # somebody has to close it
    roster.close()
    assert roster.state is PoolState.CLOSING
    assert roster.is_over(1)
    roster.end()
    assert (roster.state, roster.broken) == (PoolState.OPEN, None)
    assert len(start(roster, 1)) == 1


def test_what_was_wanted_is_not_in_the_next_epoch(roster_class):
    roster = make(roster_class, 3, serving=3)
    roster.close()
    for worker in roster.workers.copy():
        roster.left(worker)
    roster.end()
    roster.reconcile()
    assert roster.workers == []


# ==== each verb may be called again ==============================================================


def _a_serving(roster: _roster.Roster) -> Worker:
    return next(w for w in roster.workers if w.state is State.SERVING)


def _a_starting(roster: _roster.Roster) -> Worker:
    return next(w for w in roster.workers if w.state is State.STARTING)


def _over(roster: _roster.Roster) -> None:
    roster.destroy()
    for worker in roster.workers.copy():
        roster.abandon(worker)


def _end_if_over(roster: _roster.Roster) -> None:
    if roster.is_over(0):
        roster.end()


def _with_waiting(roster: _roster.Roster) -> Worker:
    """Have one retire, and its successor wait for it; the old one."""
    old = _a_serving(roster)
    roster.retire(old, Reason.TASKS)
    roster.reconcile()
    roster.ready(roster.workers[-1])
    return old


# Each takes a roster of 5 with two serving and one starting, and returns the verb to be called.
VERBS: dict[str, Callable[[_roster.Roster], Callable[[], object]]] = {
    "demand": lambda r: partial(r.demand, 2),
    "want_minimum": lambda r: r.want_minimum,
    "reconcile": lambda r: (r.demand(2), r.reconcile)[-1],
    "reconcile two": lambda r: (r.abandon(_a_serving(r)), r.demand(3), r.reconcile)[-1],
    "ready": lambda r: partial(r.ready, _a_starting(r)),
    "start_failed": lambda r: partial(r.start_failed, _a_starting(r), ERROR),
    "not_launched": lambda r: partial(r.not_launched, _a_starting(r)),
    "resume": lambda r: (setattr(r, "held_back", True), r.resume)[-1],
    "make_due": lambda r: partial(r.make_due, _a_serving(r), Reason.AGE),
    "reconcile, one is due": lambda r: (r.make_due(_a_serving(r), Reason.AGE), r.reconcile)[-1],
    "resize up": lambda r: partial(r.resize, 7),
    "resize down": lambda r: partial(r.resize, 1),
    "shrink": lambda r: (setattr(r, "min_workers", 0), r.shrink)[-1],
    "abandon a start": lambda r: partial(r.abandon, _a_starting(r), ERROR),
    "abandon one too many": lambda r: (
        setattr(r, "max_abandoned", 0),
        partial(r.abandon, _a_serving(r)),
    )[-1],
    "retire": lambda r: partial(r.retire, _a_serving(r), Reason.TASKS),
    "retire starting": lambda r: partial(r.retire, _a_starting(r), Reason.CLOSE),
    "vacate": lambda r: partial(r.vacate, _with_waiting(r)),
    "left": lambda r: partial(r.left, _a_serving(r)),
    "left late": lambda r: (r.abandon(w := _a_serving(r)), partial(r.left, w))[-1],
    "left, and another is let in": lambda r: partial(r.left, _with_waiting(r)),
    "abandon": lambda r: partial(r.abandon, _a_serving(r)),
    "abandon, and another is let in": lambda r: partial(r.abandon, _with_waiting(r)),
    "not_launched, and another is let in": lambda r: partial(r.not_launched, _with_waiting(r)),
    "start_failed, and another is let in": lambda r: partial(
        r.start_failed, _with_waiting(r), ERROR
    ),
    "close": lambda r: r.close,
    "close, one is due": lambda r: (r.make_due(_a_serving(r), Reason.AGE), r.close)[-1],
    "shutdown": lambda r: partial(r.close, terminal=True),
    "destroy": lambda r: r.destroy,
    "end": lambda r: (_over(r), partial(_end_if_over, r))[-1],
    "end broken": lambda r: (
        setattr(r, "broken", ERROR),
        _over(r),
        partial(_end_if_over, r),
    )[-1],
    "end terminal": lambda r: (r.close(terminal=True), _over(r), partial(_end_if_over, r))[-1],
}


def prepared(roster_class, name: str) -> tuple[_roster.Roster, Callable[[], object]]:
    roster = make(roster_class, 5, serving=2)
    roster.min_workers = 4
    roster.wanted = 3
    roster.reconcile()
    return roster, VERBS[name](roster)


@pytest.mark.parametrize("name", VERBS)
def test_twice_changes_nothing(roster_class, name):
    roster, verb = prepared(roster_class, name)
    before = facts(roster)
    verb()
    after = facts(roster)
    assert after != before
    if not name.startswith("end"):
        roster.check()
    verb()
    assert facts(roster) == after


# What an interrupt may leave one too high; nothing is decided by these alone.
COUNTERS = ("recycles", "failed_starts", "failures", "generations")


class Interrupt(BaseException):
    pass


def interrupt_at(line: int, roster: _roster.Roster, verb: Callable[[], object]) -> bool:
    """Call `verb`, broken off before that line of those that it runs. False: it ended."""
    source = type(roster).close.__code__.co_filename
    left = line

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != source:
            return None
        if event == "line":
            if left == 0:
                raise Interrupt
            left -= 1
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        verb()
    except Interrupt:
        return True
    finally:
        sys.settrace(tracing)
    return False


@pytest.mark.parametrize("name", VERBS)
def test_broken_off_anywhere_and_called_again_it_is_as_if_called_once(roster_class, name):
    roster, verb = prepared(roster_class, name)
    verb()
    expected = decided(roster)
    line = 0
    while True:
        roster, verb = prepared(roster_class, name)
        if not interrupt_at(line, roster, verb):
            break
        verb()
        assert decided(roster) == expected, f"broken off before its line {line}"
        line += 1
    assert line  # it was broken off


def decided(roster: _roster.Roster) -> dict[str, Any]:
    """The facts, but for counters."""
    kept = {name: value for name, value in facts(roster).items() if name not in COUNTERS}
    kept["broken"] = repr(roster.broken)
    for name in ("workers", "abandoned"):
        kept[name] = [(slot, *rest) for slot, _, *rest in kept[name]]
    return kept


# ==== check ======================================================================================


def broken(roster: _roster.Roster, message: str | None = None) -> None:
    with pytest.raises(AssertionError, match=message):
        roster.check()


def test_check_sees_one_slot_held_twice(roster_class):
    roster = make(roster_class, 3, serving=2)
    roster.workers[1].slot = 0
    broken(roster, "one slot, two workers")


def test_check_sees_more_active_workers_than_slots(roster_class):
    roster = make(roster_class, 3, serving=3)
    roster.size = 2
    roster.check()  # who is in a slot that is no more does not count
    roster.workers[2].slot = -1
    broken(roster, "more active workers than the pool has slots")


def test_check_sees_one_slot_with_two_starters(roster_class):
    roster = make(roster_class, 3, serving=1)
    first, second = start(roster, 2)
    roster.check()
    first.slot = 0
    roster.check()  # a holder and its successor
    second.slot = 0
    broken(roster, "one slot, two starters")


def test_check_sees_more_workers_than_surge_allows(roster_class):
    roster = make(roster_class, 2, serving=2)
    roster.retire(roster.workers[0], Reason.TASKS)
    roster.reconcile()
    roster.check()
    roster.surge = 0
    broken(roster, "more workers than size and surge allow")


def test_check_sees_a_generation_that_was_not_given(roster_class):
    roster = make(roster_class, 2, serving=1)
    roster.workers[0].generation = 2
    broken(roster)


def test_check_sees_a_stopped_worker(roster_class):
    roster = make(roster_class, 2, serving=1)
    roster.workers[0].state = State.STOPPED
    broken(roster, "a stopped worker is here")


def test_check_sees_workers_after_the_end(roster_class):
    roster = make(roster_class, 2, serving=1)
    roster.state = PoolState.SHUTDOWN
    broken(roster, "workers after the end")


def test_where_a_task_still_runs_a_successor_takes_no_room_from_a_free_slot(roster_class):
    roster = make(roster_class, 3, serving=2)
    first, second = roster.workers
    roster.retire(first, Reason.TASKS)
    assert roster._vacant_slots(9) == [0, 2]
    roster.retire(second, Reason.TASKS)
    assert roster._vacant_slots(9) == [0, 2]  # slot 1 waits, 2 could run a task at once
    assert roster.vacancies() == 2


def test_without_surge_only_the_free_slot_is_vacant(roster_class):
    roster = make(roster_class, 3, serving=2, surge=0)
    roster.retire(roster.workers[0], Reason.TASKS)
    assert roster._vacant_slots(9) == [2]


def test_room_for_one_goes_to_the_slot_that_is_vacated(roster_class):
    roster = make(roster_class, 4, serving=4)
    for worker in roster.workers:
        roster.retire(worker, Reason.TASKS)
    assert roster._vacant_slots(9) == [0]
    roster.vacate(roster.workers[1])
    assert roster._vacant_slots(9) == [1]


def test_fewer_wanted_than_there_are_adds_nobody_to_many_empty_slots(roster_class):
    roster = make(roster_class, 6, serving=2)
    roster.wanted = 1
    roster.reconcile()
    assert len(roster.workers) == 2


def test_who_has_vacated_leaves_a_slot_that_is_free_and_is_still_here(roster_class):
    roster = make(roster_class, 2, serving=2)
    for worker in roster.workers:
        roster.retire(worker, Reason.TASKS)
        roster.vacate(worker)
    assert roster.vacancies() == 1  # 2 slots are free, and 1 more may be here
    assert roster._vacant_slots(9) == [0]
    roster.left(roster.workers[0])
    assert roster.vacancies() == 2


def test_when_more_are_here_than_may_be_there_is_no_vacancy(roster_class):
    roster = make(roster_class, 4, serving=4)
    for worker in roster.workers:
        roster.retire(worker, Reason.TASKS)
        worker.slot = 0
    roster.resize(1)
    assert roster._room() == -2
    assert roster.vacancies() == 0
    assert roster._vacant_slots(9) == []
    roster.wanted = 1
    roster.reconcile()
    assert len(roster.workers) == 4


def test_one_in_a_slot_that_is_no_more_fills_none(roster_class):
    roster = make(roster_class, 4, serving=4)
    roster.left(roster.workers[0])
    roster.resize(3)
    assert roster.vacancies() == 1
    roster.retire(roster.workers[-1], Reason.RESIZE)
    assert roster.vacancies() == 1


def test_a_task_in_a_slot_that_is_no_more_is_no_reason_to_wait(roster_class):
    roster = make(roster_class, 4, serving=4, surge=0)
    first, second, _, fourth = roster.workers
    roster.resize(3)
    roster.retire(fourth, Reason.RESIZE)
    roster.retire(first, Reason.TASKS)
    roster.left(second)
    assert roster._vacant_slots(9) == [1]  # room for one: slot 0 would wait


def test_one_who_is_due_and_has_a_successor_takes_no_other_ones_room(roster_class):
    roster = make(roster_class, 3, serving=3, surge=2)
    first, second, _ = roster.workers
    roster.make_due(first, Reason.MANUAL)
    roster.reconcile()
    roster.make_due(second, Reason.MANUAL)
    roster.reconcile()
    assert slots(roster.workers[3:]) == [(0, 2), (1, 2)]
    roster.check()


def test_when_more_are_here_than_may_be_nobody_due_gets_a_successor(roster_class):
    roster = make(roster_class, 4, serving=4)
    for worker in roster.workers[2:]:
        roster.retire(worker, Reason.TASKS)
        worker.slot = 0
    roster.workers[1].slot = 1
    for worker in roster.workers[:2]:
        roster.make_due(worker, Reason.MANUAL)
    roster.resize(2)
    roster.wanted = 0
    assert roster._room() == -1
    roster.reconcile()
    assert len(roster.workers) == 4


def test_a_free_slot_leaves_the_surge_to_nobody_who_is_due(roster_class):
    """Room for one: it is for the task that may come, not for a successor."""
    roster = make(roster_class, 3, serving=3)
    first, second, third = roster.workers
    roster.retire(third, Reason.IDLE)
    roster.vacate(third)
    roster.wanted = 2
    roster.make_due(first, Reason.AGE)
    roster.reconcile()
    assert roster.workers == [first, second, third]
    roster.left(third)
    roster.reconcile()
    assert slots(roster.workers) == [(0, 1), (1, 1), (0, 2)]
    assert roster.vacancies() == 1


def test_one_that_was_admitted_before_it_retired_counts(roster_class):
    """It may have run a task."""
    roster = make(roster_class, 1)
    (worker,) = start(roster, 1)
    worker.admitted = True
    roster.retire(worker, Reason.RESIZE)
    roster.ready(worker)
    assert roster.generations == [1]


def test_one_that_retired_while_it_started_counts_no_generation(roster_class):
    roster = make(roster_class, 1)
    (worker,) = start(roster, 1)
    roster.retire(worker, Reason.CLOSE)
    roster.ready(worker)
    assert roster.generations == [0]
    roster.reconcile()
    assert slots(roster.workers) == [(0, 1), (0, 2)]


def test_one_without_a_thread_has_stopped_whatever_it_was(roster_class):
    roster = make(roster_class, 3)
    first, second, third = start(roster, 3)
    roster.wanted = 1  # fewer are wanted already
    roster.not_launched(second)
    assert roster.wanted == 1
    roster.retire(third, Reason.CLOSE)
    roster.not_launched(third)
    assert roster.wanted == 1
    roster.not_launched(first)
    assert roster.wanted == 0
    assert {first.state, second.state, third.state} == {State.STOPPED}


def test_a_successor_whose_old_one_is_not_due_any_more_goes_and_the_old_one_stays(roster_class):
    roster = make(roster_class, 2, serving=1)
    (old,) = roster.workers
    roster.make_due(old, Reason.AGE)
    roster.reconcile()
    new = roster.workers[-1]
    roster.ready(new)
    roster.close()
    assert roster.superseded() == [(new, Reason.CLOSE)]


def test_with_surge_one_who_is_due_stays_beside_one_who_starts(roster_class):
    roster = make(roster_class, 2, serving=1)
    roster._shrunk = True
    roster.make_due(roster.workers[0], Reason.AGE)
    assert roster.superseded() == []


def test_without_surge_nobody_goes_beside_one_whose_slot_is_no_more(roster_class):
    roster = make(roster_class, 3, serving=3, surge=0)
    first, _, third = roster.workers
    roster.make_due(first, Reason.MANUAL)
    roster.resize(2)
    assert roster.superseded() == [(third, Reason.RESIZE)]


def test_without_surge_who_is_not_due_stays(roster_class):
    roster = make(roster_class, 3, serving=3, surge=0)
    assert roster.superseded() == []
    roster.make_due(roster.workers[1], Reason.MANUAL)
    assert roster.superseded() == [(roster.workers[1], Reason.MANUAL)]


def test_shrink_takes_one_and_no_more(roster_class):
    roster = make(roster_class, 4, serving=4, min_workers=1)
    roster.shrink()
    assert roster.wanted == 3


def test_of_many_slots_those_are_counted_that_were_held(roster_class):
    room = roster_class.__init__.__globals__  # of this very roster's module: it may be a mutant
    many, room["MANY"] = room["MANY"], 1
    try:
        roster = make(roster_class, 3)
        assert roster.generations == [0]
        for worker in start(roster, 3):
            roster.ready(worker)
        assert roster.generations == [1, 1, 1]
        roster.resize(5)
        assert roster.generations == [1, 1, 1]
    finally:
        room["MANY"] = many


def test_a_slot_that_is_filled_in_the_same_breath_takes_up_no_surge(roster_class):
    roster = make(roster_class, 3, serving=2)
    roster.make_due(roster.workers[0], Reason.AGE)
    (filled, successor) = start(roster, 1)
    assert slots([filled, successor]) == [(2, 1), (0, 2)]
    roster.check()


def test_those_of_slots_that_are_no_more_take_up_no_surge(roster_class):
    roster = make(roster_class, 3, serving=3)
    one, _, other = roster.workers
    roster.resize(2)
    roster.retire(other, Reason.RESIZE)  # its task runs on
    roster.make_due(one, Reason.AGE)
    roster.reconcile()
    assert slots(list(roster.starters().values())) == [(0, 2)]


def test_those_of_slots_that_are_no_more_add_nothing_to_the_surge(roster_class):
    roster = make(roster_class, 3, serving=3)
    for worker in roster.workers[:2]:
        roster.make_due(worker, Reason.AGE)
    roster.resize(2)
    roster.reconcile()
    assert slots(list(roster.starters().values())) == [(0, 2)]
