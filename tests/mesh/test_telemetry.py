"""Spans end up where they are sent: one trace, the given times and parents; nothing for nobody; a quick shutdown."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headrace.core.types import StageSpan
from headrace.mesh import genai, telemetry
from headrace.mesh.config import Settings

TRACE, ROOT, CALLER = "ab" * 16, "cd" * 8, "ef" * 8
SAMPLED = f"00-{TRACE}-{ROOT}-01"
PREFILL = StageSpan("prefill", 1_700_000_000.25, 1_700_000_000.5, "prefill-0")


@pytest.fixture(autouse=True)
def _nobody_listens_afterwards() -> Iterator[None]:
    yield
    telemetry.shut_down()


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (SAMPLED, True),
        (f"00-{TRACE}-{ROOT}-03", True),
        (f"00-{TRACE}-{ROOT}-00", False),
        (f"00-{TRACE}-{ROOT}-02", False),
        ("", False),
        ("1", False),
    ],
)
def test_the_sampled_flag(traceparent: str, expected: bool) -> None:
    assert telemetry.sampled(traceparent) is expected


def test_a_trace_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    telemetry.set_up("decode-0", Settings(trace_file=str(path)))
    writer = telemetry.spans()
    assert writer is not None
    first = f"00-{TRACE}-{'12' * 8}-01"
    telemetry.emit_span(PREFILL, SAMPLED, {genai.REQUEST_ID: "r1"}, links=[first])
    telemetry.emit_span(replace(PREFILL, stage="encode", part=2), SAMPLED)
    attributes = {genai.OPERATION_NAME: "chat", genai.RESPONSE_FINISH_REASONS: ["stop"]}
    writer.emit_root(SAMPLED, f"00-{TRACE}-{CALLER}-01", "chat smol", 1.0, 2.0, attributes, "stage_error")
    telemetry.shut_down()
    prefill, encode, root = [json.loads(line) for line in path.read_text().splitlines()]
    assert {span["trace_id"] for span in (prefill, encode, root)} == {TRACE}
    assert (prefill["parent_span_id"], encode["parent_span_id"], root["span_id"]) == (ROOT, ROOT, ROOT)
    assert root["parent_span_id"] == CALLER
    assert len({prefill["span_id"], encode["span_id"], ROOT}) == 3
    assert (prefill["start_s"], prefill["end_s"]) == (1_700_000_000.25, 1_700_000_000.5)
    assert prefill["attributes"] == {genai.WORKER: "prefill-0", genai.REQUEST_ID: "r1"}
    assert prefill["links"] == ["12" * 8]
    assert encode["attributes"][genai.PART] == 2
    assert (root["error"], root["attributes"][genai.ERROR_TYPE]) == ("stage_error", "stage_error")
    assert root["attributes"][genai.RESPONSE_FINISH_REASONS] == ["stop"]
    assert root["process"] == "decode-0"


def test_nobody_listens() -> None:
    telemetry.set_up("decode-0", Settings())
    assert telemetry.spans() is None
    telemetry.emit_span(PREFILL, SAMPLED)


def test_a_trace_over_otlp() -> None:
    got: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            got.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    telemetry.set_up("prefill-12", Settings(otlp_endpoint=f"http://127.0.0.1:{server.server_port}"))
    telemetry.emit_span(PREFILL, SAMPLED)
    telemetry.shut_down()
    server.shutdown()
    server.server_close()
    resource = got[0].resource_spans[0]
    names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert (names["service.name"], names["service.instance.id"]) == ("headrace-prefill", "prefill-12")
    span = resource.scope_spans[0].spans[0]
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("prefill", TRACE, ROOT)


def test_a_collector_that_hangs_does_not_hold_the_process() -> None:
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()
        telemetry.set_up("p-0", Settings(otlp_endpoint=f"http://127.0.0.1:{hanging.getsockname()[1]}"))
        telemetry.emit_span(PREFILL, SAMPLED)
        start_s = time.monotonic()
        telemetry.shut_down()
        assert time.monotonic() - start_s < 3.0
