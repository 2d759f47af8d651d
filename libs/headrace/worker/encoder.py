"""The encode stage: media parts in, embeddings as mapped tensors out, a bounded batch at a time.

Blobs are read on the event loop's behalf; decoding pictures and running the tower happens in one inference thread.
"""

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import xxhash

from headrace.core.commands import EncodeCommand
from headrace.core.errors import HeadraceError, InvalidInput, NotFound, Overloaded, StageError, UnsupportedModality
from headrace.core.stages.encoder_batch import next_parts
from headrace.core.types import Failure, Key, StageSpan
from headrace.mesh import genai
from headrace.mesh.blobs import BlobStore
from headrace.mesh.errors import StoreDown, TransferError
from headrace.mesh.faults import reach
from headrace.mesh.store import Store
from headrace.mesh.telemetry import emit_span, sampled
from headrace.mesh.transfer import Draft, Tensor, TensorStore
from headrace.modalities import Input, Rows
from headrace.worker.holds import Holds, Part
from headrace.worker.lease import Lease
from headrace.worker.outbox import Outbox
from headrace.worker.outfit import Outfit
from headrace.worker.tally import Tally

# Towers here take tens of milliseconds a picture: a batch stays within a few hundred, and so does a cancel.
BATCH_MAX = 8
# Pictures waiting and waiting to be fetched; beyond this the queue manager's balance has failed.
PARTS_MAX = 4096


@dataclass(slots=True, eq=False)
class Job:
    """A part on its way through the tower; at the end it has an embedding or an error."""

    part: Part
    data: bytes = b""
    preprocessed_s: float = 0.0
    encoded_s: float = 0.0
    embedding: Rows | None = None
    xxh3: int = 0
    draft: Draft | None = None  # where the embedding goes, unless it stays in memory
    error: HeadraceError | None = None
    retryable: bool = False

    def fail(self, error: HeadraceError, *, retryable: bool) -> None:
        self.error, self.retryable = error, retryable


class EncodeStage:
    def __init__(
        self,
        me: str,
        outfit: Outfit,
        blobs: BlobStore,
        tensors: TensorStore,
        store: Store,
        holds: Holds,
        outbox: Outbox,
        tally: Tally,
        lease: Lease,
        *,
        in_memory: bool,
    ) -> None:
        """in_memory: this very process prefills, so embeddings stay where they are."""
        self._me = me
        self._outfit = outfit
        self._blobs = blobs
        self._tensors = tensors
        self._store = store
        self._holds = holds
        self._outbox = outbox
        self._tally = tally
        self._lease = lease
        self._in_memory = in_memory
        self._waiting: deque[Part] = deque()
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "encode")

    async def run(self) -> None:
        while True:
            await self._work.wait()
            jobs = [Job(part) for part in self._schedule()]
            for job in jobs:
                await self._read(job)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, jobs)
            await self._publish(jobs)

    def serve(self, outfit: Outfit) -> None:
        """From now on with these encoders; what waits for those of another model fails and goes elsewhere."""
        self._outfit = outfit

    # --- commands ---

    def encode(self, command: EncodeCommand) -> None:
        parts = self._holds.parts.setdefault(command.key.request_id, {})
        known = parts.get(command.part)
        if known is not None and known.key.attempt >= command.key.attempt:
            return
        if known is not None:
            self._drop(known)
        reach("encode.received", command.key.request_id)
        part = Part(command.key, command, time.time(), sampled(command.traceparent))
        parts[command.part] = part
        if len(self._waiting) >= PARTS_MAX:
            self._fail(part, Overloaded(f"{PARTS_MAX} media parts wait at {self._me}"), retryable=True)
            return
        self._waiting.append(part)
        self._work.set()

    def release(self, key: Key) -> None:
        """Also for a cancel: an encoder has nothing to answer."""
        parts = self._holds.parts.get(key.request_id, {})
        for part in [part for part in parts.values() if part.key.attempt <= key.attempt]:
            self._drop(part)

    def _drop(self, part: Part) -> None:
        request_id = part.key.request_id
        parts = self._holds.parts[request_id]
        del parts[part.command.part]
        if not parts:
            del self._holds.parts[request_id]
        if part.handle is not None:
            self._tensors.drop(part.handle.id)

    def _holds_still(self, part: Part) -> bool:
        return self._holds.parts.get(part.key.request_id, {}).get(part.command.part) is part

    # --- the loop's steps ---

    def _schedule(self) -> list[Part]:
        batch = next_parts(self._waiting, self._holds_still, BATCH_MAX)
        if not self._waiting:
            self._work.clear()
        return batch

    async def _read(self, job: Job) -> None:
        media = job.part.command.media
        try:
            job.data = await self._blobs.get(job.part.key.request_id, media.sha256)
        except NotFound as error:
            job.fail(error, retryable=True)  # another host's directory, or not there yet
        except StageError as error:
            job.fail(error, retryable=False)  # the stored bytes are not what was accepted

    def _encode(self, jobs: list[Job]) -> None:
        """In the inference thread."""
        start_s, outfit = time.perf_counter(), self._outfit
        inputs = [(job, data) for job in jobs if (data := self._preprocess(job, outfit)) is not None]
        for job, _ in inputs:
            job.preprocessed_s = time.time()
        if inputs:
            encoder = outfit.encoders[inputs[0][0].part.modality]
            for (job, _), rows in zip(inputs, encoder.encode([data for _, data in inputs]), strict=True):
                job.embedding, job.encoded_s = np.ascontiguousarray(rows), time.time()
                if self._in_memory:  # for a prefill worker elsewhere, should one be chosen after all
                    job.xxh3 = xxhash.xxh3_64_intdigest(job.embedding.data)
        self._tally.encode_busy_s += time.perf_counter() - start_s
        self._tally.encoded_parts += len(inputs)

    def _preprocess(self, job: Job, outfit: Outfit) -> Input | None:
        if job.error is not None:
            return None
        media, model = job.part.command.media, job.part.command.model
        if model != outfit.spec.name:
            job.fail(StageError(f"{self._me} serves {outfit.spec.name}, not {model}"), retryable=True)
            return None
        encoder = outfit.encoders.get(media.meta.modality)
        if encoder is None:
            job.fail(UnsupportedModality(f"{self._me} has no encoder for {media.meta.modality!r}"), retryable=False)
            return None
        try:
            return encoder.preprocess(job.data, media.meta)
        except InvalidInput as error:
            job.fail(error, retryable=False)
            return None

    def _make_room(self, job: Job) -> None:
        rows, part = job.embedding, job.part
        if rows is None or not self._holds_still(part):
            return
        if len(rows) != part.command.media.tokens:
            job.fail(StageError(f"{len(rows)} rows instead of {part.command.media.tokens}"), retryable=False)
            return
        try:
            if self._in_memory:
                part.handle = self._tensors.keep(_name(part), rows.data, job.xxh3, _tensor(rows))
            else:
                job.draft = self._tensors.create(_name(part), rows.nbytes)
        except TransferError as error:
            job.fail(error, retryable=True)

    def _fill(self, jobs: list[Job]) -> None:
        """In the inference thread."""
        for job in jobs:
            assert job.draft is not None
            assert job.embedding is not None
            try:
                job.draft.buffer[:] = job.embedding.data.cast("B")
            except TransferError as error:
                job.fail(error, retryable=True)
            else:
                job.draft.ready(job.embedding.nbytes)

    def _seal(self, job: Job) -> None:
        """What was released while it was encoded or written is forgotten."""
        rows, part = job.embedding, job.part
        if job.draft is not None:
            if job.error is not None or not self._holds_still(part):
                self._tensors.abandon(job.draft)
                return
            assert rows is not None
            part.handle = self._tensors.seal(job.draft, _tensor(rows))
        if part.handle is not None:
            part.embedding = rows
            reach("encode.encoded", part.key.request_id)

    async def _publish(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._make_room(job)
        drafted = [job for job in jobs if job.draft is not None]
        if drafted:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._fill, drafted)
        for job in jobs:
            self._seal(job)
            if job.error is not None and self._holds_still(job.part):
                self._fail(job.part, job.error, retryable=job.retryable)
        if self._lease.holds(time.monotonic()):
            with suppress(StoreDown):  # the handle also travels in the event, in commands and in heartbeats
                await self._store.put_handles([job.part.handle for job in jobs if job.part.handle is not None])
        sealed = [job for job in jobs if job.part.handle is not None and self._holds_still(job.part)]
        for job in sealed:
            self._tell(job)
        self._outbox.flush()
        await asyncio.sleep(0)  # the bus writes at the end of the loop's turn
        for job in sealed:
            reach("encode.published", job.part.key.request_id)

    def _fail(self, part: Part, error: HeadraceError, *, retryable: bool) -> None:
        """The failure names the part, whatever the modality's own words are."""
        number = part.command.part
        message = f"media part {number}: {error.message}"
        self._drop(part)
        field = error.field or f"media[{number}]"
        self._outbox.failed(part.key, Failure(error.code, message, field, error.retry_after_s), retryable=retryable)

    def _tell(self, job: Job) -> None:
        part = job.part
        number = part.command.part
        spans = (
            StageSpan("preprocess", part.received_s, job.preprocessed_s, self._me, number),
            StageSpan("encode", job.preprocessed_s, job.encoded_s, self._me, number),
        )
        self._outbox.encoded(part, spans)
        if part.traced:
            for span in spans:
                emit_span(
                    span,
                    part.command.traceparent,
                    {genai.REQUEST_ID: part.key.request_id, genai.ATTEMPT: part.key.attempt},
                )


def _name(part: Part) -> str:
    return f"emb.{part.key.request_id}.{part.key.attempt}.{part.command.part}"


def _tensor(rows: Rows) -> Tensor:
    return Tensor(rows.dtype.name, rows.shape, "rows", len(rows))
