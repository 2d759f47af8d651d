"""Workloads in an open loop, where requests come on a clock of their own: generated ones and recorded ones.

A workload is one source of them or several streams, each for a model and class of its own. Thin glue: the tables of a
scenario become generators, traces and shapes of this package, each drawing from a random generator of its own, so that
changing one leaves what the others draw as it was.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.random import Generator

from headrace.core.slo import PRIORITY_LEAST, PRIORITY_MOST
from headrace.workload import fitted, shape
from headrace.workload.arrival import Arrival
from headrace.workload.multimodal import Multimodal, TextOnly
from headrace.workload.quantiles import Quantiles
from headrace.workload.repeats import Repeats
from headrace.workload.tables import (
    Bound,
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    ScenarioError,
    Share,
    build,
    build_kind,
    only_known,
)
from headrace.workload.traces import check_format, load

Priority = Annotated[int, Bound(least=PRIORITY_LEAST, most=PRIORITY_MOST)]

GENERATORS: Mapping[str, type[Multimodal | TextOnly]] = {"multimodal": Multimodal, "text": TextOnly}
# Distributions of token counts that a scenario may name.
LENGTHS: Mapping[str, Quantiles] = {
    "azure-lmm-text-input": fitted.LMM_CONTEXT_TEXT,
    "azure-lmm-text-output": fitted.LMM_OUTPUT_TEXT,
    "azure-lmm-image-output": fitted.LMM_OUTPUT_IMAGE,
    "azure-conv-input": fitted.CONV_INPUT,
    "azure-conv-output": fitted.CONV_OUTPUT,
    "azure-code-input": fitted.CODE_INPUT,
    "azure-code-output": fitted.CODE_OUTPUT,
    "sharegpt-input": fitted.SHAREGPT_INPUT,
    "sharegpt-output": fitted.SHAREGPT_OUTPUT,
}
_OWN_RPS = {"azure-conv": fitted.CONV_RPS, "azure-code": fitted.CODE_RPS, "sharegpt": 1.0}


@dataclass(frozen=True, slots=True)
class Burst:
    """A while of more requests, on top of the others: Poisson, at a rate that begins and ends at once."""

    at_s: NotNegative
    seconds: Positive
    rate_rps: Positive
    image_share: Share = 1.0  # of the added requests

    def arrivals(self, rng: Generator) -> Iterator[Arrival]:
        more = Multimodal(rate_rps=self.rate_rps, image_share=self.image_share, profile="flat", bursty=False)
        for arrival in more.arrivals(rng, self.seconds):
            yield replace(arrival, at_s=self.at_s + arrival.at_s)


@dataclass(frozen=True, slots=True)
class Clip:
    """What is longer is cut to so much; 0 leaves it."""

    input_tokens: CountOrNone = 0
    output_tokens: CountOrNone = 0
    parts: CountOrNone = 0  # images and other media of a request


@dataclass(frozen=True, slots=True)
class Generated:
    """Requests drawn from a generator of headrace.workload.multimodal, whose fields stand in the same table."""

    source: Multimodal | TextOnly
    bursts: tuple[Burst, ...] = ()
    input_tokens: str | Quantiles = ""  # a name of LENGTHS or {p, x}, instead of what the generator draws
    output_tokens: str | Quantiles = ""
    clip: Clip = field(default_factory=Clip)
    repeats: Repeats = field(default_factory=Repeats)  # media that several requests ask about
    allowance: float = 1.0  # a client's max_tokens are so many times its answer's

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens"):
            said = getattr(self, name)
            if isinstance(said, str) and said and said not in LENGTHS:
                raise ValueError(f"{name}: there are no lengths {said!r}; allowed: {', '.join(LENGTHS)}, or p and x")
        if self.allowance < 1:
            raise ValueError(f"allowance: must be at least 1, is {self.allowance:g}")

    def scaled(self, factor: float) -> "Generated":
        source = self.source
        own_rps = source.rate_rps or (_OWN_RPS[source.like] if isinstance(source, TextOnly) else 0.0)
        bursts = tuple(replace(burst, rate_rps=burst.rate_rps * factor) for burst in self.bursts)
        return replace(self, source=replace(source, rate_rps=own_rps * factor), bursts=bursts)

    def arrivals(self, rng: Generator, duration_s: float) -> Iterator[Arrival]:
        base, lengths, *more, again = rng.spawn(3 + len(self.bursts))
        bursts = [burst.arrivals(own) for burst, own in zip(self.bursts, more, strict=True)]
        together = shape.window(shape.merge(self.source.arrivals(base, duration_s), *bursts), 0.0, duration_s)
        told = _lengths(together, _quantiles(self.input_tokens), _quantiles(self.output_tokens), lengths)
        cut = shape.clip(told, self.clip.input_tokens, self.clip.output_tokens, self.clip.parts)
        asked = self.repeats.applied(cut, again)
        return shape.max_tokens(asked, "factor", self.allowance) if self.allowance > 1 else asked


def read_generated(raw: Mapping[str, Any], where: str) -> Generated:
    """From the keys of Generated and those of the generator that `generator` names. Raises ScenarioError."""
    kind = raw.get("generator", "multimodal")
    if not isinstance(kind, str) or kind not in GENERATORS:
        raise ScenarioError(f"{where} generator: cannot be {kind!r}; allowed: {', '.join(GENERATORS)}")
    shared = [entry.name for entry in fields(Generated) if entry.name != "source"]
    own = [entry.name for entry in fields(GENERATORS[kind])]
    only_known(raw, ("generator", *own, *shared), where)
    source = build(GENERATORS[kind], {key: value for key, value in raw.items() if key in own}, where)
    return build(Generated, {key: value for key, value in raw.items() if key in shared}, where, source=source)


@dataclass(frozen=True, slots=True)
class Traced:
    """Requests of a recorded trace."""

    file: str
    format: str  # a name of headrace.workload.traces
    options: Mapping[str, Any] = field(default_factory=dict)  # of the format's loader
    scale: Positive = 1.0  # the rate times this; hours keep their length
    compress: Positive = 1.0  # time runs so many times as fast
    window_s: tuple[NotNegative, NotNegative] | None = None  # of the trace's own time: from, to
    limit: Count | None = None  # requests at most
    clip: Clip = field(default_factory=Clip)

    def __post_init__(self) -> None:
        check_format(self.format, self.options)
        if self.window_s is not None and self.window_s[0] >= self.window_s[1]:
            raise ValueError(f"window_s: the first time is before the second; is {list(self.window_s)}")

    def scaled(self, factor: float) -> "Traced":
        return replace(self, scale=self.scale * factor)

    def beside(self, folder: Path, where: str) -> "Traced":
        """With the file found: beside the scenario, or as it stands. Raises ScenarioError."""
        for path in (folder / self.file, Path(self.file)):
            if path.exists():  # ServeGen's is a folder
                return replace(self, file=str(path))
        raise ScenarioError(f"{where}: there is no {self.file!r}, neither here nor beside the scenario")

    def arrivals(self, rng: Generator, duration_s: float) -> Iterator[Arrival]:
        inside = shape.window(load(self.file, self.format, self.options), *(self.window_s or ()))
        faster = shape.compress(inside, self.compress) if self.compress != 1 else inside
        scaled = shape.scale(faster, self.scale, rng) if self.scale != 1 else faster
        cut = shape.clip(scaled, self.clip.input_tokens, self.clip.output_tokens, self.clip.parts)
        some = cut if self.limit is None else shape.limit(cut, self.limit)
        return shape.window(some, 0.0, duration_s)


@dataclass(frozen=True, slots=True)
class Stream:
    """A source whose requests are all for one model, class or tenant; what is not said here is as the source has it."""

    name: str
    source: Generated | Traced
    model: str = ""
    slo_class: str = ""
    ttft_s: NotNegative = 0.0  # each request's own targets; 0: its class's
    tbt_s: NotNegative = 0.0
    priority: Priority = 0
    tenant: str = ""
    flow: str = ""
    from_s: NotNegative = 0.0  # its requests begin, ...
    seconds: NotNegative = 0.0  # ... and come for so long; 0: to the end

    def arrivals(self, rng: Generator, duration_s: float) -> Iterator[Arrival]:
        names = ("model", "slo_class", "ttft_s", "tbt_s", "priority", "tenant", "flow")
        said: dict[str, Any] = {name: value for name in names if (value := getattr(self, name))}
        left_s = max(0.0, duration_s - self.from_s)
        arrivals = self.source.arrivals(rng, min(self.seconds or left_s, left_s))
        if self.from_s:
            arrivals = shape.later(arrivals, self.from_s)
        return (replace(arrival, **said) for arrival in arrivals) if said else arrivals


@dataclass(frozen=True, slots=True)
class Streams:
    """Several sources at once."""

    streams: tuple[Stream, ...]

    def scaled(self, factor: float) -> "Streams":
        return Streams(tuple(replace(each, source=each.source.scaled(factor)) for each in self.streams))

    def arrivals(self, rng: Generator, duration_s: float) -> Iterator[Arrival]:
        """Each stream draws from a child of `rng`: changing one leaves the others' requests as they are."""
        children = rng.spawn(len(self.streams))
        return shape.merge(*(each.arrivals(own, duration_s) for each, own in zip(self.streams, children, strict=True)))

    def beside(self, folder: Path, where: str) -> "Streams":
        """With the files of its traces found. Raises ScenarioError."""
        return Streams(tuple(replace(each, source=_beside(each, folder, where)) for each in self.streams))


def _beside(stream: Stream, folder: Path, where: str) -> Generated | Traced:
    source = stream.source
    return source.beside(folder, f"{where} of {stream.name}") if isinstance(source, Traced) else source


SOURCES: Mapping[str, Callable[[Mapping[str, Any], str], Generated | Traced]] = {
    "generated": read_generated,
    "trace": partial(build, Traced),
}


def read_streams(raw: Mapping[str, Any], where: str) -> Streams:
    """From one table a stream: its own keys, and those of the source that its `kind` names. Raises ScenarioError."""
    only_known(raw, ("streams",), where)
    tables = raw.get("streams")
    if not isinstance(tables, list) or not tables:
        raise ScenarioError(f"{where} streams: is missing; write one [[workload.streams]] for each")
    streams = [_read_stream(table, f"{where} streams", at) for at, table in enumerate(tables)]
    names = [stream.name for stream in streams]
    if len(set(names)) < len(names):
        raise ScenarioError(f"{where} streams: each needs a name of its own, there are {', '.join(names)}")
    return Streams(tuple(streams))


def _read_stream(table: Any, where: str, at: int) -> Stream:
    label = f"{where} {table.get('name', at) if isinstance(table, Mapping) else at}"
    own = [entry.name for entry in fields(Stream) if entry.name != "source"]
    rest = {key: entry for key, entry in table.items() if key not in own} if isinstance(table, Mapping) else table
    source = build_kind(rest, SOURCES, label)
    return build(Stream, {key: entry for key, entry in table.items() if key in own}, label, source=source)


def open_arrivals(
    work: Generated | Traced | Streams, duration_s: float, weights: Mapping[str, float], model: str, seed: int
) -> Iterator[Arrival]:
    """In order of time, class and model filled in where the workload does not say."""
    rng, classes = np.random.default_rng(seed).spawn(2)
    named = shape.rename_models(work.arrivals(rng, duration_s), {"": model})
    return shape.classes(named, weights, classes)


def _quantiles(said: str | Quantiles) -> Quantiles | None:
    return LENGTHS.get(said) if isinstance(said, str) else said


def _lengths(
    arrivals: Iterable[Arrival], prompts: Quantiles | None, answers: Quantiles | None, rng: Generator
) -> Iterator[Arrival]:
    """With other lengths, drawn anew for each request."""
    if prompts is None and answers is None:
        yield from arrivals
        return
    own, other = rng.spawn(2)
    pairs = zip(_counts(prompts, own), _counts(answers, other), strict=True)
    for arrival, (prompt, answer) in zip(arrivals, pairs, strict=False):
        yield replace(
            arrival, input_tokens=prompt or arrival.input_tokens, output_tokens=answer or arrival.output_tokens
        )


def _counts(quantiles: Quantiles | None, rng: Generator) -> Iterator[int]:
    """Without end; zeros where there is nothing to draw from."""
    while True:
        yield from [0] * shape.BLOCK if quantiles is None else quantiles.counts(rng, shape.BLOCK).tolist()
