"""What a request asks for itself: its own times, a priority, a flow; in every client's dialect, made one.

Of several sources the first that says anything is taken: a field of the body, then x-llm-d-* headers, then their older
names. Values out of range are clamped (headrace.core.slo); what cannot be read is an error that names where it stood.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.core.errors import InvalidInput
from headrace.core.slo import effective_target_s, priority_clamped, tbt_clamped_s, ttft_clamped_s
from headrace.v1 import gateway_pb2
from services.gateway import bodies

FLOW_CHARS_MAX = 256  # as an idempotency key: a name, not a message

TTFT_HEADERS = (b"x-llm-d-slo-ttft-ms", b"x-slo-ttft-ms")
TBT_HEADERS = (b"x-llm-d-slo-tpot-ms", b"x-slo-tpot-ms")
FLOW_HEADERS = (b"x-llm-d-inference-fairness-id", b"x-gateway-inference-fairness-id")
CLASS_HEADERS = (b"x-llm-d-inference-objective", b"x-gateway-inference-objective")

FLEX_CLASS = "batch-1"  # of OpenAI's service_tier "flex": cheaper, later
TIER_PRIORITY = {"priority": 1}

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Targets:
    """0 and empty: the class's, the tenant's. Clamped."""

    ttft_s: float = 0.0
    tbt_s: float = 0.0
    priority: int = 0  # higher is sooner
    flow: str = ""  # as the client calls it: of this tenant alone
    class_hints: tuple[str, ...] = ()  # names that count if a class has them, first things first

    def before(self, class_ttft_s: float) -> bool:
        """Whether it goes before the others of a class with this target, as the queue orders them."""
        return effective_target_s(self.ttft_s or class_ttft_s, self.priority) < class_ttft_s


NOTHING_SAID = Targets()


def of_http(chat: bodies.Asked, headers: Headers) -> Targets:
    """Raises InvalidInput: naming the field or the header."""
    return Targets(
        ttft_s=ttft_clamped_s(_asked_s("ttft_target_ms", chat.ttft_target_ms, headers, TTFT_HEADERS)),
        tbt_s=tbt_clamped_s(_asked_s("tbt_target_ms", chat.tbt_target_ms, headers, TBT_HEADERS)),
        priority=priority_clamped(_priority(chat)),
        flow=_flow_of_http(chat, headers),
        class_hints=_class_hints(chat, headers),
    )


def of_grpc(request: gateway_pb2.GenerateRequest) -> Targets:
    """Raises InvalidInput: naming the field."""
    return Targets(
        ttft_s=ttft_clamped_s(_number("ttft_target_s", request.ttft_target_s)),
        tbt_s=tbt_clamped_s(_number("tbt_target_s", request.tbt_target_s)),
        priority=priority_clamped(request.priority),
        flow=_flow("flow", request.flow),
    )


def flow_of(tenant: str, flow: str) -> str:
    """Names one flow of one tenant: a tenant's name has no space in it. Empty: whatever the tenant sends."""
    return f"{tenant} {flow}" if flow else ""


def _asked_s(field: str, value_ms: float | None, headers: Headers, names: tuple[bytes, ...]) -> float:
    if value_ms is not None:
        return _number(field, value_ms) / 1e3
    name, text = _header(headers, names)
    if not text:
        return 0.0
    try:
        return _number(name, float(text)) / 1e3
    except ValueError:
        raise InvalidInput(f"{text[:32]!r} is not a number of milliseconds", field=name) from None


def _number(field: str, value: float) -> float:
    if math.isnan(value):
        raise InvalidInput(f"{field} is not a number", field=field)
    return value


def _priority(chat: bodies.Asked) -> int:
    """vLLM's priority is lower for what is sooner, everybody else's is higher. Of Dynamo's two, which order by one and
    then by the other, the sum is taken: either alone makes a request sooner."""
    if chat.priority is not None:
        return -chat.priority
    hints = chat.nvext.agent_hints if chat.nvext is not None else None
    if hints is not None and (hints.priority is not None or hints.strict_priority is not None):
        return (hints.priority or 0) + (hints.strict_priority or 0)
    return TIER_PRIORITY.get(chat.service_tier or "", 0)


def _flow_of_http(chat: bodies.Asked, headers: Headers) -> str:
    if chat.flow is not None:
        return _flow("flow", chat.flow)
    name, text = _header(headers, FLOW_HEADERS)
    return _flow(name, text)


def _flow(field: str, flow: str) -> str:
    flow = flow.strip()
    if len(flow) > FLOW_CHARS_MAX or not flow.isprintable():
        raise InvalidInput(f"the name of a flow has at most {FLOW_CHARS_MAX} printable characters", field=field)
    return flow


def _class_hints(chat: bodies.Asked, headers: Headers) -> tuple[str, ...]:
    said = [headers[name].decode("latin-1").strip() for name in CLASS_HEADERS if name in headers]
    return (*said, FLEX_CLASS) if chat.service_tier == "flex" else tuple(said)


def _header(headers: Headers, names: tuple[bytes, ...]) -> tuple[str, str]:
    """The first of these headers that says anything, and what it says."""
    for name in names:
        if text := headers.get(name, b"").strip():
            return name.decode(), text.decode("latin-1")
    return "", ""
