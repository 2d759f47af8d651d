"""How other workers hear of what waits for them here: offers of KV caches that grow, joins for those that are whole."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headrace.core.commands import JoinCommand, OfferCommand, WorkBatch
from headrace.core.types import TensorHandle
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown, StoreDown, TransferError
from headrace.mesh.faults import reach
from headrace.mesh.store import Store
from headrace.wire.work import work_batch_to_proto
from headrace.worker.holds import Held
from headrace.worker.lease import Lease
from headrace.worker.outbox import Outbox

JOINS_MAX = 32  # in a message: prompts of 8,192 tokens still fit into NATS's 1 MB
GRAMMAR_BYTES_MAX = 4096  # beside such a prompt; requests with a larger one travel alone


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

    def offer(self, held: Held, kv: TensorHandle | None, epoch: int) -> None:
        """None: what was offered is over."""
        batch = work_batch_to_proto(WorkBatch(epoch, offer=(OfferCommand(held.key, kv),)))
        with suppress(BusDown):  # then the join pulls all, or the decode worker's patience ends
            self._bus.send(subjects.peer(held.command.decode_worker), batch.SerializeToString())

    async def announce(self, exported: list[Held], epoch: int) -> None:
        await self._register([held.exported_kv for held in exported if held.exported_kv is not None])
        waiting = [held for held in exported if held.state == "handover"]  # the others were cancelled meanwhile
        for held in waiting:
            reach("prefill.kv_registered", held.key.request_id)
            self._outbox.prefilled(held)
        self._outbox.flush()
        await self._send(waiting, epoch)
        for held in waiting:
            reach("prefill.handed_over", held.key.request_id)

    async def send_on(self, moved: list[Held], epoch: int) -> None:
        """Requests that go on at other workers than they were decoded at so far. No event: it was the queue manager's
        own wish, and the other worker answers."""
        waiting = [held for held in moved if held.state == "handover"]  # the others were cancelled meanwhile
        await self._send(waiting, epoch)
        for held in waiting:
            reach("decode.moved", held.key.request_id)

    async def _send(self, waiting: list[Held], epoch: int) -> None:
        for worker in {held.command.decode_worker for held in waiting}:
            self._send_joins(worker, [held for held in waiting if held.command.decode_worker == worker], epoch)
        await asyncio.sleep(0)  # the bus writes at the end of the loop's turn

    async def _register(self, handles: list[TensorHandle]) -> None:
        """Where Redis is away they are missing there: they also travel in the command and in heartbeats."""
        if self._lease.holds(time.monotonic()):
            with suppress(StoreDown):
                await self._store.put_handles(handles)

    def _send_joins(self, worker: str, waiting: list[Held], epoch: int) -> None:
        # Log-probabilities of a request's whole output take up to 600 KB: those travel alone.
        step = 1 if any(map(_is_large, waiting)) else JOINS_MAX
        for start in range(0, len(waiting), step):
            batch = work_batch_to_proto(WorkBatch(epoch, join=tuple(map(_join, waiting[start : start + step]))))
            try:
                self._bus.send(subjects.peer(worker), batch.SerializeToString())
            except BusDown:
                return  # the queue manager sees the hold and sends it


def _is_large(held: Held) -> bool:
    return bool(held.logprobs) or len(held.command.sampling.grammar) > GRAMMAR_BYTES_MAX


def _join(held: Held) -> JoinCommand:
    assert held.exported_kv is not None
    timeline = (*held.command.timeline, *held.spans)
    request = replace(
        held.command,
        emitted=tuple(held.tokens),
        emitted_logprobs=tuple(held.logprobs.items()),
        gateway=held.gateway,
        embeddings=(),
        timeline=timeline,
        cached_tokens=held.cached_tokens,
    )
    return JoinCommand(request, held.exported_kv)
