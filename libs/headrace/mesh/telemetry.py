"""Logs and traces of a process. A request that is not sampled costs one look at its traceparent."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.core.types import StageSpan
from headrace.mesh import genai
from headrace.mesh.config import Settings
from headrace.mesh.logs import Logger, get_logger, set_up_logging

if TYPE_CHECKING:
    from headrace.mesh.spans import Attributes, SpanWriter

__all__ = ["Logger", "emit_span", "get_logger", "sampled", "set_up", "shut_down", "spans"]

_writer: "SpanWriter | None" = None
_log = get_logger("stages")


def set_up(process: str, settings: Settings) -> None:
    """Logs on stderr; spans to HEADRACE_OTLP_ENDPOINT, else to HEADRACE_TRACE_FILE, else nowhere."""
    global _writer
    set_up_logging(process, settings.log_level)
    if settings.otlp_endpoint or settings.trace_file:
        from headrace.mesh.spans import SpanWriter, exporter

        _writer = SpanWriter(process, exporter(settings.otlp_endpoint, settings.trace_file))


def sampled(traceparent: str) -> bool:
    """The W3C sampled flag: the lowest bit of the last digit of 00-<trace>-<span>-<flags>."""
    return len(traceparent) == 55 and traceparent[54] in "13579bdf"


def spans() -> "SpanWriter | None":
    """Where spans go; None: nobody listens."""
    return _writer


def emit_span(
    span: StageSpan, traceparent: str, attributes: "Attributes | None" = None, links: Sequence[str] = ()
) -> None:
    """A finished stage of a sampled request, as a span where somebody listens, and as a line of the log. links: what a
    redelivery goes on from."""
    span_id, told = f"{random.getrandbits(64) or 1:016x}", attributes or {}
    if _writer is not None:
        _writer.emit_span(span, traceparent, span_id, attributes, links)
    _log.info(
        "stage",
        stage=span.stage,
        request_id=told.get(genai.REQUEST_ID, ""),
        attempt=told.get(genai.ATTEMPT, 0),
        part=span.part,
        took_ms=round((span.end_s - span.start_s) * 1e3, 3),
        traceparent=traceparent,
        span_id=span_id,
    )


def shut_down() -> None:
    """Within two seconds. lifecycle.run() calls it."""
    global _writer
    writer, _writer = _writer, None
    if writer is not None:
        writer.shut_down()
