"""What the console asks the queue manager and the governor, over the RPCs that `headrace queue` and `governor` use."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio

from headrace.core.errors import HeadraceError, Unavailable
from headrace.mesh import rpc
from headrace.mesh.tls import Tls
from headrace.v1 import governor_pb2, governor_pb2_grpc, queue_pb2, queue_pb2_grpc

Answer = TypeVar("Answer")

TIMEOUT_S = 2.0  # each answers from memory
CHANNELS = 8


class Managers:
    """Addresses are host:port; one without any says which variable would name it."""

    def __init__(self, queue_managers: Sequence[str] = (), governor: str = "", tls: Tls | None = None) -> None:
        self._queue_managers = tuple(queue_managers)
        self._governor = governor
        self._leader = 0  # whoever answered last; the others are standbys
        self._channels = rpc.Channels(CHANNELS, tls)
        self._metadata: tuple[tuple[str, str], ...] = ()

    def speak_for(self, authorization: str) -> None:
        """The operator who came last: with that key queue manager and governor are asked."""
        self._metadata = (("authorization", authorization),) if authorization else ()

    async def close(self) -> None:
        await self._channels.close()

    # --- the queue manager; each raises HeadraceError ---

    async def inspect(self, groups_max: int) -> queue_pb2.InspectResponse:
        return await self._queue(
            lambda stub: stub.Inspect(
                queue_pb2.InspectRequest(groups_max=groups_max), timeout=TIMEOUT_S, metadata=self._metadata
            )
        )

    async def status(self) -> queue_pb2.GetStatusResponse:
        return await self._queue(
            lambda stub: stub.GetStatus(queue_pb2.GetStatusRequest(), timeout=TIMEOUT_S, metadata=self._metadata)
        )

    async def explain(self, request_id: str) -> queue_pb2.ExplainResponse:
        question = queue_pb2.ExplainRequest(request_id=request_id)
        return await self._queue(lambda stub: stub.Explain(question, timeout=TIMEOUT_S, metadata=self._metadata))

    async def switch(self, name: str, value: str, who: str) -> queue_pb2.SwitchResponse:
        question = queue_pb2.SwitchRequest(name=name, value=value, who=who)
        return await self._queue(lambda stub: stub.Switch(question, timeout=TIMEOUT_S, metadata=self._metadata))

    async def _queue(self, ask: Callable[[Any], Awaitable[Answer]]) -> Answer:
        """Of several queue managers one leads; a standby says that it is one."""
        if not self._queue_managers:
            raise Unavailable("this gateway was not told where the queue manager is: HEADRACE_QUEUE_MANAGER_ADDR")
        failed: HeadraceError | None = None
        for step in range(len(self._queue_managers)):
            at = (self._leader + step) % len(self._queue_managers)
            channel = self._channels.get(self._queue_managers[at])
            stub = queue_pb2_grpc.QueueManagerServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                answer = await _asked(lambda stub=stub: ask(stub))  # type: ignore[misc]
            except Unavailable as error:
                failed = error
                continue
            self._leader = at
            return answer
        assert failed is not None, "at least one was asked"
        raise failed

    # --- the governor; each raises HeadraceError ---

    async def power(self) -> governor_pb2.GetGovernorStateResponse:
        return await _asked(
            lambda: self._stub().GetState(
                governor_pb2.GetGovernorStateRequest(), timeout=TIMEOUT_S, metadata=self._metadata
            )
        )

    async def set_budget(self, row: str, watts: float, who: str) -> governor_pb2.SetBudgetResponse:
        question = governor_pb2.SetBudgetRequest(row=row, budget_w=watts, who=who)
        return await _asked(lambda: self._stub().SetBudget(question, timeout=TIMEOUT_S, metadata=self._metadata))

    async def declare(self, kind: str, who: str) -> governor_pb2.EmergencyResponse:
        question = governor_pb2.DeclareEmergencyRequest(kind=kind, who=who)
        return await _asked(lambda: self._stub().DeclareEmergency(question, timeout=TIMEOUT_S, metadata=self._metadata))

    async def clear(self, kind: str, who: str) -> governor_pb2.EmergencyResponse:
        question = governor_pb2.ClearEmergencyRequest(kind=kind, who=who)
        return await _asked(lambda: self._stub().ClearEmergency(question, timeout=TIMEOUT_S, metadata=self._metadata))

    async def set_mode(self, mode: str, who: str) -> governor_pb2.SetModeResponse:
        question = governor_pb2.SetModeRequest(mode=mode, who=who)
        return await _asked(lambda: self._stub().SetMode(question, timeout=TIMEOUT_S, metadata=self._metadata))

    def _stub(self) -> Any:
        if not self._governor:
            raise Unavailable("this gateway was not told where the governor is: HEADRACE_GOVERNOR_ADDR")
        return governor_pb2_grpc.GovernorServiceStub(self._channels.get(self._governor))  # type: ignore[no-untyped-call]


async def _asked(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Raises HeadraceError: as the service said it, or that it does not answer."""
    try:
        return await call()
    except grpc.aio.AioRpcError as error:
        away = error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        if away and not error.trailing_metadata():  # gRPC's own words, not the service's
            raise Unavailable("it cannot be reached", retry_after_s=1.0) from error
        raise rpc.from_rpc_error(error) from error
