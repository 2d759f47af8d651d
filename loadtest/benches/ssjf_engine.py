"""SSJF in the mesh's simulator: one vicuna-13b on an A100, where sequences slow one another down and need memory.

Policies are the queue manager's; KV memory is what an A100 with 40 GB leaves, or with 80 GB at the same load.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.cost import StepWork
from headrace.core.lengths import Features, Prediction
from headrace.core.lengths.base import Fixed
from headrace.core.slo import SloClass
from headrace.profiles import InstanceProfile, instance
from headrace.sim.result import Requests
from headrace.sim.run import Run
from headrace.workload.arrival import Arrival
from headrace.workload.fleet import Fleet, PoolSpec
from headrace.workload.multimodal import TextOnly
from headrace.workload.open import Generated
from headrace.workload.scenario import Scenario
from loadtest.benches.ssjf_fair import MEASURED, WARM, arrivals, many, summary
from loadtest.benches.ssjf_figures import Figures, figures
from loadtest.benches.ssjf_lengths import Drawn, Lengths

Floats = NDArray[np.float64]
PROFILE = "a100/vicuna-13b/tp1"
PROMPT_TOKENS = 70  # [I] the released pairs do not tell the prompts'
MAX_TOKENS = 512  # what clients allow, and the authors' cut [C]; a sequence reserves it
SLOTS = 128
# 0.9 of 40 GiB, less the packaged profile's weights and 2 GB, by the same rule as its 80 GB [I].
ROOM_40GB_BYTES = int(0.9 * 40 * 2**30 - 26_031_718_400 - 2e9)
BURSTS_CV = 3.0  # of the gaps [I]
FLOOD, FLOOD_RPS = 600, 60.0  # jobs to measure what it serves at most
PATIENT = SloClass("batch", ttft_s=1e5, timeout_s=1e6, queue_limit=1 << 20)
# In the simulator; "ssjf" has its predictor put in the oracle's place.
PREDICTORS = {"fcfs": "fcfs", "ssjf": "ssjf+oracle", "oracle": "ssjf+oracle", "random": "ssjf+random"}


@dataclass(frozen=True, slots=True)
class Said(Fixed):
    """What a predictor said of each request; ids are their rows."""

    by_row: Sequence[Prediction]
    name: str = "said"

    def predict(self, request_id: str, features: Features) -> Prediction:
        return self.by_row[int(request_id, 16)].capped(features.max_tokens)


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance with so much room for KV."""

    profile: InstanceProfile
    file: str

    def run(self, arrival_s: Floats, tokens: Sequence[int], policy: str, said: Sequence[Prediction] = ()) -> Requests:
        """Every request ends."""
        pool = PoolSpec("llm", ("prefill", "decode"), gpu="a100", slots=SLOTS, start_s=0.0, profile=self.file)
        scenario = Scenario(
            name="ssjf",
            about="",
            seed=1,
            duration_s=float(arrival_s[-1]) + 1.0,
            drain_s=1e6,
            model="vicuna-13b",
            workload=Generated(TextOnly()),
            classes=(PATIENT,),
            shares=(1.0,),
            fleet=Fleet((pool,), "pcie"),
        )
        asked = [
            Arrival(at_s, PROMPT_TOKENS, output, max_tokens=MAX_TOKENS, slo_class=PATIENT.name)
            for at_s, output in zip(arrival_s.tolist(), tokens, strict=True)
        ]
        run = Run(scenario, policy, 1, asked)
        if said:
            run.world.predictor = Said(said)
        run.go()
        requests = run.result(1.0).requests
        assert requests.finished.all(), "a request did not finish"
        return requests

    def alone_s(self, tokens: int) -> float:
        """Of an answer that nobody slows down."""
        prefill = StepWork(prefill_tokens=PROMPT_TOKENS, prefill_pairs=PROMPT_TOKENS * (PROMPT_TOKENS + 1) // 2)
        first_s = self.profile.step.step_s(prefill)
        decode = StepWork(decode_sequences=1, decode_context_tokens=PROMPT_TOKENS + 1)
        return first_s + (self.profile.step.stretch_s(decode, tokens - 1) if tokens > 1 else 0.0)

    def capacity_rps(self, lengths: Lengths) -> float:
        """Of FCFS, by flooding it: the middle of the run, where nothing begins or ends."""
        rng = np.random.default_rng(0)
        drawn = lengths.draw(rng, FLOOD)
        flooded = self.run(arrivals(rng, FLOOD, FLOOD_RPS, 1.0), drawn.tokens.tolist(), "fcfs")
        ends_s = np.sort(flooded.end_s)
        a, b = FLOOD // 4, FLOOD * 3 // 4
        return float((b - a) / (ends_s[b] - ends_s[a]))


def machine(folder: Path, room_bytes: int) -> Machine:
    """From a user's own profile file: the packaged one with another room for KV."""
    packaged = instance(PROFILE)
    file = folder / f"room-{room_bytes}.toml"
    file.write_text(_profile(packaged, room_bytes), encoding="utf-8")
    return Machine(replace(packaged, kv_room_bytes=room_bytes), f"{file}/tp1")


@dataclass(frozen=True, slots=True)
class Cell:
    """A load on a machine; cv of the gaps."""

    machine: Machine
    rate_rps: float
    cv: float = 1.0
    only: tuple[str, ...] = tuple(PREDICTORS)  # of its policies

    def once(self, lengths: Lengths, seed: int) -> dict[str, Figures]:
        """Each policy over the same requests."""
        rng = np.random.default_rng([seed, 2])
        drawn = lengths.draw(rng, WARM + MEASURED)
        arrival_s = arrivals(rng, WARM + MEASURED, self.rate_rps, self.cv)
        alone_s = np.array([self.machine.alone_s(tokens) for tokens in drawn.tokens.tolist()])
        out = {}
        for policy in self.only:
            requests = self.machine.run(
                arrival_s, drawn.tokens.tolist(), PREDICTORS[policy], _said(policy, lengths, drawn)
            )
            found = figures(requests.arrival_s, requests.end_s, alone_s, WARM)
            out[policy] = found | {"wait_max_s": float(requests.ttft_s[WARM:].max())}
        return out


def _said(policy: str, lengths: Lengths, drawn: Drawn) -> list[Prediction]:
    """Of the policies whose predictor the simulator does not have itself."""
    if policy not in lengths.policies:
        return []
    by_class = lengths.predictions[policy]
    return [by_class[label] for label in drawn.classes[policy].tolist()]


def engine(lengths: Lengths, seeds: Sequence[int], more_seeds: Sequence[int], *, bursts: bool) -> dict[str, Any]:
    """`settings`, and by load the summaries of the machine whose memory limits it, and of one with room.

    seeds: at 0.9 without bursts; more_seeds: everywhere else.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        tight = machine(Path(name), ROOM_40GB_BYTES)
        roomy = machine(Path(name), instance(PROFILE).kv_room_bytes)
        most_rps = tight.capacity_rps(lengths)
        cells = {
            "07": (Cell(tight, 0.7 * most_rps), more_seeds),
            "09": (Cell(tight, 0.9 * most_rps), seeds),
            "09_room": (Cell(roomy, 0.9 * most_rps, only=("fcfs", "ssjf")), more_seeds),
        }
        if bursts:
            cells["09_bursts"] = (Cell(tight, 0.9 * most_rps, cv=BURSTS_CV), more_seeds)
        found = {
            key: summary(many(partial(cell.once, lengths), some_seeds)) for key, (cell, some_seeds) in cells.items()
        }
    sequences = ROOM_40GB_BYTES // tight.profile.kv_bytes_per_token // (PROMPT_TOKENS + MAX_TOKENS)
    settings = {
        "profile": PROFILE,
        "kv_room_bytes": ROOM_40GB_BYTES,
        "kv_sequences": int(sequences),
        "roomy_kv_room_bytes": roomy.profile.kv_room_bytes,
        "capacity_rps": most_rps,
        "prompt_tokens": PROMPT_TOKENS,
        "max_tokens": MAX_TOKENS,
    }
    return {"settings": settings, "loads": found}


def _profile(packaged: InstanceProfile, room_bytes: int) -> str:
    step, source = packaged.step, '"[I] set by the bench ssjf from the packaged profile"'
    return f"""
title = "{packaged.name} with other memory"
kind = "llm"
gpu = "{packaged.gpu}"
[sources]
time = {source}
attention = {source}
memory = {source}
load = {source}
[model]
source = {source}
context_tokens = {packaged.context_tokens}
kv_bytes_per_token = {packaged.kv_bytes_per_token}
weights_bytes = {packaged.weights_bytes}
[tp1]
gpus = 1
tokens = [{", ".join(map(repr, step.tokens_s.xs))}]
tokens_s = [{", ".join(map(repr, step.tokens_s.ys))}]
decode_sequence_s = {step.decode_sequence_s!r}
prefill_pair_s = {step.prefill_pair_s!r}
decode_context_token_s = {step.decode_context_token_s!r}
kv_room_bytes = {room_bytes}
chunk_tokens = {packaged.chunk_tokens}
block_tokens = {packaged.block_tokens}
load_cold_s = 0.0
load_warm_s = 0.0
"""
