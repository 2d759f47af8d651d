"""Vision towers of Hugging Face checkpoints to ONNX: transformers' own modules, with the checkpoint's weights (torch).

Shared by families whose tower takes tiles of one size and whose projector follows at once.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from headrace.core.errors import Unavailable
from headrace.engines.families.directory import Directory
from headrace.engines.families.exporting import load_part, write_graph
from headrace.engines.families.hf_image import GRAPH

TOWER = (
    "model.vision_tower.vision_model.",  # old and new files nest the tower differently
    "vision_tower.vision_model.",
    "model.vision_tower.",
    "vision_tower.",
)
PROJECTOR = ("model.multi_modal_projector.", "multi_modal_projector.")


class Projected(nn.Module):
    """pixels [tiles, 3, height, width] -> rows [tiles, rows, width of the language model]."""

    def __init__(self, tower: nn.Module, projector: nn.Module, features: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.tower = tower
        self.projector = projector
        self.features = features

    def forward(self, pixels: Tensor) -> Tensor:
        rows: Tensor = self.projector(self.features(self.tower, pixels))
        return rows


def selected(tower: Any, pixels: Tensor, layers: int | Sequence[int], strategy: str) -> Tensor:
    """Hidden states of one layer or of several side by side; without the class token if strategy is default."""
    states = tower(pixels, output_hidden_states=True).hidden_states
    chosen = [states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
    first = 1 if strategy == "default" else 0
    return torch.cat([state[:, first:] for state in chosen], dim=-1)


def shuffled(tower: Any, pixels: Tensor, layer: int, strategy: str, ratio: float) -> Tensor:
    """A layer's patches, those of a square of 1 / ratio a side put one behind the other: fewer rows, wider ones."""
    found = tower(pixels, output_hidden_states=True)
    state = found.last_hidden_state if layer == -1 else found.hidden_states[layer]
    state = state[:, 1 if strategy == "default" else 0 :]
    block, side = round(1 / ratio), math.isqrt(state.shape[1])
    squares = state.reshape(-1, side // block, block, side // block, block, state.shape[2])
    return squares.permute(0, 1, 3, 2, 4, 5).reshape(-1, (side // block) ** 2, block**2 * state.shape[2])


def weight(directory: Directory, names: Sequence[str]) -> NDArray[np.float32]:
    """One weight of the checkpoint, under whichever of its names it has.

    Raises:
        Unavailable: under none.
    """
    for file in sorted(directory.path.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in set(names) & set(tensors.keys()):
                found: NDArray[np.float32] = tensors.get_tensor(name).float().numpy()
                return found
    raise Unavailable(f"{directory.path}: no weight is called {' or '.join(names)}")


def export_projected(
    directory: Directory,
    out: Path,
    tower: nn.Module,
    projector: nn.Module,
    features: Callable[[Any, Tensor], Tensor],
    size: tuple[int, int],
) -> None:
    """Weights read from the checkpoint, the graph written for any number of tiles of size (width, height)."""
    module = Projected(load_part(directory, tower, TOWER), load_part(directory, projector, PROJECTOR), features)
    example = {"pixels": torch.zeros(2, 3, size[1], size[0])}
    write_graph(module, example, {"pixels": {0: "tiles"}, "rows": {0: "tiles"}}, out / GRAPH)
