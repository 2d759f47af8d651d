"""The requests of a run: times and images as the Azure LMM trace has them, pressed into the rate that is asked for.

The trace's file itself is not at hand: the generator is fitted to its published quantiles.

All systems and all rates of a seed get the same requests in the same rhythm: a rate is how fast they come.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import numpy as np

from headrace.profiles import ModelCard, instance, model
from headrace.workload import fitted, shape
from headrace.workload.arrival import Arrival
from headrace.workload.multimodal import Multimodal
from headrace.workload.repeats import Repeats

# Of text in a prompt, at most: so that a prompt with its images fits InternVL's context. Cuts 2 of 100 prompts [I].
TEXT_MOST = 8_192
ASKED_BEYOND = 1.3  # drawn, for some are too large for a model's context
CLASS = "all"  # of every request
WEEK_RPS = fitted.LMM_REQUESTS_PER_MIN / 60


@dataclass(frozen=True, slots=True)
class Traffic:
    rate_rps: float  # over the run: that of the seed's own requests
    requests: int
    image_share: float = fitted.LMM_IMAGE_SHARE
    bursty: bool = True  # the trace's own spikes and gaps; without: Poisson
    repeats: float = 0.0  # share of the pictures that are of a thousand that are asked about again


@dataclass(frozen=True, slots=True)
class Targets:
    """Seconds to the first token: of requests of text alone, and of those with images."""

    text_s: float
    image_s: float


def requests(model_name: str, traffic: Traffic, seed: int, targets: Targets) -> list[Arrival]:
    """In order of time; the last one comes at requests / rate_rps."""
    drawn = _drawn(model_name, replace(traffic, rate_rps=WEEK_RPS), seed)
    if traffic.repeats:
        drawn = list(Repeats(traffic.repeats).applied(drawn, np.random.default_rng([seed, 1])))
    faster = shape.compress(drawn, drawn[-1].at_s * traffic.rate_rps / len(drawn))
    wanted_s = (targets.text_s, targets.image_s)
    return [replace(each, slo_class=CLASS, ttft_s=wanted_s[bool(each.parts)]) for each in faster]


def _drawn(model_name: str, traffic: Traffic, seed: int) -> list[Arrival]:
    source = Multimodal(image_share=traffic.image_share, profile="flat", bursty=traffic.bursty)
    duration_s = ASKED_BEYOND * traffic.requests / WEEK_RPS + 3_600.0
    fitting = that_fit(model_name, source.arrivals(np.random.default_rng(seed), duration_s))
    found = list(islice(fitting, traffic.requests))
    assert len(found) == traffic.requests, "more were to be drawn"
    return found


def that_fit(model_name: str, arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
    """Into the model's context, their text cut to TEXT_MOST."""
    card, most = card_of(model_name), context_tokens(model_name)
    return (each for each in shape.clip(arrivals, TEXT_MOST) if positions(card, each) <= most)


@lru_cache
def card_of(model_name: str) -> ModelCard:
    """Read once: it is asked for with every request."""
    return model(model_name)


@lru_cache
def context_tokens(model_name: str) -> int:
    return instance(f"a100/{model_name}/tp4").context_tokens


def positions(card: ModelCard, arrival: Arrival) -> int:
    """That a request takes of a model's context."""
    media = len(arrival.parts) if card.contract == "cross" else media_tokens(card, arrival)
    return arrival.input_tokens + media + arrival.output_tokens


def media_tokens(card: ModelCard, arrival: Arrival) -> int:
    return sum([image(card, part.width, part.height)[0] for part in arrival.parts])


@lru_cache(maxsize=65_536)
def image(card: ModelCard, width: int, height: int) -> tuple[int, int]:
    """Tokens and tiles."""
    return card.media_tokens(width, height), card.tiles(width, height)


def left_out(model_name: str, seeds: Sequence[int], traffic: Traffic) -> float:
    """The share of requests that are too large for the model's context."""
    card, most = card_of(model_name), context_tokens(model_name)
    source = Multimodal(image_share=traffic.image_share, profile="flat", bursty=traffic.bursty)
    duration_s = traffic.requests / WEEK_RPS
    too_large = [
        positions(card, arrival) > most
        for seed in seeds
        for arrival in shape.clip(source.arrivals(np.random.default_rng(seed), duration_s), TEXT_MOST)
    ]
    return float(np.mean(too_large))
