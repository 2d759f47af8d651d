"""The sound tower and projector of Qwen2-Audio as one graph for clips of any length (torch; only for export)."""

from typing import Any

from torch import Tensor, nn

from headrace.engines.families.exporting import FusedAttention


class SoundTower(nn.Module):
    """Log-mel frames in, projected rows out; `tower` and `projector` are the reference's own modules.

    frames [clips, bands, frames] reach as far as the convolutions of the last place look; places: 0 .. n - 1.
    """

    def __init__(self, tower: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.tower: Any = tower
        self.projector: Any = projector

    def forward(self, frames: Tensor, places: Tensor) -> Tensor:
        tower, gelu = self.tower, nn.functional.gelu
        x = gelu(tower.conv2(gelu(tower.conv1(frames)))).transpose(1, 2)
        x = x[:, places] + tower.embed_positions.weight[places]
        for layer in tower.layers:
            x = self.passed(layer, x)
        pairs = tower.avg_pooler(x.transpose(1, 2)).transpose(1, 2)
        rows: Tensor = self.projector(tower.layer_norm(pairs))
        return rows

    def passed(self, layer: Any, x: Tensor) -> Tensor:
        attention, normed = layer.self_attn, layer.self_attn_layer_norm(x)
        query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
        x = x + attention.out_proj(FusedAttention.apply(query, key, value, int(attention.num_heads)))
        fed: Tensor = layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        return x + fed
