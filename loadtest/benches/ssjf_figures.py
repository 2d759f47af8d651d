"""Figures of one run of the bench ssjf, their means over seeds and the intervals around these."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Floats = NDArray[np.float64]
Figures = dict[str, float]


def figures(arrival_s: Floats, end_s: Floats, exec_s: Floats, warm: int = 0) -> Figures:
    """Seconds; jobs that never end (nan) are counted and left out, and so are the first `warm` but for throughput.

    throughput_rps: all that end, over the time from the first arrival to the last end. throughput_quarter_rps: the
    paper's, when a quarter of the jobs have ended, over the time since 0.
    """
    jct_s = (end_s - arrival_s)[warm:]
    done = ~np.isnan(jct_s)
    jct_s, exec_s = jct_s[done], exec_s[warm:][done]
    ends_s = np.sort(end_s[~np.isnan(end_s)])
    quarter = int(np.percentile(np.arange(len(ends_s)), 25))
    return {
        "jct_mean_s": float(jct_s.mean()),
        "jct_p50_s": float(np.quantile(jct_s, 0.5)),
        "jct_p99_s": float(np.quantile(jct_s, 0.99)),
        "wait_max_s": float((jct_s - exec_s).max()),
        "slowdown_mean": float((jct_s / exec_s).mean()),
        "throughput_rps": float(len(ends_s) / (ends_s[-1] - arrival_s[0])),
        "throughput_quarter_rps": float(quarter / ends_s[quarter]),
        "jobs": float(len(jct_s)),
        "dropped": float((~done).sum()),
    }


def mean_of(runs: Sequence[Figures]) -> Figures:
    return {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of a mean, by Student's t; nan for fewer than two values."""
    if len(values) < 2:
        return float("nan")
    return float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


def intervals(runs: Sequence[Figures]) -> Figures:
    return {name: half_width([run[name] for run in runs]) for name in runs[0]}


def change(ours: Figures, theirs: Figures, name: str) -> float:
    """Relative to theirs: -0.3 is 30 % less."""
    return ours[name] / theirs[name] - 1


def gains(runs: Mapping[str, Sequence[Figures]], base: str = "fcfs") -> dict[str, dict[str, list[float]]]:
    """Changes against `base`, in pairs of the same seed: mean and half width of the 95 % interval."""
    names = ("jct_mean_s", "jct_p50_s", "jct_p99_s", "wait_max_s", "slowdown_mean", "throughput_rps")
    return {
        policy: {name: _pairs(of, runs[base], name) for name in names} for policy, of in runs.items() if policy != base
    }


def _pairs(ours: Sequence[Figures], theirs: Sequence[Figures], name: str) -> list[float]:
    changes = [change(a, b, name) for a, b in zip(ours, theirs, strict=True) if b[name]]
    return [float(np.mean(changes)), half_width(changes)] if changes else [0.0, 0.0]
