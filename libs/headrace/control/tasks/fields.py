"""Two linear fields on a ring, solved exactly in Fourier space: convection-diffusion-reaction, and waves.

As in controlgym 1.0.0 (arXiv:2311.18736), with its defaults: 200 states, ten sensors with noise of variance 0.25,
eight actuators of a tenth of the ring each, no noise in the field itself, a bump to begin with whose height and width
vary. A target of 0, and a state costs as much as an action.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.control.tasks.base import Floats
from headrace.control.tasks.linear import LinearTask, Model

STATES, SENSORS, ACTUATORS = 200, 10, 8
WIDTH = 0.1  # of an actuator, share of the ring
SENSOR_VAR = 0.25
STEP_S = 0.1
STEPS = 100  # controlgym's for convection; half of it for waves
HEIGHTS, SPREADS = (0.9, 1.1), (0.04, 0.06)  # uniform
# Nothing is charged for what an episode leaves: a wave that no actuator reaches would ring, and cost, for ever.
NOTHING_LEFT = np.zeros((STATES, STATES))
_NODES = 16  # of the quadrature over spreads


@dataclass(frozen=True, slots=True)
class Convection:
    """u_t = diffusivity u_xx - velocity u_x + reaction u."""

    diffusivity: float = 0.002
    velocity: float = 0.1
    reaction: float = 0.1

    def model(self) -> Model:
        k = _wavenumbers(STATES)
        rates = -1j * self.velocity * k - self.diffusivity * k**2 + self.reaction
        mean, cov = _start_moments(_grid(STATES))
        return _field(_circulant(np.exp(rates * STEP_S)), _supports(STATES), mean, cov)


@dataclass(frozen=True, slots=True)
class Wave:
    """u_tt = speed^2 u_xx; the state holds u, then u_t, which the actuators push."""

    speed: float = 0.1

    def model(self) -> Model:
        half = STATES // 2
        k = self.speed * _wavenumbers(half)
        still = np.isclose(k, 0.0)
        turned = np.where(still, STEP_S, np.sin(k * STEP_S) / np.where(still, 1.0, k))
        cos = _circulant(np.cos(k * STEP_S) + 0j)
        a = np.block([[cos, _circulant(turned + 0j)], [_circulant(-k * np.sin(k * STEP_S) + 0j), cos]])
        b = np.vstack([np.zeros((half, ACTUATORS)), _supports(half)])
        mean, cov = _start_moments(_grid(half))
        return _field(a, b, np.append(mean, np.zeros(half)), np.pad(cov, (0, half)))


def convection(name: str, field: Convection, action_most: float, output_most: float) -> LinearTask:
    model = field.model()
    return LinearTask(name, model, _convection_start, STEPS, action_most, output_most, NOTHING_LEFT)


def wave(name: str, field: Wave, action_most: float, output_most: float) -> LinearTask:
    model = field.model()
    return LinearTask(name, model, _wave_start, STEPS, action_most, output_most, NOTHING_LEFT)


def bump(grid: Floats, height: float, spread: float) -> Floats:
    found: Floats = height / np.cosh((grid - 0.5) / spread)
    return found


def _convection_start(rng: np.random.Generator) -> Floats:
    return bump(_grid(STATES), rng.uniform(*HEIGHTS), rng.uniform(*SPREADS))


def _wave_start(rng: np.random.Generator) -> Floats:
    half = STATES // 2
    return np.append(bump(_grid(half), rng.uniform(*HEIGHTS), rng.uniform(*SPREADS)), np.zeros(half))


def _start_moments(grid: Floats) -> tuple[Floats, Floats]:
    """Mean and covariance of a bump: height and spread are independent and uniform."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    spreads = np.mean(SPREADS) + 0.5 * (SPREADS[1] - SPREADS[0]) * nodes
    shapes = np.array([bump(grid, 1.0, spread) for spread in spreads])
    middle = np.mean(HEIGHTS)
    mean = middle * (weights / 2) @ shapes
    second = (middle**2 + (HEIGHTS[1] - HEIGHTS[0]) ** 2 / 12) * (shapes.T * (weights / 2)) @ shapes
    return mean, second - np.outer(mean, mean)


def _field(a: Floats, b: Floats, mean: Floats, cov: Floats) -> Model:
    c = np.zeros((SENSORS, STATES))
    c[np.arange(SENSORS), STATES // SENSORS * np.arange(SENSORS)] = 1.0
    return Model(
        a=a,
        b=b,
        g=np.zeros((STATES, SENSORS)),
        c=c,
        d=np.eye(SENSORS),
        q=np.eye(STATES),
        r=np.eye(ACTUATORS),
        s=np.zeros((STATES, ACTUATORS)),
        noise_var=SENSOR_VAR,
        mean=mean,
        cov=cov,
    )


def _supports(points: int) -> Floats:
    """Where each actuator acts, [points, actuators]."""
    found = np.zeros((points, ACTUATORS))
    for each in range(ACTUATORS):
        middle = int((0.5 + each) * (points // ACTUATORS))
        found[int(middle - 0.5 * WIDTH * points) : int(middle + 0.5 * WIDTH * points), each] = 1.0
    return found


def _grid(points: int) -> Floats:
    return np.arange(points) / points


def _wavenumbers(points: int) -> Floats:
    return 2.0 * np.pi * np.asarray(np.fft.fftfreq(points, 1.0 / points), float)


def _circulant(gains: NDArray[np.complexfloating]) -> Floats:
    """The real matrix that multiplies each Fourier mode by its gain."""
    found: Floats = np.real(np.fft.ifft(gains[:, None] * np.fft.fft(np.eye(len(gains)), axis=0), axis=0))
    return found
