"""An engine without a model: real batching, accounting and hand-over, costs from a profile, tokens from a hash.

A token depends on every byte that came before it, so a dropped image, a wrong resume, a wrong block of a prefix cache
or a corrupt hand-over changes the output, and a resumed sequence continues as an undisturbed one would. Under a grammar
the hash chooses among the tokens that may follow, so that the output is what the grammar says.
"""

import math
import re
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xxhash

from headrace.core.stages.batch import Emitted, Prefilled, work_of
from headrace.core.types import Key, TokenLogprobs
from headrace.engines.base import KvManifest, KvSink, ModelSpec, SequenceInput, StepResult
from headrace.engines.batch import Batch, Chunk, Live, check_embeddings, check_manifest, sizes
from headrace.engines.constrain import Grammars, Guides
from headrace.engines.prefix_cache import Chain, PrefixCache
from headrace.engines.sampling import Mask, allowed
from headrace.profiles import EngineProfile, OutputRule

_HEADER = struct.Struct("<QQQ")  # origin, state, digest of the padding
_LINK = struct.Struct("<QI")  # state, token
_PLAIN = re.compile(rb" | ?[a-z]+")
_SHOWN = re.compile(rb"[!-~]+")  # under a grammar: no spaces that it lets come again and again
_NEVER = -1
_SINK_PARTS = 4
_INLINE_KV_BYTES = 8 * 2**20  # a millisecond or two of a memory's bandwidth
CERTAIN = TokenLogprobs(0.0)


@dataclass(slots=True, eq=False)
class Trail:
    """The hash chain of a sequence: what stands in for its KV cache.

    A prompt is hashed block by block, so that the state behind a chunk does not depend on how it was cut: chunks end
    at a block's end, or at the prompt's. Output tokens are hashed one by one.
    """

    state: int  # of all that KV covers
    origin: int  # the state at the prompt's end; 0 before
    twist: int  # 0 if greedy, else from the seed
    end_index: int  # output index of the end token, or _NEVER
    sink: KvSink | None = None
    chain: Chain | None = None  # of those whose blocks the prefix cache may hold
    states: list[int] = field(default_factory=list)  # of those: behind each block of the prompt


class ProfileEngine:
    """Implements headrace.engines.base.Engine; a token costs about two microseconds."""

    def __init__(
        self,
        spec: ModelSpec,
        pieces: Sequence[bytes],
        profile: EngineProfile,
        *,
        slots: int,
        blocks: int,
        chunk_tokens: int,
        prefix_cache_bytes: int = 0,
        grammars: Grammars | None = None,
    ) -> None:
        self.spec = replace(spec, kv_bytes_per_token=profile.kv_bytes_per_token)
        self.slots = slots
        self.blocks = blocks
        self.profile = profile
        # Writing and summing up the KV of a large model takes tenths of a second: not while heartbeats wait.
        self.inline = profile.kv_bytes_per_token * spec.context_tokens <= _INLINE_KV_BYTES
        self._batch = Batch[Trail](
            slots=slots,
            blocks=blocks,
            block_tokens=spec.block_tokens,
            context_tokens=spec.context_tokens,
            chunk_tokens=chunk_tokens,
        )
        self._prefix_cache_bytes = prefix_cache_bytes
        self._plain = [token for token, piece in enumerate(pieces) if _PLAIN.fullmatch(piece)]
        self._shown = np.array([bool(_SHOWN.fullmatch(piece)) for piece in pieces])
        self._eos = min(spec.eos_ids)
        self._guides = Guides(grammars)
        self._seen = self._new_prefix_cache()
        assert self._plain
        self._even = float(np.float32(-math.log(len(self._plain))))  # as messages carry it

    def _new_prefix_cache(self) -> PrefixCache[int]:
        """As many blocks as the modelled GPU would hold, each a state of the chain."""
        block_bytes = max(_HEADER.size, self.spec.block_tokens * self.profile.kv_bytes_per_token)
        return PrefixCache[int].of_size(self._prefix_cache_bytes, block_bytes)

    def blocks_used(self) -> int:
        return self._batch.blocks_used

    def slots_used(self) -> int:
        return len(self._batch)

    def has_work(self) -> bool:
        return self._batch.has_work()

    def evicted_bytes(self) -> int:
        """What the modelled GPU's KV would take."""
        return sum(self._manifest(live.kv_length).size_bytes for live in self._batch.evicted)

    def check_integrity(self) -> None:
        self._batch.check_integrity()
        self._seen.check_integrity()

    def add(self, sequence: SequenceInput, sink: KvSink | None = None) -> None:
        check_embeddings(sequence)
        trail = self._trail(sequence, self._before(sequence), 0)
        trail.chain = Chain(self.spec.name, self.spec, sequence) if self._seen.blocks else None
        trail.sink = sink
        self._batch.add(sequence, self._prefix_len(sequence), trail)
        self._guides.expect(sequence.sampling)

    def feed(self, sequence: SequenceInput) -> None:
        check_embeddings(sequence)
        chain = self._batch[sequence.key].state.chain
        if chain is not None:
            chain.feed(sequence)
        self._batch.feed(sequence.key, sequence)

    def step(self) -> StepResult:
        chunks = self._batch.next_chunks(self._reuse)
        work = work_of(self._batch.running, chunks)
        emitted = []
        for live in self._batch.running:
            trail = live.state
            trail.state = xxhash.xxh3_64_intdigest(_LINK.pack(trail.state, live.tokens[-1]))
            live.filled += 1
            emitted.append(self._emit(live))
        prefilled = self._prefill(chunks, emitted)
        cost = self.profile.cost
        step_s = cost.step_s(work)
        return StepResult(
            tuple(emitted),
            tuple(prefilled),
            work.prefill_tokens,
            work.decode_sequences,
            step_s,
            cost.prefill_s(work, step_s),
            sizes(chunks),
            self._guides.take_failed(),
        )

    def _prefill(self, chunks: list[Chunk[Trail]], emitted: list[Emitted]) -> list[Prefilled]:
        prefilled = list[Prefilled]()
        for chunk in chunks:
            live = chunk.live
            self._advance(chunk)
            self._batch.filled(chunk)
            if chunk.ends_prefill:
                if live.state.sink is not None:
                    _pour(self._write(live, live.state.sink.buffer), live.state.sink)
                    live.state.sink = None
                prefilled.append(live.prefilled())
                emitted.append(self._emit(live))
        return prefilled

    def _reuse(self, live: Live[Trail]) -> int:
        """The state behind the cached blocks that the prompt starts with; its last token is always computed."""
        trail, size = live.state, self.spec.block_tokens
        if trail.chain is None:
            return 0
        states = self._seen.run(trail.chain.keys(live.input.tokens)[: (live.input.prompt_len - 1) // size])
        if states:
            trail.states = states
            trail.state = states[-1]
        return len(states) * size

    def _advance(self, chunk: Chunk[Trail]) -> None:
        """The chain over the chunk's tokens: blocks of the prompt, then its end, then single tokens of the output."""
        live, trail, prompt_len = chunk.live, chunk.live.state, chunk.live.input.prompt_len
        at, end = chunk.start, min(chunk.stop, prompt_len)
        raw = array("q", live.input.tokens[at:end]).tobytes()
        while at < end:
            stop = min(at + self.spec.block_tokens, end)
            trail.state = _block(
                trail.state, raw[8 * (at - chunk.start) : 8 * (stop - chunk.start)], live.input, at, stop
            )
            if trail.chain is not None:
                trail.states.append(trail.state)
            at = stop
        if trail.chain is not None:
            self._seen.put(trail.chain.keys(live.input.tokens[:end]), trail.states.__getitem__)
        if chunk.start < prompt_len <= chunk.stop:
            self._end_prompt(trail, live.input.sampling.ignore_eos)
        for token in live.tokens[at : chunk.stop]:
            trail.state = xxhash.xxh3_64_intdigest(_LINK.pack(trail.state, token))

    def _end_prompt(self, trail: Trail, ignore_eos: bool) -> None:
        trail.origin = trail.state
        trail.end_index = _NEVER if ignore_eos else _end_index(trail.origin, self.profile.output)

    def _emit(self, live: Live[Trail]) -> Emitted:
        trail, plain = live.state, self._plain
        if live.input.sampling.grammar and (mask := self._guides.masks([live])[0]) is not None:
            return self._emit_constrained(live, mask)
        if live.next_index == trail.end_index:
            return live.emit(self._eos, None if live.input.sampling.logprobs is None else CERTAIN)
        at = (trail.state ^ trail.twist) % len(plain)
        return live.emit(plain[at], self._logprobs(at, live.input.sampling.logprobs))

    def _emit_constrained(self, live: Live[Trail], mask: Mask) -> Emitted:
        """The end as soon as it may come, if it is due; else any other token that may follow, visible if possible: each
        is as likely."""
        trail, may = live.state, allowed(mask, len(self._shown))
        due = trail.end_index != _NEVER and live.next_index >= trail.end_index
        choices = np.flatnonzero(may & self._shown)
        if may[self._eos] and (due or not len(choices)):
            choices = np.array([self._eos])
        elif not len(choices):
            choices = np.flatnonzero(may)
        token = int(choices[(trail.state ^ trail.twist) % len(choices)])
        even = float(np.float32(-math.log(len(choices))))
        count = live.input.sampling.logprobs
        top = tuple([(int(likely), even) for likely in choices[: count or 0]])
        return live.emit(token, None if count is None else TokenLogprobs(even, top))

    def _logprobs(self, at: int, count: int | None) -> TokenLogprobs | None:
        """All plain tokens are as likely as the one that was drawn: it and those behind it stand for the likeliest."""
        if count is None:
            return None
        plain, even = self._plain, self._even
        return TokenLogprobs(even, tuple([(plain[(at + n) % len(plain)], even) for n in range(min(count, len(plain)))]))

    def remove(self, key: Key) -> None:
        self._batch.remove(key)
        self._guides.drop(key)

    def pause(self, key: Key) -> None:
        self._batch.pause(key)

    def evict(self, key: Key) -> None:
        self._batch.evict(key)

    def restore(self, key: Key) -> None:
        self._batch.restore(key)

    def prefilled_manifest(self, sequence: SequenceInput) -> KvManifest:
        return self._manifest(self._prefix_len(sequence) + len(sequence.tokens))

    def kv_manifest(self, key: Key) -> KvManifest:
        return self._manifest(self._batch[key].kv_length)

    def export_kv(self, key: Key, into: memoryview) -> None:
        self._write(self._batch[key], into)

    def _write(self, live: Live[Trail], into: memoryview) -> int:
        """In place: a large model's KV is hundreds of megabytes. Returns its size."""
        size_bytes = self._manifest(live.kv_length).size_bytes
        padding = into[_HEADER.size : size_bytes]
        whole = len(padding) // 8 * 8
        state = live.state.state.to_bytes(8, "little")
        np.frombuffer(padding[:whole], np.uint64)[:] = live.state.state
        padding[whole:] = state[: len(padding) - whole]
        into[: _HEADER.size] = _HEADER.pack(live.state.origin, live.state.state, xxhash.xxh3_64_intdigest(padding))
        return size_bytes

    def import_kv(self, sequence: SequenceInput, manifest: KvManifest, source: memoryview) -> None:
        prefix_len = self._prefix_len(sequence)
        filled = check_manifest(sequence, prefix_len, manifest, lambda filled: self._manifest(prefix_len + filled))
        check_embeddings(sequence, filled)
        origin, state, digest = _HEADER.unpack_from(source)
        found = xxhash.xxh3_64_intdigest(source[_HEADER.size : manifest.size_bytes])
        trail = self._trail(sequence, state ^ digest ^ found, origin)
        self._batch.add(sequence, prefix_len, trail, filled)
        self._guides.expect(sequence.sampling)

    def park(self) -> None:
        assert not list(self._batch), "a sequence is left"
        self._seen = PrefixCache[int].of_size(0, 1)

    def unpark(self) -> None:
        self._seen = self._new_prefix_cache()

    def _before(self, sequence: SequenceInput) -> int:
        """The state before the first token: of each model its own, so that each answers in its own way."""
        return xxhash.xxh3_64_intdigest(sequence.prefix.encode(), xxhash.xxh3_64_intdigest(self.spec.name.encode()))

    def _prefix_len(self, sequence: SequenceInput) -> int:
        return self.spec.prefix_tokens[sequence.prefix] if sequence.prefix else 0

    def _manifest(self, length: int) -> KvManifest:
        size_bytes = _HEADER.size + length * self.profile.kv_bytes_per_token
        return KvManifest(f"profile {self.spec.name}", "uint8", (size_bytes,), length, length, size_bytes)

    def _trail(self, sequence: SequenceInput, state: int, origin: int) -> Trail:
        sampling = sequence.sampling
        twist = xxhash.xxh3_64_intdigest(b"seed", sampling.seed & (2**64 - 1)) if sampling.temperature > 0 else 0
        end_index = _NEVER if sampling.ignore_eos else _end_index(origin, self.profile.output)
        return Trail(state, origin, twist, end_index)


def _block(state: int, raw: bytes, sequence: SequenceInput, start: int, stop: int) -> int:
    """The chain's next state: tokens[start:stop] of a prompt, which are raw, and the embeddings that stand there."""
    if not sequence.spans:
        return xxhash.xxh3_64_intdigest(raw, state)
    digest = xxhash.xxh3_64(raw, state)
    for span in sequence.spans:
        first, end = max(span.offset, start), min(span.offset + span.length, stop)
        if first < end:
            digest.update(array("q", (span.part, span.offset, span.length)).tobytes())
            rows = sequence.embeddings[span.part][first - span.offset : end - span.offset]
            digest.update(np.ascontiguousarray(rows).data)
    return digest.intdigest()


def _pour(size_bytes: int, sink: KvSink) -> None:
    """In parts, as layers would come."""
    for part in range(1, _SINK_PARTS + 1):
        sink.ready(size_bytes * part // _SINK_PARTS)


def _end_index(origin: int, rule: OutputRule) -> int:
    """The inverse of the exponential distribution at a uniform number from the hash."""
    if not rule.mean_tokens:
        return _NEVER
    return int(-math.log1p(-(origin >> 11) / 2**53) * rule.mean_tokens)
