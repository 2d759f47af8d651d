"""InternVL 2.5 and 3 (Chen et al. 2024): an image cut into tiles by its aspect, with a thumbnail; four patches a row.

The checkpoints are those in transformers' own format (model_type internvl).
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headrace.engines.families import Family
from headrace.engines.families.decoder import Decoder
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf import Slot, open_hf
from headrace.engines.families.hf_config import model_spec, named_token, vision
from headrace.engines.families.hf_image import Constants, HfImages
from headrace.engines.families.hf_pixels import CLIP_MEAN, CLIP_STD, Preprocessor, Tile, load_preprocessor
from headrace.engines.families.llama_text import wrapped_decoder
from headrace.modalities import Rows

# What InternVLConfig, its vision part and the image processor assume where the files are silent.
_CONFIG: dict[str, Any] = {
    "downsample_ratio": 0.5,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
}
_VISION: dict[str, Any] = {"image_size": 448, "patch_size": 14}
_PREPROCESSOR: dict[str, Any] = {
    "size": {"height": 384, "width": 384},
    "min_patches": 1,
    "max_patches": 12,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}


@dataclass(frozen=True, slots=True)
class DynamicTiles:
    """Implements hf_image.Tiling: dynamic resolution of InternVL 1.5, section 3.2.

    The model's processor always cuts, whatever crop_to_patches of preprocessor_config.json says.
    """

    preprocessor: Preprocessor
    tile: tuple[int, int]  # (width, height) in pixels
    tiles_min: int
    tiles_max: int
    tile_rows: int  # embedding rows of a tile

    def rows(self, width: int, height: int) -> int:
        across, down = self._grid(width, height)
        return self.tile_rows * (across * down + (across * down > 1))

    def tiles(self, image: Image.Image) -> list[Tile]:
        """The tiles row by row; a thumbnail behind them where there are several."""
        across, down = self._grid(*image.size)
        width, height = self.tile
        resample = self.preprocessor.resample
        pixels = np.asarray(image.resize((across * width, down * height), resample))
        cuts = [
            pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
            for row in range(down)
            for column in range(across)
        ]
        thumbnail = [np.asarray(image.resize(self.tile, resample))] if len(cuts) > 1 else []
        return [self.preprocessor.normalise(cut) for cut in (*cuts, *thumbnail)]

    def pack(self, features: Rows, width: int, height: int, constants: Constants) -> Rows:
        return features.reshape(-1, features.shape[2])

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """(tiles across, tiles down) of the closest aspect; among equals the last that it half fills."""
        best, least = (1, 1), float("inf")
        for grid in _grids(self.tiles_min, self.tiles_max):
            difference = abs(width / height - grid[0] / grid[1])
            fills = width * height > 0.5 * self.tile[0] * self.tile[1] * grid[0] * grid[1]
            if difference < least or (difference == least and fills):
                best, least = grid, difference
        return best


@lru_cache(maxsize=8)
def _grids(least: int, most: int) -> tuple[tuple[int, int], ...]:
    """All (tiles across, tiles down) of so many tiles, fewest first."""
    sides = range(1, most + 1)
    grids = [(across, down) for across in sides for down in sides if least <= across * down <= most]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def family(directory: Directory) -> Family:
    token = named_token(directory, "context_image_token", "<IMG_CONTEXT>")
    begin, end = (
        named_token(directory, "start_image_token", "<img>"),
        named_token(directory, "end_image_token", "</img>"),
    )
    return open_hf(
        directory,
        lambda vocabulary: model_spec(
            directory, family="internvl", modalities=("image",), placeholder_id=vocabulary.token_id(token)
        ),
        slots={"image": Slot(token, before=begin, after=end)},
        modalities={"image": HfImages(directory, _tiling(directory))},
        reserved=(named_token(directory, "video_token", "<video>"),),
    )


def _tiling(directory: Directory) -> DynamicTiles:
    config = {**_CONFIG, **directory.config}
    tower = vision(directory, _VISION, _VISION, ("internvl_vision",))
    sides = zip(_pair(tower["image_size"]), _pair(tower["patch_size"]), strict=True)
    patches = [side // patch for side, patch in sides]
    preprocessor = load_preprocessor(directory, _PREPROCESSOR)
    return DynamicTiles(
        preprocessor,
        preprocessor.side("size"),
        preprocessor.said["min_patches"],
        preprocessor.said["max_patches"],
        round(patches[0] * patches[1] * config["downsample_ratio"] ** 2),
    )


def _pair(value: int | list[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else value


def decoder(directory: Directory) -> Decoder:
    return wrapped_decoder(directory, tied=True)


def export(directory: Directory, out: Path) -> None:
    """See Architecture.export. Pixel shuffle and projector are in the graph."""
    from transformers import AutoConfig, AutoModel
    from transformers.models.internvl.modeling_internvl import InternVLMultiModalProjector

    from headrace.engines.families.hf_towers import export_projected, shuffled

    config = AutoConfig.from_pretrained(directory.path)
    height, width = config.vision_config.image_size
    export_projected(
        directory,
        out,
        AutoModel.from_config(config.vision_config, attn_implementation="eager"),
        InternVLMultiModalProjector(config),
        partial(
            shuffled,
            layer=config.vision_feature_layer,
            strategy=config.vision_feature_select_strategy,
            ratio=config.downsample_ratio,
        ),
        (width, height),
    )
