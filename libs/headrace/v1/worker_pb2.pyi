from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WorkerState(_message.Message):
    __slots__ = ("worker", "incarnation", "stages", "slots", "slots_used", "blocks", "blocks_used", "handles", "mapped_files", "kept_requests", "epoch", "offers")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_USED_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    MAPPED_FILES_FIELD_NUMBER: _ClassVar[int]
    KEPT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    stages: _containers.RepeatedScalarFieldContainer[str]
    slots: int
    slots_used: int
    blocks: int
    blocks_used: int
    handles: int
    mapped_files: int
    kept_requests: int
    epoch: int
    offers: int
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., stages: _Optional[_Iterable[str]] = ..., slots: _Optional[int] = ..., slots_used: _Optional[int] = ..., blocks: _Optional[int] = ..., blocks_used: _Optional[int] = ..., handles: _Optional[int] = ..., mapped_files: _Optional[int] = ..., kept_requests: _Optional[int] = ..., epoch: _Optional[int] = ..., offers: _Optional[int] = ...) -> None: ...

class GetStateResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: WorkerState
    def __init__(self, state: _Optional[_Union[WorkerState, _Mapping]] = ...) -> None: ...
