"""The root span of a request, the gateway's own stages, and its line in the log. An unsampled request costs two
comparisons; it has a line only where it has failed, and then without a trace.

Sampled: the caller asked (x-headrace-trace: 1), or its traceparent says so, or chance decides for requests without one.
"""

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol

from headrace.core.errors import HeadraceError
from headrace.mesh import genai
from headrace.mesh.logs import get_logger
from services.gateway.ask import Caller
from services.gateway.live import Live
from services.gateway.objectives import BROKEN
from services.gateway.render import end_error

log = get_logger("gateway")

TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value]


class Spans(Protocol):
    """What the mesh's telemetry does with a finished span."""

    def emit_root(
        self, traceparent: str, parent: str, name: str, start_s: float, end_s: float, attributes: Attributes, error: str
    ) -> None: ...
    def emit_child(self, traceparent: str, name: str, start_s: float, end_s: float) -> None: ...


class Trace:
    """Of one request at this gateway; as a context it ends with the response."""

    __slots__ = ("_caller", "_live", "_model", "_operation", "_spans", "input_tokens", "trace_id", "traceparent")

    def __init__(self, spans: Spans | None, caller: Caller, model: str, traceparent: str, operation: str) -> None:
        self._spans = spans
        self._caller = caller
        self._model = model
        self._operation = operation
        self._live: Live | None = None
        self.input_tokens = 0  # of an operation without a stream
        self.traceparent = traceparent
        self.trace_id = traceparent[3:35]

    def follow(self, live: Live) -> None:
        self._live = live

    def __enter__(self) -> "Trace":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        live, start_s = self._live, self._caller.received_s
        broken = live is not None and live.end is not None and live.end.reason in BROKEN
        if not (self.traceparent or broken):
            return
        failed = error if isinstance(error, HeadraceError) else _failure(live)
        code = failed.code if failed is not None else "cancelled" if error is not None else ""
        if live is not None:
            self._log(live, code)
        if self._spans is None:
            return
        if live is not None and live.admitted_s:
            self._spans.emit_child(self.traceparent, "admit", start_s, live.admitted_s)
        if live is not None and live.end is not None and live.end.timeline:
            done_s = max(span.end_s for span in live.end.timeline)
            self._spans.emit_child(self.traceparent, "deliver", min(done_s, time.time()), time.time())
        attributes = self._attributes(live)
        name, parent = f"{self._operation} {self._model}", self._caller.traceparent
        self._spans.emit_root(self.traceparent, parent, name, start_s, time.time(), attributes, code)

    def _log(self, live: Live, code: str) -> None:
        first_s, end = live.first_token_s, live.end
        log.info(
            "request",
            request_id=live.facts.id,
            reason=end.reason if end is not None else "",
            code=code,
            slo_class=live.facts.slo_class,
            ttft_ms=round((first_s - live.opened_s) * 1e3, 3) if first_s is not None else None,
            took_ms=round((time.time() - self._caller.received_s) * 1e3, 3),
            tokens=len(live.stream.tokens),
            traceparent=self.traceparent,
        )

    def _attributes(self, live: Live | None) -> Attributes:
        attributes: dict[str, Value] = {
            genai.OPERATION_NAME: self._operation,
            genai.REQUEST_MODEL: self._model,
        }
        if self.input_tokens:
            attributes[genai.USAGE_INPUT_TOKENS] = self.input_tokens
        if live is None:
            return attributes
        attributes[genai.REQUEST_ID] = live.facts.id
        attributes[genai.SLO_CLASS] = live.facts.slo_class
        if live.end is not None:
            attributes[genai.RESPONSE_FINISH_REASONS] = [live.end.reason]
            attributes[genai.USAGE_INPUT_TOKENS] = live.end.usage.prompt_tokens
            attributes[genai.USAGE_OUTPUT_TOKENS] = live.end.usage.completion_tokens
        return attributes


def _failure(live: Live | None) -> HeadraceError | None:
    return end_error(live.end) if live is not None and live.end is not None else None


class Tracer:
    def __init__(self, spans: Spans | None, share: float, chance: Callable[[], float] = random.random) -> None:
        """share: of requests without a traceparent that are sampled. spans None: nobody listens, nothing is sampled
        unless asked for, and then only the ids exist."""
        self._spans = spans
        self._share = share
        self._chance = chance

    def request(self, caller: Caller, model: str, operation: str = genai.OPERATION_CHAT) -> Trace:
        parent = TRACEPARENT.fullmatch(caller.traceparent) if caller.traceparent else None
        if not caller.trace:
            if parent is not None:
                sampled = bool(int(parent.group(3), 16) & 1)
            else:
                sampled = self._spans is not None and self._chance() < self._share
            if not sampled:
                return Trace(None, caller, model, "", operation)
        trace_id = parent.group(1) if parent is not None else f"{random.getrandbits(128) or 1:032x}"
        span_id = f"{random.getrandbits(64) or 1:016x}"
        return Trace(self._spans, caller, model, f"00-{trace_id}-{span_id}-01", operation)
