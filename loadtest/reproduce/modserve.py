"""ModServe (arXiv 2502.00937) in the simulator: its systems one switch at a time, goodput, a scaled day, text to image
instances, prefill and decode apart; controls, and what is ours, beside them.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from headrace.characterize.document import Document
from headrace.report.compare import estimate
from loadtest.reproduce import (
    echo,
    modserve_encoders,
    modserve_goodput,
    modserve_ordering,
    modserve_ratio,
    modserve_scaling,
    modserve_separated,
)
from loadtest.reproduce.modserve_assumed import assumptions
from loadtest.reproduce.modserve_found import Finished, flat
from loadtest.reproduce.modserve_paper import PAPER
from loadtest.reproduce.modserve_plan import Base, Plan, full, quick
from loadtest.reproduce.modserve_runs import (
    Isolated,
    Run,
    Saturated,
    carry_out,
    carry_out_isolated,
    carry_out_saturated,
)
from loadtest.reproduce.modserve_scaling import Day
from loadtest.reproduce.modserve_separated import Separated
from loadtest.reproduce.modserve_systems import MODELS
from loadtest.reproduce.running import Found, Options, run
from loadtest.rows import Rows

Job = Run | Isolated | Saturated | Separated | Day

ABOUT = (
    "ModServe serves multimodal models from image and text instances. Its evaluation again, in our simulator on 128"
    " A100s: the policies are the mesh's own code, the GPUs are profiles. Ratios are to be read, not seconds: encoders'"
    " seconds are inferred, and the paper leaves much unsaid (see the end)."
)


def work(job: Job) -> dict[str, Any]:
    if isinstance(job, Run):
        return carry_out(job)
    if isinstance(job, Isolated):
        return carry_out_isolated(job)
    if isinstance(job, Saturated):
        return carry_out_saturated(job)
    return modserve_separated.carry_out(job) if isinstance(job, Separated) else modserve_scaling.carry_out(job)


def bases(rows: Rows[Job], processes: int) -> dict[str, Base]:
    """Three seeds' medians, whatever the plan's: targets are the same in every run."""
    jobs: list[Job] = [Isolated(model, seed) for model in MODELS for seed in (1, 2, 3)]
    found = [(job.model, row) for job, row in rows.of(jobs, processes) if isinstance(job, Isolated)]
    out = {}
    for model in MODELS:
        mine = [row for at, row in found if at == model]
        means = {key: estimate([row[key] for row in mine]).mean for key in ("ttft_text_s", "ttft_image_s", "tbt_s")}
        out[model] = Base(round(means["ttft_text_s"], 5), round(means["ttft_image_s"], 5), round(means["tbt_s"], 6))
    return out


def measure(options: Options) -> Found:
    plan = quick(options.seeds) if options.quick else full(options.seeds)
    found = found_of(plan, Rows[Job](options.rows, work), options.processes)
    return _echoed(found) if options.live else found


def found_of(plan: Plan, rows: Rows[Job], processes: int = 0) -> Found:
    plan = replace(plan, bases=bases(rows, processes))
    parts: list[tuple[Any, tuple[Mapping[Any, Any], ...]]] = [
        (modserve_ordering, (modserve_ordering.grid(plan),)),
        (modserve_goodput, (modserve_goodput.grid(plan), modserve_goodput.saturated_grid(plan))),
        (modserve_scaling, (modserve_scaling.grid(plan),)),
        (modserve_ratio, (modserve_ratio.grid(plan),)),
        (modserve_separated, (modserve_separated.grid(plan),)),
        (modserve_encoders, (modserve_encoders.grid(plan),)),
    ]
    jobs = flat(*(grid for _, grids in parts for grid in grids))
    found = Finished(rows.of(sorted(jobs, key=_first), processes))
    sections, data = [], dict[str, Any]()
    for part, grids in parts:
        section, more = part.section(plan, found, *grids)
        sections.append(section)
        data |= more
    data |= {"paper": PAPER, "base_s": {name: asdict(base) for name, base in plan.bases.items()}}
    document = Document("ModServe, reproduced", ABOUT, tuple(sections), assumptions(plan), data)
    return Found(document, rows.failed)


def _echoed(found: Found) -> Found:
    heard, document = echo.modserve(), found.document
    sections = (*document.sections, echo.section("modserve", heard))
    data = {**document.data, "live": [each.data() for each in heard]}
    return replace(found, document=replace(document, sections=sections, data=data))


def _first(job: Job) -> bool:
    """The longest runs begin first: at the end nobody waits for one of them."""
    return not isinstance(job, Day)


def main(argv: list[str] | None = None) -> int:
    return run("modserve", sys.argv[1:] if argv is None else argv, measure)


if __name__ == "__main__":
    sys.exit(main())
