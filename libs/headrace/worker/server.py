"""The worker's gRPC face: what it is and holds right now."""

from collections.abc import Callable

import grpc

from headrace.v1 import worker_pb2, worker_pb2_grpc


class WorkerService(worker_pb2_grpc.WorkerServiceServicer):
    def __init__(self, state: Callable[[], worker_pb2.WorkerState]) -> None:
        self._state = state

    async def GetState(
        self, request: worker_pb2.GetStateRequest, context: grpc.aio.ServicerContext
    ) -> worker_pb2.GetStateResponse:
        return worker_pb2.GetStateResponse(state=self._state())
