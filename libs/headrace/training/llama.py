"""A frozen Llama forward pass for training: gradients flow to its inputs and its cached prefix, never to weights.

Several questions about the same images share one row: a branch sees the images and itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from headrace.engines.families.llama import Weights
from headrace.engines.families.smollm2 import (
    HEAD_WIDTH,
    KV_HEADS,
    LAYERS,
    NORM_EPSILON,
    QUERY_HEADS,
    ROPE_BASE,
    WIDTH,
)

_MAX_POSITIONS = 2048  # training sequences are short


@dataclass(frozen=True, slots=True)
class _Layer:
    """Norm weights are folded into the projections that follow them."""

    qkv: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor


class FrozenLlama:
    def __init__(self, weights: Weights) -> None:
        self._weights = {name: torch.from_numpy(values) for name, values in weights.items()}
        self.embedding = self._weights["model.embed_tokens.weight"]
        self._norm = self._weights["model.norm.weight"]
        self._layers = [self._layer(f"model.layers.{i}.") for i in range(LAYERS)]
        self._weights.clear()
        inverse = ROPE_BASE ** (-torch.arange(0, HEAD_WIDTH, 2, dtype=torch.float64) / HEAD_WIDTH)
        angles = torch.arange(_MAX_POSITIONS, dtype=torch.float64)[:, None] * inverse
        self._cos, self._sin = angles.cos().float(), angles.sin().float()

    @property
    def embedding_rms(self) -> float:
        return float(self.embedding.pow(2).mean().sqrt())

    def _layer(self, name: str) -> _Layer:
        def get(part: str) -> Tensor:
            return self._weights[f"{name}{part}.weight"]

        qkv = torch.cat([get(f"self_attn.{part}_proj") for part in "qkv"]) * get("input_layernorm")
        gate_up = torch.cat([get("mlp.gate_proj"), get("mlp.up_proj")]) * get("post_attention_layernorm")
        return _Layer(qkv, get("self_attn.o_proj"), gate_up, get("mlp.down_proj"))

    def hidden(self, x: Tensor, positions: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden states and the new keys and values.

        Args:
            x: float32 [rows, tokens, width].
            positions: int64 [rows, tokens].
            mask: bool [rows, 1, tokens, past + tokens], True where attention is allowed.
            past: float32 [layers, 2, KV heads, past, head width], shared by all rows.

        Returns:
            [rows, tokens, width], and [layers, 2, rows, KV heads, tokens, head width].
        """
        cos, sin = self._cos[positions][:, :, None], self._sin[positions][:, :, None]
        made = []
        for layer, cached in zip(self._layers, past, strict=True):
            q, k, v = self._heads(layer, x, cos, sin)
            made.append(torch.stack([k, v]))
            attended = _attend(q, _behind(cached[0], k), _behind(cached[1], v), mask)
            x = x + F.linear(attended, layer.output)
            gate, up = F.linear(_norm(x), layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        return x, torch.stack(made)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(F.rms_norm(hidden, (WIDTH,), self._norm, NORM_EPSILON), self.embedding)

    def prefix(self, tokens: list[int]) -> Tensor:
        """KV of a text from position 0: [layers, 2, KV heads, tokens, head width]."""
        count = len(tokens)
        x = self.embedding[torch.tensor(tokens)][None]
        causal = torch.ones(count, count, dtype=torch.bool).tril()[None, None]
        none = torch.zeros(LAYERS, 2, KV_HEADS, 0, HEAD_WIDTH)
        with torch.no_grad():
            _, made = self.hidden(x, torch.arange(count)[None], causal, none)
        return made[:, :, 0]

    def _heads(self, layer: _Layer, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, tokens, _ = x.shape
        heads = F.linear(_norm(x), layer.qkv).view(rows, tokens, QUERY_HEADS + 2 * KV_HEADS, HEAD_WIDTH)
        rotary, v = heads[:, :, :-KV_HEADS], heads[:, :, -KV_HEADS:]
        a, b = rotary.chunk(2, -1)
        rotated = torch.cat([a * cos - b * sin, b * cos + a * sin], -1).transpose(1, 2)
        return rotated[:, :QUERY_HEADS], rotated[:, QUERY_HEADS:], v.transpose(1, 2)


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (WIDTH,), None, NORM_EPSILON)


def _behind(cached: Tensor, new: Tensor) -> Tensor:
    """Cached keys or values, the same for every row, then the new ones."""
    return torch.cat([cached.expand(len(new), -1, -1, -1), new], 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    group = QUERY_HEADS // KV_HEADS
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)
