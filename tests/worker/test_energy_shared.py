"""Whose energy it is, over a real bus: requests that end, are cancelled, evicted, fail or vanish share it."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from headrace.control.constants import H100
from headrace.core.errors import StageError
from headrace.core.instance import Pace
from headrace.core.types import Key, MediaSpan, Prompt
from headrace.engines.families import family
from headrace.mesh.sensors import Sensors
from headrace.profiles import engine_profile
from headrace.wire.convert import handle_from_proto, stage_span_from_proto
from headrace.worker.app import Stock, Worker
from headrace.worker.devices import Devices
from headrace.worker.plant import Plant
from headrace.worker.readings import worker_registry
from tests.worker.kit import (
    ATTEMPT,
    MODEL,
    Gate,
    GatedProfile,
    Mesh,
    Peer,
    command,
    outfit,
    picture,
    prefill,
    request_id,
    until,
)

pytestmark = pytest.mark.timeout(60)

PROMPT = Prompt(tuple(range(2, 400)))
ENCODE_TOKEN_S = 0.002


class Powered:
    """Workers on plants of their own."""

    def __init__(self, mesh: Mesh, stack: AsyncExitStack) -> None:
        self.mesh = mesh
        self.stack = stack
        self.plants: dict[str, Plant] = {}
        self.devices: dict[str, Devices] = {}

    async def start(self, name: str, *stages: str, gate: Gate | None = None) -> Worker:
        now_s = asyncio.get_running_loop().time()
        plant = self.plants[name] = Plant(H100, 2, 25.0, name, now_s)
        devices = self.devices[name] = Devices(Sensors([]), plant)
        tiny = family(MODEL)
        fitted = outfit(stages, "h100-qwen3-8b")  # type: ignore[arg-type]
        if gate is not None:
            engine = GatedProfile(
                tiny.spec, tiny.pieces, engine_profile("h100-qwen3-8b"), slots=64, blocks=4096, chunk_tokens=512
            )
            engine.gate = gate
            fitted = replace(fitted, engine=engine)
        stock = Stock(replace(fitted, encode_token_s=ENCODE_TOKEN_S))
        return await self.stack.enter_async_context(
            self.mesh.worker(name, *stages, stock=stock, devices=devices)  # type: ignore[arg-type]
        )

    def computed_j(self) -> float:
        return sum(one.account.computed_j for one in self.devices.values())

    def lost_j(self) -> float:
        return sum(one.account.lost_j for one in self.devices.values())


def told_j(peer: Peer, keys: list[Key]) -> float:
    """What these requests were told: in their end's usage, or in the timeline of their failure."""
    ends = [peer.ended[key][0].end for key in keys if key in peer.ended]
    failures = [peer.failed[key] for key in keys if key in peer.failed]
    for end in ends:
        assert end.usage.joules == pytest.approx(sum(span.joules for span in end.timeline))
    return sum(end.usage.joules for end in ends) + sum(span.joules for one in failures for span in one.timeline)


async def test_what_requests_are_told_and_what_idles_is_all_that_the_devices_took(mesh: Mesh, peer: Peer) -> None:
    async with AsyncExitStack() as stack:
        powered = Powered(mesh, stack)
        await powered.start("encode-0", "encode")
        await powered.start("prefill-0", "prefill")
        gate = Gate()
        gate.let(0)  # nothing ends before it has been said what becomes of it
        decoder = await powered.start("decode-0", "decode", gate=gate)
        keys = [Key(request_id(), ATTEMPT) for _ in range(10)]
        for key in keys[:-1]:
            peer.send("prefill-0", prefill=prefill(key, "decode-0", prompt=PROMPT, max_tokens=60))
        seen, cancelled, evicted, failed, gone, early = keys[-1], *keys[:5]
        peer.send("prefill-0", cancel=early)
        peer.send("encode-0", encode=await command(mesh, seen, 0, picture("red")))
        await until(lambda: (seen, 0) in peer.encoded)
        part = peer.encoded[seen, 0]
        handle, timeline = handle_from_proto(part.embedding), tuple(map(stage_span_from_proto, part.timeline))
        assert timeline[-1].joules == pytest.approx(2 * H100.encode_w * ENCODE_TOKEN_S * handle.length)
        tokens = (*(family(MODEL).spec.placeholder_id,) * handle.length, 65, 66)
        prompt = Prompt(tokens, (MediaSpan(0, 0, handle.length),))
        asked = prefill(seen, "decode-0", prompt=prompt, embeddings=(handle,), timeline=timeline, max_tokens=20)
        peer.send("prefill-0", prefill=asked)

        await until(lambda: all(key in peer.joined for key in (cancelled, evicted, failed, gone)))
        gate.let(10)
        await until(lambda: all(len(peer.tokens.get(key, ())) > 3 for key in (cancelled, evicted, failed, gone)))
        peer.send("decode-0", evict=evicted)
        peer.send("decode-0", cancel=cancelled)
        assert decoder._requests is not None
        decoder._requests.fail(decoder.holds.requests[failed.request_id], StageError("on purpose"), retryable=True)
        peer.send("decode-0", release=gone)
        await until(lambda: evicted in peer.evicted and cancelled in peer.ended and failed in peer.failed)
        gate.open()
        assert [span.stage for span in peer.evicted[evicted][0].timeline] == ["transfer", "decode"]
        peer.send("decode-0", resume=evicted)
        last = [key for key in keys if key not in (failed, gone)]
        await until(lambda: all(key in peer.ended for key in last) and failed in peer.failed)

        # Of one that was let go nobody but the queue manager knows: from the end of its prefill.
        known_j = told_j(peer, keys) + sum(span.joules for span in peer.prefilled[gone].timeline)
        assert known_j + powered.lost_j() == pytest.approx(powered.computed_j(), rel=1e-6)
        assert 0 < powered.lost_j() < 0.2 * powered.computed_j()
        every = [peer.ended[key][0].end for key in last if key not in (cancelled, early)]
        assert min(end.usage.joules for end in every) > 0
        stages = {span.stage for span in peer.ended[seen][0].end.timeline if span.joules}
        assert stages == {"encode", "prefill", "decode"}
        spans = {span.stage: span.joules for span in peer.prefilled[seen].timeline}
        assert spans["prefill"] > 0, "the queue manager knows it before the end"
        for key in keys:
            for worker in ("encode-0", "prefill-0", "decode-0"):
                peer.send(worker, release=key)
        await asyncio.sleep(0.3)
        for name, plant in powered.plants.items():
            plant.advance(asyncio.get_running_loop().time())
            charged_j = powered.devices[name].account.computed_j
            assert charged_j + plant.idle_j == pytest.approx(plant.energy_j, rel=0.02), name
            assert charged_j > 0


async def test_counters_for_prometheus(mesh: Mesh, peer: Peer) -> None:
    async with AsyncExitStack() as stack:
        powered = Powered(mesh, stack)
        worker = await powered.start("both-0", "prefill", "decode")
        key = Key(request_id(), ATTEMPT)
        peer.send("both-0", prefill=prefill(key, "both-0", prompt=PROMPT, max_tokens=10))
        await until(lambda: key in peer.ended)
        registry = worker_registry("both-0", worker.state, powered.devices["both-0"].account)
        labels = {"worker": "both-0"}
        found = {
            stage: registry.get_sample_value("headrace_energy_joules_total", labels | {"stage": stage})
            for stage in ("prefill", "decode", "encode")
        }
        assert found["prefill"]
        assert found["decode"]
        assert found["encode"] == 0
        assert found["prefill"] + found["decode"] == pytest.approx(told_j(peer, [key]))
        await until(lambda: registry.get_sample_value("headrace_idle_energy_joules_total", labels), 3.0)
        assert registry.get_sample_value("headrace_lost_energy_joules_total", labels) == 0
        peer.send("both-0", release=key)


async def test_without_a_device_nothing_is_said(mesh: Mesh, peer: Peer) -> None:
    async with mesh.worker("both-0", "prefill", "decode", profile="h100-qwen3-8b"):
        key = Key(request_id(), ATTEMPT)
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=4))
        await until(lambda: key in peer.ended)
        assert told_j(peer, [key]) == 0
        peer.send("both-0", release=key)


async def test_seconds_of_work_that_wait(mesh: Mesh, peer: Peer) -> None:
    """At full speed, as the profile says: prompts that stand in the engine and have not been computed."""
    gate = Gate()
    gate.let(0)
    fitted = outfit(("prefill", "decode"))
    tiny = family(MODEL)
    engine = GatedProfile(tiny.spec, tiny.pieces, engine_profile("zero"), slots=8, blocks=4096, chunk_tokens=512)
    engine.gate = gate
    stock = Stock(replace(fitted, engine=engine, pace=Pace(prefill_token_s=0.01)))
    async with mesh.worker("both-0", "prefill", "decode", stock=stock) as worker:
        key = Key(request_id(), ATTEMPT)
        peer.send("both-0", prefill=prefill(key, "both-0", prompt=Prompt(tuple(range(2, 102))), max_tokens=4))
        await until(lambda: len(worker.holds))
        assert worker._gauges().waiting_s == pytest.approx(1.0)
        gate.open()
        await until(lambda: key in peer.ended)
        assert worker._gauges().waiting_s == 0
        peer.send("both-0", release=key)
