"""What the gateway refuses by an image's header, and what only decoding finds."""

import struct
import zlib
from io import BytesIO
from random import Random

import numpy as np
import pytest
from PIL import Image

from headrace.core.errors import InvalidInput, UnsupportedModality
from headrace.modalities import modality
from headrace.modalities.image import MAX_PIXELS, decode, probe

IMAGE = modality("image")


def picture(width: int = 60, height: int = 40) -> Image.Image:
    noise = np.random.RandomState(5).randint(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes cannot hold: a decompression bomb's outside."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def animated(name: str) -> bytes:
    frames = [Image.new("RGB", (20, 20), (shade, 0, 0)) for shade in (0, 128, 255)]
    return encoded(frames[0], name, save_all=True, append_images=frames[1:])


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


PNG, JPEG = encoded(picture(), "PNG"), encoded(picture(), "JPEG", quality=90)
WEBP = encoded(picture(), "WEBP", lossless=True)

REFUSED_BY_HEADER = {
    "nothing": (b"", "empty"),
    "text": (b"hello, this is no image", "formats"),
    "zeros": (bytes(1000), "formats"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "formats"),
    "TIFF": (encoded(picture(), "TIFF"), "formats"),
    "PNG signature alone": (PNG[:8], "formats|corrupt"),
    "PNG header alone": (PNG[:33], "corrupt|cut short|formats"),
    "PNG without its end": (PNG[:-12], "cut short"),
    "half a PNG": (PNG[: len(PNG) // 2], "cut short"),
    "JPEG start alone": (JPEG[:4], "formats|corrupt"),
    "half a JPEG": (JPEG[: len(JPEG) // 2], "cut short"),
    "half a WebP": (WEBP[: len(WEBP) // 2], "cut short|formats|corrupt"),
    "a bomb": (png_of_size(60_000, 60_000), "pixels"),
    "just over the bound": (png_of_size(MAX_PIXELS // 1000 + 1, 1000), "pixels"),
    "no pixels": (png_of_size(0, 10), "empty|formats|corrupt"),
    "animated GIF": (animated("GIF"), "animated"),
    "animated PNG": (animated("PNG"), "animated"),
    "animated WebP": (animated("WEBP"), "animated"),
}


@pytest.mark.parametrize("case", REFUSED_BY_HEADER)
def test_probe_refuses(case: str) -> None:
    data, words = REFUSED_BY_HEADER[case]
    with pytest.raises(InvalidInput, match=words):
        probe(data)


REFUSED_BY_DECODING = {
    "PNG with a flipped bit": flipped(PNG, len(PNG) // 2),
    "PNG with too little data": png_of_size(100, 100),
    "JPEG cut, with an end marker in its comment": encoded(picture(), "JPEG", comment=b"\xff\xd9")[:-900],
    "GIF cut": encoded(picture(), "GIF")[:-400],
    "BMP cut": encoded(picture(), "BMP")[:-400],
}


@pytest.mark.parametrize("case", REFUSED_BY_DECODING)
def test_decode_refuses(case: str) -> None:
    with pytest.raises(InvalidInput):
        decode(REFUSED_BY_DECODING[case])


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_known_formats(name: str) -> None:
    data = encoded(picture(), name)
    meta = probe(data)
    assert (meta.modality, meta.mime) == ("image", f"image/{name.lower()}")
    assert (meta.width, meta.height, meta.size_bytes) == (60, 40, len(data))
    assert decode(data).size == (60, 40)


def test_a_preview_behind_a_jpeg_is_not_an_animation() -> None:
    data = encoded(picture(), "MPO", save_all=True, append_images=[picture(30, 20)])
    assert probe(data).mime == "image/jpeg"
    assert decode(data).size == (60, 40)


def test_random_bytes_never_raise_anything_else() -> None:
    rng = Random(3)
    for data in (PNG, JPEG, WEBP):
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(rng.randint(1, 20)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            cut = bytes(damaged[: rng.randrange(len(damaged) + 1)])
            for read in (probe, decode):
                try:
                    read(cut)
                except InvalidInput:
                    continue


def test_every_size_takes_as_many_tokens() -> None:
    sizes = [(1, 1), (3000, 2), (640, 480)]
    assert {IMAGE.token_count(probe(encoded(Image.new("RGB", size), "PNG"))) for size in sizes} == {6}


def test_unknown_modality() -> None:
    with pytest.raises(UnsupportedModality, match="image"):
        modality("smell")
