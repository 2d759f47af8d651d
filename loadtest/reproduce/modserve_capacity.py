"""What the fleets can do by arithmetic: seconds of each stage that a request takes on average, and instances over that.

Queueing apart, so that it bounds what a simulation may say; decoding shares its iterations among DECODING sequences.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from headrace.core.cost import StepWork
from headrace.sim.fleet import kind_of
from headrace.sim.kind import Kind
from headrace.workload.arrival import Arrival
from headrace.workload.fleet import PoolSpec
from loadtest.reproduce.modserve_systems import GPU, Shape
from loadtest.reproduce.modserve_traffic import Targets, Traffic, card_of, image, media_tokens, requests

DECODING = 64  # [I] sequences of an instance near its limit
CONTEXT_TOKENS = 2_048  # [I] of each
SEEDS = (1, 2, 3)
REQUESTS = 600


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one instance, for a request on average."""

    encode_s: float
    prefill_s: float
    decode_s: float
    images: float
    image_tokens: float

    @property
    def whole_s(self) -> float:
        return self.encode_s + self.prefill_s + self.decode_s

    @property
    def text_s(self) -> float:
        return self.prefill_s + self.decode_s


@lru_cache
def seconds(model_name: str, tp: int, image_share: float = 0.5, encode_times: float = 1.0) -> Seconds:
    kind, card = _kind(model_name, tp, encode_times), card_of(model_name)
    traffic = Traffic(1.0, REQUESTS, image_share)
    asked = [each for seed in SEEDS for each in requests(model_name, traffic, seed, Targets(1.0, 1.0))]
    return Seconds(
        encode_s=float(np.mean([encode_seconds(kind, each) for each in asked])),
        prefill_s=float(np.mean([prefill_seconds(kind, each) for each in asked])),
        decode_s=float(np.mean([each.output_tokens for each in asked])) * _decode_token_s(kind),
        images=float(np.mean([len(each.parts) for each in asked])),
        image_tokens=float(np.mean([media_tokens(card, each) for each in asked])),
    )


def whole_rps(model_name: str, shape: Shape, image_share: float = 0.5, encode_times: float = 1.0) -> float:
    """Of the monolith."""
    return shape.whole / seconds(model_name, shape.whole_tp, image_share, encode_times).whole_s


def split_rps(model_name: str, shape: Shape, image_share: float = 0.5, encode_times: float = 1.0) -> float:
    """Of image and text instances: the slower stage's."""
    image = seconds(model_name, shape.image_tp, image_share, encode_times)
    text = seconds(model_name, shape.text_tp, image_share, encode_times)
    return min(shape.image / image.encode_s, shape.text / text.text_s)


def alone_s(model_name: str, encode_times: float, arrival: Arrival) -> float:
    """To the first token of a request that has an instance of the monolith to itself."""
    kind = _kind(model_name, 4, encode_times)
    return encode_seconds(kind, arrival) + prefill_seconds(kind, arrival) + HOPS_S


HOPS_S = 0.003  # what the mesh adds, about


def encode_seconds(kind: Kind, arrival: Arrival) -> float:
    """One part after the other."""
    card, cost = card_of(kind.model), kind.encode
    tiles = [image(card, part.width, part.height)[1] for part in arrival.parts]
    read_s = sum([cost.preprocess_s(part.width * part.height) for part in arrival.parts])
    return read_s + sum([cost.tiles_s(each) for each in tiles])


def prefill_seconds(kind: Kind, arrival: Arrival) -> float:
    """Chunk by chunk."""
    card = card_of(kind.model)
    media, across = media_tokens(card, arrival), card.contract == "cross"
    tokens, rows = arrival.input_tokens + (len(arrival.parts) if across else media), media if across else 0
    total_s = 0.0
    for start in range(0, tokens, kind.chunk_tokens):
        size = min(kind.chunk_tokens, tokens - start)
        pairs = size * (2 * start + size + 1) // 2
        total_s += kind.step.step_s(StepWork(size, pairs, cross_tokens=0 if start else rows, cross_pairs=size * rows))
    return total_s


def _decode_token_s(kind: Kind) -> float:
    work = StepWork(decode_sequences=DECODING, decode_context_tokens=DECODING * CONTEXT_TOKENS)
    return kind.step.step_s(work) / DECODING


@lru_cache
def _kind(model_name: str, tp: int, encode_times: float) -> Any:
    pool = PoolSpec("whole", ("encode", "prefill", "decode"), gpu=GPU, tp=tp, encode_times=encode_times)
    return kind_of(pool, model_name)
