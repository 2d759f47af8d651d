"""The batch of core.stages for sequences with tokens and embeddings, and the checks that every backend makes."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from headrace.core.errors import StageError
from headrace.core.stages import batch
from headrace.core.types import Key
from headrace.engines.base import KvManifest, KvMismatch, SequenceInput

S = TypeVar("S")
Batch = batch.Batch[SequenceInput, S]
Live = batch.Live[SequenceInput, S]
Chunk = batch.Chunk[SequenceInput, S]


def packs(chunks: Sequence[Chunk[S]]) -> list[list[Chunk[S]]]:
    """Chunks that one call may compute: those that stand behind nothing, or behind the same named prefix.

    Later chunks of a sequence, and those behind cached blocks, have a past of their own and come alone.
    """
    found: dict[Key | str, list[Chunk[S]]] = {}
    for chunk in chunks:
        found.setdefault(chunk.live.key if chunk.start else chunk.live.input.prefix, []).append(chunk)
    return list(found.values())


def sizes(chunks: Sequence[Chunk[S]]) -> tuple[tuple[Key, int], ...]:
    """As StepResult tells them."""
    return tuple([(chunk.live.key, chunk.stop - chunk.start) for chunk in chunks])


def check_embeddings(sequence: SequenceInput, filled: int = 0) -> None:
    """Every media position behind tokens[:filled] has its row: a prompt with placeholders in place of a picture would
    be answered wrongly."""
    for span in sequence.spans:
        assert span.offset >= 0
        assert span.offset + span.length <= sequence.prompt_len
        if span.offset + span.length <= filled:
            continue
        if sequence.awaits_media and span.part >= len(sequence.embeddings):
            continue
        assert span.part < len(sequence.embeddings), f"media part {span.part} has no embeddings"
        assert len(sequence.embeddings[span.part]) == span.embedding_rows, f"media part {span.part}: wrong length"


def check_finite(sequence: SequenceInput, first: int = 0) -> None:
    """From the media part `first` on. Masked padding would spread numbers that are not finite to other sequences.

    Raises:
        StageError: names the media part.
    """
    for part, soft in enumerate(sequence.embeddings[first:], first):
        if not np.isfinite(soft.sum()):
            raise StageError(f"the embeddings of media part {part} are not finite")


def check_manifest(
    sequence: SequenceInput, prefix_len: int, manifest: KvManifest, expect: Callable[[int], KvManifest]
) -> int:
    """How many tokens of the sequence a KV cache covers; expect(n) is what this engine writes when it holds n of them.

    Raises:
        KvMismatch: it does not continue this sequence in this engine; says what differs.
    """
    filled = manifest.length - prefix_len
    if not 0 <= filled < len(sequence.tokens):
        behind = f"{prefix_len} of prefix and {len(sequence.tokens)} tokens, the last of which is not in it"
        raise KvMismatch(f"KV of {manifest.length} positions does not fit {behind}")
    if manifest != (expected := expect(filled)):
        raise KvMismatch(f"KV is {manifest}; this engine continues {expected}")
    for span in sequence.spans if not manifest.cross_length else ():  # cross-attention KV holds all media at once
        if span.offset + span.length > filled and span.part >= len(sequence.embeddings):
            raise KvMismatch(f"KV of {filled} tokens lacks media part {span.part}, and so do the embeddings")
    return filled
