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
# What a decoder may add or leave out at either end: two frames of the coarsest codec (AAC at 8 kHz has 128 ms each).
SLACK_S = 0.3
_WAV_ENDLESS = 0x7FFF_0000  # sizes that programs write which do not know the length yet
_MP3_HEAD_BYTES = 65_536  # tags may stand before the first frame


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
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"the {what} is corrupt or cut short: {reason}") from error


def duration_s_of(container: Any, stream: Any, what: str, duration_s_max: float) -> float:
    """From the stream's packets, none of which is decoded: from the first one's start to the last one's end.

    Raises:
        InvalidInput: longer than allowed, empty, or the packets end before the header says.
    """
    base, start, end = float(stream.time_base), None, 0.0
    for packet in container.demux(stream):
        at = packet.pts if packet.pts is not None else packet.dts
        if at is None:  # the packet that flushes decoders
            continue
        start = at * base if start is None else min(start, at * base)
        end = max(end, (at + (packet.duration or 0)) * base)
        if end - start > duration_s_max + SLACK_S:
            break
    duration_s = 0.0 if start is None else end - start
    announced_s = stream.duration * base if stream.duration else (container.duration or 0) / av.time_base
    if max(duration_s, announced_s) > duration_s_max + SLACK_S:
        raise InvalidInput(f"the {what} is longer than {duration_s_max:g} s")
    if duration_s <= 0.0:
        raise InvalidInput(f"the {what} is empty")
    if _is_exact(container) and duration_s < announced_s - SLACK_S:
        raise InvalidInput(f"the {what} is cut short: {duration_s:.2f} s of {announced_s:.2f} s are there")
    return min(duration_s, duration_s_max)


def _is_exact(container: Any) -> bool:
    """FFmpeg guesses the length of an MP3 file without a header frame from its first bit rate."""
    return bool(container.format.name != "mp3")


def check_whole(data: bytes, format_name: str, what: str) -> None:
    """Ends that can be seen to be missing without reading packets; the formats not named here say it elsewhere.

    Raises:
        InvalidInput: the data ends early.
    """
    whole = {"wav": _wav_is_whole, "mp3": _mp3_is_whole, "ogg": _ogg_is_whole, "gif": _gif_is_whole}
    if format_name in whole and not whole[format_name](data):
        raise InvalidInput(f"the {what} is cut short: the end of the {format_name} data is missing")


def _wav_is_whole(data: bytes) -> bool:
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"data":
            return size >= _WAV_ENDLESS or at + 8 + size <= len(data)
        at += 8 + size + size % 2
    return False


def _mp3_is_whole(data: bytes) -> bool:
    """A header frame (Xing, or Info where the bit rate is constant) may tell how many bytes there are."""
    head = max(data.find(b"Xing", 0, _MP3_HEAD_BYTES), data.find(b"Info", 0, _MP3_HEAD_BYTES))
    if head < 0:
        return True
    flags = int.from_bytes(data[head + 4 : head + 8], "big")
    at = head + 8 + (4 if flags & 1 else 0)
    return not flags & 2 or at + 4 > len(data) or _mp3_bytes(data, head) >= int.from_bytes(data[at : at + 4], "big")


def _mp3_bytes(data: bytes, head: int) -> int:
    """From the header frame's first byte on."""
    return len(data) - max(0, data.rfind(b"\xff", 0, head))


def _ogg_is_whole(data: bytes) -> bool:
    """The last page says that it is the last."""
    at = data.rfind(b"OggS")
    return at + 6 <= len(data) and bool(data[at + 5] & 4)


def _gif_is_whole(data: bytes) -> bool:
    return data.rstrip(b"\0")[-1:] == b";"
