"""The engine on ONNX Runtime: real models on a CPU, without torch.

One iteration: sequences past their prefill join the decode groups, each group runs once, then chunks of waiting
prefills run, those that stand behind the same past in one call.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.stages.batch import Emitted, Prefilled
from headrace.core.types import Key
from headrace.engines.artifacts import cache_root
from headrace.engines.base import (
    KvManifest,
    KvMismatch,
    KvSink,
    ModelSpec,
    SequenceInput,
    StepResult,
)
from headrace.engines.batch import Batch, Chunk, Live, check_embeddings, check_finite, check_manifest, packs, sizes
from headrace.engines.constrain import Grammars, Guides
from headrace.engines.families.llama import Checkpoint
from headrace.engines.kvcache import Group, Kv, KvCache, new_kv
from headrace.engines.onnx_model import Llama, graph_folder
from headrace.engines.prefix_cache import Chain, PrefixCache
from headrace.engines.runtime import Memory, chosen_device
from headrace.engines.sampling import Draw, Logits, sample


def load(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    *,
    threads: int,
    slots: int,
    blocks: int,
    chunk_tokens: int,
    prefix_cache_bytes: int = 0,
    segments: int = 1,
    weights: str = "fp32",
    device: str = "cpu",
    grammars: Grammars | None = None,
) -> "OnnxEngine":
    """An engine on the checkpoint's graph, which is written to the cache directory at the first start.

    Raises:
        Unavailable: onnxruntime is not installed or does not run on the device; the checkpoint has no such weights.
    """
    memory = Memory.of(chosen_device(device))
    folder = graph_folder(checkpoint, cache_root(), weights, fused=memory.device == "cpu")
    return OnnxEngine(
        spec,
        checkpoint,
        Llama(folder, checkpoint.shape, threads, segments=segments, memory=memory),
        slots=slots,
        blocks=blocks,
        chunk_tokens=chunk_tokens,
        prefix_cache_bytes=prefix_cache_bytes,
        grammars=grammars,
    )


@dataclass(slots=True, eq=False)
class Held:
    """Where a sequence's KV is: in the decode groups while it decodes, else in `own`."""

    own: Kv | None
    chain: Chain | None = None  # of those whose blocks the prefix cache may hold
    sink: KvSink | None = None


class OnnxEngine:
    """Implements headrace.engines.base.Engine."""

    inline = False

    def __init__(
        self,
        spec: ModelSpec,
        checkpoint: Checkpoint,
        model: Llama,
        *,
        slots: int,
        blocks: int,
        chunk_tokens: int,
        prefix_cache_bytes: int = 0,
        grammars: Grammars | None = None,
    ) -> None:
        assert spec.kv_bytes_per_token == checkpoint.shape.kv_bytes_per_token
        self.spec = spec
        self.slots = slots
        self.blocks = blocks
        self._checkpoint = checkpoint
        self._shape = checkpoint.shape
        self._model = model
        self._layout = f"layers x (k, v), kv_heads, positions, head_width; {checkpoint.fingerprint}"
        self._batch = Batch[Held](
            slots=slots,
            blocks=blocks,
            block_tokens=spec.block_tokens,
            context_tokens=spec.context_tokens,
            chunk_tokens=chunk_tokens,
        )
        self._guides = Guides(grammars)
        self._prefixes: dict[str, Kv] = {}  # at most the names in spec.prefix_tokens
        self._prefix_cache_bytes = prefix_cache_bytes
        self._make_room()

    def _make_room(self) -> None:
        """For sequences, and for the blocks of those that are over."""
        self._cache = KvCache(self._shape, slots=self.slots, tokens=self.blocks * self.spec.block_tokens)
        block_bytes = self.spec.block_tokens * self.spec.kv_bytes_per_token
        self._seen = PrefixCache[Kv].of_size(self._prefix_cache_bytes, block_bytes)

    def blocks_used(self) -> int:
        return self._batch.blocks_used

    def slots_used(self) -> int:
        return len(self._batch)

    def has_work(self) -> bool:
        return self._batch.has_work()

    def evicted_bytes(self) -> int:
        return sum(live.state.own.nbytes for live in self._batch.evicted if live.state.own is not None)

    def check_integrity(self) -> None:
        self._batch.check_integrity()
        self._cache.check_integrity()
        self._seen.check_integrity()

    def add(self, sequence: SequenceInput, sink: KvSink | None = None) -> None:
        check_embeddings(sequence)
        check_finite(sequence)
        prefix = self._prefix(sequence.prefix)
        prefix_len = prefix.shape[2]
        own = new_kv(self._shape, prefix_len + len(sequence.tokens))
        own[:, :, :prefix_len] = prefix
        chain = Chain(self._checkpoint.fingerprint, self.spec, sequence) if self._seen.blocks else None
        self._batch.add(sequence, prefix_len, Held(own, chain, sink))
        self._guides.expect(sequence.sampling)

    def feed(self, sequence: SequenceInput) -> None:
        live = self._batch[sequence.key]
        check_embeddings(sequence)
        check_finite(sequence, len(live.input.embeddings))
        if live.state.chain is not None:
            live.state.chain.feed(sequence)
        self._batch.feed(sequence.key, sequence)

    def step(self) -> StepResult:
        self._join()
        emitted = [token for group in self._cache.groups() for token in self._decode(group)]
        decoded, prefilled = len(emitted), list[Prefilled]()
        chunks = self._batch.next_chunks(self._reuse)
        for pack in packs(chunks):
            logits = self._prefill(pack)
            ended = [row for row, chunk in enumerate(pack) if chunk.ends_prefill]
            prefilled += [pack[row].live.prefilled() for row in ended]
            if ended:
                emitted += self._emit([pack[row].live for row in ended], logits[ended])
        computed = sizes(chunks)
        tokens = sum([size for _, size in computed])
        failed = self._guides.take_failed()
        return StepResult(tuple(emitted), tuple(prefilled), tokens, decoded, chunks=computed, failed=failed)

    def _join(self) -> None:
        """Sequences that were prefilled, imported or restored since the last step enter the decode groups."""
        for live in self._batch.running:
            if live.state.own is not None:
                self._cache.place(live.key, live.state.own[:, :, : live.kv_length])
                live.state.own = None

    def _decode(self, group: Group) -> list[Emitted]:
        rows = [self._batch[key] for key in group.owners]
        logits = self._model.decode([live.tokens[-1] for live in rows], group)
        for live in rows:
            live.filled += 1
        return self._emit(rows, logits)

    def _prefill(self, pack: list[Chunk[Held]]) -> Logits:
        """Logits [chunks, vocab] of the last token of each."""
        logits = self._prefill_one(pack[0]) if len(pack) == 1 else self._prefill_packed(pack)
        for chunk in pack:
            self._batch.filled(chunk)
            self._keep_blocks(chunk.live)
        return logits

    def _prefill_one(self, chunk: Chunk[Held]) -> Logits:
        live = chunk.live
        assert live.state.own is not None
        return self._model.prefill(
            self._rows(chunk), live.state.own, live.kv_length, lambda arrays: self._pour(chunk, arrays)
        )

    def _prefill_packed(self, pack: list[Chunk[Held]]) -> Logits:
        past, at = self._prefix(pack[0].live.input.prefix), 0
        logits, new = self._model.prefill_packed([self._rows(chunk) for chunk in pack], past)
        for chunk in pack:
            live, size = chunk.live, chunk.stop - chunk.start
            assert live.state.own is not None
            live.state.own[:, :, live.kv_length : live.kv_length + size] = new[:, :, at : at + size]
            self._pour(chunk, slice(0, len(new)))
            at += size
        return logits

    def _pour(self, chunk: Chunk[Held], arrays: slice) -> None:
        """Write these arrays of a whole KV cache to the sequence's sink, which has all before them."""
        own, sink = chunk.live.state.own, chunk.live.state.sink
        if sink is None or not chunk.ends_prefill:
            return
        assert own is not None
        whole = np.frombuffer(sink.buffer, np.float32, own.size).reshape(own.shape)
        whole[arrays] = own[arrays]
        if arrays.stop == len(own):
            chunk.live.state.sink = None
        sink.ready(arrays.stop * own[0].nbytes)

    def _rows(self, chunk: Chunk[Held]) -> NDArray[np.float32]:
        """Embeddings of the chunk's tokens, soft tokens at media positions."""
        live, start, stop = chunk.live, chunk.start, chunk.stop
        rows = self._model.embed(live.tokens[start:stop])
        for span in live.input.spans:
            first, end = max(span.offset, start), min(span.offset + span.length, stop)
            if first < end:
                soft = live.input.embeddings[span.part]
                rows[first - start : end - start] = soft[first - span.offset : end - span.offset]
        return rows

    def _reuse(self, live: Live[Held]) -> int:
        """Copy cached blocks that the sequence starts with; the last token is always computed: it has the logits."""
        own, chain = live.state.own, live.state.chain
        if chain is None:
            return 0
        assert own is not None
        size = self.spec.block_tokens
        blocks = self._seen.run(chain.keys(live.tokens)[: (len(live.tokens) - 1) // size])
        for index, block in enumerate(blocks):
            start = live.prefix_len + index * size
            own[:, :, start : start + size] = block
        return len(blocks) * size

    def _keep_blocks(self, live: Live[Held]) -> None:
        """The whole blocks of all that was computed may serve a prompt that starts as this sequence does."""
        if live.state.chain is None:
            return
        kv, size = self._kv(live), self.spec.block_tokens

        def block(index: int) -> Kv:
            start = live.prefix_len + index * size
            return kv[:, :, start : start + size].copy()

        self._seen.put(live.state.chain.keys(live.tokens[: live.filled]), block)

    def _emit(self, rows: list[Live[Held]], logits: Logits) -> list[Emitted]:
        masks = self._guides.masks(rows)
        draws = [
            Draw(live.input.sampling, live.next_index, live.tokens, mask)
            for live, mask in zip(rows, masks, strict=True)
        ]
        return [live.emit(drawn.token, drawn.logprobs) for live, drawn in zip(rows, sample(logits, draws), strict=True)]

    def remove(self, key: Key) -> None:
        live = self._batch.remove(key)
        self._guides.drop(key)
        self._keep_blocks(live)
        if key in self._cache:
            self._cache.drop(key)

    def pause(self, key: Key) -> None:
        self._lift(self._batch.pause(key))

    def evict(self, key: Key) -> None:
        self._lift(self._batch.evict(key))

    def restore(self, key: Key) -> None:
        self._batch.restore(key)

    def park(self) -> None:
        assert not list(self._batch), "a sequence is left"
        del self._cache, self._seen
        self._model.park()

    def unpark(self) -> None:
        self._model.unpark()
        self._make_room()

    def _lift(self, live: Live[Held]) -> None:
        if live.key in self._cache:
            live.state.own = self._cache.lift(live.key)

    def _kv(self, live: Live[Held]) -> Kv:
        """A view of the sequence's KV, of kv_length positions; good until the next step."""
        if live.state.own is None:
            return self._cache.view(live.key)
        return live.state.own[:, :, : live.kv_length]

    def prefilled_manifest(self, sequence: SequenceInput) -> KvManifest:
        return self._manifest(self._prefix(sequence.prefix).shape[2] + len(sequence.tokens))

    def kv_manifest(self, key: Key) -> KvManifest:
        return self._manifest(self._batch[key].kv_length)

    def export_kv(self, key: Key, into: memoryview) -> None:
        kv = self._kv(self._batch[key])
        np.frombuffer(into, np.float32, kv.size).reshape(kv.shape)[:] = kv

    def import_kv(self, sequence: SequenceInput, manifest: KvManifest, source: memoryview) -> None:
        prefix_len = self._prefix(sequence.prefix).shape[2]
        filled = check_manifest(sequence, prefix_len, manifest, lambda filled: self._manifest(prefix_len + filled))
        check_embeddings(sequence, filled)
        check_finite(sequence)
        if source.nbytes < manifest.size_bytes:
            raise KvMismatch(f"{source.nbytes} bytes of KV; the manifest says {manifest.size_bytes}")
        kv = np.frombuffer(source, np.float32, manifest.size_bytes // 4).reshape(manifest.shape)
        if not np.isfinite(kv.sum()):
            raise KvMismatch("the KV holds numbers that are not finite")
        own = new_kv(self._shape, prefix_len + len(sequence.tokens))
        own[:, :, : manifest.length] = kv
        self._batch.add(sequence, prefix_len, Held(own), filled)
        self._guides.expect(sequence.sampling)

    def _manifest(self, length: int) -> KvManifest:
        shape = (2 * self._shape.layers, self._shape.kv_heads, length, self._shape.head_width)
        return KvManifest(self._layout, "float32", shape, length, length, length * self.spec.kv_bytes_per_token)

    def _prefix(self, name: str) -> Kv:
        if name not in self._prefixes:
            self._prefixes[name] = self._load_prefix(name)
        return self._prefixes[name]

    def _load_prefix(self, name: str) -> Kv:
        if not name:
            return new_kv(self._shape, 0)
        loaded = self._checkpoint.load_prefix(name)
        assert loaded.shape[2:] == (self._shape.kv_heads, self.spec.prefix_tokens[name], self._shape.head_width)
        return loaded.reshape(2 * self._shape.layers, *loaded.shape[2:])
