"""Part 5: with prefill and decode apart, encoders beside prefill or in a pool of their own (Fig. 19): InternVL-2.5-26B.

Both sides have 32 GPUs before the same decode pool: four prefill instances of 8 that encode too, or three and eight
encoders.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.characterize import drawing
from headrace.characterize.document import Section, Table
from headrace.core.types import StageName
from headrace.report.compare import Estimate, estimate
from headrace.sim.run import simulate
from headrace.workload.fleet import PoolSpec
from headrace.workload.queueing import Queueing
from loadtest.reproduce.modserve_capacity import alone_s, seconds
from loadtest.reproduce.modserve_found import Finished, Grid
from loadtest.reproduce.modserve_paper import INTERNVL, PAPER
from loadtest.reproduce.modserve_plan import Plan, Row, pair, told
from loadtest.reproduce.modserve_runs import row_of
from loadtest.reproduce.modserve_systems import GPU, SLOTS, WINDOW_TOKENS, scenario
from loadtest.reproduce.modserve_traffic import Targets, Traffic, requests

PREFILLS, SPLIT_PREFILLS, ENCODERS, TP = 4, 3, 8, 8  # [P]
DECODES = 4  # [I] of 8 GPUs, on both sides: the paper says only that they are equal
SIDES = {"pd_monolith": "PD monolith", "pd_balanced": "PD monolith, both switches", "pd_modserve": "PD ModServe"}


@dataclass(frozen=True, slots=True)
class Separated:
    side: str  # of SIDES
    traffic: Traffic
    seed: int
    targets: Targets

    def __str__(self) -> str:
        return f"{SIDES[self.side]}, {self.traffic.rate_rps:g}/s, seed {self.seed}"


def carry_out(job: Separated) -> dict[str, Any]:
    asked = requests(INTERNVL, job.traffic, job.seed, job.targets)
    plain = job.side == "pd_monolith"
    queue = Queueing("round-robin" if plain else "least-pending", job.side != "pd_modserve", WINDOW_TOKENS)
    place = scenario(job.side, INTERNVL, _pools(job.side), queue, asked[-1].at_s)
    result = simulate(place, "fcfs", job.seed, arrivals=asked)
    return row_of(result, np.array([alone_s(INTERNVL, 1.0, each) for each in asked]))


def _pools(side: str) -> tuple[PoolSpec, ...]:
    common: dict[str, Any] = {
        "gpu": GPU,
        "line": "fifo" if side == "pd_monolith" else "slack",
        "batch_max": 1,
        "encoder_cache_mb": 0,
    }
    decode = PoolSpec("decode", ("decode",), gpu=GPU, tp=TP, count=DECODES, slots=SLOTS)
    if side != "pd_modserve":
        stages: tuple[StageName, ...] = ("encode", "prefill")
        return PoolSpec("prefill", stages, tp=TP, count=PREFILLS, slots=SLOTS, **common), decode
    return (
        PoolSpec("image", ("encode",), tp=1, count=ENCODERS, **common),
        PoolSpec("prefill", ("prefill",), tp=TP, count=SPLIT_PREFILLS, slots=SLOTS, **common),
        decode,
    )


def capacities() -> tuple[float, float]:
    """Requests a second of both sides' prefill by arithmetic: the monolith's, ModServe's."""
    whole, image = seconds(INTERNVL, TP), seconds(INTERNVL, 1)
    return PREFILLS / (whole.encode_s + whole.prefill_s), min(
        ENCODERS / image.encode_s, SPLIT_PREFILLS / whole.prefill_s
    )


def grid(plan: Plan) -> Grid:
    """(load, side) -> runs."""
    most = capacities()[0]
    cells = {}
    for load in plan.separated_loads:
        traffic = Traffic(round(load * most, 2), plan.requests)
        for side in SIDES:
            cells[load, side] = [Separated(side, traffic, seed, plan.bases[INTERNVL].targets) for seed in plan.seeds]
    return cells


def section(plan: Plan, found: Finished, cells: Grid) -> tuple[Section, dict[str, object]]:
    rows, data = [], {}
    series: dict[str, list[tuple[float, float]]] = {}
    keys = {"mean": "ttft_mean_s", "P90": "ttft_p90_s", "P99": "ttft_p99_s"}
    for side in ("pd_monolith", "pd_balanced"):
        for load in plan.separated_loads:
            monolith, mine = found.of(cells[load, side]), found.of(cells[load, "pd_modserve"])
            times = {word: _times(monolith, mine, key) for word, key in keys.items()}
            means = [told(estimate([row["ttft_mean_s"] for row in of_side])) for of_side in (monolith, mine)]
            rows.append((f"{SIDES[side]} at {load:.0%}", *means, *(told(each) for each in times.values())))
            data[f"{side} {load:g}"] = {word: pair(each) for word, each in times.items()}
            for word, each in times.items():
                if side == "pd_monolith":
                    series.setdefault(word, []).append((load * 100, each.mean))
    columns = ("against", "its mean, s", "ModServe's, s", "mean ratio", "P90 ratio", "P99 ratio")
    figure = drawing.lines(
        "Prefill and decode apart, TTFT ratio",
        series,
        drawing.linear("load, % of the monolith's capacity", 100.0),
        drawing.linear("TTFT, monolith over ModServe"),
    )
    most = capacities()
    notes = (
        f"By arithmetic the monolith's four prefill instances do {most[0]:.1f} requests/s, ModServe's pools"
        f" {most[1]:.1f}. Decode: {DECODES} instances of {TP} GPUs on both sides [I].",
        "The paper: up to 2.8 × in the mean and 3.2 × in P90, growing with load.",
    )
    first, last = (
        data[f"pd_monolith {load:g}"]["mean"][0] for load in (plan.separated_loads[0], plan.separated_loads[-1])
    )
    grows = "grows" if last > first else "does not grow"
    finding = (
        f"Mean TTFT ratio {first:.2f} × at the least load, {last:.2f} × at the greatest: it {grows} with load (paper:"
        f" up to {PAPER['separated_ttft_ratio']['mean']} ×, growing)."
    )
    table = Table("Time to first token, monolith over ModServe", columns, tuple(rows))
    title = "With prefill and decode apart"
    return Section("separated", title, "simulated", (finding,), notes, (table,), (figure,)), {"separated": data}


def _times(monolith: list[Row], mine: list[Row], key: str) -> Estimate:
    if len(monolith) != len(mine):
        return Estimate(float("nan"))
    return estimate([other[key] / own[key] for other, own in zip(monolith, mine, strict=True)])
