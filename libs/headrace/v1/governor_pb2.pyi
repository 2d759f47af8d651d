from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Telemetry(_message.Message):
    __slots__ = ("worker", "incarnation", "host", "stages", "sent_s", "slots", "slots_used", "blocks", "blocks_used", "prefill_tokens", "decode_tokens", "encoded_parts", "prefill_busy_s", "decode_busy_s", "encode_busy_s", "iterations", "devices", "evictions", "encoder_cache_hits", "encoder_cache_misses", "encoder_cache_bytes")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    SENT_S_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_USED_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENCODED_PARTS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_BUSY_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_BUSY_S_FIELD_NUMBER: _ClassVar[int]
    ENCODE_BUSY_S_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    ENCODER_CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    ENCODER_CACHE_MISSES_FIELD_NUMBER: _ClassVar[int]
    ENCODER_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    host: str
    stages: _containers.RepeatedScalarFieldContainer[str]
    sent_s: float
    slots: int
    slots_used: int
    blocks: int
    blocks_used: int
    prefill_tokens: int
    decode_tokens: int
    encoded_parts: int
    prefill_busy_s: float
    decode_busy_s: float
    encode_busy_s: float
    iterations: int
    devices: _containers.RepeatedCompositeFieldContainer[DeviceReading]
    evictions: int
    encoder_cache_hits: int
    encoder_cache_misses: int
    encoder_cache_bytes: int
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., host: _Optional[str] = ..., stages: _Optional[_Iterable[str]] = ..., sent_s: _Optional[float] = ..., slots: _Optional[int] = ..., slots_used: _Optional[int] = ..., blocks: _Optional[int] = ..., blocks_used: _Optional[int] = ..., prefill_tokens: _Optional[int] = ..., decode_tokens: _Optional[int] = ..., encoded_parts: _Optional[int] = ..., prefill_busy_s: _Optional[float] = ..., decode_busy_s: _Optional[float] = ..., encode_busy_s: _Optional[float] = ..., iterations: _Optional[int] = ..., devices: _Optional[_Iterable[_Union[DeviceReading, _Mapping]]] = ..., evictions: _Optional[int] = ..., encoder_cache_hits: _Optional[int] = ..., encoder_cache_misses: _Optional[int] = ..., encoder_cache_bytes: _Optional[int] = ...) -> None: ...

class DeviceReading(_message.Message):
    __slots__ = ("device", "source", "power_w", "temp_c", "energy_j", "unreadable")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    POWER_W_FIELD_NUMBER: _ClassVar[int]
    TEMP_C_FIELD_NUMBER: _ClassVar[int]
    ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    device: str
    source: str
    power_w: float
    temp_c: float
    energy_j: float
    unreadable: str
    def __init__(self, device: _Optional[str] = ..., source: _Optional[str] = ..., power_w: _Optional[float] = ..., temp_c: _Optional[float] = ..., energy_j: _Optional[float] = ..., unreadable: _Optional[str] = ...) -> None: ...

class GetGovernorStateRequest(_message.Message):
    __slots__ = ("history",)
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    history: int
    def __init__(self, history: _Optional[int] = ...) -> None: ...

class WorkerTelemetry(_message.Message):
    __slots__ = ("worker", "samples", "stale")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    samples: _containers.RepeatedCompositeFieldContainer[Telemetry]
    stale: bool
    def __init__(self, worker: _Optional[str] = ..., samples: _Optional[_Iterable[_Union[Telemetry, _Mapping]]] = ..., stale: _Optional[bool] = ...) -> None: ...

class GetGovernorStateResponse(_message.Message):
    __slots__ = ("workers", "devices", "notes")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerTelemetry]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceReading]
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, workers: _Optional[_Iterable[_Union[WorkerTelemetry, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceReading, _Mapping]]] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...
