"""Demonstrations of experts whose models are wrong: the honest place where an imitator can do better than they do."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headrace.control.experts import Expert
from headrace.control.experts.lqg import Lqg
from headrace.control.experts.thermal import Thermal
from headrace.control.tasks import CONVECTION, Episodes, LinearTask, Model, Task, complib, play
from headrace.control.tasks.fields import Convection, Wave

# A plant of COMPleib is taken to be faster (A) and its actuators stronger (B) by factors 1 + PLANT x N(0, 1), and
# noise of its own is assumed for every state and sensor (variance 0.001): without it a Kalman filter of a plant whose
# sensors are exact trusts its model so much that the smallest error is ruinous. Convection: all three constants by
# 1 + CONVECTION_OFF x N(0, 1). Waves: the speed by 1 + WAVE_OFF x N(0, 1). On seeds 60,001 on, where this
# was chosen with six of the eight, none ran away and they cost 1.0 to 4.5 times what the exact model does; the last one
# of ac3's does run away.
PLANT, ASSUMED, CONVECTION_OFF, WAVE_OFF = 0.1, 0.1, 0.3, 0.1
EXPERTS, EACH = 8, 25  # wrong experts, demonstrations of each
KEPT = 50  # of all, by return
# Of the thermal plant the controllers' own models are wrong already: every seed has other resistances.
THERMAL = ("kalman", "lqg", "pid", "rule")
SEEDS_FROM = 70_001


def wrong_experts(task: Task) -> list[Expert]:
    if not isinstance(task, LinearTask):
        return [Thermal(name) for name in THERMAL]
    off = _MODELS.get(task.name, _plant)
    return [Lqg(task, off(task.name, np.random.default_rng([number, 7]))) for number in range(EXPERTS)]


def _plant(name: str, rng: np.random.Generator) -> Model:
    plant, (fast, strong) = complib.published(name), 1.0 + PLANT * rng.standard_normal(2)
    model = complib.discrete(replace(plant, a=plant.a * fast, b2=plant.b2 * strong))
    n, p = len(model.a), len(model.c)
    return replace(
        model,
        g=np.hstack([model.g, ASSUMED * np.eye(n), np.zeros((n, p))]),
        d=np.hstack([model.d, np.zeros((p, n)), ASSUMED * np.eye(p)]),
    )


def _convection(_: str, rng: np.random.Generator) -> Model:
    known, by = Convection(), 1.0 + CONVECTION_OFF * rng.standard_normal(3)
    return Convection(known.diffusivity * abs(by[0]), known.velocity * by[1], known.reaction * by[2]).model()


def _wave(_: str, rng: np.random.Generator) -> Model:
    return Wave(Wave().speed * (1.0 + WAVE_OFF * rng.standard_normal())).model()


_MODELS: dict[str, Callable[[str, np.random.Generator], Model]] = {CONVECTION: _convection, "wave": _wave}


def shown_by(task: Task, experts: list[Expert]) -> tuple[Episodes, list[float]]:
    """All demonstrations, each expert's on seeds of its own, and each expert's mean cost on them."""
    each = EXPERTS * EACH // len(experts)
    shown = []
    for number, expert in enumerate(experts):
        first = SEEDS_FROM + number * each
        shown.append(play(task, expert.begin(each), range(first, first + each)))
    return _joined(shown), [float(one.total.mean()) for one in shown]


def best(shown: Episodes, count: int) -> Episodes:
    return _at(shown, np.argsort(shown.total)[:count])


def anyhow(shown: Episodes, count: int) -> Episodes:
    """As many, whatever their return: the control."""
    return _at(shown, np.random.default_rng(0).permutation(len(shown.costs))[:count])


def _at(shown: Episodes, which: NDArray[np.int64]) -> Episodes:
    return Episodes(shown.seen[which], shown.actions[which], shown.costs[which], shown.violated[which])


def _joined(shown: list[Episodes]) -> Episodes:
    parts = zip(*((each.seen, each.actions, each.costs, each.violated) for each in shown), strict=True)
    return Episodes(*(np.concatenate(part) for part in parts))
