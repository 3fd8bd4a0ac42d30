import random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recyclepool._floor import FLOORS, GRAINS, LEAST_NOISE, PLACES, SPAN, Floor

MB = 1_000_000
# Times and spans on whole grains: there the floor is exact.
GRAIN_TIMES = st.lists(st.integers(0, PLACES - 1), min_size=1, unique=True).map(sorted)


def floor_of(*readings: tuple[float, int]) -> Floor:
    floor = Floor()
    for now, rss in readings:
        floor.note(now, rss)
    return floor


def one_a_span(*floors: int) -> Floor:
    """Each of `floors` is the floor of its span; the span after them has begun."""
    readings = [(place * SPAN, rss) for place, rss in enumerate([*floors, 0])]
    return floor_of(*readings)


# ==== floor ======================================================================================


def test_before_the_first_reading_it_is_0() -> None:
    assert Floor().floor(10.0) == 0


def test_is_the_lowest_of_the_span() -> None:
    floor = floor_of((10.0, 500), (10.1, 300), (10.2, 400))
    assert floor.floor(10.2) == 300


def test_forgets_what_is_older_than_the_span() -> None:
    floor = floor_of((10.0, 100), (10.5, 500), (10.625, 400))
    assert floor.floor(10.625) == 400
    assert floor.floor(10.625, span=1.0) == 100


def test_the_edge_of_the_span_is_in() -> None:
    floor = floor_of((10.0, 100), (10.25, 500))
    assert floor.floor(10.25) == 100
    assert floor.floor(10.25 + 1 / GRAINS) == 500


def test_an_old_reading_is_better_than_none() -> None:
    floor = floor_of((10.0, 100), (11.0, 500))
    assert floor.floor(99.0) == 500


def test_readings_of_one_grain_count_with_their_lowest() -> None:
    floor = floor_of((10.0, 500), (10.001, 200), (10.002, 400))
    assert floor.floor(10.002) == 200


@given(GRAIN_TIMES, st.integers(0, PLACES - 1), st.data())
def test_is_the_minimum_of_what_was_read_in_time(
    grains: list[int], span: int, data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(0, 10**12), min_size=len(grains), max_size=len(grains)))
    floor, last = Floor(), grains[-1]
    for grain, rss in zip(grains, sizes, strict=True):
        floor.note(grain / GRAINS, rss)
    recent = [rss for grain, rss in zip(grains, sizes, strict=True) if grain >= last - span]
    assert floor.floor(last / GRAINS, span / GRAINS) == min(recent)


def test_a_span_of_many_readings_misses_none() -> None:
    floor = floor_of(*((10 + step / 100_000, 1000 + step) for step in range(25_001)))
    assert floor.floor(10.25) == 1000


def test_keeps_a_bounded_number_of_readings() -> None:
    floor = floor_of(*((float(step), step) for step in range(10 * PLACES)))
    assert len(floor._readings) == PLACES
    assert len(floor._floors) == FLOORS


# ==== noise ======================================================================================


@pytest.mark.parametrize("floors", [(), (500 * MB,), (500 * MB, 500 * MB), (500 * MB, 502 * MB)])
def test_noise_is_8_mb_at_least(floors: tuple[int, ...]) -> None:
    assert one_a_span(*floors).noise() == LEAST_NOISE == 8 * MB


def test_noise_is_three_sigma_of_the_floors() -> None:
    generator = random.Random(7)
    measured = [
        one_a_span(*(int(generator.gauss(500 * MB, 20 * MB)) for _ in range(FLOORS))).noise()
        for _ in range(400)
    ]
    assert mean(measured) == pytest.approx(3 * 20 * MB, rel=0.1)


@pytest.mark.parametrize("growth", [-100 * MB, 1 * MB, 100 * MB])
def test_a_steady_growth_is_no_noise(growth: int) -> None:
    assert one_a_span(*(5000 * MB + n * growth for n in range(FLOORS))).noise() == LEAST_NOISE


def test_the_span_that_is_not_over_has_no_floor_yet() -> None:
    floor = one_a_span(500 * MB, 500 * MB)  # a reading of 0 began the third
    assert floor.noise() == LEAST_NOISE
    floor.note(3 * SPAN, 500 * MB)
    assert floor.noise() > 500 * MB


def test_peaks_between_the_floors_are_no_noise() -> None:
    floor = Floor()
    for step in range(200):
        floor.note(step * SPAN / 10, (500 + step) * MB if step % 5 else 100 * MB)
    assert floor.noise() == LEAST_NOISE


def test_noise_forgets() -> None:
    assert one_a_span(0, *[500 * MB] * (FLOORS - 1)).noise() > LEAST_NOISE
    assert one_a_span(0, *[500 * MB] * FLOORS).noise() == LEAST_NOISE


def test_a_moved_floor_is_no_noise_once_it_settled() -> None:
    floor = one_a_span(500 * MB, 500 * MB, 300 * MB)
    assert floor.noise() > LEAST_NOISE
    floor.settle()
    assert floor.noise() == LEAST_NOISE
    for place in range(4, 7):
        floor.note(place * SPAN, 300 * MB)
    assert floor.noise() == LEAST_NOISE
    assert floor.floor(6 * SPAN) == 300 * MB
