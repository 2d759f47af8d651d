"""Servers say what they are; typed errors arrive as they left; retries are few."""

import asyncio
import platform
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headrace.core.errors import HeadraceError, InvalidInput, Overloaded, Unavailable
from headrace.mesh import rpc
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.v1 import governor_pb2, governor_pb2_grpc

NAME = "headrace.v1.GovernorService"


class Failing(governor_pb2_grpc.GovernorServiceServicer):
    error: HeadraceError = InvalidInput("no")
    calls = 0

    async def GetState(self, request: object, context: "grpc.aio.ServicerContext[object, object]") -> object:
        self.calls += 1
        await rpc.abort(context, self.error)


@pytest.fixture
async def serving() -> AsyncIterator[tuple[Failing, rpc.RpcServer, grpc.aio.Channel]]:
    servicer = Failing()

    def add(server: grpc.aio.Server) -> None:
        governor_pb2_grpc.add_GovernorServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

    server = await rpc.serve("127.0.0.1:0", add, [NAME])
    async with rpc.channel(f"127.0.0.1:{server.port}") as channel:
        yield servicer, server, channel
    await server.stop(0)


Serving = tuple[Failing, rpc.RpcServer, grpc.aio.Channel]


async def ask(channel: grpc.aio.Channel) -> object:
    stub = governor_pb2_grpc.GovernorServiceStub(channel)  # type: ignore[no-untyped-call]
    return await stub.GetState(governor_pb2.GetGovernorStateRequest())


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("bad image", field="messages[0].content[1]"),
        Overloaded("queue full", retry_after_s=2.5),
        Unavailable("no worker"),
    ],
)
async def test_a_typed_error_arrives_as_it_left(serving: Serving, error: HeadraceError) -> None:
    servicer, _, channel = serving
    servicer.error = error
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(channel)
    got = rpc.from_rpc_error(caught.value)
    assert type(got) is type(error)
    assert got.failure() == error.failure()


async def test_health_follows_and_reflection_lists(serving: Serving) -> None:
    _, server, channel = serving
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", NAME):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await server.set_serving(False)
    answer = await health.Check(health_pb2.HealthCheckRequest(service=NAME))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = [service.name async for reply in call for service in reply.list_services_response.service]
    assert NAME in names


@pytest.mark.parametrize(("error", "calls"), [(Unavailable("x"), 3), (InvalidInput("x"), 1)])
async def test_only_what_may_pass_is_tried_again(serving: Serving, error: HeadraceError, calls: int) -> None:
    servicer, _, channel = serving
    servicer.error = error
    with pytest.raises(grpc.aio.AioRpcError):
        await rpc.retried(lambda: ask(channel))
    assert servicer.calls == calls


async def test_a_port_in_use_is_a_bad_set_up(serving: Serving) -> None:
    _, server, _ = serving
    with pytest.raises(BadSetup, match="cannot listen"):
        await rpc.serve(f"127.0.0.1:{server.port}", lambda _server: None, [])


async def test_channels_are_bounded() -> None:
    channels = rpc.Channels(limit=2)
    first = channels.get("127.0.0.1:1")
    assert channels.get("127.0.0.1:1") is first
    channels.get("127.0.0.1:2")
    channels.get("127.0.0.1:3")
    assert channels.get("127.0.0.1:1") is not first
    await asyncio.sleep(0)
    await channels.close()


@pytest.mark.parametrize(
    ("address", "told", "expected"),
    [
        ("127.0.0.1:0", "", "127.0.0.1:7"),
        ("0.0.0.0:0", "gpu-1", "gpu-1:7"),
        ("0.0.0.0:0", "", f"{platform.node()}:7"),
        ("[::]:0", "gpu-1", "gpu-1:7"),
        ("node:9", "", "node:7"),
    ],
)
def test_an_address_that_peers_can_dial(address: str, told: str, expected: str) -> None:
    assert Settings(grpc_addr=address, advertise_host=told).advertised(7) == expected
