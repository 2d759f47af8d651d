"""Decoding to what the tower sees, and the committed encoder: shapes, determinism, order."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headrace.engines.families.smollm2 import SPEC, load_prefix
from headrace.modalities import Encoder, Input
from headrace.modalities.image import IMAGE, ROWS, SIDE, decode, letterbox, probe

RED = (255, 0, 0)


def png(image: Image.Image, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def exif_rotated(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return png(image, exif=exif)


@given(width=st.integers(1, 300), height=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_letterbox_keeps_the_aspect_and_centres(width: int, height: int) -> None:
    cell = letterbox(Image.new("RGB", (width, height), (255, 255, 255)))
    assert cell.shape == (3, SIDE, SIDE)
    assert cell.dtype == np.float32
    lit = cell[0] > 0
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    assert max(len(rows), len(columns)) == SIDE
    assert len(rows) == max(1, round(height * SIDE / max(width, height)))
    assert len(columns) == max(1, round(width * SIDE / max(width, height)))
    assert abs((SIDE - 1 - rows[-1]) - rows[0]) <= 1
    assert abs((SIDE - 1 - columns[-1]) - columns[0]) <= 1
    assert set(np.unique(cell)) <= {-1.0, 1.0}


def test_letterbox_is_the_identity_at_its_own_size() -> None:
    pixels = np.random.RandomState(1).randint(0, 256, (SIDE, SIDE, 3), np.uint8)
    back = (letterbox(Image.fromarray(pixels)) + 1) * 127.5
    assert np.array_equal(np.rint(back).astype(np.uint8), pixels.transpose(2, 0, 1))


def modes() -> dict[str, tuple[bytes, tuple[int, int, int]]]:
    """A picture of one colour in every mode -> its colour once decoded."""
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    sixteen = Image.fromarray(np.full((8, 8), 0x80FF, np.uint16))
    palette = Image.new("RGB", (8, 8), RED).convert("P")
    return {
        "grey": (png(Image.new("L", (8, 8), 77)), (77, 77, 77)),
        "one bit": (png(Image.new("1", (8, 8), 1)), (255, 255, 255)),
        "palette": (png(palette), RED),
        "palette with a transparent colour": (png(palette, transparency=palette.getpixel((0, 0))), (255, 255, 255)),
        "opaque RGBA": (png(rgba), RED),
        "transparent RGBA": (png(clear), (255, 255, 255)),
        "grey and alpha": (png(Image.new("LA", (8, 8), (10, 255))), (10, 10, 10)),
        "16-bit grey": (png(sixteen), (0x80, 0x80, 0x80)),
    }


@pytest.mark.parametrize("case", modes())
def test_modes_become_rgb(case: str) -> None:
    data, color = modes()[case]
    image = decode(data)
    assert image.mode == "RGB"
    assert image.getpixel((4, 4)) == color


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (20, 10))
    image.putpixel((0, 0), RED)
    upright = decode(exif_rotated(image, 6))  # 6: the camera was turned a quarter to the right
    assert upright.size == (10, 20)
    assert upright.getpixel((9, 0)) == RED


def test_a_large_jpeg_looks_like_the_same_png() -> None:
    """It is decoded at a fraction of its size; what the tower sees must hardly change."""
    y, x = np.mgrid[0:1500, 0:2000]
    pixels = np.stack([x / 8, y / 6, 255 - x / 8], axis=2).astype(np.uint8)
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    drafted = decode(out.getvalue())
    assert max(drafted.size) < 2000
    np.testing.assert_allclose(letterbox(drafted), letterbox(Image.fromarray(pixels)), atol=0.05)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return IMAGE.load(threads=1)


def inputs(encoder: Encoder, count: int) -> list[Input]:
    noise = np.random.RandomState(2).randint(0, 256, (count, 50, 70, 3), np.uint8)
    files = [png(Image.fromarray(pixels)) for pixels in noise]
    return [encoder.preprocess(data, probe(data)) for data in files]


def test_rows_of_an_image(encoder: Encoder) -> None:
    batch = inputs(encoder, 3)
    rows = encoder.encode(batch)
    assert len(rows) == 3
    assert all(r.shape == (ROWS, SPEC.embed_width) and r.dtype == np.float32 for r in rows)
    assert all(IMAGE.token_count(probe(png(Image.new("RGB", (5, 5))))) == len(r) for r in rows)
    assert encoder.encode([]) == []


def test_begin_and_end_vectors_frame_every_image(encoder: Encoder) -> None:
    first, second = encoder.encode(inputs(encoder, 2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[-1], second[-1])
    assert not np.array_equal(first[1:-1], second[1:-1])


def test_the_same_image_gives_the_same_bits(encoder: Encoder) -> None:
    batch = inputs(encoder, 2)
    once, again = encoder.encode(batch), IMAGE.load(threads=1).encode(batch)
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))


def test_order_is_kept_in_a_batch(encoder: Encoder) -> None:
    batch = inputs(encoder, 4)
    together, alone = encoder.encode(batch), [encoder.encode([item])[0] for item in batch]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_soft_tokens_are_of_the_size_of_words(encoder: Encoder) -> None:
    """Word embeddings have an rms of 0.136; rows far off would be no adapter of this model."""
    rows = np.concatenate(encoder.encode(inputs(encoder, 4)))
    assert 0.03 < float(np.sqrt((rows**2).mean())) < 0.6


def test_the_learned_prefix_fits_the_model() -> None:
    prefix = load_prefix("image")
    assert prefix.shape == (30, 2, 3, SPEC.prefix_tokens["image"], 64)
    assert np.isfinite(prefix).all()
    assert prefix.std() > 0.01
