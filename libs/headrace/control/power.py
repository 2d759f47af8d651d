"""Watts and speed of a GPU: what a phase draws at a speed, and what speed a cap leaves. Arrays of any one shape.

P = context + busy x (phase - context) x speed^exponent. Prefill and encode take 1 / speed as long; decode waits for
memory and loses nothing above `decode_free_speed`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import GpuKind

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
    found: Floats = kind.context_w + phase_w(kind, mix) * np.power(speed, kind.speed_exponent)
    return found


def watts_at(kind: GpuKind, full_w: float, speed: float) -> float:
    """Of what draws full_w at full speed."""
    return float(kind.context_w + (full_w - kind.context_w) * speed**kind.speed_exponent)


def speed_under(kind: GpuKind, cap_w: Any, full_w: Any) -> Floats:
    """The highest speed at which what draws `full_w` at full speed keeps within the cap."""
    dynamic = np.maximum(np.asarray(full_w, float) - kind.context_w, 1e-9)
    left = np.clip((np.asarray(cap_w, float) - kind.context_w) / dynamic, 0.0, 1.0)
    found: Floats = np.clip(left ** (1.0 / kind.speed_exponent), kind.speed_least, 1.0)
    return found


def compute_rate(speed: Any) -> Floats:
    """Of prefill and encode, beside 1 at full speed."""
    return np.asarray(speed, float)


def decode_rate(kind: GpuKind, speed: Any) -> Floats:
    found: Floats = np.minimum(1.0, np.asarray(speed, float) / kind.decode_free_speed)
    return found
