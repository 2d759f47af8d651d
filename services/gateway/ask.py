"""What a client asks for, whichever protocol it speaks, and the check of everything that needs no model.

Both APIs build an Ask; from there on they share one pipeline (admission.py) and one set of messages.
"""

import hashlib
from dataclasses import dataclass, field

import msgspec

from headrace.core.access import ANYBODY, Key
from headrace.core.errors import InvalidInput, PayloadTooLarge
from headrace.core.slo import TIMEOUT_S_MAX
from headrace.core.types import Sampling
from headrace.engines.families import ChatMessage, MediaPart, TextPart, Tool
from services.gateway.targets import NOTHING_SAID, Targets

BODY_BYTES_MAX = 64 * 1024 * 1024  # a request with 16 photographs of 3 MB in base64
TEXT_BYTES_MAX = 1024 * 1024  # 16 bytes a token over a context of 65,536: more cannot fit any model here
MESSAGES_MAX = 1024
PARTS_MAX = 256  # content parts of one message, texts included; media parts have the model's own limit
STOP_MAX, STOP_CHARS_MAX = 16, 256
TOP_LOGPROBS_MAX = 20  # OpenAI's
# Of an answer, one for each token and each likely one beside it: as a message up to 600 KB, where NATS takes 1 MB.
LOGPROBS_MAX = 65_536
KEY_CHARS_MAX = 256
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class MediaSource:
    """A media part: its bytes, or the http(s) URL they are fetched from."""

    modality: str
    field: str  # where it stands in the client's request
    data: bytes = b""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    model: str  # empty: the gateway's default
    messages: tuple[ChatMessage, ...]
    media: tuple[MediaSource, ...]
    tools: tuple[Tool, ...] = field(default=(), kw_only=True)
    prompt: tuple[int, ...] | str | None = field(default=None, kw_only=True)  # to be gone on with: no messages
    prompt_field: str = field(default="prompt", kw_only=True)
    messages_field: str = field(default="messages", kw_only=True)
    tools_field: str = field(default="tools[{}].function.parameters", kw_only=True)  # of the tool with that number
    sampling: Sampling  # max_tokens 0: the rest of the context, at most the gateway's cap
    seeded: bool = True  # False: the client named no seed, so each request draws its own
    max_tokens_field: str = "max_tokens"
    logprobs_field: str = "logprobs"
    grammar_field: str = "grammar"
    slo_class: str = ""
    timeout_s: float = 0.0  # 0: the class's own
    targets: Targets = NOTHING_SAID
    idempotency_key: str = ""
    keep_on_disconnect: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, when, and inside which trace."""

    tenant: str
    received_s: float  # wall clock
    arrived_s: float  # the same moment, monotonic
    traceparent: str = ""  # the caller's own
    trace: bool = False  # sample this request
    key: Key = ANYBODY
    again: bool = False  # its client library comes back by itself


def check(ask: Ask, prefix: str = "") -> None:
    """Everything that can be said without the model. prefix: where sampling fields live ("sampling." in the proto).

    Raises:
        InvalidInput, PayloadTooLarge: naming the field.
    """
    if ask.prompt is None:
        _check_messages(ask)
    else:
        _check_prompt(ask.prompt, ask.prompt_field)
    _check_sampling(ask.sampling, prefix, ask)
    if not 0.0 <= ask.timeout_s <= TIMEOUT_S_MAX:
        raise InvalidInput(f"timeout_s must be between 0 and {TIMEOUT_S_MAX:.0f}", field="timeout_s")
    if len(ask.idempotency_key) > KEY_CHARS_MAX:
        raise InvalidInput(f"at most {KEY_CHARS_MAX} characters", field="idempotency_key")


def _check_messages(ask: Ask) -> None:
    messages, field = ask.messages, ask.messages_field
    if not messages:
        raise InvalidInput("at least one message is needed", field=field)
    if len(messages) > MESSAGES_MAX:
        raise InvalidInput(f"{len(messages)} messages; at most {MESSAGES_MAX}", field=field)
    size = sum(len(tool.description) + len(tool.parameters) for tool in ask.tools)
    for i, message in enumerate(messages):
        where = f"{field}[{i}]" if field == "messages" else field  # else they do not stand one to one in the body
        if message.role not in ROLES:
            raise InvalidInput(f"role {message.role!r} is not one of {', '.join(ROLES)}", field=f"{where}.role")
        if not message.parts and not message.calls:
            raise InvalidInput("the content is empty", field=f"{where}.content")
        if message.role != "user" and any(isinstance(part, MediaPart) for part in message.parts):
            raise InvalidInput("media belongs into user messages", field=f"{where}.content")
        size += sum(len(part.text.encode()) for part in message.parts if isinstance(part, TextPart))
        size += sum(len(call.arguments) for call in message.calls)
    if messages[-1].role == "assistant":
        raise InvalidInput("the last message must not be the assistant's", field=f"{where}.role")
    if size > TEXT_BYTES_MAX:
        raise PayloadTooLarge(f"{size} bytes of text; at most {TEXT_BYTES_MAX}", field=field)


def _check_prompt(prompt: tuple[int, ...] | str, field: str) -> None:
    if not prompt:
        raise InvalidInput("the prompt is empty", field=field)
    size = len(prompt.encode()) if isinstance(prompt, str) else 4 * len(prompt)
    if size > TEXT_BYTES_MAX:
        raise PayloadTooLarge(f"{size} bytes of prompt; at most {TEXT_BYTES_MAX}", field=field)


def _check_sampling(sampling: Sampling, prefix: str, ask: Ask) -> None:
    # Comparisons are written so that NaN fails them.
    ranges = (
        (ask.max_tokens_field, sampling.max_tokens, 0, 2**31),
        ("temperature", sampling.temperature, 0.0, 2.0),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("top_k", sampling.top_k, 0, 2**31),
        ("seed", sampling.seed, 0, 2**63 - 1),
        ("repetition_penalty", sampling.repetition_penalty, 0.0, 10.0),
        (ask.logprobs_field, sampling.logprobs or 0, 0, TOP_LOGPROBS_MAX),
    )
    for name, value, low, high in ranges:
        if not low <= value <= high:
            raise InvalidInput(f"{name} is {value}; it must be between {low} and {high}", field=prefix + name)
    if len(sampling.stop) > STOP_MAX:
        raise InvalidInput(f"{len(sampling.stop)} stop strings; at most {STOP_MAX}", field=f"{prefix}stop")
    if any(not 1 <= len(stop) <= STOP_CHARS_MAX for stop in sampling.stop):
        raise InvalidInput(f"a stop string has 1 to {STOP_CHARS_MAX} characters", field=f"{prefix}stop")
    if sampling.grammar and sampling.ignore_eos:
        raise InvalidInput("an answer under a grammar ends where the grammar does", field=f"{prefix}ignore_eos")


def body_hash(ask: Ask) -> bytes:
    """SHA-256 of what decides the answer: the same over HTTP and gRPC, whatever the timeout or the way of reading."""
    media = [(source.modality, source.data, source.url) for source in ask.media]
    content = (ask.model, ask.messages, ask.prompt, media, ask.tools, ask.sampling, ask.slo_class)
    return hashlib.sha256(msgspec.msgpack.encode(content)).digest()
