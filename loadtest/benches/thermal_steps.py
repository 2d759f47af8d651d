"""What a step of a thermal controller costs: milliseconds on one thread, and the energy that it takes itself."""

import time
from typing import Any

import numpy as np

from headrace.control.constants import H100
from headrace.control.thermal import CONTROLLERS, DEFAULT, Observed
from headrace.control.thermal.decision_transformer import Filtered
from headrace.control.thermal.network import Network
from headrace.control.trial import Acts
from headrace.mesh.sensors import Rapl

GPUS, STEPS, WARM = 8, 200, 5
CORE_W = 10.0  # [I] of a server's core that computes, where RAPL cannot be read: 400 W over 40 cores


def step_costs(networks: dict[str, Network], gpus: int = GPUS, steps: int = STEPS) -> dict[str, Any]:
    """Of the default controller, and of each network with it behind the filter."""
    found = {DEFAULT: _cost(CONTROLLERS[DEFAULT](H100, gpus), gpus, steps)}
    return found | {name: _cost(Filtered(H100, gpus, network), gpus, steps) for name, network in networks.items()}


def _cost(controller: Acts, gpus: int, steps: int) -> dict[str, Any]:
    rng, took, energy = np.random.default_rng(0), [], _Energy()
    for step in range(steps + WARM):
        seen = Observed(
            rng.uniform(60, 90, gpus), rng.uniform(120, 700, gpus), rng.random(gpus), rng.random(gpus), np.ones(gpus)
        )
        if step == WARM:
            energy.begin()
        began_s = time.perf_counter()
        controller.act(seen)
        took.append(1e3 * (time.perf_counter() - began_s))
    used = energy.end(steps)
    p50, p99 = np.percentile(took[WARM:], [50, 99]).tolist()
    return {"gpus": gpus, "p50_ms": p50, "p99_ms": p99, **used}


class _Energy:
    """RAPL's counter where it can be read (the machine's packages, whoever uses them), else processor time x watts."""

    def __init__(self) -> None:
        self._rapl = Rapl()
        self._began_j, self._began_s = -1.0, 0.0

    def begin(self) -> None:
        self._began_j, self._began_s = self._joules(), time.process_time()

    def end(self, steps: int) -> dict[str, Any]:
        ended_s, ended_j = time.process_time(), self._joules()
        processor_s = (ended_s - self._began_s) / steps
        measured = self._began_j >= 0.0 and ended_j > self._began_j
        joules = (ended_j - self._began_j) / steps if measured else CORE_W * processor_s
        how = "RAPL" if measured else f"processor time x {CORE_W:.0f} W, an assumption: RAPL cannot be read"
        return {"processor_ms": 1e3 * processor_s, "joules_per_step": joules, "energy_by": how}

    def _joules(self) -> float:
        packages = [one.energy_j for one in self._rapl.read() if one.energy_j >= 0.0]
        return sum(packages) if packages else -1.0
