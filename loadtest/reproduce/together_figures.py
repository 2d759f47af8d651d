"""Systems over their seeds: means, changes in pairs, and how much of what can be had with hindsight is had."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.report.compare import Estimate, estimate
from loadtest.reproduce.together_scene import Load
from loadtest.reproduce.together_systems import SINGLE, Hindsight, System, Trial

Row = Mapping[str, Any]
BySeed = dict[int, Row]
TOLD = ("goodput_rps", "attainment", "gpu_hours", "joules", "with_images", "text_alone", "ttft_p50_s", "ttft_p99_s")
OURS = "headrace"


@dataclass(frozen=True, slots=True)
class At:
    """All systems at one rate, by name; baselines' names are those of SINGLE."""

    rate_rps: float
    rows: Mapping[str, BySeed]

    def figure(self, system: str, name: str, seeds: Sequence[int] = ()) -> Estimate:
        """seeds: of those alone; empty: of all."""
        of = self.rows.get(system, {})
        return estimate([float(of[seed][name]) for seed in (seeds or of) if seed in of])

    def by_class(self, system: str, name: str) -> float:
        return estimate([float(row["by_class"][name]) for row in self.rows.get(system, {}).values()]).mean

    def points(self, ours: str, theirs: str) -> Estimate:
        """Of attainment, from 0 to 100, in pairs of the same seed."""
        return self.change(ours, theirs, "attainment", 100.0)

    def change(self, ours: str, theirs: str, name: str, times: float = 1.0) -> Estimate:
        mine, other = self.rows.get(ours, {}), self.rows.get(theirs, {})
        return estimate([times * (mine[seed][name] - other[seed][name]) for seed in mine if seed in other])

    @property
    def best_single(self) -> str:
        """Of the papers' systems, the one that keeps most."""
        return max(
            (name for name in SINGLE if name in self.rows), key=lambda name: self.figure(name, "attainment").mean
        )

    def data(self) -> dict[str, Any]:
        return {
            system: {name: self.figure(system, name).mean for name in TOLD}
            | {"ci95": {name: self.figure(system, name).half for name in ("goodput_rps", "attainment")}}
            | {"seeds": len(by_seed)}
            for system, by_seed in self.rows.items()
        }


def share_of_gain(at: At, best: str) -> float:
    """Of what the best schedule found keeps beyond the best single system, how much ours keeps; over their seeds.

    best: the name of that schedule's rows. nan: there is nothing to gain.
    """
    seeds = tuple(at.rows.get(best, {}))
    if not seeds:
        return float("nan")
    ours, base = (at.figure(name, "attainment", seeds).mean for name in (OURS, at.best_single))
    most = sum(_most(at, seed, best) for seed in seeds) / len(seeds)
    return (ours - base) / (most - base) if most - base > 1e-4 else float("nan")


def _most(at: At, seed: int, best: str) -> float:
    """Whatever keeps most of a seed's promises: a schedule that is known is one that can be had."""
    known = {best, OURS, *SINGLE} if best == "hindsight" else {best}
    return max(float(at.rows[name][seed]["attainment"]) for name in known if seed in at.rows.get(name, {}))


def by_name(found: Sequence[tuple[Any, Row]], load: Load, names: Mapping[str, System]) -> dict[str, BySeed]:
    """The rows of a load, under the names of their systems."""
    out: dict[str, BySeed] = {}
    for job, row in found:
        if isinstance(job, Hindsight) and job.load == load:
            out.setdefault("hindsight", {})[job.seed] = row
        elif isinstance(job, Trial) and job.load == load:
            for name, system in names.items():
                if system == job.system:
                    out.setdefault(name, {})[job.seed] = row
    return out


def chosen(found: Sequence[tuple[Any, Row]], load: Load) -> dict[str, System]:
    """Of each single system's shapes the one that keeps most; of equals the first. Those without a row: the first."""
    means: dict[System, float] = {}
    for system in dict.fromkeys(job.system for job, _ in found if isinstance(job, Trial)):
        rows = [row for job, row in found if isinstance(job, Trial) and (job.system, job.load) == (system, load)]
        means[system] = estimate([row["attainment"] for row in rows]).mean if rows else -1.0
    return {name: max(shapes, key=lambda shape: means.get(shape, -1.0)) for name, shapes in SINGLE.items()}
