from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recyclepool._pressure import (
    CALM,
    EASE_PAUSE,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_STOP,
    Act,
    Owner,
    Pressure,
    Step,
)

MB = 1_000_000
BASE, LIMIT, NOISE = 200 * MB, 1000 * MB, 8 * MB
OLDEST, MIDDLE, YOUNGEST = "oldest", "middle", "youngest"
NOTHING, EASE, RECYCLE, TELL, RESUME = Act


def owners(oldest: int = 0, middle: int = 0, youngest: int = 0) -> list[Owner]:
    """Three workers, and what each owns, in MB."""
    sizes = {OLDEST: oldest, MIDDLE: middle, YOUNGEST: youngest}
    return [Owner(name, size * MB, born) for born, (name, size) in enumerate(sizes.items())]


class Asked:
    """A pressure, asked once a second. Floors in MB."""

    def __init__(self, samples: int = 1, base: int = BASE) -> None:
        self.pressure = Pressure(LIMIT, samples, base)
        self.now = 1000.0

    def step(self, floor: float, who: list[Owner] | None = None) -> Step:
        self.now += 1
        who = owners() if who is None else who
        return self.pressure.step(self.now, int(floor * MB), who)

    def act(self, floor: float, who: list[Owner] | None = None) -> Act:
        return self.step(floor, who).act

    def acts(self, *floors: float) -> list[Act]:
        return [self.act(floor) for floor in floors]

    def recycled(self, before: float, after: float) -> bool:
        self.now += 1
        return self.pressure.recycled(self.now, int(before * MB), int(after * MB), NOISE)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def eased(floor: float = 1200, samples: int = 1) -> Asked:
    """Its first rung is behind it."""
    asked = Asked(samples)
    assert asked.acts(*[floor] * samples) == [NOTHING] * (samples - 1) + [EASE]
    return asked


def failed(explained: bool = False, floor: float = 1200) -> Asked:
    """The next, too: a recycle that did not help."""
    asked = eased(floor)
    step = asked.step(floor, owners(oldest=floor if explained else 0))
    assert step == (RECYCLE, OLDEST, explained)
    assert not asked.recycled(floor, floor)
    return asked


# ==== the first rungs ============================================================================


def test_below_the_limit_nothing_is_done() -> None:
    assert Asked().acts(0, 999, 1000, 1000) == [NOTHING] * 4


def test_so_many_looks_in_a_row_have_to_find_it_above() -> None:
    asked = Asked(samples=3)
    assert asked.acts(1200, 1200, 900, 1200, 1200) == [NOTHING] * 5
    assert asked.acts(1200, 1200) == [EASE, RECYCLE]


def test_what_was_eased_is_looked_at_first() -> None:
    asked = eased()
    assert asked.act(900) is NOTHING


def test_eased_at_most_every_10_seconds() -> None:
    asked = eased()
    asked.act(900)
    assert asked.act(1200) is RECYCLE
    asked.recycled(1200, 900)
    asked.act(900)
    asked.pass_by(EASE_PAUSE)
    assert asked.act(1200) is EASE


# ==== the victim =================================================================================


def test_the_victim_is_the_largest_owner_where_that_explains_half_of_the_growth() -> None:
    step = eased().step(1200, owners(oldest=100, middle=300, youngest=100))  # of 1000
    assert step == (RECYCLE, MIDDLE, True)


def test_a_byte_less_explains_nothing_and_the_oldest_is_tried() -> None:
    who = owners(oldest=100, middle=300, youngest=100)
    who[2] = who[2]._replace(owned=who[2].owned - 1)
    assert eased().step(1200, who) == (RECYCLE, OLDEST, False)


def test_the_growth_counts_from_the_base() -> None:
    asked = Asked(base=0)
    asked.act(1200)
    assert asked.step(1200, owners(oldest=100, middle=300, youngest=100)).explained is False


def test_who_owns_nothing_explains_nothing() -> None:
    asked = Asked(base=5000 * MB)  # which it had when the pool was made, and gave back
    asked.act(1200)
    assert asked.step(1200) == (RECYCLE, OLDEST, False)


def test_after_one_that_helped_the_next_largest_goes_at_once() -> None:
    asked = eased(2000)
    assert asked.step(2000, owners(middle=600, youngest=500)) == (RECYCLE, MIDDLE, True)
    assert asked.recycled(2000, 1400)
    assert asked.step(1400, owners(youngest=600)) == (RECYCLE, YOUNGEST, True)


@pytest.mark.parametrize("helps", [False, True])
def test_one_trial_in_a_window(helps: bool) -> None:
    asked = eased()
    assert asked.act(1200) is RECYCLE
    assert asked.recycled(1200, 1100 if helps else 1200) is helps
    looks = asked.acts(*[1300] * 59)
    assert RECYCLE not in looks
    assert asked.act(1300) is RECYCLE


# ==== did it help? ===============================================================================


@pytest.mark.parametrize(
    ("floor", "after", "helps"),
    [
        (1200, 1150, True),  # a quarter of 200
        (1200, 1150.001, False),
        (1020, 1012, True),  # a quarter were 5: less than the noise
        (1020, 1012.001, False),
        (1200, 1300, False),
    ],
)
def test_it_helped_if_the_floor_fell_by_a_quarter_of_what_was_needed_and_by_the_noise(
    floor: float, after: float, helps: bool
) -> None:
    asked = eased(floor)
    assert asked.act(floor) is RECYCLE
    assert asked.recycled(floor, after) is helps


def test_no_innocent_follows_until_it_has_grown_beyond_what_it_was_after_the_recycle() -> None:
    asked = eased()
    assert asked.act(1200, owners(middle=700)) is RECYCLE
    asked.recycled(1200, 1190)
    for floor in (1190, 1198, 1100, 1001, 1198):
        assert asked.act(floor, owners(oldest=600)) in (NOTHING, TELL)
    assert asked.act(1198.001, owners(oldest=600)) is RECYCLE


def test_below_the_limit_it_is_re_armed() -> None:
    asked = failed(explained=True)
    asked.act(900)
    assert asked.act(1001, owners(oldest=600)) is RECYCLE


def test_what_helps_makes_all_forgotten() -> None:
    asked = failed()
    assert asked.acts(1300, 1300) == [NOTHING, TELL]
    asked.pass_by(FIRST_PAUSE)
    assert asked.acts(1300, 1300) == [RESUME, RECYCLE]
    assert asked.recycled(1300, 1100)
    assert asked.pressure.failures == 0
    asked.pass_by(FIRST_PAUSE)
    assert asked.act(1101) is RECYCLE  # the bar is the limit
    asked.recycled(1101, 1101)
    assert TELL in asked.acts(1101, 1101)  # and it would be told anew


# ==== backing off ================================================================================


def test_the_pause_doubles_up_to_an_hour() -> None:
    asked = failed()
    pauses, floor = [], 1200.0
    for _ in range(10):
        began, floor = asked.now, floor + 100
        while asked.act(floor) is not RECYCLE:
            pass
        pauses.append(asked.now - began)
        asked.recycled(floor, floor)
    assert pauses == [60, 120, 240, 480, 960, 1920, *[LONGEST_PAUSE] * 4]


def test_no_number_of_failures_is_too_large() -> None:
    asked = failed()
    asked.pressure.failures = 5000
    asked.recycled(1200, 1200)
    assert RECYCLE not in asked.acts(*[2000] * 3000)


def test_two_that_were_explained_and_did_not_help_are_followed_by_a_pause() -> None:
    asked = failed(explained=True)
    who = owners(oldest=1300)
    assert asked.act(1300, who) is RECYCLE  # the first alone is not
    asked.recycled(1300, 1300)
    assert asked.act(1400, who) is TELL
    acts = [asked.act(1400, who) for _ in range(119)]
    assert acts.count(RECYCLE) == 1 == acts[-1:].count(RECYCLE)


# ==== the cause ==================================================================================


def test_told_after_two_that_were_explained_and_did_not_help() -> None:
    asked = failed(explained=True)
    assert asked.act(1300, owners(oldest=1300)) is RECYCLE
    asked.recycled(1300, 1300)
    assert asked.acts(1300) == [TELL]


def test_told_after_two_where_the_looks_are_rare() -> None:
    asked = failed()
    asked.pass_by(3600)
    assert asked.act(1300) is RECYCLE
    asked.recycled(1300, 1300)
    asked.pass_by(7200)
    assert asked.act(1400) is TELL


@pytest.mark.parametrize("explained", [False, True])
def test_told_after_one_if_it_stays_above_the_limit(explained: bool) -> None:
    assert failed(explained).acts(1200, 1200, 1200) == [NOTHING, TELL, NOTHING]


def test_told_after_one_trial_if_it_grows_on() -> None:
    assert failed().acts(1300, 1400, 1500) == [NOTHING, TELL, NOTHING]


def test_not_told_if_what_was_freed_comes_late() -> None:
    assert failed().acts(1200, 990, 1200, 1200, 990) == [NOTHING] * 3 + [TELL, RESUME]
    assert failed().acts(1200, 990, 1200, 990, 1200) == [NOTHING] * 5


def test_looks_before_the_recycle_do_not_count() -> None:
    asked = eased()
    assert asked.act(1200) is RECYCLE
    assert asked.recycled(1200, 1100)  # helped, but not enough: a window begins
    assert asked.acts(*[1100] * 60) == [NOTHING] * 59 + [RECYCLE]
    asked.recycled(1100, 1100)
    assert asked.acts(1100, 1100) == [NOTHING, TELL]


def test_told_once() -> None:
    asked = failed()
    acts = asked.acts(*range(1300, 4000))
    assert acts.count(TELL) == 1
    assert acts.count(RECYCLE) > 2


def test_told_after_a_minute_in_which_nobody_could_be_replaced() -> None:
    asked = eased()
    acts = [asked.act(1200, []) for _ in range(200)]
    assert acts.index(TELL) == 59
    assert acts.count(TELL) == 1


def test_that_minute_begins_above_the_limit() -> None:
    asked = eased()
    asked.act(900)
    asked.pass_by(3600)
    acts = [asked.act(1200, []) for _ in range(62)]
    assert acts == [EASE] + [NOTHING] * 59 + [TELL, NOTHING]


def test_not_told_if_somebody_could_be_in_time() -> None:
    asked = eased()
    assert [asked.act(1200, []) for _ in range(59)] == [NOTHING] * 59
    assert asked.act(1200) is RECYCLE
    asked.recycled(1200, 1100)
    assert [asked.act(1100, []) for _ in range(58)] == [NOTHING] * 58


def test_told_anew_after_a_long_time_below_the_limit() -> None:
    asked = failed()
    assert asked.acts(1200, 1200, 900) == [NOTHING, TELL, RESUME]
    asked.pass_by(CALM - 3)
    asked.act(900)
    assert asked.pressure.failures == 1
    asked.act(900)
    assert asked.pressure.failures == 0
    assert asked.acts(1200, 1200) == [EASE, RECYCLE]
    asked.recycled(1200, 1200)
    assert asked.acts(1200, 1200) == [NOTHING, TELL]


# ==== the pause of dispatch ======================================================================


def test_dispatch_goes_on_after_30_seconds() -> None:
    asked = failed()
    assert asked.acts(1300, 1300) == [NOTHING, TELL]
    assert asked.pressure.paused
    assert asked.acts(*[1300] * 30) == [NOTHING] * 29 + [RESUME]
    assert not asked.pressure.paused
    acts = asked.acts(*[1300] * 600)
    assert TELL not in acts  # once
    assert RESUME not in acts


def test_it_goes_on_at_once_below_the_limit() -> None:
    asked = failed()
    assert asked.acts(1300, 1300, 1000, 900) == [NOTHING, TELL, RESUME, NOTHING]
    assert asked.acts(*[1001] * 60).count(RESUME) == 0


# ==== ten minutes ================================================================================


class World(NamedTuple):
    """A process of four workers that is looked at once a second, and what is done to it."""

    recycles: list[tuple[float, bool]]
    tells: list[float]
    stops: list[float]  # how long dispatch was paused


def simulate(
    others: Callable[[float], float],
    owned: Callable[[float], float] = lambda age: 0.0,
    keeps_freed: bool = False,
    seconds: int = 600,
    samples: int = 3,
) -> World:
    """`others`: MB that no worker owns; `owned`: MB of a worker of that age.

    `keeps_freed`: what a worker owned stays with the process, which can use it again.
    """
    pressure, world = Pressure(LIMIT, samples, BASE), World([], [], [])
    born = [0.0] * 4
    paused_at = peak = 0.0
    now = 0.0

    def floor() -> int:
        nonlocal peak
        theirs = sum(owned(now - each) for each in born)
        peak = max(theirs, peak if keeps_freed else 0.0)
        return BASE + int((others(now) + peak) * MB)

    while now < seconds:
        now += 1
        old_enough = [n for n in range(4) if now - born[n] >= 10]
        who = [Owner(n, int(owned(now - born[n]) * MB), born[n]) for n in old_enough]
        before = floor()
        step = pressure.step(now, before, who)
        if step.act is RECYCLE:
            world.recycles.append((now, step.explained))
            born[step.worker] = now
            now += 1
            pressure.recycled(now, before, floor(), NOISE)
        elif step.act is TELL:
            world.tells.append(now)
            paused_at = now
        elif step.act is RESUME:
            world.stops.append(now - paused_at)
    return world


GROWTHS = {
    "a global list": lambda now: 10 * now,
    "a global list, slowly": lambda now: 800 + now / 10,
    "a jump": lambda now: 0 if now < 100 else 3000,
    "results, kept": lambda now: min(10 * now, 1500),
    "results, kept, just above the limit": lambda now: min(10 * now, 801),
    "native memory": lambda now: 40 * now,
    "steps": lambda now: 900 + now // 45 * 50,
    "from the start": lambda now: 900,
}


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("others", GROWTHS.values(), ids=GROWTHS)
def test_what_no_worker_owns(others: Callable[[float], float], samples: int) -> None:
    world = simulate(others, samples=samples)
    over = next(now for now in range(601) if others(now) > 800)
    assert 1 <= len(world.recycles) <= 4, world
    assert not any(explained for _, explained in world.recycles)
    assert len(world.tells) == 1, world
    assert world.tells[0] - max(over, 10) <= 15, world  # not a minute later
    assert all(stop <= LONGEST_STOP for stop in world.stops)


def test_to_and_fro_about_the_limit() -> None:
    world = simulate(lambda now: 797 + now % 7)  # three looks in a row are above it
    assert 2 <= len(world.recycles) <= 4, world
    assert len(world.tells) == 1, world  # after two: it never stays


FRAGMENTATION = {
    "used again": {},
    "and others grow": {"others": lambda now: 5 * now},
    "and others grow fast": {"others": lambda now: 20 * now},
}


@pytest.mark.parametrize("case", FRAGMENTATION.values(), ids=FRAGMENTATION)
def test_fragmentation(case: dict[str, Callable[[float], float]]) -> None:
    others = case.get("others", lambda now: 0)
    world = simulate(others, owned=lambda age: 10 * min(age, 30), keeps_freed=True)
    assert 1 <= len(world.recycles) <= 4, world
    assert world.recycles[0][1], "the first was explained"
    assert len(world.tells) == 1, world


def test_a_leak_of_a_worker_is_answered_by_recycles_and_nothing_is_told() -> None:
    world = simulate(lambda now: 0, owned=lambda age: 10 * age)
    assert len(world.recycles) > 10
    assert all(explained for _, explained in world.recycles)
    assert world.tells == []


class Look(NamedTuple):
    seconds: float
    floor: int
    owned: int


looks = st.builds(
    Look, st.floats(0.01, 120), st.integers(0, 3000), st.sampled_from([0, 0, 100, 2000])
)


@given(st.lists(looks, max_size=200), st.integers(1, 4))
def test_where_nothing_helps_there_is_no_storm(history: list[Look], samples: int) -> None:
    pressure, now = Pressure(LIMIT, samples, BASE), 0.0
    done: list[tuple[float, Act]] = []
    floor, calm_at, calm = 0, 0.0, 0
    for look in history:
        now += look.seconds
        floor = look.floor * MB
        step = pressure.step(now, floor, owners(oldest=look.owned))
        done.append((now, step.act))
        if step.act is RECYCLE:
            assert floor > LIMIT
            assert not pressure.recycled(now, floor, floor, NOISE)
        if floor > LIMIT:
            calm_at = now
        elif now - calm_at >= CALM:
            calm, calm_at = calm + 1, now
    for began, _ in done:
        window = [act for at, act in done if began <= at <= began + 600]
        assert window.count(RECYCLE) <= 4
    eases = [at for at, act in done if act is EASE]
    assert all(b - a >= EASE_PAUSE for a, b in pairwise(eases))
    assert sum(act is TELL for _, act in done) <= 1 + calm
    stops = [act for _, act in done if act in (TELL, RESUME)]
    assert stops[::2] == [TELL] * len(stops[::2])
    assert stops[1::2] == [RESUME] * len(stops[1::2])
    assert pressure.paused is (len(stops) % 2 == 1)


@given(st.lists(looks, max_size=100))
def test_a_pause_ends_in_time(history: list[Look]) -> None:
    pressure, now, paused_at = Pressure(LIMIT, 1, BASE), 0.0, 0.0
    for look in history:
        now += look.seconds
        floor = look.floor * MB
        was_paused = pressure.paused
        step = pressure.step(now, floor, owners(oldest=look.owned))
        if step.act is TELL:
            paused_at = now
        if was_paused and (floor <= LIMIT or now - paused_at >= LONGEST_STOP):
            assert step.act is RESUME
        if step.act is RECYCLE:
            pressure.recycled(now, floor, floor, NOISE)
