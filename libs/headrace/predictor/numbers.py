"""What the heads get beside the encoder's states: lexical cues, media, and who will answer."""

import math
from collections.abc import Mapping

from headrace.core.lengths import Features
from headrace.predictor.cues import CUES, cues

_MODALITIES = ("image", "audio", "video")
NUMBERS = (*CUES, *(f"parts_{name}" for name in _MODALITIES), "parts_other", "log_media_tokens")
UNKNOWN_MODEL = 0


def numbers(text: str, features: Features) -> list[float]:
    """One number for each of NUMBERS. The prompt's tokens are not among them: tokenizers count differently, and earlier
    turns would count as a longer question; the text's own length is a cue."""
    counts = dict(features.parts)
    known = [math.log1p(counts.get(name, 0)) for name in _MODALITIES]
    other = features.media_parts - sum(counts.get(name, 0) for name in _MODALITIES)
    return [*cues(text), *known, math.log1p(other), math.log1p(features.media_tokens)]


def model_index(model: str, models: Mapping[str, int]) -> int:
    """Models that the heads were not trained with share one place; the calibrator tells them apart."""
    return models.get(model, UNKNOWN_MODEL)
