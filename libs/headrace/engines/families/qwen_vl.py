"""What Qwen2.5-VL and Qwen3-VL share: picture sizes, patches, rope positions of prompts and of patches.

Sources: Qwen2-VL (Wang et al. 2024), section 2.1, and the image processor of its checkpoints. No torch here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta, MediaSpan
from headrace.engines.families.decoder import Positions

ASPECT_MAX = 200  # the reference's bound: beyond it one side would be less than a patch of sense

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Patches of one picture."""

    rows: int
    columns: int

    @property
    def patches(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Patching:
    """How a picture becomes patches: preprocessor_config.json and the vision part of config.json."""

    patch: int  # pixels a side
    merge: int  # merge x merge patches become one embedding row
    frames: int  # a still picture is repeated this many times
    pixels_min: int
    pixels_max: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def patch_width(self) -> int:
        return len(self.mean) * self.frames * self.patch**2

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that the picture is resized to: whole merged patches, pixels within bounds, aspect kept.

        Raises:
            InvalidInput: one side is more than 200 times the other.
        """
        if max(width, height) > ASPECT_MAX * min(width, height):
            raise InvalidInput(f"the image is {width} x {height}; this model takes at most {ASPECT_MAX}:1")
        unit = self.patch * self.merge
        sides = [round(side / unit) * unit for side in (width, height)]
        if sides[0] * sides[1] > self.pixels_max:
            shrink = math.sqrt(width * height / self.pixels_max)
            sides = [max(unit, math.floor(side / shrink / unit) * unit) for side in (width, height)]
        elif sides[0] * sides[1] < self.pixels_min:
            grow = math.sqrt(self.pixels_min / (width * height))
            sides = [math.ceil(side * grow / unit) * unit for side in (width, height)]
        return sides[0], sides[1]

    def grid(self, meta: MediaMeta) -> Grid:
        width, height = self.size(meta.width, meta.height)
        return Grid(height // self.patch, width // self.patch)

    def tokens(self, meta: MediaMeta) -> int:
        return self.grid(meta).patches // self.merge**2

    def span_grid(self, meta: MediaMeta) -> tuple[int, int, int]:
        """(time, rows, columns) of the embedding rows: MediaSpan.grid."""
        grid = self.grid(meta)
        return 1, grid.rows // self.merge, grid.columns // self.merge

    def patches(self, image: Image.Image) -> tuple[Grid, Floats]:
        """RGB picture -> its patches [patches, patch_width] in merged order: block by block, row by row in a block."""
        size = self.size(*image.size)
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32) / 255
        pixels = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        grid = Grid(size[1] // self.patch, size[0] // self.patch)
        blocks = pixels.reshape(
            grid.rows // self.merge, self.merge, self.patch, grid.columns // self.merge, self.merge, self.patch, -1
        ).transpose(0, 3, 1, 4, 6, 2, 5)  # block row, block column, row, column, channel, y, x
        frames = np.repeat(blocks[:, :, :, :, :, None], self.frames, axis=5)
        return grid, np.ascontiguousarray(frames.reshape(grid.patches, self.patch_width))


@dataclass(frozen=True, slots=True)
class Vision:
    """What the tower's grid-dependent inputs follow from."""

    merge: int
    head_width: int
    rope_base: float
    window: int = 0  # Qwen2.5-VL: embedding rows a side of an attention window
    table: int = 0  # Qwen3-VL: entries a side of the learned positions


def grid_inputs(grid: Grid, vision: Vision) -> dict[str, NDArray[Any]]:
    """The tower's inputs beside the patches, by name; the same for every picture of a grid."""
    cosine, sine = turns(places(grid, vision.merge), vision.head_width, vision.rope_base)
    found: dict[str, NDArray[Any]] = {"cosine": cosine, "sine": sine}
    if vision.window:
        cut = windows(grid, vision.merge, vision.window)
        found.update(members=cut.members, absent=cut.absent, back=cut.back)
    if vision.table:
        found["taps"], found["weights"] = taps(grid, vision.merge, vision.table)
    return found


def positions(tokens: int, spans: Sequence[MediaSpan]) -> tuple[Positions, int]:
    """Rope positions [3, tokens] of a prompt and the position behind it.

    Text counts on all three axes; a picture stands at one time and counts rows and columns from there; what follows
    goes on behind its longer side.
    """
    found = np.empty((3, tokens), np.int64)
    token = position = 0
    for span in sorted(spans, key=lambda span: span.offset):
        text = span.offset - token
        found[:, token : span.offset] = position + np.arange(text)
        position += text
        assert math.prod(span.grid) == span.length, f"{span.length} rows cannot be a grid of {span.grid}"
        found[:, span.offset : span.offset + span.length] = position + np.indices(span.grid).reshape(3, -1)
        position += max(span.grid)
        token = span.offset + span.length
    found[:, token:] = position + np.arange(tokens - token)
    return found, position + tokens - token


def places(grid: Grid, merge: int) -> Indices:
    """[patches, 2]: row and column of each patch, in merged order."""
    at: Indices = np.moveaxis(np.indices((grid.rows, grid.columns), np.int64), 0, -1)
    blocks = at.reshape(grid.rows // merge, merge, grid.columns // merge, merge, 2)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(-1, 2)


def turns(at: Indices, head_width: int, base: float) -> tuple[Floats, Floats]:
    """Cosine and sine [patches, head_width] of the tower's rope: rows turn one half of the frequencies, columns
    the other; both halves of a head turn alike."""
    half = head_width // 2
    frequencies = (1.0 / base ** (np.arange(0, half, 2, dtype=np.float32) / half)).astype(np.float32)
    angles = (at[:, :, None].astype(np.float32) * frequencies).reshape(len(at), half)
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles), np.sin(angles)


@dataclass(frozen=True, slots=True)
class Windows:
    """The patches of a picture by window: every window is padded to the longest possible one.

    members [windows, window]: patch numbers, 0 where there is none; absent [windows, window]: -inf there, else 0;
    back [patches]: where a patch stands in the flattened members.
    """

    members: Indices
    absent: Floats
    back: Indices


def windows(grid: Grid, merge: int, side: int) -> Windows:
    """Windows of side x side embedding rows (Qwen2.5-VL, section 2.1.1), cut off at the picture's right and bottom."""
    rows, columns = grid.rows // merge, grid.columns // merge
    down, across = -(-rows // side), -(-columns // side)
    units = np.full((down * side, across * side), -1, np.int64)
    units[:rows, :columns] = np.arange(rows * columns).reshape(rows, columns)
    by_window = units.reshape(down, side, across, side).transpose(0, 2, 1, 3).reshape(down * across, side * side)
    patches = by_window[:, :, None] * merge**2 + np.arange(merge**2)
    members = np.where(by_window[:, :, None] < 0, -1, patches).reshape(down * across, -1)
    flat = members.reshape(-1)
    back = np.empty(grid.patches, np.int64)
    back[flat[flat >= 0]] = np.flatnonzero(flat >= 0)
    absent = np.where(members < 0, np.float32(-np.inf), np.float32(0))
    return Windows(np.maximum(members, 0), absent, back)


def taps(grid: Grid, merge: int, side: int) -> tuple[Indices, Floats]:
    """Which entries of a side x side table of learned positions a patch is interpolated from, and their weights.

    Both [patches, 4]: bilinear, the table's corners on the picture's corners.
    """
    at = places(grid, merge)
    lines = [_line_taps(at[:, axis], length, side) for axis, length in enumerate((grid.rows, grid.columns))]
    (row, row_weight), (column, column_weight) = lines
    indices = row[:, :, None] * side + column[:, None, :]
    weights = row_weight[:, :, None] * column_weight[:, None, :]
    return indices.reshape(-1, 4), weights.reshape(-1, 4)


def _line_taps(at: Indices, length: int, side: int) -> tuple[Indices, Floats]:
    where = at.astype(np.float32) * np.float32(side - 1) / np.float32(max(length - 1, 1))
    lower = np.floor(where)
    share = (where - lower).astype(np.float32)
    first = lower.astype(np.int64)
    return np.stack([first, np.minimum(first + 1, side - 1)], 1), np.stack([1 - share, share], 1)
