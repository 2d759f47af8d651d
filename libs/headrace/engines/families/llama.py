"""What an engine asks of a Llama-type checkpoint: its geometry, its weights, its learned prefixes.

Weights go by their Hugging Face names, float32, [out, in], rotary halves kept apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.engines.packed import Blocks

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class LlamaShape:
    layers: int
    width: int
    query_heads: int
    kv_heads: int
    head_width: int
    context_tokens: int
    rope_base: float
    norm_epsilon: float

    def __post_init__(self) -> None:
        assert self.query_heads % self.kv_heads == 0
        assert self.head_width % 2 == 0

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.query_heads // self.kv_heads

    @property
    def kv_bytes_per_token(self) -> int:
        return self.layers * 2 * self.kv_heads * self.head_width * 4


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """load_weights is slow and called once for each cache directory; prefix is called once for each engine and name."""

    name: str
    shape: LlamaShape
    fingerprint: str  # changes whenever a weight does
    load_weights: Callable[[], Weights]
    load_prefix: Callable[[str], NDArray[np.float32]]  # name -> [layers, 2, kv_heads, length, head_width], keys rotated
    load_packed: Callable[[], dict[str, Blocks]] | None = None  # the weights that the checkpoint holds in blocks
