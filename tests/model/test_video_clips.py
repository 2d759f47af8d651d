"""Video files: what is read from their packets, which frames are looked at, and what is refused with a reason."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta
from headrace.modalities.video import FRAMES_MAX, VIDEO, VideoModality, frames_at, probe_video
from tests.model.clip_makers import sound_file, tone, video_file

LEVELS = [40] * 5 + [120] * 5 + [200] * 5  # three seconds
MP4 = video_file(LEVELS, "mp4", "libx264")
GIF = video_file(LEVELS, "gif", "gif")
WEBM = video_file(LEVELS, "webm", "libvpx-vp9")
FILES = {
    "mp4": (MP4, "video/mp4"),
    "webm": (WEBM, "video/webm"),
    "gif": (GIF, "video/gif"),
    "mkv": (video_file(LEVELS, "matroska", "mpeg4"), "video/x-matroska"),
}


@pytest.mark.parametrize("kind", FILES)
def test_formats(kind: str) -> None:
    data, mime = FILES[kind]
    meta = probe_video(data)
    assert (meta.modality, meta.mime, meta.width, meta.height) == ("video", mime, 64, 64)
    assert meta.duration_s == pytest.approx(3.0, abs=0.01)
    assert VIDEO.times_s(meta) == pytest.approx([0.5, 1.5, 2.5], abs=0.01)
    shown = [int(np.asarray(picture).mean()) for picture in frames_at(data, VIDEO.times_s(meta))]
    assert shown == pytest.approx([40, 120, 200], abs=12)


def test_the_frame_that_stands_at_a_moment_is_looked_at() -> None:
    moments = [0.0, 0.99, 1.01, 1.99, 2.01, 9.0]
    shown = [round(np.asarray(picture).mean() / 40) for picture in frames_at(MP4, moments)]
    assert shown == [1, 1, 3, 3, 5, 5], "past the end the last one stays"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("nothing", b"", "empty"),
        ("a playlist", b"#EXTM3U\n", "formats: MP4"),
        ("sound", sound_file(tone(0.2, 16_000), 16_000, "wav", "pcm_s16le"), "not a video"),
        ("sound in MP4", sound_file(tone(0.2, 16_000), 16_000, "mp4", "aac"), "no video stream"),
        ("half an MP4", MP4[: len(MP4) // 2], "cut short"),
        ("half a WebM", WEBM[: len(WEBM) // 2], "cut short"),
        ("half a GIF", GIF[: len(GIF) // 2], "cut short"),
        ("62 seconds", video_file([0] * 62, "mp4", "libx264", rate=1), "longer than 60 s"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(name: str, data: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        probe_video(data)


@given(st.floats(0.01, 60.0), st.floats(0.1, 30.0), st.integers(1, FRAMES_MAX))
def test_tokens_follow_the_duration_alone(duration_s: float, frames_per_s: float, frames_max: int) -> None:
    video = VideoModality(frames_per_s, frames_max)
    meta = MediaMeta("video", "video/mp4", 64, 64, 1, duration_s)
    times_s = video.times_s(meta)
    assert video.token_count(meta) == 9 * len(times_s), "three of a label, six of a picture"
    assert 1 <= len(times_s) <= frames_max
    assert len(times_s) in (1, frames_max) or abs(len(times_s) - duration_s * frames_per_s) <= 0.5
    assert times_s == sorted(times_s)
    assert times_s[0] > 0
    assert times_s[-1] < duration_s
