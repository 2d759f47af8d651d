"""The least device time that a request takes of an instance, whatever runs beside it: what no schedule can undercut.

An iteration with b decoding sequences and c prompt tokens takes f(b + c) seconds and what attention adds, which is a
sum over its sequences already. f is parted among them so that the parts never add up to more than f: a decoding
sequence takes a = f(B) / B (B slots: the floor is shared by a full batch at best), a piece of p prompt tokens takes
p min (f(b + c) - a b) / c over all c >= p that an iteration may hold. Prompts are cut at multiples of the chunk alone,
so their pieces are known. The same with KV room in the place of slots: a sequence that reserves g of G tokens takes
f(1) g / G, for the reservations of an iteration's sequences never exceed G; any mixture of both holds as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.cost import StepCost, StepWork
from headrace.core.stages.kv import blocks_for
from headrace.sim.fleet import kind_of
from headrace.sim.kind import Kind
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one pool: least device seconds of each request's prefill and decoding; inf where the pool cannot serve it."""

    pool: str
    count: int  # instances
    prefill_s: Floats
    decode_s: Floats

    @property
    def total_s(self) -> Floats:
        return self.prefill_s + self.decode_s


def costs_of(scenario: Scenario, arrivals: Sequence[Arrival], kv_share: float = 0.0) -> tuple[Costs, ...]:
    """kv_share: of the floor that is parted by KV room, the rest by slots: 0 .. 1, every value is valid."""
    assert scenario.fleet is not None
    out = []
    for pool in scenario.fleet.pools:
        kind = kind_of(pool, scenario.model)
        prefill, decode = np.full((2, len(arrivals)), np.inf)
        for each in (kind, *kind.others):
            rows = np.array([at for at, arrival in enumerate(arrivals) if arrival.model == each.model], np.int64)
            if len(rows):
                prefill[rows], decode[rows] = _of_kind(each, [arrivals[at] for at in rows], kv_share)
        out.append(Costs(pool.name, pool.count, prefill, decode))
    return tuple(out)


def _of_kind(kind: Kind, arrivals: Sequence[Arrival], kv_share: float) -> tuple[Floats, Floats]:
    step, chunk = kind.step, max(1, kind.chunk_tokens // kind.block_tokens) * kind.block_tokens
    floor_s = _floors(step, kind.slots + chunk)
    slot_s = (1 - kv_share) * float(np.min(floor_s[1 : kind.slots + 1] / np.arange(1, kind.slots + 1)))
    room_s = kv_share * floor_s[1]
    piece_s = _pieces(floor_s, kind.slots, chunk, slot_s, room_s)
    prompt = np.array([arrival.input_tokens for arrival in arrivals], np.float64)
    answer = np.array([arrival.output_tokens for arrival in arrivals], np.float64)
    reserved = [blocks_for(each.input_tokens + each.max_tokens, kind.block_tokens) for each in arrivals]
    share = np.array(reserved, np.float64) / max(1, kind.blocks)
    whole, rest = np.divmod(prompt.astype(np.int64), chunk)
    prefill_s = whole * piece_s[chunk] + piece_s[rest] + step.prefill_pair_s * prompt * (prompt + 1) / 2
    steps = answer - 1  # the first token is prefill's; the n-th iteration looks back at prompt + n tokens
    context = steps * prompt + steps * (steps + 1) / 2
    each_s = slot_s + room_s * share + step.decode_sequence_s
    unfit = (share > 1) | (prompt + np.array([each.max_tokens for each in arrivals]) > kind.context_tokens)
    decode_s = steps * each_s + step.decode_context_token_s * context
    return np.where(unfit, np.inf, prefill_s), np.where(unfit, np.inf, decode_s)


def _floors(step: StepCost, most: int) -> Floats:
    """f(n) for n = 0 .. most tokens in an iteration; f(0) = 0, for there is no iteration."""
    return np.array([0.0] + [step.tokens_s(n) for n in range(1, most + 1)])


def _pieces(floor_s: Floats, slots: int, chunk: int, slot_s: float, room_s: float) -> Floats:
    """[p]: least seconds of a prompt's piece of p tokens, p = 0 .. chunk."""
    tokens = np.arange(1, chunk + 1)
    left = np.full(chunk, np.inf)
    for decoding in range(slots + 1):
        held_s = slot_s * decoding + (room_s if decoding else 0.0)
        left = np.minimum(left, (floor_s[decoding + tokens] - held_s) / tokens)
    token_s = np.minimum.accumulate(left[::-1])[::-1]  # over all iterations with at least as many tokens
    return np.concatenate(([0.0], np.maximum(token_s, 0.0) * tokens))


def longest_step_s(scenario: Scenario, arrivals: Sequence[Arrival]) -> float:
    """No iteration of the fleet takes longer: every slot decodes the longest context beside a chunk of prefill."""
    assert scenario.fleet is not None
    context = max((each.input_tokens + each.max_tokens for each in arrivals), default=1)
    longest = 0.0
    for pool in scenario.fleet.pools:
        kind = kind_of(pool, scenario.model)
        for each in (kind, *kind.others):
            pairs = each.chunk_tokens * context
            work = StepWork(each.chunk_tokens, pairs, each.slots, each.slots * context)
            longest = max(longest, each.step.step_s(work))
    return longest
