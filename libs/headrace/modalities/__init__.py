"""The registry of modalities: what the gateway needs to accept a media part and an encoder to embed it.

A modality is a module of this package with an object that satisfies Modality; adding one touches nothing else.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UnsupportedModality
from headrace.core.types import MediaMeta

Input = Any  # a preprocessed part: whatever the encoder's encode takes
Rows = NDArray[np.float32]  # [tokens, embed width]: what prefill puts at the part's span


class Encoder(Protocol):
    """Holds the encoder's weights; called from one thread at a time."""

    def preprocess(self, data: bytes, meta: MediaMeta) -> Input:
        """Decode and verify a part in full.

        Raises:
            InvalidInput: corrupt, cut short or too large; the message names the problem.
        """
        ...

    def encode(self, batch: Sequence[Input]) -> list[Rows]:
        """Embeddings of each part, in order."""
        ...


class Modality(Protocol):
    @property
    def name(self) -> str: ...

    def probe(self, data: bytes) -> MediaMeta:
        """What the header says; pure, and quick enough for an event loop.

        Raises:
            InvalidInput: not a known format, visibly cut short, animated, or more pixels than the bound.
        """
        ...

    def token_count(self, meta: MediaMeta) -> int:
        """Prompt positions that the part takes, from its header alone."""
        ...

    def load(self, threads: int, device: str = "cpu") -> Encoder:
        """The encoder, ready to run on a device of headrace.engines.runtime, on this many threads."""
        ...


# modality -> "module:object"
REGISTRY = {
    "image": "headrace.modalities.image:IMAGE",
    "audio": "headrace.modalities.audio:AUDIO",
    "video": "headrace.modalities.video:VIDEO",
}


def modality(name: str) -> Modality:
    """The modality of this name.

    Raises:
        UnsupportedModality: no such modality.
    """
    if name not in REGISTRY:
        raise UnsupportedModality(f"unknown modality {name!r}; supported: {', '.join(REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    found: Modality = getattr(import_module(module), attribute)
    return found
