"""Which sequences an engine runs next, and what they reserve: the decisions that every backend and the simulator share.

Continuous batching with chunked prefill. A sequence waits for prefill, runs, is paused, or is evicted; its slot
and blocks are reserved in all phases but the last, for prefix + prompt + all output it may have. One whose media are
still on their way is filling: it is prefilled as far as they go, with what those that have all leave of an iteration.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, Literal, Protocol, TypeVar

from headrace.core.cost import StepWork
from headrace.core.stages.kv import blocks_for
from headrace.core.types import Key, TokenLogprobs

Phase = Literal["filling", "waiting", "running", "paused"]


class Input(Protocol):
    """A sequence to run: a prompt, then the output tokens that earlier attempts emitted."""

    @property
    def key(self) -> Key: ...
    @property
    def tokens(self) -> Sequence[int]:
        """All of them, or none where only their number counts."""
        ...

    @property
    def length(self) -> int:
        """How many tokens there are."""
        ...

    @property
    def prompt_len(self) -> int: ...
    @property
    def max_tokens(self) -> int:
        """Of output, those of earlier attempts included."""
        ...

    @property
    def kv_beside(self) -> int:
        """KV beside the tokens' positions, in tokens."""
        ...

    @property
    def reach(self) -> int:
        """tokens[:reach] can be computed: behind them stand media that are on their way. The length, if none are."""
        ...


Q = TypeVar("Q", bound=Input)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Emitted:
    """One new token of a sequence; index counts output tokens from 0, replayed ones included."""

    key: Key
    index: int
    token: int
    logprobs: TokenLogprobs | None = None  # of sequences whose sampling asks for them


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A sequence whose prefill ended in this step; its first new token is among the emitted."""

    key: Key
    cached_tokens: int  # prompt positions that came from the prefix cache, a named prefix included


@dataclass(slots=True, eq=False)
class Live(Generic[Q, S]):
    """A sequence in an engine. `tokens` grows by the tokens it emits; KV covers the prefix and tokens[:filled]."""

    key: Key
    input: Q
    tokens: list[int]  # empty where only `length` counts
    length: int
    prefix_len: int
    blocks: int
    filled: int
    state: S  # the backend's own
    phase: Phase  # of an evicted one: what it comes back to
    cached: int = 0  # prompt tokens whose KV came from the prefix cache

    @property
    def next_index(self) -> int:
        """Output index of the token that it emits next."""
        return self.length - self.input.prompt_len

    @property
    def kv_length(self) -> int:
        return self.prefix_len + self.filled

    def emit(self, token: int, logprobs: TokenLogprobs | None = None) -> Emitted:
        """The token that was drawn joins the sequence."""
        index = self.next_index
        assert index < self.input.max_tokens, "the caller removes a finished sequence"
        self.tokens.append(token)
        self.length += 1
        return Emitted(self.key, index, token, logprobs)

    def advance(self, steps: int) -> None:
        """As many iterations of a running sequence, counted alone."""
        self.length += steps
        self.filled += steps
        assert self.next_index <= self.input.max_tokens, "the caller removes a finished sequence"

    def prefilled(self) -> Prefilled:
        """Replayed tokens may be cached too; the prompt's are what a user is told of."""
        return Prefilled(self.key, self.prefix_len + min(self.cached, self.input.prompt_len))


@dataclass(frozen=True, slots=True)
class Chunk(Generic[Q, S]):
    """tokens[start:stop] of a waiting sequence, to be prefilled in this step."""

    live: Live[Q, S]
    start: int
    stop: int

    @property
    def ends_prefill(self) -> bool:
        return self.stop == self.live.length


class Batch(Generic[Q, S]):
    """Slots, blocks and phases of an engine's sequences. Asking for more than there is is an assertion error."""

    def __init__(
        self,
        *,
        slots: int,
        blocks: int,
        block_tokens: int,
        context_tokens: int,
        chunk_tokens: int,
        place: Callable[[Live[Q, S]], float] | None = None,
    ) -> None:
        """place: whose is smaller is prefilled first, instead of who came first; who has begun goes on."""
        assert min(slots, blocks, block_tokens, context_tokens, chunk_tokens) > 0
        self.block_tokens = block_tokens
        self.context_tokens = context_tokens
        self.slots = slots
        self.blocks = blocks
        self.chunk_tokens = max(1, chunk_tokens // block_tokens) * block_tokens
        self._place = place
        self.blocks_used = 0
        self._all: dict[Key, Live[Q, S]] = {}
        self._filling: dict[Key, Live[Q, S]] = {}  # in order of arrival, as are these:
        self._waiting: dict[Key, Live[Q, S]] = {}
        self._running: dict[Key, Live[Q, S]] = {}
        self._evicted: dict[Key, Live[Q, S]] = {}

    def __getitem__(self, key: Key) -> Live[Q, S]:
        assert key in self._all, f"unknown sequence {key}"
        return self._all[key]

    def __len__(self) -> int:
        """Slots in use."""
        return len(self._all) - len(self._evicted)

    def __iter__(self) -> Iterator[Live[Q, S]]:
        """All of them, evicted ones too."""
        return iter(self._all.values())

    @property
    def running(self) -> Collection[Live[Q, S]]:
        return self._running.values()

    @property
    def evicted(self) -> Collection[Live[Q, S]]:
        return self._evicted.values()

    def has_work(self) -> bool:
        return bool(self._running or self._waiting) or any(map(self._can_fill, self._filling.values()))

    def add(self, sequence: Q, prefix_len: int, state: S, filled: int = 0) -> Live[Q, S]:
        """Reserve for a sequence whose KV covers tokens[:filled]; see Engine.import_kv for what it does next."""
        assert 0 <= filled < sequence.length
        replayed = sequence.length > sequence.prompt_len
        phase: Phase = "running" if replayed and filled == sequence.length - 1 else "waiting"
        if sequence.reach < sequence.length:
            phase = "filling"
        blocks = self._blocks(sequence, prefix_len)
        assert sequence.key not in self._all, f"{sequence.key} is already here"
        self._reserve(blocks)
        live = Live(
            sequence.key, sequence, list(sequence.tokens), sequence.length, prefix_len, blocks, filled, state, phase
        )
        self._all[live.key] = live
        self._enter_phase(live)
        return live

    def feed(self, key: Key, sequence: Q) -> None:
        """More media have come. Whoever has all waits for its turn as if it had come now."""
        live = self[key]
        live.input = sequence
        if live.phase == "filling" and sequence.reach == sequence.length:
            live.phase = "waiting"
            if self._filling.pop(key, None) is not None:
                self._enter_phase(live)

    def next_chunks(self, reuse: Callable[[Live[Q, S]], int] | None = None) -> list[Chunk[Q, S]]:
        """First come, first served (or by place), within chunk_tokens a step; behind all others those that are filling.

        A sequence is always cut at multiples of chunk_tokens, whatever else waits: its KV does not depend on
        the load. What does not fit into the rest of the budget waits, and nobody overtakes it.

        reuse is asked once a sequence's turn has come, before anything of it is computed: it puts KV in place that
        is known from elsewhere and returns how many tokens that covers, less than all.
        """
        budget, chunks = self.chunk_tokens, []
        for live in chain(self._in_order(), self._filling.values()):
            if not budget:
                break
            if live.phase == "filling" and not self._can_fill(live):
                continue
            if reuse is not None and not live.filled:
                live.filled = live.cached = reuse(live)
            stop = self._stop(live)
            if live.phase == "filling" and stop > live.input.reach:
                continue
            if stop - live.filled > budget:
                break
            budget -= stop - live.filled
            chunks.append(Chunk(live, live.filled, stop))
        return chunks

    def _in_order(self) -> Iterable[Live[Q, S]]:
        place = self._place
        if place is None or len(self._waiting) < 2:
            return self._waiting.values()
        return sorted(self._waiting.values(), key=lambda live: (not live.filled, place(live)))

    def _stop(self, live: Live[Q, S]) -> int:
        """Where its next chunk ends."""
        assert live.filled < live.length
        return min(live.length, live.filled - live.filled % self.chunk_tokens + self.chunk_tokens)

    def _can_fill(self, live: Live[Q, S]) -> bool:
        """Whether the media of its next chunk are there."""
        return self._stop(live) <= live.input.reach

    def filled(self, chunk: Chunk[Q, S]) -> None:
        """The chunk's KV is there; a sequence whose prefill ended runs from the next step on."""
        live = chunk.live
        assert live.filled == chunk.start
        assert live.key in self._waiting or live.key in self._filling
        live.filled = chunk.stop
        if chunk.ends_prefill:
            self._running[live.key] = self._waiting.pop(live.key)
            live.phase = "running"

    def pause(self, key: Key) -> Live[Q, S]:
        live = self[key]
        self._leave_phase(live)
        live.phase = "paused"
        return live

    def evict(self, key: Key) -> Live[Q, S]:
        """Give back its slot and blocks; restore brings it back into the phase it had."""
        live = self[key]
        assert key not in self._evicted, f"{key} is already evicted"
        self._leave_phase(live)
        self._evicted[key] = live
        self.blocks_used -= live.blocks
        return live

    def restore(self, key: Key) -> Live[Q, S]:
        """Behind those that wait, if it was still waiting for prefill."""
        assert key in self._evicted, f"{key} is not evicted"
        self._reserve(self._evicted[key].blocks)
        live = self._evicted.pop(key)
        self._enter_phase(live)
        return live

    def remove(self, key: Key) -> Live[Q, S]:
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
        for phase, members in (("filling", self._filling), ("waiting", self._waiting), ("running", self._running)):
            assert members.keys() == {key for key, live in present.items() if live.phase == phase}
        for live in self._all.values():
            assert 0 <= live.filled < live.length
            assert live.phase != "running" or live.filled == live.length - 1

    def _blocks(self, sequence: Q, prefix_len: int) -> int:
        assert 0 < sequence.prompt_len <= sequence.length
        assert sequence.length < sequence.prompt_len + sequence.max_tokens, "nothing is left to generate"
        tokens = prefix_len + sequence.prompt_len + sequence.max_tokens
        assert tokens <= self.context_tokens, f"{tokens} tokens are more than the context"
        return blocks_for(tokens + sequence.kv_beside, self.block_tokens)

    def _reserve(self, blocks: int) -> None:
        """Before the sequence counts: nothing changes if there is no room."""
        assert len(self) < self.slots, "no free slot: the caller ignored the capacity"
        assert self.blocks_used + blocks <= self.blocks, "not enough free blocks: the caller ignored the capacity"
        self.blocks_used += blocks

    def _enter_phase(self, live: Live[Q, S]) -> None:
        if live.phase == "filling":
            self._filling[live.key] = live
        elif live.phase == "waiting":
            self._waiting[live.key] = live
        elif live.phase == "running":
            self._running[live.key] = live

    def _leave_phase(self, live: Live[Q, S]) -> None:
        self._filling.pop(live.key, None)
        self._waiting.pop(live.key, None)
        self._running.pop(live.key, None)


def work_of(running: Iterable[Live[Q, S]], chunks: Iterable[Chunk[Q, S]]) -> StepWork:
    """What an iteration computes that decodes one token of each running sequence and prefills these chunks.

    A decoding token's own position counts as read; of a chunk, token n attends to the n before it and itself.
    """
    sequences = context = tokens = pairs = 0
    for live in running:
        sequences += 1
        context += live.kv_length + 1
    for chunk in chunks:
        size = chunk.stop - chunk.start
        before = chunk.live.prefix_len + chunk.start
        tokens += size
        pairs += size * (2 * before + size + 1) // 2
    return StepWork(tokens, pairs, sequences, context)
