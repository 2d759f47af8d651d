"""Which sequences an engine runs next, and what they reserve: the decisions that every backend shares.

Continuous batching with chunked prefill. A sequence waits for prefill, runs, or is paused; its slot and
blocks are reserved from add to remove, for prefix + prompt + all output it may have.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace.core.types import Key
from headrace.engines.base import KvManifest, KvMismatch, ModelSpec, SequenceInput, blocks_for

S = TypeVar("S")


@dataclass(slots=True, eq=False)
class Live(Generic[S]):
    """A sequence in an engine. `tokens` grows by the tokens it emits; KV covers the prefix and tokens[:filled]."""

    key: Key
    input: SequenceInput
    tokens: list[int]
    prefix_len: int
    blocks: int
    filled: int
    state: S  # the backend's own

    @property
    def next_index(self) -> int:
        """Output index of the token that it emits next."""
        return len(self.tokens) - self.input.prompt_len

    @property
    def kv_length(self) -> int:
        return self.prefix_len + self.filled


@dataclass(frozen=True, slots=True)
class Chunk(Generic[S]):
    """tokens[start:stop] of a waiting sequence, to be prefilled in this step."""

    live: Live[S]
    start: int
    stop: int

    @property
    def ends_prefill(self) -> bool:
        return self.stop == len(self.live.tokens)


class Batch(Generic[S]):
    """Slots, blocks and phases of an engine's sequences. Asking for more than there is is an assertion error."""

    def __init__(self, *, spec: ModelSpec, slots: int, blocks: int, chunk_tokens: int) -> None:
        assert min(slots, blocks, chunk_tokens) > 0
        self.spec = spec
        self.slots = slots
        self.blocks = blocks
        self.chunk_tokens = chunk_tokens
        self.blocks_used = 0
        self._all: dict[Key, Live[S]] = {}
        self._waiting: dict[Key, Live[S]] = {}  # in order of arrival
        self._running: dict[Key, Live[S]] = {}

    def __getitem__(self, key: Key) -> Live[S]:
        assert key in self._all, f"unknown sequence {key}"
        return self._all[key]

    def __len__(self) -> int:
        return len(self._all)

    @property
    def running(self) -> Collection[Live[S]]:
        return self._running.values()

    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    def add(self, sequence: SequenceInput, prefix_len: int, state: S) -> Live[S]:
        live = self._reserve(sequence, prefix_len, filled=0, state=state)
        self._waiting[live.key] = live
        return live

    def join(self, sequence: SequenceInput, prefix_len: int, state: S) -> Live[S]:
        """Add a sequence whose KV already covers all but its last token: it runs from the next step on.

        Its embeddings are in the KV and need not come along.
        """
        live = self._reserve(sequence, prefix_len, filled=len(sequence.tokens) - 1, state=state)
        self._running[live.key] = live
        return live

    def next_chunks(self) -> list[Chunk[S]]:
        """First come, first served, within chunk_tokens a step.

        A sequence is always cut at multiples of chunk_tokens, whatever else waits: its KV does not depend on
        the load. What does not fit into the rest of the budget waits, and nobody overtakes it.
        """
        budget, chunks = self.chunk_tokens, []
        for live in self._waiting.values():
            size = min(self.chunk_tokens, len(live.tokens) - live.filled)
            if size > budget:
                break
            budget -= size
            chunks.append(Chunk(live, live.filled, live.filled + size))
        return chunks

    def filled(self, chunk: Chunk[S]) -> None:
        """The chunk's KV is there; a sequence whose prefill ended runs from the next step on."""
        live = chunk.live
        assert live.filled == chunk.start
        live.filled = chunk.stop
        if chunk.ends_prefill:
            self._running[live.key] = self._waiting.pop(live.key)

    def pause(self, key: Key) -> Live[S]:
        live = self[key]
        assert key not in self._waiting, f"{key} is still in prefill"
        self._running.pop(key, None)
        return live

    def remove(self, key: Key) -> Live[S]:
        live = self[key]
        del self._all[key]
        self._waiting.pop(key, None)
        self._running.pop(key, None)
        self.blocks_used -= live.blocks
        return live

    def past_prefill(self, key: Key) -> Live[S]:
        live = self[key]
        assert key not in self._waiting, f"{key} is still in prefill"
        return live

    def check_integrity(self) -> None:
        """Invariants, for tests and idle workers: reservations add up and every sequence is in one phase."""
        assert self.blocks_used == sum(live.blocks for live in self._all.values()) <= self.blocks
        assert len(self._all) <= self.slots
        assert not self._waiting.keys() & self._running.keys()
        assert self._waiting.keys() | self._running.keys() <= self._all.keys()

    def _reserve(self, sequence: SequenceInput, prefix_len: int, *, filled: int, state: S) -> Live[S]:
        assert 0 < sequence.prompt_len <= len(sequence.tokens)
        assert len(sequence.tokens) < sequence.prompt_len + sequence.sampling.max_tokens, "nothing is left to generate"
        tokens = prefix_len + sequence.prompt_len + sequence.sampling.max_tokens
        assert tokens <= self.spec.context_tokens, f"{tokens} tokens are more than the context"
        blocks = blocks_for(tokens, self.spec.block_tokens)
        assert sequence.key not in self._all, f"{sequence.key} is already here"
        assert len(self._all) < self.slots, "no free slot: the caller ignored the capacity"
        assert self.blocks_used + blocks <= self.blocks, "not enough free blocks: the caller ignored the capacity"
        live = Live(sequence.key, sequence, list(sequence.tokens), prefix_len, blocks, filled, state)
        self._all[live.key] = live
        self.blocks_used += blocks
        return live


def check_embeddings(sequence: SequenceInput) -> None:
    """Every media position has its row: a prompt with placeholders in place of a picture would be answered wrongly."""
    for span in sequence.spans:
        assert span.offset >= 0
        assert span.offset + span.length <= sequence.prompt_len
        assert span.part < len(sequence.embeddings), f"media part {span.part} has no embeddings"
        assert len(sequence.embeddings[span.part]) == span.length, f"media part {span.part} has the wrong length"


def check_manifest(sequence: SequenceInput, prefix_len: int, manifest: KvManifest, expected: KvManifest) -> None:
    """Refuse a KV cache that does not continue this sequence in this engine.

    Raises:
        KvMismatch: says what differs.
    """
    length = prefix_len + len(sequence.tokens) - 1
    if len(sequence.tokens) <= sequence.prompt_len:
        raise KvMismatch("a handed over sequence brings its first output token")
    if manifest.length != length or manifest.next_position != length:
        raise KvMismatch(f"KV of {manifest.length} positions, next {manifest.next_position}; the tokens need {length}")
    if manifest != expected:
        raise KvMismatch(f"KV is {manifest}; this engine continues {expected}")
