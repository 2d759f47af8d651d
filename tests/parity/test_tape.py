"""Core, shell and world agree: a tape recorded from real processes over real NATS replays to the same effects."""

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.cli.supervisor import Mesh
from headrace.core.events import PartEncoded
from headrace.core.tape import read_tape
from tests.e2e.asking import ask, picture, request
from tests.e2e.meshes import chaos_mesh
from tests.parity.replaying import differs, kinds, replayed

EFFECTS = {"SendEncode", "SendPrefill", "SendRelease", "SendCancel", "StoreResult", "DeleteRecord", "RecoverTokens"}
EVENTS = {"RequestAccepted", "PartEncoded", "Prefilled", "Joined", "Ended", "Heartbeat", "Tick", "TokensRecovered"}


async def tell_a_story(mesh: Mesh) -> None:
    """Text and images at once, a client that leaves, and a decode worker that dies with streams."""
    asked = [request(f"question {n}", images=[picture(n)] * (n % 3), max_tokens=4 + n % 9) for n in range(12)]
    answers = await asyncio.gather(*(ask(mesh.grpc_addr, message) for message in asked))
    assert [len(answer.tokens) for answer in answers] == [4 + n % 9 for n in range(12)]
    leaving = asyncio.create_task(ask(mesh.grpc_addr, request("leaves", max_tokens=400)))
    dying = [asyncio.create_task(ask(mesh.grpc_addr, request(f"goes on {n}", max_tokens=120))) for n in range(6)]
    await asyncio.sleep(0.4)
    leaving.cancel()
    mesh.kill("decode-0", signal.SIGKILL)
    whole = await asyncio.gather(*dying)
    assert [len(answer.tokens) for answer in whole] == [120] * 6


@pytest.mark.timeout(120)
async def test_a_tape_of_real_processes_replays_to_every_effect(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    config = chaos_mesh(tmp_path / "mesh")
    config = replace(config, environment={**config.environment, "HEADRACE_TAPE": str(tape)})
    async with Mesh(config) as mesh:
        await tell_a_story(mesh)
        await asyncio.sleep(1.0)  # the last releases
    with tape.open() as lines:
        queue_config, frames = read_tape(lines)
        recorded = list(frames)
    events, effects = kinds(recorded)
    assert events.keys() >= EVENTS, "the story has everything in it"
    assert effects.keys() >= EFFECTS
    assert replayed(queue_config, recorded)[1] == []
    without = [frame for frame in recorded if not isinstance(frame.event, PartEncoded)]
    assert differs(queue_config, without), "the comparison sees what is missing"
    assert differs(replace(queue_config, lease_s=0.1), recorded), "and what was decided otherwise"
