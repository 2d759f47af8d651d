"""From requests to loads: seconds of work that each stage has to do in each epoch, by a model's cost profiles.

All work of a request counts in the epoch in which it comes: epochs of ten seconds are longer than most answers [I].
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.core.cost import StepCost, StepWork
from headrace.core.errors import InvalidInput
from headrace.profiles import EncoderProfile, InstanceProfile
from headrace.workload.arrival import Arrival

Floats = NDArray[np.float64]
STAGES = ("encode", "prefill", "decode")
BATCH = 32  # sequences of an instance at once: each has that part of an iteration [I]
PART_TOKENS = 576  # of a media part whose size no trace tells [I]
LOAD_MOST = 2.0  # of what can be done at full speed: what is beyond waits, and is not more news


def seconds_of(arrival: Arrival, llm: InstanceProfile, tower: EncoderProfile | None) -> tuple[float, float, float]:
    """Of encode, prefill and decode, at full speed."""
    media = sum(part.tokens or PART_TOKENS for part in arrival.parts)
    encode_s = sum(tower.cost.tiles_s(8.0) / 8.0 for _ in arrival.parts) if tower is not None else 0.0
    prompt = arrival.input_tokens + media
    return encode_s, prefill_s(llm.step, prompt), decode_s(llm.step, prompt, arrival.output_tokens)


def prefill_s(step: StepCost, prompt: int) -> float:
    """What a prompt adds to an iteration that decodes a usual batch."""
    beside = BATCH * prompt
    mixed = StepWork(prompt, prompt * (prompt + 1) // 2, BATCH, beside)
    return step.step_s(mixed) - step.step_s(StepWork(0, 0, BATCH, beside))


def decode_s(step: StepCost, prompt: int, output: int) -> float:
    context = prompt + output // 2
    return output * step.step_s(StepWork(0, 0, BATCH, BATCH * context)) / BATCH


def stage_work(
    arrivals: Iterable[Arrival], llm: InstanceProfile, tower: EncoderProfile | None, epoch_s: float
) -> Floats:
    """[epoch, stage] seconds of work. Raises InvalidInput: fewer than two epochs."""
    rows: list[Floats] = []
    for arrival in arrivals:
        at = int(arrival.at_s // epoch_s)
        while len(rows) <= at:
            rows.append(np.zeros(len(STAGES)))
        rows[at] += seconds_of(arrival, llm, tower)
    if len(rows) < 2:
        raise InvalidInput(
            f"the trace ends within {2 * epoch_s:g} s: too short to learn how loads change", field="trace"
        )
    return np.array(rows)


def normalised(work: Floats, mean_load: float) -> Floats:
    """[epoch, ...] loads of pools that are sized for that mean. Raises InvalidInput: a pool without any work."""
    means = work.mean(axis=0)
    if (np.atleast_1d(means) <= 0.0).any():
        raise InvalidInput("a pool has no work in this trace; leave it out of --pools", field="pools")
    found: Floats = np.minimum(work / means * mean_load, LOAD_MOST)
    return found


def pools_of(names: Sequence[str], work: Floats) -> Floats:
    """[epoch, pool]: columns of the pools that there are."""
    return work[:, [STAGES.index(name) for name in names]]
