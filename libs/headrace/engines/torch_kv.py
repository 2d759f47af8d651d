"""The paged KV cache of the torch backend: one tensor for keys, one for values, in blocks that sequences own.

Which block is whose is a list of numbers for each sequence; a place is block * block_tokens + offset. One block more
than there are to own takes what padding writes, so that every place that is ever read holds a finite number.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.engines.families.decoder import Decoder

Places = NDArray[np.int64]


class PagedKv:
    """keys, values: [self-attention layers, blocks + 1, block_tokens, kv_heads, head_width]."""

    def __init__(
        self, decoder: Decoder, *, blocks: int, block_tokens: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.block_tokens = block_tokens
        self.blocks = blocks
        self.padding_block = blocks
        shape = (decoder.self_layers, blocks + 1, block_tokens, decoder.kv_heads, decoder.head_width)
        # Zeros, not empty: what is masked is still multiplied, by zero. A CPU's pages come when they are touched.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self._by_layer = [(_flat(keys), _flat(values)) for keys, values in zip(self.keys, self.values, strict=True)]
        self._free = list(range(blocks - 1, -1, -1))
        self._clears = dtype == torch.float16  # the one dtype in which a sound model's numbers may overflow

    def __len__(self) -> int:
        """Blocks in use."""
        return self.blocks - len(self._free)

    def take(self, count: int) -> Places:
        """Numbers of `count` blocks; the caller has accounted for them. In a row if they are free in a row."""
        assert count <= len(self._free)
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        return np.array(sorted(taken), np.int64)

    def give(self, blocks: Places) -> None:
        if self._clears and len(blocks):
            index = torch.from_numpy(blocks).to(self.keys.device)
            self.keys[:, index] = 0
            self.values[:, index] = 0
        self._free += blocks[::-1].tolist()

    def places(self, blocks: Places, start: int, stop: int) -> Places:
        """Places of positions start .. stop - 1 of the sequence that owns the blocks."""
        at = np.arange(start, stop)
        return blocks[at // self.block_tokens] * self.block_tokens + at % self.block_tokens

    def write(self, layer: int, places: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Rows [n, kv_heads, head_width] to their places [n]."""
        for held, new in zip(self._by_layer[layer], (keys, values), strict=True):
            held.index_copy_(0, places, new)

    def gather(self, layer: int, tables: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [n, kv_heads, blocks * block_tokens, head_width] of block tables [n, blocks]."""
        keys, values = (_gather(cache[layer], tables) for cache in (self.keys, self.values))
        return keys, values

    def gather_rows(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [n, kv_heads, rows, head_width] at places [n, rows] of crossing_places."""
        keys, values = (_flat(cache)[places].transpose(1, 2) for cache in (self.keys, self.values))
        return keys, values

    def write_rows(self, places: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Rows [n, kv_heads, head_width] to places [n] of crossing_places."""
        _flat(self.keys).index_copy_(0, places, keys)
        _flat(self.values).index_copy_(0, places, values)

    def read(self, blocks: Places, length: int, layer: int, into: torch.Tensor) -> None:
        """Copy the first `length` positions of a layer's keys and values into [2, length, kv_heads, head_width].

        Into pinned memory the copy is only ordered behind what the device does: whoever reads it waits for that.
        """
        index = torch.from_numpy(blocks[: -(-length // self.block_tokens)]).to(self.keys.device)
        for target, cache in zip(into, (self.keys, self.values), strict=True):
            rows = _flat(cache[layer].index_select(0, index))[:length]
            target.copy_(rows, non_blocking=target.is_pinned())

    def copy(self, places: Places) -> torch.Tensor:
        """[layers, 2, n, kv_heads, head_width] of the places [n] of every layer."""
        index = torch.from_numpy(places).to(self.keys.device)
        return torch.stack([torch.stack([held[index] for held in pair]) for pair in self._by_layer])

    def fill(self, places: Places, source: torch.Tensor) -> None:
        """Write [layers, 2, n, kv_heads, head_width] to the places [n] of every layer."""
        index = torch.from_numpy(places).to(self.keys.device)
        for layer, pair in enumerate(source):
            keys, values = (rows.to(self.keys, non_blocking=True) for rows in pair)
            self.write(layer, index, keys, values)

    def crossing_places(self, blocks: Places, first_token: int, layers: int, rows: int) -> Places:
        """Places [layers, rows] of cross-attention KV, which lies behind a sequence's own from token first_token on.

        A token's worth of KV is one row for each self-attention layer; row r of cross-attention layer c is the
        (c * rows + r)-th of those. So the accounting in tokens is exact, whatever the two counts of layers are.
        """
        item = np.arange(layers * rows).reshape(layers, rows)
        planes, plane = len(self.keys), (self.blocks + 1) * self.block_tokens
        token = first_token + item // planes
        return (
            item % planes * plane + blocks[token // self.block_tokens] * self.block_tokens + token % self.block_tokens
        )

    def check_integrity(self, owned: list[Places]) -> None:
        """Invariants, for tests: every block is free or owned, once."""
        everything = [*self._free, *(int(block) for blocks in owned for block in blocks)]
        assert sorted(everything) == list(range(self.blocks))


def _flat(cache: torch.Tensor) -> torch.Tensor:
    """[.., block_tokens, kv_heads, head_width] -> [places, kv_heads, head_width]"""
    return cache.reshape(-1, *cache.shape[-2:])


def _gather(cache: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    taken = cache.index_select(0, tables.reshape(-1))
    return taken.view(len(tables), -1, *cache.shape[-2:]).transpose(1, 2)
