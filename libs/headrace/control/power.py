"""Watts and speed of a GPU: what a phase draws at a speed, and what speed a cap leaves. Arrays of any one shape.

P = context + busy x (phase - context) x speed^exponent. Prefill and encode take 1 / speed as long; decode waits for
memory and loses nothing above `decode_free_speed`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import GpuKind
from headrace.core.power import law

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of a time in which GPUs prefill, decode and encode at the speed that they have; the rest they idle."""

    prefill: Floats
    decode: Floats
    encode: Floats

    @property
    def busy(self) -> Floats:
        return self.prefill + self.decode + self.encode


def phase_w(kind: GpuKind, mix: Mix) -> Floats:
    """Mean dynamic watts at full speed: above those of a loaded, idle GPU."""
    found: Floats = (
        mix.prefill * (kind.prefill_w - kind.context_w)
        + mix.decode * (kind.decode_w - kind.context_w)
        + mix.encode * (kind.encode_w - kind.context_w)
    )
    return found


def drawn_w(kind: GpuKind, mix: Mix, speed: Any) -> Floats:
    full_w = kind.context_w + phase_w(kind, mix)
    return law.drawn_w(full_w, speed, context_w=kind.context_w, exponent=kind.speed_exponent)


def watts_at(kind: GpuKind, full_w: float, speed: float) -> float:
    """Of what draws full_w at full speed."""
    return float(law.drawn_w(full_w, speed, context_w=kind.context_w, exponent=kind.speed_exponent))


def speed_under(kind: GpuKind, cap_w: Any, full_w: Any) -> Floats:
    """The highest speed at which what draws `full_w` at full speed keeps within the cap."""
    return law.speed_under(
        cap_w, full_w, context_w=kind.context_w, exponent=kind.speed_exponent, least=kind.speed_least
    )


def compute_rate(speed: Any) -> Floats:
    """Of prefill and encode, beside 1 at full speed."""
    return np.asarray(speed, float)


def decode_rate(kind: GpuKind, speed: Any) -> Floats:
    return law.decode_rate(speed, kind.decode_free_speed)
