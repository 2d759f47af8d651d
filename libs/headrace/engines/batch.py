"""Which sequences an engine runs next, and what they reserve: the decisions that every backend shares.

Continuous batching with chunked prefill. A sequence waits for prefill, runs, is paused, or is evicted; its slot
and blocks are reserved in all phases but the last, for prefix + prompt + all output it may have.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

from headrace.core.errors import StageError
from headrace.core.types import Key, TokenLogprobs
from headrace.engines.base import Emitted, KvManifest, KvMismatch, ModelSpec, Prefilled, SequenceInput, blocks_for

S = TypeVar("S")
Phase = Literal["waiting", "running", "paused"]


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
    phase: Phase  # of an evicted one: what it comes back to
    cached: int = 0  # prompt tokens whose KV came from the prefix cache

    @property
    def next_index(self) -> int:
        """Output index of the token that it emits next."""
        return len(self.tokens) - self.input.prompt_len

    @property
    def kv_length(self) -> int:
        return self.prefix_len + self.filled

    def emit(self, token: int, logprobs: TokenLogprobs | None = None) -> Emitted:
        """The token that was drawn joins the sequence."""
        index = self.next_index
        assert index < self.input.sampling.max_tokens, "the caller removes a finished sequence"
        self.tokens.append(token)
        return Emitted(self.key, index, token, logprobs)

    def prefilled(self) -> Prefilled:
        """Replayed tokens may be cached too; the prompt's are what a user is told of."""
        return Prefilled(self.key, self.prefix_len + min(self.cached, self.input.prompt_len))


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
        self.chunk_tokens = max(1, chunk_tokens // spec.block_tokens) * spec.block_tokens
        self.blocks_used = 0
        self._all: dict[Key, Live[S]] = {}
        self._waiting: dict[Key, Live[S]] = {}  # in order of arrival
        self._running: dict[Key, Live[S]] = {}
        self._evicted: dict[Key, Live[S]] = {}

    def __getitem__(self, key: Key) -> Live[S]:
        assert key in self._all, f"unknown sequence {key}"
        return self._all[key]

    def __len__(self) -> int:
        """Slots in use."""
        return len(self._all) - len(self._evicted)

    def __iter__(self) -> Iterator[Live[S]]:
        """All of them, evicted ones too."""
        return iter(self._all.values())

    @property
    def running(self) -> Collection[Live[S]]:
        return self._running.values()

    @property
    def evicted(self) -> Collection[Live[S]]:
        return self._evicted.values()

    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    def add(self, sequence: SequenceInput, prefix_len: int, state: S, filled: int = 0) -> Live[S]:
        """Reserve for a sequence whose KV covers tokens[:filled]; see Engine.import_kv for what it does next."""
        assert 0 <= filled < len(sequence.tokens)
        replayed = len(sequence.tokens) > sequence.prompt_len
        phase: Phase = "running" if replayed and filled == len(sequence.tokens) - 1 else "waiting"
        blocks = self._blocks(sequence, prefix_len)
        assert sequence.key not in self._all, f"{sequence.key} is already here"
        self._reserve(blocks)
        live = Live(sequence.key, sequence, list(sequence.tokens), prefix_len, blocks, filled, state, phase)
        self._all[live.key] = live
        self._enter_phase(live)
        return live

    def next_chunks(self, reuse: Callable[[Live[S]], int] | None = None) -> list[Chunk[S]]:
        """First come, first served, within chunk_tokens a step.

        A sequence is always cut at multiples of chunk_tokens, whatever else waits: its KV does not depend on
        the load. What does not fit into the rest of the budget waits, and nobody overtakes it.

        reuse is asked once a sequence's turn has come, before anything of it is computed: it puts KV in place that
        is known from elsewhere and returns how many tokens that covers, less than all.
        """
        budget, chunks = self.chunk_tokens, []
        for live in self._waiting.values():
            if not budget:
                break
            if reuse is not None and not live.filled:
                live.filled = live.cached = reuse(live)
            assert live.filled < len(live.tokens)
            stop = min(len(live.tokens), live.filled - live.filled % self.chunk_tokens + self.chunk_tokens)
            if stop - live.filled > budget:
                break
            budget -= stop - live.filled
            chunks.append(Chunk(live, live.filled, stop))
        return chunks

    def filled(self, chunk: Chunk[S]) -> None:
        """The chunk's KV is there; a sequence whose prefill ended runs from the next step on."""
        live = chunk.live
        assert live.filled == chunk.start
        assert live.key in self._waiting
        live.filled = chunk.stop
        if chunk.ends_prefill:
            self._running[live.key] = self._waiting.pop(live.key)
            live.phase = "running"

    def pause(self, key: Key) -> Live[S]:
        live = self[key]
        self._leave_phase(live)
        live.phase = "paused"
        return live

    def evict(self, key: Key) -> Live[S]:
        """Give back its slot and blocks; restore brings it back into the phase it had."""
        live = self[key]
        assert key not in self._evicted, f"{key} is already evicted"
        self._leave_phase(live)
        self._evicted[key] = live
        self.blocks_used -= live.blocks
        return live

    def restore(self, key: Key) -> Live[S]:
        """Behind those that wait, if it was still waiting for prefill."""
        assert key in self._evicted, f"{key} is not evicted"
        self._reserve(self._evicted[key].blocks)
        live = self._evicted.pop(key)
        self._enter_phase(live)
        return live

    def remove(self, key: Key) -> Live[S]:
        live = self[key]
        self._leave_phase(live)
        del self._all[key]
        if self._evicted.pop(key, None) is None:
            self.blocks_used -= live.blocks
        return live

    def check_integrity(self) -> None:
        """Invariants, for tests and idle workers: reservations add up and every sequence is in its phase, once."""
        present = {key: live for key, live in self._all.items() if key not in self._evicted}
        assert self._evicted.keys() <= self._all.keys()
        assert self.blocks_used == sum(live.blocks for live in present.values()) <= self.blocks
        assert len(self) == len(present) <= self.slots
        for phase, members in (("waiting", self._waiting), ("running", self._running)):
            assert members.keys() == {key for key, live in present.items() if live.phase == phase}
        for live in self._all.values():
            assert 0 <= live.filled < len(live.tokens)
            assert live.phase != "running" or live.filled == len(live.tokens) - 1

    def _blocks(self, sequence: SequenceInput, prefix_len: int) -> int:
        assert 0 < sequence.prompt_len <= len(sequence.tokens)
        assert len(sequence.tokens) < sequence.prompt_len + sequence.sampling.max_tokens, "nothing is left to generate"
        tokens = prefix_len + sequence.prompt_len + sequence.sampling.max_tokens
        assert tokens <= self.spec.context_tokens, f"{tokens} tokens are more than the context"
        beside = sum(span.kv_tokens for span in sequence.spans)  # no positions, but memory all the same
        return blocks_for(tokens + beside, self.spec.block_tokens)

    def _reserve(self, blocks: int) -> None:
        """Before the sequence counts: nothing changes if there is no room."""
        assert len(self) < self.slots, "no free slot: the caller ignored the capacity"
        assert self.blocks_used + blocks <= self.blocks, "not enough free blocks: the caller ignored the capacity"
        self.blocks_used += blocks

    def _enter_phase(self, live: Live[S]) -> None:
        if live.phase == "waiting":
            self._waiting[live.key] = live
        elif live.phase == "running":
            self._running[live.key] = live

    def _leave_phase(self, live: Live[S]) -> None:
        self._waiting.pop(live.key, None)
        self._running.pop(live.key, None)


def packs(chunks: Sequence[Chunk[S]]) -> list[list[Chunk[S]]]:
    """Chunks that one call may compute: those that stand behind nothing, or behind the same named prefix.

    Later chunks of a sequence, and those behind cached blocks, have a past of their own and come alone.
    """
    found: dict[Key | str, list[Chunk[S]]] = {}
    for chunk in chunks:
        found.setdefault(chunk.live.key if chunk.start else chunk.live.input.prefix, []).append(chunk)
    return list(found.values())


def check_embeddings(sequence: SequenceInput, filled: int = 0) -> None:
    """Every media position behind tokens[:filled] has its row: a prompt with placeholders in place of a picture would
    be answered wrongly."""
    for span in sequence.spans:
        assert span.offset >= 0
        assert span.offset + span.length <= sequence.prompt_len
        if span.offset + span.length <= filled:
            continue
        assert span.part < len(sequence.embeddings), f"media part {span.part} has no embeddings"
        assert len(sequence.embeddings[span.part]) == span.embedding_rows, f"media part {span.part}: wrong length"


def check_finite(sequence: SequenceInput) -> None:
    """Masked padding would spread numbers that are not finite to other sequences.

    Raises:
        StageError: names the media part.
    """
    for part, soft in enumerate(sequence.embeddings):
        if not np.isfinite(soft.sum()):
            raise StageError(f"the embeddings of media part {part} are not finite")


def check_manifest(
    sequence: SequenceInput, prefix_len: int, manifest: KvManifest, expect: Callable[[int], KvManifest]
) -> int:
    """How many tokens of the sequence a KV cache covers; expect(n) is what this engine writes when it holds n of them.

    Raises:
        KvMismatch: it does not continue this sequence in this engine; says what differs.
    """
    filled = manifest.length - prefix_len
    if not 0 <= filled < len(sequence.tokens):
        behind = f"{prefix_len} of prefix and {len(sequence.tokens)} tokens, the last of which is not in it"
        raise KvMismatch(f"KV of {manifest.length} positions does not fit {behind}")
    if manifest != (expected := expect(filled)):
        raise KvMismatch(f"KV is {manifest}; this engine continues {expected}")
    for span in sequence.spans if not manifest.cross_length else ():  # cross-attention KV holds all media at once
        if span.offset + span.length > filled and span.part >= len(sequence.embeddings):
            raise KvMismatch(f"KV of {filled} tokens lacks media part {span.part}, and so do the embeddings")
    return filled
