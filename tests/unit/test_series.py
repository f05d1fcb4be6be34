"""Thinned curves keep their extremes."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from api.series import downsample

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400),
    max_points=st.integers(4, 60),
)
def test_first_last_lowest_and_highest_stay(values, max_points):
    points = [(step, value, NOW) for step, value in enumerate(values)]
    kept = downsample(points, max_points)
    assert len(kept) <= max(max_points, 0)
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert {min(values), max(values)} <= {value for _, value, _ in kept}
    assert [step for step, _, _ in kept] == sorted({step for step, _, _ in kept})


def test_a_spike_of_one_step_stays_visible():
    points = [(step, 100.0 if step == 777 else 1.0, NOW) for step in range(10_000)]
    assert (777, 100.0, NOW) in downsample(points, 50)


def test_a_point_that_is_not_a_number_stays():
    points = [(step, None if step == 50 else 1.0, NOW) for step in range(1000)]
    assert (50, None, NOW) in downsample(points, 20)
