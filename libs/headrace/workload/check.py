"""Does traffic look like the Azure LMM trace? Each published statistic against a sample's, with a tolerance.

For generated samples and for the trace itself; a sample of days or more is needed for what belongs to hours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headrace.workload import fitted
from headrace.workload.quantiles import Quantiles
from headrace.workload.rates import Floats
from headrace.workload.statistics import Spread, Statistics

TABLE_TOLERANCE = 0.10  # of a quantile's value: the plots were read to 2 %, a day's sample adds as much again
LONG_S = 5 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    wanted: float
    got: float
    low: float
    high: float
    source: str

    @property
    def ok(self) -> bool:
        return self.low <= self.got <= self.high


def against_lmm(
    stats: Statistics,
    images: Literal["clipped", "raw"] = "clipped",
    image_token_share: float = fitted.IMAGE_TOKEN_SHARE,
    trace_sizes: bool = True,
) -> list[Finding]:
    """What is published of the trace against a sample with text and images. `image_token_share` is what the sample took
    out of an image request's context; `trace_sizes` false: image sizes are not the sample's own, leave them out."""
    assert {"text", "image"} <= stats.shares.keys(), "a sample of both modalities"
    found = [_near("image share of requests", fitted.LMM_IMAGE_SHARE, stats.shares["image"], 0.04, "C")]
    found += _table("context tokens of text requests", fitted.LMM_CONTEXT_TEXT, stats.input_tokens["text"], 1.0)
    kept = 1 - image_token_share
    found += _table("context tokens of image requests", fitted.LMM_CONTEXT_IMAGE, stats.input_tokens["image"], kept)
    found += _table("generated tokens of text requests", fitted.LMM_OUTPUT_TEXT, stats.output_tokens["text"], 1.0)
    found += _table("generated tokens of image requests", fitted.LMM_OUTPUT_IMAGE, stats.output_tokens["image"], 1.0)
    found += _counts(stats, images)
    found += _sizes(stats) if trace_sizes else ()
    if stats.duration_s >= LONG_S:
        found += _hours(stats)
        found += _bursts(stats, images)
    return found


def _near(name: str, wanted: float, got: float, by: float, source: str) -> Finding:
    return Finding(name, wanted, got, wanted - by, wanted + by, source)


def _table(name: str, wanted: Quantiles, got: Spread, kept: float) -> Iterator[Finding]:
    """One token more or less is a matter of rounding, and of small numbers."""
    for p, x in zip(wanted.p, wanted.x, strict=True):
        if p in got.quantiles:
            by = max(TABLE_TOLERANCE * x, 1.5 / kept)
            yield _near(f"{name} p{p * 100:g}", x, got.at(p) / kept, by, "T, M")


def _counts(stats: Statistics, images: str) -> Iterator[Finding]:
    law = fitted.LMM_IMAGES_CLIPPED if images == "clipped" else fitted.LMM_IMAGES
    for count, share in zip(law.values, law.probabilities.tolist(), strict=True):
        got = stats.part_share("image", count)
        yield _near(f"requests with {count} images", share, got, 0.003 + 0.1 * share, "M, I" if count > 100 else "M")


def _sizes(stats: Statistics) -> Iterator[Finding]:
    for name, table in (("width", stats.widths), ("height", stats.heights)):
        median = fitted.IMAGE_SIDE_MEDIAN_PX
        yield _near(f"median {name}", median, table["image"].at(0.5), 0.05 * median, "P")
        p95 = fitted.IMAGE_SIDE_P95_PX
        yield Finding(f"p95 {name}", p95, table["image"].at(0.95), p95, 2 * p95, "P")


def _hours(stats: Statistics) -> Iterator[Finding]:
    """Extremes of 168 hours scatter more than their median."""
    shares = stats.hourly_image_share
    least, median, greatest = fitted.LMM_HOURLY_SHARE
    yield _near("least hourly image share", least, min(shares), 0.06, "T")
    yield _near("median hourly image share", median, float(np.median(shares)), 0.05, "T")
    yield _near("greatest hourly image share", greatest, max(shares), 0.06, "T")
    yield _near("correlation of text and image minutes", 0.0, stats.modality_correlation, 0.15, "P: uncorrelated")


def _bursts(stats: Statistics, images: str) -> Iterator[Finding]:
    """Images per minute of the hour with most over the median hour's. Clipped to 16, counts cannot grow tenfold [I]."""
    wanted = 10.0 if images == "raw" else 3.0
    by_hour = _hourly(stats.parts_per_min["image"])
    got = float(by_hour.max() / np.median(by_hour))
    requests = np.array(stats.traffic["image"].hourly[:-1], dtype=np.float64)
    yield Finding("images, busiest hour over median hour", wanted, got, wanted, 100.0, "M" if images == "raw" else "I")
    by_requests = float(requests.max() / np.median(requests))
    yield Finding("of it by requests alone", 2.5, by_requests, 1.0, 5.0, "M: the plotted week")


def _hourly(minutes: Floats) -> Floats:
    whole = len(minutes) // 60 * 60
    return np.asarray(minutes[:whole].reshape(-1, 60).sum(axis=1))
