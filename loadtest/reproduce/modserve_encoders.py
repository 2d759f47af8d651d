"""Part 6: what hangs on the seconds of the encoders, which no source has: half and twice as long."""

from headrace.characterize.document import Section, Table
from loadtest.reproduce.modserve_capacity import split_rps, whole_rps
from loadtest.reproduce.modserve_found import Finished, Grid
from loadtest.reproduce.modserve_plan import Plan, change, of, pair, told
from loadtest.reproduce.modserve_runs import Run
from loadtest.reproduce.modserve_systems import PAPER_SHAPE
from loadtest.reproduce.modserve_traffic import Traffic

SYSTEMS = ("monolith", "decoupled", "modserve")
RATE_SHARE = 0.7  # of the monolith's capacity by arithmetic, at each scale: the same stress, another balance


def grid(plan: Plan) -> Grid:
    """(model, times, system) -> runs."""
    return {
        (model, times, system): [
            Run(
                model,
                system,
                Traffic(round(RATE_SHARE * whole_rps(model, PAPER_SHAPE, encode_times=times), 2), plan.requests),
                seed,
                plan.bases[model].targets,
                encode_times=times,
            )
            for seed in plan.few
        ]
        for model in plan.models
        for times in sorted((1.0, *plan.encode_times))
        for system in SYSTEMS
    }


def section(plan: Plan, found: Finished, cells: Grid) -> tuple[Section, dict[str, object]]:
    rows, data, findings = [], {}, []
    for model in plan.models:
        holds = []
        for times in sorted((1.0, *plan.encode_times)):
            by = {system: found.of(cells[model, times, system]) for system in SYSTEMS}
            if len({len(each) for each in by.values()}) > 1 or not by["monolith"]:
                continue
            most = whole_rps(model, PAPER_SHAPE, encode_times=times), split_rps(model, PAPER_SHAPE, encode_times=times)
            p99 = {system: of(each, "ttft_p99_s") for system, each in by.items()}
            gains = [change(by[system], by["monolith"], "ttft_p99_s") for system in SYSTEMS[1:]]
            holds.append(all(gain.mean < 0 for gain in gains))
            told_gains = [f"{gain.mean * 100:+.0f} %" for gain in gains]
            p99_told = [told(p99[system]) for system in SYSTEMS]
            rows.append(
                (
                    f"{model}, {times:g} ×",
                    f"{RATE_SHARE * most[0]:.1f}",
                    f"{most[1] / most[0]:.2f}",
                    *p99_told,
                    *told_gains,
                )
            )
            data[f"{model} {times:g}"] = {
                "raw_capacity_ratio": most[1] / most[0],
                "p99_ttft_s": {system: pair(each) for system, each in p99.items()},
            }
        sure = "at every scale" if all(holds) else "not at every scale"
        findings.append(
            f"{model}: image instances are better than the monolith in P99 TTFT {sure} of the encoders' seconds."
        )
    columns = (
        "encoder's seconds",
        "requests/s",
        "raw ratio",
        *(f"{s} P99, s" for s in SYSTEMS),
        "decoupled",
        "ModServe",
    )
    notes = (
        f"At {RATE_SHARE:.0%} of what the monolith can do by arithmetic at that scale. Raw ratio: capacity over the"
        " monolith's. The last two columns: P99 against the monolith's.",
    )
    table = Table("Time to first token by the encoders' seconds", columns, tuple(rows))
    done = Section("encoders", "What hangs on the encoders' seconds", "simulated", tuple(findings), notes, (table,))
    return done, {"encoder_scale": data}
