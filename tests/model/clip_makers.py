"""Sound and video files made on the spot with PyAV."""

import io

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]  # [channels, samples]


def tone(seconds: float, rate_hz: int, channels: int = 1) -> Samples:
    """A sine of 440 Hz at 0.3, the same in all channels."""
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.tile(0.3 * np.sin(2 * np.pi * 440 * at), (channels, 1)).astype(np.float32)


def sound_file(samples: Samples, rate_hz: int, container: str, codec: str) -> bytes:
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(stream.format.name, layout, rate_hz, frame_size=stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return out.getvalue()


def video_file(levels: list[int], container: str, codec: str, rate: int = 5, side: int = 64) -> bytes:
    """A grey frame of each level, `rate` a second."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        pixels = "rgb8" if codec == "gif" else "yuv420p"
        stream = file.add_stream(codec, rate=rate, width=side, height=side, pix_fmt=pixels)
        for level in levels:
            grey = np.full((side, side, 3), level, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        file.mux(stream.encode(None))
    return out.getvalue()
