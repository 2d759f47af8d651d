"""Images: header checks for the gateway, decoding and letterboxing, and the encoder of the default model.

PNG, JPEG, WebP, GIF and BMP of one frame. Transparent pixels become white, EXIF rotation is applied, 16-bit grey is
scaled to 8. Animations are refused: using one frame would drop the others without a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from struct import error as StructError
from struct import unpack_from
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta
from headrace.engines.runtime import open_session
from headrace.modalities import Encoder, Input, Rows

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000  # the largest common camera; 200 MB once decoded
_DRAFT_SIDE = 512  # a JPEG decodes at 1/2, 1/4 or 1/8 of its size down to this: an eighth of the time and memory
SIDE = 32  # the tower's input is SIDE x SIDE
SOFT_TOKENS = 4
ROWS = SOFT_TOKENS + 2  # between a begin and an end vector
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_MIMES = {"MPO": "image/jpeg"}  # a JPEG with a preview behind it, as some phones write
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, StructError, ZlibError)


def letterbox(image: Image.Image) -> Input:
    """RGB image -> float32 [3, SIDE, SIDE] in -1 .. 1: longest side scaled to SIDE, centred on black."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    canvas = np.zeros((SIDE, SIDE, 3), np.float32)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    canvas[top : top + height, left : left + width] = small
    return np.ascontiguousarray(canvas.transpose(2, 0, 1) / 127.5 - 1.0)


def probe(data: bytes) -> MediaMeta:
    """See Modality.probe."""
    image = _open(data)
    _check_whole(data, image.format or "")
    width, height = _upright_size(image)
    return MediaMeta("image", _mime(image), width, height, len(data))


def decode(data: bytes, draft_side: int | None = _DRAFT_SIDE) -> Image.Image:
    """The upright picture in RGB, every byte of it decoded.

    Large JPEGs come smaller than they are, down to draft_side; None: in full, for towers that follow its size.

    Raises:
        InvalidInput: the data cannot be decoded to the end.
    """
    try:
        _open(data).verify()  # checksums, where the format has them
        image = _open(data)
        if draft_side is not None:
            image.draft("RGB", (draft_side, draft_side))
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except _BROKEN as error:
        raise InvalidInput(f"the image is corrupt or cut short: {error}") from error


def _open(data: bytes) -> Image.Image:
    if not data:
        raise InvalidInput("the image is empty")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
    except Image.DecompressionBombError as error:
        raise InvalidInput(f"the image has more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise InvalidInput(f"not an image that can be read; formats: {', '.join(FORMATS)}") from error
    except _BROKEN as error:
        raise InvalidInput(f"the image's header is corrupt: {error}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InvalidInput(f"the image has {width} x {height} pixels; at most {MAX_PIXELS:,} are read")
    if width * height == 0:
        raise InvalidInput(f"the image is empty: {width} x {height} pixels")
    if animated:
        raise InvalidInput("the image is animated; send the frame that is meant")
    return image


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height once EXIF rotation is applied, as decode() does. A PNG without EXIF before its pixels counts
    as upright: looking further would decode it."""
    width, height = image.size
    if image.format == "PNG" and "exif" not in image.info:
        return width, height
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _BROKEN as error:
        raise InvalidInput(f"the image's EXIF data is corrupt: {error}") from error
    return (height, width) if orientation in _SIDEWAYS else (width, height)


def _mime(image: Image.Image) -> str:
    name = image.format or ""
    return _MIMES.get(name, f"image/{name.lower()}")


def _check_whole(data: bytes, name: str) -> None:
    """Ends that can be seen to be missing without decoding; decode() finds the rest."""
    whole = {"PNG": _png_has_end, "JPEG": _jpeg_has_end, "MPO": _jpeg_has_end, "WEBP": _riff_has_end}
    if name in whole and not whole[name](data):
        raise InvalidInput(f"the image is cut short: the end of the {name} data is missing")


def _png_has_end(data: bytes) -> bool:
    at = 8
    while at + 12 <= len(data):
        (length,) = unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + length
    return False


def _jpeg_has_end(data: bytes) -> bool:
    return b"\xff\xd9" in data


def _riff_has_end(data: bytes) -> bool:
    return len(data) >= 8 + int(unpack_from("<I", data, 4)[0])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGB", layer.size, (255, 255, 255))
    white.paste(layer, mask=layer.getchannel("A"))
    return white


def _eight_bits(grey: NDArray[np.integer]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(grey // 257, 0, 255), np.uint8)


@dataclass(frozen=True, slots=True)
class ImageModality:
    name: str = "image"

    def probe(self, data: bytes) -> MediaMeta:
        return probe(data)

    def token_count(self, meta: MediaMeta) -> int:
        """Every image takes as many tokens, whatever its size."""
        assert meta.modality == self.name
        return ROWS

    def load(self, threads: int, device: str = "cpu") -> Encoder:
        return OnnxImageEncoder(threads, device)


class OnnxImageEncoder:
    """Tower, projector and the begin and end vectors in one ONNX graph: float32 [n, 3, 32, 32] -> [n, 6, 576]."""

    def __init__(self, threads: int, device: str = "cpu") -> None:
        graph = resources.files("headrace") / "assets" / "smollm2" / "image_encoder.onnx"
        self._session = open_session(graph.read_bytes(), threads, device)

    def preprocess(self, data: bytes, meta: MediaMeta) -> Input:
        return letterbox(decode(data))

    def encode(self, batch: Sequence[Input]) -> list[Rows]:
        if not batch:
            return []
        rows: NDArray[np.float32] = self._session.run(None, {"pixels": np.stack(batch)})[0]
        return list(rows)


IMAGE = ImageModality()
