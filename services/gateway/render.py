"""What clients read over HTTP: SSE events and JSON bodies. The token event is encoded once and then filled in.

One event per token; the terminal chunk with its finish_reason comes exactly once, on every path.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from headrace.core.errors import (
    STATUS,
    Cancelled,
    DeadlineExceeded,
    HeadraceError,
    Overloaded,
    RateLimited,
    StageError,
    from_failure,
)
from headrace.core.types import End, StageSpan, Usage
from services.gateway import bodies
from services.gateway.calls import Said

_encode = msgspec.json.Encoder().encode
_MARK = "\x01"
_MARK_JSON = b'"\\u0001"'
DONE = b"data: [DONE]\n\n"
FINISHED = ("stop", "length")
DROPPED_HEADERS = ("x-headrace-request-dropped-reason", "x-llm-d-request-dropped-reason")


@dataclass(frozen=True, slots=True)
class Extras:
    """The headrace object of the last chunk, for those who asked for it."""

    request_id: str
    trace_id: str
    timeline: Sequence[StageSpan]


@dataclass(frozen=True, slots=True)
class Rest:
    """What waited for tokens that never came."""

    text: str = ""
    logprobs: Sequence[bodies.TokenLogprob] = ()


def event(body: object) -> bytes:
    return b"data: " + _encode(body) + b"\n\n"


class Chunks:
    """The SSE events of one choice of a response."""

    __slots__ = ("_created", "_head", "_id", "_index", "_model", "_role_head", "_tail", "_usage")

    def __init__(self, request_id: str, model: str, created: int, include_usage: bool, index: int = 0) -> None:
        self._id, self._index = f"chatcmpl-{request_id}", index
        self._model, self._created = model, created
        self._usage: msgspec.UnsetType | None = None if include_usage else msgspec.UNSET
        first = self._event(bodies.Delta(role="assistant", content=_MARK), None)
        self._role_head, _, self._tail = first.partition(_MARK_JSON)
        self._head = self._role_head.replace(b'"role":"assistant",', b"", 1)

    def token(self, text: str, first: bool = False) -> bytes:
        return (self._role_head if first else self._head) + _encode(text) + self._tail

    def told_token(self, text: str, logprobs: list[bodies.TokenLogprob], first: bool = False) -> bytes:
        role: Literal["assistant"] | msgspec.UnsetType = "assistant" if first else msgspec.UNSET
        return self._event(bodies.Delta(role, text), None, logprobs=bodies.ChoiceLogprobs(logprobs))

    def said(self, said: Said, logprobs: Sequence[bodies.TokenLogprob], first: bool) -> bytes:
        """Text and pieces of calls."""
        role: Literal["assistant"] | msgspec.UnsetType = "assistant" if first else msgspec.UNSET
        delta = bodies.Delta(role, said.content or msgspec.UNSET, said.calls or msgspec.UNSET)
        return self._event(delta, None, logprobs=bodies.ChoiceLogprobs(list(logprobs)) if logprobs else None)

    def terminal(self, reason: str, rest: Rest, extras: Extras | None = None) -> bytes:
        logprobs = bodies.ChoiceLogprobs(list(rest.logprobs)) if rest.logprobs else None
        return self._event(bodies.Delta(content=rest.text or msgspec.UNSET), reason, extras, logprobs)

    def usage(self, usage: Usage) -> bytes:
        return event(self._chunk([], usage_body(usage)))

    def _event(
        self,
        delta: bodies.Delta,
        reason: str | None,
        extras: Extras | None = None,
        logprobs: bodies.ChoiceLogprobs | None = None,
    ) -> bytes:
        choices = [bodies.ChunkChoice(delta=delta, finish_reason=reason, index=self._index, logprobs=logprobs)]
        return event(self._chunk(choices, self._usage, headrace_body(extras)))

    def _chunk(
        self,
        choices: list[bodies.ChunkChoice],
        usage: bodies.Usage | msgspec.UnsetType | None,
        headrace: bodies.Headrace | msgspec.UnsetType = msgspec.UNSET,
    ) -> bodies.ChatChunk:
        return bodies.ChatChunk(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage,
            headrace=headrace,
        )


def completion(
    request_id: str, model: str, created: int, choices: list[bodies.Choice], usage: Usage, extras: Extras | None
) -> bytes:
    return _encode(
        bodies.ChatCompletion(
            id=f"chatcmpl-{request_id}",
            object="chat.completion",
            created=created,
            model=model,
            choices=choices,
            usage=usage_body(usage),
            headrace=headrace_body(extras),
        )
    )


def usage_body(usage: Usage) -> bodies.Usage:
    text_tokens = max(0, usage.prompt_tokens - usage.image_tokens - usage.audio_tokens - usage.video_tokens)
    return bodies.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=bodies.PromptTokensDetails(
            usage.image_tokens, usage.cached_tokens, text_tokens, usage.audio_tokens, usage.video_tokens
        ),
        joules=usage.joules or msgspec.UNSET,
    )


def headrace_body(extras: Extras | None) -> bodies.Headrace | msgspec.UnsetType:
    if extras is None:
        return msgspec.UNSET
    stages = [bodies.Stage(s.stage, s.start_s, s.end_s, s.worker, s.part, s.cached) for s in extras.timeline]
    return bodies.Headrace(extras.request_id, extras.trace_id, stages)


def end_error(end: End) -> HeadraceError | None:
    """The typed error of an end that is not an answer."""
    if end.reason in FINISHED:
        return None
    if end.failure is not None:
        return from_failure(end.failure)
    if end.reason == "deadline":
        return DeadlineExceeded("the request's deadline passed")
    return Cancelled("the request was cancelled") if end.reason == "cancelled" else StageError("the request failed")


def http_status(error: HeadraceError) -> int:
    return STATUS.get(error.code, STATUS["internal"])[1]


def error_body(error: HeadraceError) -> bodies.ErrorReply:
    kind = STATUS.get(error.code, STATUS["internal"])[2]
    return bodies.ErrorReply(bodies.ErrorBody(error.message, kind, error.field or None, error.code))


def error_json(error: HeadraceError) -> bytes:
    return _encode(error_body(error))


def error_headers(error: HeadraceError) -> list[tuple[bytes, bytes]]:
    """Retry-After in whole seconds for everybody, in milliseconds for the OpenAI SDK, neither too early."""
    headers = [(b"content-type", b"application/json")]
    if error.retry_after_s > 0:
        told_ms = math.ceil(error.retry_after_s * 1000)
        headers.append((b"retry-after", b"%d" % math.ceil(told_ms / 1000)))
        headers.append((b"retry-after-ms", b"%d" % told_ms))
    elif http_status(error) >= 500 or error.code in ("idempotency_conflict", "cancelled"):
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, Overloaded):
        headers += [(name.encode(), error.dropped.encode()) for name in DROPPED_HEADERS]
        if not error.come_back:
            headers.append((b"x-should-retry", b"false"))
    if isinstance(error, RateLimited):
        headers += [(name.encode(), value.encode()) for name, value in error.headers]
    if error.code == "payload_too_large":
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    return headers
