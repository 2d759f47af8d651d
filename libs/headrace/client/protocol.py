"""The protocol of one answer, without any I/O: what to call, what an event means, whether a failure is survived.

Sync and async clients are thin shells around this. A broken connection is survived by attaching again with the
request id at the next gateway, from the next token on: no gap, no duplicate.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import grpc

from headrace.client import errors
from headrace.client.types import (
    Delta,
    End,
    LikelyToken,
    Model,
    Stage,
    TokenLogprobs,
    ToolCall,
    ToolCallDelta,
    Usage,
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
RETRY_COUNT = "x-headrace-retry-count"
TRIES_MAX = 8  # in a row without a single event: 0.1 + 0.2 + ... about 10 s, longer than a gateway takes to restart
RETRIES = 2  # refusals of one answer that are waited out, as OpenAI's clients do: more would multiply an overload
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.1, 2.0
DEADLINE_SLACK_S = 5.0  # the mesh ends a request at its deadline and says so; only a mesh that is gone needs this

Metadata = tuple[tuple[str, str], ...]


class Streaming(Protocol):
    """A streaming method of the stub, of a sync or an async channel."""

    def __call__(self, request: Any, *, timeout: float | None, metadata: Metadata) -> Any: ...


class Gateway(Protocol):
    """The part of the stub that an answer calls."""

    Generate: Streaming
    Attach: Streaming


@dataclass(frozen=True, slots=True)
class Access:
    """Which gateways, and who asks. trace samples every request of this client. max_retries: refusals of one answer
    that are waited out."""

    addresses: tuple[str, ...]
    api_key: str = ""
    trace: bool = False
    traceparent: str = ""
    max_retries: int = RETRIES

    @staticmethod
    def of(
        addresses: str | Sequence[str], api_key: str, trace: bool, traceparent: str, max_retries: int = RETRIES
    ) -> "Access":
        several = tuple(addresses.split(",")) if isinstance(addresses, str) else tuple(addresses)
        if not several or not all(several):
            raise errors.InvalidInput("at least one gateway address is needed, host:port", field="addresses")
        if max_retries < 0:
            raise errors.InvalidInput(f"max_retries is {max_retries}; it is 0 or more", field="max_retries")
        return Access(several, api_key, trace, traceparent, max_retries)

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


class _Choice:
    """What has come of one of several answers."""

    def __init__(self, next_index: int = 0) -> None:
        self.next_index = next_index
        self.request_id = ""
        self.end: End | None = None
        self.calls: dict[int, ToolCall] = {}

    def take(self, delta: gateway_pb2.Delta, choice: int) -> Delta:
        assert delta.index == self.next_index, "the gateway starts where it was asked to"
        self.next_index += len(delta.tokens)
        logprobs = tuple([_logprobs(delta, told) for told in delta.logprobs]) if delta.logprobs else ()
        pieces = tuple([ToolCallDelta(one.index, one.arguments, one.id, one.name) for one in delta.tool_calls])
        for piece in pieces:
            self._add(piece)
        return Delta(delta.index, tuple(delta.tokens), delta.text, logprobs, pieces, choice)

    def _add(self, piece: ToolCallDelta) -> None:
        call = self.calls.get(piece.index)
        if call is not None:
            self.calls[piece.index] = replace(call, arguments=call.arguments + piece.arguments)
        elif piece.id:  # who attached in the middle of a call does not learn whose the rest is
            self.calls[piece.index] = ToolCall(piece.id, piece.name, piece.arguments)


class Answer:
    """The state of a response: take() every event, ask broken() what to do about a failure, call() what to call."""

    def __init__(
        self,
        request: gateway_pb2.GenerateRequest | None,
        request_id: str = "",
        next_index: int = 0,
        max_retries: int = RETRIES,
    ) -> None:
        self._request = request
        self._max_retries = max_retries
        self._failures = self._refusals = 0
        self.choices = [_Choice(next_index)]
        if request is not None:
            self.choices += [_Choice() for _ in range(1, request.n)]
        self.request_id = request_id  # of the first answer
        self.trace_id = ""
        self.model = ""
        self.prompt_tokens = 0
        self.image_tokens = 0
        self.cancelled = False  # by this client
        self.error: errors.HeadraceError | None = None

    def call(self, gateway: Gateway, metadata: Metadata) -> Any:
        """Starts the first call, or the one that goes on where the last one broke."""
        if self.request_id:
            first, *others = [choice.next_index for choice in self.choices]
            again = gateway_pb2.AttachStreamRequest(
                request_id=self.request_id,
                next_index=first,
                tool_calls=self._request is None or bool(self._request.tools),
                other_next_index=others,
            )
            return gateway.Attach(again, timeout=None, metadata=metadata)
        assert self._request is not None
        timeout_s = self._request.timeout_s
        if self._refusals:
            metadata = (*metadata, (RETRY_COUNT, str(self._refusals)))
        return gateway.Generate(
            self._request, timeout=timeout_s + DEADLINE_SLACK_S if timeout_s else None, metadata=metadata
        )

    def take(self, event: gateway_pb2.GenerateEvent) -> Delta | None:
        """The new part of an event; None if it holds no tokens, text or calls."""
        self._failures = 0
        kind = event.WhichOneof("kind")
        choice = self.choices[event.choice]
        if choice.end is not None:
            return None  # attached again for the others: it is told once more
        if kind == "started":
            choice.request_id = event.started.request_id
            if not event.choice:
                self._take_started(event.started)
        elif kind == "end":
            choice.end = self._take_end(event.end)
        elif kind == "delta":
            return choice.take(event.delta, event.choice)
        return None

    def _take_started(self, started: gateway_pb2.Started) -> None:
        self.request_id = started.request_id
        self.trace_id = started.trace_id or self.trace_id
        self.model = started.model
        self.prompt_tokens = started.prompt_tokens
        self.image_tokens = started.image_tokens

    def _take_end(self, end: common_pb2.End) -> End:
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
        self.error = self.error or self._error_of(reason, end)
        return End(reason, usage, timeline)

    def _error_of(self, reason: str, end: common_pb2.End) -> errors.HeadraceError | None:
        if reason == "cancelled":
            return None if self.cancelled else errors.Cancelled("the request was cancelled")
        if reason == "deadline":
            return errors.DeadlineExceeded("the request's deadline passed")
        return errors.of_failure(end.failure) if end.HasField("failure") else None

    @property
    def ended(self) -> bool:
        """All answers have."""
        return all(choice.end is not None for choice in self.choices)

    @property
    def over(self) -> bool:
        """A failure of the call tells nothing new: the end has come, or this client gave up before the start."""
        return self.ended or (self.cancelled and not self.request_id)

    @property
    def usage(self) -> Usage:
        """Of all answers together: the question counts once."""
        ends = [choice.end.usage for choice in self.choices if choice.end is not None]
        if len(ends) < 2:
            return ends[0] if ends else Usage()
        return replace(
            ends[0],
            completion_tokens=sum(usage.completion_tokens for usage in ends),
            joules=sum(usage.joules for usage in ends),
        )

    @property
    def timeline(self) -> tuple[Stage, ...]:
        end = self.choices[0].end
        return end.timeline if end is not None else ()

    def broken(self, error: grpc.RpcError) -> float:
        """Seconds to wait before call() is tried at the next gateway.

        Raises:
            HeadraceError: it is no use, it has been tried often enough, or the wait alone takes the request's time.
        """
        typed = errors.of_rpc(error)
        self._failures += 1
        self._refusals += isinstance(typed, errors.Overloaded)
        survivable = isinstance(typed, errors.Unavailable | errors.Overloaded) and self._refusals <= self._max_retries
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
    def request_ids(self) -> tuple[str, ...]:
        """Of each answer; cancelling the first one's cancels all."""
        return tuple([choice.request_id for choice in self._answer.choices])

    @property
    def end(self) -> End | None:
        """Of the first answer; None while it runs."""
        return self._answer.choices[0].end

    @property
    def ends(self) -> tuple[End | None, ...]:
        return tuple([choice.end for choice in self._answer.choices])

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Of the first answer, as far as they have come; to be made where end.reason is "tool_calls"."""
        return tuple(self._answer.choices[0].calls.values())

    @property
    def all_tool_calls(self) -> tuple[tuple[ToolCall, ...], ...]:
        """Of each answer."""
        return tuple([tuple(choice.calls.values()) for choice in self._answer.choices])

    @property
    def usage(self) -> Usage:
        """Of all answers together: the question counts once."""
        return self._answer.usage

    @property
    def timeline(self) -> tuple[Stage, ...]:
        """Of the first answer."""
        return self._answer.timeline
