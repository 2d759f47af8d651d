"""From capacities to pools: of each stage the parallelism and batch that carry most per GPU, and how many instances."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.characterize.parts import Parts
from headrace.profiles import ProfileError
from headrace.sizing.capacity import (
    ENCODER_BATCHES,
    SLOTS,
    Capacity,
    Stage,
    decode_capacity,
    encoder_capacity,
    prefill_capacity,
    shared_capacity,
    work_of,
)
from headrace.sizing.traffic import Promise, Traffic

SERVER_GPUS = 8
ENCODE_SHARES = (0.3, 0.5, 0.7, 0.85)  # of the promised time to first token
Found = dict[Stage, list[Capacity]]
UNITS = {"encode": "images", "prefill": "positions", "decode": "outputs"}  # of Traffic.peaks
LAYOUTS: dict[str, tuple[Stage, ...]] = {
    "together": ("encode+prefill+decode",),
    "encoders apart": ("encode", "prefill+decode"),
    "all apart": ("encode", "prefill", "decode"),
}
TEXT_LAYOUTS: dict[str, tuple[Stage, ...]] = {"together": ("prefill+decode",), "all apart": ("prefill", "decode")}


@dataclass(frozen=True, slots=True)
class Sized:
    """A pool: so many instances of what was chosen."""

    chosen: Capacity
    count: int

    @property
    def gpus(self) -> int:
        return self.count * self.chosen.tp


@dataclass(frozen=True, slots=True)
class Layout:
    name: str
    pools: tuple[Sized, ...]
    enough: bool = True  # within the GPUs that there are

    @property
    def gpus(self) -> int:
        return sum(pool.gpus for pool in self.pools)


def sweep(parts: Parts, traffic: Traffic, promise: Promise) -> Found:
    """MC of every stage, degree and batch. Of the time to first token encoding gets that share with which the fewest
    GPUs are needed; text alone has all of it to be prefilled in."""
    fixed: Found = {
        "decode": [
            decode_capacity(llm, traffic, slots, promise.tbt_s) for llm in parts.llms.values() for slots in SLOTS
        ]
    }
    if not parts.encoders or not traffic.images_each:
        return fixed | _prefilling(parts, traffic, promise, 0.0)
    fixed["encode+prefill+decode"] = _together(parts, traffic, promise)
    tried = []
    for encode_s in [share * promise.ttft_s for share in ENCODE_SHARES]:
        tried.append(fixed | _prefilling(parts, traffic, promise, encode_s))
        tried[-1]["encode"] = [
            encoder_capacity(tower, traffic, batch, encode_s)
            for tower in parts.encoders.values()
            for batch in ENCODER_BATCHES
        ]
    return min(tried, key=lambda found: _gpus_each(found, LAYOUTS["encoders apart"]))


def _gpus_each(found: Found, stages: Sequence[Stage]) -> float:
    """GPUs for one request a second."""
    chosen = [best(found[stage]) for stage in stages]
    return sum([1.0 / each.per_gpu if each is not None else math.inf for each in chosen])


def _prefilling(parts: Parts, traffic: Traffic, promise: Promise, encode_s: float) -> Found:
    found: Found = {"prefill": [], "prefill+decode": []}
    limits_s = np.array([promise.ttft_s - (encode_s if ask.images else 0.0) for ask in traffic.asks])
    for llm in parts.llms.values():
        work = work_of(llm, traffic)
        found["prefill"].append(prefill_capacity(llm, work, limits_s))
        found["prefill+decode"] += [
            shared_capacity("prefill+decode", llm, traffic, work, slots, limits_s, promise.tbt_s) for slots in SLOTS
        ]
    return found


def _together(parts: Parts, traffic: Traffic, promise: Promise) -> list[Capacity]:
    """A monolith: the encoder has the LLM's GPUs, where its weights fit beside."""
    limits_s = np.full(len(traffic.asks), promise.ttft_s)
    found = []
    for llm in parts.llms.values():
        tower = parts.encoders.get(llm.gpus)
        if tower is not None and tower.weights_bytes < llm.kv_room_bytes:
            work = work_of(llm, traffic, tower)
            found += [
                shared_capacity("encode+prefill+decode", llm, traffic, work, slots, limits_s, promise.tbt_s)
                for slots in SLOTS
            ]
    return found


def best(of: Iterable[Capacity]) -> Capacity | None:
    """Most load per GPU; of equals fewer GPUs, then an encoder's smaller batch, which is sooner back, and an LLM's
    larger one, which bursts fill. None: nothing keeps the promise."""
    able = [each for each in of if each.requests_per_s > 0]

    def worth(each: Capacity) -> tuple[float, int, int]:
        return round(each.per_gpu, 6), -each.tp, -each.batch if each.stage == "encode" else each.batch

    return max(able, key=worth, default=None)


def initial(traffic: Traffic, encode_s: float) -> tuple[int, int]:
    """ModServe's initial sizing [P]: encoders and LLM instances. encode_s: median, of an image."""
    images = sorted(len(ask.images) for ask in traffic.asks if ask.images)
    median = images[len(images) // 2]
    encoders = traffic.rate_rps * traffic.images_each * encode_s
    return max(1, math.ceil(encoders)), max(1, math.ceil(encoders / median))


def layouts(found: Found, traffic: Traffic, gpus_max: int) -> list[Layout]:
    """Every way that keeps the promise with somebody alone, as large as the rate asks, or as there are GPUs for.

    Raises:
        ProfileError: none does.
    """
    made = []
    for name, stages in (LAYOUTS if "encode" in found else TEXT_LAYOUTS).items():
        chosen = [best(found[stage]) for stage in stages]
        known = [each for each in chosen if each is not None]
        if len(known) == len(stages):
            made.append(_sized(name, known, traffic, gpus_max))
    if not made:
        raise ProfileError("no stage keeps these promises, even for one request alone: allow more with --ttft or --tbt")
    return made


def _sized(name: str, chosen: Sequence[Capacity], traffic: Traffic, gpus_max: int) -> Layout:
    pools = [Sized(each, max(1, math.ceil(_peak_rps(each.stage, traffic) / each.requests_per_s))) for each in chosen]
    enough = sum(pool.gpus for pool in pools) <= gpus_max
    while sum(pool.gpus for pool in pools) > gpus_max and any(pool.count > 1 for pool in pools):
        # Whoever is left with most beyond its need gives one up.
        at = max(
            (at for at, pool in enumerate(pools) if pool.count > 1),
            key=lambda at: (pools[at].count - 1) * pools[at].chosen.requests_per_s,
        )
        pools[at] = Sized(pools[at].chosen, pools[at].count - 1)
    return Layout(name, tuple(pools), enough)


def _peak_rps(stage: Stage, traffic: Traffic) -> float:
    units = [UNITS[each] for each in stage.split("+")]
    return max([traffic.peaks[unit] for unit in units if unit in traffic.peaks], default=traffic.rate_rps)


def servers(layout: Layout, server_gpus: int = SERVER_GPUS) -> list[list[tuple[Stage, int]]]:
    """Which instances stand on which server: LLMs first, the largest first; encoders take the GPUs that they leave."""
    instances = [(pool.chosen.stage, pool.chosen.tp) for pool in layout.pools for _ in range(pool.count)]
    instances.sort(key=lambda each: (each[0] == "encode", -each[1]))
    placed: list[list[tuple[Stage, int]]] = []
    for stage, tp in instances:
        room = next((each for each in placed if sum(gpus for _, gpus in each) + tp <= server_gpus), None)
        if room is None:
            placed.append(room := [])
        room.append((stage, tp))
    return placed
