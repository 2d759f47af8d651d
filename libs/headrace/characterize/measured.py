"""What was measured on a mesh as a Document."""

from collections.abc import Sequence
from typing import Any

from headrace.characterize import drawing
from headrace.characterize.asking import Answer, median
from headrace.characterize.document import Document, Section, Table, milliseconds, number, percent, times
from headrace.characterize.live import TEXT_BUSY, Measured, known, ttft_s
from headrace.characterize.spans import STAGES

_WORDS = {
    "mesh": "mesh",
    "queue": "queue",
    "media": "to encoders",
    "preprocess": "preprocess",
    "encode": "encode",
    "transfer": "transfer",
    "prefill": "prefill",
}


def document(found: Measured, workers: Sequence[str], layout: str) -> Document:
    """workers: "decode-0 (decode)" ...; layout: whether encoders stand apart, in words."""
    sections = [_breakdown(found), _many(found)]
    if found.beside:
        sections.append(_beside(found, layout))
    failed = f" Requests that failed: {'; '.join(found.failures)}." if found.failures else ""
    blind = "" if "image" in found.modalities else " It takes no images: what needs them is left out."
    return Document(
        f"{found.model}, measured",
        f"On a running mesh of {', '.join(workers)}: {layout}.{blind}{failed}",
        tuple(sections),
        data={"origin": "measured", "workers": list(workers), "layout": layout, **data(found)},
    )


def stage_medians(answers: Sequence[Answer]) -> dict[str, float]:
    """Seconds by stage of the answer whose time to first token is the middle one, so that they add up."""
    ordered = sorted(known(answers), key=lambda answer: answer.ttft_s)
    return ordered[len(ordered) // 2].stages if ordered else dict.fromkeys(STAGES, float("nan"))


def data(found: Measured) -> dict[str, Any]:
    return {
        "model": found.model,
        "alone": {
            kind: {"ttft_s": ttft_s(answers), "stages_s": stage_medians(answers), "requests": len(answers)}
            for kind, answers in found.alone.items()
        },
        "at_once": {
            kind: {
                str(callers): {
                    "ttft_p50_s": ttft_s(each.answers),
                    "whole_p50_s": median([answer.end_s for answer in known(each.answers)]),
                    "rps": each.rps,
                    "tokens_per_s": each.tokens_per_s,
                }
                for callers, each in by.items()
            }
            for kind, by in found.many.items()
        },
        "beside": [
            {
                "image_rps": rate,
                "text_rps": found.text_rps,
                "text_ttft_p50_s": ttft_s(each.text),
                "text_ttft_p99_s": ttft_s(each.text, 0.99),
                "image_ttft_p50_s": ttft_s(each.images),
                "text_requests": len(each.text),
                "image_requests": len(each.images),
            }
            for rate, each in found.beside.items()
        ],
        "failures": list(found.failures),
    }


def _breakdown(found: Measured) -> Section:
    medians = {kind: stage_medians(answers) for kind, answers in found.alone.items()}
    used = [stage for stage in STAGES if any(of[stage] > 0 for of in medians.values())]
    order = [*[stage for stage in used if stage != "mesh"], "mesh"]
    rows = []
    for kind, of in medians.items():
        tokens = max((answer.media_tokens for answer in found.alone[kind]), default=0)
        total = sum(of.values())
        rows.append((kind, f"{tokens:,}", *(milliseconds(of[stage]) for stage in order), milliseconds(total)))
    shares = [(kind, [of[stage] / sum(of.values()) for stage in order]) for kind, of in medians.items()]
    ends = [f"{milliseconds(sum(of.values()))} ms" for of in medians.values()]
    findings = []
    for kind, of in medians.items():
        most = max(order, key=lambda stage, of=of: of[stage])  # type: ignore[misc]
        share = of[most] / sum(of.values())
        findings.append(f"{kind}: {_WORDS[most]} takes {percent(share)} of {milliseconds(sum(of.values()))} ms.")
    columns = ("request", "image tokens", *(_WORDS[stage] for stage in order), "TTFT")
    title = "Share of the time to first token"
    return Section(
        "stages",
        "Where the time to first token goes",
        "measured",
        findings=tuple(findings),
        notes=(
            f"The middle one of {found.plan.repeats} requests of about {found.plan.words} words, one at a time, from"
            " the timeline in its end. Each instant belongs to the stage nearest to the first token that was at work;"
            " what no stage claims is the mesh's own: gateway, messages, the way to the client. To encoders: waiting"
            " for them, and the messages there and back.",
        ),
        tables=(Table("One request, ms", columns, tuple(rows)),),
        figures=(drawing.stacked(title, [_WORDS[stage] for stage in order], shares, ends),),
    )


def _many(found: Measured) -> Section:
    rows = []
    for kind, by in found.many.items():
        first = by[min(by)].rps
        for callers, each in by.items():
            whole = median([answer.end_s for answer in known(each.answers)])
            cells = (milliseconds(ttft_s(each.answers)), milliseconds(whole), number(each.rps))
            rows.append((f"{kind}, {callers}", *cells, number(each.tokens_per_s), times(each.rps / first)))
    series = {kind: [(float(callers), each.rps) for callers, each in by.items()] for kind, by in found.many.items()}
    waits = {
        kind: [(float(callers), ttft_s(each.answers)) for callers, each in by.items()]
        for kind, by in found.many.items()
    }
    across = drawing.doubling("requests at once")
    return Section(
        "batching",
        "What asking at once gains",
        "measured",
        findings=tuple(
            f"{kind}: {max(by)} at once are answered at {times(by[max(by)].rps / by[min(by)].rps)} the rate of one."
            for kind, by in found.many.items()
        ),
        notes=(f"Each caller asks again when it has its answer of {found.plan.max_tokens} tokens.",),
        tables=(
            Table(
                "By requests at once",
                ("request, at once", "TTFT p50, ms", "whole p50, ms", "requests/s", "tokens/s", "rate over one's"),
                tuple(rows),
            ),
        ),
        figures=(
            drawing.lines("Requests answered", series, across, drawing.linear("requests/s")),
            drawing.lines("Time to first token, median", waits, across, drawing.linear("TTFT, s")),
        ),
    )


def _beside(found: Measured, layout: str) -> Section:
    rows, points = [], dict[str, list[tuple[float, float]]](p50=[], p99=[])
    for rate, each in found.beside.items():
        middle, most = ttft_s(each.text), ttft_s(each.text, 0.99)
        points["p50"].append((rate, middle))
        points["p99"].append((rate, most))
        asked = f"{len(each.text)} + {len(each.images)}"
        rows.append((number(rate), milliseconds(middle), milliseconds(most), milliseconds(ttft_s(each.images)), asked))
    rates = list(found.beside)
    alone, busiest = ttft_s(found.beside[rates[0]].text), ttft_s(found.beside[rates[-1]].text)
    texts, pictures = len(found.beside[rates[-1]].text), len(found.beside[rates[-1]].images)
    return Section(
        "interference",
        "Image traffic beside text",
        "measured",
        findings=(
            f"With {number(rates[-1])} image requests/s text-only TTFT is {times(busiest / alone)} that of text alone"
            f" (medians of {texts} requests beside {pictures}; {layout}).",
        ),
        notes=(
            f"Poisson arrivals for {found.plan.seconds:g} s a row, half of them forth and half back through the rows;"
            f" {number(found.text_rps)} text requests/s in each,"
            f" which is {percent(TEXT_BUSY)} of what was answered at once; image requests up to"
            f" {percent(max(found.plan.busy))} of theirs, of {found.plan.sides_px[0]} px. So few requests make the p99"
            " their slowest.",
        ),
        tables=(
            Table(
                "Text-only requests while image requests run",
                ("image requests/s", "text p50, ms", "text p99, ms", "image p50, ms", "asked"),
                tuple(rows),
            ),
        ),
        figures=(
            drawing.lines("Text-only TTFT", points, drawing.linear("image requests/s"), drawing.linear("TTFT, s")),
        ),
    )
