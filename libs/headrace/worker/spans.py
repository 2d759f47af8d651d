"""Stage spans: for every request in its end's timeline, for sampled ones as OpenTelemetry spans too."""

from headrace.core.types import End, Failure, FinishReason, Key, StageSpan, Usage
from headrace.core.usage import usage_of
from headrace.mesh import genai, telemetry
from headrace.v1 import common_pb2
from headrace.wire.convert import end_to_proto
from headrace.worker.energy import Account
from headrace.worker.holds import Held


class Spans:
    def __init__(self, worker: str, account: Account) -> None:
        self._worker = worker
        self._account = account

    def close(self, held: Held, stage: str, now_s: float) -> None:
        """The stage that the request was in ends now and the next begins: no time belongs to none."""
        if now_s > held.since_s or held.joules:
            span = StageSpan(stage, held.since_s, max(now_s, held.since_s), self._worker, joules=held.joules)
            held.spans.append(span)
            if held.traced:
                telemetry.emit_span(span, held.command.traceparent, attributes_of(span, held.key))
        held.since_s, held.joules = now_s, 0.0

    def lose(self, held: Held) -> None:
        """Nobody can be told any more what its stage has cost."""
        self._account.lost_j += held.joules
        held.joules = 0.0

    def end(self, held: Held, reason: FinishReason, failure: Failure | None) -> common_pb2.End:
        return end_to_proto(End(reason, failure, _usage(held), held.timeline))


def _usage(held: Held) -> Usage:
    cached = max(held.prefix_tokens, held.cached_tokens)
    return usage_of(held.command.prompt, held.prefix_tokens, len(held.tokens), cached, held.timeline)


def attributes_of(span: StageSpan, key: Key) -> dict[str, str | int | float]:
    """Of a stage's OpenTelemetry span."""
    attributes: dict[str, str | int | float] = {genai.REQUEST_ID: key.request_id, genai.ATTEMPT: key.attempt}
    if span.joules:
        attributes[genai.JOULES] = span.joules
    return attributes
