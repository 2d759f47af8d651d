"""The queue manager's gRPC face: the cell as it is now, and why a request waits. A standby knows neither."""

import time
from collections.abc import Callable
from typing import Any, NoReturn

import grpc

from headrace.core.errors import InvalidInput, Unavailable
from headrace.core.queue import QueueCore
from headrace.mesh import rpc
from headrace.v1 import queue_pb2, queue_pb2_grpc
from headrace.wire.inspection import inspection_to_proto
from headrace.wire.status import explanation_to_proto, status_to_proto
from services.queue_manager.scaling import Scaling
from services.queue_manager.scaling_shown import scaling_to_proto
from services.queue_manager.switching import Switching

SERVICE = "headrace.v1.QueueManagerService"
GROUPS_DEFAULT, GROUPS_MAX = 100, 1_000  # of each virtual queue, in one answer


class QueueManagerService(queue_pb2_grpc.QueueManagerServiceServicer):
    def __init__(self) -> None:
        self.core: QueueCore | None = None  # set once this process leads
        self.scaling: Scaling | None = None  # also None where nothing is scaled
        self.switching: Switching | None = None  # with the core
        self.unreadable: Callable[[], int] = int

    async def GetStatus(
        self, request: queue_pb2.GetStatusRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> queue_pb2.GetStatusResponse:
        if self.core is None:
            await _standby(context)
        scaling = scaling_to_proto(self.scaling) if self.scaling is not None else None
        return queue_pb2.GetStatusResponse(status=status_to_proto(self.core.view(time.time())), scaling=scaling)

    async def Explain(
        self, request: queue_pb2.ExplainRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> queue_pb2.ExplainResponse:
        if self.core is None:
            await _standby(context)
        return explanation_to_proto(self.core.explain(request.request_id, time.time()))

    async def Inspect(
        self, request: queue_pb2.InspectRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> queue_pb2.InspectResponse:
        if self.core is None:
            await _standby(context)
        now_s, groups_max = time.time(), min(request.groups_max or GROUPS_DEFAULT, GROUPS_MAX)
        view = self.core.view(now_s)
        answer = inspection_to_proto(self.core.inspect(now_s, groups_max), view.epoch, view.leader)
        if self.switching is not None:
            answer.switches.extend(self.switching.shown())
            answer.switched.extend(self.switching.entries)
        return answer

    async def Switch(
        self, request: queue_pb2.SwitchRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> queue_pb2.SwitchResponse:
        if self.switching is None:
            await _standby(context)
        try:
            switches = await self.switching.switch(request.name, request.value, request.who)
        except InvalidInput as error:
            await rpc.abort(context, error)
        return queue_pb2.SwitchResponse(switches=switches)


async def _standby(context: "grpc.aio.ServicerContext[Any, Any]") -> NoReturn:
    await rpc.abort(context, Unavailable("this queue manager is a standby: ask the leader", retry_after_s=1.0))
