"""The sections of the report on everything together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.characterize import drawing
from headrace.characterize.document import Section, Table, number, percent
from headrace.core.slo import CLASSES as SLO
from headrace.report.compare import Estimate
from loadtest.benches.queue_runs import PREDICTOR
from loadtest.reproduce import together_scene as scene
from loadtest.reproduce.bars import bars
from loadtest.reproduce.together_figures import OURS, At, share_of_gain
from loadtest.reproduce.together_systems import PLANNING, REPLAYS, SINGLE, WITHOUT, System

PAPER: dict[str, Any] = {
    "union": "none of the three papers has it: there is no figure to compare with",
    "modserve": {"goodput_ratio": [3.3, 5.5], "over": "vLLM's monolith, 128 GPUs [P]"},
    "qlm": {"attainment_gain_points": [40, 90]},  # [A]
    "ssjf": {"jct_change": [-0.396, -0.305]},  # [A]
}
NAMES = {
    "fcfs": "replicas, FCFS",
    "ssjf": "SSJF-like",
    "qlm": "QLM-like",
    "modserve": "ModServe-like",
    OURS: "everything together",
    "true lengths": "... with true lengths",
    "hindsight": "... with hindsight",
}
SURE = 0.1  # points: closer ones are the same


def all_of(ats: Sequence[At], shapes: Mapping[float, Mapping[str, System]], duration_s: float) -> tuple[Section, ...]:
    last = ats[-1]
    sections = [_beside(ats), *(_rate(at, shapes[at.rate_rps]) for at in ats)]
    if any(f"without {name}" in last.rows for name in WITHOUT):
        sections.append(_left_out(last))
    return (*sections, _rests(duration_s))


def _beside(ats: Sequence[At]) -> Section:
    rows = []
    for at in ats:
        best = at.best_single
        rows.append(
            (
                f"{at.rate_rps:g}",
                NAMES[best],
                _kept(at.figure(best, "attainment")),
                _kept(at.figure(OURS, "attainment")),
                _points(at.points(OURS, best)),
                _signed(at.change(OURS, best, "goodput_rps")),
                _signed(at.change(OURS, best, "gpu_hours")),
                _signed(at.change(OURS, best, "joules", 1e-6)),
            )
        )
    columns = (
        "requests/s",
        "best single system",
        "it keeps",
        "ours keeps",
        "points",
        "goodput, 1/s",
        "GPU hours",
        "MJ",
    )
    drawn = {
        NAMES[name]: [(at.rate_rps, at.figure(name, "goodput_rps").mean) for at in ats] for name in (*SINGLE, OURS)
    }
    figure = drawing.lines(
        "Goodput by load", drawn, drawing.linear("requests/s"), drawing.linear("promises kept a second")
    )
    return Section(
        "beside",
        "The union and its parts",
        "simulated",
        findings=(*(_finding(at) for at in ats), *_clairvoyant(ats[-1])),
        notes=(
            "Requests/s are those that come anyway; bursts of images come on top. Changes are ours less theirs, in"
            " pairs of the same seed, with 95 % intervals. GPU hours and joules count until the last answer.",
        ),
        tables=(Table("Everything together, against the best single system", columns, tuple(rows)),),
        figures=(figure,) if len(ats) > 1 else (),
    )


def _finding(at: At) -> str:
    best = at.best_single
    gain = at.points(OURS, best)
    told = f"At {at.rate_rps:g} requests/s: {_points(gain)} points over {NAMES[best]}"
    if gain.mean - gain.sure > SURE:
        return f"{told}: the union beats each part."
    return f"{told}: the union {'LOSES' if gain.mean + gain.sure < -SURE else 'is not surely better'}."


def _clairvoyant(at: At) -> list[str]:
    share, true = share_of_gain(at, "hindsight"), share_of_gain(at, "true lengths")
    if math.isnan(share):
        return []
    return [
        f"Of what the best schedule found keeps beyond {NAMES[at.best_single]} at {at.rate_rps:g} requests/s, ours"
        f" keeps {percent(share)} (of what it keeps itself with true lengths: {percent(true)}). 0 is the best single"
        " system; 1 is the best of all runs of a seed, three with true lengths and hindsight of whom to turn"
        " away among them: a schedule that exists, and no bound."
    ]


def _rate(at: At, shapes: Mapping[str, System]) -> Section:
    names = [name for name in (*SINGLE, OURS, "true lengths", "hindsight") if name in at.rows]
    groups = {
        "all": [(NAMES[name], at.figure(name, "attainment")) for name in names],
        "with images": [(NAMES[name], at.figure(name, "with_images")) for name in names],
        "text alone": [(NAMES[name], at.figure(name, "text_alone")) for name in names],
    }
    had = {name: len(at.rows[name]) for name in names}
    few = [f"{NAMES[name]} on the first {count} seeds" for name, count in had.items() if count < max(had.values())]
    return Section(
        f"rate-{at.rate_rps:g}",
        f"{at.rate_rps:g} requests a second, and bursts",
        "simulated",
        findings=tuple(_loss(at, name) for name in SINGLE if _lost(at, name)),
        notes=(
            "Shapes, the best on other seeds: "
            + "; ".join(f"{NAMES[name]} {_shape(system)}" for name, system in shapes.items())
            + "."
            + (f" {', '.join(few)}." if few else ""),
        ),
        tables=(_table(at, names),),
        figures=(bars(f"Promises kept at {at.rate_rps:g} requests a second", groups, "%", 100.0),),
    )


def _lost(at: At, other: str) -> bool:
    return any(_behind(at, other, name) for name in ("attainment", "with_images", "text_alone"))


def _behind(at: At, other: str, name: str) -> bool:
    gain = at.change(OURS, other, name, 100.0)
    return gain.mean + gain.sure < -SURE


def _loss(at: At, other: str) -> str:
    told = {"attainment": "of all", "with_images": "of those with images", "text_alone": "of text alone"}
    lost = [
        f"{words}, {_points(at.change(OURS, other, name, 100.0))}"
        for name, words in told.items()
        if _behind(at, other, name)
    ]
    return f"Ours keeps fewer promises than {NAMES[other]} {'; '.join(lost)} points."


def _shape(system: System) -> str:
    parts = [f"scaled as {system.scaled}" if system.scaled else "fixed"]
    parts.append("10 GB for embeddings" if system.room else "1 GB for embeddings")
    return f"({', '.join(parts)})"


def _table(at: At, names: Sequence[str]) -> Table:
    columns = ("system", "promises kept", *scene.CLASSES, "with images", "text alone", "goodput, 1/s", "TTFT p50, s")
    columns += ("p99, s", "GPU hours", "MJ")
    return Table(f"At {at.rate_rps:g} requests/s", columns, tuple(_row(at, name) for name in names))


def _row(at: At, name: str) -> tuple[str, ...]:
    def mean(key: str) -> float:
        return at.figure(name, key).mean

    return (
        NAMES.get(name, name),
        _kept(at.figure(name, "attainment")),
        *(percent(at.by_class(name, each), 1) for each in scene.CLASSES),
        percent(mean("with_images"), 1),
        percent(mean("text_alone"), 1),
        number(mean("goodput_rps")),
        number(mean("ttft_p50_s")),
        number(mean("ttft_p99_s")),
        number(mean("gpu_hours")),
        number(mean("joules") / 1e6),
    )


def _left_out(at: At) -> Section:
    names = [name for name in WITHOUT if f"without {name}" in at.rows]
    costs = {name: at.points(f"without {name}", OURS) for name in names}
    needed = [name for name, cost in costs.items() if cost.mean + cost.sure < -SURE]
    hurts = [name for name, cost in costs.items() if cost.mean - cost.sure > SURE]
    rows = []
    for name in names:
        key = f"without {name}"
        changes = (("with_images", 100.0), ("text_alone", 100.0), ("gpu_hours", 1.0), ("joules", 1e-6))
        rows.append((key, _points(costs[name]), *(_signed(at.change(key, OURS, *each)) for each in changes)))
    findings = [f"It needs {_list(needed)}: without each of them alone it keeps fewer promises."] if needed else []
    if hurts:
        findings.append(f"It would keep more without {_list(hurts)}.")
    if rest := [name for name in names if name not in needed and name not in hurts]:
        findings.append(f"No sure difference here: {_list(rest)}.")
    seeds = len(at.rows[f"without {names[0]}"])
    return Section(
        "left-out",
        "All but one",
        "simulated",
        findings=tuple(findings),
        notes=(
            f"At {at.rate_rps:g} requests/s, the first {seeds} seeds, in pairs. Without stages apart: three replicas of"
            " all stages, which keep few embeddings (more hurts them)."
            " Without the planner: one line, least slack first. Without predicted lengths: what has ended"
            " teaches them. Without room: an encoder keeps 65,536 tokens of embeddings, those in line included.",
        ),
        tables=(
            Table(
                "What is lost without it",
                ("left out", "promises kept, points", "with images", "text alone", "GPU hours", "MJ"),
                tuple(rows),
            ),
        ),
        figures=(
            bars("Promises kept without it, points", {"left out": [(name, costs[name]) for name in names]}, "points"),
        ),
    )


def _rests(duration_s: float) -> Section:
    bursts = len(scene.BURSTS_S)
    targets = ", ".join(f"{name} {SLO[name].ttft_s:g} s" for name in scene.CLASSES)
    return Section(
        "rests",
        "What was set here",
        "simulated",
        notes=(
            f"- {scene.GPUS} A100: three replicas of four GPUs with all stages, or {scene.ENCODERS} encoders of one GPU"
            " and two LLM instances of four; Llama-3.2-11B, whose tensor parallelism is ModServe's [P].",
            f"- {scene.SLOTS} sequences an instance, QLM's released batch size [C]: more would need more requests than"
            " can be simulated here before anything is full.",
            f"- {duration_s / 60:.2g} minutes, {percent(scene.IMAGE_SHARE)} of the requests with images (2.8 each on"
            f" average), {bursts} bursts of image requests alone, each {percent(scene.BURST_SHARE)} of the rate more;"
            f" {percent(float(scene.REPEATS['share']))} of the images are of a pool of {scene.REPEATS['pool']:g} [I].",
            f"- Targets to the first token: {targets} [T]; half, three tenths and a fifth of the requests [I].",
            f"- Lengths as a predictor with Kendall's tau {PREDICTOR.partition(':')[2]} says them, for ours and the"
            " SSJF-like system; the QLM-like one learns them from what has ended.",
            f"- Planner: the search alone, {PLANNING['plan_moves']:g} moves, a plan in {PLANNING['replan_s']:g} s at"
            " most; the same for the QLM-like system, which does not refuse early, moves nothing that runs, has no"
            " shares.",
            "- The ModServe-like system: least pending media tokens, least slack first at encoders and LLMs, its"
            " autoscaler or none. Starts take 25 s (encoder) and 60 s (LLM), weights in host memory [I].",
            "- Each of the papers' systems has, at each rate, the shape that keeps most on seeds 2001 and 2002: with"
            " little or much memory for embeddings, scaled or not. Ours has one shape everywhere, and its constants are"
            " the product's defaults; none was tuned on this load. One fault was found on seed 2001 and mended: an"
            " encoder counted embeddings that wait for prefill against its line, and rested while urgent pictures"
            " waited behind those of batch requests; now memory has a bound of its own, for all systems alike.",
            f"- Hindsight: {REPLAYS} runs with true lengths; who came late is turned away, the cheapest are let back.",
        ),
    )


# --- words ---


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _kept(figure: Estimate) -> str:
    return f"{100 * figure.mean:.1f}" + (f" ± {100 * figure.half:.1f}" if math.isfinite(figure.half) else "") + " %"


def _points(figure: Estimate) -> str:
    return f"{figure.mean:+.1f}" + (f" ± {figure.half:.1f}" if math.isfinite(figure.half) else "")


def _signed(figure: Estimate) -> str:
    return f"{figure.mean:+.2f}" + (f" ± {figure.half:.2f}" if math.isfinite(figure.half) else "")
