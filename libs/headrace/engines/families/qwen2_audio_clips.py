"""Sound clips of Qwen2-Audio: how many rows one takes, its features, and the exported tower that embeds it.

Neither torch nor transformers. The tower runs over the clip alone: what the reference does with the silence behind it,
up to 30 s, reaches no row that is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta
from headrace.engines.families.directory import Directory
from headrace.engines.runtime import open_session
from headrace.modalities import Encoder, Input, Rows
from headrace.modalities.audio import decode_sound, fit, probe_sound, samples_of
from headrace.modalities.mel import SAMPLE_RATE_HZ, Sound, spectrogram

GRAPH = "audio.onnx"
FRAME_SAMPLES, WINDOW_SAMPLES = 160, 400
# Frames beyond the last row that the tower's two convolutions look at.
_BEYOND = 2
# Rows of the tower that run at once: eight clips of 30 s would take seconds, and a cancel must not wait for them.
BATCH_PLACES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Hearing:
    """What the feature extractor and the tower take."""

    bands: int
    seconds_max: int

    @property
    def samples_max(self) -> int:
        return self.seconds_max * SAMPLE_RATE_HZ

    @property
    def frames_max(self) -> int:
        return self.samples_max // FRAME_SAMPLES

    def places(self, samples: int) -> int:
        """Rows of the tower: every second frame."""
        frames = -(-samples // FRAME_SAMPLES)
        return (frames + 1) // 2

    def tokens(self, meta: MediaMeta) -> int:
        """Embedding rows: pairs of the tower's."""
        return self.places(samples_of(meta)) // 2

    def frames(self, sound: Sound) -> NDArray[np.float32]:
        """[bands, frames]: features of the clip in its window of silence, up to the last frame that rows depend on."""
        window = np.zeros(self.samples_max, np.float32)
        window[: len(sound)] = sound
        needed = 2 * self.places(len(sound)) + _BEYOND
        return spectrogram(window, self.bands)[:, :needed]


@dataclass(frozen=True, slots=True)
class Clip:
    """A preprocessed part."""

    places: int
    frames: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class QwenClips:
    """Implements headrace.modalities.Modality."""

    hearing: Hearing
    directory: Directory
    name: str = "audio"

    def probe(self, data: bytes) -> MediaMeta:
        meta = probe_sound(data, self.hearing.seconds_max)
        if self.hearing.tokens(meta) == 0:
            raise InvalidInput(f"the clip is {meta.duration_s:.3f} s long; this model hears nothing below 0.021 s")
        return meta

    def token_count(self, meta: MediaMeta) -> int:
        return self.hearing.tokens(meta)

    def load(self, threads: int, device: str = "cpu") -> Encoder:
        """Raises Unavailable: the tower has not been exported."""
        return QwenClipEncoder(self.hearing, open_session(self.directory.graph(GRAPH), threads, device))


class QwenClipEncoder:
    """Clips of one length run as one batch."""

    def __init__(self, hearing: Hearing, session: Any) -> None:
        self._hearing = hearing
        self._session = session

    def preprocess(self, data: bytes, meta: MediaMeta) -> Input:
        sound = fit(decode_sound(data), samples_of(meta))
        return Clip(self._hearing.places(len(sound)), self._hearing.frames(sound))

    def encode(self, batch: Sequence[Input]) -> list[Rows]:
        rows: dict[int, Rows] = {}
        order = sorted(range(len(batch)), key=lambda number: batch[number].places)
        for places, alike in groupby(order, key=lambda number: batch[number].places):
            numbers = list(alike)
            step = max(1, BATCH_PLACES_MAX // places)
            for start in range(0, len(numbers), step):
                some = numbers[start : start + step]
                given = {"frames": np.stack([batch[number].frames for number in some]), "places": np.arange(places)}
                rows.update(zip(some, self._session.run(None, given)[0], strict=True))
        return [rows[number] for number in range(len(batch))]
