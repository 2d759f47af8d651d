"""The image tower and projector, and the tower's supervised pre-training on picture attributes.

The attributes (digit, colour, kind, corner) are labels: nothing here is self-supervised.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headrace.modalities.image import SOFT_TOKENS, letterbox
from headrace.training.pictures import COLORS, CORNERS, KINDS, Digit, Label, Picture

Log = Callable[..., None]
CHANNELS, GRID = 128, 4  # the tower's last feature map: GRID x GRID cells
SOFT_FEATURES = CHANNELS * GRID * GRID // SOFT_TOKENS
_HEADS = (10, len(COLORS), len(KINDS), len(CORNERS))
_IGNORE = -100


class Tower(nn.Module):
    """Convolutions to a 4x4 map, then attention among its cells: pixels [n, 3, 32, 32] -> [n, 4, 512].

    Four neighbouring cells become one soft token (pixel unshuffle).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_block(3, 48, 2), *_block(48, 64, 1), *_block(64, 96, 2), *_block(96, 96, 1), *_block(96, CHANNELS, 2)
        )
        self.position = nn.Parameter(torch.randn(GRID * GRID, CHANNELS) * 0.02)
        layer = {"d_model": CHANNELS, "nhead": 4, "dim_feedforward": 384, "dropout": 0.0, "activation": "gelu"}
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(**layer, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, pixels: Tensor) -> Tensor:
        cells = self.stem(pixels).flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            cells = layer(cells)
        half = GRID // 2
        folded = self.norm(cells).reshape(-1, half, 2, half, 2, CHANNELS)
        return folded.permute(0, 1, 3, 2, 4, 5).reshape(-1, SOFT_TOKENS, SOFT_FEATURES)


def _block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.GELU()


class Projector(nn.Module):
    """Tower features [n, 4, 512] -> soft tokens [n, 4, width] at the scale of word embeddings."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(SOFT_FEATURES), nn.Linear(SOFT_FEATURES, 768), nn.GELU(), nn.Linear(768, width)
        )
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.layers(features)
        return projected * self.scale


@dataclass(frozen=True, slots=True)
class Pool:
    """Pictures as the tower sees them, with their labels."""

    pixels: Tensor  # float16 [n, 3, 32, 32]
    labels: tuple[Label, ...]
    targets: Tensor  # int64 [n, 4]: digit, colour, kind, corner; _IGNORE where it has none


def make_pool(pictures: Sequence[Picture]) -> Pool:
    from PIL import Image

    pixels = np.stack([letterbox(Image.fromarray(picture.pixels)).astype(np.float16) for picture in pictures])
    labels = tuple(picture.label for picture in pictures)
    return Pool(torch.from_numpy(pixels), labels, torch.tensor([_targets(label) for label in labels]))


def _targets(label: Label) -> tuple[int, int, int, int]:
    if isinstance(label, Digit):
        return label.value, _IGNORE, _IGNORE, _IGNORE
    kind, corner = KINDS.index(label.kind), CORNERS.index(label.corner)
    return _IGNORE, list(COLORS).index(label.color), kind, corner


def train_tower(pool: Pool, validation: Pool, steps: int, seed: int, log: Log) -> Tower:
    """AdamW, one-cycle cosine; pixels are shifted and made noisy each time they are seen."""
    torch.manual_seed(seed)
    tower, heads = Tower(), nn.Linear(SOFT_FEATURES, sum(_HEADS))
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps, 50))
    for step in range(steps):
        rows = torch.randint(len(pool.labels), (96,))
        loss = _loss(heads(tower(_jitter(pool.pixels[rows].float())).mean(1)), pool.targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 199 or step == steps - 1:
            log("tower", step=step + 1, loss=round(loss.item(), 4), validation=_accuracy(tower, heads, validation))
    tower.eval()
    return tower


def cosine(step: int, steps: int, warm_up: int) -> float:
    """Learning-rate factor: linear warm-up, then a half cosine down to 3 %."""
    return min(1.0, (step + 1) / warm_up) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _jitter(pixels: Tensor) -> Tensor:
    down, right = torch.randint(-2, 3, (2,)).tolist()
    shifted = torch.roll(pixels, (down, right), (2, 3))
    return shifted + torch.randn_like(shifted) * 0.05


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    parts = [
        F.cross_entropy(head, targets[:, i], ignore_index=_IGNORE, label_smoothing=0.05)
        for i, head in enumerate(logits.split(_HEADS, 1))
    ]
    return torch.stack(parts).sum()


def features(tower: Tower, pool: Pool) -> Tensor:
    """Tower output of a whole pool, float16 [n, 4, 512]: the tower is frozen from here on."""
    with torch.no_grad():
        return torch.cat([tower(chunk.float()).half() for chunk in pool.pixels.split(256)])


def _accuracy(tower: Tower, heads: nn.Linear, pool: Pool) -> dict[str, float]:
    tower.eval()
    with torch.no_grad():
        logits = heads(features(tower, pool).float().mean(1)).split(_HEADS, 1)
    tower.train()
    shares = {}
    for i, name in enumerate(("digit", "color", "kind", "corner")):
        known = pool.targets[:, i] >= 0
        shares[name] = round((logits[i].argmax(1) == pool.targets[:, i])[known].float().mean().item(), 4)
    return shares
