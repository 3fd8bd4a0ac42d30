"""When a worker is looked at, with a clock and figures of the test's own."""

import pytest

from recyclepool._looks import ALLOWANCE, DUTY, HASTE, LEAST, PROOF, Forecasts, Looks

LIMIT = 64 * 2**20
MIB = 2**20


class Worker:
    """One whose figures the test sets."""

    def __init__(self, limit=LIMIT, every=1.0, jitter=0.0):
        self.looks = Looks(limit, every, jitter, 0.0, 100 * MIB)
        self.now, self.tasks, self.cache, self.rss = 0.0, 0, 0, 100 * MIB

    def is_due(self, workers=1):
        return self.looks.is_due(self.now, self.tasks, self.cache, self.rss, workers)

    def look(self, owned, cost=0.0, rest=0.0):
        self.looks.spend(self.now, cost)
        self.looks.saw(self.now, owned, self.tasks, self.cache, self.rss, rest)


@pytest.fixture
def worker():
    return Worker()


def test_the_first_task_is_looked_at_and_nothing_before_it(worker):
    assert not worker.is_due()
    worker.tasks = 1
    assert worker.is_due()


def test_nothing_without_a_task_since(worker):
    worker.tasks = 1
    worker.look(MIB)
    worker.now, worker.rss = 1e6, 10 * LIMIT
    assert not worker.is_due()


def test_time_leads_to_a_look(worker):
    worker.tasks = 1
    worker.look(MIB)
    worker.tasks, worker.now = 2, 0.99
    assert not worker.is_due()
    worker.now = 1.0
    assert worker.is_due()


def test_jitter_puts_it_off_by_a_part_of_the_interval_at_most():
    pauses = set()
    for _ in range(50):
        worker = Worker(jitter=0.1)
        worker.tasks = 1
        worker.look(MIB)
        pauses.add(worker.looks.pause(0.0))
    assert len(pauses) > 40
    assert all(1.0 <= pause <= 1.1 for pause in pauses)


def test_what_its_tasks_left_so_far_leads_to_a_look_just_before_the_limit(worker):
    worker.tasks = 1
    worker.look(MIB)  # 1 MiB a task
    worker.tasks = 60
    assert not worker.is_due()
    worker.tasks = 61  # 0.95 of the limit
    assert worker.is_due()


def test_growth_is_learnt_anew_at_each_look(worker):
    worker.tasks = 1
    worker.look(50 * MIB)  # a model
    worker.tasks = 2
    assert worker.is_due(), "it would be over with another of these"
    worker.look(50 * MIB)
    worker.tasks = 1000
    assert not worker.is_due()


def test_a_worker_that_shrank_is_not_expected_to_shrink_on(worker):
    worker.tasks = 1
    worker.look(50 * MIB)
    worker.tasks = 2
    worker.look(MIB)
    worker.tasks, worker.now = 3, 1.0
    assert worker.is_due()


def test_the_cache_is_a_sign(worker):
    worker.tasks = 1
    worker.look(0)
    worker.tasks, worker.cache = 2, LIMIT // 16 - 1
    assert not worker.is_due()
    worker.cache += 1
    assert worker.is_due()


def test_small_changes_are_no_sign_where_the_limit_is_small():
    worker = Worker(limit=1024)
    worker.tasks = 1
    worker.look(0)
    worker.tasks, worker.cache = 2, LEAST - 1
    assert not worker.is_due()


def test_the_process_is_a_sign_if_it_grew_by_half_of_what_one_may_own(worker):
    worker.tasks = 1
    worker.look(0)
    worker.tasks = 2
    worker.rss += LIMIT // 2 - 1
    assert not worker.is_due()
    worker.rss += 1
    assert worker.is_due()


def test_what_others_gave_back_hides_nothing_of_what_the_process_grows_by_then(worker):
    worker.tasks = 1
    worker.look(0)
    worker.tasks, worker.rss = 2, 10 * MIB
    assert not worker.is_due()
    worker.tasks, worker.rss = 3, 10 * MIB + LIMIT // 2
    assert worker.is_due(), "the process is smaller than at the last look"


def spent_in_100_seconds(workers, process=0, owned=0):
    """By all workers, each of which would be looked at without end, in looks of 30 ms.

    `process`: bytes by which it grows with each task. `owned`: what is there at each look, of
    which nothing is left after it, as with a cache that is trimmed.
    """
    worker, spent = Worker(every=0.01), 0.0
    for step in range(10_000):
        worker.now, worker.tasks = step / 100, step
        worker.rss += process
        if worker.is_due(workers):
            worker.look(owned, cost=0.03 * workers)
            worker.look(0)
            spent += 0.03 * workers
    return spent


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    ("process", "owned"), [(0, 0), (0, LIMIT // 8), (LIMIT // 2, 0), (LIMIT, 0)]
)
def test_looks_at_all_workers_take_their_duty_of_the_time(workers, process, owned):
    """Also where the process grows without end, if that is not for this worker."""
    spent = spent_in_100_seconds(workers, process, owned)
    assert spent <= DUTY * 100 + ALLOWANCE + 0.03 * workers
    assert spent >= 0.9 * DUTY * 100


@pytest.mark.parametrize("workers", [1, 4])
def test_while_process_and_worker_grow_they_may_take_more_each(workers):
    spent = spent_in_100_seconds(workers, LIMIT, LIMIT // 8)
    assert spent <= workers * (HASTE * 100 + ALLOWANCE + 0.03)
    assert spent >= 0.8 * workers * HASTE * 100


def test_who_must_be_far_over_its_limit_is_looked_at_in_debt_and_once(worker):
    worker.tasks = 1
    worker.look(MIB, cost=10.0)
    worker.tasks, worker.now = 61, 1.0
    assert not worker.is_due(), "it may be at its limit: that can wait"
    worker.tasks = 74
    assert worker.is_due()
    worker.look(MIB, cost=10.0)  # it did not grow
    worker.tasks = 10_000
    assert not worker.is_due()


def test_a_look_at_one_that_sleeps_waits_for_the_debt_and_the_interval(worker):
    worker.tasks = 1
    worker.look(0, cost=ALLOWANCE + DUTY * 5)
    assert worker.looks.pause(worker.now) == pytest.approx(5.0)
    worker.look(0, rest=9.0)
    assert worker.looks.pause(worker.now) == pytest.approx(9.0)
    assert worker.looks.pause(100.0) == 0.0


# ==== forecasts ==================================================================================


def test_after_some_forecasts_one_worker_is_left_to_show_it():
    forecasts, workers = Forecasts(), [*range(100)]
    assert all(forecasts.may_act(worker, workers) for worker in range(PROOF))
    assert not forecasts.may_act(50, workers)
    assert not forecasts.may_act(50, workers), "the same one, again"
    assert forecasts.may_act(51, workers), "it is one"


def test_it_comes_to_be_far_over_the_limit_and_they_were_right():
    forecasts, workers = Forecasts(), [*range(100)]
    for worker in range(PROOF + 1):
        forecasts.may_act(worker, workers)
    forecasts.prove()
    assert all(forecasts.may_act(worker, workers) for worker in range(2 * PROOF))
    assert not forecasts.may_act(60, workers)


def test_it_grows_old_and_there_are_none_until_somebody_is_far_over_the_limit():
    forecasts, workers = Forecasts(), [*range(100)]
    for worker in range(PROOF + 1):
        forecasts.may_act(worker, workers)
    forecasts.refute(3)  # not the one
    assert forecasts.may_act(70, workers)
    forecasts.refute(PROOF)
    assert not any(forecasts.may_act(worker, workers) for worker in workers)
    forecasts.prove()
    assert forecasts.may_act(70, workers)


def test_one_that_went_for_another_reason_is_followed_by_the_next():
    forecasts, workers = Forecasts(), [*range(100)]
    for worker in range(PROOF + 1):
        forecasts.may_act(worker, workers)
    workers.remove(PROOF)
    assert not forecasts.may_act(80, workers)
    assert forecasts.may_act(81, workers)
