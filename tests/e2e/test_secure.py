"""A whole mesh under --secure: an answer, a worker killed under way, and nobody without papers gets anywhere."""

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from headrace.cli import credentials, runstate
from headrace.cli.environment import secrets_dir
from headrace.cli.supervisor import Mesh, MeshFailed
from headrace.client import AsyncClient, Door, Image, Message, Unauthenticated, Unavailable, operator
from headrace.core.access import Limits
from headrace.mesh import keyfile, keyring
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BadSetup
from headrace.mesh.login import NatsLogin
from tests.e2e.asking import picture
from tests.e2e.meshes import small_mesh
from tests.e2e.node import run_tests
from tests.gateway.batching import begin, content, ended, jsonl, line

pytestmark = pytest.mark.timeout(120)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    config = small_mesh(
        tmp_path_factory.mktemp("mesh"), secure=True, decode=2, environment={"HEADRACE_TRANSFER": "grpc"}
    )
    async with Mesh(config) as mesh:
        yield mesh


def _held(mesh: Mesh) -> Path:
    return secrets_dir(mesh.data_dir)


def _client(mesh: Mesh) -> AsyncClient:
    key = (_held(mesh) / "trial.key").read_text().strip()
    return AsyncClient(mesh.grpc_addr, api_key=key, tls=Door(ca=str(_held(mesh) / "ca.crt")))


async def test_an_answer_about_a_picture(secured: Mesh) -> None:
    """Tensors go over gRPC here, so embeddings and KV cache pass through mutual TLS too."""
    question = [Message("user", [Image(picture(1)), "what is it?"])]
    async with _client(secured) as client:
        answer = client.generate(question, max_tokens=8, ignore_eos=True)
        text = await answer.text()
    assert len(text) > 0
    assert answer.usage.completion_tokens == 8
    assert answer.usage.image_tokens > 0


async def test_the_console_shows_operators_everything_and_others_nothing(secured: Mesh) -> None:
    """Over TLS; the gateway asks queue manager and governor with the operator's key, and hears telemetry and caps."""
    context = ssl.create_default_context(cafile=str(_held(secured) / "ca.crt"))
    shown: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=secured.http_url, verify=context, trust_env=False) as http:
        for key, status in (("operator", 200), ("trial", 403)):
            headers = {"authorization": f"Bearer {(_held(secured) / f'{key}.key').read_text().strip()}"}
            async with asyncio.timeout(10.0):
                while True:
                    reply = await http.get("/console/api/state", headers=headers)
                    shown = reply.json()
                    if status != 200 or not any(worker["silent"] for worker in shown["workers"]):
                        break
                    await asyncio.sleep(0.1)
            assert reply.status_code == status
            if status == 200:
                assert not shown["trouble"]
                assert {worker["id"] for worker in shown["workers"]} >= {"encoder-0", "prefill-0", "decode-0"}


async def test_a_killed_worker_loses_nothing(secured: Mesh) -> None:
    question = [Message("user", [Image(picture(2)), "count"])]
    async with _client(secured) as client:
        undisturbed = [
            token
            async for delta in client.generate(question, max_tokens=60, ignore_eos=True, seed=3)
            for token in delta.tokens
        ]
        tokens: list[int] = []
        killed = False
        async for delta in client.generate(question, max_tokens=60, ignore_eos=True, seed=3):
            tokens += delta.tokens
            if not killed and len(tokens) >= 10:
                killed = True
                busiest = max(await _workers(secured), key=lambda at: at[1])[0]
                secured.kill(busiest, signal.SIGKILL)
    assert killed
    assert tokens == undisturbed


async def _keys(mesh: Mesh, *limits: Limits) -> list[str]:
    """A new key with each of them, good by now."""
    path = _held(mesh) / "keys.toml"
    made = [keyfile.make("tester", ("generate",), one) for one in limits]
    keyfile.write(path, [*keyfile.read(path), *(key for _, key in made)])
    await asyncio.sleep(2 * keyring.RELOAD_S)
    return [shown for shown, _ in made]


async def test_embeddings_are_charged_as_chat_is(secured: Mesh) -> None:
    """Over HTTP and the Open Inference Protocol, on one account with chat."""
    context = ssl.create_default_context(cafile=str(_held(secured) / "ca.crt"))
    requests, tokens, quota, one = await _keys(
        secured,
        Limits(requests_per_min=3),
        Limits(tokens_per_min=2_000),
        Limits(tokens_per_day=30),
        Limits(concurrent=1),
    )
    texts = ["a cat on a mat"] * 4  # of 7 tokens, two marks among them
    infer = {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [4], "data": texts}]}
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    async with httpx.AsyncClient(base_url=secured.http_url, verify=context, timeout=30, trust_env=False) as http:

        async def post(key: str, path: str, body: Any) -> httpx.Response:
            return await http.post(path, json=body, headers={"authorization": f"Bearer {key}"})

        async def embed(key: str, given: list[str] = texts) -> httpx.Response:
            return await post(key, "/v1/embeddings", {"model": "minilm", "input": given})

        first = await embed(requests)
        assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "2"), first.text
        assert (await post(requests, "/v2/models/minilm/infer", infer)).status_code == 200
        assert (await post(requests, "/v1/chat/completions", chat)).status_code == 200
        for path, body in (
            ("/v1/embeddings", {"input": texts}),
            ("/v2/models/minilm/infer", infer),
            ("/v1/chat/completions", chat),
        ):
            refused = await post(requests, path, body)
            assert refused.status_code == 429, path
            assert 0 < int(refused.headers["retry-after-ms"]) <= 20_000

        used = (await embed(tokens)).json()["usage"]["total_tokens"]
        assert used == 28
        left = int((await embed(tokens, ["x", ""])).headers.get("x-ratelimit-remaining-tokens", "-1"))
        assert left == -1, "refused for its input, and not charged"
        left = int((await embed(tokens)).headers["x-ratelimit-remaining-tokens"])
        assert 2_000 - 2 * used <= left <= 2_000 - used, "what a second gives back lies between"
        too_large = await embed(tokens, ["word " * 400] * 6)
        assert (too_large.status_code, too_large.json()["error"]["param"]) == (400, "input")

        assert [(await embed(quota)).status_code for _ in range(2)] == [200, 429]
        assert (await embed(quota)).json()["error"]["code"] == "insufficient_quota"

        many = [f"number {n} " * 30 for n in range(24)]
        statuses = [reply.status_code for reply in await asyncio.gather(*(embed(one, many) for _ in range(4)))]
        assert 200 in statuses
        assert 429 in statuses
        await asyncio.sleep(0.2)
        assert (await embed(one)).status_code == 200


async def test_the_typescript_client(secured: Mesh) -> None:
    held = _held(secured)
    (shown,) = await _keys(secured, Limits(requests_per_min=1))
    files = {name: str(held / file) for name, file in (("ca", "ca.crt"), ("cert", "client.crt"), ("key", "client.key"))}
    key = {"apiKey": (held / "trial.key").read_text().strip(), "limitedKey": shown}
    addresses = {"grpc": [secured.grpc_addr], "queueManager": secured.addresses.grpc["qm-0"]}
    await run_tests("secured", {**addresses, **files, **key})


async def _workers(mesh: Mesh) -> list[tuple[str, int]]:
    cell = await operator.cell_status(mesh.addresses.grpc["qm-0"], door=mesh.door)
    return [(worker.worker, worker.slots_used) for worker in cell.workers if "decode" in worker.stages]


async def test_http_is_tls_and_asks_for_a_key(secured: Mesh) -> None:
    trusted = ssl.create_default_context(cafile=str(_held(secured) / "ca.crt"))
    key = (_held(secured) / "trial.key").read_text().strip()
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    async with httpx.AsyncClient(base_url=secured.http_url, verify=trusted, timeout=20) as http:
        assert (await http.post("/v1/chat/completions", json=body)).status_code == 401
        reply = await http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
        assert reply.status_code == 200, reply.text
    plain = secured.http_url.replace("https", "http")
    async with httpx.AsyncClient(timeout=5) as http:
        with pytest.raises(httpx.HTTPError):
            await http.get(f"{plain}/health")
        with pytest.raises(httpx.ConnectError):  # not of an authority that everybody trusts
            await http.get(f"{secured.http_url}/health")


@pytest.mark.parametrize("service", ["qm-0", "governor-0", "prefill-0", "gateway-0"])
async def test_without_papers(secured: Mesh, service: str) -> None:
    """In the clear nobody; with the authority alone the gateway, which then asks for a key."""
    address, ca = secured.addresses.grpc[service], str(_held(secured) / "ca.crt")
    async with AsyncClient(address) as clear:
        with pytest.raises((Unavailable, grpc.RpcError)):
            async with asyncio.timeout(5):
                await clear.models()
    async with AsyncClient(address, tls=Door(ca=ca)) as bare:
        with pytest.raises(Unauthenticated if service == "gateway-0" else Unavailable):
            await bare.models()


async def test_operators_need_key_and_certificate(secured: Mesh) -> None:
    assert secured.door is not None
    held = _held(secured)
    assert (await operator.governor_state(secured.addresses.grpc["governor-0"], door=secured.door)).workers
    trial = (held / "trial.key").read_text().strip()
    for api_key, code in ((trial, "PERMISSION_DENIED"), ("", "UNAUTHENTICATED")):
        door = replace(secured.door, api_key=api_key)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await operator.declare_emergency(secured.addresses.grpc["governor-0"], "ups", door=door)
        assert refused.value.code().name == code


async def test_the_servers_let_nobody_in(secured: Mesh) -> None:
    assert secured.redis.socket is not None
    assert secured.redis.socket.stat().st_mode & 0o077 == 0
    assert secured.redis.socket.parent.stat().st_mode & 0o077 == 0
    trusted = ssl.create_default_context(cafile=str(_held(secured) / "ca.crt"))
    with pytest.raises(BadSetup):
        await Bus.connect(secured.addresses.nats_url, "stranger", login=NatsLogin(context=trusted))


def test_nothing_secret_is_written_down_elsewhere(secured: Mesh) -> None:
    """No password and no key in the logs, the run state, or the command lines and environments of processes."""
    held = _held(secured)
    words = [(held / f"{name}.key").read_text().strip() for name in ("trial", "operator")]
    words += [(held / f"{name}.password").read_text().strip() for name in ("redis", "redis-replica")]
    words += [path.read_text().strip().partition(":")[2] for path in held.glob("nats-*.creds")]
    told = [path.read_bytes() for path in (secured.data_dir / "logs").iterdir()]
    told += [(secured.data_dir / "run.json").read_bytes(), (secured.data_dir / "nats" / "nats.log").read_bytes()]
    for service in secured.ids:
        told += [Path(f"/proc/{secured.pid(service)}/{file}").read_bytes() for file in ("cmdline", "environ")]
    assert len(words) == 10
    for word in words:
        assert not any(word.encode() in text for text in told)


async def test_commands_find_their_papers(secured: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADRACE_API_KEY", *(f"HEADRACE_TLS_{file}" for file in ("CA", "CERT", "KEY"))):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    state = runstate.read(secured.data_dir)
    assert state is not None
    runstate.enter(state)
    assert {worker.worker for worker in (await operator.cell_status(state.services["qm-0"])).workers}
    assert "key" not in json.dumps(credentials.tls_variables(_held(secured), "client")).lower().replace(
        ".key", ""
    ).replace("_key", "")


@pytest.mark.parametrize(
    ("name", "key", "starts"), [("keys", "", True), ("keys.toml", "operate", True), ("keys.toml", "", False)]
)
async def test_the_launcher_and_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, key: str, starts: bool
) -> None:
    """Plain lines keep nobody from operating; with scopes the launcher is an operator like any other."""
    shown, made = keyfile.make("ops", ["operate"])
    if name == "keys":
        (tmp_path / name).write_text("word tenant\n")
    else:
        keyfile.write(tmp_path / name, [made])
    monkeypatch.setenv("HEADRACE_API_KEY", shown if key else "")
    config = small_mesh(
        tmp_path / "mesh", gateways=1, encoders=0, environment={"HEADRACE_API_KEYS_FILE": str(tmp_path / name)}
    )
    if starts:
        async with Mesh(config) as mesh:
            assert mesh.ready("gateway-0")
        return
    with pytest.raises(MeshFailed, match="HEADRACE_API_KEY"):
        async with Mesh(config):
            raise AssertionError("it has started")


SMALL = """
about = "a second of short questions"
duration_s = 1.0
drain_s = 20
model = "profile-tiny"
[workload]
"""
OPEN = """kind = "generated"
rate_rps = 6
image_share = 0
profile = "flat"
bursty = false
clip = { input_tokens = 80, output_tokens = 6 }
"""
USERS = """kind = "users"
users = 2
pause_s = [0.1, 0.1]
max_tokens = [4, 4]
prompt_words = [4, 8]
spawn_per_s = 10
"""
STORM = """[drill]
kind = "abort-storm"
aborts = 40
abort_tokens = 60
storms = 1
saturation_rps = 8
grpc_share = 0.5
"""


@pytest.mark.parametrize(
    ("words", "scenario", "says"),
    [
        (["load"], SMALL + OPEN, "finished"),
        (["load"], SMALL + USERS, "first token text"),
        (["load"], SMALL + OPEN + STORM, "more than before the storms"),
        (["calibrate"], "", "profile-tiny on the profile engine"),
        (["characterize", "--live", "--quick"], "", "profile-tiny at"),
        (["trace"], "", "traced"),
    ],
    ids=["load, an open loop", "load, users", "load, a drill", "calibrate", "characterize", "trace"],
)
async def test_commands_that_ask_a_mesh_find_their_papers(
    secured: Mesh, tmp_path: Path, words: list[str], scenario: str, says: str
) -> None:
    """As an operator calls them, without a word of keys; those that take minutes until they have been let in."""
    file = tmp_path / "small.toml"
    file.write_text(scenario)
    words = [*words, *([str(file)] if scenario else []), "--data-dir", str(secured.data_dir)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace.cli.main", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        env=clean,
        start_new_session=True,
    )
    assert child.stdout is not None
    told, found = "", False
    async with asyncio.timeout(60):
        while line := (await child.stdout.readline()).decode():
            told += line
            found = found or says in line
            if found and not scenario:
                child.terminate()
        await child.wait()
    assert found, told
    assert not any(word in told for word in ("UNAUTHENTICATED", "401", "UNAVAILABLE", "Traceback")), told


async def test_a_batch_and_an_embedding(secured: Mesh) -> None:
    """Gateways may keep records on NATS, encoders may offer themselves, and both are reached over TLS."""
    trusted = ssl.create_default_context(cafile=str(_held(secured) / "ca.crt"))
    headers = {"authorization": f"Bearer {(_held(secured) / 'trial.key').read_text().strip()}"}
    async with httpx.AsyncClient(base_url=secured.http_url, verify=trusted, timeout=30, headers=headers) as http:
        batch = await ended(http, (await begin(http, jsonl([line(n, max_tokens=4) for n in range(3)])))["id"], 40.0)
        assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
        assert len(await content(http, batch["output_file_id"])) == 3
        reply = await http.post("/v1/embeddings", json={"input": "a cat"})
        assert (reply.status_code, len(reply.json()["data"][0]["embedding"])) == (200, 384)
