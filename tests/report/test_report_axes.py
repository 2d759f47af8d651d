"""Axes: round numbers around what is drawn, places on paper."""

import math

import pytest

from headrace.report.axes import clock, linear, logarithmic


@pytest.mark.parametrize(
    ("values", "high", "ticks"),
    [
        ([3.0, 62.0], 80.0, ["0", "20", "40", "60", "80"]),
        ([0.7], 0.8, ["0", "0.2", "0.4", "0.6", "0.8"]),
        ([], 1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([math.nan, 4_800.0], 5_000.0, ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]),
    ],
)
def test_linear_axes_start_at_nothing(values: list[float], high: float, ticks: list[str]) -> None:
    axis = linear("", values)
    assert axis.high == pytest.approx(high)
    assert [axis.tick_text(tick) for tick in axis.ticks] == ticks


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.03, 70.0], ["0.1", "1", "10", "100"]),
        ([0.3, 7.0], ["0.2", "0.5", "1", "2", "5", "10"]),
        ([0.031, 0.052], ["0.03", "0.04", "0.06"]),
        ([0.0, -1.0, math.nan], ["0.1", "0.2", "0.5", "1"]),
        ([1.0, 1.0], ["1", "1.5"]),
    ],
)
def test_logarithmic_axes_hold_what_is_positive(values: list[float], ticks: list[str]) -> None:
    axis = logarithmic("", values)
    assert [axis.tick_text(tick) for tick in axis.ticks if axis.low <= tick <= axis.high] == ticks
    assert all(0 <= axis.share(value) <= 1 for value in values if value > 0)
    assert axis.share(math.sqrt(axis.low * axis.high)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("duration_s", "unit", "last"),
    [(60.0, "s", 60.0), (600.0, "min", 10.0), (86_400.0, "h", 24.0), (7 * 86_400.0, "days", 7.0)],
)
def test_time_is_counted_as_people_count_it(duration_s: float, unit: str, last: float) -> None:
    axis, unit_s = clock(duration_s)
    assert axis.label.endswith(f", {unit}")
    assert axis.high == pytest.approx(duration_s / unit_s)
    assert axis.ticks[-1] <= axis.high <= last + 1e-9
    assert 3 <= len(axis.ticks) <= 9
