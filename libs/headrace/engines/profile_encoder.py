"""An encoder without a model, beside the profile engine: embeddings from a hash of the part's bytes.

The bytes are really read and their header is really checked; other bytes give other embeddings, the same everywhere.
"""

from collections.abc import Sequence

import numpy as np
import xxhash

from headrace.core.types import MediaMeta
from headrace.modalities import Input, Modality, Rows

_DIGEST_BYTES = 16


class ProfileEncoder:
    """Implements headrace.modalities.Encoder for any modality."""

    def __init__(self, modality: Modality, embed_width: int) -> None:
        self._modality = modality
        self._embed_width = embed_width

    def preprocess(self, data: bytes, meta: MediaMeta) -> Input:
        """The digest, and how many rows it becomes, as small whole numbers in float32.

        Raises:
            InvalidInput: the header is corrupt or cut short.
        """
        self._modality.probe(data)
        digest = np.frombuffer(xxhash.xxh3_128_digest(data), np.uint8)
        return np.append(digest, self._modality.token_count(meta)).astype(np.float32)

    def encode(self, batch: Sequence[Input]) -> list[Rows]:
        return [self._rows(part) for part in batch]

    def _rows(self, part: Input) -> Rows:
        seed = int.from_bytes(part[:_DIGEST_BYTES].astype(np.uint8).tobytes(), "little")
        tokens = int(part[_DIGEST_BYTES])
        return np.random.default_rng(seed).standard_normal((tokens, self._embed_width), np.float32)
