"""The sections of QLM's report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.characterize.document import Section, Table, number, percent
from headrace.report.compare import Estimate
from loadtest.benches.queue_runs import PLANNING, PREDICTOR
from loadtest.benches.queue_workloads import CLASSES, MAX_TOKENS, SLOTS, WORKLOADS
from loadtest.reproduce.bars import bars
from loadtest.reproduce.qlm_figures import CLAIRVOYANT, OURS, Cells
from loadtest.reproduce.qlm_fleet import A10, A100, REPLAN_S, REQUESTS, Place, fleet

PAPER: dict[str, Any] = {
    "attainment_gain_points": [40, 90],  # [A] "40-90%" over the state of the art; of which workload is not known
    "throughput_gain": [0.2, 4.0],  # [A] "20-400%"
    "utilisation": "kept or raised [A]",
    "gpus": {"a10": A10, "a100": A100},  # [T]
    "requests": REQUESTS,  # [T]
}
NAMES = {
    "fcfs": "FCFS",
    "edf": "EDF",
    "shepherd": "SHEPHERD-like",
    OURS: "Headrace",
    "vq-fcfs": "FCFS, a line at each instance",
    "vq-edf": "EDF, a line at each instance",
    "headrace_oracle_lengths": "with true lengths",
    "headrace_random_lengths": "with random lengths",
    "headrace_without_evict": "without eviction",
    "headrace_without_swap": "without model swaps",
    "headrace_without_balance": "without balancing",
    "headrace_without_plan": "without planning anew",
    CLAIRVOYANT: "best schedule found, all known",
}
SURE = 0.5  # points: what is closer is told as even
BASELINES = ("fcfs", "edf", "shepherd")


def all_of(
    cells: Cells,
    at: Mapping[str, Place],
    whole: Sequence[Place],
    long: Sequence[Place],
    shares: Mapping[str, float],
    control_seeds: int,
) -> tuple[Section, ...]:
    sections = [_beside(cells, at), _cells(cells, whole, "whole", "The whole fleet, traces as long as the paper's")]
    sections.append(_cells(cells, long, "long", "An eighth of the fleet, for longer"))
    if control_seeds:
        sections.append(_controls(cells, at, control_seeds))
    return (*sections, _rests(whole, long, shares))


def _beside(cells: Cells, at: Mapping[str, Place]) -> Section:
    rows = []
    for name, place in at.items():
        for other in BASELINES:
            points, more = cells.points(place, OURS, other), cells.ratio(place, OURS, other, "throughput_rps")
            busy = [cells.figure(place, each, "utilisation").mean for each in (OURS, other)]
            rows.append(
                (
                    f"{name} over {NAMES[other]}",
                    _points(points),
                    "+40 to +90",
                    _share(more),
                    "+20 to +400 %",
                    f"{percent(busy[0])}, {percent(busy[1])}",
                )
            )
    columns = ("workload", "attainment, points", "the paper", "throughput", "the paper", "utilisation: ours, theirs")
    return Section(
        "beside",
        "Beside the paper",
        "simulated",
        findings=tuple(_findings(cells, at)),
        notes=(
            "The paper's abstract tells ranges over its baselines and workloads; its figures for each could not be"
            " read. Here: the heaviest of the long cells. Changes in pairs of the same seed, with 95 % intervals.",
        ),
        tables=(Table(f"Gains, at {_load(at):g} x saturation", columns, tuple(rows)),),
        figures=(
            bars(
                "Attainment gained by Headrace",
                {
                    name: [(f"over {NAMES[other]}", cells.points(place, OURS, other)) for other in BASELINES]
                    for name, place in at.items()
                },
                "points",
            ),
            bars(
                "Throughput gained by Headrace",
                {
                    name: [
                        (f"over {NAMES[other]}", cells.ratio(place, OURS, other, "throughput_rps"))
                        for other in BASELINES
                    ]
                    for name, place in at.items()
                },
                "%",
                100.0,
            ),
        ),
    )


def _findings(cells: Cells, at: Mapping[str, Place]) -> list[str]:
    out = []
    for name, place in at.items():
        gains = {other: cells.points(place, OURS, other) for other in BASELINES}
        told = ", ".join(f"{_points(gain)} points over {NAMES[other]}" for other, gain in gains.items())
        behind = [NAMES[other] for other, gain in gains.items() if gain.mean + gain.sure < -SURE]
        lost = f" It loses to {' and '.join(behind)} there." if behind else ""
        out.append(f"{name} ({WORKLOADS[name].about[:-1]}): {told}.{lost}")
    return out


def _cells(cells: Cells, places: Sequence[Place], name: str, title: str) -> Section:
    tables = tuple(_cell(cells, place, (*BASELINES, OURS)) for place in places)
    figure = bars(
        f"Promises kept: {title[0].lower()}{title[1:]}",
        {
            f"{place.workload} at {place.load:g}": [
                (NAMES[each], cells.figure(place, each, "attainment")) for each in (*BASELINES, OURS)
            ]
            for place in places
        },
        "%",
        100.0,
    )
    lengths = sorted({place.horizon_s for place in places})
    gpus = {place.workload: fleet(place.workload, place.scale) for place in places}
    used = "; ".join(f"{key}: {of['a10']} A10, {of['a100']} A100" for key, of in gpus.items())
    return Section(
        name,
        title,
        "simulated",
        findings=tuple(_losses(cells, places)),
        notes=(f"Requests come for {_minutes(lengths)} minutes. GPUs in use: {used}.",),
        tables=tables,
        figures=(figure,),
    )


def _losses(cells: Cells, places: Sequence[Place]) -> list[str]:
    out = []
    for place in places:
        for other in BASELINES:
            gain = cells.points(place, OURS, other)
            if gain.mean + gain.sure < -SURE:
                out.append(f"{place.workload} at {place.load:g}: {_points(gain)} points against {NAMES[other]}.")
    if not out:
        out.append("Headrace keeps at least as many promises as each baseline in every cell, within half a point.")
    elif any("EDF" in line for line in out):
        out.append(
            "EDF is hard to beat where requests come for so short a time that what may wait an hour can all be put"
            " off: nothing long is missed then, and one line for all instances never guesses where room will be."
        )
    return out


def _cell(cells: Cells, place: Place, policies: Sequence[str]) -> Table:
    columns = ("policy", "promises kept", *CLASSES, "answers a second", "utilisation", "swaps", "evictions")
    rows = [_row(cells, place, policy) for policy in policies if policy in cells.policies(place)]
    title = f"{place.workload} at {place.load:g} x saturation: {place.rate_rps:.2f} requests/s"
    return Table(title, columns, tuple(rows))


def _row(cells: Cells, place: Place, policy: str) -> tuple[str, ...]:
    kept = cells.figure(place, policy, "attainment")
    return (
        NAMES[policy],
        _kept(kept),
        *(percent(cells.by_class(place, policy, name).mean, 1) for name in CLASSES),
        number(cells.figure(place, policy, "throughput_rps").mean),
        percent(cells.figure(place, policy, "utilisation").mean, 1),
        number(cells.figure(place, policy, "swaps").mean),
        number(cells.figure(place, policy, "evictions").mean),
    )


def _controls(cells: Cells, at: Mapping[str, Place], seeds: int) -> Section:
    groups = {}
    for name, place in at.items():
        others = [each for each in cells.policies(place) if each not in (*BASELINES, OURS)]
        groups[name] = [(NAMES[each], _less(cells.points(place, OURS, each))) for each in others]
    tables = tuple(_cell(cells, place, tuple(NAMES)) for place in at.values())
    return Section(
        "controls",
        "Controls, and operations taken away one at a time",
        "simulated",
        findings=(
            "True and random lengths bound what predictions are worth; a negative bar is what its absence costs. The"
            " best schedule found knows all arrivals and all lengths, and may refuse.",
        ),
        notes=(
            f"{seeds} seeds; Headrace's own row is of all that there are, differences are in pairs. The paper takes its"
            " operations away in a figure whose values could not be read.",
        ),
        tables=tables,
        figures=(bars("Promises kept against Headrace's, points", groups, "points"),),
    )


def _rests(whole: Sequence[Place], long: Sequence[Place], shares: Mapping[str, float]) -> Section:
    carried = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
    return Section(
        "rests",
        "Not in the paper, and set here",
        "simulated",
        notes=(
            f"- Fleet: {A10} A10 and {A100} A100 [T]. How the paper divides them among models is not known: 70B-class"
            " models take eight A10, and two (W_A) or four A100 [I]; GPUs that are left over stay idle.",
            "- Models: Llama-2-70B (W_A); W_B adds Qwen2-72B and InternLM2.5-20B; W_C has Qwen2-72B, for its prompts"
            " exceed Llama-2's context. The paper names Mistral-7B, Vicuna-13B and Llama-70B [T]: with the smaller ones"
            " this fleet answers 3,500 requests in half a minute, and no target of the paper could be missed.",
            f"- {REQUESTS:,} requests a trace [T], Poisson [T]; lengths of the Azure 2023 conversations, as the paper's"
            f" ShareGPT is not at hand; clients allow {MAX_TOKENS:,} tokens [I].",
            "- Targets 20 s, 60 s, an hour [T]; shares of classes and models, six mega prompts of a hundred with 8,000"
            " to 24,000 tokens [I].",
            f"- {SLOTS} sequences an instance, a first load of 100 s: the released configuration's [C]; warm loads, 80"
            " GB of host memory [I, T].",
            f"- Saturation: what an eighth of the fleet carries of what costs alone allow, nothing urgent: {carried}.",
            f"- The planner: the search alone ({PLANNING['plan_moves']:g} moves), at most one plan in {REPLAN_S:g} s"
            f" (live: one a second); lengths as a predictor with Kendall's tau {PREDICTOR.partition(':')[2]} says"
            " them. Every policy has its defaults; nothing was tuned here.",
            "- SHEPHERD's rule is ours by its description: static batches, preemption at three times the goodput [I].",
            f"- Seeds draw the same requests for every policy. Cells: {len(whole)} whole, {len(long)} long.",
        ),
    )


# --- words ---


def _minutes(lengths_s: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys(number(each / 60, 2) for each in (lengths_s[0], lengths_s[-1])))


def _load(at: Mapping[str, Place]) -> float:
    return max(place.load for place in at.values())


def _less(points: Estimate) -> Estimate:
    """The other's side of it."""
    return Estimate(-points.mean, points.half)


def _kept(figure: Estimate) -> str:
    return f"{100 * figure.mean:.1f}" + (f" ± {100 * figure.half:.1f}" if math.isfinite(figure.half) else "") + " %"


def _points(figure: Estimate) -> str:
    return f"{figure.mean:+.1f}" + (f" ± {figure.half:.1f}" if math.isfinite(figure.half) else "")


def _share(figure: Estimate) -> str:
    half = f" ± {100 * figure.half:.1f}" if math.isfinite(figure.half) else ""
    return f"{100 * figure.mean:+.1f}{half} %"
