"""An engine without a model: real batching, accounting and hand-over, costs from a profile, tokens from a hash.

A token depends on every byte that came before it, so a dropped image, a wrong resume or a corrupt hand-over
changes the output, and a resumed sequence continues as an undisturbed one would.
"""

import math
import re
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xxhash

from headrace.core.cost import StepWork
from headrace.core.types import Key
from headrace.engines.base import Emitted, KvManifest, ModelSpec, Prefilled, SequenceInput, StepResult
from headrace.engines.batch import Batch, Live, check_embeddings, check_manifest
from headrace.engines.profiles import OutputRule, Profile

_HEADER = struct.Struct("<QQQ")  # origin, state, digest of the padding
_LINK = struct.Struct("<QI")  # state, token
_PLAIN = re.compile(rb" | ?[a-z]+")
_NEVER = -1


@dataclass(slots=True, eq=False)
class Trail:
    """The hash chain of a sequence: what stands in for its KV cache."""

    origin: int  # of prefix, prompt and embeddings
    state: int  # of all that KV covers
    twist: int  # 0 if greedy, else from the seed
    end_index: int  # output index of the end token, or _NEVER


class ProfileEngine:
    """Implements headrace.engines.base.Engine; a token costs about two microseconds."""

    inline = True

    def __init__(
        self, spec: ModelSpec, pieces: Sequence[bytes], profile: Profile, *, slots: int, blocks: int, chunk_tokens: int
    ) -> None:
        self.spec = replace(spec, kv_bytes_per_token=profile.kv_bytes_per_token)
        self.slots = slots
        self.blocks = blocks
        self.profile = profile
        self._batch = Batch[Trail](slots=slots, blocks=blocks, spec=spec, chunk_tokens=chunk_tokens)
        self._plain = [token for token, piece in enumerate(pieces) if _PLAIN.fullmatch(piece)]
        self._eos = min(spec.eos_ids)
        assert self._plain

    def blocks_used(self) -> int:
        return self._batch.blocks_used

    def slots_used(self) -> int:
        return len(self._batch)

    def has_work(self) -> bool:
        return self._batch.has_work()

    def check_integrity(self) -> None:
        self._batch.check_integrity()

    def add(self, sequence: SequenceInput) -> None:
        check_embeddings(sequence)
        origin = _origin(sequence)
        self._batch.add(sequence, self._prefix_len(sequence), self._trail(sequence, origin, origin))

    def step(self) -> StepResult:
        emitted, context = [], 0
        for live in self._batch.running:
            trail = live.state
            trail.state = xxhash.xxh3_64_intdigest(_LINK.pack(trail.state, live.tokens[-1]))
            live.filled += 1
            context += live.prefix_len + live.filled
            emitted.append(self._emit(live))
        decoded = len(emitted)
        prefilled, tokens, pairs = self._prefill(emitted)
        work = StepWork(tokens, pairs, decoded, context)
        return StepResult(tuple(emitted), tuple(prefilled), tokens, decoded, self.profile.cost.step_s(work))

    def _prefill(self, emitted: list[Emitted]) -> tuple[list[Prefilled], int, int]:
        prefilled, tokens, pairs = list[Prefilled](), 0, 0
        for chunk in self._batch.next_chunks():
            live, size = chunk.live, chunk.stop - chunk.start
            tokens += size
            pairs += size * (live.kv_length + live.kv_length + size + 1) // 2
            self._batch.filled(chunk)
            if chunk.ends_prefill:
                live.state.state = _follow(live.state.origin, live.tokens[live.input.prompt_len :])
                prefilled.append(Prefilled(live.key, live.prefix_len))
                emitted.append(self._emit(live))
        return prefilled, tokens, pairs

    def _emit(self, live: Live[Trail]) -> Emitted:
        trail, index = live.state, len(live.tokens) - live.input.prompt_len
        assert index < live.input.sampling.max_tokens, "the caller removes a finished sequence"
        plain = self._plain
        token = self._eos if index == trail.end_index else plain[(trail.state ^ trail.twist) % len(plain)]
        live.tokens.append(token)
        return Emitted(live.key, index, token)

    def remove(self, key: Key) -> None:
        self._batch.remove(key)

    def pause(self, key: Key) -> None:
        self._batch.pause(key)

    def kv_manifest(self, key: Key) -> KvManifest:
        return self._manifest(self._batch.past_prefill(key).kv_length)

    def export_kv(self, key: Key, into: memoryview) -> None:
        live = self._batch.past_prefill(key)
        padding_bytes = live.kv_length * self.profile.kv_bytes_per_token
        padding = (live.state.state.to_bytes(8, "little") * (padding_bytes // 8 + 1))[:padding_bytes]
        header = _HEADER.pack(live.state.origin, live.state.state, xxhash.xxh3_64_intdigest(padding))
        into[: _HEADER.size] = header
        into[_HEADER.size : _HEADER.size + padding_bytes] = padding

    def import_kv(self, sequence: SequenceInput, manifest: KvManifest, source: memoryview) -> None:
        prefix_len = self._prefix_len(sequence)
        check_manifest(sequence, prefix_len, manifest, self._manifest(prefix_len + len(sequence.tokens) - 1))
        origin, state, digest = _HEADER.unpack_from(source)
        found = xxhash.xxh3_64_intdigest(source[_HEADER.size : manifest.size_bytes])
        self._batch.join(sequence, prefix_len, self._trail(sequence, origin, state ^ digest ^ found))

    def _prefix_len(self, sequence: SequenceInput) -> int:
        return self.spec.prefix_tokens[sequence.prefix] if sequence.prefix else 0

    def _manifest(self, length: int) -> KvManifest:
        size_bytes = _HEADER.size + length * self.profile.kv_bytes_per_token
        return KvManifest(f"profile {self.spec.name}", "uint8", (size_bytes,), length, length, size_bytes)

    def _trail(self, sequence: SequenceInput, origin: int, state: int) -> Trail:
        sampling = sequence.sampling
        twist = xxhash.xxh3_64_intdigest(b"seed", sampling.seed & (2**64 - 1)) if sampling.temperature > 0 else 0
        end_index = _NEVER if sampling.ignore_eos else _end_index(origin, self.profile.output)
        return Trail(origin, state, twist, end_index)


def _origin(sequence: SequenceInput) -> int:
    digest = xxhash.xxh3_64(sequence.prefix.encode())
    digest.update(array("q", sequence.tokens[: sequence.prompt_len]).tobytes())
    for span in sequence.spans:
        digest.update(array("q", (span.part, span.offset, span.length)).tobytes())
        digest.update(np.ascontiguousarray(sequence.embeddings[span.part]).data)
    return digest.intdigest()


def _follow(state: int, tokens: Sequence[int]) -> int:
    for token in tokens:
        state = xxhash.xxh3_64_intdigest(_LINK.pack(state, token))
    return state


def _end_index(origin: int, rule: OutputRule) -> int:
    """The inverse of the exponential distribution at a uniform number from the hash."""
    if not rule.mean_tokens:
        return _NEVER
    return int(-math.log1p(-(origin >> 11) / 2**53) * rule.mean_tokens)
