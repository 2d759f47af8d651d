"""Weights as quantised checkpoints hold them: small integers in blocks of 32, a scale and an offset for each block.

What a file holds in this form is never rounded again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 32


@dataclass(frozen=True, slots=True)
class Blocks:
    """A weight [out, in]: scale * (quants - 2 ** (bits - 1)) + offset, scale and offset of each block of a row."""

    bits: int
    quants: NDArray[np.uint8]  # [out, in]
    scale: NDArray[np.float32]  # [out, in / BLOCK]
    offset: NDArray[np.float32] | None  # [out, in / BLOCK]; None: 0

    @staticmethod
    def joined(parts: Sequence["Blocks"]) -> "Blocks":
        """The rows of several weights one behind another."""
        bits, offsets = parts[0].bits, [part.offset for part in parts if part.offset is not None]
        assert all(part.bits == bits for part in parts)
        assert len(offsets) in (0, len(parts))
        quants, scale = (np.concatenate([getattr(part, name) for part in parts]) for name in ("quants", "scale"))
        return Blocks(bits, quants, scale, np.concatenate(offsets) if offsets else None)

    def rows(self, order: NDArray[np.int64] | None) -> "Blocks":
        """The same weight with its rows in another order."""
        if order is None:
            return self
        offset = None if self.offset is None else self.offset[order]
        return Blocks(self.bits, self.quants[order], self.scale[order], offset)

    def values(self) -> NDArray[np.float32]:
        by_block = self.quants.reshape(*self.scale.shape, BLOCK).astype(np.float32) - 2 ** (self.bits - 1)
        offset = 0 if self.offset is None else self.offset[..., None]
        values: NDArray[np.float32] = by_block * self.scale[..., None] + offset
        return values.reshape(self.quants.shape)

    def packed(self) -> NDArray[np.uint8]:
        """[out, in / BLOCK, bytes of a block]; of 4 bits, the even column is a byte's lower half (MatMulNBits)."""
        by_block = self.quants.reshape(*self.scale.shape, BLOCK)
        if self.bits == 8:
            return by_block
        packed: NDArray[np.uint8] = by_block[..., ::2] | by_block[..., 1::2] << np.uint8(4)
        return packed


def rounded(values: NDArray[np.float32]) -> Blocks:
    """The nearest 8-bit blocks (as ggml's Q8_0): what a checkpoint of floats loses least by."""
    by_block = values.reshape(len(values), -1, BLOCK)
    scale = np.abs(by_block).max(-1) / np.float32(127)
    quants = np.rint(by_block / np.where(scale == 0, 1, scale)[..., None]) + 128
    return Blocks(8, quants.astype(np.uint8).reshape(values.shape), scale, None)
