"""(c) Latency and throughput per GPU by tensor parallelism, stage by stage (ModServe, insight 5)."""

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.characterize import drawing, paper
from headrace.characterize.batching import STAGES
from headrace.characterize.cost import Shown, decode_most, decode_s, encode_s, prefill_s
from headrace.characterize.document import Section, Table, milliseconds, number
from headrace.characterize.parts import Parts

Degrees = dict[int, tuple[float, float]]  # by GPUs: seconds of one request or token, units a second and GPU

DECODE_BATCH = 32  # where throughput per GPU is compared; latency is that of one sequence
_FIG9 = "llama-3.2-11b-vision"  # the paper's text gives optima for it alone


def measured(parts: Parts, shown: Shown) -> dict[str, Degrees]:
    one = shown.input(parts)
    found: dict[str, Degrees] = {}
    if parts.encoders:
        tiles = parts.card.tiles(shown.width, shown.height)
        taken = {gpus: encode_s(tower, tiles) for gpus, tower in parts.encoders.items()}
        found["encode"] = {gpus: (took, 1 / took / gpus) for gpus, took in taken.items()}
    taken = {gpus: prefill_s(llm, [one]) for gpus, llm in parts.llms.items()}
    found["prefill"] = {gpus: (took, 1 / took / gpus) for gpus, took in taken.items()}
    found["decode"] = {}
    for gpus, llm in parts.llms.items():
        size = max(1, min(DECODE_BATCH, decode_most(llm, one)))
        found["decode"][gpus] = (decode_s(llm, 1, one), size / decode_s(llm, size, one) / gpus)
    return found


def best(of: Degrees) -> tuple[int, int]:
    """GPUs with the least latency, and with the most throughput each."""
    return min(of, key=lambda gpus: of[gpus][0]), max(of, key=lambda gpus: of[gpus][1])


def section(models: Sequence[Parts], shown: Shown) -> Section:
    found = {parts.name: measured(parts, shown) for parts in models}
    figures = []
    for stage in STAGES:
        series = {
            name: [(float(gpus), pair[1] / of[stage][best(of[stage])[1]][1] * 100) for gpus, pair in of[stage].items()]
            for name, of in found.items()
            if stage in of
        }
        if series:
            y = drawing.linear("throughput per GPU, % of the best degree's", 100.0)
            title = f"{stage.capitalize()}: what a GPU yields"
            figures.append(drawing.lines(title, series, drawing.doubling("GPUs of an instance"), y))
    return Section(
        "parallelism",
        "Tensor parallelism, stage by stage",
        "computed",
        findings=tuple(
            f"{parts.name}: latency is best with "
            + ", ".join(f"{best(of)[0]} GPUs for {stage}" for stage, of in found[parts.name].items())
            + "; a GPU yields most with "
            + ", ".join(f"{best(of)[1]} for {stage}" for stage, of in found[parts.name].items())
            + "."
            for parts in models
        ),
        notes=_notes(models, found),
        tables=_tables(found),
        figures=tuple(figures),
    )


def _tables(found: Mapping[str, Mapping[str, Degrees]]) -> tuple[Table, ...]:
    degrees = sorted({gpus for stages in found.values() for of in stages.values() for gpus in of})
    columns = ("stage", *(f"{gpus} GPU{'s' if gpus > 1 else ''}" for gpus in degrees), "best with")
    whats = (("Latency, ms", 0, milliseconds), ("Throughput per GPU, 1/s", 1, number))
    tables = []
    for title, at, cell in whats:
        rows = []
        for name, stages in found.items():
            for stage, of in stages.items():
                cells = (cell(of[gpus][at]) if gpus in of else "–" for gpus in degrees)
                rows.append((f"{name}, {stage}", *cells, f"{best(of)[at]}"))
        missing = any(len(of) < len(degrees) for stages in found.values() for of in stages.values())
        tables.append(Table(title, columns, tuple(rows), "–: no profile for so many GPUs." if missing and at else ""))
    return tuple(tables)


def data(parts: Parts, shown: Shown) -> dict[str, Any]:
    found = measured(parts, shown)
    return {
        stage: {
            "latency_s": {str(gpus): pair[0] for gpus, pair in of.items()},
            "per_gpu_rps": {str(gpus): pair[1] for gpus, pair in of.items()},
            "best_latency_gpus": best(of)[0],
            "best_per_gpu_gpus": best(of)[1],
        }
        for stage, of in found.items()
    }


def _notes(models: Sequence[Parts], found: dict[str, dict[str, Degrees]]) -> tuple[str, ...]:
    notes = [
        f"{_of_decode()} Encoders: the speed-up by GPUs is inferred, but for ViT-H's being slower on 8 than on 4 and"
        " InternViT's 1.3 times from 4 to 8, which are the paper's own (Fig. 9 [P]) and put in, not found."
    ]
    if any(parts.name == _FIG9 for parts in models):
        here = {stage: best(of)[0] for stage, of in found[_FIG9].items()}
        told = ", ".join(f"{stage} {gpus} (here {here[stage]})" for stage, gpus in paper.BEST_GPUS.items())
        unlike = [stage for stage, gpus in paper.BEST_GPUS.items() if here[stage] != gpus]
        differs = f" The profiles disagree on {', '.join(unlike)}." if unlike else ""
        notes.append(f"The paper's best degrees for {_FIG9} by latency (Fig. 9 [P]): {told}.{differs}")
    return tuple(notes)


def _of_decode() -> str:
    return f"Decode: latency of one sequence's token, throughput of {DECODE_BATCH} sequences or as many as fit."
