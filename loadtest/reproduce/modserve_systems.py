"""The systems that are compared: one simulator, each system a fleet and its switches. All of them on A100s.

ModServe's systems differ from the one before by one switch. The last ones are ours or controls, and say so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.core.slo import SloClass
from headrace.core.stages.places import Line
from headrace.core.stages.routing import Routing
from headrace.core.types import StageName
from headrace.workload.fleet import Fleet, PoolSpec
from headrace.workload.multimodal import Multimodal
from headrace.workload.open import Generated
from headrace.workload.queueing import Queueing
from headrace.workload.scenario import Scenario
from loadtest.reproduce.modserve_traffic import CLASS

MODELS = ("llama-3.2-11b-vision", "internvl-2.5-26b")
GPU = "a100"
SLOTS = 256  # sequences of an instance: vLLM's default [I]; the paper does not say
NEVER_S = 100_000.0  # nobody gives up: a deadline would hide what it does to the 99th percentile
# An instance has its requests from the moment they are routed, as ModServe's have; nothing waits before it.
WINDOW_TOKENS = 1 << 30
# The clocks of an idle fleet, slowed down: heartbeats and ticks would be half of all events.
CLOCKS = {"heartbeat_s": 5.0, "lease_s": 20.0, "tick_s": 2.0}
# Prefill begins once all of a request's pictures are there, as in the paper.
ALL_THERE = {"overlap": 0.0}


@dataclass(frozen=True, slots=True)
class Shape:
    """How many instances: of a monolith, or of both stages."""

    whole: int = 32  # [P] section 5.2
    text: int = 20
    image: int = 48
    whole_tp: int = 4  # [P]
    text_tp: int = 4
    image_tp: int = 1

    @property
    def gpus(self) -> tuple[int, int]:
        return self.whole * self.whole_tp, self.text * self.text_tp + self.image * self.image_tp


PAPER_SHAPE = Shape()


@dataclass(frozen=True, slots=True)
class System:
    title: str
    about: str
    monolith: bool = False
    routing: Routing = "round-robin"
    line: Line = "fifo"
    together: bool = True  # of a monolith: one line for encoding and prefill
    batch_max: int = 1  # parts in a tower at once: seconds are linear in tiles, so that more only wait for one another
    cache_mb: int = 0
    policy: str = "fcfs"  # of the queue manager
    settings: Mapping[str, Any] = field(default_factory=dict)


_MODSERVE = System("ModServe", "least pending tokens, slack order", routing="least-pending", line="slack")
SYSTEMS: dict[str, System] = {
    "monolith": System("monolith", "encoding, prefill and decode in one worker; one line, by arrival", monolith=True),
    "decoupled": System("decoupled", "image and text instances; round robin, by arrival"),
    "scheduled": System("+ scheduling", "the same, in order of slack at every instance", line="slack"),
    "modserve": replace(_MODSERVE, title="+ routing (ModServe)"),
    # The other reading of a system that does not route.
    "decoupled_random": System(
        "decoupled, at random", "image and text instances; random ones, by arrival", routing="random"
    ),
    "scheduled_random": System(
        "+ scheduling, at random", "the same, in order of slack at every instance", routing="random", line="slack"
    ),
    # Controls.
    "monolith_balanced": System(
        "monolith, both switches", "least pending tokens and slack order", True, "least-pending", "slack"
    ),
    "monolith_batched": System(
        "monolith, 16 images at once", "all images of a request in one batch, decoding waits", True, batch_max=16
    ),
    "random": System("random", "random instances, random order", routing="random", line="random"),
    "shortest": replace(_MODSERVE, title="oracle order", about="true service times, shortest first", line="shortest"),
    "fifo_routed": replace(_MODSERVE, title="routing alone", about="least pending, by arrival", line="fifo"),
    # Ours.
    "colocated": System(
        "ours: no pools",
        "workers of all stages that take turns; a request's images spread over all of them",
        True,
        "least-pending",
        together=False,
    ),
    "headrace": System(
        "ours: planner",
        "request groups in virtual queues (policy headrace)",
        routing="least-pending",
        policy="headrace",
        settings={"plan_nodes": 0, "replan_s": 10.0},
    ),
    "cached": replace(
        _MODSERVE, title="ours: encoder cache", about="ModServe, and a third of the pictures repeat", cache_mb=2_048
    ),
}
PAPER_SYSTEMS = ("monolith", "decoupled", "scheduled", "modserve")
RANDOMLY = ("decoupled_random", "scheduled_random")
CONTROLS = ("monolith_balanced", "monolith_batched", "random", "shortest", "fifo_routed")
OURS = ("colocated", "headrace", "cached")
REPEATS = {"cached": 1 / 3}  # of pictures [I]: the trace does not say what its pictures are


def pools(system: System, shape: Shape, encode_times: float) -> tuple[PoolSpec, ...]:
    common: dict[str, Any] = {
        "gpu": GPU,
        "line": system.line,
        "batch_max": system.batch_max,
        "encoder_cache_mb": system.cache_mb,
        "encode_times": encode_times,
    }
    if system.monolith:
        stages: tuple[StageName, ...] = ("encode", "prefill", "decode")
        return (PoolSpec("whole", stages, tp=shape.whole_tp, count=shape.whole, slots=SLOTS, **common),)
    return (
        PoolSpec("image", ("encode",), tp=shape.image_tp, count=shape.image, **common),
        PoolSpec("text", ("prefill", "decode"), tp=shape.text_tp, count=shape.text, slots=SLOTS, **common),
    )


def queueing(system: System) -> Queueing:
    return Queueing(system.routing, system.monolith and system.together, WINDOW_TOKENS)


def scenario(
    name: str,
    model: str,
    fleet: tuple[PoolSpec, ...],
    queue: Queueing,
    duration_s: float,
    clocks: Mapping[str, float] = CLOCKS,
) -> Scenario:
    """Without a workload of its own: requests are handed over."""
    return Scenario(
        name=f"modserve {name}",
        about="",
        seed=1,
        duration_s=duration_s,
        drain_s=NEVER_S,
        model=model,
        workload=Generated(Multimodal(rate_rps=1.0, profile="flat")),
        classes=(SloClass(CLASS, NEVER_S, NEVER_S, 1 << 30),),
        shares=(1.0,),
        fleet=Fleet(fleet),
        mesh={**clocks, **ALL_THERE},
        queue=queue,
    )
