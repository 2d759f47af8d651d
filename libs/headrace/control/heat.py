"""Heat of GPUs in two nodes, die and sink, solved exactly over a step in which power, air and inlet stay as they are.

    die  C1 dT1/dt = P - (T1 - T2) / R12
    sink C2 dT2/dt = (T1 - T2) / R12 - (T2 - inlet) / R2

Both modes are real and decay (seconds and half a minute), so the die has at most one extremum inside a step: its peak
is found, not sampled, however long the step is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import GpuKind

Floats = NDArray[np.float64]
AIR_EXPONENT = 0.8  # [I] turbulent flow over fins: the sink's resistance goes with airflow to this power


@dataclass(frozen=True, slots=True)
class Paths:
    """Heat paths of GPUs: capacities of a kind or of each, resistances of each. K/W and J/K, arrays of one shape."""

    die_j_per_k: float | Floats
    sink_j_per_k: float | Floats
    die_sink: Floats
    sink_air: Floats  # at full airflow

    @classmethod
    def of(cls, kind: GpuKind, factor: Floats) -> "Paths":
        """factor: of each GPU's resistances, beside the kind's."""
        return cls(kind.die_j_per_k, kind.sink_j_per_k, kind.die_sink_k_per_w * factor, kind.sink_air_k_per_w * factor)


@dataclass(frozen=True, slots=True)
class Modes:
    """How the two nodes come to rest under an airflow: rates 1/s (negative), fast and slow, and the die's rates."""

    die: Floats  # 1 / (R12 C1)
    sink: Floats  # 1 / (R12 C2)
    air: Floats  # 1 / (R2 C2)
    fast: Floats
    slow: Floats


@dataclass(frozen=True, slots=True)
class Heated:
    """After a step, C."""

    die: Floats
    sink: Floats
    peak: Floats  # of the die, at any moment of the step


def sink_air(paths: Paths, airflow: Floats) -> Floats:
    """Resistance at a share of the full airflow."""
    found: Floats = paths.sink_air * np.power(airflow, -AIR_EXPONENT)
    return found


def modes(paths: Paths, resistance: Floats) -> Modes:
    """resistance: from sink to air, as it is now."""
    die = 1.0 / (paths.die_sink * paths.die_j_per_k)
    sink = 1.0 / (paths.die_sink * paths.sink_j_per_k)
    air = 1.0 / (resistance * paths.sink_j_per_k)
    mean = 0.5 * (die + sink + air)
    apart = np.sqrt(mean * mean - die * air)
    return Modes(die, sink, air, -mean - apart, -mean + apart)


def settled(paths: Paths, resistance: Floats, power_w: Floats, inlet_c: Floats) -> tuple[Floats, Floats]:
    """Die and sink when all has come to rest."""
    sink = inlet_c + resistance * power_w
    return sink + paths.die_sink * power_w, sink


def step(
    paths: Paths, airflow: Floats, die: Floats, sink: Floats, power_w: Floats, inlet_c: Floats, dt_s: float
) -> Heated:
    """From here on, with these watts, for dt_s. airflow: share of the full one, above 0."""
    resistance = sink_air(paths, airflow)
    rates = modes(paths, resistance)
    die_end, sink_end = settled(paths, resistance, power_w, inlet_c)
    off_die, off_sink = die - die_end, sink - sink_end
    # Of the die: fast_part exp(fast t) + slow_part exp(slow t) + die_end, by its value and slope at 0.
    slope = rates.die * (off_sink - off_die)
    apart = rates.fast - rates.slow
    fast_part = (slope - rates.slow * off_die) / apart
    slow_part = off_die - fast_part
    fast, slow = np.exp(rates.fast * dt_s), np.exp(rates.slow * dt_s)
    end = die_end + fast_part * fast + slow_part * slow
    # The sink follows from the die's equation: T2 = T1 + T1' / die-rate, about rest.
    moving = (fast_part * rates.fast * fast + slow_part * rates.slow * slow) / rates.die
    sink_now = sink_end + (end - die_end) + moving
    return Heated(end, sink_now, _peak(rates, die_end, fast_part, slow_part, die, end, dt_s))


def _peak(
    rates: Modes, rest: Floats, fast_part: Floats, slow_part: Floats, begin: Floats, end: Floats, dt_s: float
) -> Floats:
    """The die is highest at the begin, at the end, or where its slope is 0 between them."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = -(slow_part * rates.slow) / (fast_part * rates.fast)
        at_s = np.log(ratio) / (rates.fast - rates.slow)
    inside = (at_s > 0.0) & (at_s < dt_s)  # nan: there is none
    at_s = np.where(inside, at_s, 0.0)
    between = rest + fast_part * np.exp(rates.fast * at_s) + slow_part * np.exp(rates.slow * at_s)
    found: Floats = np.maximum(np.maximum(begin, end), between)
    return found


def burst_k(paths: Paths, airflow: Floats, more_w: Floats, burst_s: Floats) -> Floats:
    """By how much the die rises above a mean if it takes so many watts more for so long: exact, by superposition."""
    resistance = sink_air(paths, airflow)
    rates = modes(paths, resistance)
    die_end, _ = settled(paths, resistance, more_w, np.zeros_like(more_w))
    slope = more_w / paths.die_j_per_k  # at the beginning, nothing flows yet
    fast_part = (slope + rates.slow * die_end) / (rates.fast - rates.slow)
    slow_part = -die_end - fast_part
    found: Floats = die_end + fast_part * np.exp(rates.fast * burst_s) + slow_part * np.exp(rates.slow * burst_s)
    return found
