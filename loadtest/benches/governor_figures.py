"""What the governor bench says of a run. Pure: samples in, the figures of one JSON object out.

Goodput is compared with what the budget allows by the power law and the stages' paces, all GPUs computing all the time
as slowly as the load lets them (headrace.rehearsal.attainable), or with the load where that is less. A bound is what
no governor can pass and no noise of this machine moves; the best permanent caps, measured the same way, stand beside
it and show what of the bound can be had here.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.rehearsal import figures, meter
from headrace.rehearsal.attainable import best
from headrace.rehearsal.figures import Series
from headrace.rehearsal.load import Asked
from headrace.rehearsal.scene import ANSWER_TOKENS, CLASSES, Scene
from loadtest.benches.governor_run import Run

SETTLE_S = 10.0  # wanted, and what goodput is given before it counts
ATTAINABLE = 0.97
PERCENTILES = (0.5, 0.95)


def before_of(run: Run) -> float:
    """Goodput at full budget: what a run is to come back to."""
    return figures.mean(series_of(run)[1], run.at_s("before"), run.at_s("cut"))


def figures_of(run: Run, scene: Scene, before: float) -> dict[str, Any]:
    """Of the budget step, and of the loss of a UPS where there was one."""
    power, goodput = series_of(run)
    cut_s, back_s = run.at_s("cut"), run.at_s("back")
    attainable = _attainable_rps(run, scene) * ANSWER_TOKENS
    during = figures.mean(goodput, min(cut_s + SETTLE_S, (cut_s + back_s) / 2.0), back_s)
    step = _step(run, power, goodput, "cut")
    recover_s = figures.recovered_s(goodput, before, back_s, run.until_s("back"))
    found = {
        "overshoot_share": step["overshoot_share"],
        "overshoot_s": step["overshoot_s"],
        "overshoot_w": step["overshoot_w"],
        "settle_s": step["settle_s"],
        "recover_s": recover_s,
        "goodput_share_of_attainable": during / attainable,
        "attainable_tok_s": attainable,
        "budget_w": run.budget_w,
        "demand_w": run.demand_w,
        "phases": {name: _phase(run, power, goodput, name) for name in ("before", "cut", "back")},
    }
    if run.has("ups"):
        found["ups"] = _step(run, power, goodput, "ups") | {
            "recover_s": figures.recovered_s(goodput, before, run.at_s("clear"), run.at_s("end")),
            "phase": _phase(run, power, goodput, "ups"),
        }
    return found


def _attainable_rps(run: Run, scene: Scene) -> float:
    """Of a row of some workers: what it can do, beside what the others can."""
    if not run.workers:
        return min(scene.rate_rps, best(scene, run.budget_w).rate_rps)
    row = replace(scene, encoders=1, prefill=1, decode=1, rate_rps=scene.rate_rps / 2.0)
    return min(scene.rate_rps, best(row, run.budget_w).rate_rps + scene.capacity_rps / 2.0)


def series_of(run: Run) -> tuple[Series, Series]:
    """Watts of the row, and goodput, from the first moment to the last."""
    at_s = np.arange(run.moments[0].at_s, run.at_s("end"), figures.STEP_S)
    return Series(at_s, meter.watts(run.row_readings, at_s)), figures.goodput(run.asked, CLASSES, at_s)


def _step(run: Run, power: Series, goodput: Series, name: str) -> dict[str, Any]:
    from_s, to_s, limit_w = run.at_s(name), run.until_s(name), run.limit_w(name)
    known = figures.before_the_next(power, to_s)
    over = figures.overshoot(known, limit_w, from_s, to_s)
    return {
        "limit_w": limit_w,
        "overshoot_share": over.share,
        "overshoot_s": over.seconds,
        "overshoot_w": over.watts,
        "settle_s": figures.settled_s(known, limit_w, figures.smooth(goodput), from_s, to_s),
    }


def _phase(run: Run, power: Series, goodput: Series, name: str) -> dict[str, Any]:
    from_s, to_s = run.at_s(name), run.until_s(name)
    rows = figures.arrived(run.asked, from_s, to_s)
    ttft_p50_s, ttft_p95_s = figures.ttft_percentiles(rows, PERCENTILES)
    tbt_p50_s, tbt_p95_s = figures.tbt_percentiles(run.asked, from_s, to_s, PERCENTILES)
    temps = meter.hottest_c(run.readings, power.within(from_s, to_s).at_s)
    return {
        "seconds": to_s - from_s,
        "power_w": figures.mean(power, from_s, to_s),
        "goodput_tok_s": figures.mean(goodput, from_s, to_s),
        "ttft_p50_s": ttft_p50_s,
        "ttft_p95_s": ttft_p95_s,
        "tbt_p50_s": tbt_p50_s,
        "tbt_p95_s": tbt_p95_s,
        "hottest_c": float(np.nanmax(temps)) if np.isfinite(temps).any() else math.nan,
        "attainment": figures.attainment(rows, CLASSES),
    }


def attainment(run: Run) -> dict[str, float]:
    """Of requests from the cut on: by class, share that kept its target."""
    return figures.attainment(figures.arrived(run.asked, run.at_s("cut"), run.at_s("end")), CLASSES)


def failures(rows: Sequence[Asked]) -> dict[str, int]:
    """Requests that failed, by code."""
    found: dict[str, int] = {}
    for row in rows:
        if row.failure:
            found[row.failure] = found.get(row.failure, 0) + 1
    return found


def passed(found: dict[str, Any]) -> dict[str, bool]:
    """What is wanted of a governor, one by one."""
    within = found["settle_s"] is not None and found["settle_s"] <= SETTLE_S
    return {
        "overshoot": found["overshoot_share"] <= figures.TOLERATED and found["overshoot_s"] <= figures.REACT_S,
        "settles": within,
        "recovers": found["recover_s"] is not None,
        "goodput": found["goodput_share_of_attainable"] >= ATTAINABLE,
    }


def timeline(run: Run, every_s: float = 1.0) -> list[dict[str, Any]]:
    """For pictures: seconds from the cut, watts, limit, goodput, the warmest GPU, each stage's caps."""
    power, goodput = series_of(run)
    smooth, temps = figures.smooth(goodput, 2.0), meter.hottest_c(run.readings, power.at_s)
    stride = round(every_s / figures.STEP_S)
    return [
        {
            "t_s": round(float(power.at_s[at]) - run.at_s("cut"), 2),
            "power_w": round(float(power.values[at]), 1),
            "limit_w": round(_limit_at(run, float(power.at_s[at])), 1),
            "goodput_tok_s": round(float(smooth.values[at]), 1),
            "hottest_c": float(temps[at]),
            "caps_w": _caps_at(run, float(power.at_s[at])),
        }
        for at in range(0, len(power.at_s), stride)
    ]


def _limit_at(run: Run, at_s: float) -> float:
    """0: none."""
    return next((moment.limit_w for moment in reversed(run.moments) if moment.at_s <= at_s), 0.0)


def _caps_at(run: Run, at_s: float) -> dict[str, float]:
    """By stage, watts of one GPU, the mean of those that have one; 0: none has."""
    found: dict[str, list[float]] = {}
    for name, rows in run.readings.items():
        stage = "+".join(run.stages[name])
        said = next((row.cap_w for row in reversed(rows) if row.at_s <= at_s), 0.0)
        found.setdefault(stage, []).append(said)
    return {stage: round(sum(caps) / max(1, sum(cap > 0 for cap in caps)), 1) for stage, caps in sorted(found.items())}
