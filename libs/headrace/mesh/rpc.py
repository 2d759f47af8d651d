"""gRPC: servers with health and reflection, channels, and typed errors over the wire in both directions.

Retries live here (and in the journal): bounded, jittered, for calls that may be made twice alone.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from headrace.core.errors import STATUS, HeadraceError, from_failure
from headrace.core.types import Failure
from headrace.mesh.errors import BadSetup
from headrace.mesh.tls import Tls

T = TypeVar("T")

MAX_MESSAGE_BYTES = 64 << 20  # a request with several images inline; tensors are chunked
MAX_CHANNELS = 256  # peers of one process
TRIES = 3
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # two processes on one port is a mistake, not load balancing
]
_DETAILS = "grpc-status-details-bin"  # where google.rpc.Status travels
_RETRYABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})


@dataclass(slots=True)
class RpcServer:
    server: grpc.aio.Server
    port: int
    _health: Any
    _names: tuple[str, ...]

    async def set_serving(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self, grace_s: float = 5.0) -> None:
        """NOT_SERVING at once; calls under way get grace_s."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace_s)


async def serve(
    address: str,
    add_servicers: Callable[[grpc.aio.Server], None],
    names: Sequence[str],
    *,
    serving: bool = True,
    guards: Sequence["grpc.aio.ServerInterceptor[Any, Any]"] = (),
    credentials: grpc.ServerCredentials | None = None,
) -> RpcServer:
    """address: host:port, port 0 for any. names: full service names, for health and reflection. Without credentials
    nothing is encrypted."""
    server = grpc.aio.server(options=_OPTIONS, interceptors=guards)
    add_servicers(server)
    health_servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        secure = partial(server.add_secure_port, server_credentials=credentials) if credentials is not None else None
        port = (secure or server.add_insecure_port)(address)
    except RuntimeError as error:
        raise BadSetup(f"cannot listen on {address}: {error}") from error
    await server.start()
    running = RpcServer(server, port, health_servicer, tuple(names))
    await running.set_serving(serving)
    return running


def channel(address: str, tls: Tls | None = None) -> grpc.aio.Channel:
    """To a member of this mesh."""
    if tls is not None:
        return tls.channel(address, list(_OPTIONS))
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


class Channels:
    """One channel per peer, the least used closed when there are too many."""

    def __init__(self, limit: int = MAX_CHANNELS, tls: Tls | None = None) -> None:
        self._limit = limit
        self._tls = tls
        self._open: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, address: str) -> grpc.aio.Channel:
        found = self._open.get(address)
        if found is None:
            found = self._open[address] = channel(address, self._tls)
            if len(self._open) > self._limit:
                self._close_soon(self._open.popitem(last=False)[1])
        self._open.move_to_end(address)
        return found

    def _close_soon(self, old: grpc.aio.Channel) -> None:
        task = asyncio.ensure_future(old.close(grace=30.0))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*(one.close(None) for one in self._open.values()), *self._closing)
        self._open.clear()


# --- errors over the wire ---


def to_status(error: HeadraceError) -> status_pb2.Status:
    """google.rpc.Status: ErrorInfo (our code), BadRequest (the field), RetryInfo where a retry may help."""
    status = status_pb2.Status(code=code_pb2.Code.Value(STATUS[error.code][0]), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.code, domain="headrace")
    if error.field:
        info.metadata["field"] = error.field
    status.details.add().Pack(info)
    if error.field:
        bad = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[bad]))
    if error.retry_after_s > 0:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: HeadraceError) -> NoReturn:
    details = ((_DETAILS, to_status(error).SerializeToString()),)
    await context.abort(grpc.StatusCode[STATUS[error.code][0]], error.message, details)
    raise AssertionError("abort raises")


def from_rpc_error(error: grpc.aio.AioRpcError) -> HeadraceError:
    """The typed error a Headrace server sent; a code that fits for anything else."""
    metadata: Any = error.trailing_metadata() or ()
    packed = next((value for key, value in metadata if key == _DETAILS), b"")
    status = status_pb2.Status.FromString(packed)
    code, field, retry_after_s = _CODES.get(error.code(), "internal"), "", 0.0
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == "headrace":
            code, field = info.reason, info.metadata.get("field", "")
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return from_failure(Failure(code, error.details() or error.code().name, field, retry_after_s))


_CODES = {
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline_exceeded",
    grpc.StatusCode.CANCELLED: "cancelled",
    grpc.StatusCode.NOT_FOUND: "not_found",
    grpc.StatusCode.INVALID_ARGUMENT: "invalid_input",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded",
}


async def retried(call: Callable[[], Awaitable[T]], tries: int = TRIES) -> T:
    """For calls that may be made twice: again on UNAVAILABLE and RESOURCE_EXHAUSTED, jittered, a few times."""
    retrying = AsyncRetrying(
        stop=stop_after_attempt(tries),
        wait=wait_random_exponential(multiplier=0.1, max=2.0),
        retry=retry_if_exception(lambda e: isinstance(e, grpc.aio.AioRpcError) and e.code() in _RETRYABLE),
        reraise=True,
    )

    async def once() -> T:  # tenacity awaits coroutine functions alone, not whatever returns an awaitable
        return await call()

    return await retrying(once)
