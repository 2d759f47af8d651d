"""The comparison in text: a golden transcript, its width, its units, and the arithmetic of means and intervals."""

import math
from pathlib import Path

import pytest

from headrace.report import table
from headrace.report.compare import Compared, Estimate, compare, estimate, figures
from headrace.report.digest import digest
from headrace.report.provenance import plain
from headrace.report.units import JOULES, SECONDS, Unit, texts, unit_for
from tests.report.synthetic import nothing, result

GOLDEN = Path(__file__).parent / "table.txt"
POLICIES = (("headrace", 1.25), ("fcfs", 0.9))


def compared(seeds: int = 3) -> tuple[Compared, ...]:
    seeded = range(1, seeds + 1)
    return compare(digest(result(name, seed, speed=speed)) for name, speed in POLICIES for seed in seeded)


def test_the_table_is_the_transcript() -> None:
    """Three seeds at 100 characters, then one seed at 120."""
    found = "\n".join([*table.lines(compared(), 100), "", *table.lines(compared(seeds=1), 120), ""])
    assert found == GOLDEN.read_text()


@pytest.mark.parametrize("width", [60, 80, 120, 1_000])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = table.lines(compared(), width)
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("fcfs") for line in lines) == lines.count("") + 1


def test_a_run_without_requests_has_a_table() -> None:
    lines = table.lines(compare([digest(nothing())]), 200)
    assert lines[-1].split()[:4] == ["headrace", "0", "0", "–"]


@pytest.mark.parametrize(
    ("values", "mean", "half"),
    [
        ([], math.nan, math.nan),
        ([4.0], 4.0, math.nan),
        ([4.0, math.nan], 4.0, math.nan),
        ([2.0, 2.0, 2.0], 2.0, 0.0),
        ([1.0, 3.0], 2.0, 12.706),  # t(0.975, 1) = 12.706, s / sqrt(2) = 1
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 1.963),  # t(0.975, 4) = 2.776, s / sqrt(5) = 0.7071
    ],
)
def test_mean_and_half_the_interval(values: list[float], mean: float, half: float) -> None:
    found = estimate(values)
    assert found.mean == pytest.approx(mean, nan_ok=True)
    assert found.half == pytest.approx(half, abs=1e-3, nan_ok=True)


@pytest.mark.parametrize(
    ("values", "units", "name"),
    [
        ([0.02, 0.4], SECONDS, "ms"),
        ([0.4, 30.0], SECONDS, "ms"),
        ([1.2, 500.0], SECONDS, "s"),
        ([90.0, 4_000.0], SECONDS, "min"),
        ([3.0e6], JOULES, "MJ"),
        ([0.0, math.nan], SECONDS, "s"),
    ],
)
def test_a_column_has_the_unit_of_its_smallest(values: list[float], units: tuple[Unit, ...], name: str) -> None:
    assert unit_for(values, units).name == name


def test_digits_and_intervals_of_a_column_agree() -> None:
    unit = Unit("s", 1.0)
    assert texts([Estimate(0.42, 0.1), Estimate(12.0, 0.0)], unit) == ["0.420 ± 0.100", "12.000 ± 0.000"]
    assert texts([Estimate(35.6, 0.0), Estimate(35.6, 0.0)], unit) == ["35.6", "35.6"]
    assert texts([Estimate(math.nan), Estimate(1_234.5)], unit) == ["–", "1,234"]


def test_the_best_includes_what_the_seeds_cannot_tell_from_it() -> None:
    figure = table.Figure("ttft_p99_s", "", "", "", SECONDS, -1)
    column = table.Column(figure, SECONDS[1], (Estimate(10.0, 2.0), Estimate(11.0, 2.0), Estimate(20.0, 2.0)))
    assert column.best() == [True, True, False]
    alone = table.Column(figure, SECONDS[1], (Estimate(10.0),))
    assert alone.best() == [False]


def test_json_figures_are_those_of_the_summary_and_of_their_mean() -> None:
    one, several = compared(seeds=1)[0], compared()[0]
    summary = result("headrace", 1, speed=1.25).summary()
    assert {key: figures(one)[key] for key in summary} == summary
    assert "ci95" not in figures(one)
    found = figures(several)
    assert found["attainment"] == pytest.approx(sum(run["attainment"] for run in found["by_seed"]) / 3)
    assert set(found["ci95"]) == set(summary)
    assert set(found["by_class"]) == {"interactive", "batch-1", "batch-2"}
    assert sum(found["ended"].values()) == 3 * 6_000


def test_json_has_null_where_there_is_no_number() -> None:
    assert plain({"a": math.nan, "b": [math.inf, 1], "c": True, "d": "x"}) == {
        "a": None,
        "b": [None, 1],
        "c": True,
        "d": "x",
    }
