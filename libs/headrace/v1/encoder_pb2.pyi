from headrace.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmbedTokens(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class EmbedMedia(_message.Message):
    __slots__ = ("media", "data")
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    media: _common_pb2.Media
    data: bytes
    def __init__(self, media: _Optional[_Union[_common_pb2.Media, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class EmbedInput(_message.Message):
    __slots__ = ("index", "tokens", "media")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    index: int
    tokens: EmbedTokens
    media: EmbedMedia
    def __init__(self, index: _Optional[int] = ..., tokens: _Optional[_Union[EmbedTokens, _Mapping]] = ..., media: _Optional[_Union[EmbedMedia, _Mapping]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("model", "inputs", "traceparent")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[EmbedInput]
    traceparent: str
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[EmbedInput, _Mapping]]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class EmbedVector(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: bytes
    def __init__(self, values: _Optional[bytes] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("vectors", "joules")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    JOULES_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[EmbedVector]
    joules: float
    def __init__(self, vectors: _Optional[_Iterable[_Union[EmbedVector, _Mapping]]] = ..., joules: _Optional[float] = ...) -> None: ...

class EmbeddingModel(_message.Message):
    __slots__ = ("name", "width", "modalities")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    width: int
    modalities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., width: _Optional[int] = ..., modalities: _Optional[_Iterable[str]] = ...) -> None: ...

class Embedder(_message.Message):
    __slots__ = ("worker", "grpc_address", "models", "waiting_tokens", "leaving")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    WAITING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    worker: str
    grpc_address: str
    models: _containers.RepeatedCompositeFieldContainer[EmbeddingModel]
    waiting_tokens: int
    leaving: bool
    def __init__(self, worker: _Optional[str] = ..., grpc_address: _Optional[str] = ..., models: _Optional[_Iterable[_Union[EmbeddingModel, _Mapping]]] = ..., waiting_tokens: _Optional[int] = ..., leaving: _Optional[bool] = ...) -> None: ...
