"""Who computes embeddings: encoders say so once a second; a request goes to the one with the least before it.

Not through the queue: nothing is generated, nothing is kept, and an encoder that dies is asked again elsewhere.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc.aio

from headrace.core.errors import ModelNotFound, Unavailable
from headrace.mesh import rpc, subjects
from headrace.mesh.bus import Bus
from headrace.mesh.tls import Tls
from headrace.v1 import encoder_pb2 as pb
from headrace.v1.encoder_pb2_grpc import EncoderServiceStub

STALE_S = 3.5  # three words missed
AVOID_S = 3.0  # whoever broke, until it is known to be gone
EMBED_S_MAX = 60.0


@dataclass(slots=True)
class _Known:
    word: pb.Embedder
    heard_s: float
    sent_tokens: int = 0  # by this gateway, not answered


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that some encoder embeds with, as far as is known now."""

    name: str
    width: int
    modalities: frozenset[str]


class Embedders:
    def __init__(self, bus: Bus, tls: Tls | None = None) -> None:
        self._bus = bus
        self._channels = rpc.Channels(tls=tls)
        self._known: dict[str, _Known] = {}
        self._avoid_until_s: dict[str, float] = {}

    async def start(self) -> None:
        await self._bus.subscribe(subjects.EMBEDDERS, lambda data, _: self.on_word(data))

    async def stop(self) -> None:
        await self._channels.close()

    def on_word(self, data: bytes) -> None:
        word = pb.Embedder.FromString(data)
        known = self._known.setdefault(word.worker, _Known(word, 0.0))
        known.word, known.heard_s = word, time.monotonic()
        if word.leaving:
            del self._known[word.worker]

    def offers(self) -> Mapping[str, Offer]:
        found: dict[str, Offer] = {}
        for known in self._fresh():
            for model in known.word.models:
                before = found[model.name].modalities if model.name in found else frozenset()
                found[model.name] = Offer(model.name, model.width, before | frozenset(model.modalities))
        return found

    def _fresh(self) -> list[_Known]:
        since_s = time.monotonic() - STALE_S
        self._known = {name: known for name, known in self._known.items() if known.heard_s > since_s}
        return list(self._known.values())

    def offer(self, model: str) -> Offer:
        """Raises ModelNotFound, Unavailable (nobody is there at all)."""
        offers = self.offers()
        if model not in offers:
            if not offers:
                raise Unavailable("no encoder has been heard", retry_after_s=1.0)
            known = ", ".join(map(repr, offers))
            raise ModelNotFound(f"no embeddings of {model[:128]!r} here; there is {known}", field="model")
        return offers[model]

    async def embed(
        self, model: str, inputs: Sequence[pb.EmbedInput], tokens: int, traceparent: str
    ) -> pb.EmbedResponse:
        """Raises HeadraceError."""
        request = pb.EmbedRequest(model=model, inputs=inputs, traceparent=traceparent)
        modalities = {_modality(one) for one in inputs}

        async def once() -> pb.EmbedResponse:
            return await self._ask(self._choose(model, modalities), request, tokens)

        try:
            return await rpc.retried(once)
        except grpc.aio.AioRpcError as error:
            known = rpc.from_rpc_error(error)
            if isinstance(known, Unavailable):
                raise Unavailable(f"the encoders were lost: {known.message}", retry_after_s=1.0) from error
            raise known from error

    def _choose(self, model: str, modalities: set[str]) -> _Known:
        """Raises Unavailable."""
        now_s = time.monotonic()
        able = [known for known in self._fresh() if _embeds(known.word, model, modalities)]
        if not able:
            raise Unavailable(f"no encoder for {model!r} right now", field="model", retry_after_s=1.0)
        well = [known for known in able if self._avoid_until_s.get(known.word.worker, 0.0) < now_s]
        return min(well or able, key=lambda known: known.word.waiting_tokens + known.sent_tokens)

    async def _ask(self, known: _Known, request: pb.EmbedRequest, tokens: int) -> pb.EmbedResponse:
        stub = EncoderServiceStub(self._channels.get(known.word.grpc_address))  # type: ignore[no-untyped-call]
        known.sent_tokens += tokens
        try:
            response: pb.EmbedResponse = await stub.Embed(request, timeout=EMBED_S_MAX)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._avoid_until_s[known.word.worker] = time.monotonic() + AVOID_S
            raise
        finally:
            known.sent_tokens -= tokens
        return response


def _embeds(word: pb.Embedder, model: str, modalities: set[str]) -> bool:
    return any(one.name == model and modalities <= set(one.modalities) for one in word.models)


def _modality(one: pb.EmbedInput) -> str:
    return "text" if one.WhichOneof("kind") == "tokens" else one.media.media.modality
