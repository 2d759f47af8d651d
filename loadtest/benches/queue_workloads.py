"""The three workloads of QLM's evaluation (arXiv 2407.00047, SoCC 2024) for the simulator, with all that is assumed.

Arrivals are a Poisson process; lengths are those of the Azure 2023 conversations (headrace.workload.fitted, the paper's
ShareGPT being out of reach). The fleets are an eighth of a machine room: two instances of unequal speed, ten sequences
each (`max_batch_size` of QLM's released configuration), so that some thousand requests span the two hours in which a
target of an hour can be missed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace.workload import fitted
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario, parse

HORIZON_S = 7_200.0
DRAIN_S = 7_800.0  # beyond the longest time-out: everything that arrived has ended
LOADS = (0.8, 1.0, 1.2, 1.5)
SLOTS = 10
MAX_TOKENS = 1_024  # what every client allows: the longest recorded answer has 1,000 tokens
CLASSES = ("interactive", "batch-1", "batch-2")


@dataclass(frozen=True, slots=True)
class Part:
    """Requests of one model and class, as a share of all."""

    model: str
    slo_class: str
    share: float


@dataclass(frozen=True, slots=True)
class Mega:
    """So many requests have a prompt of this size, log-uniform, instead of a recorded one."""

    share: float = 0.0
    least_tokens: int = 0
    most_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    about: str
    parts: tuple[Part, ...]
    pools: tuple[Mapping[str, Any], ...]
    prompt_tokens_max: int  # longer ones are cut: prompt and answer must fit into the models' context
    mega: Mega = Mega()
    saturating: str = "fcfs"  # the policy whose throughput, with nothing urgent, is the fleet's saturation

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.model for part in self.parts))

    def scenario(self, horizon_s: float = HORIZON_S) -> Scenario:
        """Fleet and classes. What the file would say of the traffic is replaced by arrivals()."""
        raw = {
            "about": self.about,
            "duration_s": horizon_s,
            "drain_s": DRAIN_S,
            "model": self.models[0],
            "workload": {"kind": "generated", "generator": "text", "rate_rps": 1.0},
            "classes": {name: {} for name in CLASSES},
            "fleet": {"link": "infiniband", "pools": [dict(pool) for pool in self.pools]},
        }
        return parse(raw, Path(f"queue_{self.name}.toml"))

    def arrivals(self, rate_rps: float, seed: int, horizon_s: float = HORIZON_S) -> list[Arrival]:
        """In order of time. The n-th request of a seed is the same at every rate, but for when it comes."""
        names = ("time", "part", "prompt", "answer", "mega", "size")
        rngs = dict(zip(names, np.random.default_rng(seed).spawn(len(names)), strict=True))
        most = int(rate_rps * horizon_s + 10 * (rate_rps * horizon_s) ** 0.5 + 10)
        at_s = np.cumsum(rngs["time"].exponential(size=most)) / rate_rps
        assert at_s[-1] > horizon_s, "too few gaps were drawn"
        count = int(np.searchsorted(at_s, horizon_s))
        shares = np.cumsum([part.share for part in self.parts])
        chosen = np.searchsorted(shares / shares[-1], rngs["part"].random(most), side="right")
        prompts = np.minimum(fitted.CONV_INPUT.counts(rngs["prompt"], most), self.prompt_tokens_max)
        answers = np.minimum(fitted.CONV_OUTPUT.counts(rngs["answer"], most), MAX_TOKENS)
        prompts = np.where(rngs["mega"].random(most) < self.mega.share, self._mega(rngs["size"], most), prompts)
        return [
            Arrival(
                at_s=float(at_s[at]),
                input_tokens=int(prompts[at]),
                output_tokens=int(answers[at]),
                max_tokens=MAX_TOKENS,
                slo_class=self.parts[chosen[at]].slo_class,
                model=self.parts[chosen[at]].model,
            )
            for at in range(count)
        ]

    def _mega(self, rng: np.random.Generator, count: int) -> Any:
        if not self.mega.share:
            return np.zeros(count, np.int64)
        low, high = np.log(self.mega.least_tokens), np.log(self.mega.most_tokens)
        return np.rint(np.exp(rng.uniform(low, high, count))).astype(np.int64)


def unhurried(arrivals: list[Arrival]) -> list[Arrival]:
    """The same requests with nothing urgent: what a fleet carries, whatever the order."""
    return [replace(arrival, slo_class="batch-2") for arrival in arrivals]


def _pool(name: str, gpu: str, tp: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "stages": ["prefill", "decode"], "gpu": gpu, "tp": tp, "slots": SLOTS, **more}


# Beside the loaded model the weights of two more lie in host memory: QLM gives 320 GB of it to 70B models. Loading one
# for the first time takes 100 s (`model_swap_time` of its released configuration), later the profile's warm start,
# 2 to 5 s.
_LARGE_MODELS = ("llama-2-70b", "qwen2-72b", "internlm2.5-20b")
_SWAPPING = {"models": list(_LARGE_MODELS), "warm_models": 2, "load_cold_s": 100.0, "host_gb": 80.0}

WORKLOADS: dict[str, Workload] = {
    each.name: each
    for each in (
        Workload(
            "W_A",
            "One 70B model, interactive and batch.",
            (
                Part("llama-2-70b", "interactive", 0.40),
                Part("llama-2-70b", "batch-1", 0.35),
                Part("llama-2-70b", "batch-2", 0.25),
            ),
            (_pool("a10", "a10", 8), _pool("a100", "a100", 2)),
            prompt_tokens_max=3_000,
        ),
        Workload(
            "W_B",
            "Three models on two instances, batch, and some interactive requests of one model.",
            (
                Part("llama-2-70b", "interactive", 0.15),
                Part("llama-2-70b", "batch-1", 0.15),
                Part("llama-2-70b", "batch-2", 0.15),
                Part("qwen2-72b", "batch-1", 0.15),
                Part("qwen2-72b", "batch-2", 0.15),
                Part("internlm2.5-20b", "batch-1", 0.125),
                Part("internlm2.5-20b", "batch-2", 0.125),
            ),
            (
                _pool("a10", "a10", 8, model="llama-2-70b", **_SWAPPING),
                _pool("a100", "a100", 4, model="qwen2-72b", **_SWAPPING),
            ),
            prompt_tokens_max=3_000,
            saturating="headrace+oracle",
        ),
        Workload(
            "W_C",
            "One 72B model; six prompts of a hundred are as long as a book's chapter.",
            (
                Part("qwen2-72b", "interactive", 0.40),
                Part("qwen2-72b", "batch-1", 0.35),
                Part("qwen2-72b", "batch-2", 0.25),
            ),
            (_pool("a10", "a10", 8), _pool("a100", "a100", 4)),
            prompt_tokens_max=8_000,
            mega=Mega(0.06, 8_000, 24_000),
        ),
    )
}
