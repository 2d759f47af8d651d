"""Media parts on their way in: data: URIs decoded, URLs fetched where allowed, sizes bounded, headers probed.

Pixels and sound are never decoded here: size and duration from the file's headers decide how many tokens a part takes.
"""

import asyncio
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote_to_bytes

from headrace.core.errors import HeadraceError, InvalidInput, PayloadTooLarge, UnsupportedModality
from headrace.core.types import MediaMeta
from headrace.engines.base import ModelSpec
from headrace.engines.families import Family
from headrace.modalities import Modality
from services.gateway.ask import MediaSource

PART_BYTES_MAX = 32 * 1024 * 1024  # half of the largest body: a 50-megapixel photograph
_AUDIO_FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "m4a", "mp4", "webm")
# Types that a data: URI may name beside its kind's own.
_MIMES = {"audio": ("application/ogg",), "video": ("image/gif",)}


class Fetcher(Protocol):
    async def fetch(self, url: str, field: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class MediaInput:
    """A checked part: its bytes, what its header says, and the prompt positions it takes."""

    data: bytes
    meta: MediaMeta
    tokens: int


def source_of_url(kind: str, url: str, field: str) -> MediaSource:
    """Raises InvalidInput: not a data:, http: or https: URL, or a data: URI that cannot be decoded."""
    if url.startswith(("http://", "https://")):
        return MediaSource(kind, field, url=url)
    if url.startswith("data:"):
        return MediaSource(kind, field, data=_decode(url, kind, field))
    raise InvalidInput("neither a data: URI nor an http(s) URL", field=field)


def input_audio(data: str, kind: str, where: str) -> MediaSource:
    """Raises InvalidInput: an unknown format, broken base64."""
    if kind not in _AUDIO_FORMATS:
        message = f"format {kind[:32]!r} is not one of {', '.join(_AUDIO_FORMATS)}"
        raise InvalidInput(message, field=f"{where}.format")
    try:
        return MediaSource("audio", where, data=binascii.a2b_base64(data, strict_mode=True))
    except ValueError as error:
        raise InvalidInput(f"broken base64: {error}", field=f"{where}.data") from error


def _decode(uri: str, kind: str, field: str) -> bytes:
    head, comma, body = uri[len("data:") :].partition(",")
    if not comma:
        raise InvalidInput("a data: URI without a comma", field=field)
    mime, *parameters = head.split(";")
    if mime and not mime.lower().startswith((f"{kind}/", "application/octet-stream", *_MIMES.get(kind, ()))):
        raise InvalidInput(f"a data: URI of type {mime[:64]!r} where {kind}/* is expected", field=field)
    if "base64" not in parameters:
        return unquote_to_bytes(body)
    try:
        return binascii.a2b_base64(body, strict_mode=True)
    except ValueError as error:  # binascii.Error, or a character beyond ASCII
        raise InvalidInput(f"broken base64: {error}", field=field) from error


def check_media(media: Sequence[MediaSource], spec: ModelSpec) -> None:
    """Number and kind of the parts, before any of them is read."""
    if len(media) > spec.max_media:
        message = f"{len(media)} media parts; {spec.name} takes at most {spec.max_media}"
        raise InvalidInput(message, field=media[spec.max_media].field)
    for source in media:
        if source.modality not in spec.modalities:
            accepted = ", ".join(spec.modalities) or "text alone"
            raise UnsupportedModality(
                f"{spec.name} does not take {source.modality[:32]!r}; it takes {accepted}", field=source.field
            )


async def read_media(sources: Sequence[MediaSource], fetcher: Fetcher, family: Family) -> list[MediaInput]:
    """Raises typed errors that name the part."""
    return [await _read(source, fetcher, family.modality(source.modality)) for source in sources]


async def _read(source: MediaSource, fetcher: Fetcher, kind: Modality) -> MediaInput:
    data = await fetcher.fetch(source.url, source.field) if source.url else source.data
    if not data:
        raise InvalidInput("the media part is empty", field=source.field)
    if len(data) > PART_BYTES_MAX:
        raise PayloadTooLarge(f"{len(data)} bytes; at most {PART_BYTES_MAX} a part", field=source.field)
    try:
        # A sound's or a film's packets are walked through, which may take longer than a loop should stand still.
        meta = kind.probe(data) if kind.name == "image" else await asyncio.to_thread(kind.probe, data)
    except HeadraceError as error:  # the modality knows what is wrong, not where it stood
        error.field = source.field
        raise
    return MediaInput(data, meta, kind.token_count(meta))
