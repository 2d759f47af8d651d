"""(a) Which stages the time to the first token goes to, of one request that meets nobody."""

from collections.abc import Sequence
from typing import Any

from headrace.characterize import drawing, paper
from headrace.characterize.cost import Shown, stages
from headrace.characterize.document import Section, Table, milliseconds, percent
from headrace.characterize.parts import Parts

STAGES = ("preprocess", "encode", "transfer", "prefill")
_COLUMNS = ("model", "GPUs", "image tokens", *STAGES, "TTFT")


def section(models: Sequence[Parts], shown: Shown) -> Section:
    found = [(parts, stages(parts, shown)) for parts in models]
    rows = tuple(
        (
            parts.name,
            f"{parts.degree}",
            f"{shown.input(parts).media_tokens:,}",
            *(milliseconds(each) for each in (of.preprocess_s, of.encode_s, of.transfer_s, of.prefill_s)),
            milliseconds(of.ttft_s),
        )
        for parts, of in found
    )
    shares = Table(
        "Encoding's share of the time to first token, beside the paper's (Fig. 5 [P])",
        ("model", "here, on one instance", "paper", "what agreement would mean"),
        tuple(
            (parts.name, percent(of.encode_share_together), _published(parts), _worth(parts, shown))
            for parts, of in found
            if parts.encoders
        ),
        "The paper's instance does all stages, so nothing is transferred there, nor in the first column.",
    )
    figure = drawing.stacked(
        "Share of the time to first token",
        STAGES,
        [(parts.name, of.shares) for parts, of in found],
        [f"{milliseconds(of.ttft_s)} ms" for _, of in found],
    )
    return Section(
        "stages",
        "Where the time to first token goes",
        "computed",
        findings=tuple(
            f"{parts.name}: {STAGES[of.shares.index(max(of.shares))]} takes {percent(max(of.shares))} of"
            f" {milliseconds(of.ttft_s)} ms."
            for parts, of in found
        ),
        notes=(
            f"{shown.words}, no queue, encoder and LLM on as many GPUs each. Transfer: the embedding over"
            f" {models[0].link_name}, where the encoder stands apart (the"
            f" paper: {milliseconds(paper.TRANSFER_P99_S)} ms at p99 over InfiniBand, Fig. 20 [P]).",
        ),
        tables=(Table("One request, ms", _COLUMNS, rows), *([shares] if shares.rows else ())),
        figures=(figure,),
    )


def data(parts: Parts, shown: Shown) -> dict[str, Any]:
    of, known = stages(parts, shown), paper.published(parts.name)
    return {
        "gpus": parts.degree,
        "text_tokens": shown.text_tokens,
        "image_tokens": shown.input(parts).media_tokens,
        "tiles": parts.card.tiles(shown.width, shown.height) if parts.encoders else 0,
        "seconds": dict(zip(STAGES, (of.preprocess_s, of.encode_s, of.transfer_s, of.prefill_s), strict=True)),
        "shares": dict(zip(STAGES, of.shares, strict=True)),
        "ttft_s": of.ttft_s,
        "encode_share_together": of.encode_share_together,
        "paper_encode_share": known.encode_share or None,
        "calibrated_on_it": parts.calibrated,
        "source": {"llm": parts.llm.source, "encoder": parts.encoder.source if parts.encoders else ""},
    }


def _published(parts: Parts) -> str:
    share = paper.published(parts.name).encode_share
    return f"{percent(share)} [P]" if share else "not told"


def _worth(parts: Parts, shown: Shown) -> str:
    if parts.calibrated:
        same = shown == Shown() and parts.gpu == "a100" and parts.degree == parts.card.tensor_parallel
        return "nothing: calibrated on it" if same else "nothing: calibrated on it for Table 1's request and GPUs"
    return "evidence" if paper.published(parts.name).encode_share else "nothing to agree with"
