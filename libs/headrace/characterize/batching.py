"""(b) Latency and throughput by batch size and by tiles; which stages gain from batching (ModServe, insight 4)."""

from collections.abc import Sequence
from typing import Any

from headrace.characterize import drawing, paper
from headrace.characterize.cost import Shown, decode_most, decode_s, encode_s, prefill_s
from headrace.characterize.document import Figure, Section, Table, milliseconds, number, times
from headrace.characterize.parts import Parts

BATCHES = (1, 2, 4, 8, 16, 32)
DECODE_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TILES = (1, 2, 4, 8, 16, 32)
JUDGED = 8  # the batch whose throughput, over that of one, says whether a stage gains
GAINS, SOME = 2.0, 1.25  # times at JUDGED: what we call a gain, and some of one
STAGES = ("encode", "prefill", "decode")

Seconds = dict[int, float]  # by batch


def measured(parts: Parts, shown: Shown) -> dict[str, Seconds]:
    """Seconds of a batch by its size, of each stage that the model has; decode as far as KV caches fit."""
    one, llm = shown.input(parts), parts.llm
    found: dict[str, Seconds] = {}
    if parts.encoders:
        tiles = parts.card.tiles(shown.width, shown.height)
        found["encode"] = {size: encode_s(parts.encoder, tiles, size) for size in BATCHES}
    found["prefill"] = {size: prefill_s(llm, [one] * size) for size in BATCHES}
    most = decode_most(llm, one)
    found["decode"] = {size: decode_s(llm, size, one) for size in DECODE_BATCHES if size <= max(1, most)}
    return found


def gain(seconds: Seconds, size: int = JUDGED) -> float:
    """Throughput at a batch over that of one; of the largest batch if so many do not fit."""
    at = max(known for known in seconds if known <= size)
    return at * seconds[1] / seconds[at]


def verdict(factor: float) -> str:
    return "gains" if factor >= GAINS else "some gain" if factor >= SOME else "no gain"


def by_tiles(parts: Parts) -> Seconds:
    return {tiles: encode_s(parts.encoder, tiles) for tiles in TILES}


def section(models: Sequence[Parts], shown: Shown) -> Section:
    found = {parts.name: measured(parts, shown) for parts in models}
    tables = [_gains(models, found)]
    for stage in STAGES:
        some = {name: stages[stage] for name, stages in found.items() if stage in stages}
        if some:
            tables.append(_table(stage, some))
    sighted = [parts for parts in models if parts.encoders]
    if sighted:
        tables.append(_tiles(sighted))
    return Section(
        "batching",
        "What batching gains",
        "computed",
        findings=tuple(
            f"{parts.name}: "
            + ", ".join(f"{stage} {verdict(gain(of))} ({times(gain(of))})" for stage, of in found[parts.name].items())
            + f" at a batch of {JUDGED}."
            for parts in models
        ),
        notes=(
            f"Each request is {shown.words}; decode is an iteration of sequences that have read it. Called a gain from"
            f" {GAINS:g} times the throughput at a batch of {JUDGED} on, some from {SOME:g} times on.",
            "Encoders are linear in tiles because the paper says so (Fig. 6 [P]): that they gain nothing is put in, not"
            " found. Prefill and decode come from kernel times measured without the paper.",
            _packing(models),
        ),
        tables=tuple(tables),
        figures=_figures(models, found),
    )


def _packing(models: Sequence[Parts]) -> str:
    """Why a long prompt cannot gain."""
    sizes = sorted({parts.llm.chunk_tokens for parts in models})
    told = " or ".join(f"{size:,}" for size in sizes)
    return (
        f"An iteration prefills at most {told} tokens, and prompts that do not fit into what is left of it wait whole:"
        " two prompts of more than half of that never share one."
    )


def data(parts: Parts, shown: Shown) -> dict[str, Any]:
    found = measured(parts, shown)
    return {
        "seconds": {stage: {str(size): took for size, took in of.items()} for stage, of in found.items()},
        "gain": {stage: gain(of) for stage, of in found.items()},
        "verdict": {stage: verdict(gain(of)) for stage, of in found.items()},
        "encode_s_by_tiles": {str(tiles): took for tiles, took in by_tiles(parts).items()} if parts.encoders else {},
    }


def _gains(models: Sequence[Parts], found: dict[str, dict[str, Seconds]]) -> Table:
    rows = []
    for parts in models:
        known = paper.published(parts.name)
        told = {"encode": paper.ENCODE_GAINS, "prefill": known.prefill_gains, "decode": paper.DECODE_GAINS}
        for stage, of in found[parts.name].items():
            says = f"{told[stage]} [P]" if known.tiles and told[stage] else "–"
            rows.append((f"{parts.name}, {stage}", times(gain(of)), verdict(gain(of)), says))
    title = f"Throughput at a batch of {JUDGED} over that of one"
    return Table(title, ("stage", "gain", "here", "paper (Fig. 8)"), tuple(rows))


def _table(stage: str, some: dict[str, Seconds]) -> Table:
    """Two rows a model: seconds of the batch, and what comes out of it a second."""
    what = {"encode": "images/s", "prefill": "requests/s", "decode": "tokens/s"}[stage]
    sizes = sorted({size for of in some.values() for size in of})
    rows = []
    for name, of in some.items():
        rows.append((f"{name}, ms", *(milliseconds(of[size]) if size in of else "–" for size in sizes)))
        rows.append((f"{name}, {what}", *(number(size / of[size]) if size in of else "–" for size in sizes)))
    note = "–: so many KV caches do not fit." if any(len(of) < len(sizes) for of in some.values()) else ""
    return Table(f"{stage.capitalize()} by batch size", ("batch", *map(str, sizes)), tuple(rows), note)


def _tiles(models: Sequence[Parts]) -> Table:
    rows = tuple((parts.name, *(milliseconds(took) for took in by_tiles(parts).values())) for parts in models)
    return Table("Encode by tiles, ms", ("tiles", *map(str, TILES)), rows, "The tower alone.")


def _figures(models: Sequence[Parts], found: dict[str, dict[str, Seconds]]) -> tuple[Figure, ...]:
    """Of the tower by tiles: its gain by batch would be a flat line."""
    figures = []
    for stage in ("prefill", "decode"):
        series = {name: [(float(size), gain(of[stage], size)) for size in of[stage]] for name, of in found.items()}
        label = "throughput over a batch of one, times"
        x, y = drawing.doubling("batch"), drawing.logarithmic(label) if stage == "decode" else drawing.linear(label)
        figures.append(drawing.lines(f"{stage.capitalize()}: gain by batch", series, x, y))
    sighted = [parts for parts in models if parts.encoders]
    if sighted:
        tiles = {parts.name: [(float(at), took) for at, took in by_tiles(parts).items()] for parts in sighted}
        x, y = drawing.doubling("tiles"), drawing.logarithmic("the tower, s")
        figures.append(drawing.lines("Encode by tiles", tiles, x, y))
    return tuple(figures)
