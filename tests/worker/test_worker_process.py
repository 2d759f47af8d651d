"""Worker processes, killed and drained: what their peers see."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.core.types import Key
from headrace.v1 import queue_pb2
from tests.worker.kit import ATTEMPT, MODEL, Peer, prefill, request_id, until

pytestmark = [pytest.mark.timeout(60), pytest.mark.chaos]


class Services:
    """Worker processes of one test."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = os.environ | environment
        self.running: list[asyncio.subprocess.Process] = []

    async def start(self, service: str, name: str, *flags: str, fault: str = "") -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", f"services.{service}", "--id", name, *flags),
            env=self._environment | {"HEADRACE_FAULT": fault},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.running.append(process)
        assert process.stdout is not None
        line = json.loads(await process.stdout.readline())
        assert (line["event"], line["process"]) == ("ready", name)
        return process


@pytest.fixture
async def services(nats_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    services = Services(
        {
            "HEADRACE_NATS_URL": nats_url,
            "HEADRACE_REDIS_URL": redis_url,
            "HEADRACE_CELL": "test-processes",
            "HEADRACE_DATA_DIR": str(tmp_path / "data"),
            "HEADRACE_SHM_DIR": str(tmp_path / "shm"),
            "HEADRACE_MODEL": MODEL,
            "HEADRACE_ENGINE": "profile",
        }
    )
    yield services
    for process in services.running:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_prefill_killed_before_it_told_of_its_kv_cache(services: Services, peer: Peer) -> None:
    """The queue manager hears a first token and then nothing: no Prefilled, no Join, no more heartbeats."""
    killed = await services.start("prefill", "prefill-0", fault="prefill.kv_registered:1:kill")
    await services.start("decode", "decode-0")
    key = Key(request_id(), ATTEMPT)
    await until(lambda: {"prefill-0", "decode-0"} <= peer.beats.keys())
    peer.send("prefill-0", prefill=prefill(key, "decode-0"))
    assert await killed.wait() == -signal.SIGKILL
    beats = len(peer.beats["prefill-0"])
    await until(lambda: len(peer.beats["decode-0"]) > 4)
    assert len(peer.beats["prefill-0"]) <= beats + 1
    assert not peer.beats["prefill-0"][-1].leaving, "its lease must run out: it may have died of the request"
    assert (key in peer.prefilled, key in peer.joined) == (False, False)
    again = replace(key, attempt=ATTEMPT + 1)
    await services.start("prefill", "prefill-1")
    await until(lambda: "prefill-1" in peer.beats)
    peer.send("prefill-1", prefill=prefill(again, "decode-0", emitted=tuple(peer.text(key))))
    await until(lambda: again in peer.ended)
    assert len(peer.ended[again][0].tokens) == 32


async def test_prefill_killed_after_it_handed_over(services: Services, peer: Peer) -> None:
    """The mapped file outlives its process: decode has it, or still finds it."""
    killed = await services.start("prefill", "prefill-0", fault="prefill.handed_over:1:kill")
    await services.start("decode", "decode-0")
    key = Key(request_id(), ATTEMPT)
    await until(lambda: {"prefill-0", "decode-0"} <= peer.beats.keys())
    peer.send("prefill-0", prefill=prefill(key, "decode-0"))
    assert await killed.wait() == -signal.SIGKILL
    await until(lambda: key in peer.ended)
    assert key in peer.prefilled
    assert len(peer.ended[key][0].tokens) == 32


async def test_sigterm_drains(services: Services, peer: Peer) -> None:
    process = await services.start("decode", "both-0", "--stages", "prefill,decode", "--profile", "h100-qwen3-8b")
    key = Key(request_id(), ATTEMPT)
    await until(lambda: "both-0" in peer.beats)
    peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=50))
    await until(lambda: peer.tokens.get(key))
    process.terminate()
    await until(lambda: key in peer.ended)
    await until(lambda: [hold.state for hold in peer.holds("both-0")] == [queue_pb2.HOLD_STATE_ENDED])
    assert peer.beats["both-0"][-1].draining
    peer.send("both-0", release=key)
    assert await process.wait() == 0
    await until(lambda: peer.beats["both-0"][-1].leaving)


@pytest.mark.parametrize(
    "fault",
    ["decode.evicting", "decode.evicted", "decode.resuming", "decode.resumed", "worker.loading", "worker.loaded"],
)
async def test_killed_between_two_tokens(services: Services, peer: Peer, fault: str) -> None:
    """In the middle of an eviction, a restore or a load: another worker goes on from what was told."""
    flags = ("--stages", "prefill,decode", "--models", f"{MODEL}-b")
    paced = (*flags, "--profile", "h100-qwen3-8b")  # seconds for all tokens: it is killed long before the last one
    killed = await services.start("decode", "both-0", *paced, fault=f"{fault}:1:kill")
    key = Key(request_id(), ATTEMPT)
    await until(lambda: "both-0" in peer.beats)
    peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=400))
    await until(lambda: len(peer.tokens.get(key, ())) > 5)
    waiting = asyncio.create_task(killed.wait())
    peer.send("both-0", evict=key)
    await until(lambda: key in peer.evicted or waiting.done())
    if fault.startswith("decode"):
        peer.send("both-0", resume=key)
    else:
        peer.send("both-0", load=f"{MODEL}-b")
    assert await waiting == -signal.SIGKILL
    assert (fault == "decode.evicting") == (key not in peer.evicted)
    assert not peer.beats["both-0"][-1].leaving
    again = replace(key, attempt=ATTEMPT + 1)
    await services.start("decode", "both-1", *flags)
    await until(lambda: "both-1" in peer.beats)  # it hears whoever has heard from it
    peer.send("both-1", prefill=prefill(again, "both-1", max_tokens=400, emitted=tuple(peer.text(key))))
    await until(lambda: again in peer.ended)
    fresh = Key(request_id(), ATTEMPT)
    peer.send("both-1", prefill=prefill(fresh, "both-1", max_tokens=400))
    await until(lambda: fresh in peer.ended)
    assert list(peer.ended[again][0].tokens) == peer.text(fresh), "as if nothing had happened"


async def test_a_model_is_loaded_by_order(services: Services, peer: Peer) -> None:
    await services.start("decode", "both-0", "--stages", "prefill,decode", "--models", f"{MODEL}-b,{MODEL}-c")
    await until(lambda: "both-0" in peer.beats)
    assert [each.model for each in peer.beats["both-0"][-1].loadable] == [f"{MODEL}-b", f"{MODEL}-c"]
    peer.send("both-0", load=f"{MODEL}-b")
    await until(lambda: peer.beats["both-0"][-1].model == f"{MODEL}-b")
    assert {each.model: each.warm for each in peer.beats["both-0"][-1].loadable} == {MODEL: True, f"{MODEL}-c": False}
    key = Key(request_id(), ATTEMPT)
    peer.send("both-0", prefill=prefill(key, "both-0", model=f"{MODEL}-b"))
    await until(lambda: key in peer.ended)
    peer.send("both-0", release=key)


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        (("--stages", "prefil"), {}, "unknown ['prefil']"),
        (("--engine", "vllm"), {}, "run with --stages prefill,decode"),
        (("--engine", "vllm", "--stages", "prefill,decode"), {}, "loads Hugging Face directories"),
        (("--profile", "nowhere"), {}, "nowhere"),
        (("--engine", "vllm", "--models", "a,b"), {}, "serves one model"),
        (("--stages", "encode", "--modalities", "image,smell"), {}, "has no modality 'smell'; it has image"),
        ((), {"HEADRACE_NATS_URL": "nats://127.0.0.1:1"}, "HEADRACE_NATS_URL"),
    ],
    ids=["stage", "engine that hands nothing over", "model of an engine", "profile", "swaps", "modality", "no NATS"],
)
async def test_a_wrong_set_up_is_said_in_words(
    services: Services, flags: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.decode", "--id", "decode-0", *flags),
        env=services._environment | environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 78
    assert said in errors.decode().splitlines()[-1]
