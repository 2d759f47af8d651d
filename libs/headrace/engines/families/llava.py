"""LLaVA 1.5 (Liu et al. 2023, Improved Baselines with Visual Instruction Tuning): CLIP, a projector, a Llama.

Every image is one tile, so every image takes as many rows.
"""

from dataclasses import dataclass
from functools import partial
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
from headrace.engines.families.hf_pixels import (
    CLIP_MEAN,
    CLIP_STD,
    Preprocessor,
    Tile,
    centre_crop,
    load_preprocessor,
    pad_to_square,
    shortest_edge,
)
from headrace.engines.families.llama_text import wrapped_decoder
from headrace.modalities import Rows

# What LlavaConfig, CLIPVisionConfig and the image processor assume where the files are silent.
_CONFIG: dict[str, Any] = {"vision_feature_select_strategy": "default", "vision_feature_layer": -2}
_VISION: dict[str, Any] = {"image_size": 224, "patch_size": 32}
_NO_VISION: dict[str, Any] = {"image_size": 336, "patch_size": 14}
_PREPROCESSOR: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}


@dataclass(frozen=True, slots=True)
class OneTile:
    """Implements hf_image.Tiling."""

    preprocessor: Preprocessor
    tile_rows: int

    def rows(self, width: int, height: int) -> int:
        return self.tile_rows

    def tiles(self, image: Image.Image) -> list[Tile]:
        kind = self.preprocessor
        if kind.flag("do_pad"):
            colour = tuple(int(value * 255) for value in kind.said["image_mean"])
            image = Image.fromarray(pad_to_square(np.asarray(image), colour))
        if kind.flag("do_resize"):
            wanted = kind.side("size")
            size = shortest_edge(*image.size, wanted[0]) if kind.keeps_aspect() else wanted
            image = image.resize(size, kind.resample)
        pixels = np.asarray(image)
        if kind.flag("do_center_crop"):
            pixels = centre_crop(pixels, *kind.side("crop_size"))
        return [kind.normalise(pixels)]

    def pack(self, features: Rows, width: int, height: int, constants: Constants) -> Rows:
        rows: Rows = features[0]
        return rows


def family(directory: Directory) -> Family:
    images = HfImages(directory, OneTile(load_preprocessor(directory, _PREPROCESSOR), _tile_rows(directory)))
    token = named_token(directory, "image_token", "<image>")
    return open_hf(
        directory,
        lambda vocabulary: model_spec(
            directory, family="llava", modalities=("image",), placeholder_id=vocabulary.token_id(token)
        ),
        slots={"image": Slot(token)},
        modalities={"image": images},
    )


def _tile_rows(directory: Directory) -> int:
    """Patches of the tower; CLIP has a class token before them; the default strategy leaves the first row out."""
    fields = vision(directory, _VISION, _NO_VISION, ("clip_vision_model", "siglip_vision_model"))
    patches = int(fields["image_size"] // fields["patch_size"]) ** 2
    strategy = {**_CONFIG, **directory.config}["vision_feature_select_strategy"]
    return patches + int(fields["model_type"] == "clip_vision_model") - int(strategy == "default")


def decoder(directory: Directory) -> Decoder:
    return wrapped_decoder(directory)


def export(directory: Directory, out: Path) -> None:
    """See Architecture.export."""
    from transformers import AutoConfig, AutoModel
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    from headrace.engines.families.hf_towers import export_projected, selected

    config = AutoConfig.from_pretrained(directory.path)
    tower = AutoModel.from_config(config.vision_config, attn_implementation="eager")
    side = config.vision_config.image_size
    export_projected(
        directory,
        out,
        tower,
        LlavaMultiModalProjector(config),
        partial(selected, layers=config.vision_feature_layer, strategy=config.vision_feature_select_strategy),
        (side, side),
    )
