"""Where services may listen, as a table; and TLS on gRPC, metrics and HTTP with and without certificates."""

import asyncio
import json
import shutil
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.cli import credentials
from headrace.client import door as client_door
from headrace.client.door import Door
from headrace.mesh import metrics, rpc, tls
from headrace.mesh.binding import check_api, check_inner, is_loopback
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.tls import Tls

WIDE = {"HEADRACE_HTTP_ADDR": "0.0.0.0:8000", "HEADRACE_GRPC_ADDR": "0.0.0.0:1"}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    credentials.prepare(directory)
    return directory


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("gateway:1", False),
        (":1", False),
        ("localhost.example:1", False),
    ],
)
def test_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("env", "keyed", "encrypted", "refused"),
    [
        ({}, False, False, ""),
        (WIDE, False, False, "HEADRACE_HTTP_ADDR=0.0.0.0:8000"),
        ({"HEADRACE_GRPC_ADDR": "10.1.2.3:5"}, False, False, "HEADRACE_GRPC_ADDR"),
        (WIDE, False, True, "HEADRACE_API_KEYS_FILE"),  # certificates of servers say nothing of who asks
        (WIDE, True, False, ""),
        (WIDE | {"HEADRACE_INSECURE": "on"}, False, False, ""),
        (WIDE | {"HEADRACE_PUBLISHED": "127.0.0.1"}, False, False, ""),
        (WIDE | {"HEADRACE_PUBLISHED": "0.0.0.0"}, False, False, "(0.0.0.0)"),
        (WIDE | {"HEADRACE_PUBLISHED": "0.0.0.0"}, True, False, ""),
        ({"HEADRACE_METRICS_ADDR": "0.0.0.0:9"}, True, False, "HEADRACE_METRICS_ADDR"),
        ({"HEADRACE_METRICS_ADDR": "0.0.0.0:9"}, True, True, ""),
    ],
)
def test_the_gateway(env: Mapping[str, str], keyed: bool, encrypted: bool, refused: str, held: Path) -> None:
    settings = Settings.from_env(env)
    encryption = Tls(held / "member.crt", held / "member.key", held / "ca.crt") if encrypted else None
    if not refused:
        check_api(settings, encryption, keyed=keyed)
        return
    with pytest.raises(BadSetup) as error:
        check_api(settings, encryption, keyed=keyed)
    assert refused in str(error.value)
    assert "HEADRACE_INSECURE=on" in str(error.value)


@pytest.mark.parametrize(
    ("env", "encrypted", "refused"),
    [
        ({}, False, False),
        ({"HEADRACE_GRPC_ADDR": "0.0.0.0:1"}, False, True),
        ({"HEADRACE_METRICS_ADDR": "0.0.0.0:1"}, False, True),
        ({"HEADRACE_GRPC_ADDR": "0.0.0.0:1"}, True, False),
        ({"HEADRACE_GRPC_ADDR": "0.0.0.0:1", "HEADRACE_INSECURE": "on"}, False, False),
    ],
)
def test_inner_services(env: Mapping[str, str], encrypted: bool, refused: bool, held: Path) -> None:
    encryption = Tls(held / "member.crt", held / "member.key", held / "ca.crt") if encrypted else None
    if not refused:
        check_inner(Settings.from_env(env), encryption)
        return
    with pytest.raises(BadSetup, match="HEADRACE_TLS_CERT"):
        check_inner(Settings.from_env(env), encryption)


def test_half_a_certificate_is_said(held: Path, tmp_path: Path) -> None:
    with pytest.raises(BadSetup, match="HEADRACE_TLS_KEY is missing"):
        Tls.of(Settings(tls_cert=str(held / "member.crt")))
    said = credentials.tls_variables(held) | {"HEADRACE_TLS_KEY": str(held / "client.key")}
    with pytest.raises(BadSetup, match="HEADRACE_TLS_CERT"):
        Tls.of(Settings.from_env(said))
    with pytest.raises(BadSetup, match="HEADRACE_TLS_CERT"):
        Tls.of(Settings.from_env(said | {"HEADRACE_TLS_CA": str(tmp_path / "nowhere")}))


async def _serves(channel: grpc.aio.Channel) -> bool:
    async with channel:
        try:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize(("clients", "bare"), [(True, False), (False, True)])
async def test_grpc(held: Path, tmp_path: Path, clients: bool, bare: bool) -> None:
    """Members and operators get in; who has no certificate only where none is asked for; strangers never."""
    encryption = Tls.of(Settings.from_env(credentials.tls_variables(held)))
    assert encryption is not None
    credentials.prepare(tmp_path)
    credentials_of = encryption.server_credentials(clients=clients)
    server = await rpc.serve("127.0.0.1:0", lambda _server: None, [], credentials=credentials_of)
    address = f"127.0.0.1:{server.port}"
    assert await _serves(rpc.channel(address, encryption))
    assert await _serves(credentials.operator_door(held).aio_channel(address))
    assert await _serves(Door(ca=str(held / "ca.crt")).aio_channel(address)) is bare
    assert not await _serves(Door(ca=str(tmp_path / "ca.crt")).aio_channel(address))
    assert not await _serves(rpc.channel(address))
    if clients:
        files = [str(tmp_path / name) for name in ("client.crt", "client.key")]
        assert not await _serves(Door("", str(held / "ca.crt"), *files).aio_channel(address))
    await server.stop(0.0)


async def test_renewed_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose certificate has been replaced shows the new one: gRPC at once, others when they look."""
    monkeypatch.setattr(tls, "RELOAD_S", 0.05)
    old, new, live = tmp_path / "old", tmp_path / "new", tmp_path / "live"
    for directory in (old, new):
        credentials.prepare(directory)
    shutil.copytree(old, live)
    encryption = Tls(live / "member.crt", live / "member.key", live / "ca.crt")
    context = encryption.server_context(clients=False)
    following = asyncio.ensure_future(encryption.follow(context))
    server = await rpc.serve(
        "127.0.0.1:0", lambda _server: None, [], credentials=encryption.server_credentials(clients=False)
    )
    web = await metrics.serve_metrics("127.0.0.1:0", metrics.registry(), context)

    async def seen(ca: Path) -> tuple[bool, bool]:
        grpc_good = await _serves(Door(ca=str(ca)).aio_channel(f"127.0.0.1:{server.port}"))
        try:
            async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=str(ca))) as client:
                return grpc_good, (await client.get(f"https://127.0.0.1:{web.port}/health")).status_code == 200
        except httpx.ConnectError:
            return grpc_good, False

    assert await seen(old / "ca.crt") == (True, True)
    for name in ("member.key", "member.crt", "ca.crt"):
        shutil.copy(new / name, live / name)
    await asyncio.sleep(0.3)
    assert await seen(new / "ca.crt") == (True, True)
    assert await seen(old / "ca.crt") == (False, False)
    following.cancel()
    await server.stop(0.0)
    await web.stop()


async def test_metrics_ask_for_a_certificate(held: Path) -> None:
    encryption = Tls(held / "member.crt", held / "member.key", held / "ca.crt")
    web = await metrics.serve_metrics("127.0.0.1:0", metrics.registry(), encryption.server_context(clients=True))
    url = f"https://127.0.0.1:{web.port}/metrics"
    async with httpx.AsyncClient(verify=encryption.client_context()) as scraper:
        assert (await scraper.get(url)).status_code == 200
    bare: Any = ssl.create_default_context(cafile=str(held / "ca.crt"))
    async with httpx.AsyncClient(verify=bare) as stranger:
        with pytest.raises(httpx.HTTPError):
            await stranger.get(url)
    await web.stop()


def test_one_name_for_members() -> None:
    """Client and mesh do not import one another: the word is written twice."""
    assert client_door.MEMBER_NAME == tls.MEMBER_NAME
    assert json.dumps(tls.MEMBER_NAME) == f'"{tls.MEMBER_NAME}"'
