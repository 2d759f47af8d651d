"""Operators' calls with and without a key of the scope, on a real server; health and reflection stay open."""

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.core.access import Scope
from headrace.mesh import keyfile, rpc
from headrace.mesh.guard import operators
from headrace.v1 import queue_pb2, queue_pb2_grpc
from services.queue_manager.rpc import SERVICE, QueueManagerService


async def _code(address: str, metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
    async with rpc.channel(address) as channel:
        stub = queue_pb2_grpc.QueueManagerServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetStatus(queue_pb2.GetStatusRequest(), metadata=metadata)
        return caught.value.code()


async def test_operators_alone(tmp_path: Path) -> None:
    path, shown = tmp_path / "keys.toml", {}
    keys = []
    scopes: tuple[Scope, ...] = ("operate", "generate")
    for scope in scopes:
        shown[scope], key = keyfile.make("ops", [scope])
        keys.append(key)
    keyfile.write(path, keys)

    def add(server: Any) -> None:
        queue_pb2_grpc.add_QueueManagerServiceServicer_to_server(QueueManagerService(), server)  # type: ignore[no-untyped-call]

    server = await rpc.serve("127.0.0.1:0", add, [SERVICE], guards=operators(str(path), [SERVICE]))
    address = f"127.0.0.1:{server.port}"
    said = {word: (("authorization", f"Bearer {key}"),) for word, key in shown.items()}
    # A queue manager that does not lead says UNAVAILABLE: the call has reached it.
    assert await _code(address, said["operate"]) is grpc.StatusCode.UNAVAILABLE
    assert await _code(address, said["generate"]) is grpc.StatusCode.PERMISSION_DENIED
    assert await _code(address, ()) is grpc.StatusCode.UNAUTHENTICATED
    async with rpc.channel(address) as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    await server.stop(0.0)


def test_plain_lines_say_nothing_of_operators(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("word alice\n")
    assert operators(str(tmp_path / "keys"), [SERVICE]) == []
    assert operators("", [SERVICE]) == []
