"""Sentence embeddings: the length predictor's text encoder as it was published, without our corrections.

After Sentence-BERT (Reimers and Gurevych, 2019): the mean of a text's last token states, marks included, of length 1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.predictor.encoder import WIDTH, Encoder
from headrace.predictor.model import batches
from headrace.predictor.reading import END, START, wordpiece

NAME = "minilm"
CONTEXT_TOKENS = 512  # positions that the encoder has, the two marks included
# Of one pass: fewer cost more a token, more would keep a chat's picture waiting for longer than a fifth of a second.
TOKENS_AT_ONCE = 256

Vectors = NDArray[np.float32]  # [texts, WIDTH], each of length 1

__all__ = ["CONTEXT_TOKENS", "NAME", "WIDTH", "Sentences", "marked", "read", "unit", "vocabulary"]


def read(texts: Sequence[str]) -> list[list[int]]:
    """Token ids, marks included, nothing cut."""
    return [marked(one.ids) for one in wordpiece().encode_batch(list(texts), add_special_tokens=False)]


def marked(ids: Sequence[int]) -> list[int]:
    """With the marks that a client's own tokens may lack."""
    begin = [] if ids and ids[0] == START else [START]
    end = [] if ids and ids[-1] == END else [END]
    return [*begin, *ids, *end]


def vocabulary() -> int:
    return wordpiece().get_vocab_size()


class Sentences:
    """Raises on loading: Unavailable: onnxruntime or the encoder's package is not installed. Not thread-safe."""

    def __init__(self, threads: int = 1) -> None:
        self._encoder = Encoder(threads)

    def batches(self, ids: Sequence[Sequence[int]]) -> list[list[int]]:
        """Places of texts that go through the encoder together: of like length, so that padding costs little."""
        return list(batches([len(one) for one in ids], TOKENS_AT_ONCE))

    def embed(self, ids: Sequence[Sequence[int]]) -> Vectors:
        states, mask = self._encoder.states(ids)
        weights = mask[:, :, None]
        return unit((states * weights).sum(1) / weights.sum(1))


def unit(vectors: NDArray[np.float32]) -> Vectors:
    """Each row at length 1. A row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)
