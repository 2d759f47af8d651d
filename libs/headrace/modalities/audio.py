"""Sound clips: header checks for the gateway, decoding to 16 kHz mono, and the encoder of the default model.

WAV, FLAC and MP3; Ogg (Vorbis, Opus) and MP4 (AAC) as FFmpeg reads them. The first audio stream counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import av
import numpy as np

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta
from headrace.engines.runtime import open_session
from headrace.modalities import Encoder, Input, Rows
from headrace.modalities.container import SLACK_S, check_whole, duration_s_of, opened, sniff
from headrace.modalities.mel import SAMPLE_RATE_HZ, Sound, log_mel, rows_of

FORMATS = ("WAV", "FLAC", "MP3", "Ogg", "MP4", "WebM")
DURATION_S_MAX = 30.0  # Whisper's own window
CHANNELS_MAX = 8
RATE_HZ_MIN, RATE_HZ_MAX = 4_000, 192_000
EDGE_ROWS = 2  # the begin and end vectors
_NOUN = "audio"


def probe_sound(data: bytes, duration_s_max: float = DURATION_S_MAX) -> MediaMeta:
    """What the file's headers and packets say; nothing is decoded. A few milliseconds for 30 s.

    Raises:
        InvalidInput: no known format, no audio stream, cut short, empty, or beyond a limit.
    """
    name, subtype = _format_of(data)
    check_whole(data, name, _NOUN)
    with opened(data, name, _NOUN) as container:
        stream = _stream(container)
        duration_s = duration_s_of(container, stream, _NOUN, duration_s_max)
    return MediaMeta("audio", f"audio/{subtype}", 0, 0, len(data), duration_s)


def decode_sound(data: bytes) -> Sound:
    """The first audio stream, mixed to mono and resampled (FFmpeg's polyphase filter) to SAMPLE_RATE_HZ.

    Raises:
        InvalidInput: it cannot be decoded to the end.
    """
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    chunks = []
    with opened(data, _format_of(data)[0], _NOUN) as container:
        stream = _stream(container)
        if stream.codec_context.name == "flac":
            stream.codec_context.options = {"err_detect": "crccheck+explode"}  # every frame has a checksum
        for frame in container.decode(stream):
            chunks += resampler.resample(frame)
        if chunks:
            chunks += resampler.resample(None)
    sound = np.concatenate([chunk.to_ndarray()[0] for chunk in chunks] or [np.zeros(0)]).astype(np.float32)
    if not np.isfinite(sound).all():
        raise InvalidInput("the audio holds samples that are not numbers")
    return sound


def samples_of(meta: MediaMeta) -> int:
    """How long the clip counts, in samples at SAMPLE_RATE_HZ."""
    return round(meta.duration_s * SAMPLE_RATE_HZ)


def fit(sound: Sound, samples: int) -> Sound:
    """The clip at exactly the length that was announced for it.

    Raises:
        InvalidInput: it is longer or shorter by more than decoders may differ.
    """
    if abs(len(sound) - samples) > SLACK_S * SAMPLE_RATE_HZ:
        found_s, announced_s = len(sound) / SAMPLE_RATE_HZ, samples / SAMPLE_RATE_HZ
        raise InvalidInput(f"the audio is corrupt: {found_s:.2f} s decode where {announced_s:.2f} s are announced")
    return np.pad(sound[:samples], (0, max(0, samples - len(sound))))


def _format_of(data: bytes) -> tuple[str, str]:
    if not data:
        raise InvalidInput("the audio is empty")
    name, subtype = sniff(data)
    if not name or name == "gif":
        raise InvalidInput(f"not audio that can be read; formats: {', '.join(FORMATS)}")
    return name, subtype


def _stream(container: Any) -> Any:
    if not container.streams.audio:
        raise InvalidInput("the file has no audio stream")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise InvalidInput("the audio's codec is not known")
    channels, rate_hz = stream.codec_context.channels, stream.codec_context.sample_rate
    if not 1 <= channels <= CHANNELS_MAX:
        raise InvalidInput(f"the audio has {channels} channels; 1 to {CHANNELS_MAX} are read")
    if not RATE_HZ_MIN <= rate_hz <= RATE_HZ_MAX:
        raise InvalidInput(f"the audio is sampled at {rate_hz} Hz; {RATE_HZ_MIN} to {RATE_HZ_MAX} Hz are read")
    return stream


@dataclass(frozen=True, slots=True)
class AudioModality:
    """Implements headrace.modalities.Modality: a row for each 0.2 s."""

    name: str = "audio"

    def probe(self, data: bytes) -> MediaMeta:
        return probe_sound(data)

    def token_count(self, meta: MediaMeta) -> int:
        assert meta.modality == self.name
        return rows_of(samples_of(meta)) + EDGE_ROWS

    def load(self, threads: int, device: str = "cpu") -> Encoder:
        return OnnxAudioEncoder(threads, device)


class OnnxAudioEncoder:
    """Whisper's encoder, the ear and the begin and end vectors in one ONNX graph: [1, 80, frames] -> [1, rows, 576]."""

    def __init__(self, threads: int, device: str = "cpu") -> None:
        graph = resources.files("headrace") / "assets" / "smollm2" / "audio_encoder.onnx"
        self._session = open_session(graph.read_bytes(), threads, device)

    def preprocess(self, data: bytes, meta: MediaMeta) -> Input:
        return log_mel(fit(decode_sound(data), samples_of(meta)))

    def encode(self, batch: Sequence[Input]) -> list[Rows]:
        """One by one: clips differ in length, and a clip's frames keep a core busy by themselves."""
        return [self._rows(mel) for mel in batch]

    def _rows(self, mel: Input) -> Rows:
        rows: Rows = self._session.run(None, {"mel": mel[None]})[0][0]
        return rows


AUDIO = AudioModality()
