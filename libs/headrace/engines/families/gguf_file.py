"""Reads a GGUF file's header and hands out its tensors: the package `gguf` needs ten seconds for a header of
100,000 strings, this needs a fifth of one; dequantisation stays with the package.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.engines.packed import BLOCK, Blocks

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT_DEFAULT = 32
_Q4_1, _Q8_0 = 3, 8  # kinds whose blocks are read as they are
_BLOCKS = {
    _Q4_1: np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("quants", "u1", BLOCK // 2)]),
    _Q8_0: np.dtype([("scale", "<f2"), ("quants", "i1", BLOCK)]),
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    name: str
    shape: tuple[int, ...]  # numpy order: slowest axis first
    kind: int  # ggml type number
    offset: int  # from the start of the data section


@dataclass(frozen=True, slots=True)
class GgufFile:
    path: Path
    fields: dict[str, Any]
    tensors: dict[str, TensorInfo]
    data_offset: int


def read_gguf(path: Path) -> GgufFile:
    """Fields and tensor table of a GGUF file; tensor data is not touched.

    Raises:
        ValueError: not a GGUF file of version 2 or 3, or cut short.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _Cursor(data).gguf(path)
        except struct.error as error:
            raise ValueError(f"{path} is cut short: {error}") from error


def read_tensor(gguf: GgufFile, info: TensorInfo) -> NDArray[np.float32]:
    """The tensor as float32, dequantised."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(info.kind)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    row_bytes = info.shape[-1] // block * block_bytes
    rows = prod(info.shape[:-1])
    raw = np.memmap(gguf.path, np.uint8, "r", gguf.data_offset + info.offset, (rows, row_bytes))
    values: NDArray[np.float32] = dequantize(np.array(raw), kind)
    return values.reshape(info.shape)


def read_blocks(gguf: GgufFile, info: TensorInfo) -> Blocks | None:
    """The tensor as the file has it; None if its kind is not one of the two."""
    if info.kind not in _BLOCKS:
        return None
    rows, columns = prod(info.shape[:-1]), info.shape[-1] // BLOCK
    raw = np.memmap(gguf.path, _BLOCKS[info.kind], "r", gguf.data_offset + info.offset, (rows, columns))
    scale = raw["scale"].astype(np.float32)
    if info.kind == _Q8_0:
        return Blocks(8, (raw["quants"].astype(np.int16) + 128).astype(np.uint8).reshape(info.shape), scale, None)
    halves = np.concatenate([raw["quants"] & 15, raw["quants"] >> 4], axis=-1)  # first the block's lower 16 columns
    return Blocks(4, halves.reshape(info.shape), scale, raw["minimum"].astype(np.float32) + 8 * scale)


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def gguf(self, path: Path) -> GgufFile:
        if self._data[:4] != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file")
        self._at = 4
        version, tensors, fields = self._unpack("<IQQ")
        if version not in (2, 3):
            raise ValueError(f"{path} has GGUF version {version}; 2 and 3 are read")
        values = {self._string(): self._value(self._unpack("<I")[0]) for _ in range(fields)}
        infos = [self._tensor() for _ in range(tensors)]
        alignment = int(values.get("general.alignment", _ALIGNMENT_DEFAULT))
        start = -(-self._at // alignment) * alignment
        return GgufFile(path, values, {info.name: info for info in infos}, start)

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _string(self) -> str:
        (length,) = struct.unpack_from("<Q", self._data, self._at)
        start = self._at + 8
        self._at = start + length
        return self._data[start : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._unpack("<" + _SCALARS[kind])[0]
        item, length = self._unpack("<IQ")
        if item in _SCALARS:
            return list(self._unpack(f"<{length}{_SCALARS[item]}"))
        return [self._value(item) for _ in range(length)]

    def _tensor(self) -> TensorInfo:
        name = self._string()
        (axes,) = self._unpack("<I")
        shape = self._unpack(f"<{axes}Q")
        kind, offset = self._unpack("<IQ")
        return TensorInfo(name, tuple(reversed(shape)), kind, offset)
