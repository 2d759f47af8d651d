"""Weights of a decoder to host memory and back: what is left of a model on a GPU while another one is served."""

from typing import Any

import torch


class Mover:
    """Moves every tensor that an object holds, itself or in parts of it, once each: tied weights stay one tensor.

    Host memory is page-locked where a GPU reads it: the way back runs at the bus's full speed.
    """

    def __init__(self, device: torch.device, parts: tuple[type, ...]) -> None:
        """parts: the classes whose attributes are looked through."""
        self._device = device
        self._parts = parts
        self._moved: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # both, so that no id is used again

    def move(self, holder: object) -> None:
        for name, value in vars(holder).items():
            setattr(holder, name, self._place(value))

    def _place(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, list):
            return [self._place(each) for each in value]
        if isinstance(value, self._parts):
            self.move(value)
        return value

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in self._moved:
            self._moved[id(tensor)] = (tensor, self._copy(tensor))
        return self._moved[id(tensor)][1]

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type != "cpu" or tensor.device.type != "cuda":
            return tensor.to(self._device)
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor)
