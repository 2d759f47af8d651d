"""The vision towers of Qwen2.5-VL and Qwen3-VL as graphs that serve every picture size (torch; only for export).

What depends on a picture's grid comes in as inputs, computed with numpy where the graph runs: the rope's cosines and
sines, the members of attention windows, the taps of interpolated positions. Pictures of one grid run as one batch.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headrace.engines.families.directory import Directory
from headrace.engines.families.exporting import FusedAttention, load_part, write_graph
from headrace.engines.families.qwen_vl import Grid, Patching, Vision, grid_inputs


class Tower(nn.Module):
    """What both have: patches and rope in, blocks, merged rows out. `vision` is the reference's own module."""

    def __init__(self, vision: nn.Module) -> None:
        super().__init__()
        self.vision: Any = vision
        self.heads = int(vision.config.num_heads)
        self.width = int(vision.config.hidden_size)

    def embedded(self, patches: Tensor) -> Tensor:
        """A convolution whose stride is its kernel: one matrix."""
        projection = self.vision.patch_embed.proj
        return nn.functional.linear(patches, projection.weight.reshape(self.width, -1), projection.bias)

    def rotated(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """[batch, patches, width], turned head by head."""
        heads = x.reshape(x.shape[0], x.shape[1], self.heads, -1)
        left, right = heads.chunk(2, dim=-1)
        turned = heads * cosine[:, None] + torch.cat([-right, left], dim=-1) * sine[:, None]
        return turned.reshape(x.shape[0], x.shape[1], self.width)

    def attended(self, block: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
        return self.rotated(query, cosine, sine), self.rotated(key, cosine, sine), value

    def finished(self, block: Any, x: Tensor, attention: Tensor) -> Tensor:
        x = x + block.attn.proj(attention)
        return x + block.mlp(block.norm2(x))

    def merged(self, merger: Any, x: Tensor) -> Tensor:
        """[batch, patches, width] -> [batch, rows, out width]"""
        rows = merger(x.reshape(-1, self.width))
        return rows.reshape(x.shape[0], -1, rows.shape[-1])


class WindowedTower(Tower):
    """Qwen2.5-VL: most layers attend within windows, some within the whole picture."""

    def forward(
        self, patches: Tensor, cosine: Tensor, sine: Tensor, members: Tensor, absent: Tensor, back: Tensor
    ) -> Tensor:
        x = self.embedded(patches)
        for number, block in enumerate(self.vision.blocks):
            query, key, value = self.attended(block, x, cosine, sine)
            if number in self.vision.fullatt_block_indexes:
                attention = FusedAttention.apply(query, key, value, self.heads)
            else:
                attention = self.windowed(query, key, value, members, absent)[:, back]
            x = self.finished(block, x, attention)
        return self.merged(self.vision.merger, x)

    def windowed(self, query: Tensor, key: Tensor, value: Tensor, members: Tensor, absent: Tensor) -> Tensor:
        """[batch, windows x window, width]; members, absent: see qwen_vl.Windows."""
        split = [
            x[:, members.reshape(-1)]
            .reshape(x.shape[0], members.shape[0], members.shape[1], self.heads, -1)
            .transpose(2, 3)
            for x in (query, key, value)
        ]  # [batch, windows, heads, window, head width]
        scores = split[0] @ split[1].transpose(-1, -2) * (self.width // self.heads) ** -0.5
        attention = torch.softmax(scores + absent[:, None, None], dim=-1) @ split[2]
        return attention.transpose(2, 3).reshape(query.shape[0], -1, self.width)


class DeepstackTower(Tower):
    """Qwen3-VL: learned positions interpolated to the grid; some layers' features are rows of their own."""

    def forward(self, patches: Tensor, cosine: Tensor, sine: Tensor, taps: Tensor, weights: Tensor) -> Tensor:
        learned = (self.vision.pos_embed.weight[taps] * weights[:, :, None]).sum(1)
        x = self.embedded(patches) + learned
        deep = []
        for number, block in enumerate(self.vision.blocks):
            query, key, value = self.attended(block, x, cosine, sine)
            x = self.finished(block, x, FusedAttention.apply(query, key, value, self.heads))
            if number in self.vision.deepstack_visual_indexes:
                at = list(self.vision.deepstack_visual_indexes).index(number)
                deep.append(self.merged(self.vision.deepstack_merger_list[at], x))
        return torch.cat([self.merged(self.vision.merger, x), *deep], dim=-1)


# Dynamic axes of the inputs, by name.
_AXES = {
    "patches": {0: "pictures", 1: "patches"},
    "cosine": {0: "patches"},
    "sine": {0: "patches"},
    "members": {0: "windows"},
    "absent": {0: "windows"},
    "back": {0: "patches"},
    "taps": {0: "patches"},
    "weights": {0: "patches"},
    "rows": {0: "pictures", 1: "rows"},
}


def export_tower(directory: Directory, tower: Tower, patching: Patching, vision: Vision, graph: Path) -> None:
    """Write the tower with the checkpoint's weights; one graph serves every grid and number of pictures."""
    load_part(directory, tower.vision, ("model.visual.", "visual."))
    grid = Grid(3 * vision.merge, 2 * vision.merge)
    given = {name: torch.from_numpy(array) for name, array in grid_inputs(grid, vision).items()}
    example = {"patches": torch.zeros(2, grid.patches, patching.patch_width), **given}
    axes = {name: _AXES[name] for name in (*example, "rows")}
    write_graph(tower, example, axes, graph)
