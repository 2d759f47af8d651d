"""Reshaping traffic: each function takes Arrivals in order of time and yields them changed, one by one.

They compose; what is random takes a numpy Generator, so that the same seed reshapes the same way.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Literal

import numpy as np
from numpy.random import Generator

from headrace.workload.arrival import Arrival, Part
from headrace.workload.rates import require

Arrivals = Iterable[Arrival]
BLOCK = 4096  # random numbers drawn at once


def _when(arrival: Arrival) -> float:
    return arrival.at_s


def merge(*streams: Arrivals) -> Iterator[Arrival]:
    """Superposition: all of several streams, in order of time; at one time the first stream's come first."""
    return heapq.merge(*streams, key=_when)


def compress(arrivals: Arrivals, factor: float) -> Iterator[Arrival]:
    """Time runs `factor` times as fast: the rate grows by it, the shape of bursts stays, the duration shrinks."""
    require(0 < factor < math.inf, "factor", "above 0")
    for arrival in arrivals:
        yield _at(arrival, arrival.at_s / factor)


def thin(arrivals: Arrivals, keep: float, rng: Generator) -> Iterator[Arrival]:
    """Each request stays with probability `keep`: the rate shrinks, hours keep their length, bursts get milder."""
    require(0 <= keep <= 1, "keep", "between 0 and 1")
    for arrival, u in zip(arrivals, _uniforms(rng), strict=False):
        if u < keep:
            yield arrival


def repeat(arrivals: Arrivals, factor: float, spread_s: float, rng: Generator) -> Iterator[Arrival]:
    """A higher rate with hours of their own length: each request comes `factor` times on average.

    Its first copy comes when it did, the others up to `spread_s` later, at random: with a spread of 0 they come at
    once. Copies keep the original's prefix blocks, so that reuse grows.
    """
    require(1 <= factor < math.inf, "factor", "at least 1; thin() lowers a rate")
    require(spread_s >= 0, "spread_s", "not negative")
    whole, rest = divmod(factor, 1.0)
    uniforms = _uniforms(rng)
    waiting: list[tuple[float, int, Arrival]] = []
    number = 0
    for arrival in arrivals:
        while waiting and waiting[0][0] <= arrival.at_s:
            yield heapq.heappop(waiting)[2]
        yield arrival
        for _ in range(int(whole) - 1 + (next(uniforms) < rest)):
            late = _at(arrival, arrival.at_s + spread_s * next(uniforms))
            number += 1
            heapq.heappush(waiting, (late.at_s, number, late))
    while waiting:
        yield heapq.heappop(waiting)[2]


def scale(arrivals: Arrivals, factor: float, rng: Generator, spread_s: float = 60.0) -> Iterator[Arrival]:
    """The rate times `factor` without touching the clock: thin() below 1, repeat() above."""
    return thin(arrivals, factor, rng) if factor <= 1 else repeat(arrivals, factor, spread_s, rng)


def window(arrivals: Arrivals, from_s: float = 0.0, to_s: float = math.inf) -> Iterator[Arrival]:
    """What comes in [from_s, to_s), its clock begun anew at from_s."""
    require(from_s < to_s, "from_s", "before to_s")
    for arrival in arrivals:
        if arrival.at_s >= to_s:
            return
        if arrival.at_s >= from_s:
            yield _at(arrival, arrival.at_s - from_s) if from_s else arrival


def later(arrivals: Arrivals, by_s: float) -> Iterator[Arrival]:
    return (_at(arrival, arrival.at_s + by_s) for arrival in arrivals)


def limit(arrivals: Arrivals, requests: int) -> Iterator[Arrival]:
    """The first so many."""
    require(requests >= 0, "requests", "not negative")
    return islice(arrivals, requests)


def clip(arrivals: Arrivals, input_tokens: int = 0, output_tokens: int = 0, parts: int = 0) -> Iterator[Arrival]:
    """Longer prompts, answers and lists of media are cut to so much; 0 leaves them. Prefix blocks are cut in the same
    proportion as the prompt."""
    require(min(input_tokens, output_tokens, parts) >= 0, "clip", "not negative")
    for a in arrivals:
        new_input = min(a.input_tokens, input_tokens or a.input_tokens)
        new_output = min(a.output_tokens, output_tokens or a.output_tokens)
        media = a.parts[:parts] if parts else a.parts
        if new_input == a.input_tokens and new_output == a.output_tokens and len(media) == len(a.parts):
            yield a
            continue
        blocks = a.blocks[: math.ceil(len(a.blocks) * new_input / a.input_tokens)]
        yield replace(a, input_tokens=new_input, output_tokens=new_output, parts=media, blocks=blocks)


def _chosen(weights: Mapping[str, float], what: str, rng: Generator) -> Iterator[str]:
    require(len(weights) > 0 and min(weights.values()) >= 0 and sum(weights.values()) > 0, what, "a weight above 0")
    names, total = list(weights), sum(weights.values())
    edges = np.cumsum([w / total for w in weights.values()])
    edges[-1] = 1.0
    while True:
        for i in np.searchsorted(edges, rng.random(BLOCK), side="right").tolist():
            yield names[i]


def classes(arrivals: Arrivals, weights: Mapping[str, float], rng: Generator) -> Iterator[Arrival]:
    """An SLO class at random for each request that has none."""
    for arrival, name in zip(arrivals, _chosen(weights, "classes", rng), strict=False):
        yield arrival if arrival.slo_class else _named(arrival, name, arrival.model)


def models(arrivals: Arrivals, weights: Mapping[str, float], rng: Generator) -> Iterator[Arrival]:
    """A model at random for each request, whatever the trace called it."""
    for arrival, name in zip(arrivals, _chosen(weights, "models", rng), strict=False):
        yield _named(arrival, arrival.slo_class, name)


def rename_models(arrivals: Arrivals, names: Mapping[str, str]) -> Iterator[Arrival]:
    """A trace's model names to the mesh's; names that are not in the table stay."""
    for arrival in arrivals:
        yield _named(arrival, arrival.slo_class, names.get(arrival.model, arrival.model))


MaxTokensRule = Literal["exact", "factor", "cap"]


def max_tokens(arrivals: Arrivals, rule: MaxTokensRule, value: float = 1.0) -> Iterator[Arrival]:
    """What clients allow. "exact": what the answer takes; "factor": `value` times that, rounded up; "cap": `value`
    tokens for everybody, and longer answers end there."""
    require(rule in ("exact", "factor", "cap"), "rule", "one of exact, factor, cap")
    require(value >= 1, "value", "at least 1")
    allowed: dict[str, Callable[[int], int]] = {
        "exact": lambda output: output,
        "factor": lambda output: math.ceil(output * value),
        "cap": lambda output: int(value),
    }
    most = allowed[rule]
    for a in arrivals:
        cap = most(a.output_tokens)
        yield replace(a, output_tokens=min(a.output_tokens, cap), max_tokens=cap)


def _at(a: Arrival, at_s: float) -> Arrival:
    """replace() for the commonest change, in a third of its time."""
    return _changed(a, at_s, a.slo_class, a.model)


def _named(a: Arrival, slo_class: str, model: str) -> Arrival:
    return _changed(a, a.at_s, slo_class, model)


def _changed(a: Arrival, at_s: float, slo_class: str, model: str) -> Arrival:
    return Arrival(
        at_s,
        a.input_tokens,
        a.output_tokens,
        a.parts,
        a.max_tokens,
        slo_class,
        model,
        a.tenant,
        a.blocks,
        a.ttft_s,
        a.tbt_s,
        a.priority,
        a.flow,
    )


def _uniforms(rng: Generator) -> Iterator[float]:
    while True:
        yield from rng.random(BLOCK).tolist()


def resize(arrivals: Arrivals, change: Callable[[Part], Part]) -> Iterator[Arrival]:
    """Each media part through a function: smaller images, tokens that a model counts anew."""
    for a in arrivals:
        yield replace(a, parts=tuple(change(part) for part in a.parts)) if a.parts else a
