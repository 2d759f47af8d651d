"""Sound as Whisper takes it: 16 kHz mono, log-mel frames of 10 ms; and how many rows a clip becomes.

A clip is not padded to 30 s: it gets a little silence at either end and is rounded up to whole rows of 0.2 s.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
ROW_SAMPLES = 3_200  # one row of embeddings stands for 0.2 s
_LEAD_SAMPLES, _TAIL_SAMPLES = 1_600, 3_200
_WINDOW, _HOP, _MELS = 400, 160, 80
ROW_FRAMES = ROW_SAMPLES // _HOP

Sound = NDArray[np.float32]  # [samples], -1 .. 1, at SAMPLE_RATE_HZ


def rows_of(samples: int) -> int:
    """Rows of a clip of this many samples at SAMPLE_RATE_HZ, its silence included."""
    return -(-(_LEAD_SAMPLES + samples + _TAIL_SAMPLES) // ROW_SAMPLES)


def log_mel(sound: Sound) -> NDArray[np.float32]:
    """[80, ROW_FRAMES x rows]: Whisper's features (Radford et al. 2022), scaled by the clip's own loudest frame."""
    padded = np.zeros(rows_of(len(sound)) * ROW_SAMPLES, np.float32)
    padded[_LEAD_SAMPLES : _LEAD_SAMPLES + len(sound)] = sound
    return spectrogram(padded, _MELS)


def spectrogram(sound: Sound, bands: int) -> NDArray[np.float32]:
    """[bands, samples / 160]: the logarithm of each band's energy by 10 ms, 8 decades below the loudest at most."""
    mirrored = np.pad(sound, _WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(mirrored, _WINDOW)[::_HOP][:-1]
    power = np.abs(np.fft.rfft(frames * _window())) ** 2
    energy = np.log10(np.maximum(power.astype(np.float32) @ _filters(bands), 1e-10))
    scaled = (np.maximum(energy, energy.max() - 8.0) + 4.0) / 4.0
    return np.ascontiguousarray(scaled.T, np.float32)


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float32]:
    return np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


@lru_cache(maxsize=2)
def _filters(bands: int) -> NDArray[np.float32]:
    """Slaney's mel filters of unit area, [201, bands]: triangles over 0-8 kHz, linear below 1 kHz."""
    edges = _hz(np.linspace(0.0, _mel(SAMPLE_RATE_HZ / 2), bands + 2))
    bins = np.linspace(0.0, SAMPLE_RATE_HZ / 2, _WINDOW // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (edges[2:] - edges[:-2])
    return triangles.astype(np.float32)


_LINEAR_HZ, _LINEAR_MELS, _STEP = 1000.0, 15.0, np.log(6.4) / 27.0


def _mel(hz: float) -> float:
    return float(_LINEAR_MELS + np.log(hz / _LINEAR_HZ) / _STEP)


def _hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < _LINEAR_MELS, mels * 200.0 / 3.0, _LINEAR_HZ * np.exp(_STEP * (mels - _LINEAR_MELS)))
