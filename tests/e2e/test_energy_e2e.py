"""Joules of a request through real processes on plants: in usage over gRPC and HTTP, in spans and in metrics."""

import asyncio
import json
import re
import urllib.request
from pathlib import Path

import httpx
import pytest

from headrace.cli.supervisor import Mesh
from headrace.mesh.servers import free_port
from tests.e2e.asking import Answer, ask, picture, request
from tests.e2e.meshes import STEADY, small_mesh

pytestmark = pytest.mark.timeout(120)

WORKERS = ("encoder-0", "prefill-0", "decode-0")
SAMPLED = [("x-headrace-trace", "1")]
COUNTER = re.compile(r'headrace_energy_joules_total\{stage="(\w+)",worker="[\w-]+"\} (\S+)')


def scraped(address: str) -> dict[str, float]:
    """By stage."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        return {stage: float(value) for stage, value in COUNTER.findall(reply.read().decode())}


def joules(answer: Answer) -> dict[str, float]:
    """By stage, and together as the usage says."""
    assert answer.faults == []
    assert answer.end is not None
    found: dict[str, float] = {}
    for span in answer.end.timeline:
        found[span.stage] = found.get(span.stage, 0.0) + span.joules
    assert answer.end.usage.joules == pytest.approx(sum(found.values()))
    return found


async def test_every_answer_tells_what_it_has_cost(tmp_path: Path) -> None:
    profile, spans = tmp_path / "seeing.toml", tmp_path / "spans.jsonl"
    profile.write_text(STEADY.read_text() + "\n[encode]\ntoken_s = 2e-3\n")
    metrics = {name: f"127.0.0.1:{free_port()}" for name in WORKERS}
    config = small_mesh(
        tmp_path / "mesh",
        gateways=1,
        profile=str(profile),
        environment={
            "HEADRACE_PLANT": "h100x2",
            "HEADRACE_TRACE_FILE": str(spans),
            "HEADRACE_TRACE_SAMPLE": "0",  # who asks is traced, nobody else by chance
        },
        service_environment={name: {"HEADRACE_METRICS_ADDR": address} for name, address in metrics.items()},
    )
    async with Mesh(config) as mesh:
        seeing = await ask(mesh.grpc_addr, request("what is it?", images=[picture(1)], max_tokens=12), SAMPLED)
        cost = joules(seeing)
        assert {stage for stage, spent in cost.items() if spent} == {"encode", "prefill", "decode"}
        again = joules(await ask(mesh.grpc_addr, request("what is it?", images=[picture(1)], max_tokens=12)))
        assert again["encode"] == 0.0, "its embedding was there"
        body = {"model": "profile-tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}
        async with httpx.AsyncClient(base_url=mesh.http_url, timeout=30) as client:
            usage = (await client.post("/v1/chat/completions", json=body)).json()["usage"]
        assert usage["joules"] > 0
        counted: dict[str, float] = {}
        for address in metrics.values():
            for stage, spent in (await asyncio.to_thread(scraped, address)).items():
                counted[stage] = counted.get(stage, 0.0) + spent
        told = {stage: cost[stage] + again[stage] for stage in ("encode", "prefill", "decode")}
        assert counted["encode"] == pytest.approx(told["encode"])
        assert sum(counted.values()) == pytest.approx(sum(told.values()) + usage["joules"])
    lines = [json.loads(line) for line in spans.read_text().splitlines()]
    for stage in ("encode", "prefill", "decode"):  # a stage that a busy machine interrupts has several spans
        traced = [float(one["attributes"].get("headrace.joules", 0.0)) for one in lines if one["name"] == stage]
        assert sum(traced) == pytest.approx(cost[stage])


async def test_a_lost_attempt_was_paid_for(tmp_path: Path) -> None:
    """Its decode worker dies at a token: what was told before that stays in the bill."""
    config = small_mesh(
        tmp_path,
        gateways=1,
        environment={"HEADRACE_PLANT": "a100"},
        service_environment={"decode-0": {"HEADRACE_FAULT": "decode.token:30:kill"}},
    )
    async with Mesh(config) as mesh:
        answer = await ask(mesh.grpc_addr, request("on and on", max_tokens=50))
        spent = joules(answer)
        assert answer.end is not None
        prefills = [span.joules for span in answer.end.timeline if span.stage == "prefill"]
        assert len(prefills) == 2, answer.end.timeline
        assert min(prefills) > 0
        assert spent["decode"] > 0
