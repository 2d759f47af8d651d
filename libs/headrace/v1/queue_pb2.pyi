from headrace.v1 import common_pb2 as _common_pb2
from headrace.v1 import scaling_pb2 as _scaling_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HoldState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOLD_STATE_UNSPECIFIED: _ClassVar[HoldState]
    HOLD_STATE_ENCODING: _ClassVar[HoldState]
    HOLD_STATE_ENCODED: _ClassVar[HoldState]
    HOLD_STATE_PREFILL: _ClassVar[HoldState]
    HOLD_STATE_HANDOVER: _ClassVar[HoldState]
    HOLD_STATE_DECODE: _ClassVar[HoldState]
    HOLD_STATE_ENDED: _ClassVar[HoldState]
    HOLD_STATE_EVICTED: _ClassVar[HoldState]
HOLD_STATE_UNSPECIFIED: HoldState
HOLD_STATE_ENCODING: HoldState
HOLD_STATE_ENCODED: HoldState
HOLD_STATE_PREFILL: HoldState
HOLD_STATE_HANDOVER: HoldState
HOLD_STATE_DECODE: HoldState
HOLD_STATE_ENDED: HoldState
HOLD_STATE_EVICTED: HoldState

class RequestRecord(_message.Message):
    __slots__ = ("request_id", "tenant", "idempotency_key", "body_hash", "model", "slo_class", "accepted_s", "deadline_s", "prompt", "spans", "media", "prefix", "sampling", "gateway", "traceparent", "keep_on_disconnect", "question", "ttft_s", "tbt_s", "priority", "flow", "choices")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    BODY_HASH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLO_CLASS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_S_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    KEEP_ON_DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    TTFT_S_FIELD_NUMBER: _ClassVar[int]
    TBT_S_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    FLOW_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tenant: str
    idempotency_key: str
    body_hash: bytes
    model: str
    slo_class: str
    accepted_s: float
    deadline_s: float
    prompt: _containers.RepeatedScalarFieldContainer[int]
    spans: _containers.RepeatedCompositeFieldContainer[_common_pb2.MediaSpan]
    media: _containers.RepeatedCompositeFieldContainer[_common_pb2.Media]
    prefix: str
    sampling: _common_pb2.Sampling
    gateway: str
    traceparent: str
    keep_on_disconnect: bool
    question: str
    ttft_s: float
    tbt_s: float
    priority: int
    flow: str
    choices: int
    def __init__(self, request_id: _Optional[str] = ..., tenant: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., body_hash: _Optional[bytes] = ..., model: _Optional[str] = ..., slo_class: _Optional[str] = ..., accepted_s: _Optional[float] = ..., deadline_s: _Optional[float] = ..., prompt: _Optional[_Iterable[int]] = ..., spans: _Optional[_Iterable[_Union[_common_pb2.MediaSpan, _Mapping]]] = ..., media: _Optional[_Iterable[_Union[_common_pb2.Media, _Mapping]]] = ..., prefix: _Optional[str] = ..., sampling: _Optional[_Union[_common_pb2.Sampling, _Mapping]] = ..., gateway: _Optional[str] = ..., traceparent: _Optional[str] = ..., keep_on_disconnect: _Optional[bool] = ..., question: _Optional[str] = ..., ttft_s: _Optional[float] = ..., tbt_s: _Optional[float] = ..., priority: _Optional[int] = ..., flow: _Optional[str] = ..., choices: _Optional[int] = ...) -> None: ...

class ResultRecord(_message.Message):
    __slots__ = ("request_id", "tenant", "idempotency_key", "body_hash", "model", "attempt", "tokens", "end", "accepted_s", "ended_s", "stop", "logprobs", "calls", "choices")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    BODY_HASH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_S_FIELD_NUMBER: _ClassVar[int]
    ENDED_S_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tenant: str
    idempotency_key: str
    body_hash: bytes
    model: str
    attempt: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    end: _common_pb2.End
    accepted_s: float
    ended_s: float
    stop: _containers.RepeatedScalarFieldContainer[str]
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprobs]
    calls: bool
    choices: int
    def __init__(self, request_id: _Optional[str] = ..., tenant: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., body_hash: _Optional[bytes] = ..., model: _Optional[str] = ..., attempt: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., end: _Optional[_Union[_common_pb2.End, _Mapping]] = ..., accepted_s: _Optional[float] = ..., ended_s: _Optional[float] = ..., stop: _Optional[_Iterable[str]] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprobs, _Mapping]]] = ..., calls: _Optional[bool] = ..., choices: _Optional[int] = ...) -> None: ...

class EncodeCommand(_message.Message):
    __slots__ = ("key", "part", "media", "model", "traceparent", "cache_scope", "due_s")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    CACHE_SCOPE_FIELD_NUMBER: _ClassVar[int]
    DUE_S_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    part: int
    media: _common_pb2.Media
    model: str
    traceparent: str
    cache_scope: str
    due_s: float
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., part: _Optional[int] = ..., media: _Optional[_Union[_common_pb2.Media, _Mapping]] = ..., model: _Optional[str] = ..., traceparent: _Optional[str] = ..., cache_scope: _Optional[str] = ..., due_s: _Optional[float] = ...) -> None: ...

class PrefillCommand(_message.Message):
    __slots__ = ("key", "model", "prompt", "spans", "embeddings", "prefix", "sampling", "emitted", "gateway", "decode_worker", "traceparent", "deadline_s", "timeline", "cached_tokens", "emitted_logprobs")
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    EMITTED_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    DECODE_WORKER_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EMITTED_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    model: str
    prompt: _containers.RepeatedScalarFieldContainer[int]
    spans: _containers.RepeatedCompositeFieldContainer[_common_pb2.MediaSpan]
    embeddings: _containers.RepeatedCompositeFieldContainer[_common_pb2.TensorHandle]
    prefix: str
    sampling: _common_pb2.Sampling
    emitted: _containers.RepeatedScalarFieldContainer[int]
    gateway: str
    decode_worker: str
    traceparent: str
    deadline_s: float
    timeline: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageSpan]
    cached_tokens: int
    emitted_logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprobs]
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., model: _Optional[str] = ..., prompt: _Optional[_Iterable[int]] = ..., spans: _Optional[_Iterable[_Union[_common_pb2.MediaSpan, _Mapping]]] = ..., embeddings: _Optional[_Iterable[_Union[_common_pb2.TensorHandle, _Mapping]]] = ..., prefix: _Optional[str] = ..., sampling: _Optional[_Union[_common_pb2.Sampling, _Mapping]] = ..., emitted: _Optional[_Iterable[int]] = ..., gateway: _Optional[str] = ..., decode_worker: _Optional[str] = ..., traceparent: _Optional[str] = ..., deadline_s: _Optional[float] = ..., timeline: _Optional[_Iterable[_Union[_common_pb2.StageSpan, _Mapping]]] = ..., cached_tokens: _Optional[int] = ..., emitted_logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprobs, _Mapping]]] = ...) -> None: ...

class PartsCommand(_message.Message):
    __slots__ = ("key", "first", "embeddings", "timeline")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    first: int
    embeddings: _containers.RepeatedCompositeFieldContainer[_common_pb2.TensorHandle]
    timeline: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageSpan]
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., first: _Optional[int] = ..., embeddings: _Optional[_Iterable[_Union[_common_pb2.TensorHandle, _Mapping]]] = ..., timeline: _Optional[_Iterable[_Union[_common_pb2.StageSpan, _Mapping]]] = ...) -> None: ...

class JoinCommand(_message.Message):
    __slots__ = ("request", "kv")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    KV_FIELD_NUMBER: _ClassVar[int]
    request: PrefillCommand
    kv: _common_pb2.TensorHandle
    def __init__(self, request: _Optional[_Union[PrefillCommand, _Mapping]] = ..., kv: _Optional[_Union[_common_pb2.TensorHandle, _Mapping]] = ...) -> None: ...

class OfferCommand(_message.Message):
    __slots__ = ("key", "kv")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KV_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    kv: _common_pb2.TensorHandle
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., kv: _Optional[_Union[_common_pb2.TensorHandle, _Mapping]] = ...) -> None: ...

class ResendCommand(_message.Message):
    __slots__ = ("key", "from_index", "gateway")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FROM_INDEX_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    from_index: int
    gateway: str
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., from_index: _Optional[int] = ..., gateway: _Optional[str] = ...) -> None: ...

class MoveCommand(_message.Message):
    __slots__ = ("key", "worker")
    KEY_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    worker: str
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., worker: _Optional[str] = ...) -> None: ...

class WorkBatch(_message.Message):
    __slots__ = ("epoch", "encode", "prefill", "join", "cancel", "release", "resend", "offer", "evict", "resume", "move", "parts", "load", "dismiss")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    RESEND_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    EVICT_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    DISMISS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    encode: _containers.RepeatedCompositeFieldContainer[EncodeCommand]
    prefill: _containers.RepeatedCompositeFieldContainer[PrefillCommand]
    join: _containers.RepeatedCompositeFieldContainer[JoinCommand]
    cancel: _containers.RepeatedCompositeFieldContainer[_common_pb2.Attempt]
    release: _containers.RepeatedCompositeFieldContainer[_common_pb2.Attempt]
    resend: _containers.RepeatedCompositeFieldContainer[ResendCommand]
    offer: _containers.RepeatedCompositeFieldContainer[OfferCommand]
    evict: _containers.RepeatedCompositeFieldContainer[_common_pb2.Attempt]
    resume: _containers.RepeatedCompositeFieldContainer[_common_pb2.Attempt]
    move: _containers.RepeatedCompositeFieldContainer[MoveCommand]
    parts: _containers.RepeatedCompositeFieldContainer[PartsCommand]
    load: str
    dismiss: bool
    def __init__(self, epoch: _Optional[int] = ..., encode: _Optional[_Iterable[_Union[EncodeCommand, _Mapping]]] = ..., prefill: _Optional[_Iterable[_Union[PrefillCommand, _Mapping]]] = ..., join: _Optional[_Iterable[_Union[JoinCommand, _Mapping]]] = ..., cancel: _Optional[_Iterable[_Union[_common_pb2.Attempt, _Mapping]]] = ..., release: _Optional[_Iterable[_Union[_common_pb2.Attempt, _Mapping]]] = ..., resend: _Optional[_Iterable[_Union[ResendCommand, _Mapping]]] = ..., offer: _Optional[_Iterable[_Union[OfferCommand, _Mapping]]] = ..., evict: _Optional[_Iterable[_Union[_common_pb2.Attempt, _Mapping]]] = ..., resume: _Optional[_Iterable[_Union[_common_pb2.Attempt, _Mapping]]] = ..., move: _Optional[_Iterable[_Union[MoveCommand, _Mapping]]] = ..., parts: _Optional[_Iterable[_Union[PartsCommand, _Mapping]]] = ..., load: _Optional[str] = ..., dismiss: _Optional[bool] = ...) -> None: ...

class PartEncoded(_message.Message):
    __slots__ = ("key", "part", "embedding", "timeline")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    part: int
    embedding: _common_pb2.TensorHandle
    timeline: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageSpan]
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., part: _Optional[int] = ..., embedding: _Optional[_Union[_common_pb2.TensorHandle, _Mapping]] = ..., timeline: _Optional[_Iterable[_Union[_common_pb2.StageSpan, _Mapping]]] = ...) -> None: ...

class Prefilled(_message.Message):
    __slots__ = ("key", "next_index", "kv", "timeline")
    KEY_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    KV_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    next_index: int
    kv: _common_pb2.TensorHandle
    timeline: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageSpan]
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., next_index: _Optional[int] = ..., kv: _Optional[_Union[_common_pb2.TensorHandle, _Mapping]] = ..., timeline: _Optional[_Iterable[_Union[_common_pb2.StageSpan, _Mapping]]] = ...) -> None: ...

class Joined(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ...) -> None: ...

class Evicted(_message.Message):
    __slots__ = ("key", "next_index", "kv", "timeline")
    KEY_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    KV_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    next_index: int
    kv: _common_pb2.TensorHandle
    timeline: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageSpan]
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., next_index: _Optional[int] = ..., kv: _Optional[_Union[_common_pb2.TensorHandle, _Mapping]] = ..., timeline: _Optional[_Iterable[_Union[_common_pb2.StageSpan, _Mapping]]] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("key", "end", "tokens", "logprobs")
    KEY_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    end: _common_pb2.End
    tokens: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprobs]
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., end: _Optional[_Union[_common_pb2.End, _Mapping]] = ..., tokens: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprobs, _Mapping]]] = ...) -> None: ...

class StageFailed(_message.Message):
    __slots__ = ("key", "failure", "retryable", "timeline")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    failure: _common_pb2.Failure
    retryable: bool
    timeline: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageSpan]
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., failure: _Optional[_Union[_common_pb2.Failure, _Mapping]] = ..., retryable: _Optional[bool] = ..., timeline: _Optional[_Iterable[_Union[_common_pb2.StageSpan, _Mapping]]] = ...) -> None: ...

class EventBatch(_message.Message):
    __slots__ = ("worker", "incarnation", "encoded", "prefilled", "joined", "ended", "failed", "evicted")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    PREFILLED_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    encoded: _containers.RepeatedCompositeFieldContainer[PartEncoded]
    prefilled: _containers.RepeatedCompositeFieldContainer[Prefilled]
    joined: _containers.RepeatedCompositeFieldContainer[Joined]
    ended: _containers.RepeatedCompositeFieldContainer[Ended]
    failed: _containers.RepeatedCompositeFieldContainer[StageFailed]
    evicted: _containers.RepeatedCompositeFieldContainer[Evicted]
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., encoded: _Optional[_Iterable[_Union[PartEncoded, _Mapping]]] = ..., prefilled: _Optional[_Iterable[_Union[Prefilled, _Mapping]]] = ..., joined: _Optional[_Iterable[_Union[Joined, _Mapping]]] = ..., ended: _Optional[_Iterable[_Union[Ended, _Mapping]]] = ..., failed: _Optional[_Iterable[_Union[StageFailed, _Mapping]]] = ..., evicted: _Optional[_Iterable[_Union[Evicted, _Mapping]]] = ...) -> None: ...

class Hold(_message.Message):
    __slots__ = ("key", "state", "next_index", "part", "handle", "decode_worker", "lacks")
    KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    DECODE_WORKER_FIELD_NUMBER: _ClassVar[int]
    LACKS_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    state: HoldState
    next_index: int
    part: int
    handle: _common_pb2.TensorHandle
    decode_worker: str
    lacks: int
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., state: _Optional[_Union[HoldState, str]] = ..., next_index: _Optional[int] = ..., part: _Optional[int] = ..., handle: _Optional[_Union[_common_pb2.TensorHandle, _Mapping]] = ..., decode_worker: _Optional[str] = ..., lacks: _Optional[int] = ...) -> None: ...

class Pace(_message.Message):
    __slots__ = ("step_s", "sequence_s", "prefill_token_s")
    STEP_S_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_S_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    step_s: float
    sequence_s: float
    prefill_token_s: float
    def __init__(self, step_s: _Optional[float] = ..., sequence_s: _Optional[float] = ..., prefill_token_s: _Optional[float] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("busy_s", "iterations", "prefill_tokens", "decode_tokens")
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    busy_s: float
    iterations: int
    prefill_tokens: int
    decode_tokens: int
    def __init__(self, busy_s: _Optional[float] = ..., iterations: _Optional[int] = ..., prefill_tokens: _Optional[int] = ..., decode_tokens: _Optional[int] = ...) -> None: ...

class Encoded(_message.Message):
    __slots__ = ("busy_s", "tokens")
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    busy_s: float
    tokens: int
    def __init__(self, busy_s: _Optional[float] = ..., tokens: _Optional[int] = ...) -> None: ...

class Loadable(_message.Message):
    __slots__ = ("model", "load_s", "warm", "slots", "blocks", "block_tokens", "pace")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LOAD_S_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    model: str
    load_s: float
    warm: bool
    slots: int
    blocks: int
    block_tokens: int
    pace: Pace
    def __init__(self, model: _Optional[str] = ..., load_s: _Optional[float] = ..., warm: _Optional[bool] = ..., slots: _Optional[int] = ..., blocks: _Optional[int] = ..., block_tokens: _Optional[int] = ..., pace: _Optional[_Union[Pace, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("worker", "incarnation", "stages", "model", "host", "grpc_address", "slots", "blocks", "block_tokens", "draining", "leaving", "epoch", "holds", "sent_s", "modalities", "pace", "done", "kv_bytes_per_token", "host_bytes", "loadable", "loading", "load_error", "encoded", "overlaps")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    SENT_S_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOADABLE_FIELD_NUMBER: _ClassVar[int]
    LOADING_FIELD_NUMBER: _ClassVar[int]
    LOAD_ERROR_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    OVERLAPS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    stages: _containers.RepeatedScalarFieldContainer[str]
    model: str
    host: str
    grpc_address: str
    slots: int
    blocks: int
    block_tokens: int
    draining: bool
    leaving: bool
    epoch: int
    holds: _containers.RepeatedCompositeFieldContainer[Hold]
    sent_s: float
    modalities: _containers.RepeatedScalarFieldContainer[str]
    pace: Pace
    done: Done
    kv_bytes_per_token: int
    host_bytes: int
    loadable: _containers.RepeatedCompositeFieldContainer[Loadable]
    loading: str
    load_error: str
    encoded: Encoded
    overlaps: bool
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., stages: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., host: _Optional[str] = ..., grpc_address: _Optional[str] = ..., slots: _Optional[int] = ..., blocks: _Optional[int] = ..., block_tokens: _Optional[int] = ..., draining: _Optional[bool] = ..., leaving: _Optional[bool] = ..., epoch: _Optional[int] = ..., holds: _Optional[_Iterable[_Union[Hold, _Mapping]]] = ..., sent_s: _Optional[float] = ..., modalities: _Optional[_Iterable[str]] = ..., pace: _Optional[_Union[Pace, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., kv_bytes_per_token: _Optional[int] = ..., host_bytes: _Optional[int] = ..., loadable: _Optional[_Iterable[_Union[Loadable, _Mapping]]] = ..., loading: _Optional[str] = ..., load_error: _Optional[str] = ..., encoded: _Optional[_Union[Encoded, _Mapping]] = ..., overlaps: _Optional[bool] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("request_id", "gateway", "deadline")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    gateway: str
    deadline: bool
    def __init__(self, request_id: _Optional[str] = ..., gateway: _Optional[str] = ..., deadline: _Optional[bool] = ...) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("request_id", "gateway", "next_index")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    gateway: str
    next_index: int
    def __init__(self, request_id: _Optional[str] = ..., gateway: _Optional[str] = ..., next_index: _Optional[int] = ...) -> None: ...

class Stalled(_message.Message):
    __slots__ = ("request_id", "attempt", "next_index")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    attempt: int
    next_index: int
    def __init__(self, request_id: _Optional[str] = ..., attempt: _Optional[int] = ..., next_index: _Optional[int] = ...) -> None: ...

class ControlBatch(_message.Message):
    __slots__ = ("gateway", "cancel", "attach", "stalled")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    STALLED_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    cancel: _containers.RepeatedCompositeFieldContainer[CancelRequest]
    attach: _containers.RepeatedCompositeFieldContainer[AttachRequest]
    stalled: _containers.RepeatedCompositeFieldContainer[Stalled]
    def __init__(self, gateway: _Optional[str] = ..., cancel: _Optional[_Iterable[_Union[CancelRequest, _Mapping]]] = ..., attach: _Optional[_Iterable[_Union[AttachRequest, _Mapping]]] = ..., stalled: _Optional[_Iterable[_Union[Stalled, _Mapping]]] = ...) -> None: ...

class GatewayEnd(_message.Message):
    __slots__ = ("key", "end")
    KEY_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    end: _common_pb2.End
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., end: _Optional[_Union[_common_pb2.End, _Mapping]] = ...) -> None: ...

class GatewayBatch(_message.Message):
    __slots__ = ("epoch", "ended", "look_in_results", "moved")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    LOOK_IN_RESULTS_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    ended: _containers.RepeatedCompositeFieldContainer[GatewayEnd]
    look_in_results: _containers.RepeatedScalarFieldContainer[str]
    moved: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, epoch: _Optional[int] = ..., ended: _Optional[_Iterable[_Union[GatewayEnd, _Mapping]]] = ..., look_in_results: _Optional[_Iterable[str]] = ..., moved: _Optional[_Iterable[str]] = ...) -> None: ...

class HeldQuery(_message.Message):
    __slots__ = ("epoch", "fence")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    fence: _containers.RepeatedCompositeFieldContainer[_common_pb2.Attempt]
    def __init__(self, epoch: _Optional[int] = ..., fence: _Optional[_Iterable[_Union[_common_pb2.Attempt, _Mapping]]] = ...) -> None: ...

class HeldTokens(_message.Message):
    __slots__ = ("request_id", "known", "tokens", "end", "logprobs")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    known: bool
    tokens: _containers.RepeatedScalarFieldContainer[int]
    end: _common_pb2.End
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprobs]
    def __init__(self, request_id: _Optional[str] = ..., known: _Optional[bool] = ..., tokens: _Optional[_Iterable[int]] = ..., end: _Optional[_Union[_common_pb2.End, _Mapping]] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprobs, _Mapping]]] = ...) -> None: ...

class HeldReply(_message.Message):
    __slots__ = ("held",)
    HELD_FIELD_NUMBER: _ClassVar[int]
    held: _containers.RepeatedCompositeFieldContainer[HeldTokens]
    def __init__(self, held: _Optional[_Iterable[_Union[HeldTokens, _Mapping]]] = ...) -> None: ...

class TokenEnd(_message.Message):
    __slots__ = ("key", "count", "end")
    KEY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.Attempt
    count: int
    end: _common_pb2.End
    def __init__(self, key: _Optional[_Union[_common_pb2.Attempt, _Mapping]] = ..., count: _Optional[int] = ..., end: _Optional[_Union[_common_pb2.End, _Mapping]] = ...) -> None: ...

class TokenBatch(_message.Message):
    __slots__ = ("worker", "request_id", "attempt", "index", "token", "ends", "logprobs")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    request_id: _containers.RepeatedScalarFieldContainer[str]
    attempt: _containers.RepeatedScalarFieldContainer[int]
    index: _containers.RepeatedScalarFieldContainer[int]
    token: _containers.RepeatedScalarFieldContainer[int]
    ends: _containers.RepeatedCompositeFieldContainer[TokenEnd]
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprobs]
    def __init__(self, worker: _Optional[str] = ..., request_id: _Optional[_Iterable[str]] = ..., attempt: _Optional[_Iterable[int]] = ..., index: _Optional[_Iterable[int]] = ..., token: _Optional[_Iterable[int]] = ..., ends: _Optional[_Iterable[_Union[TokenEnd, _Mapping]]] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprobs, _Mapping]]] = ...) -> None: ...

class ClassStatus(_message.Message):
    __slots__ = ("slo_class", "queued", "running", "queue_limit", "oldest_wait_s", "estimated_wait_s", "estimated_wait_least_s", "ttft_s", "encoding", "models")
    SLO_CLASS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_LEAST_S_FIELD_NUMBER: _ClassVar[int]
    TTFT_S_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    slo_class: str
    queued: int
    running: int
    queue_limit: int
    oldest_wait_s: float
    estimated_wait_s: float
    estimated_wait_least_s: float
    ttft_s: float
    encoding: int
    models: _containers.RepeatedCompositeFieldContainer[ClassOfModel]
    def __init__(self, slo_class: _Optional[str] = ..., queued: _Optional[int] = ..., running: _Optional[int] = ..., queue_limit: _Optional[int] = ..., oldest_wait_s: _Optional[float] = ..., estimated_wait_s: _Optional[float] = ..., estimated_wait_least_s: _Optional[float] = ..., ttft_s: _Optional[float] = ..., encoding: _Optional[int] = ..., models: _Optional[_Iterable[_Union[ClassOfModel, _Mapping]]] = ...) -> None: ...

class ClassOfModel(_message.Message):
    __slots__ = ("model", "queued", "encoding", "estimated_wait_s", "estimated_wait_least_s")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_LEAST_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    queued: int
    encoding: int
    estimated_wait_s: float
    estimated_wait_least_s: float
    def __init__(self, model: _Optional[str] = ..., queued: _Optional[int] = ..., encoding: _Optional[int] = ..., estimated_wait_s: _Optional[float] = ..., estimated_wait_least_s: _Optional[float] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker", "stages", "model", "slots", "slots_used", "blocks", "blocks_used", "draining", "last_seen_s", "pending_media_tokens", "loading", "evicted", "evicted_bytes", "host_bytes", "role")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_USED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_S_FIELD_NUMBER: _ClassVar[int]
    PENDING_MEDIA_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOADING_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    EVICTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    stages: _containers.RepeatedScalarFieldContainer[str]
    model: str
    slots: int
    slots_used: int
    blocks: int
    blocks_used: int
    draining: bool
    last_seen_s: float
    pending_media_tokens: int
    loading: str
    evicted: int
    evicted_bytes: int
    host_bytes: int
    role: str
    def __init__(self, worker: _Optional[str] = ..., stages: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., slots: _Optional[int] = ..., slots_used: _Optional[int] = ..., blocks: _Optional[int] = ..., blocks_used: _Optional[int] = ..., draining: _Optional[bool] = ..., last_seen_s: _Optional[float] = ..., pending_media_tokens: _Optional[int] = ..., loading: _Optional[str] = ..., evicted: _Optional[int] = ..., evicted_bytes: _Optional[int] = ..., host_bytes: _Optional[int] = ..., role: _Optional[str] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("model", "servable", "modalities", "waiting", "running", "startable")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVABLE_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    STARTABLE_FIELD_NUMBER: _ClassVar[int]
    model: str
    servable: bool
    modalities: _containers.RepeatedScalarFieldContainer[str]
    waiting: int
    running: int
    startable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., servable: _Optional[bool] = ..., modalities: _Optional[_Iterable[str]] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., startable: _Optional[_Iterable[str]] = ...) -> None: ...

class CellStatus(_message.Message):
    __slots__ = ("epoch", "leader", "sent_s", "classes", "workers", "models", "accepted", "ended", "ended_by_reason")
    class EndedByReasonEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    SENT_S_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ENDED_BY_REASON_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    leader: str
    sent_s: float
    classes: _containers.RepeatedCompositeFieldContainer[ClassStatus]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    accepted: int
    ended: int
    ended_by_reason: _containers.ScalarMap[str, int]
    def __init__(self, epoch: _Optional[int] = ..., leader: _Optional[str] = ..., sent_s: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[ClassStatus, _Mapping]]] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ..., accepted: _Optional[int] = ..., ended: _Optional[int] = ..., ended_by_reason: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("request_id", "state", "position", "waited_s", "estimated_wait_s", "why", "attempt", "worker", "group", "virtual_queue", "estimated_wait_bound_s", "predicted_tokens", "predicted_tokens_p90", "ttft_target_s", "timeline")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    WAITED_S_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_QUEUE_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_BOUND_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_TOKENS_P90_FIELD_NUMBER: _ClassVar[int]
    TTFT_TARGET_S_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    state: str
    position: int
    waited_s: float
    estimated_wait_s: float
    why: str
    attempt: int
    worker: str
    group: int
    virtual_queue: str
    estimated_wait_bound_s: float
    predicted_tokens: float
    predicted_tokens_p90: float
    ttft_target_s: float
    timeline: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageSpan]
    def __init__(self, request_id: _Optional[str] = ..., state: _Optional[str] = ..., position: _Optional[int] = ..., waited_s: _Optional[float] = ..., estimated_wait_s: _Optional[float] = ..., why: _Optional[str] = ..., attempt: _Optional[int] = ..., worker: _Optional[str] = ..., group: _Optional[int] = ..., virtual_queue: _Optional[str] = ..., estimated_wait_bound_s: _Optional[float] = ..., predicted_tokens: _Optional[float] = ..., predicted_tokens_p90: _Optional[float] = ..., ttft_target_s: _Optional[float] = ..., timeline: _Optional[_Iterable[_Union[_common_pb2.StageSpan, _Mapping]]] = ...) -> None: ...

class GroupStatus(_message.Message):
    __slots__ = ("id", "model", "slo_class", "size", "priority", "waiting", "evicted", "due_in_s", "estimated_wait_s", "estimated_wait_bound_s", "output_tokens")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLO_CLASS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    DUE_IN_S_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_BOUND_S_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    id: int
    model: str
    slo_class: str
    size: str
    priority: int
    waiting: int
    evicted: int
    due_in_s: float
    estimated_wait_s: float
    estimated_wait_bound_s: float
    output_tokens: float
    def __init__(self, id: _Optional[int] = ..., model: _Optional[str] = ..., slo_class: _Optional[str] = ..., size: _Optional[str] = ..., priority: _Optional[int] = ..., waiting: _Optional[int] = ..., evicted: _Optional[int] = ..., due_in_s: _Optional[float] = ..., estimated_wait_s: _Optional[float] = ..., estimated_wait_bound_s: _Optional[float] = ..., output_tokens: _Optional[float] = ...) -> None: ...

class VirtualQueueStatus(_message.Message):
    __slots__ = ("worker", "model", "loading", "running", "slots", "tokens_per_s", "groups", "prefill_speed", "decode_speed", "weight", "slots_usable", "groups_left_out", "waiting_left_out")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LOADING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_SPEED_FIELD_NUMBER: _ClassVar[int]
    DECODE_SPEED_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USABLE_FIELD_NUMBER: _ClassVar[int]
    GROUPS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    WAITING_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    worker: str
    model: str
    loading: str
    running: int
    slots: int
    tokens_per_s: float
    groups: _containers.RepeatedCompositeFieldContainer[GroupStatus]
    prefill_speed: float
    decode_speed: float
    weight: float
    slots_usable: int
    groups_left_out: int
    waiting_left_out: int
    def __init__(self, worker: _Optional[str] = ..., model: _Optional[str] = ..., loading: _Optional[str] = ..., running: _Optional[int] = ..., slots: _Optional[int] = ..., tokens_per_s: _Optional[float] = ..., groups: _Optional[_Iterable[_Union[GroupStatus, _Mapping]]] = ..., prefill_speed: _Optional[float] = ..., decode_speed: _Optional[float] = ..., weight: _Optional[float] = ..., slots_usable: _Optional[int] = ..., groups_left_out: _Optional[int] = ..., waiting_left_out: _Optional[int] = ...) -> None: ...

class FlowStatus(_message.Message):
    __slots__ = ("slo_class", "flow", "waiting", "served_tokens")
    SLO_CLASS_FIELD_NUMBER: _ClassVar[int]
    FLOW_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    SERVED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    slo_class: str
    flow: str
    waiting: int
    served_tokens: float
    def __init__(self, slo_class: _Optional[str] = ..., flow: _Optional[str] = ..., waiting: _Optional[int] = ..., served_tokens: _Optional[float] = ...) -> None: ...

class WaitErrorStatus(_message.Message):
    __slots__ = ("ahead_from", "requests", "median_s", "p90_s", "median_share", "within_bound")
    AHEAD_FROM_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_S_FIELD_NUMBER: _ClassVar[int]
    P90_S_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_SHARE_FIELD_NUMBER: _ClassVar[int]
    WITHIN_BOUND_FIELD_NUMBER: _ClassVar[int]
    ahead_from: int
    requests: int
    median_s: float
    p90_s: float
    median_share: float
    within_bound: float
    def __init__(self, ahead_from: _Optional[int] = ..., requests: _Optional[int] = ..., median_s: _Optional[float] = ..., p90_s: _Optional[float] = ..., median_share: _Optional[float] = ..., within_bound: _Optional[float] = ...) -> None: ...

class PlannerStatus(_message.Message):
    __slots__ = ("plans_solved", "plans_applied", "plans_stale", "last_solve_s", "last_cost", "last_solver", "last_optimal", "solve_s")
    PLANS_SOLVED_FIELD_NUMBER: _ClassVar[int]
    PLANS_APPLIED_FIELD_NUMBER: _ClassVar[int]
    PLANS_STALE_FIELD_NUMBER: _ClassVar[int]
    LAST_SOLVE_S_FIELD_NUMBER: _ClassVar[int]
    LAST_COST_FIELD_NUMBER: _ClassVar[int]
    LAST_SOLVER_FIELD_NUMBER: _ClassVar[int]
    LAST_OPTIMAL_FIELD_NUMBER: _ClassVar[int]
    SOLVE_S_FIELD_NUMBER: _ClassVar[int]
    plans_solved: int
    plans_applied: int
    plans_stale: int
    last_solve_s: float
    last_cost: float
    last_solver: str
    last_optimal: bool
    solve_s: float
    def __init__(self, plans_solved: _Optional[int] = ..., plans_applied: _Optional[int] = ..., plans_stale: _Optional[int] = ..., last_solve_s: _Optional[float] = ..., last_cost: _Optional[float] = ..., last_solver: _Optional[str] = ..., last_optimal: _Optional[bool] = ..., solve_s: _Optional[float] = ...) -> None: ...

class InspectRequest(_message.Message):
    __slots__ = ("groups_max",)
    GROUPS_MAX_FIELD_NUMBER: _ClassVar[int]
    groups_max: int
    def __init__(self, groups_max: _Optional[int] = ...) -> None: ...

class InspectResponse(_message.Message):
    __slots__ = ("epoch", "leader", "policy", "queues", "unplaced", "operations", "flows", "wait_errors", "planner", "switches", "switched")
    class OperationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    UNPLACED_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    WAIT_ERRORS_FIELD_NUMBER: _ClassVar[int]
    PLANNER_FIELD_NUMBER: _ClassVar[int]
    SWITCHES_FIELD_NUMBER: _ClassVar[int]
    SWITCHED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    leader: str
    policy: str
    queues: _containers.RepeatedCompositeFieldContainer[VirtualQueueStatus]
    unplaced: _containers.RepeatedCompositeFieldContainer[GroupStatus]
    operations: _containers.ScalarMap[str, int]
    flows: _containers.RepeatedCompositeFieldContainer[FlowStatus]
    wait_errors: _containers.RepeatedCompositeFieldContainer[WaitErrorStatus]
    planner: PlannerStatus
    switches: _containers.RepeatedCompositeFieldContainer[SwitchStatus]
    switched: _containers.RepeatedCompositeFieldContainer[SwitchEntry]
    def __init__(self, epoch: _Optional[int] = ..., leader: _Optional[str] = ..., policy: _Optional[str] = ..., queues: _Optional[_Iterable[_Union[VirtualQueueStatus, _Mapping]]] = ..., unplaced: _Optional[_Iterable[_Union[GroupStatus, _Mapping]]] = ..., operations: _Optional[_Mapping[str, int]] = ..., flows: _Optional[_Iterable[_Union[FlowStatus, _Mapping]]] = ..., wait_errors: _Optional[_Iterable[_Union[WaitErrorStatus, _Mapping]]] = ..., planner: _Optional[_Union[PlannerStatus, _Mapping]] = ..., switches: _Optional[_Iterable[_Union[SwitchStatus, _Mapping]]] = ..., switched: _Optional[_Iterable[_Union[SwitchEntry, _Mapping]]] = ...) -> None: ...

class SwitchStatus(_message.Message):
    __slots__ = ("name", "value", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class SwitchEntry(_message.Message):
    __slots__ = ("at_s", "who", "name", "before", "after")
    AT_S_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    at_s: float
    who: str
    name: str
    before: str
    after: str
    def __init__(self, at_s: _Optional[float] = ..., who: _Optional[str] = ..., name: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class SwitchRequest(_message.Message):
    __slots__ = ("name", "value", "who")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    who: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., who: _Optional[str] = ...) -> None: ...

class SwitchResponse(_message.Message):
    __slots__ = ("switches",)
    SWITCHES_FIELD_NUMBER: _ClassVar[int]
    switches: _containers.RepeatedCompositeFieldContainer[SwitchStatus]
    def __init__(self, switches: _Optional[_Iterable[_Union[SwitchStatus, _Mapping]]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status", "scaling")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SCALING_FIELD_NUMBER: _ClassVar[int]
    status: CellStatus
    scaling: _scaling_pb2.ScalingStatus
    def __init__(self, status: _Optional[_Union[CellStatus, _Mapping]] = ..., scaling: _Optional[_Union[_scaling_pb2.ScalingStatus, _Mapping]] = ...) -> None: ...
