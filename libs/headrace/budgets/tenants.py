"""What watts are worth to a tenant: the share of its requests that keep its promises, by the request simulator.

A tenant has instances of its own that prefill and decode. Each point of its table is a simulated stretch at one load
and one cap; the cap's speeds follow from the power law.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.budgets.loads import decode_s, prefill_s
from headrace.control.constants import GPUS
from headrace.control.power import decode_rate, speed_under
from headrace.core.budget.facts import Utility
from headrace.core.governing import Governance, Speeds
from headrace.core.slo import SloClass
from headrace.profiles import instance
from headrace.sim.governor import SpeedChange
from headrace.sim.run import simulate
from headrace.workload.arrival import Arrival
from headrace.workload.fleet import Fleet, PoolSpec
from headrace.workload.multimodal import TextOnly
from headrace.workload.open import Generated
from headrace.workload.quantiles import Quantiles
from headrace.workload.scenario import Scenario

Floats = NDArray[np.float64]
LOADS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7)
TENANT_LEAST = 0.18  # watts beside full ones, just above those of a GPU that idles with a model
WATTS = (TENANT_LEAST, 0.25, 0.35, 0.45, 0.6, 0.8, 1.0)
SLOTS = 64
PROMPT_MOST = 8_000
DRAWS = 4_000  # of lengths, for the mean work of a request


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    prompts: Quantiles
    outputs: Quantiles
    ttft_s: float  # promised to every request
    tbt_s: float  # and on average between its tokens
    model: str = "llama-3.1-8b"
    gpu: str = "h100"
    instances: int = 2


def request_s(tenant: Tenant) -> float:
    """Mean work of a request at full speed, seconds of one instance."""
    step = instance(f"{tenant.gpu}/{tenant.model}/tp1").step
    prompts, outputs = lengths(tenant, np.random.default_rng(0), DRAWS)
    each = zip(prompts.tolist(), outputs.tolist(), strict=True)
    return float(np.mean([prefill_s(step, prompt) + decode_s(step, prompt, output) for prompt, output in each]))


def lengths(tenant: Tenant, rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    prompts = np.minimum(tenant.prompts.counts(rng, count), PROMPT_MOST)
    return prompts, tenant.outputs.counts(rng, count)


def measured(tenant: Tenant, seed: int, seconds: float) -> Utility:
    """By a simulated stretch for each load and watts; never less with more watts, as noise would have it."""
    work_s = request_s(tenant)
    done = np.array([[kept(tenant, load, watts, seed, seconds, work_s) for watts in WATTS] for load in LOADS])
    done = np.maximum.accumulate(done, axis=1)
    rows = tuple(tuple(float(value) for value in row) for row in done)
    return Utility((0.0, *LOADS), WATTS, (rows[0], *rows))


def kept(tenant: Tenant, load: float, watts: float, seed: int, seconds: float, work_s: float) -> float:
    """The share of requests that keep their promises at this load with so many watts beside full ones."""
    kind = GPUS[tenant.gpu]
    cap_w = watts * kind.prefill_w
    prefill = float(speed_under(kind, cap_w, kind.prefill_w))
    decode = float(decode_rate(kind, speed_under(kind, cap_w, kind.decode_w)))
    rate = load * tenant.instances / work_s
    said = SpeedChange(0.0, Governance("llm", speeds=Speeds(prefill, decode, 1.0)))
    arrivals = _arrivals(tenant, rate, seed, seconds)
    result = simulate(_scenario(tenant, seed, seconds), "fcfs", seed, arrivals=arrivals, speeds=[said])
    with np.errstate(invalid="ignore"):
        slow = result.requests.tbt_s > tenant.tbt_s
    return float((result.met() & ~slow).mean()) if len(result.requests) else 1.0


def _arrivals(tenant: Tenant, rate: float, seed: int, seconds: float) -> Iterator[Arrival]:
    rng = np.random.default_rng([seed, 41])
    count = int(rate * seconds * 1.5) + 50
    times = np.cumsum(rng.exponential(1.0 / rate, count))
    prompts, outputs = lengths(tenant, rng, count)
    for at_s, prompt, output in zip(times.tolist(), prompts.tolist(), outputs.tolist(), strict=True):
        if at_s < seconds:
            yield Arrival(at_s, prompt, output, slo_class="own", model=tenant.model, ttft_s=tenant.ttft_s)


def _scenario(tenant: Tenant, seed: int, seconds: float) -> Scenario:
    pool = PoolSpec("llm", ("prefill", "decode"), gpu=tenant.gpu, count=tenant.instances, slots=SLOTS, host_gb=0.0)
    return Scenario(
        name=tenant.name,
        about="",
        seed=seed,
        duration_s=seconds,
        drain_s=2.0 * tenant.ttft_s,
        model=tenant.model,
        workload=Generated(TextOnly()),
        classes=(SloClass("own", tenant.ttft_s, 600.0, 1 << 20),),
        shares=(1.0,),
        fleet=Fleet((pool,)),
    )
