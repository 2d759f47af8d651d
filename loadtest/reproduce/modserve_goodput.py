"""Part 2: the highest rate at which targets are kept, over multiples of an isolated request's time; and raw capacity.

Every system is run at rising rates; between two rates the excess over the target is taken to grow geometrically. What
counts is the first rate that fails, and never more than what the fleet can serve at all: a short run hides a queue that
grows.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from headrace.characterize import drawing
from headrace.characterize.document import Figure, Section, Table
from headrace.report.compare import Estimate, estimate
from loadtest.reproduce.modserve_capacity import split_rps, whole_rps
from loadtest.reproduce.modserve_found import Finished, Grid
from loadtest.reproduce.modserve_paper import PAPER
from loadtest.reproduce.modserve_plan import FACTORS, Base, Plan, Row, of, pair, told
from loadtest.reproduce.modserve_runs import Run, Saturated
from loadtest.reproduce.modserve_systems import PAPER_SHAPE
from loadtest.reproduce.modserve_traffic import Traffic

SYSTEMS = ("monolith", "modserve")
SATURATED = {"monolith": "monolith_balanced", "modserve": "modserve"}
Points = Sequence[tuple[float, float]]  # rate, and by how many times the tightest target is exceeded there

Excess = Callable[[Row, Base, float], float]


def _kinds(row: Row, base: Base, factor: float) -> float:
    return float(max(row["text_p99_s"] / (factor * base.text_s), row["image_p99_s"] / (factor * base.image_s)))


def _mixed(row: Row, base: Base, factor: float) -> float:
    return float(row["ttft_p99_s"] / (factor * base.image_s))


def _tbt(row: Row, base: Base, factor: float) -> float:
    return float(row["tbt_p99_s"] / (factor * base.tbt_s))


# How "the 99th percentile stays within base x factor" may be read.
CRITERIA: dict[str, tuple[str, Excess]] = {
    "kinds": (
        "P99 TTFT of text and of image requests, each within its own kind's, and P99 TBT",
        lambda row, base, f: max(_kinds(row, base, f), _tbt(row, base, f)),
    ),
    "kinds_ttft": ("the same without TBT", _kinds),
    "mixed": (
        "P99 TTFT of all requests within the image requests', and P99 TBT",
        lambda row, base, f: max(_mixed(row, base, f), _tbt(row, base, f)),
    ),
    "mixed_ttft": ("the same without TBT", _mixed),
    "own_ttft": ("P99 of TTFT over what the same request takes alone", lambda row, _base, f: row["slowdown_p99"] / f),
}


def goodput(points: Points, most_rps: float) -> float:
    """points: in order of rate. 0 where the lowest rate fails already."""
    before: tuple[float, float] | None = None
    for rate, excess in points:
        if not excess <= 1:  # nan fails too
            if before is None:
                return 0.0
            return min(most_rps, _crossing(before, (rate, excess)))
        before = rate, excess
    return min(most_rps, points[-1][0]) if points else math.nan


def _crossing(below: tuple[float, float], above: tuple[float, float]) -> float:
    (low, kept), (high, broken) = below, above
    if not math.isfinite(broken) or kept <= 0:
        return low
    return low + (high - low) * math.log(1 / kept) / math.log(broken / kept)


def ratio(mine: Sequence[float], other: Sequence[float]) -> Estimate:
    """Of the means over the seeds, with the jackknife's interval; infinite where the other has none."""
    if not mine or len(mine) != len(other):
        return Estimate(math.nan)
    a, b = np.array(mine), np.array(other)
    if b.sum() == 0:
        return Estimate(math.inf if a.sum() > 0 else math.nan)
    whole = float(a.sum() / b.sum())
    if len(a) < 2 or np.any(b.sum() - b == 0):
        return Estimate(whole)
    left = (a.sum() - a) / (b.sum() - b)
    spread = estimate((len(a) * whole - (len(a) - 1) * left).tolist())
    return Estimate(whole, spread.half)


def grid(plan: Plan) -> Grid:
    """(model, system, rate) -> runs."""
    rates = {"monolith": plan.whole_rates, "modserve": plan.split_rates}
    return {
        (model, system, rate): [
            Run(model, system, Traffic(rate, plan.requests), seed, plan.bases[model].targets) for seed in plan.seeds
        ]
        for model in plan.models
        for system in SYSTEMS
        for rate in rates[system]
    }


def saturated_grid(plan: Plan) -> Grid:
    return {
        (model, system): [
            Saturated(model, SATURATED[system], plan.capacity_requests, seed)
            for seed in plan.seeds[: plan.capacity_seeds]
        ]
        for model in plan.models
        for system in SYSTEMS
    }


def section(plan: Plan, found: Finished, cells: Grid, saturated: Grid) -> tuple[Section, dict[str, object]]:
    raw = {cell: of(found.of(jobs), "rps") for cell, jobs in saturated.items()}
    goodputs = {
        (model, system, name, factor): _by_seed(found, cells, plan, (model, system), name, factor)
        for model in plan.models
        for system in SYSTEMS
        for name in CRITERIA
        for factor in FACTORS
    }
    ratios = {
        (model, name, factor): ratio(
            goodputs[model, "modserve", name, factor], goodputs[model, "monolith", name, factor]
        )
        for model in plan.models
        for name in CRITERIA
        for factor in FACTORS
    }
    tables = [_capacity_table(plan, raw)]
    for model in plan.models:
        tables.append(_table(model, goodputs, ratios))
    figures = tuple(_chart(model, goodputs) for model in plan.models)
    data = {
        "goodput_ratio": {m: {f"{f:g}": ratios[m, "kinds", f].mean for f in FACTORS} for m in plan.models},
        "goodput": {
            name: {
                model: {
                    f"{factor:g}": {
                        **{system: pair(estimate(goodputs[model, system, name, factor])) for system in SYSTEMS},
                        "ratio": pair(ratios[model, name, factor]),
                    }
                    for factor in FACTORS
                }
                for model in plan.models
            }
            for name in CRITERIA
        },
        "raw_capacity_rps": {f"{model} {system}": pair(figure) for (model, system), figure in raw.items()},
        "raw_capacity_ratio": {m: raw[m, "modserve"].mean / raw[m, "monolith"].mean for m in plan.models},
    }
    notes = (
        "Criteria: " + "; ".join(f"{name}: {words}" for name, (words, _) in CRITERIA.items()) + ".",
        "Raw capacity, simulated: requests over the time until the last first token at twice the load, least pending on"
        " both sides; at the end instances stand idle. By arithmetic: instances over the mean seconds of their work; it"
        " bounds every goodput here, since a short run hides a queue that grows.",
        "TBT is the 99th percentile of the requests' own mean gaps. ∞: the monolith keeps the target at no rate that"
        " was tried. –: neither does.",
    )
    found_out = _findings(plan, raw, ratios)
    return Section("goodput", "Goodput and raw capacity", "simulated", found_out, notes, tuple(tables), figures), data


def _by_seed(found: Finished, cells: Grid, plan: Plan, who: tuple[str, str], name: str, factor: float) -> list[float]:
    model, system = who
    rates = [rate for at, by, rate in cells if (at, by) == who]
    columns = [found.of(cells[model, system, rate]) for rate in rates]
    if not columns or len({len(column) for column in columns}) > 1:
        return []  # a run failed: its seed would stand beside another
    excess, base = CRITERIA[name][1], plan.bases[model]
    most = (whole_rps if system == "monolith" else split_rps)(model, PAPER_SHAPE)
    return [
        goodput([(rate, excess(row, base, factor)) for rate, row in zip(rates, by_rate, strict=True)], most)
        for by_rate in zip(*columns, strict=True)
    ]


def _capacity_table(plan: Plan, raw: Mapping[tuple[str, str], Estimate]) -> Table:
    rows = []
    for model in plan.models:
        reckoned = whole_rps(model, PAPER_SHAPE), split_rps(model, PAPER_SHAPE)
        for system, each in zip(SYSTEMS, reckoned, strict=True):
            rows.append((f"{model}, {system}", told(raw[model, system], 1), f"{each:.1f}"))
        measured = raw[model, "modserve"].mean / raw[model, "monolith"].mean
        rows.append((f"{model}, ratio", f"{measured:.2f}", f"{reckoned[1] / reckoned[0]:.2f}"))
    return Table("Raw capacity of 128 GPUs, requests/s", ("", "simulated", "by arithmetic"), tuple(rows))


def _table(
    model: str,
    goodputs: Mapping[tuple[str, str, str, float], list[float]],
    ratios: Mapping[tuple[str, str, float], Estimate],
) -> Table:
    rows = []
    for name in CRITERIA:
        for factor in FACTORS:
            pairs = [told(estimate(goodputs[model, system, name, factor]), 1) for system in SYSTEMS]
            rows.append((f"{name}, {factor:g} ×", *pairs, _ratio_told(ratios[model, name, factor])))
    paper = f"The paper: {PAPER['goodput_ratio'][model]} ×, its factor not told; up to"
    note = f"{paper} {PAPER['goodput_ratio_most'][model]} × over a sweep of factors."
    return Table(f"Goodput of {model}, requests/s", ("criterion, factor", *SYSTEMS, "ratio"), tuple(rows), note)


def _ratio_told(figure: Estimate) -> str:
    return "∞" if figure.mean == math.inf else told(figure)


def _chart(model: str, goodputs: Mapping[tuple[str, str, str, float], list[float]]) -> Figure:
    series = {
        f"{system}, {name}": [(f, estimate(goodputs[model, system, name, f]).mean) for f in FACTORS]
        for name in ("kinds", "mixed", "own_ttft")
        for system in SYSTEMS
    }
    x, y = drawing.doubling("target as a multiple of the isolated request"), drawing.linear("goodput, requests/s")
    return drawing.lines(f"Goodput over the SLO factor, {model}", series, x, y)


def _findings(
    plan: Plan, raw: Mapping[tuple[str, str], Estimate], ratios: Mapping[tuple[str, str, float], Estimate]
) -> tuple[str, ...]:
    lines = []
    for model in plan.models:
        capacity = raw[model, "modserve"].mean / raw[model, "monolith"].mean
        reckoned = split_rps(model, PAPER_SHAPE) / whole_rps(model, PAPER_SHAPE)
        spans = []
        for name in ("kinds", "mixed", "own_ttft"):
            known = [ratios[model, name, f].mean for f in FACTORS]
            finite = [each for each in known if math.isfinite(each)]
            if finite:
                spans.append(f"{name} {min(finite):.1f} to {max(finite):.1f} ×")
        lines.append(
            f"{model}: raw capacity {reckoned:.2f} × the monolith's by arithmetic, {capacity:.2f} × simulated; goodput"
            f" {', '.join(spans) or 'none'} over the factors at which the monolith has one (paper"
            f" {PAPER['goodput_ratio'][model]} ×, factor unknown)."
        )
    return tuple(lines)
