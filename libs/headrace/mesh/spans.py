"""Finished spans into OpenTelemetry: ids and times are given, so no tracer, context or clock is involved.

Imported only where an exporter is configured: the SDK costs a tenth of a second at start.
"""

import random
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from headrace.core.types import PART_STAGES, StageSpan
from headrace.mesh import genai

Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value]

QUEUE_SPANS = 8192  # about a second of a fully sampled mesh; more are dropped, never waited for
BATCH_SPANS = 512
EXPORT_EVERY_MS = 500
EXPORT_WAIT_S = 2.0  # of one export, and of the last flush
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("headrace")


class SpanWriter:
    def __init__(self, process: str, exporter: SpanExporter) -> None:
        """process: gateway-0, decode-0 ...; the service is its name without the number."""
        service = process.rstrip("0123456789").rstrip("-") or process
        self._resource = Resource.create({"service.name": f"headrace-{service}", "service.instance.id": process})
        self._processor = BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE_SPANS,
            max_export_batch_size=BATCH_SPANS,
            schedule_delay_millis=EXPORT_EVERY_MS,
            export_timeout_millis=EXPORT_WAIT_S * 1e3,
        )

    def emit_span(
        self,
        span: StageSpan,
        traceparent: str,
        span_id: str,
        attributes: Attributes | None = None,
        links: Sequence[str] = (),
    ) -> None:
        """A stage as a child of traceparent's span. links: traceparents of what it goes on from (a redelivery)."""
        all_attributes: dict[str, Value] = {genai.WORKER: span.worker, **(attributes or {})}
        if span.stage in PART_STAGES:
            all_attributes[genai.PART] = span.part
        self._emit(
            span.stage, _context(traceparent, span_id), traceparent, span.start_s, span.end_s, all_attributes, links
        )

    def emit_child(self, traceparent: str, name: str, start_s: float, end_s: float) -> None:
        context = _context(traceparent, f"{random.getrandbits(64) or 1:016x}")
        self._emit(name, context, traceparent, start_s, end_s, {})

    def emit_root(
        self,
        traceparent: str,
        parent: str,
        name: str,
        start_s: float,
        end_s: float,
        attributes: Attributes,
        error: str = "",
    ) -> None:
        """The span that traceparent itself names. parent: the caller's traceparent or empty; error: a code or empty."""
        all_attributes = {genai.PROVIDER_NAME: genai.PROVIDER, **attributes}
        if error:
            all_attributes[genai.ERROR_TYPE] = error
        context = _context(traceparent, traceparent[36:52])
        self._emit(name, context, parent, start_s, end_s, all_attributes, kind=SpanKind.SERVER, error=error)

    def _emit(
        self,
        name: str,
        context: SpanContext,
        parent: str,
        start_s: float,
        end_s: float,
        attributes: Attributes,
        links: Sequence[str] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        error: str = "",
    ) -> None:
        self._processor.on_end(
            ReadableSpan(
                name,
                context,
                parent=_context(parent, parent[36:52]) if parent else None,
                resource=self._resource,
                attributes=attributes,
                links=[Link(_context(link, link[36:52])) for link in links],
                kind=kind,
                status=Status(StatusCode.ERROR, error) if error else Status(),
                start_time=_ns(start_s),
                end_time=_ns(max(start_s, end_s)),
                instrumentation_scope=_SCOPE,
            )
        )

    def shut_down(self) -> None:
        """Exports what waits, for EXPORT_WAIT_S at most: a collector that hangs does not hold the process."""
        flushing = threading.Thread(target=self._processor.shutdown, daemon=True)
        flushing.start()
        flushing.join(EXPORT_WAIT_S)


def _ns(time_s: float) -> int:
    """To the microsecond, which is what a float of the epoch holds."""
    return round(time_s * 1e6) * 1000


def _context(traceparent: str, span_id: str) -> SpanContext:
    return SpanContext(int(traceparent[3:35], 16), int(span_id, 16), is_remote=True, trace_flags=_SAMPLED)


class JsonLines(SpanExporter):
    """One JSON object a span, appended to a file that several processes may share, or to stderr."""

    def __init__(self, path: str) -> None:
        self._file = sys.stderr.buffer if path == "-" else Path(path).open("ab", buffering=0)  # noqa: SIM115

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._file.write(b"".join(msgspec.json.encode(_as_json(span)) + b"\n" for span in spans))
        self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.flush()


def _as_json(span: ReadableSpan) -> dict[str, object]:
    context, parent = span.context, span.parent
    assert context is not None
    return {
        "name": span.name,
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_span_id": f"{parent.span_id:016x}" if parent else "",
        "process": span.resource.attributes["service.instance.id"],
        "start_s": (span.start_time or 0) // 1000 / 1e6,
        "end_s": (span.end_time or 0) // 1000 / 1e6,
        "attributes": dict(span.attributes or {}),
        "links": [f"{link.context.span_id:016x}" for link in span.links],
        "error": span.status.description or "",
    }


def exporter(otlp_endpoint: str, trace_file: str) -> SpanExporter:
    """otlp_endpoint: http://host:4318, with or without /v1/traces."""
    if not otlp_endpoint:
        return JsonLines(trace_file)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    url = otlp_endpoint.rstrip("/")
    return OTLPSpanExporter(url if url.endswith("/v1/traces") else url + "/v1/traces", timeout=EXPORT_WAIT_S)
