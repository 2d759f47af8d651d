"""(e) What image traffic does to text-only requests: on instances that do all stages, and with the encoders apart.

The simulator answers, on as many GPUs either way: twice the model's tensor parallelism, as in ModServe's Fig. 1.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from headrace.characterize import drawing
from headrace.characterize.cost import Input, Shown, decode_s, encode_s, prefill_s
from headrace.characterize.document import Section, Table, milliseconds, number, percent, times
from headrace.characterize.parts import Parts
from headrace.sim.result import Requests, percentile
from headrace.sim.sweep import Outcome, sweep
from headrace.workload import fitted, scenario, shape
from headrace.workload.arrival import Arrival, Part
from headrace.workload.content import Text
from headrace.workload.multimodal import Stream
from headrace.workload.processes import Modulated
from headrace.workload.rates import Floats, constant

SHARES = (0.0, 0.1, 0.3, 0.5)  # of requests that have an image
LAYOUTS = ("together", "apart")
BUSY = 0.6  # of the layout that the even mix loads most: no layout is overloaded
TEXTS, QUICK_TEXTS = 1000, 150  # text requests of a run, about
DRAIN_S = 120.0
POLICY = "fcfs"
_DECODE_BATCH = 32  # at whose pace a token is reckoned for the load

Cell = Mapping[str, float]  # figures of one run


@dataclass(frozen=True, slots=True)
class Mix:
    """One run: the same text requests, and image requests on top until they are `share` of all."""

    parts: Parts
    shown: Shown
    layout: str
    share: float
    text_rps: float
    duration_s: float
    seed: int

    def __str__(self) -> str:
        return f"{self.parts.name}, {self.layout}, {self.share:.0%} with an image"

    def scenario(self) -> scenario.Scenario:
        raw = {
            "about": str(self),
            "duration_s": self.duration_s,
            "drain_s": DRAIN_S,
            "model": self.parts.name,
            "seed": self.seed,
            "workload": {"kind": "generated", "generator": "text"},  # its arrivals are made here
            "fleet": {"link": self.parts.link_name, "pools": pools(self.parts, self.layout)},
        }
        return scenario.parse(raw, Path("interference.toml"))

    def arrivals(self) -> Iterator[Arrival]:
        texts, images, classes = np.random.default_rng(self.seed).spawn(3)
        streams = [Stream(Modulated(constant(self.text_rps)), Text()).arrivals(texts, self.duration_s)]
        if self.share:
            image_rps = self.text_rps * self.share / (1 - self.share)
            content = OneImage(self.shown)
            streams.append(Stream(Modulated(constant(image_rps)), content).arrivals(images, self.duration_s))
        return shape.classes(shape.merge(*streams), {"interactive": 1.0}, classes)


@dataclass(frozen=True)
class OneImage:
    shown: Shown

    def fill(self, rng: Generator, times: Floats) -> Iterator[Arrival]:
        parts = (Part("image", self.shown.width, self.shown.height),)
        answers = fitted.LMM_OUTPUT_IMAGE.counts(rng, len(times)).tolist()
        for at_s, answer in zip(times.tolist(), answers, strict=True):
            yield Arrival(at_s, self.shown.text_tokens, answer, parts)


def pools(parts: Parts, layout: str) -> list[dict[str, Any]]:
    """Of 2 x the tensor parallelism GPUs: two instances, or one LLM and encoders on the other half."""
    degree, small = parts.degree, min(parts.encoders)
    own = {"profile": f"{parts.llm_file}/tp{degree}"} if parts.llm_file else {}
    llm = {"gpu": parts.gpu, "tp": degree, **own}
    if layout == "together":
        return [{"name": "all", "stages": ["encode", "prefill", "decode"], "count": 2, **llm}]
    encoders = {"name": "encode", "stages": ["encode"], "gpu": parts.gpu, "tp": small, "count": degree // small}
    return [encoders, {"name": "llm", "stages": ["prefill", "decode"], "count": 1, **llm}]


def text_rate(parts: Parts, shown: Shown) -> float:
    """Text requests a second, so that with as many image requests beside them no pool is busier than BUSY."""
    text = Input(round(_mean(fitted.LMM_CONTEXT_TEXT.at)))
    image, llm, card = shown.input(parts), parts.llm, parts.card
    answers = _mean(fitted.LMM_OUTPUT_TEXT.at) + _mean(fitted.LMM_OUTPUT_IMAGE.at)
    token_s = decode_s(llm, _DECODE_BATCH, text) / _DECODE_BATCH
    pair_s = prefill_s(llm, [text]) + prefill_s(llm, [image]) + answers * token_s
    tiles, pixels = card.tiles(shown.width, shown.height), shown.width * shown.height

    def media_s(degree: int) -> float:
        tower = parts.encoders[degree]
        return tower.cost.preprocess_s(pixels) + encode_s(tower, tiles)

    small = min(parts.encoders)
    together_s = (media_s(parts.degree) + pair_s) / 2
    return BUSY / max(together_s, pair_s, media_s(small) / (parts.degree // small))


def _mean(at: Callable[[Floats], Floats]) -> float:
    return float(at(np.linspace(0.0005, 0.9995, 1000)).mean())


def run(mix: Mix) -> Cell:
    from headrace.sim.run import simulate  # the world: where a run is made, in a process of its own

    return figures(simulate(mix.scenario(), POLICY, mix.seed, arrivals=mix.arrivals()).requests)


def figures(requests: Requests) -> Cell:
    """Seconds to the first token of requests with and without an image, and how many finished."""
    text, ttft_s = requests.media_parts == 0, requests.ttft_s
    return {
        "text_requests": float(text.sum()),
        "image_requests": float((~text).sum()),
        "finished": float(requests.finished.sum()),
        "text_ttft_p50_s": percentile(ttft_s[text], 0.5),
        "text_ttft_p99_s": percentile(ttft_s[text], 0.99),
        "image_ttft_p50_s": percentile(ttft_s[~text], 0.5),
        "image_ttft_p99_s": percentile(ttft_s[~text], 0.99),
    }


@dataclass(frozen=True, slots=True)
class Found:
    """Of one model: a cell for each layout and share."""

    parts: Parts
    text_rps: float
    cells: Mapping[tuple[str, float], Cell]

    def at(self, layout: str, share: float, key: str) -> float:
        return self.cells[layout, share][key]


def plan(models: Iterable[Parts], shown: Shown, seed: int, *, quick: bool) -> list[Mix]:
    """The runs of the models that take images and whose encoder the simulator knows."""
    mixes = []
    for parts in models:
        if parts.encoders and not parts.tower_file:
            rps = text_rate(parts, shown)
            duration_s = (QUICK_TEXTS if quick else TEXTS) / rps
            mixes += [Mix(parts, shown, name, share, rps, duration_s, seed) for name in LAYOUTS for share in SHARES]
    return mixes


def carry_out(
    mixes: Sequence[Mix],
    seen: Callable[[Outcome[Mix, Cell]], None] | None = None,
    going: Callable[[float], None] | None = None,
) -> list[Found]:
    """Raises RuntimeError: a run failed, which is a bug or a machine without room."""
    cells: dict[str, dict[tuple[str, float], Cell]] = {}
    for outcome in sweep(mixes, run, seen=seen, going=going):
        if outcome.value is None:
            raise RuntimeError(f"{outcome.job}: {outcome.error}")
        cells.setdefault(outcome.job.parts.name, {})[outcome.job.layout, outcome.job.share] = outcome.value
    first = {mix.parts.name: mix for mix in mixes}
    return [Found(first[name].parts, first[name].text_rps, of) for name, of in cells.items()]


def section(found: Sequence[Found], shown: Shown, seed: int) -> Section:
    return Section(
        "interference",
        "Image traffic beside text",
        "simulated",
        findings=tuple(_finding(each) for each in found),
        notes=(
            "Together: two instances that do all stages. Apart: one instance for prefill and decode, and as many GPUs"
            " of encoders. The same text requests in every row (Poisson; lengths of the Azure LMM trace's text"
            f" requests), image requests of {shown.words} on top until they are the share. Order {POLICY}, seed"
            f" {seed}; a p99 of so few requests is a rough figure.",
            f"The text rate is what loads the busiest pool of either layout to {percent(BUSY)} when every second"
            " request has an image, reckoned from the profiles. On the instances together a text request meets twice"
            " the LLM GPUs; that is what it has to lose.",
        ),
        tables=tuple(_table(each) for each in found),
        figures=tuple(
            drawing.lines(
                f"{each.parts.name}: text-only TTFT",
                {
                    f"{layout}, {name}": [(share * 100, each.at(layout, share, key)) for share in SHARES]
                    for layout in LAYOUTS
                    for name, key in (("p50", "text_ttft_p50_s"), ("p99", "text_ttft_p99_s"))
                },
                drawing.linear("requests with an image, %", 50.0),
                drawing.logarithmic("TTFT, s"),
            )
            for each in found
        ),
    )


def data(found: Found) -> dict[str, Any]:
    return {
        "text_rps": found.text_rps,
        "gpus": 2 * found.parts.degree,
        **{layout: {f"{share:g}": dict(found.cells[layout, share]) for share in SHARES} for layout in LAYOUTS},
    }


def _table(found: Found) -> Table:
    keys = ("text_ttft_p50_s", "text_ttft_p99_s", "image_ttft_p50_s", "image_ttft_p99_s")
    rows = []
    for layout in LAYOUTS:
        for share in SHARES:
            cell = found.cells[layout, share]
            total = cell["text_requests"] + cell["image_requests"]
            ended = f"{cell['finished']:.0f} of {total:.0f}"
            rows.append((f"{layout}, {percent(share)}", *(milliseconds(cell[key]) for key in keys), ended))
    return Table(
        f"{found.parts.name}, {2 * found.parts.degree} GPUs, {number(found.text_rps)} text requests/s",
        ("layout, image share", "text p50, ms", "text p99, ms", "image p50, ms", "image p99, ms", "finished"),
        tuple(rows),
    )


def _better(found: Found) -> str:
    """By the p99 of text where most requests have an image."""
    together, apart = (found.at(layout, SHARES[-1], "text_ttft_p99_s") for layout in LAYOUTS)
    return "on as many GPUs text is better off " + ("with encoders apart" if apart < together else "together")


def _finding(found: Found) -> str:
    most, key = SHARES[-1], "text_ttft_p99_s"
    grown = {layout: found.at(layout, most, key) / found.at(layout, 0.0, key) for layout in LAYOUTS}
    return (
        f"{found.parts.name}: with {percent(most)} image requests text-only p99 TTFT is {times(grown['together'])} that"
        f" of text alone on instances that do all stages ({milliseconds(found.at('together', most, key))} ms), and"
        f" {times(grown['apart'])} with encoders apart ({milliseconds(found.at('apart', most, key))} ms):"
        f" {_better(found)}."
    )
