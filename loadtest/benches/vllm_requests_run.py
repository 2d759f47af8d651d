"""One measured run in the simulator: a colocated worker, the run's own arrivals and lengths, a given step cost.

What the simulator is told goes through its front door: a user's own profile file and a scenario.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.core.cost import StepCost
from headrace.core.slo import SloClass
from headrace.sim.result import Requests
from headrace.sim.run import simulate
from headrace.workload.arrival import Arrival
from headrace.workload.fleet import Fleet, PoolSpec
from headrace.workload.multimodal import TextOnly
from headrace.workload.open import Generated
from headrace.workload.scenario import Scenario
from loadtest.benches.vllm_requests_data import MeasuredRun, Times
from loadtest.benches.vllm_requests_subjects import BLOCK_TOKENS, CHUNK_TOKENS, Subject

# vLLM has no mesh around it.
NO_MESH = dict.fromkeys(
    ("admit_s", "queue_s", "event_s", "command_s", "deliver_s", "handover_s", "embedding_s", "iteration_s"), 0.0
)
PATIENT = SloClass("batch", ttft_s=3_600.0, timeout_s=7_200.0, queue_limit=16_384)


@dataclass(frozen=True, slots=True)
class Setting:
    """How the simulated worker is set."""

    step: StepCost
    kv_tokens: int  # that its blocks hold; each sequence reserves prompt and output
    chunk_tokens: int = CHUNK_TOKENS


def simulated(subject: Subject, run: MeasuredRun, setting: Setting) -> Times:
    """What the simulator makes of the run; every request has to finish."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        profile = Path(folder) / "measured.toml"
        profile.write_text(_profile(subject, setting), encoding="utf-8")
        pool = PoolSpec(
            "llm",
            ("prefill", "decode"),
            gpu=subject.gpu,
            tp=subject.gpus,
            slots=subject.slots,
            start_s=0.0,
            profile=f"{profile}/tp{subject.gpus}",
        )
        result = simulate(_scenario(subject, run, pool), "fcfs", arrivals=arrivals(run))
    return _times(result.requests)


def arrivals(run: MeasuredRun) -> Iterator[Arrival]:
    for at_s, prompt, output in zip(run.arrival_s, run.input_tokens, run.output_tokens, strict=True):
        yield Arrival(float(at_s), int(prompt), int(output), slo_class=PATIENT.name)


def _times(requests: Requests) -> Times:
    assert requests.finished.all(), "a request did not finish: the time to drain is too short"
    return Times(requests.ttft_s, requests.tbt_s, requests.jct_s, requests.end_s - requests.arrival_s[0])


def _scenario(subject: Subject, run: MeasuredRun, pool: PoolSpec) -> Scenario:
    return Scenario(
        name=f"vllm {subject.run}",
        about="",
        seed=0,
        duration_s=float(run.arrival_s[-1]) + 1.0,
        drain_s=7_200.0,
        model=subject.model,
        workload=Generated(TextOnly()),
        classes=(PATIENT,),
        shares=(1.0,),
        fleet=Fleet((pool,), "pcie"),
        mesh=NO_MESH,
    )


def _profile(subject: Subject, setting: Setting) -> str:
    """A user's own profile file of the calibrated worker."""
    step, shape = setting.step, subject.shape
    source = '"[I] set by the bench vllm-requests"'
    return f"""
title = "measured"
kind = "llm"
gpu = "{subject.gpu}"
[sources]
time = {source}
attention = {source}
memory = {source}
load = {source}
[model]
source = {source}
context_tokens = {shape.context_tokens}
kv_bytes_per_token = {shape.kv_bytes_per_token}
weights_bytes = {shape.weights_bytes}
[tp{subject.gpus}]
gpus = {subject.gpus}
tokens = [{", ".join(map(repr, step.tokens_s.xs))}]
tokens_s = [{", ".join(map(repr, step.tokens_s.ys))}]
decode_sequence_s = {step.decode_sequence_s!r}
prefill_pair_s = {step.prefill_pair_s!r}
decode_context_token_s = {step.decode_context_token_s!r}
kv_room_bytes = {setting.kv_tokens // BLOCK_TOKENS * BLOCK_TOKENS * shape.kv_bytes_per_token}
chunk_tokens = {setting.chunk_tokens}
block_tokens = {BLOCK_TOKENS}
load_cold_s = 0.0
load_warm_s = 0.0
"""
