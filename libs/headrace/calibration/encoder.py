"""What encoding costs: reading a picture by its parts and pixels, the tower by the tiles in a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.calibration.errors import CalibrationError
from headrace.calibration.fits import HeldOut, Row, fit, held_out, held_out_errors
from headrace.core.cost import Curve, EncodeCost

PART, MEGAPIXEL = "part", "megapixel"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch of like pictures."""

    name: str
    parts: int
    pixels: int  # of each
    tokens: int  # of each
    preprocess_s: float  # from the command to the last one read
    encode_s: float


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
    tower = _tower([(each.parts * each.tokens / tile_tokens, each.encode_s) for each in encoded])
    missed = held_out_errors(reading, [row.group for row in reading[1:-1]])
    sizes = {each.tokens for each in encoded}
    return EncoderFit(
        cost=EncodeCost(tower, read.values[PART], read.values[MEGAPIXEL]),
        tile_tokens=tile_tokens,
        fixed_tokens=tile_tokens if len(sizes) == 1 else 0,
        median_error=read.median_error,
        worst_error=read.worst_error,
        held_out=held_out(missed),
    )


def _reading(encoded: Encoded) -> Row:
    terms = {PART: float(encoded.parts), MEGAPIXEL: encoded.parts * encoded.pixels / 1e6}
    return Row(encoded.name, encoded.preprocess_s, terms)


def _tower(points: list[tuple[float, float]]) -> Curve:
    """Through the mean of each number of tiles; what falls by chance is held level."""
    tiles = sorted({tiles for tiles, _ in points})
    seconds, highest = list[float](), 0.0
    for count in tiles:
        of_count = [value for at, value in points if at == count]
        highest = max(highest, sum(of_count) / len(of_count))
        seconds.append(highest)
    return Curve(tuple(tiles), tuple(seconds))
