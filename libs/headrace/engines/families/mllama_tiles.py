"""Pictures of Mllama as tiles: which canvas a picture is laid on, its tiles, and the exported tower's inputs.

Source: the image processor of Llama 3.2 Vision's checkpoints. Neither torch nor transformers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headrace.core.errors import InvalidInput
from headrace.core.types import Media, MediaMeta, MediaSpan
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf_pixels import Preprocessor
from headrace.engines.runtime import open_session
from headrace.modalities import Encoder, Input, Rows
from headrace.modalities.image import decode, probe

GRAPH = "image.onnx"
# Patches that run at once, padding tiles and all; one picture of Llama 3.2 Vision has 6,432.
BATCH_PATCHES_MAX = 8192
_LANE = 8  # the tower pads the patches of a tile to a multiple of this


@dataclass(frozen=True, slots=True)
class Canvas:
    """Tiles down and across."""

    down: int
    across: int

    @property
    def tiles(self) -> int:
        return self.down * self.across


@dataclass(frozen=True, slots=True)
class Tiling:
    """Facts of preprocessor_config.json and of the tower."""

    side: int  # pixels a side of a tile
    tiles_max: int
    rows: int  # embedding rows of a tile: its patches and the class vector

    @property
    def lanes(self) -> int:
        """Rows of a tile inside the tower."""
        return -(-self.rows // _LANE) * _LANE

    def canvases(self) -> list[Canvas]:
        """In the order of the tower's aspect-ratio ids, which count from 1."""
        sides = range(1, self.tiles_max + 1)
        return [Canvas(down, across) for down in sides for across in sides if down * across <= self.tiles_max]

    def canvas(self, width: int, height: int) -> Canvas:
        """The canvas that enlarges the picture least, else the one that shrinks it least; of equals the smallest."""
        scales = [
            min(canvas.down * self.side / height, canvas.across * self.side / width) for canvas in self.canvases()
        ]
        enlarging = [scale for scale in scales if scale >= 1]
        best = min(enlarging) if enlarging else max(scales)
        fitting = [canvas for canvas, scale in zip(self.canvases(), scales, strict=True) if scale == best]
        return min(fitting, key=lambda canvas: canvas.tiles)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the picture on its canvas, aspect kept, within a tile at least where it is smaller."""
        canvas = self.canvas(width, height)
        most_across, most_down = canvas.across * self.side, canvas.down * self.side
        across = min(max(width, self.side), most_across)
        down = min(max(height, self.side), most_down)
        if across / width < down / height:
            return across, min(math.floor(height * (across / width)) or 1, down)
        return min(math.floor(width * (down / height)) or 1, across), down


@dataclass(frozen=True, slots=True)
class Tiles:
    """A preprocessed part."""

    canvas: Canvas
    pixels: NDArray[np.float32]  # [tiles_max, channels, side, side]; padding tiles are zero


def tower_inputs(tiling: Tiling, tiles: int) -> dict[str, NDArray[np.int64]]:
    """Which of the tower's rows belong to pictures (`real`) and which to padding, and their way back into one line.

    The reference lets every row attend to every row, but padding not to padding.
    """
    rows = np.arange(tiling.tiles_max * tiling.lanes)
    real = (rows // tiling.lanes < tiles) & (rows % tiling.lanes < tiling.rows)
    order = np.concatenate([rows[real], rows[~real]])
    return {"real": rows[real], "padding": rows[~real], "back": np.argsort(order)}


@dataclass(frozen=True, slots=True)
class MllamaPictures:
    """Implements headrace.modalities.Modality. Every picture brings the rows of as many tiles as there can be: tokens
    before the first picture attend to those of padding tiles as well (headrace.engines.families.crossing)."""

    tiling: Tiling
    preprocessor: Preprocessor
    share: tuple[int, int]  # cross-attention layers, self-attention layers: what KV of a row is to that of a token
    directory: Directory
    name: str = "image"

    def probe(self, data: bytes) -> MediaMeta:
        return probe(data)

    def token_count(self, meta: MediaMeta) -> int:
        assert meta.modality == self.name
        return self.tiling.tiles_max * self.tiling.rows

    def place(self, part: int, offset: int, media: Media) -> MediaSpan:
        """One position; its rows have KV of their own."""
        tiles = self.tiling.canvas(media.meta.width, media.meta.height).tiles
        kv_tokens = -(-media.tokens * self.share[0] // self.share[1])
        grid = (tiles, self.tiling.rows)
        return MediaSpan(part, offset, 1, grid=grid, rows=media.tokens, kv_tokens=kv_tokens)

    def load(self, threads: int, device: str = "cpu") -> Encoder:
        """Raises Unavailable: the tower has not been exported."""
        return MllamaEncoder(self, open_session(self.directory.graph(GRAPH), threads, device))

    def tiles(self, image: Image.Image) -> Tiles:
        """RGB picture -> scaled onto its canvas, at the upper left, black elsewhere; cut into tiles, row by row."""
        tiling = self.tiling
        canvas, size = tiling.canvas(*image.size), tiling.size(*image.size)
        laid = np.zeros((canvas.down * tiling.side, canvas.across * tiling.side, 3), np.uint8)
        laid[: size[1], : size[0]] = np.asarray(image.resize(size, self.preprocessor.resample))
        pixels = self.preprocessor.normalise(laid)
        cut = pixels.reshape(-1, canvas.down, tiling.side, canvas.across, tiling.side).transpose(1, 3, 0, 2, 4)
        found = np.zeros((tiling.tiles_max, *cut.shape[2:]), np.float32)
        found[: canvas.tiles] = cut.reshape(canvas.tiles, *cut.shape[2:])
        return Tiles(canvas, found)


class MllamaEncoder:
    """Pictures with equally many tiles run as one batch."""

    def __init__(self, pictures: MllamaPictures, session: Any) -> None:
        self._pictures = pictures
        self._session = session

    def preprocess(self, data: bytes, meta: MediaMeta) -> Input:
        image = decode(data, draft_side=None)
        if image.size != (meta.width, meta.height):
            raise InvalidInput(f"the image is {image.size[0]} x {image.size[1]}, its header says otherwise")
        return self._pictures.tiles(image)

    def encode(self, batch: Sequence[Input]) -> list[Rows]:
        tiling = self._pictures.tiling
        step = max(1, BATCH_PATCHES_MAX // (tiling.tiles_max * tiling.lanes))
        rows: dict[int, Rows] = {}
        order = sorted(range(len(batch)), key=lambda number: batch[number].canvas.tiles)
        for tiles, alike in groupby(order, key=lambda number: batch[number].canvas.tiles):
            numbers = list(alike)
            for start in range(0, len(numbers), step):
                some = numbers[start : start + step]
                rows.update(zip(some, self._run(tiles, [batch[number] for number in some]), strict=True))
        return [rows[number] for number in range(len(batch))]

    def _run(self, tiles: int, some: Sequence[Tiles]) -> Rows:
        tiling = self._pictures.tiling
        ratios = [1 + tiling.canvases().index(one.canvas) for one in some]
        given: Mapping[str, Any] = {
            "pixels": np.stack([one.pixels for one in some]),
            "ratio": np.array(ratios, np.int64)[:, None],
            **tower_inputs(tiling, tiles),
        }
        found: Rows = self._session.run(None, dict(given))[0]
        return found
