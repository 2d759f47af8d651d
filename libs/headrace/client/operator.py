"""What operators ask a mesh: the state of the cell, of a worker, of the governor, and why a request waits.

One call, one short-lived channel: these are questions a person or a test asks now and then. Each raises
grpc.RpcError when the service cannot be reached. Without a door it is the environment's (client/door.py).
"""

from typing import Protocol, Self, TypeVar

import grpc
import grpc.aio

from headrace.client.door import MEMBER_NAME, Door
from headrace.v1.gateway_pb2 import ListModelsRequest, ListModelsResponse
from headrace.v1.governor_pb2 import (
    ClearEmergencyRequest,
    DeclareEmergencyRequest,
    EmergencyResponse,
    GetGovernorStateRequest,
    GetGovernorStateResponse,
    SetBudgetRequest,
    SetBudgetResponse,
    SetModeRequest,
    SetModeResponse,
)
from headrace.v1.queue_pb2 import (
    CellStatus,
    ExplainRequest,
    ExplainResponse,
    GetStatusRequest,
    GetStatusResponse,
    InspectRequest,
    InspectResponse,
    SwitchRequest,
    SwitchResponse,
)
from headrace.v1.scaling_pb2 import ScalingStatus
from headrace.v1.worker_pb2 import GetStateRequest, GetStateResponse, WorkerState

# Each answers from memory; a service that takes longer is stopped or gone.
_TIMEOUT_S = 5.0


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...
    @classmethod
    def FromString(cls, data: bytes) -> Self: ...


Answer = TypeVar("Answer", bound=_Message)


async def _ask(address: str, method: str, question: _Message, answer: type[Answer], door: Door | None) -> Answer:
    door = door or Door.of_env(name=MEMBER_NAME)
    async with door.aio_channel(address) as channel:
        call = channel.unary_unary(
            f"/headrace.v1.{method}",
            request_serializer=type(question).SerializeToString,
            response_deserializer=answer.FromString,
        )
        reply: Answer = await call(question, timeout=_TIMEOUT_S, metadata=door.metadata)
        return reply


async def cell_status(queue_manager: str, *, door: Door | None = None) -> CellStatus:
    return (
        await _ask(queue_manager, "QueueManagerService/GetStatus", GetStatusRequest(), GetStatusResponse, door)
    ).status


async def scaling_status(queue_manager: str, *, door: Door | None = None) -> ScalingStatus | None:
    """None: nothing is scaled."""
    answer = await _ask(queue_manager, "QueueManagerService/GetStatus", GetStatusRequest(), GetStatusResponse, door)
    return answer.scaling if answer.HasField("scaling") else None


async def explain(queue_manager: str, request_id: str, *, door: Door | None = None) -> ExplainResponse:
    question = ExplainRequest(request_id=request_id)
    return await _ask(queue_manager, "QueueManagerService/Explain", question, ExplainResponse, door)


async def inspect(queue_manager: str, groups_max: int = 0, *, door: Door | None = None) -> InspectResponse:
    """The virtual queues in order; groups_max: of each, 0 for the queue manager's own limit."""
    question = InspectRequest(groups_max=groups_max)
    return await _ask(queue_manager, "QueueManagerService/Inspect", question, InspectResponse, door)


async def worker_state(worker: str, *, door: Door | None = None) -> WorkerState:
    return (await _ask(worker, "WorkerService/GetState", GetStateRequest(), GetStateResponse, door)).state


async def governor_state(governor: str, history: int = 0, *, door: Door | None = None) -> GetGovernorStateResponse:
    """history: samples per worker, newest last; 0 is the latest alone."""
    question = GetGovernorStateRequest(history=history)
    return await _ask(governor, "GovernorService/GetState", question, GetGovernorStateResponse, door)


async def set_budget(
    governor: str, budget_w: float, row: str = "", who: str = "", *, door: Door | None = None
) -> SetBudgetResponse:
    """row empty: every row; budget_w 0: none."""
    question = SetBudgetRequest(row=row, budget_w=budget_w, who=who)
    return await _ask(governor, "GovernorService/SetBudget", question, SetBudgetResponse, door)


async def declare_emergency(governor: str, kind: str, who: str = "", *, door: Door | None = None) -> EmergencyResponse:
    question = DeclareEmergencyRequest(kind=kind, who=who)
    return await _ask(governor, "GovernorService/DeclareEmergency", question, EmergencyResponse, door)


async def clear_emergency(
    governor: str, kind: str = "", who: str = "", *, door: Door | None = None
) -> EmergencyResponse:
    """kind empty: all."""
    question = ClearEmergencyRequest(kind=kind, who=who)
    return await _ask(governor, "GovernorService/ClearEmergency", question, EmergencyResponse, door)


async def set_mode(governor: str, mode: str, who: str = "", *, door: Door | None = None) -> SetModeResponse:
    """mode: observe or enforce; one that is off stays off."""
    question = SetModeRequest(mode=mode, who=who)
    return await _ask(governor, "GovernorService/SetMode", question, SetModeResponse, door)


async def switch(
    queue_manager: str, name: str, value: str, who: str = "", *, door: Door | None = None
) -> SwitchResponse:
    """What InspectResponse.switches names, to one of its values."""
    question = SwitchRequest(name=name, value=value, who=who)
    return await _ask(queue_manager, "QueueManagerService/Switch", question, SwitchResponse, door)


def refused(error: grpc.RpcError) -> bool:
    """It is there, and this door does not open it."""
    no_key = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    return isinstance(error, grpc.Call | grpc.aio.AioRpcError) and error.code() in no_key


async def servable(gateway: str, *, door: Door | None = None) -> bool:
    """Whether the gateway answers and says that every model it knows can be served now. To who has no key it says
    nothing of models: that it answers must do."""
    try:
        answer = await _ask(gateway, "GatewayService/ListModels", ListModelsRequest(), ListModelsResponse, door)
    except grpc.RpcError as error:
        return refused(error)
    return bool(answer.models) and all(model.servable for model in answer.models)
