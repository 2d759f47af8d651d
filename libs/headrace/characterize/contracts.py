"""(d) Prefill where images join the sequence and where they stand beside it; the sweep of ModServe's Fig. 12."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.characterize import drawing, paper
from headrace.characterize.cost import Input, Shown, encode_s, prefill_s
from headrace.characterize.document import Section, Table, milliseconds, number, times
from headrace.characterize.parts import Parts
from headrace.report.chart import COLOURS

TOTALS = (1024, 2048, 4096, 8192, 16_384)  # text and media tokens together
_JOINED = ", as if joined"


def prefill_at(parts: Parts, tokens: int, text_tokens: int, *, joined: bool = False) -> float:
    """Seconds for so many tokens, all but text_tokens an image's. joined: as if the image joined the sequence."""
    crosses = parts.crosses and not joined
    return prefill_s(parts.llm, [Input(text_tokens, tokens - text_tokens, 1, crosses)])


@dataclass(frozen=True, slots=True)
class Mixed:
    """A request of FIG12_TOKENS tokens, so many images among them."""

    images: int
    encode_s: float  # preprocessing included
    prefill_s: float

    @property
    def ttft_s(self) -> float:
        return self.encode_s + self.prefill_s


def fig12(parts: Parts) -> list[Mixed]:
    """0 to 10 images of 1601 tokens, each cut to as many tiles as that takes, the rest text."""
    tiling = parts.card.tiling
    assert tiling is not None, "a model that takes images"
    found = []
    for images in paper.FIG12_IMAGES:
        media = images * paper.FIG12_IMAGE_TOKENS
        tiles = round(media / tiling.tokens_per_tile)
        reading_s = images * parts.encoder.cost.preprocess_s(tiling.tile_px**2)
        one = Input(paper.FIG12_TOKENS - media, media, images, parts.crosses)
        found.append(Mixed(images, reading_s + encode_s(parts.encoder, tiles), prefill_s(parts.llm, [one])))
    return found


def growth(found: Sequence[Mixed]) -> float:
    return found[-1].ttft_s / found[0].ttft_s


def section(models: Sequence[Parts], shown: Shown) -> Section:
    sighted = [parts for parts in models if parts.encoders]
    sweeps = {parts.name: fig12(parts) for parts in sighted}
    return Section(
        "contracts",
        "Prefill: images in the sequence, and beside it",
        "computed",
        findings=(*_ratios(models, shown), *_growths(sighted, sweeps)),
        notes=(
            "As if joined: the same LLM's seconds for as many tokens in its sequence; its cross-attention layers then"
            " have nothing to look at.",
            f"Fig. 12: requests of {paper.FIG12_TOKENS:,} tokens, 0 to 10 images of {paper.FIG12_IMAGE_TOKENS:,}; TTFT"
            f" here is preprocessing, encoding and prefill. The paper tells of Llama-3.2-11B's {paper.FIG12_GROWTH}"
            " times from text alone to images alone [P]; ViT-H's seconds a tile were inferred from just that: agreement"
            " of the Llama models is no evidence.",
        ),
        tables=(_by_total(models, shown), *([_fig12(sweeps)] if sweeps else ())),
        figures=(
            drawing.lines(
                "Prefill by tokens of the request",
                _drawn(_rows(models, shown)),
                drawing.logarithmic("text and image tokens"),
                drawing.logarithmic("prefill, s"),
            ),
            *(
                drawing.lines(
                    title,
                    {name: [(float(each.images), getattr(each, what)) for each in of] for name, of in sweeps.items()},
                    drawing.linear("images among the tokens", 10.0),
                    drawing.linear(label),
                )
                for what, title, label in (
                    ("ttft_s", f"TTFT of {paper.FIG12_TOKENS:,} tokens", "TTFT, s"),
                    ("prefill_s", f"Prefill of {paper.FIG12_TOKENS:,} tokens", "prefill, s"),
                )
                if sweeps
            ),
        ),
    )


def data(parts: Parts, shown: Shown) -> dict[str, Any]:
    out: dict[str, Any] = {
        "contract": parts.card.contract,
        "prefill_s_by_tokens": {str(total): prefill_at(parts, total, shown.text_tokens) for total in TOTALS},
    }
    if parts.crosses:
        joined = {str(total): prefill_at(parts, total, shown.text_tokens, joined=True) for total in TOTALS}
        out["as_if_joined_s_by_tokens"] = joined
    if parts.encoders:
        found = fig12(parts)
        out["fig12"] = {
            "ttft_s": [each.ttft_s for each in found],
            "prefill_s": [each.prefill_s for each in found],
            "growth": growth(found),
        }
    return out


def _rows(models: Sequence[Parts], shown: Shown) -> dict[str, dict[int, float]]:
    rows = {}
    for parts in models:
        kind = "cross-attention" if parts.crosses else "decoder-only"
        rows[f"{parts.name}, {kind}"] = {total: prefill_at(parts, total, shown.text_tokens) for total in TOTALS}
        if parts.crosses:
            joined = {total: prefill_at(parts, total, shown.text_tokens, joined=True) for total in TOTALS}
            rows[f"{parts.name}{_JOINED}"] = joined
    return rows


def _drawn(rows: dict[str, dict[int, float]]) -> dict[str, drawing.Points]:
    """As many lines as there are colours: what is only supposed goes first."""
    real = {name: by for name, by in rows.items() if not name.endswith(_JOINED)}
    some = rows if len(rows) <= len(COLOURS) else real
    return {name: [(float(total), by[total]) for total in TOTALS] for name, by in some.items()}


def _by_total(models: Sequence[Parts], shown: Shown) -> Table:
    rows = tuple((name, *(milliseconds(by[total]) for total in TOTALS)) for name, by in _rows(models, shown).items())
    title = f"Prefill of {shown.text_tokens} text tokens and an image, together so many tokens, ms"
    return Table(title, ("model", *(f"{total:,}" for total in TOTALS)), rows)


def _fig12(sweeps: dict[str, list[Mixed]]) -> Table:
    rows = tuple((name, *(number(each.ttft_s) for each in of)) for name, of in sweeps.items())
    title = f"TTFT of {paper.FIG12_TOKENS:,} tokens by the images among them, s (Fig. 12)"
    return Table(title, ("images", *map(str, paper.FIG12_IMAGES)), rows)


def _ratios(models: Sequence[Parts], shown: Shown) -> list[str]:
    by_name, said = {parts.name: parts for parts in models}, []
    for parts in models:
        if parts.crosses:
            tokens = shown.input(parts).media_tokens + shown.text_tokens
            here = prefill_at(parts, tokens, shown.text_tokens)
            factor = prefill_at(parts, tokens, shown.text_tokens, joined=True) / here
            said.append(f"{parts.name}: {tokens:,} tokens would take {times(factor)} as long in the sequence.")
    for cross, decoder in paper.SAME_SIZE:
        if cross in by_name and decoder in by_name:
            tokens = shown.input(by_name[cross]).media_tokens + shown.text_tokens
            two = [prefill_at(by_name[name], tokens, shown.text_tokens) for name in (cross, decoder)]
            said.append(
                f"{decoder} takes {times(two[1] / two[0])} as long as {cross} for {tokens:,} tokens; the paper says"
                f" about {paper.PREFILL_RATIO:g} times for models of one size [P]. No profile was calibrated on that."
            )
    return said


def _growths(sighted: Sequence[Parts], sweeps: dict[str, list[Mixed]]) -> list[str]:
    said = []
    for parts in sighted:
        of = sweeps[parts.name]
        prefill = of[-1].prefill_s / of[0].prefill_s
        said.append(
            f"{parts.name}: with ten images instead of text alone, {paper.FIG12_TOKENS:,} tokens take"
            f" {times(growth(of))} as long to the first token, {times(prefill)} in prefill."
        )
    return said
