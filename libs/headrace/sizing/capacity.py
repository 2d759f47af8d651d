"""MC(stage, tp, batch): the most load of an instance whose 99th percentile keeps the SLO (ModServe, arXiv 2502.00937,
"Offline profiling"), computed from cost profiles.

What waits is an M/G/1 queue whose waiting time has an exponential tail [I]: bursts beyond Poisson are not in it, nor
that instances of a pool share one line. Simulations confirm what is chosen (compare.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headrace.characterize.cost import prefill_s
from headrace.core.cost import StepWork
from headrace.profiles import EncoderProfile, InstanceProfile
from headrace.sizing.traffic import Traffic

Floats = NDArray[np.float64]
Stage = Literal["encode", "prefill", "decode", "prefill+decode", "encode+prefill+decode"]

ENCODER_BATCHES = (1, 2, 4, 8)  # parts
SLOTS = (8, 16, 32, 64, 128, 256)  # sequences
P99 = 0.99
_STEPS = 30  # of bisection: 9 digits


@dataclass(frozen=True, slots=True)
class Work:
    """What one instance has to do for each request of the traffic, in seconds; tensor parallelism and batch are in."""

    encode_s: Floats  # of all images of a request
    prefill_s: Floats
    chunks: Floats  # iterations that prefill takes part in


@dataclass(frozen=True, slots=True)
class Capacity:
    """requests_per_s: at most, of one instance, within the promise; 0: not even one alone keeps it."""

    stage: Stage
    tp: int
    batch: int  # parts of an encoder, slots of an LLM
    requests_per_s: float
    alone_s: float  # 99th percentile of the stage, nobody else there
    tbt_s: float = 0.0  # at that load

    @property
    def per_gpu(self) -> float:
        return self.requests_per_s / self.tp


def p99_wait_s(rate: float, services_s: Floats) -> float:
    """Pollaczek and Khinchine's mean, and an exponential tail behind it; infinite where more comes than is served."""
    mean, square = float(np.mean(services_s)), float(np.mean(np.square(services_s)))
    busy = rate * mean
    if busy >= 1.0:
        return math.inf
    mean_s = rate * square / (2.0 * (1.0 - busy))
    return mean_s / busy * max(0.0, math.log(busy / (1.0 - P99))) if busy else 0.0


def most(keeps: Callable[[float], bool], upper: float) -> float:
    """The greatest rate that keeps the promise; what one keeps lower ones keep too."""
    if not keeps(upper * 1e-6):
        return 0.0
    low, high = 0.0, upper
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


# --- encoders ---


def encoder_capacity(tower: EncoderProfile, traffic: Traffic, batch: int, limit_s: float) -> Capacity:
    """The parts of a request are spread over the pool: each counts by itself. In requests a second of all traffic."""
    parts = [_part_s(tower, image, batch) for ask in traffic.asks for image in ask.images]
    together = np.array(parts) * batch  # of a full batch of such parts
    alone_s = float(np.quantile(together, P99))

    def keeps(rate: float) -> bool:
        return p99_wait_s(rate / batch, together) + alone_s <= limit_s

    images_per_s = most(keeps, 1.0 / float(np.mean(parts)))
    return Capacity("encode", tower.gpus, batch, images_per_s / traffic.images_each, alone_s)


def _part_s(tower: EncoderProfile, image: tuple[int, int], batch: int) -> float:
    tiles, pixels = image
    return tower.cost.preprocess_s(pixels) + tower.cost.tiles_s(tiles * batch) / batch


# --- LLMs ---


def work_of(llm: InstanceProfile, traffic: Traffic, tower: EncoderProfile | None = None) -> Work:
    """tower: encoding is done by the same instance."""
    chunks = [max(1, math.ceil(ask.one.positions / llm.chunk_tokens)) for ask in traffic.asks]
    encode = [sum(_part_s(tower, image, 1) for image in ask.images) if tower else 0.0 for ask in traffic.asks]
    return Work(np.array(encode), np.array([prefill_s(llm, [ask.one]) for ask in traffic.asks]), np.array(chunks))


def prefill_capacity(llm: InstanceProfile, work: Work, limits_s: Floats) -> Capacity:
    """limits_s: of each request, what is left of its time to first token."""
    alone_s = float(np.quantile(work.prefill_s, P99))

    def keeps(rate: float) -> bool:
        return _in_time(p99_wait_s(rate, work.prefill_s), work.prefill_s, limits_s)

    return Capacity("prefill", llm.gpus, 0, most(keeps, 1.0 / float(np.mean(work.prefill_s))), alone_s)


def decode_capacity(llm: InstanceProfile, traffic: Traffic, slots: int, tbt_s: float) -> Capacity:
    """As many sequences as fit and keep the time between tokens; Little's law makes a rate of them."""
    fitting = sequences_that_fit(llm, traffic, slots)
    size = fitting
    while size > 1 and tbt_s and step_s(llm, traffic, size) > tbt_s:
        size -= 1
    token_s = step_s(llm, traffic, size)
    kept = size and (not tbt_s or token_s <= tbt_s)
    rate = size / (token_s * traffic.output_tokens) if kept else 0.0
    return Capacity("decode", llm.gpus, slots, rate, step_s(llm, traffic, 1), token_s)


def shared_capacity(
    stage: Stage,
    llm: InstanceProfile,
    traffic: Traffic,
    work: Work,
    slots: int,
    limits_s: Floats,
    tbt_s: float,
) -> Capacity:
    """One instance prefills and decodes, and may encode: prompts, and pictures, hold up its tokens."""
    fitting = sequences_that_fit(llm, traffic, slots)
    held = work.encode_s + work.prefill_s
    alone_s = float(np.quantile(held, P99))

    def between_s(rate: float) -> tuple[float, float]:
        """Seconds between two tokens, and how many sequences decode; infinite: more comes than ends."""
        left = 1.0 - rate * float(np.mean(held))
        size = 1.0
        for _ in range(100):
            token_s = step_s(llm, traffic, size) / left if left > 0 else math.inf
            grown = rate * traffic.output_tokens * token_s
            if grown > fitting:
                return math.inf, fitting
            if abs(grown - size) < 1e-3:
                break
            size = grown
        return token_s, size

    def keeps(rate: float) -> bool:
        token_s, size = between_s(rate)
        if not math.isfinite(token_s) or (tbt_s and token_s > tbt_s):
            return False
        beside_s = step_s(llm, traffic, size)
        services = held + work.chunks * beside_s
        return _in_time(p99_wait_s(rate, services), services, limits_s)

    rate = most(keeps, 1.0 / float(np.mean(held)))
    return Capacity(stage, llm.gpus, slots, rate, alone_s, between_s(rate)[0] if rate else 0.0)


def _in_time(wait_s: float, services_s: Floats, limits_s: Floats) -> bool:
    return float(np.mean(wait_s + services_s > limits_s)) <= 1.0 - P99


def step_s(llm: InstanceProfile, traffic: Traffic, sequences: float) -> float:
    """An iteration of so many that are halfway through their answers."""
    context = traffic.positions + traffic.output_tokens / 2
    size = max(1, round(sequences))
    return llm.step.step_s(
        StepWork(
            decode_sequences=size,
            decode_context_tokens=round(size * context),
            decode_cross_tokens=round(size * traffic.rows),
        )
    )


def sequences_that_fit(llm: InstanceProfile, traffic: Traffic, slots: int) -> int:
    each = (
        traffic.positions + traffic.output_tokens
    ) * llm.kv_bytes_per_token + traffic.rows * llm.cross_kv_bytes_per_token
    return int(min(slots, llm.kv_room_bytes // max(1.0, each)))
