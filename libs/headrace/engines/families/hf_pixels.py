"""Pixels as Hugging Face's image processors prepare them: resize, crop, pad, rescale, normalise; Pillow and numpy.

The reference is the Pillow backend of transformers' image processors (image_transforms), equal to the last bit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headrace.core.errors import Unavailable
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf_config import optional_json

Pixels = NDArray[np.uint8]  # [height, width, 3]
Tile = NDArray[np.float32]  # [3, height, width]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """preprocessor_config.json, or the image_processor of processor_config.json, over a processor's own defaults."""

    said: Mapping[str, Any]

    @property
    def resample(self) -> Image.Resampling:
        return Image.Resampling(self.said.get("resample", Image.Resampling.BICUBIC))

    def flag(self, name: str) -> bool:
        return bool(self.said.get(name))

    def side(self, name: str) -> tuple[int, int]:
        """(width, height) of a size that is a number, a shortest edge, or both sides."""
        size = self.said.get(name)
        if isinstance(size, int):
            return size, size
        if isinstance(size, Mapping) and "shortest_edge" in size:
            return size["shortest_edge"], size["shortest_edge"]
        if isinstance(size, Mapping) and {"height", "width"} <= set(size):
            return size["width"], size["height"]
        raise Unavailable(
            f"the image preprocessor's {name} is {size!r}: a shortest edge, or height and width are known"
        )

    def keeps_aspect(self) -> bool:
        size = self.said.get("size")
        return isinstance(size, int) or (isinstance(size, Mapping) and "shortest_edge" in size)

    def normalise(self, pixels: Pixels) -> Tile:
        """To float32, rescaled and normalised where the processor does so, channels first."""
        numbers: NDArray[Any] = pixels.transpose(2, 0, 1)
        if self.said.get("do_rescale", True):
            factor = self.said.get("rescale_factor") or 1 / 255
            numbers = (numbers.astype(np.float64) * factor).astype(np.float32)
        numbers = numbers.astype(np.float32)
        if self.said.get("do_normalize", True):
            numbers = (numbers - self._channels("image_mean")) / self._channels("image_std")
        return np.ascontiguousarray(numbers, np.float32)

    def _channels(self, name: str) -> Tile:
        return np.asarray(self.said[name], np.float32)[:, None, None]


def load_preprocessor(directory: Directory, defaults: Mapping[str, Any]) -> Preprocessor:
    """defaults: of the image processor's class, for what the files leave out."""
    said = optional_json(directory, "preprocessor_config.json")
    if not said:
        said = optional_json(directory, "processor_config.json").get("image_processor") or {}
    return Preprocessor({**defaults, **{name: value for name, value in said.items() if value is not None}})


def shortest_edge(width: int, height: int, edge: int) -> tuple[int, int]:
    """(width, height) with the shorter side at edge, the longer one cut to a whole number."""
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge


def centre_crop(pixels: Pixels, width: int, height: int) -> Pixels:
    """The middle; a smaller picture stands in the middle of black, an odd pixel more above and left."""
    had_height, had_width = pixels.shape[:2]
    canvas_height, canvas_width = max(height, had_height), max(width, had_width)
    above, left = math.ceil((canvas_height - had_height) / 2), math.ceil((canvas_width - had_width) / 2)
    canvas = np.zeros((canvas_height, canvas_width, 3), np.uint8)
    canvas[above : above + had_height, left : left + had_width] = pixels
    top, start = (had_height - height) // 2 + above, (had_width - width) // 2 + left
    return canvas[max(0, top) : min(canvas_height, top + height), max(0, start) : min(canvas_width, start + width)]


def pad_to_square(pixels: Pixels, colour: tuple[int, ...]) -> Pixels:
    height, width = pixels.shape[:2]
    side = max(height, width)
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = colour
    above, left = (side - height) // 2, (side - width) // 2
    canvas[above : above + height, left : left + width] = pixels
    return canvas
