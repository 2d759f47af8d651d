"""How an answer's tokens become what a reader of /v1/chat/completions is told, event by event or at once.

A shape is one response; a reading is one of its choices. Feed a reading every token from index 0.
"""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from headrace.core.errors import HeadraceError
from headrace.core.types import Usage
from services.gateway import bodies, render
from services.gateway.calls import CallReader, collected
from services.gateway.front import Front
from services.gateway.live import Live
from services.gateway.text import TextStream
from services.gateway.told import ToldText


class Reading(Protocol):
    def token(self, token: int, first: bool) -> bytes:
        """The event of one token; empty where it adds nothing."""
        ...

    def terminal(self, reason: str, extras: render.Extras | None) -> bytes:
        """The last events of the choice."""
        ...

    def whole(self, tokens: Sequence[int], reason: str) -> Any:
        """The choice at once, as the shape's body takes it."""
        ...


class Shape(Protocol):
    def reading(self, live: Live, index: int) -> Reading:
        """Of the choice with this index."""
        ...

    def opening(self) -> bytes:
        """Events before the first token's."""
        ...

    def closing(self, error: HeadraceError | None, usage: Usage | None) -> list[bytes]:
        """Events behind the last choice's. usage is None where nobody knows it."""
        ...

    def body(self, choices: list[Any], usage: Usage, extras: render.Extras | None) -> bytes: ...


def created_s(live: Live) -> int:
    return int(live.received_s or time.time())


class ChatReading:
    """Text and nothing else: one call a token, the hot route."""

    __slots__ = ("_chunks", "_feed", "_index", "_said", "_text")

    def __init__(self, chunks: render.Chunks, text: TextStream, index: int) -> None:
        self._chunks, self._text, self._index = chunks, text, index
        self._feed, self._said = text.feed, chunks.token

    def token(self, token: int, first: bool) -> bytes:
        return self._said(self._feed(token), first)

    def terminal(self, reason: str, extras: render.Extras | None) -> bytes:
        return self._chunks.terminal(reason, render.Rest(self._text.finish()), extras)

    def whole(self, tokens: Sequence[int], reason: str) -> bodies.Choice:
        text = "".join([self._feed(token) for token in tokens]) + self._text.finish()
        return bodies.Choice(bodies.AnswerMessage(text), reason, self._index)


class ToldReading:
    """Text with the log-probabilities of its tokens."""

    def __init__(self, chunks: render.Chunks, told: ToldText, index: int) -> None:
        self._chunks, self._told, self._index = chunks, told, index

    def token(self, token: int, first: bool) -> bytes:
        return self._chunks.told_token(self._told.feed(token), self._told.entries, first)

    def terminal(self, reason: str, extras: render.Extras | None) -> bytes:
        return self._chunks.terminal(reason, self._told.finish(reason), extras)

    def whole(self, tokens: Sequence[int], reason: str) -> bodies.Choice:
        answer = self._told.whole(tokens, reason)
        logprobs = bodies.ChoiceLogprobs(list(answer.logprobs))
        return bodies.Choice(bodies.AnswerMessage(answer.text), reason, self._index, logprobs)


class CallsReading:
    """Text that may hold calls of tools; their tokens' log-probabilities stand beside the others where asked for."""

    def __init__(
        self, chunks: render.Chunks, text: TextStream, told: ToldText | None, calls: CallReader, index: int
    ) -> None:
        self._chunks, self._text, self._told, self._calls, self._index = chunks, text, told, calls, index

    def token(self, token: int, first: bool) -> bytes:
        shown = (self._told or self._text).feed(token)
        said, entries = self._calls.feed(shown), self._told.entries if self._told is not None else []
        return self._chunks.said(said, entries, first) if said or entries or first else b""

    def terminal(self, reason: str, extras: render.Extras | None) -> bytes:
        rest = self._rest(reason)
        said = self._calls.feed(rest.text)
        last = self._calls.finish()
        said.content += last.content
        events = self._chunks.said(said, rest.logprobs, False) if said.calls else b""
        left = render.Rest("" if said.calls else said.content, [] if said.calls else rest.logprobs)
        return events + self._chunks.terminal(self._reason(reason), left, extras)

    def whole(self, tokens: Sequence[int], reason: str) -> bodies.Choice:
        feed, entries = (self._told or self._text).feed, list[bodies.TokenLogprob]()
        texts = list[str]()
        for token in tokens:
            texts.append(feed(token))
            entries += self._told.entries if self._told is not None else []
        rest = self._rest(reason)
        said = self._calls.feed("".join([*texts, rest.text]))
        content = said.content + self._calls.finish().content
        logprobs = None if self._told is None else bodies.ChoiceLogprobs([*entries, *rest.logprobs])
        message = bodies.AnswerMessage(content)
        if self._calls.called:
            message = bodies.AnswerMessage(content or None, tool_calls=collected(said.calls))
        return bodies.Choice(message, self._reason(reason), self._index, logprobs)

    def _rest(self, reason: str) -> render.Rest:
        return render.Rest(self._text.finish()) if self._told is None else self._told.finish(reason)

    def _reason(self, reason: str) -> str:
        return "tool_calls" if reason == "stop" and self._calls.called else reason


class ChatShape:
    """chat.completion, or its chunks."""

    def __init__(self, front: Front, live: Live, include_usage: bool) -> None:
        """live: of the first choice."""
        self._front = front
        self._request_id, self._model, self._created = live.facts.id, live.facts.model, created_s(live)
        self._include_usage = include_usage

    def reading(self, live: Live, index: int) -> Reading:
        front, chunks = self._front, self._chunks(index)
        told, calls = front.told_of(live), front.calls_of(live)
        if calls is not None:
            return CallsReading(chunks, front.text_of(live), told, calls, index)
        return ChatReading(chunks, front.text_of(live), index) if told is None else ToldReading(chunks, told, index)

    def _chunks(self, index: int) -> render.Chunks:
        return render.Chunks(self._request_id, self._model, self._created, self._include_usage, index)

    def opening(self) -> bytes:
        return b""

    def closing(self, error: HeadraceError | None, usage: Usage | None) -> list[bytes]:
        events = [] if error is None else [render.event(render.error_body(error))]
        if self._include_usage and usage is not None:
            events.append(self._chunks(0).usage(usage))
        return [*events, render.DONE]

    def body(self, choices: list[bodies.Choice], usage: Usage, extras: render.Extras | None) -> bytes:
        return render.completion(self._request_id, self._model, self._created, choices, usage, extras)
