"""From rows to figures: means over seeds, and gains in pairs of the same seed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.report.compare import Estimate, estimate
from loadtest.benches.queue_clairvoyant import Search
from loadtest.benches.queue_figures import figures
from loadtest.reproduce.qlm_fleet import Place, Trial

Row = Mapping[str, Any]
BySeed = dict[int, Row]
OURS = "headrace"
CLAIRVOYANT = "clairvoyant"


@dataclass(frozen=True, slots=True)
class Cells:
    """By cell, policy and seed; whatever failed is missing."""

    rows: Mapping[Place, Mapping[str, BySeed]]

    def policies(self, place: Place) -> list[str]:
        return list(self.rows.get(place, {}))

    def figure(self, place: Place, policy: str, name: str) -> Estimate:
        return estimate([float(row[name]) for row in self._of(place, policy).values()])

    def by_class(self, place: Place, policy: str, name: str) -> Estimate:
        return estimate([float(row["by_class"][name]) for row in self._of(place, policy).values()])

    def points(self, place: Place, ours: str, theirs: str) -> Estimate:
        """Of attainment, from 0 to 100."""
        return self._pairs(place, ours, theirs, lambda a, b: 100 * (a["attainment"] - b["attainment"]))

    def ratio(self, place: Place, ours: str, theirs: str, name: str) -> Estimate:
        """How much more, as a share: 0.2 is a fifth more."""
        return self._pairs(place, ours, theirs, lambda a, b: a[name] / b[name] - 1 if b[name] else math.nan)

    def _of(self, place: Place, policy: str) -> BySeed:
        return self.rows.get(place, {}).get(policy, {})

    def _pairs(self, place: Place, ours: str, theirs: str, of: Callable[[Row, Row], float]) -> Estimate:
        mine, other = self._of(place, ours), self._of(place, theirs)
        return estimate([of(mine[seed], other[seed]) for seed in mine if seed in other])

    def data(self) -> dict[str, Any]:
        """{workload: {cell: {policy: figures}}}, as `bench queue` has them."""
        out: dict[str, Any] = {}
        for place, by_policy in self.rows.items():
            told = figures(by_policy)
            out.setdefault(place.workload, {})[f"{place.scale:g} of the fleet at {place.load:g}"] = told
        return out


def cells_of(found: Sequence[tuple[Any, Row]]) -> Cells:
    rows: dict[Place, dict[str, BySeed]] = {}
    for job, row in found:
        if isinstance(job, Trial):
            rows.setdefault(job.place, {}).setdefault(job.policy, {})[job.seed] = row
        elif isinstance(job, Search):
            assert isinstance(job.cell, Place)
            rows.setdefault(job.cell, {}).setdefault(CLAIRVOYANT, {})[job.seed] = row
    return Cells(rows)


def headline(cells: Cells, at: Mapping[str, Place]) -> dict[str, Any]:
    """Gains over each baseline and ablation, by workload, in its heaviest long cell."""
    others = {name: [each for each in cells.policies(place) if each != OURS] for name, place in at.items()}
    told = {
        "attainment_gain_points": {
            name: {other: cells.points(place, OURS, other).mean for other in others[name]} for name, place in at.items()
        },
        "throughput_gain": {
            name: {other: cells.ratio(place, OURS, other, "throughput_rps").mean for other in others[name]}
            for name, place in at.items()
        },
        "utilisation": {
            name: {each: cells.figure(place, each, "utilisation").mean for each in cells.policies(place)}
            for name, place in at.items()
        },
    }
    half = {
        name: {other: cells.points(place, OURS, other).half for other in others[name]} for name, place in at.items()
    }
    return told | {"ci95": {"attainment_gain_points": half}}
