"""From texts, tokens and media parts to vectors: checked, counted, cut into pieces that encoders take, put together.

HTTP and the Open Inference Protocol share it, and the caller's key is charged for both. Every refusal names the input.
"""

import asyncio
import hashlib
import math
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.core.errors import ContextTooLong, InvalidInput, UnsupportedModality
from headrace.core.types import Media
from headrace.engines.families import Family
from headrace.predictor import sentences
from headrace.v1 import encoder_pb2 as pb
from headrace.wire import convert
from services.gateway.ask import Caller, MediaSource
from services.gateway.embedders import EMBED_S_MAX, Embedders
from services.gateway.limits import Limiter, Taken
from services.gateway.media import Fetcher, check_media, read_media

INPUTS_MAX = 2_048  # OpenAI's
TOKENS_MAX = 300_000  # of one request, OpenAI's too
TEXT_CHARS_MAX = 16_384  # no text of 512 tokens is longer, but for words of hundreds of letters
READ_INLINE_CHARS = 8_192  # tokenising more would hold up the other streams: a thread does it
PIECE_TOKENS, PIECE_INPUTS = 2_048, 64
PIECES_AT_ONCE = 4  # of one request, so that it cannot fill every encoder

Input = str | tuple[int, ...] | MediaSource
Vectors = NDArray[np.float32]  # [inputs, width]


@dataclass(frozen=True, slots=True)
class Embedded:
    model: str
    vectors: Vectors
    tokens: int
    joules: float
    taken: Taken | None = None  # what its key was charged


@dataclass(slots=True)
class _Work:
    """What has been computed of a request."""

    vectors: Vectors
    tokens: int = 0
    joules: float = 0.0


class Embedding(Collector):
    def __init__(self, embedders: Embedders, families: Sequence[Family], fetcher: Fetcher, limiter: Limiter) -> None:
        self.embedders = embedders
        self._limiter = limiter
        self._families = {family.spec.name: family for family in families}
        self._fetcher = fetcher
        self._tokens: Counter[str] = Counter()
        self._inputs: Counter[str] = Counter()

    async def embed(self, model: str, inputs: Sequence[Input], caller: Caller, traceparent: str = "") -> Embedded:
        """model empty: the text encoder. Raises HeadraceError, naming input[i]."""
        self._limiter.check(caller.key)
        model = model or sentences.NAME
        offer = self.embedders.offer(model)
        if not 1 <= len(inputs) <= INPUTS_MAX:
            raise InvalidInput(f"{len(inputs)} inputs; there must be 1 to {INPUTS_MAX}", field="input")
        if model == sentences.NAME:
            parts = await self._texts(inputs)
        else:
            parts = await self._media(model, inputs)
        counts = [_tokens_of(one) for one in parts]
        if sum(counts) > TOKENS_MAX:
            raise InvalidInput(f"{sum(counts)} tokens; at most {TOKENS_MAX} a request", field="input")
        pieces = list(_pieces(counts))
        runs_s = EMBED_S_MAX * math.ceil(len(pieces) / PIECES_AT_ONCE)
        taken = await self._limiter.take(caller.key, secrets.token_hex(16), sum(counts), runs_s, field="input")
        work = _Work(np.empty((len(parts), offer.width), np.float32))
        try:
            await self._compute(model, parts, counts, pieces, work, traceparent)
        finally:
            if taken is not None:
                self._limiter.settle(taken, work.tokens)
        self._tokens[model] += sum(counts)
        self._inputs[model] += len(parts)
        return Embedded(model, work.vectors, work.tokens, work.joules, taken)

    # --- inputs ---

    async def _texts(self, inputs: Sequence[Input]) -> list[pb.EmbedInput]:
        for i, one in enumerate(inputs):
            _check_text(one, f"input[{i}]")
        texts = [one for one in inputs if isinstance(one, str)]
        if sum(map(len, texts)) > READ_INLINE_CHARS:
            read = iter(await asyncio.to_thread(sentences.read, texts))
        else:
            read = iter(sentences.read(texts))
        parts = []
        for i, one in enumerate(inputs):
            ids = next(read) if isinstance(one, str) else sentences.marked(one if isinstance(one, tuple) else ())
            if len(ids) > sentences.CONTEXT_TOKENS:
                message = f"{len(ids)} tokens; {sentences.NAME} takes {sentences.CONTEXT_TOKENS}"
                raise ContextTooLong(message, field=f"input[{i}]")
            parts.append(pb.EmbedInput(index=i, tokens=pb.EmbedTokens(ids=ids)))
        return parts

    async def _media(self, model: str, inputs: Sequence[Input]) -> list[pb.EmbedInput]:
        family = self._families.get(model)
        assert family is not None, "offered by an encoder of this mesh"
        sources = []
        for i, one in enumerate(inputs):
            if not isinstance(one, MediaSource):
                message = f"{model} embeds media alone; texts go to {sentences.NAME}"
                raise UnsupportedModality(message, field=f"input[{i}]")
            sources.append(one)
        check_media(sources, family.spec)
        parts = []
        for i, part in enumerate(await read_media(sources, self._fetcher, family)):
            media = Media(part.meta, hashlib.sha256(part.data).hexdigest(), part.tokens)
            parts.append(
                pb.EmbedInput(index=i, media=pb.EmbedMedia(media=convert.media_to_proto(media), data=part.data))
            )
        return parts

    # --- pieces ---

    async def _compute(
        self,
        model: str,
        parts: Sequence[pb.EmbedInput],
        counts: Sequence[int],
        pieces: Sequence[Sequence[int]],
        work: _Work,
        traceparent: str,
    ) -> None:
        room = asyncio.Semaphore(PIECES_AT_ONCE)

        async def one(places: Sequence[int]) -> None:
            async with room:
                inputs, tokens = [parts[i] for i in places], sum(counts[i] for i in places)
                response = await self.embedders.embed(model, inputs, tokens, traceparent)
            work.tokens += tokens
            work.joules += response.joules
            for place, vector in zip(places, response.vectors, strict=True):
                work.vectors[place] = np.frombuffer(vector.values, "<f4")

        tasks = [asyncio.ensure_future(one(places)) for places in pieces]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    # --- figures ---

    def collect(self) -> Iterator[Metric]:
        for name, text, counts in (
            ("headrace_embedding_tokens", "Tokens of embedded inputs", self._tokens),
            ("headrace_embedded_inputs", "Inputs embedded", self._inputs),
        ):
            family = CounterMetricFamily(name, text, labels=["model_name"])
            for model, count in counts.items():
                family.add_metric([model], count)
            yield family


def _check_text(one: Input, where: str) -> None:
    if isinstance(one, MediaSource):
        raise UnsupportedModality(f"{sentences.NAME} embeds texts alone; name a model with towers", field=where)
    if not one:
        raise InvalidInput("the input is empty", field=where)
    if isinstance(one, str) and len(one) > TEXT_CHARS_MAX:
        raise ContextTooLong(f"{len(one)} characters; at most {TEXT_CHARS_MAX}", field=where)
    if isinstance(one, tuple) and not all(0 <= token < sentences.vocabulary() for token in one):
        raise InvalidInput(f"a token of {sentences.NAME} is from 0 to {sentences.vocabulary() - 1}", field=where)


def _tokens_of(one: pb.EmbedInput) -> int:
    return len(one.tokens.ids) if one.WhichOneof("kind") == "tokens" else one.media.media.tokens


def _pieces(counts: Sequence[int]) -> Iterator[list[int]]:
    piece: list[int] = []
    tokens = 0
    for place, count in enumerate(counts):
        if piece and (tokens + count > PIECE_TOKENS or len(piece) == PIECE_INPUTS):
            yield piece
            piece, tokens = [], 0
        piece.append(place)
        tokens += count
    yield piece
