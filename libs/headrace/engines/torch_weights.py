"""Weights of a decoder, by name, from *.safetensors or from arrays; and the linear layers made of them.

A name that is missing, misshapen or left over is a typed error: half a checkpoint must not answer.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional

from headrace.core.errors import Unavailable
from headrace.engines.families.decoder import Decoder

# oneDNN lays weights out for a batch of about this many rows: on AVX2 the layouts for 1 and for 16 read equally fast
# at batch 1, and the latter is up to twice as fast at 16.
_PACK_ROWS = 16


class Weights:
    """Hands out each weight once, in the engine's dtype and on its device."""

    def __init__(self, decoder: Decoder, device: torch.device, dtype: torch.dtype) -> None:
        self.decoder = decoder
        self._device = device
        self._dtype = dtype
        self._tensors: dict[str, torch.Tensor] = {}
        for name, tensor in _read(decoder):
            if renamed := decoder.rename(name):
                self._tensors[renamed] = tensor

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """
        Raises:
            Unavailable: the checkpoint lacks the weight, or has it in another shape.
        """
        if name not in self._tensors:
            raise Unavailable(f"{self.decoder.directory}: the weight {name} is missing")
        tensor = self._tensors.pop(name)
        if tuple(tensor.shape) != shape:
            raise Unavailable(f"{self.decoder.directory}: {name} has the shape {tuple(tensor.shape)}, not {shape}")
        return tensor.to(self._device, self._dtype)

    def rows(self, name: str, *, columns: bool = False) -> int:
        """Rows (or columns) of a weight that is still here, where the configuration leaves them open.

        Raises:
            Unavailable: it is not.
        """
        if name not in self:
            raise Unavailable(f"{self.decoder.directory}: the weight {name} is missing")
        return int(self._tensors[name].shape[-1 if columns else 0])

    def linear(self, names: tuple[str, ...], rows: tuple[int, ...], columns: int) -> "Linear":
        """Projections of the same input as one. A projection without a bias beside one with a bias has zeros."""
        weight = torch.cat(
            [self.take(f"{name}.weight", count, columns) for name, count in zip(names, rows, strict=True)]
        )
        if not any(f"{name}.bias" in self for name in names):
            return Linear(weight, None)
        biases = [
            self.take(f"{name}.bias", count) if f"{name}.bias" in self else weight.new_zeros(count)
            for name, count in zip(names, rows, strict=True)
        ]
        return Linear(weight, torch.cat(biases))

    def finish(self) -> None:
        """
        Raises:
            Unavailable: the checkpoint has weights that nothing took.
        """
        if self._tensors:
            names = ", ".join(sorted(self._tensors)[:5])
            raise Unavailable(f"{self.decoder.directory}: {len(self._tensors)} weights have no use here: {names}")


class Linear:
    """x [n, columns] -> [n, rows]. In float32 on a CPU the weight is kept in oneDNN's own layout."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._bias = bias
        self._packed = (
            weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
        )
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _PACK_ROWS) if self._packed else weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if not self._packed:
            return functional.linear(x, self._weight, self._bias)
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")


def _read(decoder: Decoder) -> Iterator[tuple[str, torch.Tensor]]:
    if decoder.load_weights is not None:
        for name, array in decoder.load_weights().items():
            yield name, torch.from_numpy(array)
        return
    files = sorted(decoder.directory.glob("*.safetensors"))
    if not files:
        raise Unavailable(f"{decoder.directory} holds no *.safetensors")
    for file in files:
        yield from _read_file(file)


def _read_file(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of one file; memory-mapped, so that nothing is read before it is used."""
    try:
        with safe_open(file, framework="pt") as opened:
            names = opened.keys()
            for name in names:
                yield name, opened.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise Unavailable(f"{file} cannot be read: {error}") from error
