"""The governor as a real process on a real NATS: it hears workers, tells state and metrics, drains."""

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.mesh import rpc, subjects
from headrace.mesh.bus import Bus
from headrace.v1 import governor_pb2, governor_pb2_grpc, queue_pb2
from services.governor.history import FORGET_S, SAMPLES, STALE_S, WORKERS, History


def sample(worker: str, incarnation: str = "a", decode_tokens: int = 0) -> governor_pb2.Telemetry:
    return governor_pb2.Telemetry(worker=worker, incarnation=incarnation, host="h", decode_tokens=decode_tokens)


def test_history_is_bounded_and_forgets() -> None:
    history = History()
    for i in range(SAMPLES + 10):
        history.on_telemetry(sample("decode-0", decode_tokens=i), float(i))
    (_, worker), *_ = history
    assert [len(worker.samples), worker.samples[-1].decode_tokens] == [SAMPLES, SAMPLES + 9]
    now_s = SAMPLES + 9.0
    assert not worker.stale(now_s + STALE_S)
    assert worker.stale(now_s + STALE_S + 0.1)
    for i in range(WORKERS):
        history.on_telemetry(sample(f"w-{i}"), now_s + 1)
    assert len(list(history)) == WORKERS
    assert "decode-0" not in dict(history)
    history.forget(now_s + 1 + FORGET_S + 0.1)
    assert list(history) == []


def test_a_new_incarnation_begins_anew_and_a_leaving_worker_is_stale() -> None:
    history = History()
    history.on_telemetry(sample("decode-0", "a", 7), 0.0)
    history.on_heartbeat(queue_pb2.Heartbeat(worker="decode-0", leaving=True), 0.1)
    assert dict(history)["decode-0"].stale(0.2)
    history.on_telemetry(sample("decode-0", "b", 1), 0.3)
    worker = dict(history)["decode-0"]
    assert [one.decode_tokens for one in worker.samples] == [1]
    assert not worker.stale(0.4)


@pytest.fixture
async def governor(nats_url: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    env = os.environ | {"HEADRACE_NATS_URL": nats_url, "HEADRACE_HOST": "here"}
    argv = [sys.executable, "-m", "services.governor", "--id", "governor-0"]
    process = await asyncio.create_subprocess_exec(*argv, env=env, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    facts = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    yield process, facts
    if process.returncode is None:
        process.kill()
        await process.wait()


Running = tuple[asyncio.subprocess.Process, dict[str, str]]


async def test_it_observes_and_tells(governor: Running, nats_url: str) -> None:
    process, facts = governor
    bus = await Bus.connect(nats_url, "decode-0")
    told = sample("decode-0", decode_tokens=321)
    told.evictions = 5
    told.devices.add(device="nvml:0", source="nvml", power_w=70.0, temp_c=-1.0, energy_j=9.0)
    told.devices.add(device="plant:0", source="plant", power_w=80.0, temp_c=40.0, energy_j=9.0)
    await bus.publish(subjects.TELEMETRY, b"\xff junk")
    for _ in range(3):
        await bus.publish(subjects.TELEMETRY, told.SerializeToString())
    await bus.flush()
    async with rpc.channel(facts["grpc"]) as channel:
        stub = governor_pb2_grpc.GovernorServiceStub(channel)  # type: ignore[no-untyped-call]
        state = await stub.GetState(governor_pb2.GetGovernorStateRequest(history=2))
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    (worker,) = state.workers
    assert (worker.worker, worker.stale, len(worker.samples)) == ("decode-0", False, 2)
    assert worker.samples[-1] == told
    assert len(state.notes) + len(state.devices) > 0, "what cannot be read is said"

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{facts['metrics_port']}/metrics", timeout=5) as reply:
            return str(reply.read().decode())

    text = await asyncio.to_thread(scrape)
    assert 'headrace_worker_decode_tokens_total{worker="decode-0"} 321.0' in text
    assert 'headrace_worker_evictions_total{worker="decode-0"} 5.0' in text
    assert 'headrace_device_power_watts{device="nvml:0",host="h"} 70.0' in text
    assert 'headrace_device_power_watts{device="decode-0/plant:0",host="h"} 80.0' in text, "each worker plays its own"
    assert 'headrace_device_temperature_celsius{device="nvml:0"' not in text
    assert "headrace_governor_unreadable_messages_total 1.0" in text
    await bus.close()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0
