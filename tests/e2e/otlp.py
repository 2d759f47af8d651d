"""An OTLP receiver in the test's own process: HTTP, protobuf, spans kept by trace."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as it was exported."""

    service: str  # service.name of its resource
    name: str
    span_id: str
    parent_id: str
    start_s: float
    end_s: float
    attributes: dict[str, str]
    failed: bool
    links: int


@dataclass(slots=True)
class Receiver:
    url: str = ""
    _spans: dict[str, list[Seen]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spans(self, trace_id: str) -> list[Seen]:
        with self._lock:
            return list(self._spans.get(trace_id, ()))

    def traces(self) -> dict[str, list[Seen]]:
        with self._lock:
            return {trace: list(spans) for trace, spans in self._spans.items()}

    def take(self, body: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in message.resource_spans:
                service = next(
                    (a.value.string_value for a in resource.resource.attributes if a.key == "service.name"), ""
                )
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._spans.setdefault(span.trace_id.hex(), []).append(_seen(service, span))


def _seen(service: str, span: Span) -> Seen:
    attributes = {a.key: _text(a.value) for a in span.attributes}
    return Seen(
        service=service,
        name=span.name,
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_s=span.start_time_unix_nano / 1e9,
        end_s=span.end_time_unix_nano / 1e9,
        attributes=attributes,
        failed=span.status.code == 2,
        links=len(span.links),
    )


def _text(value: object) -> str:
    kind = value.WhichOneof("value")  # type: ignore[attr-defined]
    return str(getattr(value, kind)) if kind else ""


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Listens on a free loopback port until left."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
