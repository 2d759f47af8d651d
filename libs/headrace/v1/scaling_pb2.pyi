from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PoolOrder(_message.Message):
    __slots__ = ("pool", "instances", "leave_first")
    POOL_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIRST_FIELD_NUMBER: _ClassVar[int]
    pool: str
    instances: int
    leave_first: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pool: _Optional[str] = ..., instances: _Optional[int] = ..., leave_first: _Optional[_Iterable[str]] = ...) -> None: ...

class ScaleOrder(_message.Message):
    __slots__ = ("epoch", "orders")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    orders: _containers.RepeatedCompositeFieldContainer[PoolOrder]
    def __init__(self, epoch: _Optional[int] = ..., orders: _Optional[_Iterable[_Union[PoolOrder, _Mapping]]] = ...) -> None: ...

class PoolFleet(_message.Message):
    __slots__ = ("pool", "instances", "leaving")
    POOL_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    pool: str
    instances: int
    leaving: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pool: _Optional[str] = ..., instances: _Optional[int] = ..., leaving: _Optional[_Iterable[str]] = ...) -> None: ...

class ScaleReply(_message.Message):
    __slots__ = ("epoch", "pools")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    pools: _containers.RepeatedCompositeFieldContainer[PoolFleet]
    def __init__(self, epoch: _Optional[int] = ..., pools: _Optional[_Iterable[_Union[PoolFleet, _Mapping]]] = ...) -> None: ...

class PoolStatus(_message.Message):
    __slots__ = ("pool", "stages", "least", "most", "ready", "starting", "draining", "target", "reason", "load_per_s", "capacity_per_s", "start_s")
    POOL_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    STARTING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LOAD_PER_S_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_PER_S_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    pool: str
    stages: _containers.RepeatedScalarFieldContainer[str]
    least: int
    most: int
    ready: int
    starting: int
    draining: int
    target: int
    reason: str
    load_per_s: float
    capacity_per_s: float
    start_s: float
    def __init__(self, pool: _Optional[str] = ..., stages: _Optional[_Iterable[str]] = ..., least: _Optional[int] = ..., most: _Optional[int] = ..., ready: _Optional[int] = ..., starting: _Optional[int] = ..., draining: _Optional[int] = ..., target: _Optional[int] = ..., reason: _Optional[str] = ..., load_per_s: _Optional[float] = ..., capacity_per_s: _Optional[float] = ..., start_s: _Optional[float] = ...) -> None: ...

class ScalingDecision(_message.Message):
    __slots__ = ("at_s", "pool", "before", "after", "reason", "error")
    AT_S_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    at_s: float
    pool: str
    before: int
    after: int
    reason: str
    error: str
    def __init__(self, at_s: _Optional[float] = ..., pool: _Optional[str] = ..., before: _Optional[int] = ..., after: _Optional[int] = ..., reason: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class ScalingStatus(_message.Message):
    __slots__ = ("policy", "pools", "decisions", "trouble")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    policy: str
    pools: _containers.RepeatedCompositeFieldContainer[PoolStatus]
    decisions: _containers.RepeatedCompositeFieldContainer[ScalingDecision]
    trouble: str
    def __init__(self, policy: _Optional[str] = ..., pools: _Optional[_Iterable[_Union[PoolStatus, _Mapping]]] = ..., decisions: _Optional[_Iterable[_Union[ScalingDecision, _Mapping]]] = ..., trouble: _Optional[str] = ...) -> None: ...
