"""A sequence's KV outside of the paged cache: what is handed over, evicted and restored, bit for bit.

Keys and values of each self-attention layer front to back, [positions, kv_heads, head_width]; behind them, where the
model attends across, those of each cross-attention layer, [rows, kv_heads, head_width].
"""

import numpy as np
import torch

from headrace.engines.base import KvManifest, KvSink
from headrace.engines.families.decoder import Decoder
from headrace.engines.torch_kv import PagedKv
from headrace.engines.torch_rows import Held

_DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class Images:
    """Reads and writes images of sequences that hold their blocks."""

    def __init__(self, decoder: Decoder, kv: PagedKv) -> None:
        self._decoder = decoder
        self._kv = kv
        self.dtype = kv.keys.dtype
        self.item_bytes = self.dtype.itemsize
        self._row = decoder.kv_heads * decoder.head_width
        axes = "layers x (k, v), positions, kv_heads, head_width"
        across = "; then cross-attention layers x (k, v), rows, kv_heads, head_width" if decoder.cross_layers else ""
        self._layout = f"{axes}{across}; {decoder.fingerprint}"

    def manifest(self, length: int, next_position: int, cross_rows: int) -> KvManifest:
        return KvManifest(
            layout=self._layout,
            dtype=_DTYPE_NAMES[self.dtype],
            shape=(2 * self._decoder.self_layers, length, self._decoder.kv_heads, self._decoder.head_width),
            length=length,
            next_position=next_position,
            size_bytes=self.numbers(length, cross_rows) * self.item_bytes,
            cross_length=cross_rows,
        )

    def numbers(self, length: int, cross_rows: int) -> int:
        layers = self._decoder.self_layers * length + len(self._decoder.cross_layers) * cross_rows
        return 2 * layers * self._row

    def tensor(self, memory: memoryview, length: int, cross_rows: int) -> torch.Tensor:
        """The image in a buffer, as numbers; a copy if the buffer may not be written."""
        count = self.numbers(length, cross_rows)
        if memory.readonly or not count:
            copy = torch.empty(count, dtype=self.dtype)
            copy.view(torch.uint8).numpy()[:] = np.frombuffer(memory, np.uint8, copy.nbytes)
            return copy
        return torch.frombuffer(memory, dtype=self.dtype, count=count)

    def save(self, held: Held, length: int, cross_rows: int, into: torch.Tensor) -> None:
        for layer in range(self._decoder.self_layers):
            self._save_layer(held, length, layer, into)
        self._save_across(held, length, cross_rows, into)

    def pour_layer(self, held: Held, length: int, layer: int, sink: KvSink) -> None:
        """Write one layer to a sink that has all before it."""
        cross_rows = held.crossing.rows if held.crossing else 0
        self._save_layer(held, length, layer, self.tensor(sink.buffer, length, cross_rows))
        sink.ready((layer + 1) * 2 * length * self._row * self.item_bytes)

    def pour_across(self, held: Held, length: int, sink: KvSink) -> None:
        """Write the rest, where there is a rest."""
        if held.crossing is None:
            return
        self._save_across(held, length, held.crossing.rows, self.tensor(sink.buffer, length, held.crossing.rows))
        sink.ready(self.numbers(length, held.crossing.rows) * self.item_bytes)

    def load(self, held: Held, length: int, cross_rows: int, image: torch.Tensor) -> None:
        axes = (self._decoder.kv_heads, self._decoder.head_width)
        own = image[: self.numbers(length, 0)].view(self._decoder.self_layers, 2, length, *axes)
        self._kv.fill(self._kv.places(held.blocks, 0, length), own)
        if not cross_rows:
            return
        assert held.crossing is not None
        beside = image[self.numbers(length, 0) :].view(len(self._decoder.cross_layers), 2, cross_rows, *axes)
        for places, (keys, values) in zip(held.crossing.places, beside.to(self._kv.keys.device), strict=True):
            self._kv.write_rows(torch.from_numpy(places).to(keys.device), keys, values)

    def _save_layer(self, held: Held, length: int, layer: int, image: torch.Tensor) -> None:
        size = 2 * length * self._row
        into = image[layer * size : (layer + 1) * size].view(
            2, length, self._decoder.kv_heads, self._decoder.head_width
        )
        self._kv.read(held.blocks, length, layer, into)

    def _save_across(self, held: Held, length: int, cross_rows: int, image: torch.Tensor) -> None:
        if not cross_rows:
            return
        assert held.crossing is not None
        axes = (self._decoder.kv_heads, self._decoder.head_width)
        beside = image[self.numbers(length, 0) :].view(len(self._decoder.cross_layers), 2, cross_rows, *axes)
        for places, into in zip(held.crossing.places, beside, strict=True):
            index = torch.from_numpy(places).to(self._kv.keys.device)
            for target, rows in zip(into, self._kv.gather_rows(index[None]), strict=True):
                target.copy_(rows[0].transpose(0, 1))
