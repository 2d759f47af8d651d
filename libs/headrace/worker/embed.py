"""Embeddings for clients, computed where the encoders are: between two batches of the mesh, in the same thread.

Text goes through the packaged sentence encoder, loaded when it is first wanted; media through the model's own towers,
whose rows are averaged. Nothing here is journaled: it is a pure function, and whoever lost an answer asks again.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import grpc.aio
import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import (
    HeadraceError,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    Unavailable,
    UnsupportedModality,
)
from headrace.core.types import Media, StageSpan
from headrace.mesh import rpc, subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown
from headrace.mesh.telemetry import emit_span, sampled
from headrace.modalities import Rows
from headrace.predictor import sentences
from headrace.predictor.encoder import encoder_path
from headrace.predictor.sentences import Sentences, unit
from headrace.v1 import encoder_pb2 as pb
from headrace.v1 import encoder_pb2_grpc
from headrace.wire import convert
from headrace.worker.encoder import EncodeStage
from headrace.worker.outfit import Outfit

Vector = NDArray[np.float32]

ADVERTISE_S = 1.0
WAITING_TOKENS_MAX = 32_768  # of texts: some ten seconds of one core; beyond it others should take the load
INPUTS_MAX = 256
MEDIA_AT_ONCE = 4  # so that a picture of a chat waits for no more of them


class EmbedService(encoder_pb2_grpc.EncoderServiceServicer):
    """Listens before the encoders are ready; `stage` is set once they are, if this process has any."""

    def __init__(self, me: str, threads: int) -> None:
        self.stage: EncodeStage | None = None
        self._me = me
        self._threads = threads
        self._sentences: Sentences | None = None
        self._waiting_tokens = 0

    async def Embed(self, request: pb.EmbedRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.EmbedResponse:
        try:
            return await self._embed(request)
        except HeadraceError as error:
            await rpc.abort(context, error)

    async def _embed(self, request: pb.EmbedRequest) -> pb.EmbedResponse:
        stage = self.stage
        if stage is None:
            raise Unavailable(f"{self._me} has no encoders", retry_after_s=1.0)
        if len(request.inputs) > INPUTS_MAX:
            raise InvalidInput(f"{len(request.inputs)} inputs at once; at most {INPUTS_MAX}", field="input")
        tokens = sum(_tokens_of(one) for one in request.inputs)
        if self._waiting_tokens and self._waiting_tokens + tokens > WAITING_TOKENS_MAX:
            raise Overloaded(f"{self._waiting_tokens} tokens wait at {self._me}", retry_after_s=1.0)
        self._waiting_tokens += tokens
        began_s = time.time()
        try:
            vectors, joules = await self._vectors(stage, request)
        finally:
            self._waiting_tokens -= tokens
        if sampled(request.traceparent):
            span = StageSpan("encode", began_s, time.time(), self._me, joules=joules)
            emit_span(span, request.traceparent)
        packed = [pb.EmbedVector(values=vector.astype("<f4").tobytes()) for vector in vectors]
        return pb.EmbedResponse(vectors=packed, joules=joules)

    async def _vectors(self, stage: EncodeStage, request: pb.EmbedRequest) -> tuple[list[Vector], float]:
        if request.model == sentences.NAME:
            ids = [list(one.tokens.ids) for one in request.inputs]
            return await self._texts(stage, ids)
        if request.model != stage.outfit.spec.name:
            raise ModelNotFound(f"{self._me} does not serve {request.model[:64]!r}", field="model")
        return await self._media(stage, request.inputs)

    async def _texts(self, stage: EncodeStage, ids: Sequence[Sequence[int]]) -> tuple[list[Vector], float]:
        if not all(1 <= len(one) <= sentences.CONTEXT_TOKENS for one in ids):
            raise InvalidInput(f"a text has 1 to {sentences.CONTEXT_TOKENS} tokens", field="input")
        encoder, found, joules = await self._encoder(stage), dict[int, Vector](), 0.0
        for places in encoder.batches(ids):
            some = [ids[place] for place in places]
            vectors, spent = await stage.aside(partial(_embedded, encoder, some))
            joules += spent
            found.update(zip(places, vectors, strict=True))
        return [found[place] for place in range(len(ids))], joules

    async def _encoder(self, stage: EncodeStage) -> Sentences:
        if self._sentences is not None:
            return self._sentences
        loaded, _ = await stage.aside(lambda _: Sentences(self._threads))
        self._sentences = loaded
        return loaded

    async def _media(self, stage: EncodeStage, inputs: Sequence[pb.EmbedInput]) -> tuple[list[Vector], float]:
        found, joules = list[Vector](), 0.0
        for at in range(0, len(inputs), MEDIA_AT_ONCE):
            vectors, spent = await stage.aside(partial(_pooled, inputs[at : at + MEDIA_AT_ONCE]))
            found += vectors
            joules += spent
        return found, joules

    def advertise(self, bus: Bus, grpc_address: str, stopping: asyncio.Event) -> Callable[[], Awaitable[None]]:
        """Begins to tell the gateways; returns what ends it."""
        telling = asyncio.get_running_loop().create_task(self._tell(bus, grpc_address, stopping), name="embedder")

        async def end() -> None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

        return end

    async def _tell(self, bus: Bus, grpc_address: str, stopping: asyncio.Event) -> None:
        while self.stage is not None:
            word = pb.Embedder(
                worker=self._me,
                grpc_address=grpc_address,
                models=_models(self.stage.outfit),
                waiting_tokens=self._waiting_tokens,
                leaving=stopping.is_set(),
            )
            with contextlib.suppress(BusDown):
                bus.send(subjects.EMBEDDERS, word.SerializeToString())
            await asyncio.sleep(ADVERTISE_S)


def _models(outfit: Outfit) -> list[pb.EmbeddingModel]:
    spec, models = outfit.spec, []
    if outfit.encoders:
        models.append(pb.EmbeddingModel(name=spec.name, width=spec.embed_width, modalities=list(outfit.encoders)))
    if _has_text():
        models.append(pb.EmbeddingModel(name=sentences.NAME, width=sentences.WIDTH, modalities=["text"]))
    return models


@lru_cache(maxsize=1)
def _has_text() -> bool:
    try:
        encoder_path()
    except Unavailable:
        return False
    return True


def _tokens_of(one: pb.EmbedInput) -> int:
    return len(one.tokens.ids) if one.WhichOneof("kind") == "tokens" else one.media.media.tokens


def _embedded(encoder: Sentences, ids: Sequence[Sequence[int]], _: Outfit) -> list[Vector]:
    """In the towers' thread."""
    return list(encoder.embed(ids))


def _pooled(inputs: Sequence[pb.EmbedInput], outfit: Outfit) -> list[Vector]:
    """In the towers' thread: the mean of each part's rows, of length 1."""
    return [unit(np.asarray(_rows(one, outfit).mean(0), np.float32)) for one in inputs]


def _rows(one: pb.EmbedInput, outfit: Outfit) -> Rows:
    media: Media = convert.media_from_proto(one.media.media)
    encoder = outfit.encoders.get(media.meta.modality)
    where = f"input[{one.index}]"
    if encoder is None:
        raise UnsupportedModality(f"no encoder for {media.meta.modality!r} here", field=where)
    try:
        return encoder.encode([encoder.preprocess(one.media.data, media.meta)])[0]
    except InvalidInput as error:  # the modality knows what is wrong, not where it stood
        error.field = where
        raise
