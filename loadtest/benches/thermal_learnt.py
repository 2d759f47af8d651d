"""Learnt thermal controllers beside the others: on plants as they were trained on, and on cooling that they never saw.

Through the safety filter a learnt controller is never faster than the Kalman budget; `_alone` is what it would do
without, which the governor cannot. Differences are paired: the same plants, the same work, the same sensors.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.control.constants import H100
from headrace.control.randomised import FAMILIES, draw
from headrace.control.thermal import CONTROLLERS, DEFAULT
from headrace.control.thermal.decision_transformer import DecisionTransformer, Filtered
from headrace.control.thermal.network import Network
from headrace.control.trial import Acts, Hour, Trial, run
from headrace.training.controllers.demonstrations import Oracle
from loadtest.benches.report import say

ALONE = "_alone"
SLOW = "language"  # a quarter of an hour of twenty GPUs takes a minute of a core
COMPARED = ("queue_mean", "joules_per_unit", "served", "over_limit_share")
GAIN = 0.03  # what a plug-in has to win, of goodput or energy, to take the place of the simple one


def learnt(networks: dict[str, Network]) -> dict[str, Callable[[Trial], Acts]]:
    """Each through the filter and, but for the slow one, alone."""
    found: dict[str, Callable[[Trial], Acts]] = {}
    for name, network in networks.items():
        found[name] = _made(Filtered, network)
        if name != SLOW:
            found[name + ALONE] = _made(DecisionTransformer, network)
    return found


def _made(controller: type[Filtered] | type[DecisionTransformer], network: Network) -> Callable[[Trial], Acts]:
    return lambda trial: controller(H100, trial.work[0].size, network)


def families(networks: dict[str, Network], seeds: tuple[int, ...], seconds: int) -> dict[str, dict[str, Hour]]:
    """By family and controller; `oracle` is a Kalman budget that knows each plant's constants."""
    simple = {name: lambda trial, make=make: make(H100, trial.work[0].size) for name, make in CONTROLLERS.items()}
    makes: dict[str, Callable[[Trial], Acts]] = {**simple, "oracle": Oracle, **learnt(networks)}
    found: dict[str, dict[str, Hour]] = {}
    for family, ranges in FAMILIES.items():
        say(f"{family}: {len(seeds)} plants, {seconds} s")
        trial, hours = draw(ranges, seeds, seconds), found.setdefault(family, {})
        for name, make in makes.items():
            hours[name] = run(trial, make(trial))
            say(line(name, hours[name].figures()))
    return found


def line(name: str, of: dict[str, Any]) -> str:
    return (
        f"  {name:15} over the limit {of['over_limit_share']:8.3%}  max {of['t_max_c']:5.1f} C  queue mean "
        f"{of['queue_mean']:7.3f} s  p99 {of['queue_p99']:7.2f} s  {of['joules_per_unit']:6.1f} J a unit"
    )


def intervals(hour: Hour) -> dict[str, float]:
    """Half widths, 95 %, over plants."""
    return {name: half_width(values) for name, values in hour.by_plant().items()}


def half_width(values: Any) -> float:
    return float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else float("nan")


def beside(hour: Hour, other: Hour) -> dict[str, dict[str, float]]:
    """Means of paired differences from `other` with half widths; relative to its mean, shares of time as they are."""
    found, mine, theirs = {}, hour.by_plant(), other.by_plant()
    for name in COMPARED:
        scale = 1.0 if name == "over_limit_share" else float(theirs[name].mean())
        off = (mine[name] - theirs[name]) / scale
        found[name] = {"mean": float(off.mean()), "ci95": half_width(off)}
    longer = mine["over_limit_share"] > theirs["over_limit_share"]
    found["plants_longer_over_limit"] = {"count": float(longer.sum())}
    return found


def compared(hours: dict[str, dict[str, Hour]]) -> dict[str, Any]:
    """Each controller beside the default and beside the one that adapts."""
    return {
        family: {
            name: {f"beside_{other}": beside(hour, of[other]) for other in (DEFAULT, "adaptive") if other != name}
            for name, hour in of.items()
        }
        for family, of in hours.items()
    }


def verdict(name: str, paired: dict[str, Any]) -> dict[str, Any]:
    """Of a learnt controller through the filter, by the rule for plug-ins: ship, shadow or not.

    ship: it wins 3 % of goodput or energy, the interval's near end counted, on each family, and no plant is longer
    above the limit. shadow: no plant is longer above the limit, but what it wins is less. not: some plant is."""
    rows = {family: of[name][f"beside_{DEFAULT}"] for family, of in paired.items() if name in of}
    added = sum(row["plants_longer_over_limit"]["count"] for row in rows.values())
    gains = {family: max(-_far(row["joules_per_unit"], 1.0), _far(row["served"], -1.0)) for family, row in rows.items()}
    wins = all(gain >= GAIN for gain in gains.values())
    word = "not" if added else "ship" if wins else "shadow"
    return {"verdict": word, "plants_with_added_violations": added, "least_gain": gains}


def _far(row: dict[str, float], sign: float) -> float:
    """The interval's end that is worse for whom more (sign 1) is worse, or less (-1)."""
    return row["mean"] + sign * row["ci95"]
