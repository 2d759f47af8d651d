"""The vision tower and projector of Mllama as one graph (torch; only for export)."""

from typing import Any

import torch
from torch import Tensor, nn

from headrace.engines.families.exporting import FusedAttention


class TileTower(nn.Module):
    """Tiles in, projected rows out; `vision` and `projector` are the reference's own modules.

    A batch has pictures of equally many tiles: real, padding and back (see mllama_tiles.tower_inputs) hold for all.
    """

    def __init__(self, vision: nn.Module, projector: nn.Module, rows: int, lanes: int) -> None:
        super().__init__()
        self.vision: Any = vision
        self.projector: Any = projector
        self.rows = rows
        self.lanes = lanes

    def forward(self, pixels: Tensor, ratio: Tensor, real: Tensor, padding: Tensor, back: Tensor) -> Tensor:
        vision = self.vision
        x = vision.layernorm_pre(self.embedded(pixels, ratio))
        pictures, tiles, _, width = x.shape
        x = nn.functional.pad(x, (0, 0, 0, self.lanes - self.rows)).reshape(pictures, -1, width)
        states = []
        for layer in vision.transformer.layers:
            x = self.passed(layer, x, real, padding, back)
            states.append(x)
        x = vision.layernorm_post(x).reshape(pictures, tiles, self.lanes, width)
        x = vision.post_tile_positional_embedding(x, ratio).reshape(pictures, -1, width)
        for layer in vision.global_transformer.layers:
            x = self.passed(layer, x, real, padding, back)
        middle = torch.stack([states[number] for number in vision.intermediate_layers_indices], dim=-1)
        found = torch.cat([x, middle.reshape(pictures, tiles * self.lanes, -1)], dim=-1)
        found = found.reshape(pictures, tiles, self.lanes, -1)[:, :, : self.rows]
        rows: Tensor = self.projector(found)
        return rows.reshape(pictures, tiles * self.rows, -1)

    def embedded(self, pixels: Tensor, ratio: Tensor) -> Tensor:
        """[pictures, tiles, rows, width]: the class vector and the patches of each tile, with all positions."""
        vision = self.vision
        pictures, tiles = pixels.shape[0], pixels.shape[1]
        x = vision.patch_embedding(pixels.reshape(-1, *pixels.shape[2:])).flatten(2).transpose(1, 2)
        x = x.reshape(pictures, tiles, self.rows - 1, -1)
        x = vision.pre_tile_positional_embedding(x, ratio)
        whole = vision.class_embedding.expand(pictures, tiles, 1, x.shape[-1])
        embedded: Tensor = vision.gated_positional_embedding(torch.cat([whole, x], dim=2), ratio)
        return embedded

    def passed(self, layer: Any, x: Tensor, real: Tensor, padding: Tensor, back: Tensor) -> Tensor:
        """A layer: real rows attend to all, padding to real ones."""
        attention, normed = layer.self_attn, layer.input_layernorm(x)
        query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
        heads = int(attention.num_heads)
        found = [
            FusedAttention.apply(query[:, real], key, value, heads),
            FusedAttention.apply(query[:, padding], key[:, real], value[:, real], heads),
        ]
        attended = attention.o_proj(torch.cat(found, dim=1)[:, back])
        x = x + (layer.gate_attn.tanh() * attended if layer.is_gated else attended)
        fed = layer.mlp(layer.post_attention_layernorm(x))
        return x + (layer.gate_ffn.tanh() * fed if layer.is_gated else fed)
