"""One answer as GatewayService's clients read it: what has come of a stream since the last time, as events."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.core.errors import HeadraceError
from headrace.core.types import End
from headrace.v1 import common_pb2, gateway_pb2
from headrace.wire import convert
from services.gateway import bodies
from services.gateway.calls import Said
from services.gateway.front import Front
from services.gateway.live import Live
from services.gateway.render import end_error


@dataclass(frozen=True, slots=True)
class Wanted:
    live: Live
    next_index: int = 0  # the first token that the client lacks


class Choice:
    """A listener of one stream. Opened by its first use: whoever makes it leaves the listener."""

    def __init__(self, front: Front, wanted: Wanted, index: int, calls: bool) -> None:
        """calls: those of tools are told as such, else as the text that they are. Raises Overloaded."""
        live = wanted.live
        self.listener = front.gateway.listen(live)
        self.over = False
        self.failed: HeadraceError | None = None  # its stream is no more; set by whoever waits for its news
        self.error: HeadraceError | None = None  # its end is not an answer
        self._front, self._index, self._next_index = front, index, wanted.next_index
        self._text = front.text_of(live)
        self._calls = front.calls_of(live) if calls else None

    def started(self, trace_id: str) -> gateway_pb2.GenerateEvent:
        facts = self.listener.live.facts
        started = gateway_pb2.Started(
            request_id=facts.id,
            trace_id=trace_id,
            model=facts.model,
            prompt_tokens=facts.prompt_tokens,
            image_tokens=facts.image_tokens,
        )
        return gateway_pb2.GenerateEvent(started=started, choice=self._index)

    def said(self) -> list[gateway_pb2.GenerateEvent]:
        """The events of what came since the last call, the last one's too."""
        delta, end = self._delta(), self.listener.live.end
        events = [] if delta is None else [gateway_pb2.GenerateEvent(delta=delta, choice=self._index)]
        if end is not None:
            self.over, self.error = True, end_error(end)
            events.append(gateway_pb2.GenerateEvent(end=self._end(end), choice=self._index))
        return events

    def _delta(self) -> gateway_pb2.Delta | None:
        """None: it holds no tokens that the client lacks, no text and no calls."""
        listener = self.listener
        first, live = listener.cursor, listener.live
        tokens, over = listener.take(), live.end is not None
        texts = [self._text.feed(token) for token in tokens]
        if over:
            texts.append(self._text.finish())
        skip = max(0, self._next_index - first)
        delta = gateway_pb2.Delta(index=first + skip, tokens=tokens[skip:])
        if self._calls is None:
            delta.text = "".join(texts[skip:])
        else:
            said = [self._calls.feed(text) for text in texts]
            if over:
                said.append(self._calls.finish())
            _tell(delta, said[skip:])
        if not (delta.tokens or delta.text or delta.tool_calls):
            return None
        if live.facts.logprobs:
            delta.logprobs.extend(self._logprobs(range(first + skip, listener.cursor)))
        return delta

    def _end(self, end: End) -> common_pb2.End:
        told = convert.end_to_proto(replace(end, timeline=tuple(self._front.timeline(self.listener.live))))
        if end.reason == "stop" and self._calls is not None and self._calls.complete:
            told.reason = common_pb2.FINISH_REASON_TOOL_CALLS
        return told

    def _logprobs(self, indexes: range) -> list[common_pb2.TokenLogprobs]:
        """Of those tokens, as far as they are known: all of them, those behind a stop string too."""
        live = self.listener.live
        tokens, told, names = live.stream.tokens, live.stream.logprobs, self._front.models.names(live.facts.model)
        known = convert.logprobs_to_proto([(index, told[index]) for index in indexes if index in told])
        for one in known:
            one.text = bytes(names(tokens[one.row])[1] or ())
            one.top_text.extend([bytes(names(token)[1] or ()) for token in one.top])
        return known


def _tell(delta: gateway_pb2.Delta, said: Sequence[Said]) -> None:
    delta.text = "".join([one.content for one in said])
    delta.tool_calls.extend([_piece(piece) for one in said for piece in one.calls])


def _piece(piece: bodies.DeltaCall) -> gateway_pb2.ToolCallDelta:
    told = gateway_pb2.ToolCallDelta(index=piece.index, arguments=piece.function.arguments)
    if isinstance(piece.id, str) and isinstance(piece.function.name, str):
        told.id, told.name = piece.id, piece.function.name
    return told
