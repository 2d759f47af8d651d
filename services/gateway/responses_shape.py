"""A response of /v1/responses: its events in their order, numbered, or the whole at once.

Items follow one another: a message while text comes, then each call of a function. What a stream has told is what its
last event repeats.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.core.errors import HeadraceError
from headrace.core.types import Usage
from services.gateway import bodies, render
from services.gateway import bodies_responses as wire
from services.gateway.calls import Said
from services.gateway.front import Front
from services.gateway.live import Live
from services.gateway.readings import created_s

Item = wire.OutputMessage | wire.OutputCall


class ResponsesShape:
    def __init__(self, front: Front, live: Live, asked: wire.ResponsesRequest) -> None:
        self.front = front
        self._live, self._asked = live, asked
        self._number = 0
        self._created = created_s(live)
        self.items: list[Item] = []
        self.reason = "error"
        self.extras: render.Extras | None = None
        begun = self.response("in_progress", [])
        # Numbered first, although it is sent with the first token only.
        self._opening = self.event("created", response=begun) + self.event("in_progress", response=begun)

    def reading(self, live: Live, index: int) -> "ResponsesReading":
        return ResponsesReading(self, live)

    def event(self, kind: str, **members: Any) -> bytes:
        event = wire.Event(f"response.{kind}", self._number, **members)
        self._number += 1
        return b"event: " + event.type.encode() + b"\n" + render.event(event)

    def opening(self) -> bytes:
        return self._opening

    def closing(self, error: HeadraceError | None, usage: Usage | None) -> list[bytes]:
        status = "failed" if error is not None else _status(self.reason)
        response = self.response(status, self.items, usage)
        if error is not None:
            response.error = wire.Failed(error.code, error.message)
        return [self.event(status, response=response)]

    def body(self, choices: list[Any], usage: Usage, extras: render.Extras | None) -> bytes:
        self.extras = extras
        return msgspec.json.encode(self.response(_status(self.reason), choices[0], usage))

    def response(self, status: str, items: list[Item], usage: Usage | None = None) -> wire.Response:
        asked = self._asked
        return wire.Response(
            id=f"resp_{self._live.facts.id}",
            created_at=self._created,
            status=status,
            model=self._live.facts.model,
            output=items,
            usage=None if usage is None else _usage(usage),
            incomplete_details=wire.Incomplete("max_output_tokens") if status == "incomplete" else None,
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            metadata=asked.metadata,
            parallel_tool_calls=asked.parallel_tool_calls is not False,
            temperature=asked.temperature or 0.0,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            text=asked.text or wire.Text(wire.Format()),
            tool_choice=asked.tool_choice or "auto",
            tools=asked.tools or [],
            headrace=render.headrace_body(self.extras),
        )


class ResponsesReading:
    """Items as they grow. One is open at a time: the last."""

    def __init__(self, shape: ResponsesShape, live: Live) -> None:
        self._shape, self._id = shape, live.facts.id
        self._told, self._calls = shape.front.told_of(live), shape.front.calls_of(live)
        self._text: Any = self._told or shape.front.text_of(live)
        self._open = False

    def token(self, token: int, first: bool) -> bytes:
        text = self._text.feed(token)
        said = Said(text) if self._calls is None else self._calls.feed(text)
        return self._grow(said, self._told.entries if self._told is not None else [])

    def terminal(self, reason: str, extras: render.Extras | None) -> bytes:
        shape = self._shape
        shape.reason, shape.extras = reason, extras
        rest = render.Rest(self._text.finish()) if self._told is None else self._told.finish(reason)
        said = Said(rest.text) if self._calls is None else self._calls.feed(rest.text)
        if self._calls is not None:
            said.content += self._calls.finish().content
        events = self._grow(said, rest.logprobs)
        if not shape.items:
            events += self._begin_message()
        return events + self._close("completed" if reason == "stop" else "incomplete")

    def whole(self, tokens: Sequence[int], reason: str) -> list[Item]:
        for token in tokens:
            self.token(token, False)
        self.terminal(reason, None)
        return self._shape.items

    def _grow(self, said: Said, logprobs: Sequence[bodies.TokenLogprob]) -> bytes:
        events = b""
        if said.content or logprobs:
            events += self._say(said.content, list(logprobs))
        for piece in said.calls:
            if piece.id is not msgspec.UNSET and piece.function.name is not msgspec.UNSET:
                events += self._begin_call(piece.id, piece.function.name)
            if piece.function.arguments:
                events += self._argue(piece.function.arguments)
        return events

    def _say(self, text: str, logprobs: list[bodies.TokenLogprob]) -> bytes:
        item = self._shape.items[-1] if self._open else None
        if isinstance(item, wire.OutputCall):
            return b""  # log-probabilities of a call: they have no place in one
        events = b"" if item is not None else self._begin_message()
        message = self._shape.items[-1]
        assert isinstance(message, wire.OutputMessage)
        part = message.content[0]
        part.text += text
        part.logprobs += logprobs
        return events + self._event("output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _begin_message(self) -> bytes:
        events = self._close("completed")
        part = wire.OutputText("", annotations=[], logprobs=[])
        events += self._add(wire.OutputMessage(f"msg_{self._id}", "in_progress", []))
        item = self._shape.items[-1]
        assert isinstance(item, wire.OutputMessage)
        events += self._event("content_part.added", content_index=0, part=part)
        item.content = [part]
        return events

    def _begin_call(self, call_id: str, name: str) -> bytes:
        item_id = call_id.replace("call_", "fc_")
        return self._close("completed") + self._add(wire.OutputCall(item_id, call_id, name, "", "in_progress"))

    def _argue(self, piece: str) -> bytes:
        call = self._shape.items[-1]
        assert isinstance(call, wire.OutputCall)
        call.arguments += piece
        return self._event("function_call_arguments.delta", delta=piece)

    def _add(self, item: Item) -> bytes:
        self._shape.items.append(item)
        self._open = True
        return self._shape.event("output_item.added", output_index=len(self._shape.items) - 1, item=item)

    def _close(self, status: str) -> bytes:
        """The open item is done."""
        if not self._open:
            return b""
        item = self._shape.items[-1]
        item.status, self._open = status, False
        if isinstance(item, wire.OutputCall):
            done = self._event("function_call_arguments.done", arguments=item.arguments, name=item.name)
        else:
            part = item.content[0]
            done = self._event("output_text.done", content_index=0, text=part.text, logprobs=part.logprobs)
            done += self._event("content_part.done", content_index=0, part=part)
        return done + self._shape.event("output_item.done", output_index=len(self._shape.items) - 1, item=item)

    def _event(self, kind: str, **members: Any) -> bytes:
        item, index = self._shape.items[-1], len(self._shape.items) - 1
        return self._shape.event(kind, item_id=item.id, output_index=index, **members)


def _status(reason: str) -> str:
    return "completed" if reason == "stop" else "incomplete"


def _usage(usage: Usage) -> wire.ResponseUsage:
    return wire.ResponseUsage(
        usage.prompt_tokens,
        wire.InputDetails(
            usage.cached_tokens,
            image_tokens=usage.image_tokens,
            audio_tokens=usage.audio_tokens,
            video_tokens=usage.video_tokens,
        ),
        usage.completion_tokens,
        wire.OutputDetails(),
        usage.prompt_tokens + usage.completion_tokens,
        usage.joules or msgspec.UNSET,
    )
