"""Policies beside one another: every figure's mean over the seeds and how sure it is."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.special import stdtrit

from headrace.report.digest import Digest


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a figure's mean over seeds; `half` is half the 95 % interval, nan with fewer than two seeds."""

    mean: float
    half: float = math.nan

    @property
    def sure(self) -> float:
        """Half the interval, 0 where there is none."""
        return 0.0 if math.isnan(self.half) else self.half


@dataclass(frozen=True, slots=True)
class Compared:
    """One policy over its seeds; `runs` are in the order of their seeds."""

    policy: str
    runs: tuple[Digest, ...]

    def figure(self, key: str) -> Estimate:
        """A key of Result.summary()."""
        return estimate([run.summary[key] for run in self.runs])

    def attainment(self, slo_class: str) -> Estimate:
        return estimate([run.attainment[slo_class] for run in self.runs])

    def ended(self, reason: str) -> int:
        return sum(run.ended.get(reason, 0) for run in self.runs)

    def counter(self, name: str) -> Estimate:
        return estimate([float(run.counters.get(name, 0.0)) for run in self.runs])

    @property
    def first(self) -> Digest:
        return self.runs[0]


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and Student's t interval (n - 1 degrees of freedom) of independent runs; nan values are left out.

    Half the interval is t(0.975, n - 1) * s / sqrt(n), s the sample's standard deviation.
    """
    known = [float(value) for value in values if not math.isnan(value)]
    if not known:
        return Estimate(math.nan)
    mean = math.fsum(known) / len(known)
    if len(known) < 2:
        return Estimate(mean)
    variance = math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1)
    return Estimate(mean, float(stdtrit(len(known) - 1, 0.975)) * math.sqrt(variance / len(known)))


def compare(digests: Iterable[Digest]) -> tuple[Compared, ...]:
    """Policies in the order of their first run."""
    by_policy: dict[str, list[Digest]] = {}
    for each in digests:
        by_policy.setdefault(each.policy, []).append(each)
    return tuple(Compared(policy, tuple(runs)) for policy, runs in by_policy.items())


def class_names(compared: Sequence[Compared]) -> list[str]:
    """Classes that at least one request was of, in the scenario's order."""
    came = {name for each in compared for run in each.runs for name, count in run.requests.items() if count}
    return [slo.name for slo in compared[0].first.classes if slo.name in came]


def figures(each: Compared) -> dict[str, Any]:
    """For JSON: the keys of Result.summary() as means over the seeds, and what else tells policies apart."""
    keys = list(each.first.summary)
    estimates = {key: each.figure(key) for key in keys}
    one = len(each.runs) == 1
    found: dict[str, Any] = {key: each.first.summary[key] if one else estimates[key].mean for key in keys}
    found["by_class"] = {name: each.attainment(name).mean for name in class_names([each])}
    found["ended"] = {reason: each.ended(reason) for reason in each.first.ended}
    found["counters"] = {
        name: each.counter(name).mean for name in sorted({n for run in each.runs for n in run.counters})
    }
    if each.first.scalings:  # of the first seed, as everything that is told over time
        found["decisions"] = [asdict(scaling) for scaling in each.first.scalings]
    if not one:
        found["ci95"] = {key: estimates[key].half for key in keys}  # half the interval
        found["by_seed"] = [{"seed": run.seed, **run.summary} for run in each.runs]
    return found
