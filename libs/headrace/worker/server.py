"""The worker's gRPC face: what it is and holds right now, and its tensors."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio

from headrace.core.errors import Unavailable
from headrace.mesh import rpc
from headrace.mesh.guard import Guard
from headrace.mesh.transfer import TensorStore
from headrace.v1 import encoder_pb2, encoder_pb2_grpc, transfer_pb2, worker_pb2, worker_pb2_grpc
from headrace.worker.embed import EmbedService

NAMES = [
    service.full_name
    for file in (worker_pb2, transfer_pb2, encoder_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]

SERVICE = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name


class WorkerService(worker_pb2_grpc.WorkerServiceServicer):
    """Listens before the engine is ready, so that the port is known; `state` is set once it is."""

    def __init__(self) -> None:
        self.state: Callable[[], worker_pb2.WorkerState] | None = None

    async def GetState(
        self, request: worker_pb2.GetStateRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> worker_pb2.GetStateResponse:
        if self.state is None:
            await rpc.abort(context, Unavailable("the worker is starting", retry_after_s=1.0))
        return worker_pb2.GetStateResponse(state=self.state())


async def listen(
    address: str,
    service: WorkerService,
    embed: EmbedService,
    tensors: TensorStore,
    guards: Sequence[Guard] = (),
    credentials: grpc.ServerCredentials | None = None,
) -> rpc.RpcServer:
    """Health says NOT_SERVING until the caller says otherwise."""
    add = partial(_add_servicers, service, embed, tensors)
    return await rpc.serve(address, add, NAMES, serving=False, guards=guards, credentials=credentials)


def _add_servicers(service: WorkerService, embed: EmbedService, tensors: TensorStore, server: grpc.aio.Server) -> None:
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(embed, server)  # type: ignore[no-untyped-call]
    tensors.servicer().add_to(server)
