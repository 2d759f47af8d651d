"""A mesh as operators see it from outside: what it exports, from a slow bucket to a trace, from a trace to the logs."""

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from headrace.cli import targets, trace
from headrace.cli.supervisor import Mesh
from headrace.client.door import Door
from tests.deploy.queries import METRIC, alert_queries, board_queries
from tests.e2e.asking import ask, picture, request
from tests.e2e.otlp import Receiver
from tests.e2e.test_traces import SAMPLED, exported, longest

pytest.importorskip("yaml")

SECRET = "PELICAN-7731"  # what is asked, which no log may repeat
SERVICES = {"gateway-0", "qm-0", "encoder-0", "prefill-0", "decode-0"}


async def scraped(mesh: Mesh) -> dict[str, str]:
    """OpenMetrics of every process, as targets.json lists them."""
    groups = json.loads((mesh.data_dir / targets.NAME).read_text())
    addresses = [address for group in groups for address in group["targets"]]
    async with httpx.AsyncClient(headers={"accept": trace.OPEN_METRICS}) as http:
        replies = await asyncio.gather(*(http.get(f"http://{address}/metrics") for address in addresses))
    assert {reply.headers["content-type"].partition(";")[0] for reply in replies} == {"application/openmetrics-text"}
    return {address: reply.text for address, reply in zip(addresses, replies, strict=True)}


async def test_a_real_mesh_exports_what_alerts_and_boards_name(mesh: Mesh) -> None:
    """Parsed strictly: every family is well formed, too. A family without a sample yet is there all the same."""
    texts = (await scraped(mesh)).values()
    families = [family for text in texts for family in text_string_to_metric_families(text)]  # type: ignore[no-untyped-call]
    exported_names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    for where, query in (*alert_queries(), *board_queries()):
        named = {re.sub("_(bucket|sum|count)$", "", name) for name in METRIC.findall(query)}
        assert named - exported_names == set(), where


async def test_from_a_slow_bucket_to_its_trace(mesh: Mesh, traces: Receiver) -> None:
    """One request waits for an encoder that stands still; its bucket's exemplar leads to the span that took so long."""
    mesh.kill("encoder-0", signal.SIGSTOP)
    asking = asyncio.create_task(ask(mesh.grpc_addr, request("slow", images=[picture(201)], max_tokens=4), SAMPLED))
    await asyncio.sleep(1.1)
    mesh.kill("encoder-0", signal.SIGCONT)
    answer = await asking
    found = await asyncio.to_thread(trace.slowest, mesh.http_urls(), "headrace_time_to_first_token_seconds", Door())
    slow = next(one for one in found if one.request_id == answer.request_id)
    assert slow.value_s > 1.0 == slow.over_s, "the bucket from 1 to 2.5 s"
    worst = longest(await exported(traces, slow.trace_id, ("queue", "encode", "prefill", "decode")))
    assert worst.name in ("media", "preprocess", "encode")
    assert worst.end_s - worst.start_s > slow.value_s / 3, "preprocessing is the other part of the wait"


async def test_older_scrapers_get_no_exemplars(mesh: Mesh) -> None:
    await ask(mesh.grpc_addr, request("traced", max_tokens=2), SAMPLED)
    async with httpx.AsyncClient() as http:
        reply = await http.get(f"{mesh.http_url}/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert "trace_id" not in reply.text
    assert "# {" in "".join((await scraped(mesh)).values())


async def test_one_request_in_the_logs_of_all_services(mesh: Mesh, traces: Receiver) -> None:
    answer = await ask(mesh.grpc_addr, request(SECRET, images=[picture(202)], max_tokens=6), SAMPLED)
    spans = await exported(traces, answer.trace_id, ("queue", "encode", "prefill", "decode"))
    lines = await told(mesh.data_dir, answer.trace_id)
    assert {line["process"] for line in lines} == SERVICES
    assert {line["request_id"] for line in lines} == {answer.request_id}
    spoken = {span.span_id for span in spans}
    assert {line["span_id"] for line in lines} <= spoken, "each line stands by a span of its trace"
    assert {line.get("stage", "request") for line in lines} >= {"request", "queue", "encode", "prefill", "decode"}
    assert trace.log_lines(mesh.data_dir, {answer.trace_id})[-1].split()[2:4] == ["gateway-0", "request"]
    logs = "".join([path.read_text(errors="replace") for path in (mesh.data_dir / "logs").glob("*.log")])
    assert SECRET not in logs
    assert answer.text.strip() not in logs


async def test_a_request_that_fails_has_a_line_though_nobody_traced_it(mesh: Mesh) -> None:
    answer = await ask(mesh.grpc_addr, request("late", max_tokens=4000, timeout_s=0.3))
    assert answer.reason == "deadline"
    (line,) = await told(mesh.data_dir, answer.request_id)
    assert (line["process"], line["event"], line["reason"]) == ("gateway-0", "request", "deadline")
    assert "trace_id" not in line


async def told(data_dir: Path, name: str) -> list[dict[str, Any]]:
    """Log lines with this id, once its gateway has written the last one."""
    for _ in range(50):
        lines = [line for log in (data_dir / "logs").glob("*.log") for line in trace._lines(log, (name,))]
        if any(line["event"] == "request" for line in lines):
            return lines
        await asyncio.sleep(0.1)
    raise AssertionError(f"no gateway's line of {name}")
