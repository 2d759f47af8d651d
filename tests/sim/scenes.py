"""Small scenarios for the simulator's tests: fleets of a few workers, workloads of a few seconds."""

from typing import Any

from headrace.core.slo import CLASSES, SloClass
from headrace.sim.result import Result
from headrace.sim.run import Run
from headrace.workload.fleet import Fleet, Incident, PoolSpec
from headrace.workload.multimodal import Multimodal, TextOnly
from headrace.workload.open import Generated
from headrace.workload.scenario import Scenario

TEXT = "llama-3.1-8b"
VISION = "llama-3.2-11b-vision"  # across
LLAVA = "llava-onevision-7b"  # in the sequence

SEPARATED = (
    PoolSpec("encode", ("encode",), gpu="a100", tp=1, count=2),
    PoolSpec("prefill", ("prefill",), gpu="a100", tp=4, count=2),
    PoolSpec("decode", ("decode",), gpu="a100", tp=4, count=2),
)
COLOCATED = (
    PoolSpec("encode", ("encode",), gpu="a100", tp=1, count=2),
    PoolSpec("llm", ("prefill", "decode"), gpu="a100", tp=4, count=2),
)
WHOLE = (PoolSpec("all", ("encode", "prefill", "decode"), gpu="a100", tp=4, count=2),)
FLEETS = {"separated": SEPARATED, "colocated": COLOCATED, "whole": WHOLE}
SHORT = (SloClass("interactive", 20.0, 60.0, 4096),)


def mixed(rate_rps: float = 4.0, image_share: float = 0.5) -> Generated:
    return Generated(Multimodal(rate_rps=rate_rps, image_share=image_share, profile="flat", bursty=False))


def text(rate_rps: float = 4.0) -> Generated:
    return Generated(TextOnly(rate_rps=rate_rps))


def scene(
    pools: tuple[PoolSpec, ...] = SEPARATED,
    workload: Any = None,
    *,
    duration_s: float = 20.0,
    drain_s: float = 600.0,
    model: str = VISION,
    incidents: tuple[Incident, ...] = (),
    link: Any = "infiniband",
    classes: tuple[SloClass, ...] = (CLASSES["interactive"],),
    **mesh: float,
) -> Scenario:
    return Scenario(
        name="scene",
        about="",
        seed=1,
        duration_s=duration_s,
        drain_s=drain_s,
        model=model,
        workload=workload or mixed(),
        classes=classes,
        shares=(1 / len(classes),) * len(classes),
        fleet=Fleet(pools, link),
        incidents=incidents,
        mesh=mesh,
    )


def run(scenario: Scenario, seed: int = 1, policy: str = "fcfs", *, one_by_one: bool = False) -> Result:
    run = Run(scenario, policy, seed)
    run.world.one_by_one = one_by_one
    run.go()
    return run.result(1.0)
