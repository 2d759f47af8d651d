"""Pictures of Qwen2.5-VL and Qwen3-VL: how many rows they take, and the exported tower that embeds them.

Neither torch nor transformers: the graph was written by `headrace model export`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from headrace.core.errors import InvalidInput
from headrace.core.types import Media, MediaMeta, MediaSpan
from headrace.engines.families import Family
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf import Slot, open_hf
from headrace.engines.families.hf_config import model_spec
from headrace.engines.families.hf_pixels import CLIP_MEAN, CLIP_STD, load_preprocessor
from headrace.engines.families.qwen_vl import Floats, Grid, Patching, Vision, grid_inputs
from headrace.engines.runtime import open_session
from headrace.modalities import Encoder, Input, Rows
from headrace.modalities.image import decode, probe

GRAPH = "image.onnx"
IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"
ROPE_BASE = 10_000.0  # of the towers, where the configuration is silent
# What the image processor assumes where preprocessor_config.json is silent: CLIP's numbers, 4 to 1,280 rows.
_PROCESSOR: dict[str, Any] = {
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
# Patches that run at once; a larger picture runs alone. At 1,280 columns the widest layer of so many takes 0.2 GB,
# and beyond some thousand the CPU is full anyway.
BATCH_PATCHES_MAX = 8192


@dataclass(frozen=True, slots=True)
class Picture:
    """A preprocessed part: its patches in merged order."""

    grid: Grid
    patches: Floats  # [patches, patch width]


@dataclass(frozen=True, slots=True)
class QwenPictures:
    """Implements headrace.modalities.Modality for a directory's own sizes."""

    patching: Patching
    vision: Vision
    directory: Directory
    name: str = "image"

    def probe(self, data: bytes) -> MediaMeta:
        meta = probe(data)
        self.patching.size(meta.width, meta.height)  # refuses what is too long and narrow
        return meta

    def token_count(self, meta: MediaMeta) -> int:
        return self.patching.tokens(meta)

    def load(self, threads: int, device: str = "cpu") -> Encoder:
        """Raises Unavailable: the tower has not been exported."""
        return QwenEncoder(self, open_session(self.directory.graph(GRAPH), threads, device))

    def place(self, part: int, offset: int, media: Media) -> MediaSpan:
        """The span of a part, with the grid that rope positions follow."""
        return MediaSpan(part, offset, media.tokens, grid=self.patching.span_grid(media.meta))


class QwenEncoder:
    """Pictures of one grid run as one batch."""

    def __init__(self, pictures: QwenPictures, session: Any) -> None:
        self._pictures = pictures
        self._session = session
        self._inputs = [given.name for given in session.get_inputs()]

    def preprocess(self, data: bytes, meta: MediaMeta) -> Input:
        image = decode(data, draft_side=None)
        if image.size != (meta.width, meta.height):
            raise InvalidInput(f"the image is {image.size[0]} x {image.size[1]}, its header says otherwise")
        return Picture(*self._pictures.patching.patches(image))

    def encode(self, batch: Sequence[Input]) -> list[Rows]:
        rows: dict[int, Rows] = {}
        order = sorted(range(len(batch)), key=lambda number: (batch[number].grid.rows, batch[number].grid.columns))
        for grid, alike in groupby(order, key=lambda number: batch[number].grid):
            numbers = list(alike)
            step = max(1, BATCH_PATCHES_MAX // grid.patches)
            for start in range(0, len(numbers), step):
                some = numbers[start : start + step]
                rows.update(zip(some, self._run(grid, [batch[number].patches for number in some]), strict=True))
        return [rows[number] for number in range(len(batch))]

    def _run(self, grid: Grid, patches: Sequence[Floats]) -> Rows:
        given = {"patches": np.stack(patches), **grid_inputs(grid, self._pictures.vision)}
        found: Rows = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        return found


def open_qwen(directory: Directory, name: str, pictures: QwenPictures, embed_parts: int = 1) -> Family:
    """The family around its pictures; embed_parts: rows are so many times the decoder's width."""
    spec = model_spec(
        directory,
        family=name,
        modalities=("image",),
        placeholder_id=int(directory.config["image_token_id"]),
        embed_parts=embed_parts,
    )
    slots = {"image": Slot(IMAGE_TOKEN, pictures.place)}
    return open_hf(directory, lambda _: spec, slots=slots, modalities={"image": pictures}, reserved=(VIDEO_TOKEN,))


def patching(directory: Directory, vision: Mapping[str, Any]) -> Patching:
    """Of preprocessor_config.json: size names the bounds, or min_pixels and max_pixels of older files do."""
    said = load_preprocessor(directory, _PROCESSOR).said
    size = {**_PROCESSOR["size"], **(said["size"] or {})}
    return Patching(
        patch=int(vision["patch_size"]),
        merge=int(vision["spatial_merge_size"]),
        frames=int(vision["temporal_patch_size"]),
        pixels_min=int(said.get("min_pixels") or size["shortest_edge"]),
        pixels_max=int(said.get("max_pixels") or size["longest_edge"]),
        mean=tuple(float(value) for value in said["image_mean"]),
        std=tuple(float(value) for value in said["image_std"]),
    )


def vision_fields(directory: Directory, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """vision_config over what its class assumes."""
    said = directory.config.get("vision_config") or {}
    return {**defaults, **{name: value for name, value in said.items() if value is not None}}


def vision_of(fields: Mapping[str, Any], **changes: int) -> Vision:
    rope = fields.get("rope_parameters") or {}
    return Vision(
        merge=int(fields["spatial_merge_size"]),
        head_width=int(fields["hidden_size"]) // int(fields["num_heads"]),
        rope_base=float(rope.get("rope_theta", ROPE_BASE)),
        **changes,
    )
