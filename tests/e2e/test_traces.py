"""One trace per request, received by a real OTLP receiver: whole, without gaps, and telling faults apart."""

import asyncio
import signal
import time
import uuid
from collections.abc import Sequence

from headrace.cli.supervisor import Mesh
from tests.e2e.asking import Answer, ask, picture, request
from tests.e2e.otlp import Receiver, Seen

GAP_S = 0.005
SAMPLED = [("x-headrace-trace", "1")]
SERVICES = {f"headrace-{name}" for name in ("gateway", "qm", "encoder", "prefill", "decode")}


async def exported(traces: Receiver, trace_id: str, stages: Sequence[str] = (), within_s: float = 15.0) -> list[Seen]:
    """The spans of a trace once its root and the wanted stages are there; exporters send in batches."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        spans = traces.spans(trace_id)
        names = {span.name for span in spans}
        if any(not span.parent_id for span in spans) and names.issuperset(stages):
            return spans
        await asyncio.sleep(0.1)
    raise AssertionError(f"trace {trace_id!r} incomplete after {within_s} s: {tree(traces.spans(trace_id))}")


def root_of(spans: Sequence[Seen]) -> Seen:
    roots = [span for span in spans if not span.parent_id]
    assert len(roots) == 1, f"one root wanted: {tree(spans)}"
    return roots[0]


def gaps(spans: Sequence[Seen]) -> list[tuple[float, float]]:
    """Intervals of the root, from its start in ms, that no other span covers."""
    root = root_of(spans)
    found, covered_s = [], root.start_s
    for span in sorted((span for span in spans if span.parent_id), key=lambda span: span.start_s):
        if span.start_s - covered_s > GAP_S:
            found.append((covered_s, span.start_s))
        covered_s = max(covered_s, span.end_s)
    if root.end_s - covered_s > GAP_S:
        found.append((covered_s, root.end_s))
    return [(1e3 * (begin - root.start_s), 1e3 * (end - root.start_s)) for begin, end in found]


def tree(spans: Sequence[Seen]) -> str:
    start_s = min((span.start_s for span in spans), default=0.0)
    return "\n".join(
        f"{1e3 * (span.start_s - start_s):8.1f} {1e3 * (span.end_s - start_s):8.1f} ms  {span.service:12} {span.name}"
        for span in sorted(spans, key=lambda span: (span.start_s, span.end_s))
    )


def longest(spans: Sequence[Seen]) -> Seen:
    return max((span for span in spans if span.parent_id), key=lambda span: span.end_s - span.start_s)


async def test_one_request_is_one_whole_trace(mesh: Mesh, traces: Receiver) -> None:
    answer = await ask(mesh.grpc_addr, request("trace me", images=[picture(101), picture(102)], max_tokens=20), SAMPLED)
    spans = await exported(traces, answer.trace_id, ("queue", "encode", "prefill", "decode"))
    root = root_of(spans)
    ids = {span.span_id for span in spans}
    assert [span for span in spans if span.parent_id and span.parent_id not in ids] == [], "no orphans"
    assert {span.service for span in spans} == SERVICES
    assert sum(span.name == "encode" for span in spans) == 2
    assert gaps(spans) == [], f"\n{tree(spans)}"
    assert root.attributes["gen_ai.request.model"] == "profile-tiny"
    assert root.attributes["gen_ai.usage.output_tokens"] == "20"
    assert root.attributes["headrace.request_id"] == answer.request_id


async def test_unsampled_requests_leave_no_trace(mesh: Mesh, traces: Receiver) -> None:
    """The default is one in a hundred; a caller's own traceparent with the flag off is always respected."""
    trace_id = uuid.uuid4().hex  # nobody else's: other tests ask the same mesh
    off = [("traceparent", f"00-{trace_id}-{'cd' * 8}-00")]
    await asyncio.gather(*(ask(mesh.grpc_addr, request(f"quiet {n}", max_tokens=2), off) for n in range(10)))
    sampled = await ask(mesh.grpc_addr, request("loud", max_tokens=2), SAMPLED)
    await exported(traces, sampled.trace_id)
    assert trace_id not in set(traces.traces())


async def test_a_callers_trace_goes_on(mesh: Mesh, traces: Receiver) -> None:
    trace_id, parent_id = "5a" * 16, "7b" * 8
    answer = await ask(
        mesh.grpc_addr, request("join", max_tokens=3), [("traceparent", f"00-{trace_id}-{parent_id}-01")]
    )
    assert answer.trace_id == trace_id
    until = time.monotonic() + 15
    while not (tops := [span for span in traces.spans(trace_id) if span.parent_id == parent_id]):
        assert time.monotonic() < until
        await asyncio.sleep(0.1)
    assert len(tops) == 1


async def test_a_slow_encoder_is_told_from_the_spans(mesh: Mesh, traces: Receiver) -> None:
    """It is stopped for a second: long for a picture, too short for its lease."""
    mesh.kill("encoder-0", signal.SIGSTOP)
    asking = asyncio.create_task(ask(mesh.grpc_addr, request("slow", images=[picture(109)], max_tokens=4), SAMPLED))
    await asyncio.sleep(1.0)
    mesh.kill("encoder-0", signal.SIGCONT)
    answer = await asking
    spans = await exported(traces, answer.trace_id, ("queue", "encode", "prefill", "decode"))
    assert diagnosis(spans) == "slow encoder", f"\n{tree(spans)}"
    assert gaps(spans) == [], f"\n{tree(spans)}"


async def test_a_lost_worker_is_told_from_the_spans(mesh: Mesh, traces: Receiver) -> None:
    asking = asyncio.create_task(ask(mesh.grpc_addr, request("lost", max_tokens=60), SAMPLED))
    await asyncio.sleep(0.25)
    mesh.kill("decode-0")
    answer: Answer = await asking
    await mesh.until_servable()
    assert (answer.reason, len(answer.tokens), answer.faults) == ("length", 60, [])
    spans = await exported(traces, answer.trace_id, ("queue", "prefill", "decode"))
    assert diagnosis(spans) == "lost worker", f"\n{tree(spans)}"
    assert gaps(spans) == [], f"\n{tree(spans)}"


async def test_a_full_queue_is_told_from_the_spans(mesh: Mesh, traces: Receiver) -> None:
    """More requests at once than there are slots: the last one waits in the queue."""
    crowd = [asyncio.create_task(ask(mesh.grpc_addr, request(f"crowd {n}", max_tokens=60))) for n in range(24)]
    await asyncio.sleep(0.2)
    answer = await ask(mesh.grpc_addr, request("last", max_tokens=4), SAMPLED)
    spans = await exported(traces, answer.trace_id, ("queue", "prefill", "decode"))
    await asyncio.gather(*crowd)
    assert diagnosis(spans) == "full queue", f"\n{tree(spans)}"


def diagnosis(spans: Sequence[Seen]) -> str:
    """What an operator would say who sees the spans and nothing else."""
    if any(span.name == "recover" for span in spans):
        return "lost worker"
    worst = longest(spans)
    if worst.end_s - worst.start_s < 0.1:
        return "nothing wrong"
    causes = {"media": "slow encoder", "encode": "slow encoder", "queue": "full queue"}
    return causes.get(worst.name, f"slow {worst.name}")
