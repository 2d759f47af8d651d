"""The same requests, live and simulated: percentiles side by side, stage by stage, and the relative error."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.sim.result import Requests
from headrace.workload.arrival import Arrival
from loadtest.replay_rows import Row

Floats = NDArray[np.float64]
QUANTILES = (0.5, 0.99)
# What a request's time is made of, each from one moment to the next. A replay knows of pictures only when prefill had
# their embeddings, the simulator when they were sent for: their time is told to the first token in one.
STAGES = {
    "text_to_dispatch": (False, "arrival_s", "dispatch_s"),
    "text_to_first_token": (False, "dispatch_s", "first_token_s"),
    "text_to_end": (False, "first_token_s", "end_s"),
    "pictures_to_first_token": (True, "arrival_s", "first_token_s"),
    "pictures_to_end": (True, "first_token_s", "end_s"),
}


def as_asked(arrivals: Sequence[Arrival], rows: Sequence[Row]) -> list[Arrival]:
    """The arrivals as they came about: when each was sent, and how many tokens the mesh counted in it."""
    asked = [
        replace(arrival, at_s=max(0.0, row.sent_s), input_tokens=max(1, row.input_tokens))
        for arrival, row in zip(arrivals, rows, strict=True)
    ]
    return sorted(asked, key=lambda arrival: arrival.at_s)


def as_seen(requests: Requests, rows: Sequence[Row]) -> Requests:
    """Live requests whose time counts from when they were sent, in that order."""
    sent_s = np.array([row.sent_s for row in rows])
    order = np.argsort(sent_s, kind="stable")
    columns = {name: getattr(requests, name)[order] for name in Requests.__dataclass_fields__}
    return Requests(**(columns | {"arrival_s": sent_s[order]}))


def compare(live: Sequence[Requests], simulated: Sequence[Requests]) -> dict[str, Any]:
    """All rounds together: {"ttft": {"p50": {"live_s", "simulated_s", "error"}, ...}, "jct": ..., "stages": ...}."""
    out: dict[str, Any] = {}
    for name in ("ttft", "jct"):
        out[name] = _side_by_side(*(_all(getattr(each, f"{name}_s") for each in side) for side in (live, simulated)))
    out["stages"] = {
        name: _side_by_side(*(_all(_stage(each, *stage) for each in side) for side in (live, simulated)))
        for name, stage in STAGES.items()
    }
    out["by_round"] = [
        {
            name: _error(_percentile(getattr(s, f"{name}_s"), 0.5), _percentile(getattr(r, f"{name}_s"), 0.5))
            for name in ("ttft", "jct")
        }
        for r, s in zip(live, simulated, strict=True)
    ]
    return out


def _stage(requests: Requests, pictured: bool, begin: str, end: str) -> Floats:
    """Of requests with pictures, or of those without; empty where there are none."""
    seconds: Floats = getattr(requests, end) - getattr(requests, begin)
    chosen: Floats = seconds[(requests.media_parts > 0) == pictured]
    return chosen


def _all(columns: Iterable[Floats]) -> Floats:
    return np.concatenate(list(columns))


def _side_by_side(live: Floats, simulated: Floats) -> dict[str, dict[str, float]]:
    out = {}
    for quantile in QUANTILES:
        seen, foreseen = _percentile(live, quantile), _percentile(simulated, quantile)
        out[f"p{quantile * 100:g}"] = {"live_s": seen, "simulated_s": foreseen, "error": _error(foreseen, seen)}
    return out


def _percentile(values: Floats, quantile: float) -> float:
    known = values[~np.isnan(values)]
    return float(np.quantile(known, quantile)) if len(known) else float("nan")


def _error(foreseen: float, seen: float) -> float:
    return foreseen / seen - 1.0 if seen else float("nan")


def verdicts(figures: dict[str, Any], wanted: dict[float, float]) -> dict[str, bool]:
    """Whether each error stays within what is wanted of its quantile."""
    return {
        f"{name}_p{quantile * 100:g}": abs(figures[name][f"p{quantile * 100:g}"]["error"]) <= most
        for name in ("ttft", "jct")
        for quantile, most in wanted.items()
    }
