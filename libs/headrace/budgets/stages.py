"""The budget game of one model's stages: each pool's utility by the power law, its loads by a trace."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import GpuKind
from headrace.control.power import compute_rate, decode_rate, speed_under
from headrace.core.budget.facts import Facts, Player, Utility
from headrace.core.budget.loads import estimate
from headrace.core.errors import InvalidInput

Floats = NDArray[np.float64]
LEVELS = (0.3, 0.45, 0.6, 0.8, 1.0)
CLASSES = 3
EMERGENCY = 0.75  # of a row's limit that an emergency leaves
EMERGENCY_P, OVER_P = 0.01, 0.1  # that one begins, or ends, within an epoch [I]
LOADS = tuple(float(load) for load in np.linspace(0.0, 2.0, 21))
WATTS = tuple(float(watts) for watts in np.linspace(0.15, 1.0, 35))


def rate(kind: GpuKind, stage: str, watts: Floats) -> Floats:
    """Of a stage's work, beside full speed, with so many watts beside the GPU's own limit."""
    cap_w = watts * kind.prefill_w
    if stage == "decode":
        return decode_rate(kind, speed_under(kind, cap_w, kind.decode_w))
    return compute_rate(speed_under(kind, cap_w, kind.prefill_w))


def utility(kind: GpuKind, stage: str) -> Utility:
    """The share of a load that is done as it comes: what the stage can do beside what is asked."""
    able = rate(kind, stage, np.array(WATTS))
    done = [[1.0 if load <= each else float(each / load) for each in able] for load in LOADS]
    return Utility(LOADS, WATTS, tuple(tuple(row) for row in done))


def headroom(budget: float) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """Classes of a row's limit, and how they follow one another: now and then an emergency takes a quarter.

    budget: beside all watts at full speed."""
    return (EMERGENCY * budget, budget), ((1.0 - OVER_P, OVER_P), (EMERGENCY_P, 1.0 - EMERGENCY_P))


def facts(
    pools: Mapping[str, int], loads: Floats, kind: GpuKind, budget: float, *, kappa: float, price: float
) -> Facts:
    """pools: GPUs of each stage; loads: [epoch, pool], in their order. Raises InvalidInput."""
    gpus = sum(pools.values())
    if min(pools.values()) < 1:
        raise InvalidInput("every pool needs a GPU", field="pools")
    classes, following = headroom(budget)
    players = tuple(
        Player(name, count / gpus, estimate(loads[:, at], CLASSES), utility(kind, name))
        for at, (name, count) in enumerate(pools.items())
    )
    return Facts(players, LEVELS, classes, following, kappa, price, "least")
