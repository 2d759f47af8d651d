"""Part 1: time to first token, from the monolith to ModServe one switch at a time; controls and what is ours beside."""

from headrace.characterize import drawing
from headrace.characterize.document import Figure, Section, Table
from headrace.report.compare import Estimate
from loadtest.reproduce.modserve_found import Finished, Grid
from loadtest.reproduce.modserve_paper import PAPER
from loadtest.reproduce.modserve_plan import Plan, Row, change, of, pair, told
from loadtest.reproduce.modserve_runs import Run
from loadtest.reproduce.modserve_systems import CONTROLS, OURS, PAPER_SYSTEMS, RANDOMLY, SYSTEMS
from loadtest.reproduce.modserve_traffic import Traffic

COLUMNS = ("mean", "p99", "of text", "with images", "slow-down", "TBT p99, ms")
KEYS = ("ttft_mean_s", "ttft_p99_s", "text_p99_s", "image_p99_s", "slowdown_p99")


def grid(plan: Plan) -> Grid:
    """(model, load, system) -> runs."""
    cells = {}
    for model in plan.models:
        for load in plan.loads:
            for system in (*PAPER_SYSTEMS, *RANDOMLY):
                cells[model, load, system] = _runs(plan, model, load, system, plan.seeds)
        for system in (*CONTROLS, *OURS):
            cells[model, plan.control_load, system] = _runs(plan, model, plan.control_load, system, plan.few)
        sized = _runs(plan, model, plan.control_load, "modserve", plan.few, by_size=True)
        cells[model, plan.control_load, "by_size"] = sized
    return cells


def _runs(
    plan: Plan, model: str, load: float, system: str, seeds: tuple[int, ...], *, by_size: bool = False
) -> list[Run]:
    traffic, targets = Traffic(load, plan.requests), plan.bases[model].targets
    return [Run(model, system, traffic, seed, targets, by_size=by_size) for seed in seeds]


def section(plan: Plan, found: Finished, cells: Grid) -> tuple[Section, dict[str, object]]:
    rows = {cell: found.of(jobs) for cell, jobs in cells.items()}
    tables, figures, findings = [], [], []
    for model in plan.models:
        for load in plan.loads:
            names = [name for name in (*PAPER_SYSTEMS, *RANDOMLY) if rows[model, load, name]]
            of_names = {title(name): rows[model, load, name] for name in names}
            tables.append(_table(f"{model} at {load:g} requests/s", of_names))
        extra = [name for name in (*CONTROLS, *OURS, "by_size") if rows[model, plan.control_load, name]]
        beside = f"{model} at {plan.control_load:g} requests/s: controls, and what is ours"
        of_extra = {title(name): rows[model, plan.control_load, name] for name in extra}
        tables.append(_table(beside, of_extra))
        if len(plan.loads) > 1:
            figures.append(_chart(plan, model, rows))
        findings += _findings(plan, model, rows)
    data = {
        "p99_ttft_s": _data(rows, "ttft_p99_s", plan.control_load, plan),
        "mean_ttft_s": _data(rows, "ttft_mean_s", plan.control_load, plan),
        "ordering": {
            f"{model} {load:g} {system}": {key: pair(of(each, key)) for key in (*KEYS, "tbt_p99_s", "rps")}
            for (model, load, system), each in rows.items()
            if each
        },
    }
    return (
        Section("ordering", "One switch at a time", "simulated", tuple(findings), NOTES, tuple(tables), tuple(figures)),
        data,
    )


def _data(rows: dict[tuple[str, float, str], list[Row]], key: str, load: float, plan: Plan) -> dict[str, object]:
    """{system: {model: mean}} at the controls' load."""
    systems = dict.fromkeys(system for _, at, system in rows if at == load)
    return {
        system: {model: of(rows[model, load, system], key).mean for model in plan.models if rows[model, load, system]}
        for system in systems
    }


def title(name: str) -> str:
    return "targets by size" if name == "by_size" else SYSTEMS[name].title


def _table(name: str, by_system: dict[str, list[Row]]) -> Table:
    out = []
    for system, rows in by_system.items():
        cells = [told(of(rows, key)) for key in KEYS[:-1]]
        cells.append(told(of(rows, KEYS[-1]), 1))
        cells.append(told(_times(of(rows, "tbt_p99_s"), 1e3), 0))
        out.append((system, *cells))
    return Table(name, ("TTFT, s", *COLUMNS), tuple(out))


def _times(figure: Estimate, factor: float) -> Estimate:
    return Estimate(figure.mean * factor, figure.half * factor)


def _chart(plan: Plan, model: str, rows: dict[tuple[str, float, str], list[Row]]) -> Figure:
    series = {
        title(name): [(load, of(rows[model, load, name], "ttft_p99_s").mean) for load in plan.loads]
        for name in (*PAPER_SYSTEMS, *RANDOMLY[:1])
    }
    y = drawing.logarithmic("99th percentile of the time to first token, s")
    return drawing.lines(f"P99 TTFT over load, {model}", series, drawing.linear("requests/s on 128 GPUs"), y)


_STEPS = (("monolith", "decoupled"), ("decoupled", "scheduled"), ("scheduled", "modserve"))
_SAID = {"decoupled": "decoupled", "scheduled": "+ scheduling", "modserve": "+ routing"}


def _findings(plan: Plan, model: str, rows: dict[tuple[str, float, str], list[Row]]) -> list[str]:
    load, lines = plan.control_load, []
    for before, after in _STEPS:
        base, mine = rows[model, load, before], rows[model, load, after]
        if not base or len(base) != len(mine):
            continue
        mean, p99 = change(mine, base, "ttft_mean_s"), change(mine, base, "ttft_p99_s")
        paper = PAPER["ttft_change"][after][model]
        holds = p99.mean < 0 and p99.mean + p99.sure < 0
        word = "agrees" if holds else "no worse, no better" if abs(p99.mean) <= p99.sure else "does not agree"
        lines.append(
            f"{model}, {load:g}/s, {_SAID[after]}: mean {_percent(mean)}, P99 {_percent(p99)} against the system before"
            f" (paper {paper['mean']:+.0%} and {paper['p99']:+.0%}; {word})."
        )
    return lines


def _percent(figure: Estimate) -> str:
    half = f" ± {figure.half * 100:.0f}" if figure.half == figure.half else ""
    return f"{figure.mean * 100:+.0f}{half} %"


NOTES = (
    "Scheduling: all image requests have one target, so that slack orders them about as they came; what it does is let"
    " text pass, which shows in the text's P99 and the slow-down, at the images' cost, whose P99 is nearly that of all."
    " Shortest first by true service times serves the mean: the 99th percentile is of those that it puts last.",
    "Routing: Llama-3.2's tower computes four tiles of every picture, so that turns are as even as can be and least"
    " pending tokens cannot be better (nor are they where all pictures have one size: tried). InternVL's work goes with"
    " its tokens, and prefill is what waits there.",
    "The planner does what routing alone does: instances take all they are sent (256 sequences, in their own order), so"
    " that nothing waits where it could plan.",
    "Each system is the one before and one switch: decoupled has image and text instances, round robin and order of"
    " arrival; scheduling orders what waits at each instance by slack; routing sends to who has least pending tokens."
    " The paper does not say how its decoupled system routes: the second reading, at random, stands below.",
    "Slow-down: the 99th percentile of a request's time to first token over what it takes alone on a monolith."
    " TBT: of the requests' own means between tokens.",
    "Controls: both switches on the monolith; all images of a request in one batch, as an engine that encodes a whole"
    " request at once; random instances and order; shortest first by true service times; routing without scheduling;"
    " targets in proportion to a request's own work instead of its kind's.",
    "Ours, beyond the paper: workers of all stages between which a request's images spread, without pools; the mesh's"
    " planner; encoder caches where a third of the pictures are asked about again (its traffic has repeats, the"
    " others' has none).",
)
