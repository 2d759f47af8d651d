"""Stage spans: for every request in its end's timeline, for sampled ones as OpenTelemetry spans too."""

from headrace.core.types import End, Failure, FinishReason, StageSpan, Usage
from headrace.core.usage import usage_of
from headrace.mesh import genai, telemetry
from headrace.v1 import common_pb2
from headrace.wire.convert import end_to_proto
from headrace.worker.holds import Held


class Spans:
    def __init__(self, worker: str) -> None:
        self._worker = worker

    def close(self, held: Held, stage: str, now_s: float) -> None:
        """The stage that the request was in ends now and the next begins: no time belongs to none."""
        if now_s > held.since_s:
            span = StageSpan(stage, held.since_s, now_s, self._worker)
            held.spans.append(span)
            if held.traced:
                telemetry.emit_span(
                    span,
                    held.command.traceparent,
                    {genai.REQUEST_ID: held.key.request_id, genai.ATTEMPT: held.key.attempt},
                )
        held.since_s = now_s

    def end(self, held: Held, reason: FinishReason, failure: Failure | None) -> common_pb2.End:
        timeline = (*held.command.timeline, *held.spans)
        return end_to_proto(End(reason, failure, _usage(held), timeline))


def _usage(held: Held) -> Usage:
    cached = max(held.prefix_tokens, held.cached_tokens)
    return usage_of(held.command.prompt, held.prefix_tokens, len(held.tokens), cached)
