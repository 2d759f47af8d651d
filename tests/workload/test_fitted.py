"""The fitted numbers against the public data they come from, where that is at hand."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from headrace.workload import fitted
from headrace.workload.quantiles import Quantiles
from headrace.workload.statistics import Spread, describe
from headrace.workload.traces import load

DATA = Path(__file__).parents[2].parent / "shared" / "data"
LMM = {
    ("image", "input_tokens"): fitted.LMM_CONTEXT_IMAGE,
    ("text", "input_tokens"): fitted.LMM_CONTEXT_TEXT,
    ("image", "output_tokens"): fitted.LMM_OUTPUT_IMAGE,
    ("text", "output_tokens"): fitted.LMM_OUTPUT_TEXT,
}


def plotted(series: str, field: str) -> list[tuple[float, float, float]]:
    """x, and the least and greatest share below it that the plot's pixel allows."""
    path = DATA / "azure_2024_2025_digitised_cdfs.csv.gz"
    if not path.is_file():
        pytest.skip(f"shared/data has no {path.name}")
    with gzip.open(path, "rt") as text:
        rows = [
            r for r in csv.DictReader(text) if (r["trace"], r["series"], r["field"]) == ("azure2025_lmm", series, field)
        ]
    return [(float(r["x"]), float(r["cdf_lo"]), float(r["cdf_hi"])) for r in rows]


@pytest.mark.parametrize(("series", "field"), LMM)
def test_lmm_tables_lie_on_the_published_curves(series: str, field: str) -> None:
    """At each inner point of a table, the curve passes its share within the plot's error around its value."""
    points, table = plotted(series, field), LMM[series, field]
    for p, x in list(zip(table.p, table.x, strict=True))[1:-1]:
        near = [(low, high) for at, low, high in points if 0.9 * x - 0.6 <= at <= 1.1 * x + 0.6]
        assert min(low for low, _ in near) - 0.02 <= p <= max(high for _, high in near) + 0.02, (p, x)


def test_image_counts_add_up_and_clip_to_the_paper_s() -> None:
    assert sum(fitted.LMM_IMAGES.weights) == pytest.approx(1.0, abs=0.005)
    clipped = fitted.LMM_IMAGES.clipped(fitted.LMM_IMAGES_CLIP)
    np.testing.assert_allclose(clipped.probabilities, fitted.LMM_IMAGES_CLIPPED.probabilities, atol=0.002)


def test_the_week_has_its_hours_and_means() -> None:
    for hours in (fitted.IMAGE_WEEK, fitted.TEXT_WEEK):
        assert len(hours) == 168
        assert np.mean(hours) == pytest.approx(fitted.LMM_REQUESTS_PER_MIN / 2, rel=0.01)


@pytest.mark.parametrize(
    ("file", "prompts", "answers"),
    [
        ("azure2023_conv.csv.gz", fitted.CONV_INPUT, fitted.CONV_OUTPUT),
        ("azure2023_code.csv.gz", fitted.CODE_INPUT, fitted.CODE_OUTPUT),
    ],
)
def test_text_tables_are_the_trace_s(file: str, prompts: Quantiles, answers: Quantiles) -> None:
    """Up to the median: above it the tables are the whole hour's, the file has its first half."""
    if not (DATA / file).is_file():
        pytest.skip(f"shared/data has no {file}")
    stats = describe(load(DATA / file, "headrace"))
    assert_close(stats.input_tokens["all"], prompts)
    assert_close(stats.output_tokens["all"], answers)


def assert_close(got: Spread, table: Quantiles) -> None:
    for p in (0.01, 0.05, 0.1, 0.5):
        assert got.at(p) == pytest.approx(float(table.at(np.array([p]))[0]), rel=0.05, abs=1)
