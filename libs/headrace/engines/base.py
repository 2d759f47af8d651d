"""What an LLM backend offers a worker, and the facts of a model that every room may ask for.

One engine holds a preallocated, block-accounted KV cache and runs continuous batching with chunked
prefill. It knows nothing of queues, buses or text: sequences in, tokens out.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.core.stages.batch import Emitted, Prefilled
from headrace.core.types import Key, MediaSpan, Sampling

Embeddings = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Facts of a model: what the gateway validates with and the queue manager accounts with."""

    name: str
    family: str
    context_tokens: int  # prefix + prompt + output
    vocab_size: int
    eos_ids: frozenset[int]
    placeholder_id: int  # stands at media positions of a prompt
    embed_width: int  # columns of an embedding row
    kv_bytes_per_token: int
    block_tokens: int  # KV is accounted in blocks of this many tokens
    modalities: tuple[str, ...]
    max_media: int  # media parts a request may carry
    prefix_tokens: dict[str, int]  # name of a cached prefix KV -> its length
    # How media enter: as rows of the prompt, or through cross-attention layers with KV of their own.
    contract: Literal["decoder", "cross"] = "decoder"


@dataclass(frozen=True, slots=True)
class SequenceInput:
    """A sequence to run. tokens = prompt, then the output tokens that earlier attempts emitted."""

    key: Key
    tokens: tuple[int, ...]
    prompt_len: int  # tokens[:prompt_len] is the prompt; the rest is replayed, never sampled again
    spans: tuple[MediaSpan, ...]
    embeddings: tuple[Embeddings, ...]  # by media part: float32 [span.embedding_rows, embed_width]
    prefix: str
    sampling: Sampling
    awaits_media: bool = False  # the embeddings are those of the first parts; Engine.feed brings the others

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def max_tokens(self) -> int:
        return self.sampling.max_tokens

    @property
    def kv_beside(self) -> int:
        """No positions, but memory all the same."""
        return sum(span.kv_tokens for span in self.spans)

    @property
    def reach(self) -> int:
        """tokens[:reach] stand before the first media part that is awaited."""
        if not self.awaits_media:
            return len(self.tokens)
        awaited = (span.offset for span in self.spans if span.part >= len(self.embeddings))
        return min(awaited, default=len(self.tokens))


@dataclass(frozen=True, slots=True)
class KvManifest:
    """Describes an exported KV cache: enough to refuse a wrong one and to continue a right one."""

    layout: str  # the engine's own name for the axes; importers refuse another
    dtype: str
    shape: tuple[int, ...]
    length: int  # KV positions held (prefix included)
    next_position: int  # rope position of the next token
    size_bytes: int
    cross_length: int = 0  # positions of cross-attention KV that stand behind the rest


@dataclass(frozen=True, slots=True)
class StepResult:
    emitted: tuple[Emitted, ...]
    prefilled: tuple[Prefilled, ...]
    prefill_tokens: int  # computed, those from the prefix cache apart
    decode_tokens: int
    # The profile engine's cost at full speed: the caller sleeps that long, or longer; real engines leave 0.
    modelled_s: float = 0.0
    modelled_prefill_s: float = 0.0  # of it
    chunks: tuple[tuple[Key, int], ...] = ()  # whose prompts were computed, and how many tokens of each
    # Whose grammar cannot be followed, and why: what was emitted for them is void, and they are the caller's to remove.
    failed: tuple[tuple[Key, str], ...] = ()


class KvSink(Protocol):
    """Takes a KV cache front to back while the prefill that fills it still runs."""

    @property
    def buffer(self) -> memoryview: ...

    def ready(self, size_bytes: int) -> None:
        """buffer[:size_bytes] is final. Called in the inference thread with growing sizes, the whole size last."""
        ...


class Engine(Protocol):
    """One iteration at a time; not thread-safe, called from one thread.

    Capacity is the caller's to respect (the queue manager's credits): asking for more is an assertion error.
    A finished sequence is the caller's to remove: an engine never stops one by itself.
    """

    spec: ModelSpec
    inline: bool  # True: calls take microseconds and may run on the event loop
    slots: int
    blocks: int

    def blocks_used(self) -> int: ...
    def slots_used(self) -> int: ...
    def has_work(self) -> bool:
        """Whether step() would do anything."""
        ...

    def add(self, sequence: SequenceInput, sink: KvSink | None = None) -> None:
        """Reserve a slot and the blocks for prefix + tokens + remaining output; prefill starts at the next step.

        A sink gets what export_kv would write at the end of the prefill, layer by layer where the backend can, and
        is complete when the step that ends the prefill returns; prefilled_manifest(sequence) tells its size before.
        One that awaits media is prefilled as far as it has them, and takes no time beyond. Where media enter through
        cross-attention none may be awaited: the first token sees all of them.

        Raises:
            StageError: the embeddings hold numbers that are not finite.
        """
        ...

    def feed(self, sequence: SequenceInput) -> None:
        """More embeddings of a sequence that was added while it awaited them; it is the same but for them.

        Raises:
            StageError: they hold numbers that are not finite.
        """
        ...

    def step(self) -> StepResult:
        """Run one iteration: a chunk of waiting prefills, and one token for each running sequence."""
        ...

    def remove(self, key: Key) -> None:
        """Free the slot and blocks. Unknown keys are an assertion error."""
        ...

    def prefilled_manifest(self, sequence: SequenceInput) -> KvManifest:
        """What kv_manifest will say when the sequence's prefill has ended."""
        ...

    def kv_manifest(self, key: Key) -> KvManifest:
        """What export_kv would write now. In the middle of a prefill: the chunks that are done."""
        ...

    def export_kv(self, key: Key, into: memoryview) -> None:
        """Write the KV cache, manifest.size_bytes long, bit-exact. The sequence stays."""
        ...

    def import_kv(self, sequence: SequenceInput, manifest: KvManifest, source: memoryview) -> None:
        """Add a sequence whose KV covers its first tokens, as kv_manifest says.

        If that is all but the last of sequence.tokens and the last is an output token, it decodes from the next step
        on, and embeddings need not come along: they are in the KV. Else its prefill goes on behind them.

        Raises:
            KvMismatch: layout, dtype or shape is not this engine's, or the length does not fit the tokens.
        """
        ...

    def pause(self, key: Key) -> None:
        """Keep the sequence but leave it out of steps (a prefill worker's, while its KV waits for decode)."""
        ...

    def evict(self, key: Key) -> None:
        """Move the KV to host memory and free the slot and blocks; the sequence stays, outside of steps."""
        ...

    def restore(self, key: Key) -> None:
        """Take the slot and blocks again and go on where evict left off, bit for bit."""
        ...

    def evicted_bytes(self) -> int:
        """Host memory that evicted sequences take: the caller's to bound."""
        ...

    def park(self) -> None:
        """Another model is served: give back the KV memory, the prefix cache, and on a GPU what the weights take there.

        The weights stay in host memory. No sequence may be left. Until unpark only facts and counts may be asked for.
        """
        ...

    def unpark(self) -> None:
        """Serve again, as a new engine would.

        Raises:
            Unavailable: the device has no room for it.
        """
        ...


class KvMismatch(Exception):
    """A KV cache that this engine cannot continue."""
