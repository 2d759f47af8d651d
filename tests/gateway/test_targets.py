"""What a request asks for itself, in every client's dialect: which source is taken, what is clamped, what refused."""

import json
from typing import Any

import pytest

from headrace.core.errors import InvalidInput
from headrace.v1 import gateway_pb2
from services.gateway import chat
from services.gateway.targets import FLOW_CHARS_MAX, Targets, flow_of, of_grpc

Headers = dict[str, str]


def read(body: dict[str, Any], headers: Headers) -> Targets:
    """By the way that every request over HTTP takes."""
    whole = {"messages": [{"role": "user", "content": "hi"}], **body}
    sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    return chat.question(json.dumps(whole).encode(), sent, "").asks[0].targets


def hints(**members: Any) -> dict[str, Any]:
    return {"nvext": {"agent_hints": members}}


LLM_D = {"x-llm-d-slo-ttft-ms": "300", "x-llm-d-slo-tpot-ms": "30", "x-llm-d-inference-fairness-id": "new"}
OLDER = {"x-slo-ttft-ms": "400", "x-slo-tpot-ms": "40", "x-gateway-inference-fairness-id": "old"}
BODY = {"ttft_target_ms": 200, "tbt_target_ms": 20, "flow": "mine"}

TAKEN: dict[str, tuple[dict[str, Any], Headers, Targets]] = {
    "nothing said": ({}, {}, Targets()),
    # where it comes from
    "the body before all headers": (BODY, LLM_D | OLDER, Targets(0.2, 0.02, 0, "mine")),
    "llm-d before its older names": ({}, LLM_D | OLDER, Targets(0.3, 0.03, 0, "new")),
    "the older names": ({}, OLDER, Targets(0.4, 0.04, 0, "old")),
    "each by itself": ({"tbt_target_ms": 20}, {"x-slo-ttft-ms": "400"}, Targets(0.4, 0.02)),
    "an empty header says nothing": ({}, OLDER | {"x-llm-d-slo-ttft-ms": " "}, Targets(0.4, 0.04, 0, "old")),
    "null says nothing": ({"ttft_target_ms": None, "flow": None}, OLDER, Targets(0.4, 0.04, 0, "old")),
    "0: its class's, whatever a proxy adds": ({"ttft_target_ms": 0}, {"x-slo-ttft-ms": "400"}, Targets()),
    "an empty flow: the tenant's": ({"flow": ""}, {"x-gateway-inference-fairness-id": "old"}, Targets()),
    # how much
    "sooner than anybody can": ({"ttft_target_ms": 1}, {}, Targets(0.05)),
    "below zero": ({"ttft_target_ms": -5}, {"x-slo-tpot-ms": "-1e300"}, Targets(0.05, 0.001)),
    "a year": ({"ttft_target_ms": 3e10, "tbt_target_ms": 3e10}, {}, Targets(86_400.0, 60.0)),
    "a header beyond all numbers": ({}, {"x-llm-d-slo-ttft-ms": "9" * 400}, Targets(86_400.0)),
    "fractions": ({}, {"x-slo-tpot-ms": "2.5"}, Targets(tbt_s=0.0025)),
    # priorities
    "vLLM: lower is sooner": ({"priority": -2}, {}, Targets(priority=2)),
    "vLLM: later": ({"priority": 1}, {}, Targets(priority=-1)),
    "vLLM: a time stamp": ({"priority": 1_700_000_000}, {}, Targets(priority=-3)),
    "vLLM: far sooner": ({"priority": -(2**63)}, {}, Targets(priority=3)),
    "Dynamo: higher is sooner": (hints(priority=2), {}, Targets(priority=2)),
    "Dynamo: strict": (hints(strict_priority=1), {}, Targets(priority=1)),
    "Dynamo: both add up": (hints(priority=5, strict_priority=1), {}, Targets(priority=3)),
    "Dynamo: later": (hints(priority=-9), {}, Targets(priority=-3)),
    "Dynamo: members that mean nothing here": (
        {"nvext": {"greed_sampling": True, "agent_hints": {"osl": 9, "priority": 1}}},
        {},
        Targets(priority=1),
    ),
    "Dynamo: nothing said": ({"nvext": {"agent_hints": None}}, {}, Targets()),
    "vLLM before Dynamo": ({"priority": 0, **hints(priority=3)}, {}, Targets()),
    "Dynamo before the tier": ({"service_tier": "priority", **hints(priority=-1)}, {}, Targets(priority=-1)),
    "the tier": ({"service_tier": "priority"}, {}, Targets(priority=1)),
    "tiers that say nothing": ({"service_tier": "auto"}, {}, Targets()),
    # classes that count if there are such
    "flex": ({"service_tier": "flex"}, {}, Targets(class_hints=("batch-1",))),
    "objectives before the tier": (
        {"service_tier": "flex"},
        {"x-gateway-inference-objective": "old", "x-llm-d-inference-objective": "new"},
        Targets(class_hints=("new", "old", "batch-1")),
    ),
}


@pytest.mark.parametrize(("body", "headers", "expected"), TAKEN.values(), ids=TAKEN.keys())
def test_what_is_taken(body: dict[str, Any], headers: Headers, expected: Targets) -> None:
    assert read(body, headers) == expected


REFUSED: dict[str, tuple[dict[str, Any], Headers, str]] = {
    "a target in words": ({"ttft_target_ms": "soon"}, {}, "ttft_target_ms"),
    "a header in words": ({}, {"x-llm-d-slo-ttft-ms": "soon"}, "x-llm-d-slo-ttft-ms"),
    "an older header in words": ({}, {"x-slo-tpot-ms": "20ms"}, "x-slo-tpot-ms"),
    "not a number": ({}, {"x-slo-ttft-ms": "NaN"}, "x-slo-ttft-ms"),
    "a priority in words": ({"priority": "high"}, {}, "priority"),
    "half a priority": ({"priority": 0.5}, {}, "priority"),
    "a hint in words": (hints(priority="high"), {}, "nvext.agent_hints.priority"),
    "a flow of many words": ({"flow": "x" * (FLOW_CHARS_MAX + 1)}, {}, "flow"),
    "a flow across lines": ({"flow": "a\nb"}, {}, "flow"),
    "a fairness id of many words": (
        {},
        {"x-llm-d-inference-fairness-id": "x" * 999},
        "x-llm-d-inference-fairness-id",
    ),
    "an unknown tier": ({"service_tier": "scale"}, {}, "service_tier"),
}


@pytest.mark.parametrize(("body", "headers", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_read_is_named(body: dict[str, Any], headers: Headers, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(body, headers)
    assert caught.value.field == field


GRPC: dict[str, tuple[dict[str, Any], Targets]] = {
    "nothing said": ({}, Targets()),
    "as said": (
        {"ttft_target_s": 0.5, "tbt_target_s": 0.02, "priority": 2, "flow": " agent 7 "},
        Targets(0.5, 0.02, 2, "agent 7"),
    ),
    "clamped": ({"ttft_target_s": 1e-9, "tbt_target_s": 1e9, "priority": -(2**31)}, Targets(0.05, 60.0, -3)),
    "for ever": ({"ttft_target_s": float("inf")}, Targets(86_400.0)),
}


@pytest.mark.parametrize(("fields", "expected"), GRPC.values(), ids=GRPC.keys())
def test_over_grpc(fields: dict[str, Any], expected: Targets) -> None:
    assert of_grpc(gateway_pb2.GenerateRequest(**fields)) == expected


@pytest.mark.parametrize("field", ["ttft_target_s", "tbt_target_s"])
def test_not_a_number_over_grpc(field: str) -> None:
    asked = gateway_pb2.GenerateRequest()
    setattr(asked, field, float("nan"))
    with pytest.raises(InvalidInput) as caught:
        of_grpc(asked)
    assert caught.value.field == field


def test_a_flow_is_one_tenants_alone() -> None:
    """Whatever they call their flows: no two, and no tenant without one, share a name."""
    named = [("a", "x"), ("b", "x"), ("a/b", "c"), ("a", "b/c"), ("a", "b c")]
    names = [flow_of(tenant, flow) for tenant, flow in named]
    assert len({*names, "a", "b", "a/b"}) == len(names) + 3
    assert flow_of("a", "") == ""
