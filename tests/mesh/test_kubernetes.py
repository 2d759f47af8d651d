"""The scale subresource against a server that replays exchanges, written as the API documents them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace.core.errors import Conflict, HeadraceError, NotFound, PermissionDenied, StageError, Unavailable
from headrace.mesh.errors import BadSetup
from headrace.mesh.kubernetes import TRIES, Cluster, Kubernetes

pytestmark = pytest.mark.timeout(30)

EXCHANGES: dict[str, Any] = json.loads((Path(__file__).parent / "kubernetes_exchanges.json").read_text())
SILENT = {"request": EXCHANGES["patch"]["request"], "status": 0}  # takes the request and never answers
NOT_JSON = {**EXCHANGES["patch"], "body": "<html>a proxy's page</html>"}


class Api:
    """Answers the next exchange of the list to each request, and keeps what it was asked."""

    def __init__(self, exchanges: list[dict[str, Any]]) -> None:
        self.left = list(exchanges)
        self.asked: list[tuple[str, dict[str, str], str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in head[1:] if line)}
                body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
                self.asked.append((head[0].rpartition(" ")[0], headers, body))
                exchange = self.left.pop(0)
                assert exchange["request"] == self.asked[-1][0]
                if not exchange["status"]:
                    continue
                told = exchange["body"]
                data = (told if isinstance(told, str) else json.dumps(told)).encode()
                reply = f"HTTP/1.1 {exchange['status']} Told\r\nContent-Length: {len(data)}\r\n\r\n"
                writer.write(reply.encode() + data)
        writer.close()


@contextlib.asynccontextmanager
async def replay(tmp_path: Path, *exchanges: dict[str, Any]) -> AsyncIterator[tuple[Kubernetes, Api]]:
    api = Api(list(exchanges))
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    token = tmp_path / "token"
    token.write_text("first\n")
    port = server.sockets[0].getsockname()[1]
    kubernetes = Kubernetes(Cluster(f"http://127.0.0.1:{port}", "models", token), timeout_s=0.3)
    yield kubernetes, api
    await kubernetes.close()
    server.close()


async def test_replicas_are_read_and_set_with_the_token_of_the_moment(tmp_path: Path) -> None:
    async with replay(tmp_path, EXCHANGES["get"], EXCHANGES["get none"], EXCHANGES["patch"]) as (kubernetes, api):
        assert await kubernetes.replicas("headrace-encoder") == 2
        assert await kubernetes.replicas("headrace-encoder") == 0, "a zero is left out of the answer"
        (tmp_path / "token").write_text("second\n")
        assert await kubernetes.scale("headrace-encoder", 3) == 3
    [_, _, (_, headers, body)] = api.asked
    assert (headers["authorization"], headers["content-type"]) == ("Bearer second", "application/merge-patch+json")
    assert json.loads(body) == {"spec": {"replicas": 3}}
    assert api.asked[0][1]["authorization"] == "Bearer first"


@pytest.mark.parametrize(
    ("exchange", "error", "says"),
    [
        (EXCHANGES["unauthorized"], PermissionDenied, "needs get and patch on deployments/scale"),
        (EXCHANGES["forbidden"], PermissionDenied, "system:serviceaccount:models:default"),
        (EXCHANGES["not found"], NotFound, "HEADRACE_AUTOSCALE_POOLS"),
        (NOT_JSON, StageError, "is no Scale"),
    ],
    ids=["401", "403", "404", "no Scale"],
)
async def test_what_trying_again_does_not_help_is_said_at_once(
    exchange: dict[str, Any], error: type[HeadraceError], says: str, tmp_path: Path
) -> None:
    async with replay(tmp_path, exchange) as (kubernetes, api):
        with pytest.raises(error, match=says):
            await kubernetes.scale("headrace-encoder", 3)
        assert len(api.asked) == 1


@pytest.mark.parametrize(
    "trouble", [EXCHANGES["conflict"], EXCHANGES["broken"], SILENT], ids=["409", "500", "time-out"]
)
async def test_what_passes_is_tried_again(trouble: dict[str, Any], tmp_path: Path) -> None:
    async with replay(tmp_path, trouble, EXCHANGES["patch"]) as (kubernetes, api):
        assert await kubernetes.scale("headrace-encoder", 3) == 3
        assert len(api.asked) == 2


@pytest.mark.parametrize(
    ("trouble", "error"),
    [(EXCHANGES["conflict"], Conflict), (EXCHANGES["broken"], Unavailable), (SILENT, Unavailable)],
    ids=["409", "500", "time-out"],
)
async def test_a_few_times_and_no_more(trouble: dict[str, Any], error: type[HeadraceError], tmp_path: Path) -> None:
    async with replay(tmp_path, *[trouble] * TRIES) as (kubernetes, api):
        with pytest.raises(error):
            await kubernetes.scale("headrace-encoder", 3)
        assert len(api.asked) == TRIES


async def test_an_api_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    kubernetes = Kubernetes(Cluster("http://127.0.0.1:9", "models", tmp_path / "token"), timeout_s=0.3)
    with pytest.raises(Unavailable, match="does not answer"):
        await kubernetes.replicas("headrace-encoder")
    await kubernetes.close()


def test_a_pod_knows_its_cluster(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("models")
    env = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    cluster = Cluster.of_pod(env, tmp_path)
    assert (cluster.url, cluster.namespace) == ("https://[fd00::1]:6443", "models")
    assert (cluster.token_file, cluster.ca_file) == (tmp_path / "token", tmp_path / "ca.crt")
    with pytest.raises(BadSetup, match="run in a pod"):
        Cluster.of_pod({}, tmp_path)
    with pytest.raises(BadSetup, match="no service account"):
        Cluster.of_pod(env, tmp_path / "nowhere")
