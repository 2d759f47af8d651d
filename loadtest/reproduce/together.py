"""Ours together: stages apart, slack order, planner, predicted lengths, autoscaler, encoder cache and early rejection,
against the best of the systems that each have a part of it; the same requests, the same GPUs.

The papers' systems were frozen, and get at each rate the best of their shapes on seeds of their own (TUNING_SEEDS).
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.characterize.document import Document
from headrace.report.provenance import plain
from loadtest.benches.report import say
from loadtest.reproduce import echo, together_sections
from loadtest.reproduce.running import Found, Options, run
from loadtest.reproduce.together_figures import OURS, At, by_name, chosen, share_of_gain
from loadtest.reproduce.together_scene import DURATION_S, RATES_RPS, Load
from loadtest.reproduce.together_systems import (
    OURS as EVERYTHING,
)
from loadtest.reproduce.together_systems import (
    REPLAYS,
    SINGLE,
    TRUE_LENGTHS,
    WITHOUT,
    Hindsight,
    System,
    Trial,
    carry_out,
    look_back,
)
from loadtest.rows import Rows

Job = Trial | Hindsight
Row = Mapping[str, Any]

TUNING_SEEDS = (2_001, 2_002)
ABOUT = (
    "What none of the three papers has is the union. A mixed load with bursts of images meets it, and meets each"
    " part as its paper has it: ModServe-like (stages apart, its order, no planner), QLM-like (the planner on whole"
    " replicas), SSJF-like (shortest predicted first on whole replicas), and first come first served."
)


@dataclass(frozen=True, slots=True)
class Extent:
    rates_rps: tuple[float, ...] = RATES_RPS
    duration_s: float = DURATION_S
    tuning_seeds: tuple[int, ...] = TUNING_SEEDS
    control_seeds: int = 5  # of what is left out, true lengths and hindsight, at the last rate
    left_out: tuple[str, ...] = tuple(WITHOUT)
    replays: int = REPLAYS  # with hindsight

    def loads(self) -> tuple[Load, ...]:
        return tuple(Load(rate_rps, self.duration_s) for rate_rps in self.rates_rps)


QUICK = Extent((30.0,), 60.0, TUNING_SEEDS[:1], 1, ("stages apart", "the planner", "the encoder cache"), 2)


def work(job: Job) -> dict[str, Any]:
    return carry_out(job) if isinstance(job, Trial) else look_back(job)


def measure(options: Options) -> Found:
    extent = QUICK if options.quick else Extent()
    rows, loads = Rows[Job](options.rows, work), extent.loads()
    shapes = _frozen(extent, rows, options.processes)
    jobs = [job for seed in options.seeds for load in loads for job in _main(shapes[load], load, seed)]
    jobs += [job for seed in options.seeds[: extent.control_seeds] for job in _controls(extent, loads[-1], seed)]
    say(f"{len(jobs)} runs ...")
    found = rows.of(jobs, options.processes)
    ats = tuple(At(load.rate_rps, by_name(found, load, _names(shapes[load]))) for load in loads)
    data = data_of(ats) | {"shapes": {f"{load.rate_rps:g}": _told(shapes[load]) for load in loads}}
    sections = together_sections.all_of(ats, {load.rate_rps: shapes[load] for load in loads}, extent.duration_s)
    if options.live:
        heard = echo.together()
        sections, data["live"] = (*sections, echo.section("together", heard)), [each.data() for each in heard]
    return Found(Document("Ours together", ABOUT, sections, data=plain(data)), rows.failed)


def data_of(ats: Sequence[At]) -> dict[str, Any]:
    last = ats[-1]
    return {
        "systems": last.data(),
        "best_single": last.best_single,
        "gain_over_best_single_points": last.points(OURS, last.best_single).mean,
        "share_of_clairvoyant_gain": share_of_gain(last, "hindsight"),
        "share_of_true_lengths_gain": share_of_gain(last, "true lengths"),
        "zero_is": "the best single system",
        "one_is": "the best schedule found with true lengths and hindsight, of at least three tries",
        "by_rate": {
            f"{at.rate_rps:g}": {
                "best_single": at.best_single,
                "gain_points": {name: at.points(OURS, name).mean for name in at.rows if name != OURS},
                "systems": at.data(),
            }
            for at in ats
        },
        "paper": together_sections.PAPER,
    }


def _frozen(extent: Extent, rows: Rows[Job], processes: int) -> dict[Load, dict[str, System]]:
    """What each of the papers' systems is at each rate."""
    jobs: list[Job] = [
        Trial(shape, load, seed)
        for load in extent.loads()
        for shapes in SINGLE.values()
        for shape in shapes
        for seed in extent.tuning_seeds
    ]
    say(f"the papers' systems, in their shapes: {len(jobs)} runs on other seeds ...")
    found = rows.of(jobs, processes)
    return {load: chosen(found, load) for load in extent.loads()}


def _main(shapes: Mapping[str, System], load: Load, seed: int) -> list[Job]:
    return [Trial(system, load, seed) for system in (*shapes.values(), EVERYTHING)]


def _controls(extent: Extent, load: Load, seed: int) -> list[Job]:
    systems = (TRUE_LENGTHS, *(WITHOUT[name] for name in extent.left_out))
    return [*(Trial(system, load, seed) for system in systems), Hindsight(load, seed, extent.replays)]


def _names(shapes: Mapping[str, System]) -> dict[str, System]:
    left_out = {f"without {name}": system for name, system in WITHOUT.items()}
    return {**shapes, OURS: EVERYTHING, "true lengths": TRUE_LENGTHS, **left_out}


def _told(shapes: Mapping[str, System]) -> dict[str, Any]:
    return {name: {"scaled": each.scaled, "room": each.room} for name, each in shapes.items()}


def main(argv: list[str] | None = None) -> int:
    return run("together", sys.argv[1:] if argv is None else argv, measure)


if __name__ == "__main__":
    sys.exit(main())
