"""Pictures to load a mesh with: JPEGs of the sizes and weights of real photographs, drawn from a seed.

Smooth shapes with grain compress about as photographs do (0.1 to 0.3 bytes a pixel at quality 85).
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image

# Width and height of common photographs and clippings, thumbnails to 2 megapixels.
SIZES = ((64, 48), (320, 240), (451, 300), (512, 512), (640, 427), (800, 600), (1024, 768), (1411, 1411))
VARIETY = 24  # different pictures, three of a size: drawn before the load begins, in a few seconds


def photo(number: int) -> bytes:
    """The number-th picture, JPEG; pictures come again after VARIETY."""
    return _draw(number % VARIETY)


def draw_all() -> None:
    """So that drawing takes no time from the load."""
    for number in range(VARIETY):
        _draw(number)


@lru_cache(maxsize=VARIETY)
def _draw(number: int) -> bytes:
    rng = np.random.default_rng(number)
    width, height = SIZES[number % len(SIZES)]
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (height, width, 1))
    pixels = np.clip(np.asarray(smooth, np.float32) + grain, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=85)
    return out.getvalue()
