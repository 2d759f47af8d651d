"""A thousand GPUs cut into cells: what the cut costs, what spreading well is worth, what is lost with a cell.

Each run is 1,000 A100 under the same requests; layouts, spreads and seeds differ.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.characterize.document import Document
from headrace.report.provenance import plain
from headrace.sim.cells import Layout, simulate_cells
from headrace.sim.sweep import prepare
from loadtest.benches.queue_runs import PLANNING
from loadtest.benches.report import say
from loadtest.reproduce import cells_sections
from loadtest.reproduce.running import Found, Options, run
from loadtest.rows import Rows

GPUS = 1_000
ENCODERS, LLMS = 232, 192  # of one GPU, and of four: burst.toml's shape, 62 times
RATE_RPS = 1_800.0  # nine tenths of what such a fleet carries within its promises [M]
DURATION_S = 20.0  # of a run: 36,000 requests; layouts and seeds add up
DRAIN_S = 600.0
TTFT_S = 2.0  # of interactive requests, three of four; the rest has batch-1's minute
CUTS = (8, 1, 16, 32)
CONTROLS = ("least-load", "random", "round-robin", "least-wait", "two-choices")
LOST_CUTS = (8, 16)
MAIN = 8  # cells, in the comparison of spreads

ABOUT = (
    "1,000 A100 serve Llama-3.2-11B-Vision: 232 encoders of one GPU, 192 instances of four. The same requests meet them"
    " as one cell and as several, each with a queue manager of its own, behind four doors that know a cell by its last"
    " status (0.25 s old at most) and by what they have sent there since."
)


@dataclass(frozen=True, slots=True)
class Trial:
    layout: Layout
    seed: int
    duration_s: float = DURATION_S
    share: int = 1  # of the fleet and of the load: one so-manieth

    def __str__(self) -> str:
        lost = f", loses one at {self.layout.lost_at_s:g} s" if self.layout.lost_cell >= 0 else ""
        return f"{self.layout.cells} cells, {self.layout.spread}{lost}, seed {self.seed}"


def work(trial: Trial) -> dict[str, Any]:
    scenario = prepare(
        "burst",
        {
            "duration_s": trial.duration_s,
            "drain_s": DRAIN_S,
            "workload.rate_rps": RATE_RPS / trial.share,
            "workload.bursts": [],
            "fleet.pools.encode.count": ENCODERS // trial.share,
            "fleet.pools.llm.count": LLMS // trial.share,
            "classes.interactive.ttft_s": TTFT_S,
        },
    )
    return simulate_cells(scenario, trial.layout, "headrace", trial.seed, PLANNING)


def trials(seed: int, duration_s: float, share: int, cuts: Sequence[int]) -> list[Trial]:
    """What matters most first: a grid that is stopped has that."""
    lost_at_s = duration_s / 2
    main, *others = cuts
    layouts = [
        *(Layout(cells) for cells in cuts[:2]),
        Layout(main, lost_cell=0, lost_at_s=lost_at_s),
        Layout(main, CONTROLS[0]),
        *(Layout(cells) for cells in cuts[2:]),
        *(Layout(main, spread) for spread in CONTROLS[1:]),
        *(Layout(cells, lost_cell=0, lost_at_s=lost_at_s) for cells in others if cells in LOST_CUTS),
    ]
    return [Trial(layout, seed, duration_s, share) for layout in layouts]


def measure(options: Options) -> Found:
    share, cuts = (8, (2, 1, 4)) if options.quick else (1, CUTS)
    duration_s = 10.0 if options.quick else DURATION_S
    rows = Rows[Trial](options.rows, work)
    jobs = [job for seed in options.seeds for job in trials(seed, duration_s, share, cuts)]
    say(f"{len(jobs)} runs ...")
    return document(rows.of(jobs, options.processes), rows.failed)


def document(found: Sequence[tuple[Trial, Mapping[str, Any]]], failed: Sequence[str]) -> Found:
    by_layout: dict[Layout, dict[int, Mapping[str, Any]]] = {}
    for trial, row in found:
        by_layout.setdefault(trial.layout, {})[trial.seed] = row
    sections = cells_sections.all_of(by_layout, found[0][0] if found else None)
    seeds = tuple(sorted({trial.seed for trial, _ in found}))
    data = plain(cells_sections.data_of(by_layout))
    return Found(Document("A thousand GPUs in cells", ABOUT, sections, data=data), failed, seeds)


def main(argv: list[str] | None = None) -> int:
    return run("cells", sys.argv[1:] if argv is None else argv, measure)


if __name__ == "__main__":
    sys.exit(main())
