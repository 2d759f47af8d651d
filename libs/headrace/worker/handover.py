"""A KV cache's way from one worker to another: exported into a mapped file, described by a handle, pulled, verified."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.core.commands import JoinCommand, WorkBatch
from headrace.core.types import TensorHandle
from headrace.engines.base import KvManifest
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown, StoreDown, TransferError
from headrace.mesh.faults import reach
from headrace.mesh.store import Store
from headrace.mesh.transfer import Draft, TensorStore
from headrace.wire.work import work_batch_to_proto
from headrace.worker.holds import Held
from headrace.worker.lease import Lease
from headrace.worker.outbox import Outbox

# A handle has no field for the position of the next token (it differs from the length where media share
# positions), so it travels behind the layout's name.
_NEXT = ";next_position="
JOINS_MAX = 32  # in a message: prompts of 8,192 tokens still fit into NATS's 1 MB


@dataclass(frozen=True, slots=True)
class Export:
    """Room for a request's KV cache: made on the event loop, filled in the inference thread, sealed on the loop."""

    held: Held
    manifest: KvManifest
    draft: Draft

    @staticmethod
    def make(held: Held, manifest: KvManifest, tensors: TensorStore) -> "Export":
        """Raises TransferError: there is no room for it."""
        key = held.key
        return Export(held, manifest, tensors.create(f"kv.{key.request_id}.{key.attempt}", manifest.size_bytes))

    def seal(self) -> TensorHandle:
        manifest = self.manifest
        layout = f"{manifest.layout}{_NEXT}{manifest.next_position}"
        return self.draft.seal(manifest.dtype, manifest.shape, layout, manifest.length)


def manifest_of(handle: TensorHandle) -> KvManifest:
    """Raises TransferError: the handle is not one of a KV cache."""
    layout, mark, position = handle.layout.partition(_NEXT)
    if not mark or not position.isdigit():
        raise TransferError(f"{handle.id}: layout {handle.layout!r} is not a KV cache's")
    return KvManifest(layout, handle.dtype, handle.shape, handle.length, int(position), handle.size_bytes)


def embedding_of(handle: TensorHandle, buffer: memoryview) -> NDArray[np.float32]:
    """A copy: the mapped file may go once the encoder is told to release it.

    Raises:
        TransferError: not float32 rows of the length that the handle says.
    """
    if handle.dtype != "float32" or len(handle.shape) != 2 or handle.shape[0] != handle.length:
        raise TransferError(f"{handle.id}: {handle.dtype} {handle.shape} are not embeddings")
    return np.frombuffer(buffer, np.float32).reshape(handle.shape).copy()


class Handover:
    """Tells of KV caches that wait here: Redis first, then the queue manager, then the decode worker itself."""

    def __init__(self, bus: Bus, store: Store, outbox: Outbox, lease: Lease) -> None:
        self._bus = bus
        self._store = store
        self._outbox = outbox
        self._lease = lease

    async def announce(self, exported: list[Held], epoch: int) -> None:
        await self._register([held.exported_kv for held in exported if held.exported_kv is not None])
        waiting = [held for held in exported if held.state == "handover"]  # the others were cancelled meanwhile
        for held in waiting:
            reach("prefill.kv_registered", held.key.request_id)
            self._outbox.prefilled(held)
        self._outbox.flush()
        for worker in {held.command.decode_worker for held in waiting}:
            self._send_joins(worker, [held for held in waiting if held.command.decode_worker == worker], epoch)
        await asyncio.sleep(0)  # the bus writes at the end of the loop's turn
        for held in waiting:
            reach("prefill.handed_over", held.key.request_id)

    async def _register(self, handles: list[TensorHandle]) -> None:
        """Where Redis is away they are missing there: they also travel in the command and in heartbeats."""
        if self._lease.holds(time.monotonic()):
            with suppress(StoreDown):
                await self._store.put_handles(handles)

    def _send_joins(self, worker: str, waiting: list[Held], epoch: int) -> None:
        for start in range(0, len(waiting), JOINS_MAX):
            batch = work_batch_to_proto(WorkBatch(epoch, join=tuple(map(_join, waiting[start : start + JOINS_MAX]))))
            try:
                self._bus.send(subjects.work(worker), batch.SerializeToString())
            except BusDown:
                return  # the queue manager sees the hold and sends it


def _join(held: Held) -> JoinCommand:
    assert held.exported_kv is not None
    timeline = (*held.command.timeline, *held.spans)
    request = replace(
        held.command,
        emitted=tuple(held.tokens),
        gateway=held.gateway,
        embeddings=(),
        timeline=timeline,
        cached_tokens=held.cached_tokens,
    )
    return JoinCommand(request, held.exported_kv)
