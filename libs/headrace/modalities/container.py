"""Opens sound and video files with PyAV (FFmpeg's libraries), by their own first bytes and never by FFmpeg's guess.

FFmpeg would also read playlists, which name other files and addresses: only the formats listed here are opened.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import av

from headrace.core.errors import InvalidInput

# FFmpeg's errors on data: others (MemoryError, a bug of ours) are not caught.
BROKEN = (av.FFmpegError, ValueError, EOFError)


def sniff(data: bytes) -> tuple[str, str]:
    """FFmpeg's name of the format and the MIME subtype; ("", "") where the first bytes are of none that is read."""
    head = data[:16]
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav", "wav"
    if head[:4] == b"fLaC":
        return "flac", "flac"
    if head[:4] == b"OggS":
        return "ogg", "ogg"
    if head[4:8] == b"ftyp":
        return "mov", "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska", "webm" if b"webm" in data[:64] else "x-matroska"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif", "gif"
    if head[:3] == b"ID3" or _is_mp3_frame(head):
        return "mp3", "mpeg"
    return "", ""


def _is_mp3_frame(head: bytes) -> bool:
    """Eleven bits of sync, then MPEG layer III with a bit rate and a sample rate that exist."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return False
    return head[1] & 0x18 != 0x08 and head[2] >> 4 not in (0, 15) and head[2] & 0x0C != 0x0C


@contextmanager
def opened(data: bytes, format_name: str, what: str) -> Iterator[Any]:
    """An av.container.InputContainer over the bytes.

    Raises:
        InvalidInput: FFmpeg cannot read them, here or inside the with block; `what` is the part's noun.
    """
    try:
        with av.open(BytesIO(data), format=format_name) as container:
            yield container
    except BROKEN as error:
        raise InvalidInput(f"the {what} is corrupt or cut short: {error}") from error
