"""The card of a multimodal model: which LLM and encoder it is made of, and how many tiles and tokens an image becomes.

Pure arithmetic on width and height: known before anything is read, so that queues can count media tokens on arrival.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from headrace.profiles.reading import ProfileError, is_packaged, read_packaged

Contract = Literal["decoder", "cross"]
FITS = ("canvas", "area", "ratio")


@dataclass(frozen=True, slots=True)
class Tiling:
    """An image becomes columns x rows tiles of tile_px, and a small overview of the whole where the model has one.

    fit says how the grid is chosen: "canvas" as Mllama (the canvas that shrinks the image least, then enlarges it
    least, then is smallest), "area" as LLaVA-OneVision (most of the image's pixels kept, then least canvas wasted),
    "ratio" as InternVL and NVLM (the nearest aspect ratio; among equals the larger grid if the image fills half of it).
    """

    fit: str
    tile_px: int
    tokens_per_tile: int
    tiles_max: int  # of a grid, without the overview
    side_max: int  # columns or rows of a grid
    overview: bool = False
    overview_always: bool = False  # also beside a grid of one tile
    counted_max: int = 0  # a larger grid is pooled down to the tokens of so many tiles; 0: none is
    fixed_tiles: int = 0  # the tower always computes so many, empty ones too; 0: it computes what there is

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """(columns, rows) of the tiles."""
        assert width > 0
        assert height > 0
        if self.fit == "canvas":
            return min(self._grids(), key=lambda grid: self._canvas_key(grid, width, height))
        if self.fit == "area":
            return min(self._grids(), key=lambda grid: self._area_key(grid, width, height))
        return self._nearest_ratio(width, height)

    def _grids(self) -> Iterator[tuple[int, int]]:
        """All of them, smallest first."""
        sides = range(1, self.side_max + 1)
        grids = ((columns, rows) for columns in sides for rows in sides if columns * rows <= self.tiles_max)
        return iter(sorted(grids, key=lambda grid: grid[0] * grid[1]))

    def _scale(self, grid: tuple[int, int], width: int, height: int) -> float:
        return min(grid[0] * self.tile_px / width, grid[1] * self.tile_px / height)

    def _canvas_key(self, grid: tuple[int, int], width: int, height: int) -> tuple[bool, float, int]:
        scale = self._scale(grid, width, height)
        return scale < 1, scale if scale >= 1 else -scale, grid[0] * grid[1]

    def _area_key(self, grid: tuple[int, int], width: int, height: int) -> tuple[int, int]:
        scale = self._scale(grid, width, height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return -kept, grid[0] * grid[1] * self.tile_px**2 - kept

    def _nearest_ratio(self, width: int, height: int) -> tuple[int, int]:
        best, best_off = (1, 1), math.inf
        for grid in self._grids():
            off = abs(width / height - grid[0] / grid[1])
            fills = width * height > 0.5 * self.tile_px**2 * grid[0] * grid[1]
            if off < best_off or (off == best_off and fills):
                best, best_off = grid, off
        return best


@dataclass(frozen=True, slots=True)
class ModelCard:
    name: str
    source: str
    llm: str  # stem of its LLM's profiles
    encoder: str  # stem of its encoder's profiles, or ""
    contract: Contract  # decoder: media tokens join the sequence; cross: they stand beside it
    tensor_parallel: int  # what the paper runs it with
    tiling: Tiling | None

    def tiles(self, width: int, height: int) -> int:
        """Tiles that the encoder computes for an image of so many pixels, the overview among them."""
        tiling = self._tiled()
        return tiling.fixed_tiles or self._held(tiling, *tiling.grid(width, height), counted=False)

    def media_tokens(self, width: int, height: int) -> int:
        """Tokens, or cross-attention rows, that the LLM sees of such an image."""
        tiling = self._tiled()
        return self._held(tiling, *tiling.grid(width, height), counted=True) * tiling.tokens_per_tile

    def _held(self, tiling: Tiling, columns: int, rows: int, *, counted: bool) -> int:
        tiles = columns * rows
        overview = tiling.overview and (tiles > 1 or tiling.overview_always)
        return (min(tiles, tiling.counted_max) if counted and tiling.counted_max else tiles) + overview

    def _tiled(self) -> Tiling:
        assert self.tiling is not None, f"{self.name} takes no images"
        return self.tiling


def model(name: str) -> ModelCard:
    """A packaged card: llama-3.2-11b-vision, llava-onevision-7b, internvl-2.5-26b, nvlm-d-72b, mistral-7b, ...

    Raises:
        ProfileError: no such card, or its content is wrong.
    """
    top = read_packaged("models", name, "model")
    cross = top.choice("contract", ("decoder", "cross")) == "cross"
    card = ModelCard(
        name=name,
        source=top.source(),
        llm=top.text("llm"),
        encoder=top.text("encoder") if "encoder" in top else "",
        contract="cross" if cross else "decoder",
        tensor_parallel=top.whole("tensor_parallel", least=1),
        tiling=_tiling(name) if "tiling" in top else None,
    )
    if bool(card.encoder) != (card.tiling is not None):
        raise top.wrong("tiling", "stands with an encoder, and never without one")
    top.pass_over("title", "tiling")
    top.end()
    return card


def part_of(name: str, part: Literal["llm", "encoder"]) -> tuple[str, str]:
    """("a100/internvit-6b/tp1", "nvlm-d-72b") of "a100/nvlm-d-72b/tp1"; other names stay as they are, with ""."""
    folder, _, rest = name.partition("/")
    stem, slash, at = rest.partition("/")
    if not slash or ".toml" in name or not is_packaged("models", stem):
        return name, ""
    card = model(stem)
    if part == "llm":
        return f"{folder}/{card.llm}/{at}", stem
    if not card.encoder:
        raise ProfileError(f"model {stem} takes text alone: it has no encoder")
    return f"{folder}/{card.encoder}/{at}", stem


def _tiling(name: str) -> Tiling:
    table = read_packaged("models", name, "model").table("tiling")
    table.source()
    tiling = Tiling(
        fit=table.choice("fit", FITS),
        tile_px=table.whole("tile_px", least=1),
        tokens_per_tile=table.whole("tokens_per_tile", least=1),
        tiles_max=table.whole("tiles_max", least=1),
        side_max=table.whole("side_max", least=1),
        overview=bool(table.whole("overview", 0)),
        overview_always=bool(table.whole("overview_always", 0)),
        counted_max=table.whole("counted_max", 0),
        fixed_tiles=table.whole("fixed_tiles", 0),
    )
    table.end()
    return tiling
