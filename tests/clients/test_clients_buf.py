"""`buf curl`: a gRPC client that knows no proto of ours, only what the gateway's reflection tells it."""

import json
import subprocess
from typing import Any

import pytest

from tests.clients.conftest import BIN, Served

pytestmark = pytest.mark.timeout(300)


def curl(served: Served, method: str, *words: str, key: str = "") -> "subprocess.CompletedProcess[str]":
    door = ["--header", f"Authorization: Bearer {key or served.key}"]
    command = [str(BIN / "buf"), "curl", "--protocol", "grpc", *door, *words, f"http://{served.grpc_addr}/{method}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def values(text: str) -> list[Any]:
    """JSON objects that follow one another, as a stream is shown."""
    found, decoder, rest = list[Any](), json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found, rest = [*found, value], rest[end:].strip()
    return found


def test_it_finds_what_there_is(served: Served) -> None:
    services = curl(served, "", "--list-services").stdout.split()
    methods = curl(served, "", "--list-methods").stdout.split()
    wanted = {"headrace.v1.GatewayService", "inference.GRPCInferenceService", "grpc.health.v1.Health"}
    assert wanted <= set(services)
    assert "headrace.v1.GatewayService/Generate" in methods


def test_health_and_models(served: Served) -> None:
    health = curl(served, "grpc.health.v1.Health/Check", "--data", '{"service": "headrace.v1.GatewayService"}')
    models = curl(served, "headrace.v1.GatewayService/ListModels")
    assert json.loads(health.stdout) == {"status": "SERVING"}, health.stderr
    assert [model["id"] for model in json.loads(models.stdout)["models"]] == [served.model]


def test_it_generates_a_stream(served: Served) -> None:
    text = {"text": "What is the capital of France?"}
    asked = {"messages": [{"role": "user", "content": [text]}], "sampling": {"maxTokens": 20}}
    told = curl(served, "headrace.v1.GatewayService/Generate", "--data", json.dumps(asked))
    events = values(told.stdout)
    assert [kind for event in events for kind in event] == ["started", *["delta"] * (len(events) - 2), "end"]
    assert "Paris" in "".join(event["delta"].get("text", "") for event in events[1:-1])
    assert events[-1]["end"]["reason"] == "FINISH_REASON_STOP"


def test_errors_have_details(served: Served) -> None:
    """Read through reflection, too: the field that is at fault stands in google.rpc.BadRequest."""
    asked = {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "sampling": {"temperature": -3}}
    wrong = curl(served, "headrace.v1.GatewayService/Generate", "--data", json.dumps(asked))
    nobody = curl(served, "headrace.v1.GatewayService/ListModels", key="nobody")
    assert wrong.returncode != 0
    assert json.loads(wrong.stderr)["code"] == "invalid_argument", wrong.stderr
    assert "temperature" in wrong.stderr
    assert json.loads(nobody.stderr)["code"] == "unauthenticated", nobody.stderr
