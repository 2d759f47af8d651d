"""What encoding costs: reading a picture by its parts and pixels, the tower by the tiles in a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.calibration.errors import CalibrationError
from headrace.calibration.fits import HeldOut, Row, fit, held_out, held_out_errors
from headrace.core.cost import Curve, EncodeCost

PART, MEGAPIXEL = "part", "megapixel"


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures that went through the tower together."""

    parts: int
    read_s: float  # from when it was taken to the last one read
    encode_s: float


@dataclass(frozen=True, slots=True)
class Encoded:
    """One request's like pictures at one encoder."""

    name: str
    pixels: int  # of each
    tokens: int  # of each
    batches: tuple[Batch, ...]  # in the order in which they were taken

    @property
    def parts(self) -> int:
        return sum(batch.parts for batch in self.batches)


@dataclass(frozen=True, slots=True)
class EncoderFit:
    cost: EncodeCost
    tile_tokens: int
    fixed_tokens: int  # of every picture, whatever its size; 0: it depends
    median_error: float
    worst_error: float
    held_out: HeldOut


def fit_encoder(encoded: Sequence[Encoded]) -> EncoderFit:
    """A tile is what the smallest picture takes: towers that cut otherwise count in whatever their smallest is.

    Raises:
        CalibrationError: a picture has no tokens.
    """
    if not encoded or min(each.tokens for each in encoded) < 1:
        raise CalibrationError("pictures have no tokens here: the mesh takes none after all")
    reading = [_reading(each) for each in encoded]
    read = fit(reading)
    tile_tokens = min(each.tokens for each in encoded)
    towers = [(batch.parts * each.tokens / tile_tokens, batch.encode_s) for each in encoded for batch in each.batches]
    missed = held_out_errors(reading, [row.group for row in _between(reading)])
    sizes = {each.tokens for each in encoded}
    return EncoderFit(
        cost=EncodeCost(_tower(towers), read.values[PART], read.values[MEGAPIXEL]),
        tile_tokens=tile_tokens,
        fixed_tokens=tile_tokens if len(sizes) == 1 else 0,
        median_error=read.median_error,
        worst_error=read.worst_error,
        held_out=held_out(missed),
    )


def _reading(encoded: Encoded) -> Row:
    """Of each picture."""
    seconds = sum(batch.read_s for batch in encoded.batches)
    return Row(encoded.name, seconds / encoded.parts, {PART: 1.0, MEGAPIXEL: encoded.pixels / 1e6})


def _between(reading: list[Row]) -> list[Row]:
    """Neither the smallest nor the largest: what the others must be able to tell."""
    return sorted(reading, key=lambda row: row.terms[MEGAPIXEL])[1:-1]


def _tower(points: list[tuple[float, float]]) -> Curve:
    """Through the mean of each number of tiles; what falls by chance is held level. Where only one number has been
    seen, twice as many are taken to need twice as long: level, a batch would cost nothing more."""
    tiles = sorted({tiles for tiles, _ in points})
    seconds, highest = list[float](), 0.0
    for count in tiles:
        of_count = [value for at, value in points if at == count]
        highest = max(highest, sum(of_count) / len(of_count))
        seconds.append(highest)
    if len(tiles) == 1:
        tiles, seconds = [tiles[0], 2 * tiles[0]], [highest, 2 * highest]
    return Curve(tuple(tiles), tuple(seconds))
