"""KV caches in a quarter of their bytes on the wire: int8, one scale for each array, head and position.

A row is what one head holds of one position, head_width numbers. It travels as its float32 scale, absmax / 127, and
then its numbers as int8, so that a cache can be packed, sent and unpacked row by row, front to back. Symmetric,
rounded to nearest: no number is off by more than half its row's scale.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.engines.base import KvManifest

CODEC = "int8"
_SCALE_BYTES = 4
_LEVELS = np.float32(127)
_ROWS_AT_ONCE = 1 << 14  # numbers in between stay in the processor's cache
# bfloat16 is the upper half of a float32: numpy does not know it.
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class NotPackable(ValueError):
    """Not a KV cache of floating point rows."""


@dataclass(frozen=True, slots=True)
class RowFormat:
    """What is packed: rows of `width` numbers of `dtype`."""

    dtype: str
    width: int

    @staticmethod
    def of(dtype: str, shape: tuple[int, ...]) -> "RowFormat":
        """Raises NotPackable."""
        if dtype not in _ITEM_BYTES or len(shape) < 2 or shape[-1] < 1:
            raise NotPackable(f"{dtype} {shape} has no rows of {', '.join(_ITEM_BYTES)}")
        return RowFormat(dtype, shape[-1])

    @property
    def row_bytes(self) -> int:
        return self.width * _ITEM_BYTES[self.dtype]

    @property
    def packed_row_bytes(self) -> int:
        return _SCALE_BYTES + self.width

    def packed_bytes(self, raw_bytes: int) -> int:
        """Exactly what raw_bytes of rows take on the wire. Raises NotPackable: not whole rows."""
        return _whole(raw_bytes, self.row_bytes) * self.packed_row_bytes

    def raw_bytes(self, packed_bytes: int) -> int:
        """Raises NotPackable: not whole rows."""
        return _whole(packed_bytes, self.packed_row_bytes) * self.row_bytes

    def pack(self, raw: memoryview, into: memoryview) -> None:
        """raw: whole rows; into: packed_bytes(len(raw)) long. What is not finite stays so: the importer refuses it."""
        rows = self._numbers(raw)
        packed = np.frombuffer(into, np.uint8).reshape(len(rows), self.packed_row_bytes)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            _pack_rows(self._to_float32(rows[part]), packed[part])

    def unpack(self, packed: memoryview, into: memoryview) -> None:
        """The inverse, up to rounding."""
        rows = self._numbers(into)
        source = np.frombuffer(packed, np.uint8).reshape(len(rows), self.packed_row_bytes)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            rows[part] = self._from_float32(_unpack_rows(source[part]))

    def _numbers(self, data: memoryview) -> NDArray[np.generic]:
        kind = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[self.dtype]
        return np.frombuffer(data, kind).reshape(-1, self.width)

    def _to_float32(self, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        if self.dtype != "bfloat16":
            return rows.astype(np.float32)  # a copy: it is worked on in place
        return (rows.astype(np.uint32) << 16).view(np.float32)

    def _from_float32(self, rows: NDArray[np.float32]) -> NDArray[np.generic]:
        if self.dtype != "bfloat16":
            return rows  # assignment converts
        bits = rows.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even


def packed_bytes(manifest: KvManifest) -> int:
    """Bytes on the wire of what an engine exports. Raises NotPackable."""
    return RowFormat.of(manifest.dtype, manifest.shape).packed_bytes(manifest.size_bytes)


def _pack_rows(rows: NDArray[np.float32], packed: NDArray[np.uint8]) -> None:
    """rows [n, width] are overwritten."""
    scales = np.maximum(rows.max(axis=1), -rows.min(axis=1)) / _LEVELS
    scales[scales < np.finfo(np.float32).tiny] = 0  # their inverse is no float32
    packed[:, :_SCALE_BYTES] = scales[:, None].view(np.uint8)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows *= np.where(scales > 0, 1 / scales, 0)[:, None].astype(np.float32)
        np.rint(rows, out=rows)
        packed[:, _SCALE_BYTES:] = rows.astype(np.int8).view(np.uint8)


def _unpack_rows(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    scales = np.ascontiguousarray(packed[:, :_SCALE_BYTES]).view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return packed[:, _SCALE_BYTES:].view(np.int8) * scales


def _whole(size_bytes: int, row_bytes: int) -> int:
    rows, rest = divmod(size_bytes, row_bytes)
    if rest or not rows:
        raise NotPackable(f"{size_bytes} bytes are not whole rows of {row_bytes}")
    return rows
