"""The nouns of a request, shared by every room: frozen, slotted, no behaviour beyond derived values.

Times are seconds since the Unix epoch and end in _s; sizes are tokens or bytes and say so.
"""

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]
StageName = Literal["encode", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. The next token is a pure function of (logits, seed, token index) and what may follow."""

    max_tokens: int
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 is off
    seed: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # None: not asked for; n: the drawn token's, and those of the n likeliest
    grammar: bytes = b""  # what the answer must be, as headrace.engines.grammar writes it; empty: anything


@dataclass(frozen=True, slots=True)
class MediaMeta:
    """What is known of a media part before it is decoded: enough to count its tokens."""

    modality: str
    mime: str
    width: int  # pixels; 0 for audio
    height: int
    size_bytes: int
    duration_s: float = 0.0  # of audio and video


@dataclass(frozen=True, slots=True)
class Media:
    """A media part of an accepted request; its bytes lie in the blob store under (request id, sha256)."""

    meta: MediaMeta
    sha256: str
    tokens: int  # embedding rows that the encoder returns


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """Prompt positions offset .. offset + length - 1 hold the embeddings of media part `part`.

    Where the model attends across (Mllama) the positions only mark where the part stands: its embeddings are
    `rows` long and take KV of their own beside the prompt's; grid is (tiles, rows of a tile), and what rows there are
    beyond tiles x rows belongs to padding tiles (headrace.engines.families.crossing says who sees them).
    """

    part: int
    offset: int
    length: int
    grid: tuple[int, ...] = ()  # (time, rows, columns) of the embeddings where rope positions follow them
    rows: int = 0  # embedding rows; 0: as many as positions
    modality: str = "image"
    kv_tokens: int = 0  # KV beside the prompt's positions, in tokens of the model's KV

    @property
    def embedding_rows(self) -> int:
        return self.rows or self.length


@dataclass(frozen=True, slots=True)
class Prompt:
    """What prefill runs on: token ids, media positions holding the model's placeholder id."""

    tokens: tuple[int, ...]
    spans: tuple[MediaSpan, ...] = ()
    prefix: str = ""  # name of the cached prefix KV that the tokens continue; empty: none

    @property
    def kv_tokens(self) -> int:
        """KV that the prompt takes, its prefix apart."""
        return len(self.tokens) + sum(span.kv_tokens for span in self.spans)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One attempt at one request. Attempts only grow; the newest wins everywhere."""

    request_id: str
    attempt: int


PART_STAGES = ("wait", "preprocess", "encode")  # of a media part, at its encoder; wait: for those taken before it


@dataclass(frozen=True, slots=True)
class StageSpan:
    """One interval of a request's life."""

    stage: str
    start_s: float
    end_s: float
    worker: str
    part: int = 0
    cached: bool = False  # of encode: the embedding was there, or on its way for another part
    joules: float = 0.0  # of its worker's devices, spent on this request meanwhile; 0 where none can be read


@dataclass(frozen=True, slots=True)
class Failure:
    """A typed failure that a user sees; code is a word of headrace.core.errors."""

    code: str
    message: str
    field: str = ""
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    joules: float = 0.0
    audio_tokens: int = 0
    video_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural log-probabilities of one output token's position, before temperature and cuts."""

    logprob: float  # of the token that was drawn
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens, likeliest first


# By output index, ascending; of requests that asked, and without the tokens of which nobody knows them any more.
Logprobs = tuple[tuple[int, TokenLogprobs], ...]


@dataclass(frozen=True, slots=True)
class End:
    """How a request ended. Every accepted request has exactly one."""

    reason: FinishReason
    failure: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    timeline: tuple[StageSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """An accepted request, as the journal keeps it."""

    id: str
    tenant: str
    model: str
    slo_class: str
    accepted_s: float
    deadline_s: float
    prompt: Prompt
    media: tuple[Media, ...]
    sampling: Sampling
    gateway: str
    body_hash: bytes = b""
    idempotency_key: str = ""
    traceparent: str = ""
    keep_on_disconnect: bool = False
    question: str = ""  # the last user turn, its beginning and its end
    ttft_s: float = 0.0  # its own target for the first token, from acceptance on; 0: its class's
    tbt_s: float = 0.0  # its own target between two tokens; 0: its class's
    priority: int = 0  # PRIORITY_LEAST .. PRIORITY_MOST of headrace.core.slo; higher is sooner
    flow: str = ""  # whose share it counts against among those of its class; empty: the tenant's
    choices: int = 0  # of the first of several answers to one question: how many; 0 of all others


@dataclass(frozen=True, slots=True)
class TensorHandle:
    """A tensor held by a worker's process: embeddings of one media part, or a KV cache."""

    id: str
    owner: str
    incarnation: str
    path: str
    host: str
    grpc_address: str
    dtype: str
    shape: tuple[int, ...]
    layout: str
    size_bytes: int
    xxh3: int
    length: int
    next_position: int = 0
    cross_length: int = 0
    codec: str = ""
