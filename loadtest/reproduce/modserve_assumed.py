"""What ModServe's figures rest on here: what was calibrated on what, and every value that the paper does not give."""

from collections.abc import Mapping
from typing import Any

from headrace.profiles import encoder, instance, model
from headrace.report.assumptions import Assumption, source_lines
from loadtest.reproduce import modserve_ratio, modserve_scaling, modserve_separated
from loadtest.reproduce.modserve_plan import FACTORS, ORDER_FACTOR, Plan
from loadtest.reproduce.modserve_runs import WARM_SHARE
from loadtest.reproduce.modserve_systems import CLOCKS, SLOTS
from loadtest.reproduce.modserve_traffic import TEXT_MOST, Traffic, left_out


def assumptions(plan: Plan) -> tuple[Assumption, ...]:
    return (
        Assumption("Traffic", _traffic(plan)),
        Assumption("What the paper does not say, and what stands here", _unsaid()),
        Assumption("What the model of a monolith is", _MONOLITH),
        *_profiles(plan),
    )


def _traffic(plan: Plan) -> tuple[str, ...]:
    out = ", ".join(
        f"{left_out(name, plan.seeds[:3], Traffic(1.0, plan.requests)):.2%} for {name}" for name in plan.models
    )
    return (
        "The Azure LMM trace's file is not at hand: requests are drawn by headrace.workload.multimodal, from quantiles"
        " read off its published plots ([M], ±2 %): gaps of text requests, spikes of image requests, images a request"
        " (clipped to 1 to 16, where 1, 4, 9 and 16 occur).",
        "A rate is the same minutes pressed into less time: spikes shrink with everything else. All systems and rates"
        " of a seed get the same requests (common random numbers).",
        "The paper's contents are ShareGPT-4o's; here image sizes have its median of 500 px [P] with a spread of ours"
        f" [I], text and answers the Azure trace's lengths, of text at most {TEXT_MOST:,} tokens [I].",
        f"Left out as larger than a model's context: {out}.",
        f"The first {WARM_SHARE:.0%} of a run's requests are not counted.",
    )


def _unsaid() -> tuple[str, ...]:
    return (
        f"[?] The SLO factor: all of {', '.join(f'{f:g}' for f in FACTORS)}; none is chosen. The order of slack"
        f" and the autoscaler's attainment go by {ORDER_FACTOR:g} [I].",
        "[?] The scheduler's formula: least slack, the target of a request's kind less what it takes [I].",
        "[?] How the decoupled system routes: round robin, and random beside it.",
        "[?] How the monolith's requests are spread: round robin, as the decoupled system's; both switches beside.",
        "[?] The loads: requests a second of ours, from light to more than the monolith can do.",
        f"[?] Sequences of an instance: {SLOTS}. Images in a tower at once: one, for its seconds are linear in tiles"
        " [P].",
        f"[?] Ratio study's load: {modserve_ratio.RATE_SHARE:.0%} of the monolith's capacity. Decode pool of the"
        f" separated fleets: {modserve_separated.DECODES} instances.",
        f"[?] Start of an instance: {modserve_scaling.START_S:g} s; window, step and hysteresis of the autoscaler as in"
        " core/scaling/published.py.",
        f"Clocks of the mesh, slowed down since they only cost events: {_said(CLOCKS)}.",
    )


_MONOLITH = (
    "A worker of one GPU group that encodes, prefills and decodes, one after the other: an iteration of the LLM between"
    " two images, prefill by chunks beside decoding.",
    "One line: who came first is encoded and prefilled first, and a question of text waits for the images before it."
    " That is the paper's engine (vLLM 0.7.2) as we read it [I]; newer engines differ, and so do ours: `no pools`.",
    "Kinder to it than that engine: its decoding gets a turn between two images of a request [I].",
)


def _profiles(plan: Plan) -> tuple[Assumption, ...]:
    found: dict[str, Assumption] = {}
    for name in plan.models:
        for tp in ("tp1", "tp4"):
            tower = encoder(f"a100/{name}/{tp}")
            found.setdefault(tower.name, Assumption(f"Encoder profile {tower.name}", source_lines(tower.source)))
        llm = instance(f"a100/{name}/tp4")
        found.setdefault(llm.name, Assumption(f"Instance profile {llm.name}", source_lines(llm.source)))
        found.setdefault(name, Assumption(f"Model {name}", source_lines(model(name).source)))
    return tuple(found.values())


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in values.items())
