"""QLM's evaluation (arXiv 2407.00047) again: attainment, throughput and utilisation on its three workloads.

Twice: on its whole fleet with traces as long as its own, which are over in minutes, and on an eighth of it for half an
hour, in which long promises can be missed as well. Policies, controls and ablations meet the same requests.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.characterize.document import Document
from headrace.report.provenance import plain
from loadtest.benches import queue_clairvoyant
from loadtest.benches.queue_clairvoyant import Search
from loadtest.benches.report import say
from loadtest.reproduce import echo, qlm_sections
from loadtest.reproduce.qlm_figures import cells_of, headline
from loadtest.reproduce.qlm_fleet import EIGHTH, FULL, REQUESTS, Place, Saturation, Trial, carried, carry_out, ideal_rps
from loadtest.reproduce.running import Found, Options, run
from loadtest.rows import Rows

Job = Trial | Search | Saturation

WORKLOADS = ("W_A", "W_B", "W_C")
COMPARED = ("fcfs", "edf", "shepherd", "headrace")
LINES = ("vq-fcfs", "vq-edf")  # a line at each instance, where a single model has one for all
CONTROLS = ("headrace_oracle_lengths", "headrace_random_lengths")
ABLATIONS = ("evict", "swap", "balance", "plan")
# Of what the costs alone allow, an eighth of the fleet carries so much: what --quick takes for granted [M], by
# Saturation at 900 s of arrivals. W_B: not more than the least that was tried.
CARRIED = {"W_A": 0.91, "W_B": 0.5, "W_C": 0.95}

ABOUT = (
    "QLM groups requests by model, target and size, orders the groups in a virtual queue of each instance, and evicts,"
    " swaps and balances as that order asks. Here its method as Headrace has it, with predicted lengths, beside first"
    " come first served (vLLM's order), earliest deadline first, and a planner like SHEPHERD's."
)


@dataclass(frozen=True, slots=True)
class Extent:
    scale: float = FULL  # of the whole fleet
    load: float = 1.5  # ... of saturation
    horizon_s: float = 1_800.0  # on an eighth of it
    loads: tuple[float, ...] = (1.0, 1.25)
    control_seeds: int = 5  # of controls, ablations and the search, at the last of the loads
    replays: int = 4  # of the clairvoyant search
    saturation_s: float = 3_600.0  # 0: as CARRIED says


QUICK = Extent(scale=EIGHTH, horizon_s=420.0, loads=(1.25,), control_seeds=0, saturation_s=0.0)


def work(job: Job) -> dict[str, Any]:
    if isinstance(job, Trial):
        return carry_out(job)
    return queue_clairvoyant.carry_out(job) if isinstance(job, Search) else carried(job)


def measure(options: Options) -> Found:
    extent = QUICK if options.quick else Extent()
    scale = options.scale or extent.scale
    rows = Rows[Job](options.rows, work)
    shares = _carried(extent, rows, options.processes)
    whole = [_whole(name, scale, extent.load, share) for name, share in shares.items()]
    long = [_long(name, load, extent, share) for name, share in shares.items() for load in extent.loads]
    jobs: list[Job] = [Trial(at, policy, seed) for seed in options.seeds for at in whole + long for policy in COMPARED]
    jobs += _controls(long, extent, options.seeds)
    say(f"{len(jobs)} runs ...")
    cells = cells_of(rows.of(jobs, options.processes))
    at = _headlines(long)
    data = headline(cells, at) | {"cells": cells.data(), "saturation_of_ideal": shares, "paper": qlm_sections.PAPER}
    control_seeds = min(extent.control_seeds, len(options.seeds))
    sections = qlm_sections.all_of(cells, at, whole, long, shares, control_seeds)
    if options.live:
        heard = echo.qlm()
        sections, data["live"] = (*sections, echo.section("qlm", heard)), [each.data() for each in heard]
    return Found(Document("QLM, reproduced", ABOUT, sections, data=plain(data)), rows.failed)


def _carried(extent: Extent, rows: Rows[Job], processes: int) -> dict[str, float]:
    """Of what costs alone allow, by workload."""
    if not extent.saturation_s:
        return dict(CARRIED)
    asked: list[Job] = [Saturation(name, extent.saturation_s) for name in WORKLOADS]
    return {job.workload: row["of_ideal"] for job, row in rows.of(asked, processes) if isinstance(job, Saturation)}


def _whole(name: str, scale: float, load: float, share: float) -> Place:
    """As many requests as the paper's traces have, or the scale's share of them."""
    rate_rps = load * share * ideal_rps(name, scale)
    return Place(name, load, rate_rps, REQUESTS * scale / rate_rps, scale)


def _long(name: str, load: float, extent: Extent, share: float) -> Place:
    return Place(name, load, load * share * ideal_rps(name, EIGHTH), extent.horizon_s, EIGHTH)


def _headlines(long: Sequence[Place]) -> dict[str, Place]:
    """By workload, the heaviest of the long cells."""
    return {place.workload: place for place in long}


def _controls(long: Sequence[Place], extent: Extent, seeds: Sequence[int]) -> list[Job]:
    jobs: list[Job] = []
    for place in _headlines(long).values():
        several = len(place.shape.models) > 1
        off = [f"headrace_without_{name}" for name in ABLATIONS if several or name != "swap"]
        names = (*(() if several else LINES), *CONTROLS, *off)
        for seed in seeds[: extent.control_seeds]:
            jobs += [Trial(place, name, seed) for name in names]
            jobs.append(Search(place, seed, extent.replays, 100))
    return jobs


def main(argv: list[str] | None = None) -> int:
    return run("qlm", sys.argv[1:] if argv is None else argv, measure)


if __name__ == "__main__":
    sys.exit(main())
