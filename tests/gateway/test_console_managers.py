"""What the console asks, over real gRPC: the queue manager that leads is found, refusals keep their type."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest

from headrace.core.errors import InvalidInput, Unavailable
from headrace.core.events import Event
from headrace.core.queue import QueueConfig, QueueCore
from headrace.mesh import rpc
from headrace.v1 import queue_pb2_grpc
from services.gateway.console.managers import Managers
from services.queue_manager.inbox import Inbox
from services.queue_manager.rpc import SERVICE, QueueManagerService
from services.queue_manager.switching import Switching

pytestmark = pytest.mark.timeout(30)


@asynccontextmanager
async def served(face: QueueManagerService) -> AsyncIterator[str]:
    def add(server: grpc.aio.Server) -> None:
        queue_pb2_grpc.add_QueueManagerServiceServicer_to_server(face, server)  # type: ignore[no-untyped-call]

    running = await rpc.serve("127.0.0.1:0", add, [SERVICE])
    yield f"127.0.0.1:{running.port}"
    await running.stop(0.0)


def leading() -> QueueManagerService:
    face = QueueManagerService()
    core = face.core = QueueCore(QueueConfig(epoch=1, name="qm-1", planner="headrace"))

    def take(events: list[Event]) -> None:
        for event in events:
            core.handle(event, 0.0)

    face.switching = Switching(core, None, Inbox(take).put)
    return face


async def test_the_one_that_leads_is_found_and_switched() -> None:
    async with served(QueueManagerService()) as standby, served(leading()) as leader:
        managers = Managers((standby, leader))
        assert (await managers.inspect(5)).leader == "qm-1"
        assert (await managers.explain("0" * 32)).state == "unknown"
        told = {one.name: one.value for one in (await managers.switch("evict", "off", "ada")).switches}
        assert told["evict"] == "off"
        assert [(one.who, one.before, one.after) for one in (await managers.inspect(5)).switched] == [
            ("ada", "on", "off")
        ]
        with pytest.raises(InvalidInput, match="on, off") as refused:
            await managers.switch("evict", "maybe", "ada")
        assert refused.value.field == "value"
        await managers.close()


async def test_nobody_leads_nobody_answers_nobody_is_named() -> None:
    async with served(QueueManagerService()) as standby:
        managers = Managers((standby,), "127.0.0.1:1")
        with pytest.raises(Unavailable, match="standby"):
            await managers.inspect(5)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await managers.power()
        await managers.close()
    with pytest.raises(Unavailable, match="HEADRACE_QUEUE_MANAGER_ADDR"):
        await Managers().status()
