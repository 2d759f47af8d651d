"""A trace's traffic as a Document: arrivals, sizes, and the published statistics of ModServe's trace beside them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.characterize import drawing, traffic
from headrace.characterize.document import Document, Figure, Section, Table, number, percent
from headrace.characterize.traffic import Seen
from headrace.report import axes
from headrace.report.axes import Axis
from headrace.workload import fitted
from headrace.workload.statistics import Spread, Statistics
from headrace.workload.traces import Tally

SHOWN = (0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
_HOURS = 3  # of a trace at least, for what belongs to hours


def document(name: str, stats: Statistics, seen: Seen, tally: Tally) -> Document:
    sections = [_arrivals(stats, seen), _sizes(stats, seen)]
    if {"text", "image"} & stats.shares.keys():
        sections.append(_beside(stats, seen))
    told = f" {tally}." if tally.mended or tally.skipped else ""
    return Document(
        f"Traffic of {name}",
        f"{stats.requests:,} requests in {_span(stats.duration_s)}: "
        + ", ".join(f"{percent(share, 1)} {kind}" for kind, share in stats.shares.items())
        + f".{told}",
        tuple(sections),
        data=data(stats, seen),
    )


def data(stats: Statistics, seen: Seen) -> dict[str, Any]:
    return {
        "origin": "counted",
        "requests": stats.requests,
        "duration_s": stats.duration_s,
        "shares": stats.shares,
        "arrivals": {
            kind: {
                "requests": of.requests,
                "rate_rps": of.rate_rps,
                "gap_cv": of.gap_cv,
                "dispersion": {str(width): value for width, value in of.dispersion.items()},
                "peak_per_min": of.peak_per_min,
                "peak_to_mean": of.peak_to_mean,
                "autocorrelation_by_min": {str(lag): value for lag, value in of.autocorrelation.items()},
            }
            for kind, of in stats.traffic.items()
        },
        "input_tokens": {kind: _spread(of) for kind, of in stats.input_tokens.items()},
        "output_tokens": {kind: _spread(of) for kind, of in stats.output_tokens.items()},
        "media_tokens": {kind: _spread(of) for kind, of in stats.media_tokens.items()},
        "parts": {kind: _spread(of) for kind, of in stats.parts.items()},
        "context_tokens": {kind: _quantiles(of) for kind, of in seen.context.items()},
        "text_image_correlation": stats.modality_correlation,
        "hourly_image_share": list(stats.hourly_image_share),
        "prefix_reuse_share": stats.reuse.share,
    }


def _spread(of: Spread) -> dict[str, Any]:
    quantiles = {f"p{p * 100:g}": value for p, value in of.quantiles.items()}
    return {"count": of.count, "mean": of.mean, "max": of.greatest, "tail_index": of.tail_index, **quantiles}


def _quantiles(of: Counter[int]) -> dict[str, int]:
    return {f"p{p * 100:g}": traffic.quantile(of, p) for p in SHOWN}


def _arrivals(stats: Statistics, seen: Seen) -> Section:
    rows = []
    for kind in seen.kinds:
        of = stats.traffic[kind]
        spread = [number(of.dispersion[width]) if width in of.dispersion else "–" for width in (1, 10, 60, 600)]
        cells = (f"{of.requests:,}", number(of.rate_rps), number(of.gap_cv), *spread)
        rows.append((kind, *cells, f"{of.peak_per_min:,}", f"{of.peak_to_mean:.2f}"))
    columns = ("kind", "requests", "1/s", "CV of gaps", "D 1 s", "D 10 s", "D 60 s", "D 600 s", "peak/min", "peak/mean")
    findings = [f"{kind}: {_burstiness(stats, kind)}" for kind in seen.kinds]
    if stats.modality_correlation:
        findings.append(f"Text and image requests by minute correlate with {stats.modality_correlation:.2f}.")
    return Section(
        "arrivals",
        "Arrivals",
        "counted",
        findings=tuple(findings),
        notes=(
            "CV: standard deviation over mean of the times between arrivals; D: variance over mean of the counts in"
            " windows of that length. Poisson traffic has 1 of both; –: fewer than ten windows. Peak: the minute with"
            " most requests.",
        ),
        tables=(Table("By kind of request", columns, tuple(rows)),),
        figures=_over_time(stats.duration_s, seen),
    )


def _burstiness(stats: Statistics, kind: str) -> str:
    of = stats.traffic[kind]
    word = "burstier than" if of.gap_cv > 1.1 else "smoother than" if of.gap_cv < 0.9 else "about"
    return (
        f"{number(of.rate_rps)} requests/s, {word} Poisson (CV of gaps {number(of.gap_cv)}), busiest minute"
        f" {of.peak_to_mean:.1f} times the mean."
    )


def _over_time(duration_s: float, seen: Seen) -> tuple[Figure, ...]:
    run, unit_s = axes.clock(duration_s)
    unit = run.label.rpartition(", ")[2]
    clock = replace(run, label=f"time since the first request, {unit}")

    def over(points: drawing.Points) -> drawing.Points:
        return [(at_s / unit_s, value) for at_s, value in points]

    times = {kind: seen.times(kind) for kind in seen.kinds}
    rates = {kind: over(traffic.rate(of, duration_s)) for kind, of in times.items()}
    figures = [drawing.lines("Request rate", rates, lambda _: clock, drawing.linear("requests/s"))]
    width_s = traffic.window_s(seen.times("all"), duration_s)
    variation = {kind: over(traffic.cv(of, width_s)) for kind, of in times.items()}
    if any(variation.values()):
        title = f"CV of the gaps, windows of {_span(width_s)}"
        figures.append(drawing.lines(title, variation, lambda _: clock, drawing.linear("CV; Poisson: 1")))
    self_s = {kind: traffic.autocorrelation(of, duration_s) for kind, of in times.items()}
    if any(self_s.values()):
        lag, lag_s = axes.clock(max(at for of in self_s.values() for at, _ in of))
        series = {kind: [(at / lag_s, value) for at, value in of] for kind, of in self_s.items()}
        across = replace(lag, label=f"lag, {lag.label.rpartition(', ')[2]}")
        title = f"Autocorrelation of the rate, by {_span(traffic.bin_s(duration_s))}"
        figures.append(drawing.lines(title, series, lambda _: across, _around_zero("correlation")))
    return tuple(figures)


def _around_zero(label: str) -> Callable[[Any], Axis]:
    def axis(values: Any) -> Axis:
        low, high = min([0.0, *values]), max([0.0, *values]) or 1.0
        step = axes.round_step(max(high - low, 1e-6) / axes.TICKS_ABOUT)
        first, last = int(np.floor(low / step)), int(np.ceil(high / step))
        return Axis(label, first * step, last * step, tuple(at * step for at in range(first, last + 1)))

    return axis


def _sizes(stats: Statistics, seen: Seen) -> Section:
    rows = []
    for title, tables in (
        ("text tokens in", stats.input_tokens),
        ("tokens out", stats.output_tokens),
        ("tokens of a part", stats.media_tokens),
        ("parts of a request", stats.parts),
        ("width, px", stats.widths),
        ("height, px", stats.heights),
        ("seconds", stats.seconds),
    ):
        for kind, of in tables.items():
            if kind in seen.kinds or kind not in ("all", "text"):
                values = (f"{of.at(p):,}" for p in SHOWN)
                tail = number(of.tail_index) if of.tail_index else "–"
                rows.append((f"{kind}: {title}", number(of.mean), *values, f"{of.greatest:,}", tail))
    columns = ("", "mean", *(f"p{p * 100:g}" for p in SHOWN), "max", "tail")
    share = drawing.linear("requests, %", 100.0)
    figures = [
        drawing.lines(title, {kind: traffic.cdf(of) for kind, of in tables.items()}, drawing.logarithmic(label), share)
        for title, tables, label in (
            ("Tokens in, media included where told", seen.context, "tokens"),
            ("Tokens out", seen.output, "tokens"),
        )
    ]
    if len(seen.images) > 1:
        images = {"image": traffic.cdf(seen.images)}
        title = "Images of a request that has some"
        figures.append(drawing.lines(title, images, drawing.logarithmic("images"), share, step=True))
    reuse = stats.reuse
    return Section(
        "sizes",
        "Sizes",
        "counted",
        findings=(f"{percent(reuse.share)} of the prompts' prefix blocks came before.",) if reuse.blocks else (),
        notes=("Tail: Hill's index over the uppermost 1 % of values, smaller is heavier; –: too few values.",),
        tables=(Table("By kind of request, or of part", columns, tuple(rows)),),
        figures=tuple(figures),
    )


def _beside(stats: Statistics, seen: Seen) -> Section:
    """What is published of the Azure LMM trace, where this one has such requests."""
    rows = []
    for kind, context, output in (
        ("text", fitted.LMM_CONTEXT_TEXT, fitted.LMM_OUTPUT_TEXT),
        ("image", fitted.LMM_CONTEXT_IMAGE, fitted.LMM_OUTPUT_IMAGE),
    ):
        for what, law, counts in (("context", context, seen.context), ("generated", output, seen.output)):
            if kind in counts:
                here = [traffic.quantile(counts[kind], p) for p in SHOWN]
                published = law.at(np.array(SHOWN))
                rows.append((f"{kind}, {what}: here", *(f"{value:,}" for value in here)))
                rows.append((f"{kind}, {what}: ModServe's", *(f"{value:,.0f}" for value in published)))
    quantiles = Table(
        "Tokens",
        ("", *(f"p{p * 100:g}" for p in SHOWN)),
        tuple(rows),
        "ModServe's: p10 to p90 of the contexts as a third party counted them [T], the rest read off the released"
        " notebook's plots within 2 % [M].",
    )
    return Section(
        "modserve",
        "Beside the trace of ModServe",
        "counted",
        notes=(
            "One week of Azure's LMM service in October 2024, a million requests (arXiv 2502.00937 and its data).",
            *_untold(stats),
        ),
        tables=(quantiles, _scalars(stats, seen)),
    )


def _untold(stats: Statistics) -> tuple[str, ...]:
    if "image" not in stats.shares or "image" in stats.media_tokens:
        return ()
    return ("This trace does not tell the tokens of its images: its image contexts are their text alone.",)


def _scalars(stats: Statistics, seen: Seen) -> Table:
    per_min = stats.traffic["all"].rate_rps * 60
    rows = [("requests/min", number(per_min), f"{fitted.LMM_REQUESTS_PER_MIN} [C]")]
    share = stats.shares.get("image", 0.0)
    rows.append(("requests with images", percent(share, 1), f"{percent(fitted.LMM_IMAGE_SHARE)}, by construction [C]"))
    if {"text", "image"} <= stats.shares.keys():
        rows.append(("correlation of text and image minutes", f"{stats.modality_correlation:.2f}", "uncorrelated [P]"))
        hours = stats.hourly_image_share
        if len(hours) >= _HOURS:
            here = ", ".join(percent(value) for value in (min(hours), float(np.median(hours)), max(hours)))
            published = ", ".join(percent(value) for value in fitted.LMM_HOURLY_SHARE)
            rows.append(("image share of hours: least, median, greatest", here, f"{published} [T]"))
    if seen.images:
        total = seen.images.total()
        clipped = max(seen.images) <= fitted.LMM_IMAGES_CLIP
        law = fitted.LMM_IMAGES_CLIPPED if clipped else fitted.LMM_IMAGES
        tag = f"clipped to {fitted.LMM_IMAGES_CLIP} [M/I]" if clipped else "[M]"
        for count, share in list(zip(law.values, law.probabilities.tolist(), strict=True))[:4]:
            here = percent(seen.images[count] / total, 1)
            name = f"image requests with {count} image{'s' if count > 1 else ''}"
            rows.append((name, here, f"{percent(share, 1)}, {tag}"))
    if "image" in stats.widths:
        sides = f"{stats.widths['image'].at(0.5):,} x {stats.heights['image'].at(0.5):,} px"
        rows.append(("median image", sides, f"about {fitted.IMAGE_SIDE_MEDIAN_PX:.0f} px a side [P]"))
    return Table("Mix", ("", "here", "ModServe's"), tuple(rows))


def _span(seconds: float) -> str:
    for size, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
