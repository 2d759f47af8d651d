"""Errors of expected waits: by how many stood ahead, with medians and bounds, in bounded memory."""

from random import Random

import pytest

from headrace.core.waiting import WaitErrorRow, WaitErrors


def test_who_counts_where() -> None:
    errors = WaitErrors()
    for ahead in (0, 1, 2, 3, 4, 7, 8, 1_000_000_000):
        errors.record(ahead, 1.0, 2.0, 1.0)
    assert [(row.ahead_from, row.requests) for row in errors.rows()] == [
        (0, 1),
        (1, 1),
        (2, 2),
        (4, 2),
        (8, 1),
        (524_288, 1),
    ]


def test_figures_of_known_errors() -> None:
    """Off by 0.01 s, 0.02 s ... 1 s, of 10 s each; the bound lies 0.5 s above what is expected."""
    errors = WaitErrors()
    for hundredths in range(1, 101):
        errors.record(5, 10.0 - hundredths / 100, 10.5 - hundredths / 100, 10.0)
    (row,) = errors.rows()
    assert row.ahead_from == 4
    assert row.median_s == pytest.approx(0.5, rel=0.08)
    assert row.p90_s == pytest.approx(0.9, rel=0.08)
    assert row.median_share == pytest.approx(0.05, rel=0.08)
    assert row.within_bound == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("expected_s", "waited_s", "median_s", "why"),
    [
        (0.0, 0.0, 0.0, "right"),
        (0.0, 1e9, 1e5, "beyond the last bin"),
        (3.0, 0.0, 3.0, "nobody waited: its share is as large as shares are"),
        (3.0, -0.5, 3.5, "a clock that was put back"),
    ],
)
def test_odd_ones(expected_s: float, waited_s: float, median_s: float, why: str) -> None:
    errors = WaitErrors()
    errors.record(0, expected_s, expected_s, waited_s)
    assert errors.rows()[0].median_s == pytest.approx(median_s, rel=0.16), why


def test_old_errors_fade() -> None:
    errors = WaitErrors(memory=50.0)
    for _ in range(500):
        errors.record(1, 100.0, 100.0, 200.0)
    for _ in range(200):
        errors.record(1, 1.0, 2.0, 1.1)
    (row,) = errors.rows()
    assert row.median_s == pytest.approx(0.1, rel=0.15)
    assert row.within_bound > 0.95
    assert row.requests == 700


def test_many_do_not_overflow_what_is_kept() -> None:
    errors, random = WaitErrors(memory=2.0), Random(1)
    for _ in range(3_000):
        errors.record(0, 1.0, 2.0, 1.0 + random.random())
    (row,) = errors.rows()
    assert isinstance(row, WaitErrorRow)
    assert 0.0 < row.median_s < 1.1
    assert row.within_bound == pytest.approx(1.0)
