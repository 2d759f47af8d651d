"""Sound clips: what the gateway must know of a file, decoding to 16 kHz mono, and the encoder of the default model."""

import av
import numpy as np

from headrace.core.errors import InvalidInput
from headrace.modalities.container import opened, sniff
from headrace.modalities.mel import SAMPLE_RATE_HZ, Sound


def decode_sound(data: bytes) -> Sound:
    """The first audio stream, mixed to mono and resampled (FFmpeg's polyphase filter) to SAMPLE_RATE_HZ.

    Raises:
        InvalidInput: it cannot be decoded.
    """
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    chunks = []
    with opened(data, sniff(data)[0], "audio") as container:
        if not container.streams.audio:
            raise InvalidInput("the file has no audio stream")
        for frame in container.decode(container.streams.audio[0]):
            chunks += resampler.resample(frame)
        chunks += resampler.resample(None)
    return np.concatenate([chunk.to_ndarray()[0] for chunk in chunks] or [np.zeros(0)]).astype(np.float32)
