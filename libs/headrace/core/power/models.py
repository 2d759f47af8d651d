"""Inlet, GPU temperature, airflow and power of each server, from its own telemetry (TAPAS, section 1c of the spec).

    inlet(s)   = c0 + c1 x clip(outside, 15, 25) + c2 x max(outside - 25, 0) + c3 x load of the datacentre
    gpu(s, g)  = a0 + a1 x inlet + a2 x watts of the GPU + a3 x those watts x watts of its server's GPUs
    airflow(s) = b0 + b1 x watts of its GPUs
    server(s)  = p0 + p1 x watts of its GPUs + p2 x their square

The fourth term is ours: fans follow the server's power, so a watt heats less in a busy server.

Where a fit's hold-out error is too large the model is refused for that device, and the worst case of its kind is said
instead: what is not known must not look like room.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.power.regressions import Floats, Mask, Regressions

INLET_ERROR_C, GPU_ERROR_C = 1.0, 1.0  # TAPAS' bound on the mean absolute error [R]
AIRFLOW_ERROR, POWER_ERROR = 0.03, 0.03  # of the kind's most
KNOTS_C = (15.0, 25.0)
UNIT_W = 100.0  # of GPU power, so that sums of products are of one size
WARM = 60  # samples: an hour of minutes
HALF_LIFE = 7 * 24 * 60.0  # samples: a week of minutes


@dataclass(frozen=True, slots=True)
class WorstCase:
    """Of a server's kind, for devices that nothing is known of."""

    inlet_c: float
    gpu_c: float
    airflow_m3s: float
    server_w: float


@dataclass(frozen=True, slots=True)
class Sample:
    """All servers at one moment; what cannot be believed is False in `valid` [server]."""

    outside_c: float
    load: float  # of the datacentre, 0 to 1
    inlet_c: Floats  # [server]
    airflow_m3s: Floats
    server_w: Floats
    gpu_w: Floats  # [server, gpu]
    gpu_c: Floats
    valid: Mask


class Models:
    def __init__(self, servers: int, gpus: int, worst: WorstCase) -> None:
        many = {"half_life": HALF_LIFE, "warm": WARM}
        self._worst = worst
        self._inlet = Regressions((servers,), 4, **many)  # type: ignore[arg-type]
        self._gpu = Regressions((servers, gpus), 4, **many)  # type: ignore[arg-type]
        self._airflow = Regressions((servers,), 2, **many)  # type: ignore[arg-type]
        self._power = Regressions((servers,), 3, **many)  # type: ignore[arg-type]

    def learn(self, sample: Sample) -> None:
        servers = len(sample.inlet_c)
        gpus_w = sample.gpu_w.sum(axis=1)
        self._inlet.learn(_weather(sample.outside_c, sample.load, servers), sample.inlet_c, sample.valid)
        wide = np.broadcast_to(sample.valid[:, None], sample.gpu_c.shape)
        self._gpu.learn(_heat(sample.inlet_c, sample.gpu_w), sample.gpu_c, wide)
        self._airflow.learn(_linear(gpus_w), sample.airflow_m3s, sample.valid)
        self._power.learn(_square(gpus_w), sample.server_w, sample.valid)

    def solve(self) -> None:
        for each in (self._inlet, self._gpu, self._airflow, self._power):
            each.solve()

    # --- predictions: of every server, for what its GPUs would draw [server, gpu] ---

    def inlet_c(self, outside_c: float, load: float) -> Floats:
        found = self._inlet.predict(_weather(outside_c, load, len(self._inlet.coefficients)))
        return np.where(self._inlet.trusted(INLET_ERROR_C), found, self._worst.inlet_c)

    def gpu_c(self, inlet_c: Floats, gpu_w: Floats) -> Floats:
        found = self._gpu.predict(_heat(inlet_c, gpu_w))
        return np.where(self._gpu.trusted(GPU_ERROR_C), found, self._worst.gpu_c)

    def airflow_m3s(self, gpu_w: Floats) -> Floats:
        found = self._airflow.predict(_linear(gpu_w.sum(axis=1)))
        most = self._worst.airflow_m3s
        return np.where(self._airflow.trusted(AIRFLOW_ERROR * most), found, most)

    def server_w(self, gpu_w: Floats) -> Floats:
        found = self._power.predict(_square(gpu_w.sum(axis=1)))
        most = self._worst.server_w
        return np.where(self._power.trusted(POWER_ERROR * most), found, most)

    def gpu_w_for(self, gpu_c: float | Floats, inlet_c: Floats) -> Floats:
        """Watts at which each GPU would settle at gpu_c if all of its server drew as much; 0: nothing is known.

        gpu_c: one for all, or [server, 1]."""
        a0, a1, a2, a3 = np.moveaxis(self._gpu.coefficients, -1, 0)
        rise = np.maximum(gpu_c - a0 - a1 * inlet_c[:, None], 0.0)
        # a2 p + a3 p^2 = rise, the smaller root; where the fans win for good, the vertex.
        root = np.sqrt(np.maximum(a2 * a2 + 4.0 * a3 * rise, 0.0))
        found = 2.0 * rise / np.maximum(a2 + root, 1e-6)
        return np.where(self._gpu.trusted(GPU_ERROR_C), UNIT_W * found, 0.0)

    @property
    def refused(self) -> int:
        """Models that are not good enough."""
        bounds = (
            (self._inlet, INLET_ERROR_C),
            (self._gpu, GPU_ERROR_C),
            (self._airflow, AIRFLOW_ERROR * self._worst.airflow_m3s),
            (self._power, POWER_ERROR * self._worst.server_w),
        )
        return sum(int((~each.trusted(most)).sum()) for each, most in bounds)

    def errors(self) -> dict[str, NDArray[np.float64]]:
        """Mean absolute hold-out errors, C, m3/s and W."""
        return {
            "inlet_c": self._inlet.mean_error,
            "gpu_c": self._gpu.mean_error,
            "airflow_m3s": self._airflow.mean_error,
            "server_w": self._power.mean_error,
        }


def _weather(outside_c: float, load: float, servers: int) -> Floats:
    low, high = KNOTS_C
    row = (1.0, float(np.clip(outside_c, low, high)) - low, max(outside_c - high, 0.0), load)
    return np.broadcast_to(np.array(row), (servers, 4))


def _heat(inlet_c: Floats, gpu_w: Floats) -> Floats:
    own, mean = gpu_w / UNIT_W, gpu_w.mean(axis=1, keepdims=True) / UNIT_W
    return np.stack([np.ones_like(own), np.broadcast_to(inlet_c[:, None], own.shape), own, own * mean], axis=-1)


def _linear(watts: Floats) -> Floats:
    return np.stack([np.ones_like(watts), watts / 1_000.0], axis=-1)


def _square(watts: Floats) -> Floats:
    kilowatts = watts / 1_000.0
    return np.stack([np.ones_like(watts), kilowatts, kilowatts * kilowatts], axis=-1)
