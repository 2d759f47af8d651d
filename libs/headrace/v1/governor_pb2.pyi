from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Telemetry(_message.Message):
    __slots__ = ("worker", "incarnation", "host", "stages", "sent_s", "slots", "slots_used", "blocks", "blocks_used", "prefill_tokens", "decode_tokens", "encoded_parts", "prefill_busy_s", "decode_busy_s", "encode_busy_s", "iterations", "devices", "evictions", "encoder_cache_hits", "encoder_cache_misses", "encoder_cache_bytes", "waiting_s")
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
    WAITING_S_FIELD_NUMBER: _ClassVar[int]
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
    waiting_s: float
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., host: _Optional[str] = ..., stages: _Optional[_Iterable[str]] = ..., sent_s: _Optional[float] = ..., slots: _Optional[int] = ..., slots_used: _Optional[int] = ..., blocks: _Optional[int] = ..., blocks_used: _Optional[int] = ..., prefill_tokens: _Optional[int] = ..., decode_tokens: _Optional[int] = ..., encoded_parts: _Optional[int] = ..., prefill_busy_s: _Optional[float] = ..., decode_busy_s: _Optional[float] = ..., encode_busy_s: _Optional[float] = ..., iterations: _Optional[int] = ..., devices: _Optional[_Iterable[_Union[DeviceReading, _Mapping]]] = ..., evictions: _Optional[int] = ..., encoder_cache_hits: _Optional[int] = ..., encoder_cache_misses: _Optional[int] = ..., encoder_cache_bytes: _Optional[int] = ..., waiting_s: _Optional[float] = ...) -> None: ...

class DeviceReading(_message.Message):
    __slots__ = ("device", "source", "power_w", "temp_c", "energy_j", "unreadable", "cap_w", "cap_least_w", "cap_most_w", "speed", "kind", "full_w", "busy", "gpus")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    POWER_W_FIELD_NUMBER: _ClassVar[int]
    TEMP_C_FIELD_NUMBER: _ClassVar[int]
    ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    CAP_W_FIELD_NUMBER: _ClassVar[int]
    CAP_LEAST_W_FIELD_NUMBER: _ClassVar[int]
    CAP_MOST_W_FIELD_NUMBER: _ClassVar[int]
    SPEED_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FULL_W_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    device: str
    source: str
    power_w: float
    temp_c: float
    energy_j: float
    unreadable: str
    cap_w: float
    cap_least_w: float
    cap_most_w: float
    speed: float
    kind: str
    full_w: float
    busy: float
    gpus: int
    def __init__(self, device: _Optional[str] = ..., source: _Optional[str] = ..., power_w: _Optional[float] = ..., temp_c: _Optional[float] = ..., energy_j: _Optional[float] = ..., unreadable: _Optional[str] = ..., cap_w: _Optional[float] = ..., cap_least_w: _Optional[float] = ..., cap_most_w: _Optional[float] = ..., speed: _Optional[float] = ..., kind: _Optional[str] = ..., full_w: _Optional[float] = ..., busy: _Optional[float] = ..., gpus: _Optional[int] = ...) -> None: ...

class CapBatch(_message.Message):
    __slots__ = ("governor", "epoch", "sequence", "sent_s", "lease_s", "workers", "stages")
    GOVERNOR_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_S_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    governor: str
    epoch: int
    sequence: int
    sent_s: float
    lease_s: float
    workers: _containers.RepeatedCompositeFieldContainer[WorkerCaps]
    stages: _containers.RepeatedCompositeFieldContainer[StageBudget]
    def __init__(self, governor: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., sent_s: _Optional[float] = ..., lease_s: _Optional[float] = ..., workers: _Optional[_Iterable[_Union[WorkerCaps, _Mapping]]] = ..., stages: _Optional[_Iterable[_Union[StageBudget, _Mapping]]] = ...) -> None: ...

class WorkerCaps(_message.Message):
    __slots__ = ("worker", "devices", "weight", "slots_share", "prefill_factor", "decode_factor", "encode_factor")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_SHARE_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FACTOR_FIELD_NUMBER: _ClassVar[int]
    DECODE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    worker: str
    devices: _containers.RepeatedCompositeFieldContainer[DeviceCap]
    weight: float
    slots_share: float
    prefill_factor: float
    decode_factor: float
    encode_factor: float
    def __init__(self, worker: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[DeviceCap, _Mapping]]] = ..., weight: _Optional[float] = ..., slots_share: _Optional[float] = ..., prefill_factor: _Optional[float] = ..., decode_factor: _Optional[float] = ..., encode_factor: _Optional[float] = ...) -> None: ...

class DeviceCap(_message.Message):
    __slots__ = ("device", "cap_w", "fallback_w", "reason")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CAP_W_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_W_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    device: str
    cap_w: float
    fallback_w: float
    reason: str
    def __init__(self, device: _Optional[str] = ..., cap_w: _Optional[float] = ..., fallback_w: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class StageBudget(_message.Message):
    __slots__ = ("stage", "budget_w", "demand_w", "goodput_per_watt", "move")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_W_FIELD_NUMBER: _ClassVar[int]
    DEMAND_W_FIELD_NUMBER: _ClassVar[int]
    GOODPUT_PER_WATT_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    stage: str
    budget_w: float
    demand_w: float
    goodput_per_watt: float
    move: int
    def __init__(self, stage: _Optional[str] = ..., budget_w: _Optional[float] = ..., demand_w: _Optional[float] = ..., goodput_per_watt: _Optional[float] = ..., move: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("workers", "devices", "notes", "caps", "rows", "audit", "mode", "learnt")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    CAPS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LEARNT_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerTelemetry]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceReading]
    notes: _containers.RepeatedScalarFieldContainer[str]
    caps: CapBatch
    rows: _containers.RepeatedCompositeFieldContainer[RowState]
    audit: _containers.RepeatedCompositeFieldContainer[AuditEntry]
    mode: str
    learnt: LearntState
    def __init__(self, workers: _Optional[_Iterable[_Union[WorkerTelemetry, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceReading, _Mapping]]] = ..., notes: _Optional[_Iterable[str]] = ..., caps: _Optional[_Union[CapBatch, _Mapping]] = ..., rows: _Optional[_Iterable[_Union[RowState, _Mapping]]] = ..., audit: _Optional[_Iterable[_Union[AuditEntry, _Mapping]]] = ..., mode: _Optional[str] = ..., learnt: _Optional[_Union[LearntState, _Mapping]] = ...) -> None: ...

class LearntState(_message.Message):
    __slots__ = ("mode", "network", "running", "trouble", "device_seconds", "mean_apart", "above_share", "worst_apart", "worst_at", "distrusted", "late", "step_ms")
    MODE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEAN_APART_FIELD_NUMBER: _ClassVar[int]
    ABOVE_SHARE_FIELD_NUMBER: _ClassVar[int]
    WORST_APART_FIELD_NUMBER: _ClassVar[int]
    WORST_AT_FIELD_NUMBER: _ClassVar[int]
    DISTRUSTED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    mode: str
    network: str
    running: bool
    trouble: str
    device_seconds: int
    mean_apart: float
    above_share: float
    worst_apart: float
    worst_at: str
    distrusted: int
    late: int
    step_ms: float
    def __init__(self, mode: _Optional[str] = ..., network: _Optional[str] = ..., running: _Optional[bool] = ..., trouble: _Optional[str] = ..., device_seconds: _Optional[int] = ..., mean_apart: _Optional[float] = ..., above_share: _Optional[float] = ..., worst_apart: _Optional[float] = ..., worst_at: _Optional[str] = ..., distrusted: _Optional[int] = ..., late: _Optional[int] = ..., step_ms: _Optional[float] = ...) -> None: ...

class RowState(_message.Message):
    __slots__ = ("row", "power_w", "budget_w", "limit_w", "least_w", "emergencies", "workers", "air_m3s", "air_limit_m3s")
    ROW_FIELD_NUMBER: _ClassVar[int]
    POWER_W_FIELD_NUMBER: _ClassVar[int]
    BUDGET_W_FIELD_NUMBER: _ClassVar[int]
    LIMIT_W_FIELD_NUMBER: _ClassVar[int]
    LEAST_W_FIELD_NUMBER: _ClassVar[int]
    EMERGENCIES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    AIR_M3S_FIELD_NUMBER: _ClassVar[int]
    AIR_LIMIT_M3S_FIELD_NUMBER: _ClassVar[int]
    row: str
    power_w: float
    budget_w: float
    limit_w: float
    least_w: float
    emergencies: _containers.RepeatedScalarFieldContainer[str]
    workers: _containers.RepeatedScalarFieldContainer[str]
    air_m3s: float
    air_limit_m3s: float
    def __init__(self, row: _Optional[str] = ..., power_w: _Optional[float] = ..., budget_w: _Optional[float] = ..., limit_w: _Optional[float] = ..., least_w: _Optional[float] = ..., emergencies: _Optional[_Iterable[str]] = ..., workers: _Optional[_Iterable[str]] = ..., air_m3s: _Optional[float] = ..., air_limit_m3s: _Optional[float] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("at_s", "action", "subject", "reason", "before", "after", "who")
    AT_S_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    at_s: float
    action: str
    subject: str
    reason: str
    before: float
    after: float
    who: str
    def __init__(self, at_s: _Optional[float] = ..., action: _Optional[str] = ..., subject: _Optional[str] = ..., reason: _Optional[str] = ..., before: _Optional[float] = ..., after: _Optional[float] = ..., who: _Optional[str] = ...) -> None: ...

class SetBudgetRequest(_message.Message):
    __slots__ = ("row", "budget_w", "who")
    ROW_FIELD_NUMBER: _ClassVar[int]
    BUDGET_W_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    row: str
    budget_w: float
    who: str
    def __init__(self, row: _Optional[str] = ..., budget_w: _Optional[float] = ..., who: _Optional[str] = ...) -> None: ...

class SetBudgetResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[RowState]
    def __init__(self, rows: _Optional[_Iterable[_Union[RowState, _Mapping]]] = ...) -> None: ...

class DeclareEmergencyRequest(_message.Message):
    __slots__ = ("kind", "who")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    kind: str
    who: str
    def __init__(self, kind: _Optional[str] = ..., who: _Optional[str] = ...) -> None: ...

class ClearEmergencyRequest(_message.Message):
    __slots__ = ("kind", "who")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    kind: str
    who: str
    def __init__(self, kind: _Optional[str] = ..., who: _Optional[str] = ...) -> None: ...

class SetModeRequest(_message.Message):
    __slots__ = ("mode", "who")
    MODE_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    mode: str
    who: str
    def __init__(self, mode: _Optional[str] = ..., who: _Optional[str] = ...) -> None: ...

class SetModeResponse(_message.Message):
    __slots__ = ("mode",)
    MODE_FIELD_NUMBER: _ClassVar[int]
    mode: str
    def __init__(self, mode: _Optional[str] = ...) -> None: ...

class EmergencyResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[RowState]
    def __init__(self, rows: _Optional[_Iterable[_Union[RowState, _Mapping]]] = ...) -> None: ...
