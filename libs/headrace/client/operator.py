"""What operators ask a mesh: the state of the cell, of a worker, of the governor, and why a request waits.

One call, one short-lived channel: these are questions a person or a test asks now and then. Each raises
grpc.RpcError when the service cannot be reached.
"""

from typing import Protocol, Self, TypeVar

import grpc
import grpc.aio

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


async def _ask(address: str, method: str, question: _Message, answer: type[Answer]) -> Answer:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"/headrace.v1.{method}",
            request_serializer=type(question).SerializeToString,
            response_deserializer=answer.FromString,
        )
        reply: Answer = await call(question, timeout=_TIMEOUT_S)
        return reply


async def cell_status(queue_manager: str) -> CellStatus:
    return (await _ask(queue_manager, "QueueManagerService/GetStatus", GetStatusRequest(), GetStatusResponse)).status


async def scaling_status(queue_manager: str) -> ScalingStatus | None:
    """None: nothing is scaled."""
    answer = await _ask(queue_manager, "QueueManagerService/GetStatus", GetStatusRequest(), GetStatusResponse)
    return answer.scaling if answer.HasField("scaling") else None


async def explain(queue_manager: str, request_id: str) -> ExplainResponse:
    question = ExplainRequest(request_id=request_id)
    return await _ask(queue_manager, "QueueManagerService/Explain", question, ExplainResponse)


async def inspect(queue_manager: str, groups_max: int = 0) -> InspectResponse:
    """The virtual queues in order; groups_max: of each, 0 for the queue manager's own limit."""
    question = InspectRequest(groups_max=groups_max)
    return await _ask(queue_manager, "QueueManagerService/Inspect", question, InspectResponse)


async def worker_state(worker: str) -> WorkerState:
    return (await _ask(worker, "WorkerService/GetState", GetStateRequest(), GetStateResponse)).state


async def governor_state(governor: str, history: int = 0) -> GetGovernorStateResponse:
    """history: samples per worker, newest last; 0 is the latest alone."""
    question = GetGovernorStateRequest(history=history)
    return await _ask(governor, "GovernorService/GetState", question, GetGovernorStateResponse)


async def set_budget(governor: str, budget_w: float, row: str = "", who: str = "") -> SetBudgetResponse:
    """row empty: every row; budget_w 0: none."""
    question = SetBudgetRequest(row=row, budget_w=budget_w, who=who)
    return await _ask(governor, "GovernorService/SetBudget", question, SetBudgetResponse)


async def declare_emergency(governor: str, kind: str, who: str = "") -> EmergencyResponse:
    question = DeclareEmergencyRequest(kind=kind, who=who)
    return await _ask(governor, "GovernorService/DeclareEmergency", question, EmergencyResponse)


async def clear_emergency(governor: str, kind: str = "", who: str = "") -> EmergencyResponse:
    """kind empty: all."""
    question = ClearEmergencyRequest(kind=kind, who=who)
    return await _ask(governor, "GovernorService/ClearEmergency", question, EmergencyResponse)


async def set_mode(governor: str, mode: str, who: str = "") -> SetModeResponse:
    """mode: observe or enforce; one that is off stays off."""
    return await _ask(governor, "GovernorService/SetMode", SetModeRequest(mode=mode, who=who), SetModeResponse)


async def switch(queue_manager: str, name: str, value: str, who: str = "") -> SwitchResponse:
    """What InspectResponse.switches names, to one of its values."""
    question = SwitchRequest(name=name, value=value, who=who)
    return await _ask(queue_manager, "QueueManagerService/Switch", question, SwitchResponse)


async def servable(gateway: str) -> bool:
    """Whether the gateway answers and says that every model it knows can be served now."""
    try:
        answer = await _ask(gateway, "GatewayService/ListModels", ListModelsRequest(), ListModelsResponse)
    except grpc.RpcError:
        return False
    return bool(answer.models) and all(model.servable for model in answer.models)
