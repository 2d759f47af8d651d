"""The load and the machines on which everything together meets its parts: text and images, interactive and batch, with
bursts of images; twelve A100, whatever the system makes of them.

All of it was set before any system ran on it [I], but for what is said to be somebody else's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.workload.scenario import Scenario, parse

MODEL = "llama-3.2-11b-vision"  # ModServe's own example, and the one its encoder's seconds were calibrated on
GPU = "a100"
GPUS = 12
TP = 4  # of the LLM, ModServe's for this model [P]
SLOTS = 10  # sequences of an instance: `max_batch_size` of QLM's released configuration [C]
ENCODERS = 4  # of one GPU each; ModServe's static layout has 48 to 20 LLMs of four [P], which leaves no LLM here
DURATION_S = 600.0
DRAIN_S = 1_200.0
# Requests a second that come anyway. The monolith answers about 7 with no image burst, stages apart about 11 [M, one
# run of FCFS on a seed that is not reported]: below, at and beyond what the better layout can do.
RATES_RPS = (8.0, 11.0, 14.0)
IMAGE_SHARE = 0.2  # of the requests that come anyway
BURSTS_S = ((120.0, 45.0), (300.0, 30.0), (465.0, 60.0))  # when, how long
BURST_SHARE = 0.3  # image requests a second that a burst adds, of the rate that comes anyway
REPEATS = {"share": 0.3, "pool": 100, "zipf": 0.8}  # of the images: asked about by several
CLASSES = {"interactive": {"share": 5}, "batch-1": {"share": 3}, "batch-2": {"share": 2}}  # QLM's targets
START_S = {"encode": 25.0, "llm": 60.0, "all": 60.0}  # from the order: weights lie in host memory
# Of an encoder's memory, for embeddings that wait: 10 GB of an A100's 80, at 15,360 bytes a token of ViT-H's.
ENCODER_MEMORY_TOKENS = 650_000
CLOCKS = {"heartbeat_s": 1.0, "lease_s": 4.0}  # fewer events where nothing happens


@dataclass(frozen=True, slots=True)
class Load:
    """rate_rps: of what comes anyway; bursts come on top."""

    rate_rps: float
    duration_s: float = DURATION_S

    def __str__(self) -> str:
        return f"{self.rate_rps:.2f} requests/s for {self.duration_s:g} s"

    def workload(self) -> dict[str, Any]:
        whole = self.duration_s / DURATION_S
        bursts = [
            {
                "at_s": at_s * whole,
                "seconds": seconds * whole,
                "rate_rps": BURST_SHARE * self.rate_rps,
                "image_share": 1.0,
            }
            for at_s, seconds in BURSTS_S
        ]
        return {
            "kind": "generated",
            "generator": "multimodal",
            "rate_rps": self.rate_rps,
            "image_share": IMAGE_SHARE,
            "profile": "flat",
            "bursty": False,
            "bursts": bursts,
            "repeats": dict(REPEATS),
            "allowance": 2.0,  # what clients allow, of what is answered
        }


def scenario(load: Load, *, apart: bool, cache: bool, scaled: str = "") -> Scenario:
    """apart: encoders in a pool of their own. cache: embeddings are kept. scaled: by which autoscaler, if by any."""
    pools = [_encoders(cache), _llm()] if apart else [_whole(cache)]
    raw: dict[str, Any] = {
        "about": "text and images, interactive and batch, bursts of images",
        "duration_s": load.duration_s,
        "drain_s": DRAIN_S,
        "model": MODEL,
        "workload": load.workload(),
        "classes": CLASSES,
        "mesh": CLOCKS,
        "fleet": {"link": "infiniband", "pools": pools},
    }
    if scaled:
        raw["autoscale"] = {"policy": scaled, "gpus_max": GPUS, "pools": {each["name"]: {"min": 1} for each in pools}}
    return parse(raw, Path("together.toml"))


def _encoders(cache: bool) -> Mapping[str, Any]:
    return _pool("encode", ["encode"], 1, ENCODERS, cache)


def _llm() -> Mapping[str, Any]:
    return _pool("llm", ["prefill", "decode"], TP, (GPUS - ENCODERS) // TP, True)


def _whole(cache: bool) -> Mapping[str, Any]:
    return _pool("all", ["encode", "prefill", "decode"], TP, GPUS // TP, cache)


def _pool(name: str, stages: list[str], tp: int, count: int, cache: bool) -> dict[str, Any]:
    pool: dict[str, Any] = {"name": name, "stages": stages, "gpu": GPU, "tp": tp, "count": count}
    pool |= {"start_s": START_S[name]} | ({"slots": SLOTS} if "decode" in stages else {})
    return pool | ({} if cache else {"encoder_cache_mb": 0})
