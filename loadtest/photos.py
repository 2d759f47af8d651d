"""Pictures to load a mesh with: JPEGs of any size with the weight of real photographs, drawn from a number.

Smooth shapes with grain compress about as photographs do (0.1 to 0.3 bytes a pixel at quality 85).
"""

import io
import struct
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from PIL import Image

CANVAS_PX = 1536  # side of the picture that others are cut from; larger ones are enlarged
SHAPES = 3  # different cuts of a size: drawing them all takes seconds
DRAWN_MAX = 4096  # pictures kept, about 100 MB at the median size of photographs in chats, 500 x 500
_COMMENT = b"\xff\xfe\x00\x0a"  # a JPEG comment of eight bytes


def photo(number: int, width: int, height: int) -> bytes:
    """A JPEG of that size. Another number gives another file, so that no cache has seen it before."""
    drawn = _draw(number % SHAPES, width, height)
    return drawn[:2] + _COMMENT + struct.pack(">Q", number) + drawn[2:]


def draw_all(wanted: Iterable[tuple[int, int, int]]) -> int:
    """The (number, width, height) of pictures that are needed soon, so that drawing takes no time from the load.

    Returns how many there are to draw.
    """
    different = {(number % SHAPES, width, height) for number, width, height in wanted}
    for each in list(different)[:DRAWN_MAX]:
        _draw(*each)
    return len(different)


@lru_cache(maxsize=1)
def _canvas() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (15, 15, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((CANVAS_PX, CANVAS_PX), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (CANVAS_PX, CANVAS_PX, 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(smooth, np.float32) + grain, 0, 255).astype(np.uint8))


@lru_cache(maxsize=DRAWN_MAX)
def _draw(shape: int, width: int, height: int) -> bytes:
    canvas = _canvas()
    if max(width, height) > CANVAS_PX:
        cut = canvas.rotate(90 * shape).resize((width, height), Image.Resampling.BILINEAR)
    else:
        left = (CANVAS_PX - width) * shape // (SHAPES - 1)
        top = (CANVAS_PX - height) * shape // (SHAPES - 1)
        cut = canvas.crop((left, top, left + width, top + height))
    out = io.BytesIO()
    cut.save(out, "JPEG", quality=85)
    return out.getvalue()
