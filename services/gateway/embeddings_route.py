"""POST /v1/embeddings as OpenAI has it, and pictures and sounds beside texts; a raw ASGI app, as the chat's."""

import asyncio
import binascii
import secrets
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from headrace.core.errors import HeadraceError, InvalidInput, PayloadTooLarge
from headrace.mesh import genai
from headrace.predictor import sentences
from services.gateway import asking, bodies, chat
from services.gateway.ask import MediaSource
from services.gateway.chat_route import caller_of
from services.gateway.embedding import Embedded, Embedding, Input
from services.gateway.front import Front
from services.gateway.http_reply import JSON_HEADERS, Receive, Send, discard, read_body, send_all, send_error

PATH = "/v1/embeddings"
ENCODE_INLINE_NUMBERS = 20_000  # as JSON in about a millisecond; more would hold up the other streams
_encode = msgspec.json.Encoder().encode

MediaPart = bodies.ImageUrlPart | bodies.InputAudioPart | bodies.AudioUrlPart | bodies.VideoUrlPart


class EmbeddingsRequest(bodies.Request):
    """POST /v1/embeddings."""

    input: Annotated[
        str | list[str | int | list[int] | MediaPart],
        Meta(description="A text, texts, tokens of the text encoder, or media parts as in a chat"),
    ]
    model: Annotated[str, Meta(description="minilm for texts, a model with towers for media")] = sentences.NAME
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int | None, Meta(description="The model's own width; no other")] = None
    user: str | None = None


class EmbeddingObject(msgspec.Struct):
    index: int
    embedding: Annotated[list[float] | str, Meta(description="base64: float32, little endian")]
    object: Literal["embedding"] = "embedding"


class EmbeddingsUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int
    joules: Annotated[float | msgspec.UnsetType, Meta(description="Absent where nothing can be read")] = msgspec.UNSET


class EmbeddingsList(msgspec.Struct):
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingsUsage
    object: Literal["list"] = "list"


_DECODER = msgspec.json.Decoder(EmbeddingsRequest)


class EmbeddingsRoute:
    def __init__(self, front: Front, embedding: Embedding) -> None:
        self._front = front
        self._embedding = embedding

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            caller = caller_of(self._front, headers)
            asked = _decode(await read_body(receive, headers))
            self._front.admission.check_beside(caller)
            width = self._embedding.embedders.offer(asked.model).width
            if asked.dimensions not in (None, width):
                raise InvalidInput(f"{asked.model} has {width} dimensions", field="dimensions")
            with self._front.tracer.request(caller, asked.model, genai.OPERATION_EMBEDDINGS) as trace:
                found = await self._embedding.embed(asked.model, inputs_of(asked), caller, trace.traceparent)
                trace.input_tokens = found.tokens
            body = await _body(found, asked.encoding_format == "base64")
            told = [(b"x-request-id", secrets.token_hex(16).encode())]
            if found.taken is not None:
                told += found.taken.headers
            await send_all(send, 200, [*JSON_HEADERS, *told], body)
        except HeadraceError as error:
            self._front.gateway.metrics.refused[error.code] += 1
            if isinstance(error, PayloadTooLarge) and error.field == "body":
                await discard(receive, headers)
            await send_error(send, error, [])


def inputs_of(asked: EmbeddingsRequest) -> list[Input]:
    """A list of numbers is one input, as with OpenAI. Raises InvalidInput."""
    given = asked.input
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(one, int) for one in given):
        return [tuple(one for one in given if isinstance(one, int))]
    return [_input(one, f"input[{i}]") for i, one in enumerate(given)]


def _input(one: Any, where: str) -> Input:
    if isinstance(one, str):
        return one
    if isinstance(one, list):
        return tuple(one)
    if isinstance(one, int):
        raise InvalidInput("a number among other inputs; tokens are lists of numbers", field=where)
    found: list[MediaSource] = []
    chat.part_of(one, where, found)
    return found[0]


def _decode(body: bytes) -> EmbeddingsRequest:
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise asking.located(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error


async def _body(found: Embedded, base64: bool) -> bytes:
    if base64 or found.vectors.size <= ENCODE_INLINE_NUMBERS:
        return _encoded(found, base64)
    return await asyncio.to_thread(_encoded, found, base64)


def _encoded(found: Embedded, base64: bool) -> bytes:
    vectors = found.vectors
    shown: list[Any] = [_base64(vector) for vector in vectors] if base64 else vectors.tolist()
    usage = EmbeddingsUsage(found.tokens, found.tokens, found.joules or msgspec.UNSET)
    return _encode(EmbeddingsList([EmbeddingObject(i, one) for i, one in enumerate(shown)], found.model, usage))


def _base64(vector: "np.ndarray[Any, np.dtype[np.float32]]") -> str:
    return binascii.b2a_base64(vector.astype("<f4").tobytes(), newline=False).decode()
