"""Part 3: GPU hours of a day with bursts of images, both systems scaled by the same policy (Fig. 16).

A day of the trace's week is pressed into an hour of the simulator's; the scaler's clock is its own, and shortened too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from headrace.characterize import drawing
from headrace.characterize.document import Figure, Section, Table
from headrace.core.scaling import SCALERS
from headrace.report.axes import Axis
from headrace.report.compare import Estimate, estimate
from headrace.sim.result import Result
from headrace.sim.run import simulate
from headrace.workload import shape
from headrace.workload.arrival import Arrival
from headrace.workload.autoscale import Autoscale, PoolLimits
from headrace.workload.multimodal import CountBursts, Multimodal
from headrace.workload.processes import Switching
from headrace.workload.rates import DAY_S, HOUR_S
from loadtest.reproduce.modserve_capacity import Seconds, alone_s, seconds
from loadtest.reproduce.modserve_found import Finished, Grid
from loadtest.reproduce.modserve_paper import PAPER
from loadtest.reproduce.modserve_plan import Plan, Row, of, pair, told
from loadtest.reproduce.modserve_runs import row_of
from loadtest.reproduce.modserve_systems import CLOCKS, SYSTEMS, Shape, pools, queueing, scenario
from loadtest.reproduce.modserve_traffic import CLASS, Targets, that_fit

GPUS_MOST = 128  # [P] 16 servers
EPOCH_S = 90.0  # [I] the least that core/scaling takes; the paper's 300 s, shortened as far as the day allows
START_S = 30.0  # [I] of an instance of any pool: the paper says that 300 s cover it
UTILISATION = 0.8  # of what the fleets begin with
POLICIES = ("published", "headrace")
# A day in which requests with many images come in bursts of hours: the trace has four in a week [M]; how long and how
# often here is ours [I].
BURSTS = CountBursts(Switching(calm_s=10 * HOUR_S, burst_s=3 * HOUR_S, burst_factor=1.0))
POINTS = 60  # of a chart


@dataclass(frozen=True, slots=True)
class Day:
    model: str
    system: str
    policy: str
    requests: int
    length_s: float
    seed: int
    targets: Targets

    def __str__(self) -> str:
        return f"{self.model}, {self.system} scaled by {self.policy}, seed {self.seed}"


def arrivals(job: Day) -> list[Arrival]:
    """A day from Tuesday noon, as the trace's week begins, in `length_s`."""
    drawn_rps = 1.3 * job.requests / DAY_S
    source = Multimodal(rate_rps=drawn_rps, profile="week", count_bursts=BURSTS)
    day = list(that_fit(job.model, source.arrivals(np.random.default_rng(job.seed), DAY_S)))
    kept = shape.thin(day, min(1.0, job.requests / len(day)), np.random.default_rng([job.seed, 2]))
    wanted_s = (job.targets.text_s, job.targets.image_s)
    pressed = shape.compress(kept, DAY_S / job.length_s)
    return [
        replace(each, slo_class=CLASS, ttft_s=wanted_s[bool(each.parts)]) for each in islice(pressed, 2 * job.requests)
    ]


def carry_out(job: Day) -> dict[str, Any]:
    asked, system = arrivals(job), SYSTEMS[job.system]
    one, images = seconds(job.model, 4), seconds(job.model, 1)
    rate = len(asked) / job.length_s
    first = Shape(
        whole=_begins(rate * one.whole_s), text=_begins(rate * one.text_s), image=_begins(rate * images.encode_s)
    )
    place = scenario(job.system, job.model, _starting(system, first), queueing(system), job.length_s, CLOCKS)
    limits = {"whole": _limits(one)} if system.monolith else {"image": _limits(images), "text": PoolLimits()}
    scaled = replace(place, autoscale=Autoscale(job.policy, EPOCH_S, gpus_max=GPUS_MOST, pools=limits))
    result = simulate(scaled, system.policy, job.seed, arrivals=asked)
    row = row_of(result, np.array([alone_s(job.model, 1.0, each) for each in asked]))
    return row | {"attainment": float(result.met().mean()), "gpus": _gpus(result, job.length_s), "rate_rps": rate}


def _starting(system: Any, first: Shape) -> Any:
    return tuple(replace(pool, start_s=START_S) for pool in pools(system, first, 1.0))


def _begins(busy: float) -> int:
    return max(1, round(busy / UTILISATION))


def _limits(one: Seconds) -> PoolLimits:
    """Media tokens that an instance encodes in a second, of this traffic's pictures."""
    return PoolLimits(media_capacity=round(one.image_tokens / one.encode_s, 1))


def _gpus(result: Result, length_s: float) -> list[float]:
    """In instances that serve, sampled."""
    at_s = np.linspace(0.0, length_s, POINTS)
    total = np.zeros(POINTS)
    for pool in result.pools:
        total += pool.gpus_each * np.interp(at_s, result.t_s, pool.instances)
    return [round(float(each), 1) for each in total]


def grid(plan: Plan) -> Grid:
    """(model, system, policy) -> runs."""
    assert set(POLICIES) <= set(SCALERS)
    return {
        (model, system, policy): [
            Day(model, system, policy, plan.day_requests, plan.day_s, seed, plan.bases[model].targets)
            for seed in plan.seeds
        ]
        for model in plan.models
        for policy in POLICIES
        for system in ("monolith", "modserve")
    }


def saving(monolith: list[Row], mine: list[Row]) -> Estimate:
    if len(monolith) != len(mine):
        return Estimate(float("nan"))
    pairs = zip(monolith, mine, strict=True)
    return estimate([1 - own["gpu_hours"] / other["gpu_hours"] for other, own in pairs])


def section(plan: Plan, found: Finished, cells: Grid) -> tuple[Section, dict[str, object]]:
    rows, figures, findings = [], [], []
    savings: dict[tuple[str, str], Estimate] = {}
    for model in plan.models:
        for policy in POLICIES:
            both = [found.of(cells[model, system, policy]) for system in ("monolith", "modserve")]
            savings[model, policy] = saving(*both)
            for system, of_system in zip(("monolith", "modserve"), both, strict=True):
                hours, attained = of(of_system, "gpu_hours"), of(of_system, "attainment")
                p99, slow = of(of_system, "ttft_p99_s"), of(of_system, "slowdown_p99")
                cells_told = (told(hours), told(attained, 3), told(p99), told(slow, 1))
                saved = told(savings[model, policy]) if system == "modserve" else ""
                rows.append((f"{model}, {system}, {policy}", *cells_told, saved))
        found_here = savings[model, "published"]
        half = f" ± {found_here.half:.1%}" if found_here.half == found_here.half else ""
        findings.append(
            f"{model}: {found_here.mean:.1%}{half} fewer GPU hours than the monolith, both scaled by the published"
            f" policy (paper {PAPER['gpu_saving'][model]:.1%})."
        )
        figures.append(_chart(plan, model, found, cells))
    columns = ("system, policy", "GPU hours", "in time", "P99 TTFT, s", "slow-down P99", "saved")
    rate = plan.day_requests / plan.day_s
    notes = (
        f"A day in {plan.day_s / 3600:g} h of simulated time, {plan.day_requests:,} requests, {rate:.2g} a second on"
        f" average; epoch {EPOCH_S:g} s instead of 300 s, an instance's start {START_S:g} s [I]. Fleets are small: an"
        " instance more or less is several hundredths.",
        "In time: share of requests whose first token kept the target of their kind at factor 10. The two systems spend"
        " different GPUs at different quality: read both columns.",
        "Capacity of an instance: the profile's, media tokens by this traffic's own pictures. `headrace` is our policy"
        " (docs/simulator.md), on both systems.",
    )
    table = Table("A day scaled", columns, tuple(rows))
    data = {
        "gpu_saving": {model: savings[model, "published"].mean for model in plan.models},
        "gpu_saving_by_policy": {f"{m} {p}": pair(each) for (m, p), each in savings.items()},
        "scaling": {
            " ".join(cell): {
                key: pair(of(found.of(jobs), key)) for key in ("gpu_hours", "attainment", "ttft_p99_s", "slowdown_p99")
            }
            for cell, jobs in cells.items()
        },
    }
    return Section(
        "scaling", "A day with bursts, scaled", "simulated", tuple(findings), notes, (table,), tuple(figures)
    ), data


def _chart(plan: Plan, model: str, found: Finished, cells: Grid) -> Figure:
    """Of the first seed."""
    series = {}
    hours = np.linspace(0.0, 24.0, POINTS)
    for policy in POLICIES:
        for system in ("monolith", "modserve"):
            rows = found.of(cells[model, system, policy])
            if rows:
                series[f"{system}, {policy}"] = list(zip(hours.tolist(), rows[0]["gpus"], strict=True))
    y = drawing.linear("GPUs of instances that serve")
    return drawing.lines(f"GPUs over the day, {model}, seed {plan.seeds[0]}", series, _hours, y, step=True)


def _hours(_values: Iterable[float]) -> Axis:
    return Axis("hours since noon", 0.0, 24.0, (0.0, 6.0, 12.0, 18.0, 24.0))
