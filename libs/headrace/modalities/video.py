"""Video clips of the default model: a few frames, evenly spread over the clip, each through the image encoder.

MP4, WebM, Matroska and GIF. A video is one run of rows: before each frame's rows stand those of the words
" first frame:" and so on, for without an ordinal the model swaps frames. Its sound is not heard: send it as audio.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta
from headrace.modalities import Encoder, Input, Rows
from headrace.modalities.container import check_whole, duration_s_of, opened, sniff
from headrace.modalities.image import ROWS, OnnxImageEncoder, letterbox

FORMATS = ("MP4", "WebM", "Matroska", "GIF")
FRAMES_MAX = 8
DURATION_S_MAX = 60.0
PIXELS_MAX = 3840 * 2160  # of a frame
# Of all frames together: a minute of 1920 x 1080 at 30 a second, which takes a decoder about ten seconds.
DECODED_PIXELS_MAX = 1920 * 1080 * 30 * 60
LABEL_ROWS = 3  # words before a frame: " first frame:" is three tokens
_SIDE_MAX = 512  # a frame is scaled down to this before it becomes RGB
_NOUN = "video"
_FORMATS = ("mov", "matroska", "gif")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def frame_label(index: int) -> str:
    """What stands before a frame's rows, as text: its embeddings are part of the video's rows."""
    return f" {_ORDINALS[index]} frame:"


def probe_video(data: bytes, duration_s_max: float = DURATION_S_MAX) -> MediaMeta:
    """What the file's headers and packets say; nothing is decoded.

    Raises:
        InvalidInput: no known format, no video stream, cut short, empty, or beyond a limit.
    """
    with _video(data) as (container, stream):
        width, height = _size(stream)
        duration_s = duration_s_of(container, stream, _NOUN, duration_s_max)
        frames = (stream.frames or 0) or duration_s * float(stream.average_rate or 0)
        if frames * width * height > DECODED_PIXELS_MAX:
            raise InvalidInput(
                f"the video has {frames:.0f} frames of {width} x {height} pixels; "
                f"at most {DECODED_PIXELS_MAX:,} pixels are read in all"
            )
    return MediaMeta("video", f"video/{sniff(data)[1]}", width, height, len(data), duration_s)


def frames_at(data: bytes, times_s: Sequence[float]) -> list[Image.Image]:
    """The pictures that stand at these moments after the first frame, in order of time; RGB, scaled down.

    Raises:
        InvalidInput: the video cannot be decoded that far.
    """
    pictures: list[Image.Image] = []
    with _video(data) as (container, stream):
        first_s, shown = None, None
        for frame in container.decode(stream):
            at_s = float((frame.pts or 0) * frame.time_base)
            first_s = at_s if first_s is None else first_s
            while shown is not None and len(pictures) < len(times_s) and at_s - first_s > times_s[len(pictures)]:
                pictures.append(_picture(shown))
            shown = frame
            if len(pictures) == len(times_s):
                break
        if shown is None:
            raise InvalidInput("the video holds no frame that decodes")
        last = _picture(shown)
    return pictures + [last] * (len(times_s) - len(pictures))


@contextmanager
def _video(data: bytes) -> Iterator[tuple[Any, Any]]:
    """The container over these bytes and its first video stream."""
    if not data:
        raise InvalidInput("the video is empty")
    name = sniff(data)[0]
    if name not in _FORMATS:
        raise InvalidInput(f"not a video that can be read; formats: {', '.join(FORMATS)}")
    check_whole(data, name, _NOUN)
    with opened(data, name, _NOUN) as container:
        if not container.streams.video:
            raise InvalidInput("the file has no video stream")
        yield container, container.streams.video[0]


def _size(stream: Any) -> tuple[int, int]:
    context = stream.codec_context
    if context is None:
        raise InvalidInput("the video's codec is not known")
    width, height = context.width, context.height
    if not 0 < width * height <= PIXELS_MAX:
        raise InvalidInput(f"the video has {width} x {height} pixels; 1 to {PIXELS_MAX:,} are read")
    return width, height


def _picture(frame: Any) -> Image.Image:
    scale = min(1.0, _SIDE_MAX / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    return Image.fromarray(frame.to_ndarray(format="rgb24", width=width, height=height))


@dataclass(frozen=True, slots=True)
class VideoModality:
    """Implements headrace.modalities.Modality. The clip is cut into equal parts; the middle of each is looked at."""

    frames_per_s: float = 1.0  # how many parts a second is cut into,
    frames_max: int = FRAMES_MAX  # up to this many parts in all
    name: str = "video"

    def __post_init__(self) -> None:
        assert 1 <= self.frames_max <= FRAMES_MAX

    def probe(self, data: bytes) -> MediaMeta:
        return probe_video(data)

    def frame_count(self, meta: MediaMeta) -> int:
        return max(1, min(self.frames_max, int(meta.duration_s * self.frames_per_s + 0.5)))

    def times_s(self, meta: MediaMeta) -> list[float]:
        """The moments that are looked at, seconds from the first frame."""
        count = self.frame_count(meta)
        return [(i + 0.5) * meta.duration_s / count for i in range(count)]

    def token_count(self, meta: MediaMeta) -> int:
        assert meta.modality == self.name
        return self.frame_count(meta) * (LABEL_ROWS + ROWS)

    def load(self, threads: int, device: str = "cpu") -> Encoder:
        return OnnxVideoEncoder(self, threads, device)


class OnnxVideoEncoder:
    """The image encoder over each frame: a part's input is float32 [frames, 3, 32, 32]."""

    def __init__(self, video: VideoModality, threads: int, device: str = "cpu") -> None:
        self._video = video
        self._images = OnnxImageEncoder(threads, device)
        self._labels = load_labels()

    def preprocess(self, data: bytes, meta: MediaMeta) -> Input:
        return np.stack([letterbox(picture) for picture in frames_at(data, self._video.times_s(meta))])

    def encode(self, batch: Sequence[Input]) -> list[Rows]:
        rows = iter(self._images.encode([frame for part in batch for frame in part]))
        return [np.concatenate(list(self._labelled(rows, len(part)))) for part in batch]

    def _labelled(self, rows: Iterator[Rows], count: int) -> Iterator[Rows]:
        for label in self._labels[:count]:
            yield label
            yield next(rows)


@lru_cache(maxsize=1)
def load_labels() -> NDArray[np.float32]:
    """The model's embeddings of each frame_label, float32 [FRAMES_MAX, LABEL_ROWS, 576]."""
    source = resources.files("headrace") / "assets" / "smollm2" / "video_labels.npz"
    with source.open("rb") as file, np.load(file) as arrays:
        labels: NDArray[np.float32] = arrays["rows"].astype(np.float32)
    return labels


VIDEO = VideoModality()
