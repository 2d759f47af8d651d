"""Rotary positions for torch: frequencies with the scalings that checkpoints name, and the turning of heads.

Computed in float32, in the order of transformers' modeling_rope_utils, so that long positions agree to the last bit.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from headrace.engines.families.decoder import Rope


class Rotary:
    """positions [axes, n] -> cosines and signed sines [n, 1, width] that turn() takes."""

    def __init__(self, rope: Rope, device: torch.device, dtype: torch.dtype) -> None:
        frequency, self._scale = frequencies(rope)
        self._frequency = frequency.to(device)
        self._axis = torch.tensor(axis_of_frequency(rope), device=device) if rope.sections else None
        self._dtype = dtype

    def rows(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        at = positions[:1].T if self._axis is None else positions[self._axis].T
        angle = at.float() * self._frequency
        cos, sin = angle.cos() * self._scale, angle.sin() * self._scale
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        return cos[:, None].to(self._dtype), sin[:, None].to(self._dtype)


def turn(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first `width` columns of heads [n, heads, head_width]; the halves of a pair stand width / 2 apart."""
    width = cos.shape[-1]
    if width < heads.shape[-1]:
        return torch.cat((turn(heads[..., :width], cos, sin), heads[..., width:]), dim=-1)
    return torch.addcmul(heads * cos, heads.roll(width // 2, dims=-1), sin)


def axis_of_frequency(rope: Rope) -> list[int]:
    """Which axis of the positions turns each frequency.

    In sections one after the other (Qwen2-VL, section 2.1); interleaved, axes 1 and 2 take every third frequency,
    from the second and third on, until their section is used up (Qwen3-VL).
    """
    half = rope.width // 2
    if not rope.interleaved:
        axes = [axis for axis, size in enumerate(rope.sections) for _ in range(size)]
        assert len(axes) == half, f"sections {rope.sections} are not {half} frequencies"
        return axes
    axes = [0] * half
    for axis, size in enumerate(rope.sections[1:], 1):
        for frequency in range(axis, min(size * 3, half), 3):
            axes[frequency] = axis
    return axes


def frequencies(rope: Rope) -> tuple[torch.Tensor, float]:
    """Radians a position [width / 2], float32, and the factor on cosines and sines."""
    exponent = torch.arange(0, rope.width, 2, dtype=torch.int64).float() / rope.width
    plain = 1.0 / (rope.base**exponent)
    if rope.kind == "linear":
        return plain / rope.scaling["factor"], 1.0
    if rope.kind == "llama3":
        return _llama3(plain, rope.scaling), 1.0
    if rope.kind == "yarn":
        return _yarn(rope, exponent), _yarn_scale(rope.scaling)
    assert rope.kind == "default", rope.kind
    return plain, 1.0


def _llama3(plain: torch.Tensor, scaling: Mapping[str, Any]) -> torch.Tensor:
    """Long waves are stretched, short ones kept, those between blended (Llama 3.1's released code)."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    context = scaling["original_max_position_embeddings"]
    wave = 2 * math.pi / plain
    stretched = torch.where(wave > context / low, plain / factor, plain)
    blend = (context / wave - low) / (high - low)
    blended = (1 - blend) * stretched / factor + blend * stretched
    between = ~(wave < context / high) * ~(wave > context / low)
    return torch.where(between, blended, stretched)


def _yarn(rope: Rope, exponent: torch.Tensor) -> torch.Tensor:
    """YaRN (Peng et al. 2023, section 3.2): frequencies that turn often are kept, slow ones interpolated."""
    scaling, half = rope.scaling, rope.width // 2
    context = scaling["original_max_position_embeddings"]

    def dimension(turns: float) -> float:
        return (rope.width * math.log(context / (turns * 2 * math.pi))) / (2 * math.log(rope.base))

    first, last = dimension(scaling.get("beta_fast") or 32), dimension(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rope.width - 1)
    last += 0.001 * (first == last)
    kept = 1 - torch.clamp((torch.arange(half, dtype=torch.float32) - first) / (last - first), 0, 1)
    base = rope.base**exponent
    return 1.0 / (scaling["factor"] * base) * (1 - kept) + 1.0 / base * kept


def _yarn_scale(scaling: Mapping[str, Any]) -> float:
    """The factor that keeps the softmax's entropy (section 3.3), or what the checkpoint says it is."""
    stated, factor = scaling.get("attention_factor"), scaling["factor"]
    if stated is not None:
        return float(stated)

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    weight, weight_all = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return scale(weight) / scale(weight_all) if weight and weight_all else scale(1.0)
