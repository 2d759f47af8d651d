"""The trained heads: from encoder states and numbers to distributions of lengths.

The ONNX file and its manifest are made by `python -m headrace.training.lengths`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
from numpy.typing import NDArray

from headrace.core.lengths import LEVELS, Features, Prediction
from headrace.engines.runtime import open_session
from headrace.predictor.encoder import Mask, States
from headrace.predictor.numbers import NUMBERS, model_index, numbers

HEADS_FILE, MANIFEST_FILE = "heads.onnx", "manifest.json"
ADAPTER_FILE = "adapter.npz"
_LOG_MOST = 14.0  # e ** 14 is more than any answer: exp must not overflow


def assets() -> Traversable:
    """The folder with the shipped heads."""
    return resources.files("headrace") / "assets" / "lengths"


class HeadsMismatch(ValueError):
    """Heads of another version of this code; says how to make them again."""


@dataclass(frozen=True, slots=True)
class Said:
    """All outputs for a batch, for figures; serving takes the quantiles."""

    quantiles: NDArray[np.float32]  # [n, LEVELS] natural logarithm of tokens
    regression: NDArray[np.float32]  # [n] natural logarithm of tokens
    classes3: NDArray[np.float32]  # [n, 3] logits
    classes5: NDArray[np.float32]  # [n, 5] logits
    ordinal: NDArray[np.float32]  # [n, 4] logits of lying above each border


class Heads:
    """Implements the second half of headrace.predictor.model: the first is the encoder.

    Raises:
        HeadsMismatch: the manifest's inputs are not what this code computes.
    """

    def __init__(self, folder: Traversable, threads: int = 1) -> None:
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
        for name, own in (("numbers", NUMBERS), ("levels", LEVELS)):
            if tuple(manifest[name]) != own:
                raise HeadsMismatch(f"the heads in {folder} were trained with other {name}: run `make predictor`")
        self.models: dict[str, int] = manifest["models"]
        self._offsets = np.array(manifest["offsets"], np.float32)
        self._session = open_session((folder / HEADS_FILE).read_bytes(), threads)

    def say(self, texts: Sequence[str], features: Sequence[Features], states: States, mask: Mask) -> Said:
        inputs = {
            "states": states,
            "mask": mask,
            "numbers": np.array([numbers(*one) for one in zip(texts, features, strict=True)], np.float32),
            "model": np.array([model_index(one.model, self.models) for one in features], np.int64),
        }
        said = Said(*self._session.run(None, inputs))
        return replace(said, quantiles=np.maximum.accumulate(said.quantiles + self._offsets, axis=1))


def predictions(said: Said, features: Sequence[Features]) -> list[Prediction]:
    tokens = np.exp(np.clip(said.quantiles.astype(np.float64), 0.0, _LOG_MOST))
    return [Prediction.of(row, one.max_tokens) for row, one in zip(tokens.tolist(), features, strict=True)]
