"""Typed errors that users and peers get; one table maps their codes to gRPC and HTTP at the edge.

HeadraceError
  InvalidInput          the caller's request is at fault; names the field
    ModelNotFound
    PayloadTooLarge
    ContextTooLong
    UnsupportedModality
  Conflict              the idempotency key was used with another body
  NotFound              no such request
  Overloaded            a bounded queue is full; retry later
    TooLate             the queue is longer than the request's time
    Expired             it has waited for as long as its class lets a request wait
    RateLimited         the API key's requests or tokens of this minute are used up, or too many of its requests run
    QuotaExceeded       the API key's tokens of this day are used up
  Unavailable           no worker, no journal; retry later
  PermissionDenied      the caller may not
  DeadlineExceeded      the request's time is over
  Cancelled             somebody stopped the request
  StageError            a stage could not do its part (corrupt image, set aside after deaths)
"""

from typing import ClassVar

from headrace.core.types import Failure


class HeadraceError(Exception):
    code = "internal"

    def __init__(self, message: str, *, field: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def failure(self) -> Failure:
        return Failure(self.code, self.message, self.field, self.retry_after_s)


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
    dropped: ClassVar[str] = "capacity"  # the word for it in x-llm-d-request-dropped-reason
    come_back = True  # a client library may, by itself, after retry_after_s


class TooLate(Overloaded):
    code = "deadline_unreachable"
    dropped = "deadline"


class Expired(Overloaded):
    code = "ttl_expired"
    dropped = "ttl"


class RateLimited(Overloaded):
    code = "rate_limit_exceeded"
    dropped = "rate"
    headers: tuple[tuple[str, str], ...] = ()  # x-ratelimit-*: what is left


class QuotaExceeded(RateLimited):
    code = "insufficient_quota"
    dropped = "quota"


class Unavailable(HeadraceError):
    code = "unavailable"


class DeadlineExceeded(HeadraceError):
    code = "deadline_exceeded"


class Cancelled(HeadraceError):
    code = "cancelled"


class StageError(HeadraceError):
    code = "stage_error"


# code -> (gRPC status name, HTTP status, OpenAI error type)
STATUS: dict[str, tuple[str, int, str]] = {
    "invalid_input": ("INVALID_ARGUMENT", 400, "invalid_request_error"),
    "model_not_found": ("NOT_FOUND", 404, "invalid_request_error"),
    "payload_too_large": ("INVALID_ARGUMENT", 413, "invalid_request_error"),
    "context_length_exceeded": ("INVALID_ARGUMENT", 400, "invalid_request_error"),
    "unsupported_modality": ("INVALID_ARGUMENT", 400, "invalid_request_error"),
    "unauthenticated": ("UNAUTHENTICATED", 401, "authentication_error"),
    "permission_denied": ("PERMISSION_DENIED", 403, "permission_error"),
    "idempotency_conflict": ("ALREADY_EXISTS", 409, "invalid_request_error"),
    "not_found": ("NOT_FOUND", 404, "invalid_request_error"),
    "overloaded": ("RESOURCE_EXHAUSTED", 429, "overloaded_error"),
    "deadline_unreachable": ("RESOURCE_EXHAUSTED", 429, "overloaded_error"),
    "ttl_expired": ("RESOURCE_EXHAUSTED", 429, "overloaded_error"),
    "rate_limit_exceeded": ("RESOURCE_EXHAUSTED", 429, "rate_limit_error"),
    "insufficient_quota": ("RESOURCE_EXHAUSTED", 429, "rate_limit_error"),
    "unavailable": ("UNAVAILABLE", 503, "server_error"),
    "deadline_exceeded": ("DEADLINE_EXCEEDED", 504, "timeout_error"),
    "cancelled": ("CANCELLED", 499, "cancelled_error"),
    "stage_error": ("INTERNAL", 500, "server_error"),
    "internal": ("INTERNAL", 500, "server_error"),
}


def from_failure(failure: Failure) -> HeadraceError:
    """The typed error for a failure that came over the wire; an unknown code stays a HeadraceError."""
    for cls in _all(HeadraceError):
        if cls.code == failure.code:
            return cls(failure.message, field=failure.field, retry_after_s=failure.retry_after_s)
    return HeadraceError(failure.message, field=failure.field, retry_after_s=failure.retry_after_s)


def _all(cls: type[HeadraceError]) -> list[type[HeadraceError]]:
    return [cls, *(sub for child in cls.__subclasses__() for sub in _all(child))]
