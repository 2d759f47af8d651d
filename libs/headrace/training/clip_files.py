"""Labelled sound and pictures as files: what the answers bench sends and what the demo ships."""

import wave
from collections.abc import Sequence
from io import BytesIO

import av
import numpy as np
from PIL import Image

from headrace.modalities.mel import SAMPLE_RATE_HZ, Sound
from headrace.training.pictures import Picture

_SIDE = 128
_RATE_HZ = 5  # frames a second of a file; a picture stands for a whole second


def wav(sound: Sound) -> bytes:
    """16-bit WAV."""
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes((np.clip(sound, -1.0, 1.0) * 32_767).astype("<i2").tobytes())
    return out.getvalue()


def flac(sound: Sound) -> bytes:
    """16-bit FLAC."""
    out = BytesIO()
    samples = (np.clip(sound, -1.0, 1.0) * 32_767).astype(np.int16)[None]
    with av.open(out, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def mp4(pictures: Sequence[Picture]) -> bytes:
    """Each picture for a second, fitted into a black square; H.264."""
    out = BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_RATE_HZ, width=_SIDE, height=_SIDE, pix_fmt="yuv420p")
        for picture in pictures:
            frame = np.asarray(_square(picture))
            for _ in range(_RATE_HZ):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()


def _square(picture: Picture) -> Image.Image:
    image = Image.fromarray(picture.pixels)
    scale = _SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("RGB", (_SIDE, _SIDE))
    square.paste(
        image.resize((width, height), Image.Resampling.BILINEAR), ((_SIDE - width) // 2, (_SIDE - height) // 2)
    )
    return square
