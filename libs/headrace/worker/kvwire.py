"""What a KV cache looks like on its way: an engine's manifest as a handle's fields and back, packed or as it is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headrace.core.types import TensorHandle
from headrace.engines.base import KvManifest, KvMismatch, SequenceInput
from headrace.engines.kvcodec import CODEC, NotPackable, RowFormat
from headrace.mesh.errors import TransferError
from headrace.mesh.transfer import Tensor


@dataclass(frozen=True, slots=True)
class KvTravel:
    """How this worker sends KV caches; it takes in any."""

    pipeline_bytes: int | None = None  # caches of this size and more are sent while they are computed; None: none is
    packed: bool = False  # as int8


def tensor_of(manifest: KvManifest, *, packed: bool) -> Tensor:
    return Tensor(
        manifest.dtype,
        manifest.shape,
        manifest.layout,
        manifest.length,
        manifest.next_position,
        manifest.cross_length,
        CODEC if packed else "",
    )


def manifest_of(handle: TensorHandle) -> KvManifest:
    """What the importing engine is told.

    Raises:
        TransferError: the handle is not one of a KV cache, or its codec is unknown here.
    """
    if handle.length <= 0 or handle.next_position <= 0:
        raise TransferError(f"{handle.id} of layout {handle.layout!r} is not a KV cache")
    manifest = KvManifest(
        handle.layout,
        handle.dtype,
        handle.shape,
        handle.length,
        handle.next_position,
        handle.size_bytes,
        handle.cross_length,
    )
    if not handle.codec:
        return manifest
    return replace(manifest, size_bytes=_rows(handle).raw_bytes(handle.size_bytes))


def check_whole(sequence: SequenceInput, manifest: KvManifest, prefix_tokens: Mapping[str, int]) -> None:
    """Only finished prefills are handed over: an engine could go on from half of one, but it has no embeddings.

    Raises:
        KvMismatch: the KV covers less, or more, than all tokens but the last.
    """
    needed = prefix_tokens.get(sequence.prefix, 0) + len(sequence.tokens) - 1
    if manifest.length != needed:
        raise KvMismatch(f"KV of {manifest.length} positions; {len(sequence.tokens)} tokens need {needed}")


def raw_kv(handle: TensorHandle, manifest: KvManifest, data: memoryview) -> memoryview:
    """The engine's own bytes; unpacking takes a millisecond for two megabytes. Raises TransferError."""
    if not handle.codec:
        return data
    raw = memoryview(bytearray(manifest.size_bytes))
    _rows(handle).unpack(data, raw)
    return raw


def _rows(handle: TensorHandle) -> RowFormat:
    try:
        if handle.codec != CODEC:
            raise TransferError(f"{handle.id}: codec {handle.codec!r} is unknown here")
        rows = RowFormat.of(handle.dtype, handle.shape)
        rows.raw_bytes(handle.size_bytes)
    except NotPackable as error:
        raise TransferError(f"{handle.id}: {error}") from error
    return rows
