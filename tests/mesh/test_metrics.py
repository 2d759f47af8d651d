"""Metrics are read when scraped, over plain HTTP."""

import asyncio
import urllib.error
import urllib.request

import pytest

from headrace.mesh.errors import BadSetup
from headrace.mesh.metrics import Reading, exposition, registry, serve_metrics


async def test_readings_are_scraped_as_they_are_now() -> None:
    counts: dict[tuple[str, ...], float] = {("decode-0",): 1.0}
    source = registry(
        Reading("headrace_tokens_total", "Tokens", lambda: counts, ("worker",)),
        Reading("headrace_up", "Up", lambda: {(): 1.0}),
    )
    server = await serve_metrics("127.0.0.1:0", source)

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as reply:
            return str(reply.read().decode())

    assert "headrace_up 1.0" in await asyncio.to_thread(get, "/metrics")
    counts["decode-0",] = 42.0
    assert 'headrace_tokens_total{worker="decode-0"} 42.0' in await asyncio.to_thread(get, "/metrics")
    assert await asyncio.to_thread(get, "/health") == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        await asyncio.to_thread(get, "/")
    with pytest.raises(BadSetup, match="HEADRACE_METRICS_ADDR"):
        await serve_metrics(f"127.0.0.1:{server.port}", source)
    await server.stop()


@pytest.mark.parametrize(
    ("accept", "kind", "ends"),
    [
        ("", "text/plain", "\n"),
        ("text/plain;version=0.0.4", "text/plain", "\n"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text", "# EOF\n"),
        ("application/openmetrics-text;version=1.0.0;escaping=underscores", "application/openmetrics-text", "# EOF\n"),
    ],
)
def test_who_asks_for_openmetrics_gets_it_with_the_same_names(accept: str, kind: str, ends: str) -> None:
    source = registry(Reading("vllm:num_requests_running", "Running", lambda: {("m",): 2.0}, ("model_name",)))
    got, body = exposition(source, accept)
    assert got.partition(";")[0] == kind
    text = body.decode()
    assert 'vllm:num_requests_running{model_name="m"} 2.0\n' in text
    assert "\nprocess_open_fds " in text
    assert text.endswith(ends)
