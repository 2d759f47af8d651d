"""The Python SDK: needs grpcio and protobuf, nothing else.

>>> from headrace.client import Client
>>> with Client("127.0.0.1:8001") as client:  # doctest: +SKIP
...     answer = client.generate("What digits are these, in order?", images=["a.png", "b.png"])
...     for delta in answer:
...         print(delta.text, end="", flush=True)
...     print(answer.end.reason, answer.usage.image_tokens)
"""

from headrace.client.aio import AsyncClient, AsyncStream
from headrace.client.door import Door
from headrace.client.errors import (
    Cancelled,
    Conflict,
    ContextTooLong,
    DeadlineExceeded,
    Expired,
    HeadraceError,
    InvalidInput,
    ModelNotFound,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    StageError,
    TooLate,
    Unauthenticated,
    Unavailable,
    UnsupportedModality,
)
from headrace.client.request import Options
from headrace.client.sync import Client, Stream
from headrace.client.types import (
    Audio,
    Delta,
    End,
    Image,
    LikelyToken,
    Message,
    Model,
    Stage,
    TokenLogprobs,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
    Video,
)

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "Audio",
    "Cancelled",
    "Client",
    "Conflict",
    "ContextTooLong",
    "DeadlineExceeded",
    "Delta",
    "Door",
    "End",
    "Expired",
    "HeadraceError",
    "Image",
    "InvalidInput",
    "LikelyToken",
    "Message",
    "Model",
    "ModelNotFound",
    "NotFound",
    "Options",
    "Overloaded",
    "PayloadTooLarge",
    "PermissionDenied",
    "QuotaExceeded",
    "RateLimited",
    "Stage",
    "StageError",
    "Stream",
    "TokenLogprobs",
    "TooLate",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedModality",
    "Usage",
    "Video",
]
