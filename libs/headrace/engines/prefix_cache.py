"""KV of prompts seen before, by blocks: a prompt that starts as another did computes only what is new.

A block's key is a hash of all that its KV depends on: model, named prefix, and every token and media row up to its
end. What a block holds is the backend's; it must never be written again.
"""

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import xxhash

from headrace.engines.base import ModelSpec, SequenceInput

B = TypeVar("B")
BlockKey = bytes


class Chain:
    """The keys of one sequence's blocks, computed when they are asked for.

    key = xxh3_128(key of the block before, token ids, for each media part in the block: a hash of its embeddings and
    grid, the offset within it and where in the block it stands). The first one's parent stands for the model and the
    named prefix.
    """

    def __init__(self, fingerprint: str, spec: ModelSpec, sequence: SequenceInput) -> None:
        self._block_tokens = spec.block_tokens
        self._root = xxhash.xxh3_128_digest(f"{fingerprint}\0{spec.block_tokens}\0{sequence.prefix}".encode())
        self._keys: list[BlockKey] = []
        self._media = _media(sequence)

    def feed(self, sequence: SequenceInput) -> None:
        """More of its media parts' embeddings have come."""
        self._media = _media(sequence, self._media)

    def keys(self, tokens: Sequence[int]) -> list[BlockKey]:
        """Of the whole blocks of the sequence's tokens so far; up to a media part whose embeddings are not here: they
        did not come along with an imported sequence, or are still to come."""
        size, known = self._block_tokens, len(self._keys)
        raw = array("q", tokens[known * size :]).tobytes()
        for block in range(known, len(tokens) // size):
            media = [part for part in self._media if part.start < (block + 1) * size and part.stop > block * size]
            if any(part.digest is None for part in media):
                break
            at = (block - known) * size * 8
            digest = xxhash.xxh3_128(self._keys[-1] if self._keys else self._root)
            digest.update(raw[at : at + size * 8])
            for part in media:
                first = max(part.start, block * size)
                digest.update(array("q", (first - block * size, first - part.start)).tobytes())
                digest.update(part.digest or b"")
            self._keys.append(digest.digest())
        return self._keys[: len(tokens) // size]


@dataclass(frozen=True, slots=True)
class _Part:
    """A media part at tokens start .. stop - 1; digest is None where its embeddings are not here."""

    start: int
    stop: int
    digest: bytes | None


def _media(sequence: SequenceInput, known: Sequence[_Part] = ()) -> list[_Part]:
    """known: what has been hashed before."""
    parts = []
    for index, span in enumerate(sequence.spans):
        digest = known[index].digest if known else None
        if digest is None and span.part < len(sequence.embeddings):
            rows = np.ascontiguousarray(sequence.embeddings[span.part])
            whole = xxhash.xxh3_128(array("q", (*rows.shape, span.length, *span.grid)).tobytes())
            whole.update(rows.data)
            digest = whole.digest()
        parts.append(_Part(span.offset, span.offset + span.length, digest))
    return parts


class PrefixCache(Generic[B]):
    """At most `blocks` blocks, the least recently used go first, and never one that others stand behind.

    Runs are touched from their last block to their first, so that a block is always older than those before it: the
    oldest is a leaf.
    """

    def __init__(self, blocks: int) -> None:
        assert blocks >= 0
        self.blocks = blocks
        self._held: OrderedDict[BlockKey, tuple[BlockKey | None, B]] = OrderedDict()  # key -> (the one before, content)

    @classmethod
    def of_size(cls, size_bytes: int, block_bytes: int) -> "PrefixCache[B]":
        """As many blocks as fit; size 0 turns it off."""
        return cls(size_bytes // max(1, block_bytes))

    def __len__(self) -> int:
        return len(self._held)

    def run(self, keys: Sequence[BlockKey]) -> list[B]:
        """The contents of the longest run of blocks from the first key on."""
        held = list(self._run(keys))
        self._touch(keys[: len(held)])
        return held

    def put(self, keys: Sequence[BlockKey], make: Callable[[int], B]) -> None:
        """Hold the blocks of a sequence; make(n) gives the content of the n-th and is asked for those that are new."""
        keys = keys[: self.blocks]
        held = sum(1 for _ in self._run(keys))
        self._touch(keys[:held])
        while len(self._held) + len(keys) - held > self.blocks:
            self._held.popitem(last=False)
        for index in range(held, len(keys)):
            self._held[keys[index]] = (keys[index - 1] if index else None, make(index))
        self._touch(keys)

    def check_integrity(self) -> None:
        """Invariants, for tests: bounded, and nothing is held without what it stands behind, which is younger."""
        assert len(self._held) <= self.blocks
        age = {key: index for index, key in enumerate(self._held)}
        for key, (parent, _) in self._held.items():
            assert parent is None or age[parent] > age[key]

    def _run(self, keys: Sequence[BlockKey]) -> Iterator[B]:
        for key in keys:
            if key not in self._held:
                return
            yield self._held[key][1]

    def _touch(self, keys: Sequence[BlockKey]) -> None:
        for key in reversed(keys):
            self._held.move_to_end(key)
