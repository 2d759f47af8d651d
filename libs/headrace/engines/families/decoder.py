"""What the torch backend asks of a checkpoint: the decoder's geometry, its positions, where its weights lie.

One Decoder describes the language model of every family; what differs is data, not code. No torch here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.types import MediaSpan

Positions = NDArray[np.int64]  # [axes, tokens]: one axis, or three (time, row, column) for multimodal rope


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding (RoFormer, section 3.4.2) with what checkpoints add to it."""

    base: float
    width: int  # columns of a head that are rotated
    scaling: Mapping[str, Any] = field(default_factory=dict)  # rope_parameters of config.json; empty: none
    sections: tuple[int, ...] = ()  # frequencies by axis (Qwen2-VL, section 2.1); empty: one axis
    interleaved: bool = False  # Qwen3-VL: the axes alternate instead of following one another


@dataclass(frozen=True, slots=True)
class Decoder:
    """Weights go by the names of a Hugging Face Llama: layers.<n>.self_attn.q_proj.weight, norm.weight ...

    rename turns a name of the checkpoint into one of those (and lm_head.weight, embed_tokens.weight), or into ""
    for a weight that is not the decoder's.
    """

    directory: Path
    fingerprint: str  # changes whenever a weight does
    layers: int
    width: int
    query_heads: int
    kv_heads: int
    head_width: int
    vocab: int  # rows of the embedding table, which may have more than the head
    norm_epsilon: float
    rope: Rope
    rename: Callable[[str], str]
    tied: bool  # the head is the embedding table
    activation: str = "silu"
    qk_norm: bool = False  # Qwen3: RMS norm of each head's queries and keys before the rope
    cross_layers: tuple[int, ...] = ()  # Mllama: these attend to the media's rows and to nothing else
    deepstack: int = 0  # Qwen3-VL: embedding rows are (1 + deepstack) x width; part i + 1 is added behind layer i
    axes: int = 1

    # (token count, spans) -> positions of a prompt and the position of the token behind it
    positions: Callable[[int, Sequence[MediaSpan]], tuple[Positions, int]] = field(kw_only=True)

    @property
    def self_layers(self) -> int:
        return self.layers - len(self.cross_layers)


def plain_positions(tokens: int, spans: Sequence[MediaSpan]) -> tuple[Positions, int]:
    """Every token is one further than the last."""
    return np.arange(tokens)[None], tokens
