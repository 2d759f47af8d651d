"""Tensors of the Open Inference Protocol as far as Headrace speaks it: BYTES come in, BYTES and FP32 go out.

Raw bytes: little endian, row by row; an element of BYTES has its length before it, in 4 bytes (Triton's binary form).
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import InvalidInput

ELEMENTS_MAX = 2_048
Value = str | int | float | bool
Parameters = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What a model's metadata say of one of its tensors; -1: any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """An inference request, whichever way it came."""

    model: str
    version: str
    id: str
    parameters: Parameters
    inputs: Mapping[str, tuple[bytes, ...]]
    outputs: frozenset[str]  # empty: all


@dataclass(frozen=True, slots=True)
class Output:
    name: str
    shape: tuple[int, ...]
    data: tuple[bytes, ...] | NDArray[np.float32]

    @property
    def datatype(self) -> str:
        return "BYTES" if isinstance(self.data, tuple) else "FP32"

    def raw(self) -> bytes:
        if isinstance(self.data, tuple):
            return b"".join(struct.pack("<I", len(one)) + one for one in self.data)
        return self.data.astype("<f4").tobytes()


@dataclass(frozen=True, slots=True)
class Answer:
    outputs: tuple[Output, ...]
    parameters: Parameters


def checked(name: str, datatype: str, shape: Sequence[int], elements: Sequence[bytes]) -> tuple[bytes, ...]:
    """Raises InvalidInput: not BYTES, or not as many elements as the shape says."""
    if datatype != "BYTES":
        raise InvalidInput(f"{name}: {datatype[:16]} is not BYTES", field=name)
    wanted = math.prod(shape) if shape and min(shape) >= 0 else -1
    if not 1 <= wanted <= ELEMENTS_MAX:
        raise InvalidInput(f"{name}: a shape of 1 to {ELEMENTS_MAX} elements is wanted", field=name)
    if len(elements) != wanted:
        raise InvalidInput(f"{name}: {len(elements)} elements where the shape says {wanted}", field=name)
    return tuple(elements)


def unpacked(name: str, raw: bytes) -> list[bytes]:
    """Elements of a raw BYTES tensor. Raises InvalidInput."""
    elements, at = list[bytes](), 0
    while at < len(raw):
        if len(elements) >= ELEMENTS_MAX or at + 4 > len(raw):
            raise InvalidInput(f"{name}: not a tensor of BYTES", field=name)
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise InvalidInput(f"{name}: an element is longer than its tensor", field=name)
        elements.append(raw[at : at + length])
        at += length
    return elements
