"""The encode stage: media parts in, embeddings out, a bounded batch at a time; what is known already is not computed.

Blobs are read on the event loop's behalf; decoding pictures and running the tower happens in one inference thread.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import xxhash

from headrace.core.commands import EncodeCommand
from headrace.core.errors import HeadraceError, InvalidInput, NotFound, Overloaded, StageError, UnsupportedModality
from headrace.core.stages.content import Content, EncoderCache, content_of
from headrace.core.stages.encoder_batch import EncodeLine, Encoding, batch_of
from headrace.core.stages.places import urgency
from headrace.core.types import Key, StageSpan
from headrace.mesh.blobs import BlobStore
from headrace.mesh.faults import reach
from headrace.mesh.telemetry import sampled
from headrace.modalities import Input, Rows
from headrace.worker.devices import Devices
from headrace.worker.embeddings import Embedding, Embeddings, Outgoing
from headrace.worker.holds import Holds, Part
from headrace.worker.outfit import Outfit
from headrace.worker.pace import Pace
from headrace.worker.tally import Tally

T = TypeVar("T")

# Towers here take tens of milliseconds a picture: a batch stays within a few hundred, and so does a cancel.
BATCH_MAX = 8
# Of a wait for those before it that a request's timeline tells; below it preprocessing is said to begin at once.
WAIT_LEAST_S = 1e-3
# Pictures waiting and waiting to be fetched; beyond this the queue manager's balance has failed.
PARTS_MAX = 4096


@dataclass(slots=True, eq=False)
class Job:
    """One content on its way through the tower; at the end there is an embedding or an error."""

    encoding: Encoding[Part]
    begun_s: float  # its batch was taken
    data: bytes = b""  # empty: nobody wants it any more, or nobody's could be read
    preprocessed_s: float = 0.0
    encoded_s: float = 0.0
    joules: float = 0.0
    embedding: Embedding | None = None
    error: HeadraceError | None = None
    retryable: bool = False

    @property
    def command(self) -> EncodeCommand:
        """Anyone's: they agree in model and media."""
        return self.encoding.parts[0].command

    def fail(self, error: HeadraceError, *, retryable: bool) -> None:
        self.error, self.retryable = error, retryable


def _urgency(part: Part) -> float:
    return urgency(part.command.due_s, part.received_s)


class EncodeStage:
    def __init__(
        self,
        me: str,
        outfit: Outfit,
        blobs: BlobStore,
        embeddings: Embeddings,
        holds: Holds,
        tally: Tally,
        pace: Pace,
        devices: Devices,
        cache_bytes: int,
        batch_max: int = BATCH_MAX,
    ) -> None:
        """cache_bytes: of embeddings kept for who asks the same again; 0: every part is computed for itself."""
        self._me = me
        self._outfit = outfit
        self._blobs = blobs
        self._embeddings = embeddings
        self._holds = holds
        self._tally = tally
        self._pace = pace
        self._devices = devices
        self._cache = EncoderCache[Embedding](cache_bytes)
        self._batch_max = batch_max
        self._line = EncodeLine[Part](embeddings.wanted, _urgency)
        self._work = asyncio.Event()
        self._known: deque[tuple[Part, Embedding]] = deque()  # parts whose embedding was in the cache
        self._found = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "encode")

    async def run(self) -> None:
        """What is known waits for no tower."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._compute())
            tasks.create_task(self._answer())

    async def _compute(self) -> None:
        while True:
            await self._work.wait()
            begun_s = time.time()
            jobs = [Job(encoding, begun_s) for encoding in self._schedule()]
            for job in jobs:
                await self._read(job)
            took_s = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, jobs)
            await self._pass(jobs, took_s)
            await self._embeddings.publish([each for job in jobs for each in self._outgoing(job)])

    async def _answer(self) -> None:
        while True:
            await self._found.wait()
            self._found.clear()
            known = [self._known.popleft() for _ in range(len(self._known))]
            self._tally.encoder_cache_hits += len(known)
            await self._embeddings.publish([self._cached(part, embedding) for part, embedding in known])

    def serve(self, outfit: Outfit) -> None:
        """From now on with these encoders; what waits for those of another model fails and goes elsewhere."""
        self._outfit = outfit

    async def aside(self, call: Callable[[Outfit], T]) -> tuple[T, float]:
        """Something else for the towers' thread, between two batches: what it returns, and the joules that it took."""
        outfit = self._outfit

        def timed() -> tuple[T, float]:
            start_s = time.perf_counter()
            return call(outfit), time.perf_counter() - start_s

        result, took_s = await asyncio.get_running_loop().run_in_executor(self._thread, timed)
        return result, self._devices.encoding(took_s, None)

    @property
    def outfit(self) -> Outfit:
        return self._outfit

    # --- commands ---

    def encode(self, command: EncodeCommand) -> None:
        parts = self._holds.parts.setdefault(command.key.request_id, {})
        known = parts.get(command.part)
        if known is not None and known.key.attempt >= command.key.attempt:
            return
        if known is not None:
            self._embeddings.drop(known)
            parts = self._holds.parts.setdefault(command.key.request_id, {})
        reach("encode.received", command.key.request_id)
        part = Part(command.key, command, time.time(), sampled(command.traceparent))
        parts[command.part] = part
        if self._line.parts + len(self._known) >= PARTS_MAX:
            error = Overloaded(f"{PARTS_MAX} media parts wait at {self._me}")
            self._embeddings.fail(part, error, retryable=True)
            return
        self._enter(part, self._content(command))

    def _content(self, command: EncodeCommand) -> Content | None:
        return content_of(command.cache_scope, command.model, command.media) if self._cache.limit_bytes else None

    def _enter(self, part: Part, content: Content | None) -> None:
        embedding = self._cache.get(content) if content is not None else None
        if embedding is not None:
            self._known.append((part, embedding))
            self._found.set()
        else:
            self._line.add(part, content)
            self._work.set()

    def release(self, key: Key) -> None:
        """Also for a cancel: an encoder has nothing to answer."""
        parts = self._holds.parts.get(key.request_id, {})
        for part in [part for part in parts.values() if part.key.attempt <= key.attempt]:
            self._embeddings.drop(part)

    # --- the loop's steps ---

    def _schedule(self) -> list[Encoding[Part]]:
        batch = self._line.next(batch_of(len(self._line), self._batch_max))
        if not self._line:
            self._work.clear()
        return batch

    async def _read(self, job: Job) -> None:
        """From any request that has it: one whose copy is missing or broken fails alone."""
        while not job.data and (wanted := self._line.prune(job.encoding)):
            part = wanted[0]
            try:
                job.data = await self._blobs.get(part.key.request_id, part.command.media.sha256)
            except NotFound as error:  # another host's directory, or not there yet
                self._embeddings.fail(part, error, retryable=True)
            except StageError as error:  # the stored bytes are not what was accepted
                self._embeddings.fail(part, error, retryable=False)

    def _encode(self, jobs: list[Job]) -> float:
        """In the inference thread. Returns the seconds that it took."""
        start_s, outfit = time.perf_counter(), self._outfit
        inputs = [(job, data) for job in jobs if (data := self._preprocess(job, outfit)) is not None]
        for job, _ in inputs:
            job.preprocessed_s = time.time()
        if inputs:
            encoder = outfit.encoders[inputs[0][0].encoding.modality]
            for (job, _), rows in zip(inputs, encoder.encode([data for _, data in inputs]), strict=True):
                self._take(job, rows)
        return time.perf_counter() - start_s

    async def _pass(self, jobs: list[Job], took_s: float) -> None:
        """What a profile's tower takes now: the device's time, which an LLM in this process waits for."""
        loop = asyncio.get_running_loop()
        computed = [job for job in jobs if job.encoded_s]
        tokens = sum([job.command.media.tokens for job in computed])
        modelled_s = self._devices.slowed_encode(tokens * self._outfit.encode_token_s)
        end_s = self._pace.book(modelled_s, loop.time()) if modelled_s else None
        self._tally.encode(tokens, took_s + modelled_s)
        self._tally.encoded_parts += len(computed)
        joules = self._devices.encoding(modelled_s or took_s, end_s)
        for job in computed:
            job.joules = joules * job.command.media.tokens / tokens
        if end_s is not None:
            await self._pace.until(end_s)
            for job in computed:
                job.encoded_s = time.time()

    def _preprocess(self, job: Job, outfit: Outfit) -> Input | None:
        if not job.data:
            return None
        media, model = job.command.media, job.command.model
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

    def _take(self, job: Job, rows: Rows) -> None:
        tokens = job.command.media.tokens
        job.encoded_s = time.time()
        if len(rows) != tokens:
            job.fail(StageError(f"{len(rows)} rows instead of {tokens}"), retryable=False)
            return
        rows = np.ascontiguousarray(rows)
        if job.encoding.content is not None and rows.base is not None:
            rows = rows.copy()  # a slice would keep the whole batch in memory
        # The checksum is for a prefill worker elsewhere, should one be chosen after all.
        job.embedding = Embedding(rows, xxhash.xxh3_64_intdigest(rows.data) if self._embeddings.in_memory else 0)

    def _outgoing(self, job: Job) -> list[Outgoing]:
        """To all who asked for it by now; whoever asks later finds it in the cache."""
        parts, embedding = self._line.end(job.encoding), job.embedding
        if embedding is None or not parts or not self._embeddings.wanted(parts[0]):
            self._devices.account.lost_j += job.joules
        if embedding is None:
            if job.error is not None:
                for part in parts:
                    self._embeddings.fail(part, job.error, retryable=job.retryable)
            else:
                self._start_over(job, parts)
            return []
        if (content := job.encoding.content) is not None:
            self._cache.put(content, embedding, embedding.rows.nbytes)
            self._tally.encoder_cache_bytes = self._cache.used_bytes
            self._tally.encoder_cache_misses += 1
            self._tally.encoder_cache_hits += len(parts[1:])
        first = [self._computed(part, job, embedding) for part in parts[:1]]
        return [*first, *(self._cached(part, embedding) for part in parts[1:])]

    def _start_over(self, job: Job, parts: list[Part]) -> None:
        """They joined after the last of those before them had failed, or gone: their own copies have not been tried."""
        for part in parts:
            self._line.add(part, job.encoding.content)
            self._work.set()

    def _computed(self, part: Part, job: Job, embedding: Embedding) -> Outgoing:
        number = part.command.part
        came_s = min(part.received_s, job.preprocessed_s)
        waited = job.begun_s - came_s >= WAIT_LEAST_S
        wait = (StageSpan("wait", came_s, job.begun_s, self._me, number),) if waited else ()
        began_s = job.begun_s if waited else came_s
        preprocess = StageSpan("preprocess", began_s, job.preprocessed_s, self._me, number)
        encode = StageSpan("encode", job.preprocessed_s, job.encoded_s, self._me, number, joules=job.joules)
        return Outgoing(part, embedding, (*wait, preprocess, encode))

    def _cached(self, part: Part, embedding: Embedding) -> Outgoing:
        span = StageSpan("encode", part.received_s, time.time(), self._me, part.command.part, cached=True)
        return Outgoing(part, embedding, (span,))
