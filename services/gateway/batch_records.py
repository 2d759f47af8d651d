"""The nouns of the batch API as they are kept: files and batches, and what clients read of them.

Ids are 32 hex digits inside, and carry OpenAI's prefixes outside.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

OPEN = ("validating", "in_progress", "finalizing", "cancelling")
Status = Literal["validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"]


class FileRecord(msgspec.Struct, frozen=True, tag="file", omit_defaults=True):
    id: str
    tenant: str
    filename: str
    purpose: str
    size_bytes: int
    sha256: str
    created_s: float
    expires_s: float
    deleted: bool = False


class LineError(msgspec.Struct, frozen=True):
    """Why a batch was not begun."""

    code: str
    message: str
    line: Annotated[int | None, Meta(description="From 1 on; null: the file as a whole")] = None
    param: str | None = None


class BatchRecord(msgspec.Struct, frozen=True, tag="batch", omit_defaults=True):
    """The state of a batch and, while somebody works at it, that one's lease: renewed by being written again."""

    id: str
    tenant: str
    endpoint: str
    input_file: str
    window: str
    slo_class: str
    created_s: float
    deadline_s: float
    status: Status = "validating"
    metadata: dict[str, str] = {}
    key: str = ""  # id of the API key that made it; empty: it has none
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: tuple[LineError, ...] = ()
    ending: str = ""  # of one that is finalizing: what it will be
    times: dict[str, float] = {}  # status -> when it was reached
    output_file: str = ""
    error_file: str = ""
    holder: str = ""  # the gateway that works at it; empty: nobody
    incarnation: str = ""  # of that gateway's process
    renewed_s: float = 0.0  # makes each renewal another record

    @property
    def open(self) -> bool:
        return self.status in OPEN

    @property
    def changed_s(self) -> float:
        return max([self.created_s, *self.times.values()])


Kept = FileRecord | BatchRecord
_decoder: msgspec.json.Decoder[Kept] = msgspec.json.Decoder(Kept)
encode = msgspec.json.Encoder().encode


def decode(data: bytes) -> Kept:
    return _decoder.decode(data)


# --- what clients read ---


class FileObject(msgspec.Struct):
    id: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    object: Literal["file"] = "file"
    status: Literal["processed"] = "processed"


class FileDeleted(msgspec.Struct):
    id: str
    deleted: bool = True
    object: Literal["file"] = "file"


class FileList(msgspec.Struct):
    data: list[FileObject]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


class BatchErrors(msgspec.Struct):
    data: list[LineError]
    object: Literal["list"] = "list"


class RequestCounts(msgspec.Struct):
    total: int
    completed: int
    failed: int


class BatchObject(msgspec.Struct):
    id: str
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
    object: Literal["batch"] = "batch"


class BatchList(msgspec.Struct):
    data: list[BatchObject]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """POST /v1/batches."""

    input_file_id: str
    endpoint: Annotated[str, Meta(description="Where each line would be posted: /v1/chat/completions ...")]
    completion_window: Annotated[str, Meta(description="24h, 1h, or what is configured")]
    metadata: dict[str, str] | None = None


def file_id(record_id: str) -> str:
    return "file-" + record_id


def batch_id(record_id: str) -> str:
    return "batch_" + record_id


def file_object(record: FileRecord) -> FileObject:
    created, expires = int(record.created_s), int(record.expires_s)
    return FileObject(file_id(record.id), record.size_bytes, created, expires, record.filename, record.purpose)


def batch_object(record: BatchRecord) -> BatchObject:
    def at(status: str) -> int | None:
        return int(record.times[status]) if status in record.times else None

    return BatchObject(
        id=batch_id(record.id),
        endpoint=record.endpoint,
        errors=BatchErrors(list(record.errors)) if record.errors else None,
        input_file_id=file_id(record.input_file),
        completion_window=record.window,
        status=record.status,
        output_file_id=file_id(record.output_file) if record.output_file else None,
        error_file_id=file_id(record.error_file) if record.error_file else None,
        created_at=int(record.created_s),
        in_progress_at=at("in_progress"),
        expires_at=int(record.deadline_s),
        finalizing_at=at("finalizing"),
        completed_at=at("completed"),
        failed_at=at("failed"),
        expired_at=at("expired"),
        cancelling_at=at("cancelling"),
        cancelled_at=at("cancelled"),
        request_counts=RequestCounts(record.total, record.completed, record.failed),
        metadata=record.metadata or None,
    )
