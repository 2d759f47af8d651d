"""Images of a Hugging Face model: counted by their size alone, cut into tiles, embedded tile by tile in ONNX Runtime.

A family says how an image is tiled and how its tiles' rows are put together; neither torch nor transformers is needed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf_pixels import Tile
from headrace.engines.runtime import open_session
from headrace.modalities import Encoder, Input, Rows
from headrace.modalities.image import decode, probe

GRAPH = "image.onnx"  # pixels [tiles, 3, height, width] -> rows [tiles, rows of a tile, width]
CONSTANTS = "image.npz"  # small weights beside the graph, float32; only where a family packs with some
Constants = Mapping[str, NDArray[np.float32]]
# Tiles that run at once: attention over 729 patches in 16 heads takes 34 MB a tile, and a CPU is full before that.
TILES_MAX = 8


class Tiling(Protocol):
    """What a family knows of its images. Sizes are pixels of the upright picture."""

    def rows(self, width: int, height: int) -> int:
        """Embedding rows of an image: pure, from its size alone."""
        ...

    def tiles(self, image: Image.Image) -> list[Tile]:
        """RGB -> tiles of one shape, as the tower takes them."""
        ...

    def pack(self, features: Rows, width: int, height: int, constants: Constants) -> Rows:
        """What the graph made of an image's tiles [tiles, rows, width] -> its embedding [rows, width]."""
        ...


@dataclass(frozen=True, slots=True)
class Tiles:
    """A preprocessed image."""

    pixels: list[Tile]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class HfImages:
    """Implements headrace.modalities.Modality."""

    directory: Directory
    tiling: Tiling
    name: str = "image"

    def probe(self, data: bytes) -> MediaMeta:
        return probe(data)

    def token_count(self, meta: MediaMeta) -> int:
        return self.tiling.rows(meta.width, meta.height)

    def load(self, threads: int, device: str = "cpu") -> Encoder:
        """Raises Unavailable: the encoder has not been exported."""
        graph = self.directory.graph(GRAPH)
        return HfImageEncoder(self.tiling, open_session(graph, threads, device), read_constants(graph.parent))


def read_constants(folder: Path) -> Constants:
    if not (folder / CONSTANTS).is_file():
        return {}
    with np.load(folder / CONSTANTS) as arrays:
        return {name: arrays[name] for name in arrays.files}


class HfImageEncoder:
    """Tiles of all images of a batch run together, TILES_MAX at a time."""

    def __init__(self, tiling: Tiling, session: Any, constants: Constants) -> None:
        self._tiling = tiling
        self._session = session
        self._constants = constants

    def preprocess(self, data: bytes, meta: MediaMeta) -> Input:
        image = decode(data, draft_side=None)
        if image.size != (meta.width, meta.height):
            raise InvalidInput(f"the image is {image.size[0]} x {image.size[1]}, its header says otherwise")
        return Tiles(self._tiling.tiles(image), *image.size)

    def encode(self, batch: Sequence[Input]) -> list[Rows]:
        rows = iter(self._run([tile for image in batch for tile in image.pixels]))
        return [self._pack(image, rows) for image in batch]

    def _pack(self, image: Tiles, rows: Iterator[Rows]) -> Rows:
        features = np.stack([next(rows) for _ in image.pixels])
        packed = self._tiling.pack(features, image.width, image.height, self._constants)
        return np.ascontiguousarray(packed, np.float32)

    def _run(self, tiles: Sequence[Tile]) -> Iterator[Rows]:
        for start in range(0, len(tiles), TILES_MAX):
            yield from self._session.run(None, {"pixels": np.stack(tiles[start : start + TILES_MAX])})[0]
