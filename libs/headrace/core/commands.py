"""What the queue manager tells a worker, and what a worker says it holds: the nouns of the work subject.

Frozen and slotted like all nouns; wire.convert carries them to and from protobuf.
"""

from dataclasses import dataclass
from typing import Literal

from headrace.core.types import Key, Logprobs, Media, Prompt, Sampling, StageSpan, TensorHandle

HoldState = Literal["encoding", "encoded", "prefill", "handover", "decode", "evicted", "ended"]

# Holds in which the worker computes for the request; the others only keep something for it.
ACTIVE_HOLDS: frozenset[HoldState] = frozenset({"encoding", "prefill", "decode"})


@dataclass(frozen=True, slots=True)
class EncodeCommand:
    """Encode one media part; its bytes lie in the blob store under (key.request_id, media.sha256)."""

    key: Key
    part: int
    media: Media
    model: str
    traceparent: str = ""
    cache_scope: str = ""  # whose requests may share the embedding; empty: nobody's, and it is not kept
    due_s: float = 0.0  # when the request's first token is due; 0: nobody says


@dataclass(frozen=True, slots=True)
class PrefillCommand:
    """Run a request from its prompt. `emitted` was already sent by earlier attempts: replayed, never sampled again."""

    key: Key
    model: str
    prompt: Prompt
    sampling: Sampling
    gateway: str
    decode_worker: str  # may be the receiver itself: then nothing is transferred
    deadline_s: float
    embeddings: tuple[TensorHandle, ...] = ()  # by media part; the first ones, where others are on their way
    emitted: tuple[int, ...] = ()
    traceparent: str = ""
    timeline: tuple[StageSpan, ...] = ()
    cached_tokens: int = 0  # of the prompt, that prefill found in its prefix cache
    emitted_logprobs: Logprobs = ()  # of emitted


@dataclass(frozen=True, slots=True)
class PartsCommand:
    """More embeddings of a request whose prefill has begun on its first parts: those of `first` and what follows."""

    key: Key
    first: int
    embeddings: tuple[TensorHandle, ...]
    timeline: tuple[StageSpan, ...] = ()  # of these parts


@dataclass(frozen=True, slots=True)
class JoinCommand:
    """Prefill worker -> decode worker: the KV cache is ready. request.emitted includes the first new token."""

    request: PrefillCommand
    kv: TensorHandle


@dataclass(frozen=True, slots=True)
class OfferCommand:
    """Prefill worker -> decode worker: the KV cache is being computed, begin to pull; the join follows."""

    key: Key
    kv: TensorHandle | None  # its checksum is not known yet; None: no join will follow after all


@dataclass(frozen=True, slots=True)
class ResendCommand:
    """Send the tokens from `from_index` on (and the end, if it was) to `gateway`, now and from now on."""

    key: Key
    from_index: int
    gateway: str


@dataclass(frozen=True, slots=True)
class MoveCommand:
    """An evicted request goes on at another worker: hand it over to that one, as after a prefill."""

    key: Key
    worker: str


@dataclass(frozen=True, slots=True)
class WorkBatch:
    """All commands of one tick to one worker. A batch of an older epoch than the newest seen is refused whole."""

    epoch: int
    encode: tuple[EncodeCommand, ...] = ()
    prefill: tuple[PrefillCommand, ...] = ()
    join: tuple[JoinCommand, ...] = ()
    cancel: tuple[Key, ...] = ()
    release: tuple[Key, ...] = ()
    resend: tuple[ResendCommand, ...] = ()
    offer: tuple[OfferCommand, ...] = ()
    evict: tuple[Key, ...] = ()  # KV cache to host memory, out of the engine; answered with Evicted
    resume: tuple[Key, ...] = ()  # what was evicted here goes on here; answered with Joined
    move: tuple[MoveCommand, ...] = ()  # what was evicted here goes on elsewhere: that worker is sent a join
    parts: tuple[PartsCommand, ...] = ()
    load: str = ""  # serve this model from now on; only what is evicted, handed over or ended is held then
    dismiss: bool = False  # the worker drains, and nothing is sent to it any more


@dataclass(frozen=True, slots=True)
class Hold:
    """One thing that a worker holds, as its heartbeat lists it."""

    key: Key
    state: HoldState
    next_index: int = 0
    part: int = 0  # encoding, encoded
    handle: TensorHandle | None = None  # encoded, handover, evicted
    decode_worker: str = ""  # prefill, handover
    lacks: int = 0  # prefill: of its media parts, the last so many that it has not been told of
