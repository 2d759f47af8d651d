"""Small scenarios for the simulator's tests: fleets of a few workers, workloads of a few seconds."""

from typing import Any

from headrace.core.slo import CLASSES, SloClass
from headrace.sim.result import Result
from headrace.sim.run import Run
from headrace.workload.fleet import Fleet, Incident, PoolSpec
from headrace.workload.multimodal import Multimodal, TextOnly
from headrace.workload.open import Generated, Stream, Streams
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
OTHER = "mistral-7b"
# Few slots and two models on two workers: the queue has to evict and to swap.
TIGHT = (
    PoolSpec(
        "llm",
        ("prefill", "decode"),
        gpu="a100",
        count=2,
        slots=6,
        models=(TEXT, OTHER),
        load_cold_s=4.0,
        load_warm_s=1.0,
        start_s=2.0,
    ),
)
HURRIED = (
    SloClass("interactive", 1.5, 120.0, 4096),
    SloClass("batch-1", 60.0, 600.0, 4096),
)
SHORT = (SloClass("interactive", 20.0, 60.0, 4096),)


def mixed(rate_rps: float = 4.0, image_share: float = 0.5) -> Generated:
    return Generated(Multimodal(rate_rps=rate_rps, image_share=image_share, profile="flat", bursty=False))


def text(rate_rps: float = 4.0) -> Generated:
    return Generated(TextOnly(rate_rps=rate_rps))


def streams(chat_rps: float = 0.5, jobs_rps: float = 0.4) -> Streams:
    """Interactive requests of one model, and batch requests of two."""
    chat, jobs = Generated(TextOnly("azure-code", chat_rps, 1.0)), Generated(TextOnly("sharegpt", jobs_rps))
    return Streams(
        (
            Stream("chat", chat, slo_class="interactive"),
            Stream("jobs", jobs, slo_class="batch-1"),
            Stream("other", jobs, slo_class="batch-1", model=OTHER),
        )
    )


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
