"""What the SDK raises. The names are those of the mesh's error codes.

HeadraceError
  InvalidInput          the request is at fault; field says where
    ModelNotFound, PayloadTooLarge, ContextTooLong, UnsupportedModality
  Unauthenticated, PermissionDenied
  Conflict              the idempotency key was used with another body
  NotFound              no such request
  Overloaded            a queue is full; retry_after_s says when to come back
    TooLate             the queue is longer than the request's time
    Expired             it has waited for as long as its class lets a request wait
    RateLimited         the API key's requests or tokens of this minute are used up, or too many of its requests run
    QuotaExceeded       the API key's tokens of this day are used up
  Unavailable           no gateway or no worker could be reached
  DeadlineExceeded      the request's time is over
  Cancelled             somebody else stopped the request
  StageError            a stage could not do its part
"""

from typing import Any

import grpc

from headrace.v1 import common_pb2

FAILURE_KEY = "headrace-failure-bin"  # trailing metadata: a headrace.v1.Failure


class HeadraceError(Exception):
    """code is a stable word; field names the offending input, if any."""

    code = "internal"

    def __init__(self, message: str, *, field: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidInput(HeadraceError):
    code = "invalid_input"


class ModelNotFound(InvalidInput):
    code = "model_not_found"


class PayloadTooLarge(InvalidInput):
    code = "payload_too_large"


class ContextTooLong(InvalidInput):
    code = "context_length_exceeded"


class UnsupportedModality(InvalidInput):
    code = "unsupported_modality"


class Unauthenticated(HeadraceError):
    code = "unauthenticated"


class PermissionDenied(HeadraceError):
    code = "permission_denied"


class Conflict(HeadraceError):
    code = "idempotency_conflict"


class NotFound(HeadraceError):
    code = "not_found"


class Overloaded(HeadraceError):
    code = "overloaded"


class TooLate(Overloaded):
    code = "deadline_unreachable"


class Expired(Overloaded):
    code = "ttl_expired"


class RateLimited(Overloaded):
    code = "rate_limit_exceeded"


class QuotaExceeded(RateLimited):
    code = "insufficient_quota"


class Unavailable(HeadraceError):
    code = "unavailable"


class DeadlineExceeded(HeadraceError):
    code = "deadline_exceeded"


class Cancelled(HeadraceError):
    code = "cancelled"


class StageError(HeadraceError):
    code = "stage_error"


_KINDS: tuple[type[HeadraceError], ...] = (
    *(InvalidInput, ModelNotFound, PayloadTooLarge, ContextTooLong, UnsupportedModality),
    *(Unauthenticated, PermissionDenied, Conflict, NotFound, Overloaded, Unavailable, DeadlineExceeded, Cancelled),
    *(StageError, TooLate, Expired, RateLimited, QuotaExceeded),
)
_BY_CODE = {kind.code: kind for kind in _KINDS}
# For errors that no gateway put in words: the connection broke, a proxy answered.
_BY_STATUS: dict[grpc.StatusCode, type[HeadraceError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNKNOWN: Unavailable,
    grpc.StatusCode.INTERNAL: Unavailable,  # a reset stream
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: PayloadTooLarge,  # gRPC's own limit on a message
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
}


def of_failure(failure: common_pb2.Failure) -> HeadraceError:
    kind = _BY_CODE.get(failure.code, HeadraceError)
    return kind(failure.message, field=failure.field, retry_after_s=failure.retry_after_s)


def of_rpc(error: grpc.RpcError) -> HeadraceError:
    """The typed error behind a failed call, sync or async."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    trailing: Any = error.trailing_metadata()
    for key, value in trailing or ():
        if key == FAILURE_KEY:
            return of_failure(common_pb2.Failure.FromString(value))
    kind = _BY_STATUS.get(error.code(), HeadraceError)
    return kind(error.details() or error.code().name)
