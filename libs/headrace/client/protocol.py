"""The protocol of one answer, without any I/O: what to call, what an event means, whether a failure is survived.

Sync and async clients are thin shells around this. A broken connection is survived by attaching again with the
request id at the next gateway, from the next token on: no gap, no duplicate.
"""

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc

from headrace.client import errors
from headrace.client.types import (
    Audio,
    Delta,
    End,
    Image,
    LikelyToken,
    Media,
    Message,
    Model,
    Stage,
    TokenLogprobs,
    Usage,
    Video,
)
from headrace.v1 import common_pb2, gateway_pb2

MESSAGE_BYTES_MAX = 64 * 1024 * 1024  # as the gateway's
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 30_000),  # a peer that vanished without a word is noticed
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]
TRIES_MAX = 8  # in a row without a single event: 0.1 + 0.2 + ... about 10 s, longer than a gateway takes to restart
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.1, 2.0
DEADLINE_SLACK_S = 5.0  # the mesh ends a request at its deadline and says so; only a mesh that is gone needs this

MediaLike = Media | bytes | str | Path  # bytes, or the path of a file
Conversation = str | Sequence[Message]


Metadata = tuple[tuple[str, str], ...]


class Streaming(Protocol):
    """A streaming method of the stub, of a sync or an async channel."""

    def __call__(self, request: Any, *, timeout: float | None, metadata: Metadata) -> Any: ...


class Gateway(Protocol):
    """The part of the stub that an answer calls."""

    Generate: Streaming
    Attach: Streaming


@dataclass(frozen=True, slots=True)
class Options:
    """How to generate. Zeros and empty strings leave the choice to the gateway."""

    model: str = ""
    max_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 0.0
    top_k: int = 0
    seed: int | None = None
    stop: Sequence[str] = ()
    repetition_penalty: float = 0.0
    ignore_eos: bool = False
    logprobs: int | None = None  # 0: of the tokens; n: of the n likeliest beside each, too
    # What the answer must be, at most one of them: JSON of this schema, any JSON object, a text that the whole
    # expression matches, one of these texts.
    json_schema: Mapping[str, Any] | None = None
    json_object: bool = False
    regex: str = ""
    choice: Sequence[str] = ()
    slo_class: str = ""
    ttft_target_s: float = 0.0  # wanted until the first token; 0: the class's
    tbt_target_s: float = 0.0  # wanted between two tokens; 0: the class's
    priority: int = 0  # -3 .. 3, higher is sooner; what is beyond is clamped
    flow: str = ""  # whose share the request counts against, among this tenant's
    timeout_s: float = 0.0
    idempotency_key: str = ""
    keep_on_disconnect: bool = False


def media_of(
    images: Sequence[MediaLike] = (), audio: Sequence[MediaLike] = (), videos: Sequence[MediaLike] = ()
) -> list[Media]:
    """What a client was given by name, in this order."""
    return [_as(kind, one) for kind, given in ((Image, images), (Audio, audio), (Video, videos)) for one in given]


def build(conversation: Conversation, media: Sequence[Media], options: Options) -> gateway_pb2.GenerateRequest:
    """A request with a key of its own, so that trying again is the same request."""
    messages = [Message("user", conversation)] if isinstance(conversation, str) else list(conversation)
    if media:
        if not messages:
            raise errors.InvalidInput("media need a message to belong to", field="messages")
        last = messages[-1]
        texts = [last.content] if isinstance(last.content, str) else list(last.content)
        messages[-1] = Message(last.role, [*media, *texts])
    seed = options.seed if options.seed is not None else random.getrandbits(62) + 1 if options.temperature else 0
    sampling = common_pb2.Sampling(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=seed,
        repetition_penalty=options.repetition_penalty,
        max_tokens=options.max_tokens,
        stop=options.stop,
        ignore_eos=options.ignore_eos,
        logprobs=options.logprobs,
        grammar=_grammar(options),
    )
    return gateway_pb2.GenerateRequest(
        model=options.model,
        messages=[_message(message) for message in messages],
        sampling=sampling,
        slo_class=options.slo_class,
        ttft_target_s=options.ttft_target_s,
        tbt_target_s=options.tbt_target_s,
        priority=options.priority,
        flow=options.flow,
        timeout_s=options.timeout_s,
        idempotency_key=options.idempotency_key or uuid.uuid4().hex,
        keep_on_disconnect=options.keep_on_disconnect,
    )


def _grammar(options: Options) -> bytes:
    said: dict[str, Any] = {
        "json_schema": options.json_schema,
        "json_object": options.json_object or None,
        "regex": options.regex or None,
        "choice": list(options.choice) or None,
    }
    asked = {kind: value for kind, value in said.items() if value is not None}
    if len(asked) > 1:
        raise errors.InvalidInput(f"{' and '.join(asked)} exclude one another", field="sampling.grammar")
    return json.dumps(asked).encode() if asked else b""


def _as(kind: type[Image | Audio | Video], given: MediaLike) -> Media:
    if isinstance(given, Image | Audio | Video):
        return given
    return kind(given) if isinstance(given, bytes) else kind.read(given)


def _message(message: Message) -> gateway_pb2.Message:
    content = [message.content] if isinstance(message.content, str) else message.content
    return gateway_pb2.Message(role=message.role, content=[_part(part) for part in content])


_MODALITIES = {Image: "image", Audio: "audio", Video: "video"}


def _part(part: str | Media) -> gateway_pb2.ContentPart:
    if isinstance(part, str):
        return gateway_pb2.ContentPart(text=part)
    return gateway_pb2.ContentPart(media=gateway_pb2.MediaInput(modality=_MODALITIES[type(part)], data=part.data))


@dataclass(frozen=True, slots=True)
class Access:
    """Which gateways, and who asks. trace samples every request of this client."""

    addresses: tuple[str, ...]
    api_key: str = ""
    trace: bool = False
    traceparent: str = ""

    @staticmethod
    def of(addresses: str | Sequence[str], api_key: str, trace: bool, traceparent: str) -> "Access":
        several = tuple(addresses.split(",")) if isinstance(addresses, str) else tuple(addresses)
        if not several or not all(several):
            raise errors.InvalidInput("at least one gateway address is needed, host:port", field="addresses")
        return Access(several, api_key, trace, traceparent)

    @property
    def metadata(self) -> Metadata:
        pairs = (
            ("authorization", f"Bearer {self.api_key}" if self.api_key else ""),
            ("x-headrace-trace", "1" if self.trace else ""),
            ("traceparent", self.traceparent),
        )
        return tuple(pair for pair in pairs if pair[1])


def models_of(reply: gateway_pb2.ListModelsResponse) -> list[Model]:
    return [Model(m.id, m.context_tokens, tuple(m.modalities), m.servable) for m in reply.models]


class Answer:
    """The state of one answer: take() every event, ask broken() what to do about a failure, call() what to call."""

    def __init__(self, request: gateway_pb2.GenerateRequest | None, request_id: str = "", next_index: int = 0) -> None:
        self._request = request
        self._failures = 0
        self.next_index = next_index
        self.request_id = request_id
        self.trace_id = ""
        self.model = ""
        self.prompt_tokens = 0
        self.image_tokens = 0
        self.end: End | None = None
        self.cancelled = False  # by this client
        self.error: errors.HeadraceError | None = None

    def call(self, gateway: Gateway, metadata: Metadata) -> Any:
        """Starts the first call, or the one that goes on where the last one broke."""
        if self.request_id:
            again = gateway_pb2.AttachStreamRequest(request_id=self.request_id, next_index=self.next_index)
            return gateway.Attach(again, timeout=None, metadata=metadata)
        assert self._request is not None
        timeout_s = self._request.timeout_s
        return gateway.Generate(
            self._request, timeout=timeout_s + DEADLINE_SLACK_S if timeout_s else None, metadata=metadata
        )

    def take(self, event: gateway_pb2.GenerateEvent) -> Delta | None:
        """The new part of an event; None if it holds no tokens and no text."""
        self._failures = 0
        kind = event.WhichOneof("kind")
        if kind == "started":
            self._take_started(event.started)
        elif kind == "end":
            self._take_end(event.end)
        elif kind == "delta":
            return self._take_delta(event.delta)
        return None

    def _take_started(self, started: gateway_pb2.Started) -> None:
        self.request_id = started.request_id
        self.trace_id = started.trace_id or self.trace_id
        self.model = started.model
        self.prompt_tokens = started.prompt_tokens
        self.image_tokens = started.image_tokens

    def _take_delta(self, delta: gateway_pb2.Delta) -> Delta:
        assert delta.index == self.next_index, "the gateway starts where it was asked to"
        self.next_index += len(delta.tokens)
        logprobs = tuple([_logprobs(delta, told) for told in delta.logprobs]) if delta.logprobs else ()
        return Delta(delta.index, tuple(delta.tokens), delta.text, logprobs)

    def _take_end(self, end: common_pb2.End) -> None:
        u = end.usage
        usage = Usage(
            u.prompt_tokens,
            u.completion_tokens,
            u.image_tokens,
            u.cached_tokens,
            u.joules,
            u.audio_tokens,
            u.video_tokens,
        )
        timeline = tuple(Stage(s.stage, s.start_s, s.end_s, s.worker, s.part, s.cached) for s in end.timeline)
        reason = common_pb2.FinishReason.Name(end.reason).removeprefix("FINISH_REASON_").lower()
        self.end = End(reason, usage, timeline)
        if reason == "deadline":
            self.error = errors.DeadlineExceeded("the request's deadline passed")
        elif reason == "cancelled" and not self.cancelled:
            self.error = errors.Cancelled("the request was cancelled")
        elif end.HasField("failure"):
            self.error = errors.of_failure(end.failure)

    @property
    def over(self) -> bool:
        """A failure of the call tells nothing new: the end has come, or this client gave up before the start."""
        return self.end is not None or (self.cancelled and not self.request_id)

    @property
    def usage(self) -> Usage:
        return self.end.usage if self.end is not None else Usage()

    @property
    def timeline(self) -> tuple[Stage, ...]:
        return self.end.timeline if self.end is not None else ()

    def broken(self, error: grpc.RpcError) -> float:
        """Seconds to wait before call() is tried at the next gateway.

        Raises:
            HeadraceError: it is no use, it has been tried often enough, or the wait alone takes the request's time.
        """
        typed = errors.of_rpc(error)
        self._failures += 1
        survivable = isinstance(typed, errors.Unavailable | errors.Overloaded)
        timeout_s = self._request.timeout_s if self._request is not None else 0.0
        in_vain = 0.0 < timeout_s <= typed.retry_after_s
        if self.cancelled or not survivable or in_vain or self._failures > TRIES_MAX:
            raise typed from error
        wait_s: float = min(BACKOFF_S_MIN * 2.0 ** (self._failures - 1), BACKOFF_S_MAX) * random.uniform(0.5, 1.0)
        return max(wait_s, typed.retry_after_s)


def _logprobs(delta: gateway_pb2.Delta, told: common_pb2.TokenLogprobs) -> TokenLogprobs:
    drawn = LikelyToken(delta.tokens[told.row - delta.index], told.text, told.logprob)
    top = tuple(map(LikelyToken, told.top, told.top_text, told.top_logprob))
    return TokenLogprobs(told.row, drawn, top)


class Told:
    """What an answer's stream says of itself at any time, awaited or not."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    @property
    def request_id(self) -> str:
        """Empty until the gateway has accepted the request."""
        return self._answer.request_id

    @property
    def trace_id(self) -> str:
        """Empty unless the request is sampled."""
        return self._answer.trace_id

    @property
    def end(self) -> End | None:
        """None while it runs."""
        return self._answer.end

    @property
    def usage(self) -> Usage:
        return self._answer.usage

    @property
    def timeline(self) -> tuple[Stage, ...]:
        return self._answer.timeline
