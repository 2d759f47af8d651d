"""What comes out of an encoder: an embedding to each part that asked for it, as a tensor of the part's own.

A tensor belongs to one request and goes with it. Where this very process prefills, all tensors of a content share the
one array in memory; elsewhere each is a mapped file, into which the array is copied.
"""

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from headrace.core.errors import HeadraceError
from headrace.core.types import Failure, StageSpan
from headrace.mesh import genai
from headrace.mesh.errors import StoreDown, TransferError
from headrace.mesh.faults import reach
from headrace.mesh.store import Store
from headrace.mesh.telemetry import emit_span
from headrace.mesh.transfer import Draft, Tensor, TensorStore
from headrace.modalities import Rows
from headrace.worker.holds import Holds, Part
from headrace.worker.lease import Lease
from headrace.worker.outbox import Outbox
from headrace.worker.spans import attributes_of


@dataclass(frozen=True, slots=True)
class Embedding:
    """Of one content; nobody writes into it any more."""

    rows: Rows
    xxh3: int  # of its bytes, where tensors share them


@dataclass(slots=True, eq=False)
class Outgoing:
    """An embedding on its way to one part."""

    part: Part
    embedding: Embedding
    spans: tuple[StageSpan, ...]
    draft: Draft | None = None  # where it goes, unless it stays in memory
    error: HeadraceError | None = None


class Embeddings:
    def __init__(
        self, tensors: TensorStore, store: Store, holds: Holds, outbox: Outbox, lease: Lease, *, in_memory: bool
    ) -> None:
        """in_memory: this very process prefills, so embeddings stay where they are."""
        self.in_memory = in_memory
        self._tensors = tensors
        self._store = store
        self._holds = holds
        self._outbox = outbox
        self._lease = lease
        self._thread = ThreadPoolExecutor(1, "embeddings")  # copies while the tower computes

    def wanted(self, part: Part) -> bool:
        return self._holds.parts.get(part.key.request_id, {}).get(part.command.part) is part

    def drop(self, part: Part) -> None:
        request_id = part.key.request_id
        parts = self._holds.parts[request_id]
        del parts[part.command.part]
        if not parts:
            del self._holds.parts[request_id]
        if part.handle is not None:
            self._tensors.drop(part.handle.id)

    def fail(self, part: Part, error: HeadraceError, *, retryable: bool) -> None:
        """The failure names the part, whatever the modality's own words are. Who wants it no more is told nothing."""
        if not self.wanted(part):
            return
        number = part.command.part
        message = f"media part {number}: {error.message}"
        self.drop(part)
        field = error.field or f"media[{number}]"
        self._outbox.failed(part.key, Failure(error.code, message, field, error.retry_after_s), retryable=retryable)

    async def publish(self, outgoing: list[Outgoing]) -> None:
        """Also sends the failures that have gathered."""
        for each in outgoing:
            self._make_room(each)
        drafted = [each for each in outgoing if each.draft is not None]
        if drafted:
            await asyncio.get_running_loop().run_in_executor(self._thread, _fill, drafted)
        for each in outgoing:
            self._seal(each)
            if each.error is not None:
                self.fail(each.part, each.error, retryable=True)
        if self._lease.holds(time.monotonic()):
            with suppress(StoreDown):  # the handle also travels in the event, in commands and in heartbeats
                await self._store.put_handles([each.part.handle for each in outgoing if each.part.handle is not None])
        sealed = [each for each in outgoing if each.part.handle is not None and self.wanted(each.part)]
        for each in sealed:
            self._tell(each.part, each.spans)
        self._outbox.flush()
        await asyncio.sleep(0)  # the bus writes at the end of the loop's turn
        for each in sealed:
            reach("encode.published", each.part.key.request_id)

    def _make_room(self, each: Outgoing) -> None:
        rows, part = each.embedding.rows, each.part
        if not self.wanted(part):
            return
        try:
            if self.in_memory:
                part.handle = self._tensors.keep(_name(part), rows.data, each.embedding.xxh3, _tensor(rows))
            else:
                each.draft = self._tensors.create(_name(part), rows.nbytes)
        except TransferError as error:
            each.error = error

    def _seal(self, each: Outgoing) -> None:
        """What was released while it was encoded or written is forgotten."""
        rows, part = each.embedding.rows, each.part
        if each.draft is not None:
            if each.error is not None or not self.wanted(part):
                self._tensors.abandon(each.draft)
                return
            part.handle = self._tensors.seal(each.draft, _tensor(rows))
        if part.handle is not None:
            part.embedding = rows
            reach("encode.encoded", part.key.request_id)

    def _tell(self, part: Part, spans: Iterable[StageSpan]) -> None:
        self._outbox.encoded(part, spans)
        part.told = True
        if not part.traced:
            return
        for span in spans:
            attributes = attributes_of(span, part.key)
            if span.stage == "encode":
                attributes[genai.CACHED] = span.cached
            emit_span(span, part.command.traceparent, attributes)


def _fill(drafted: Iterable[Outgoing]) -> None:
    """In the thread."""
    for each in drafted:
        assert each.draft is not None
        try:
            each.draft.buffer[:] = each.embedding.rows.data.cast("B")
        except TransferError as error:
            each.error = error
        else:
            each.draft.ready(each.embedding.rows.nbytes)


def _name(part: Part) -> str:
    return f"emb.{part.key.request_id}.{part.key.attempt}.{part.command.part}"


def _tensor(rows: Rows) -> Tensor:
    return Tensor(rows.dtype.name, rows.shape, "rows", len(rows))
