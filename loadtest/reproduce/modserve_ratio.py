"""Part 4: how 64 GPUs are best divided into text and image instances, by the share of requests with images (Fig. 18).

Every division gets the rate that is RATE_SHARE of what the monolith's 16 instances can do at that share by arithmetic.
"""

from headrace.characterize import drawing
from headrace.characterize.document import Figure, Section, Table
from headrace.report.compare import Estimate, estimate
from loadtest.reproduce.modserve_capacity import split_rps, whole_rps
from loadtest.reproduce.modserve_found import Finished, Grid
from loadtest.reproduce.modserve_paper import PAPER
from loadtest.reproduce.modserve_plan import Plan, Row, pair, told
from loadtest.reproduce.modserve_runs import Run
from loadtest.reproduce.modserve_systems import Shape
from loadtest.reproduce.modserve_traffic import Traffic

GPUS = 64
RATE_SHARE = 0.7  # [I]: the paper's load is not known


def shape(texts: int) -> Shape:
    """4 GPUs a text instance, one an image instance: 4:48, 6:40, 8:32, 10:24, 12:16."""
    return Shape(whole=GPUS // 4, text=texts, image=GPUS - 4 * texts)


def grid(plan: Plan) -> Grid:
    """(model, share, texts) -> runs; 0 texts: the monolith."""
    cells = {}
    for model in plan.models:
        for share in plan.ratio_shares:
            rate = round(RATE_SHARE * whole_rps(model, shape(4), share), 2)
            traffic, targets = Traffic(rate, plan.ratio_requests, share), plan.bases[model].targets
            for texts in (0, *plan.ratio_texts):
                system = "modserve" if texts else "monolith"
                cells[model, share, texts] = [
                    Run(model, system, traffic, seed, targets, shape(texts or 4)) for seed in plan.seeds
                ]
    return cells


def section(plan: Plan, found: Finished, cells: Grid) -> tuple[Section, dict[str, object]]:
    tables, figures, findings, data = [], [], [], {}
    for model in plan.models:
        for key, word in (("ttft_p99_s", "P99"), ("ttft_mean_s", "mean")):
            better = {
                (share, texts): _better(found.of(cells[model, share, 0]), found.of(cells[model, share, texts]), key)
                for share in plan.ratio_shares
                for texts in plan.ratio_texts
            }
            tables.append(_table(plan, model, word, better))
            data[f"{model} {word}"] = {f"{s:g} {_name(texts)}": pair(each) for (s, texts), each in better.items()}
            if word == "P99":
                findings.append(_finding(plan, model, better))
                figures.append(_chart(plan, model, better))
    notes = (
        f"How many times the monolith's time to first token is that of ModServe, on {GPUS} GPUs, at {RATE_SHARE:.0%} of"
        " what the monolith can do at that share of image requests; above 1 is better than the monolith.",
        f"The paper: {PAPER['ratio_study']}. Where we differ the table of capacity says why: with these profiles"
        " InternVL is bound by prefill (its tower was calibrated to a quarter of the time to first token), so that it"
        " wants text instances; Llama-3.2 is bound by its towers, and 16 of them hold it back only where nearly all"
        " requests have images.",
    )
    tables.append(_capacities(plan))
    done = Section(
        "ratio", "Text to image instances", "simulated", tuple(findings), notes, tuple(tables), tuple(figures)
    )
    return done, {"ratio_study": data}


def _better(monolith: list[Row], mine: list[Row], key: str) -> Estimate:
    if len(monolith) != len(mine):
        return Estimate(float("nan"))
    return estimate([other[key] / own[key] for other, own in zip(monolith, mine, strict=True)])


def _name(texts: int) -> str:
    return f"{texts}:{shape(texts).image}"


def _table(plan: Plan, model: str, word: str, better: dict[tuple[float, int], Estimate]) -> Table:
    rows = [(_name(texts), *(told(better[share, texts]) for share in plan.ratio_shares)) for texts in plan.ratio_texts]
    columns = ("Text:Image", *(f"{share:.0%} images" for share in plan.ratio_shares))
    return Table(f"{model}: {word} TTFT, monolith over ModServe", columns, tuple(rows))


def _capacities(plan: Plan) -> Table:
    rows = []
    for model in plan.models:
        for texts in plan.ratio_texts:
            cells = [
                f"{split_rps(model, shape(texts), share) / whole_rps(model, shape(4), share):.2f}"
                for share in plan.ratio_shares
            ]
            rows.append((f"{model} {_name(texts)}", *cells))
    columns = ("Text:Image", *(f"{share:.0%} images" for share in plan.ratio_shares))
    note = f"Below {RATE_SHARE:g} the slower stage is overloaded in this study."
    return Table("Raw capacity over the monolith's, by arithmetic", columns, tuple(rows), note)


def _chart(plan: Plan, model: str, better: dict[tuple[float, int], Estimate]) -> Figure:
    series = {
        _name(texts): [(share * 100, better[share, texts].mean) for share in plan.ratio_shares]
        for texts in plan.ratio_texts
    }
    y = drawing.logarithmic("P99 TTFT, monolith over ModServe")
    return drawing.lines(f"Text:Image instances, {model}", series, drawing.linear("requests with images, %", 100.0), y)


def _finding(plan: Plan, model: str, better: dict[tuple[float, int], Estimate]) -> str:
    kept = [
        texts
        for texts in plan.ratio_texts
        if sum(better[share, texts].mean > 1 for share in plan.ratio_shares) > len(plan.ratio_shares) / 2
    ]
    named = ", ".join(map(_name, kept)) or "none"
    best = max(better.values(), key=lambda each: each.mean)
    return (
        f"{model}: better than the monolith at most shares of images with {named}; up to {best.mean:.1f} × in P99 TTFT"
        f" (paper: better until 10:24, up to {'18.4' if 'llama' in model else '9.2'} ×)."
    )
