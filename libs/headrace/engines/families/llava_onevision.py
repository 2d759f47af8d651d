"""LLaVA-OneVision (Li et al. 2024): SigLIP over a whole image and the tiles of its best grid, a Qwen2.

Every image of a request is tiled, however many there are, as the processor does with a flat list of images.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headrace.core.errors import Unavailable
from headrace.engines.families import Family
from headrace.engines.families.decoder import Decoder
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf import Slot, open_hf
from headrace.engines.families.hf_config import model_spec, named_token, vision
from headrace.engines.families.hf_image import CONSTANTS, Constants, HfImages
from headrace.engines.families.hf_pixels import CLIP_MEAN, CLIP_STD, Preprocessor, Tile, load_preprocessor
from headrace.engines.families.llama_text import wrapped_decoder
from headrace.modalities import Rows

_SIDES = range(384, 2305, 384)
# What LlavaOnevisionConfig, SiglipVisionConfig and the image processor assume where the files are silent.
_CONFIG: dict[str, Any] = {
    "vision_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": [[height, width] for height in _SIDES for width in _SIDES],
}
_VISION: dict[str, Any] = {"image_size": 224, "patch_size": 16}
_NO_VISION: dict[str, Any] = {"image_size": 384, "patch_size": 14}
_PREPROCESSOR: dict[str, Any] = {
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
_SHRINK_RATIO = 1.1  # a grid of more patches than this times the largest is shrunk to it


@dataclass(frozen=True, slots=True)
class Unpadded:
    """Of the grid of all tiles' patches: the part that shows the image, and what it is shrunk to."""

    rows: slice
    columns: slice
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class AnyRes:
    """Implements hf_image.Tiling: section 3.1 of the paper; `anyres_max_<n>` bounds the patches to those of n tiles."""

    preprocessor: Preprocessor
    pinpoints: tuple[tuple[int, int], ...]  # (height, width) that an image may be fitted into
    side: int  # pixels of a tile
    patches: int  # patches a side of a tile
    tiles_max: int

    def rows(self, width: int, height: int) -> int:
        """The whole image's patches; the tiles' patches that are not padding; a newline behind each row of those."""
        shown = self._unpadded(width, height)
        return self.patches**2 + shown.height * (shown.width + 1)

    def tiles(self, image: Image.Image) -> list[Tile]:
        kind = self.preprocessor
        whole = image.resize((self.side, self.side), kind.resample)
        fitted = self._fit(image)
        cuts = [
            fitted[top : top + self.side, left : left + self.side]
            for top in range(0, fitted.shape[0], self.side)
            for left in range(0, fitted.shape[1], self.side)
        ]
        return [kind.normalise(pixels) for pixels in (np.asarray(whole), *cuts)]

    def pack(self, features: Rows, width: int, height: int, constants: Constants) -> Rows:
        height_best, width_best = self.best(width, height)
        down, across = height_best // self.side, width_best // self.side
        grid = features[1:].reshape(down, across, self.patches, self.patches, -1).swapaxes(1, 2)
        shown = self._unpadded(width, height)
        cut = grid.reshape(down * self.patches, across * self.patches, -1)[shown.rows, shown.columns]
        if cut.shape[:2] != (shown.height, shown.width):
            cut = bilinear(cut, shown.height, shown.width)
        newlines = np.broadcast_to(constants["newline"], (shown.height, 1, cut.shape[2]))
        lines = np.concatenate([cut, newlines], axis=1)
        return np.concatenate([features[0], lines.reshape(-1, cut.shape[2])])

    def _fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resized into the best size and centred on black."""
        height, width = self.best(*image.size)
        size = fit(image.size, (width, height))
        canvas = np.zeros((height, width, 3), np.uint8)
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        canvas[top : top + size[1], left : left + size[0]] = np.asarray(image.resize(size, self.preprocessor.resample))
        return canvas

    def best(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of the size that keeps most of the image's pixels, and among those wastes least."""

        def merit(size: tuple[int, int]) -> tuple[int, int]:
            scale = min(size[1] / width, size[0] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - size[0] * size[1]

        return max(self.pinpoints, key=merit)

    def _unpadded(self, width: int, height: int) -> Unpadded:
        height_best, width_best = self.best(width, height)
        rows, columns = (side // self.side * self.patches for side in (height_best, width_best))
        above = left = 0
        if width / height > columns / rows:
            above = (rows - int(round(height * (columns / width), 7))) // 2
        else:
            left = (columns - int(round(width * (rows / height), 7))) // 2
        shown_height, shown_width = rows - 2 * above, columns - 2 * left
        ratio = math.sqrt(shown_height * shown_width / (self.tiles_max * self.patches**2))
        if ratio > _SHRINK_RATIO:
            final = int(shown_height // ratio), int(shown_width // ratio)
        else:
            final = shown_height, shown_width
        return Unpadded(slice(above, rows - above), slice(left, columns - left), *final)


def fit(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of an image scaled until one side fills the frame; the other is rounded up."""
    across, down = into[0] / size[0], into[1] / size[1]
    if across < down:
        return into[0], min(math.ceil(size[1] * across), into[1])
    return min(math.ceil(size[0] * down), into[0]), into[1]


def bilinear(grid: Rows, height: int, width: int) -> Rows:
    """[rows, columns, width] to another number of rows and columns; pixel centres correspond, as torch's interpolate
    with align_corners=False."""
    for axis, length in ((1, width), (0, height)):
        had = grid.shape[axis]
        scale = np.float32(had) / np.float32(length)
        at = np.maximum((np.arange(length, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
        low = np.minimum(at.astype(np.int64), had - 1)
        high = np.minimum(low + 1, had - 1)
        share = (at - low).reshape((-1, 1) if axis else (-1, 1, 1)).astype(np.float32)
        grid = grid.take(low, axis) * (1 - share) + grid.take(high, axis) * share
    return grid


def family(directory: Directory) -> Family:
    token = named_token(directory, "image_token", "<image>")
    return open_hf(
        directory,
        lambda vocabulary: model_spec(
            directory, family="llava_onevision", modalities=("image",), placeholder_id=vocabulary.token_id(token)
        ),
        slots={"image": Slot(token)},
        modalities={"image": HfImages(directory, _tiling(directory))},
        reserved=(named_token(directory, "video_token", "<video>"),),
    )


def _tiling(directory: Directory) -> AnyRes:
    config = {**_CONFIG, **{name: value for name, value in directory.config.items() if value is not None}}
    tower = vision(directory, _VISION, _NO_VISION, ("siglip_vision_model",))
    aspect = config["vision_aspect_ratio"]
    if not aspect.removeprefix("anyres_max_").isdigit():
        raise Unavailable(f"{directory.name}: vision_aspect_ratio {aspect!r} is not known; anyres_max_<n> is")
    return AnyRes(
        load_preprocessor(directory, _PREPROCESSOR),
        tuple((height, width) for height, width in config["image_grid_pinpoints"]),
        tower["image_size"],
        tower["image_size"] // tower["patch_size"],
        int(aspect.removeprefix("anyres_max_")),
    )


def decoder(directory: Directory) -> Decoder:
    return wrapped_decoder(directory)


def export(directory: Directory, out: Path) -> None:
    """See Architecture.export. The newline's embedding stands beside the graph."""
    from transformers import AutoConfig, AutoModel
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionMultiModalProjector

    from headrace.engines.families.hf_towers import export_projected, selected, weight

    config = AutoConfig.from_pretrained(directory.path)
    side = config.vision_config.image_size
    export_projected(
        directory,
        out,
        AutoModel.from_config(config.vision_config, attn_implementation="eager"),
        LlavaOnevisionMultiModalProjector(config),
        partial(selected, layers=config.vision_feature_layer, strategy=config.vision_feature_select_strategy),
        (side, side),
    )
    np.savez(out / CONSTANTS, newline=weight(directory, ("model.image_newline", "image_newline")))
