"""The engine on ONNX Runtime: real models on a CPU, without torch.

One iteration: sequences past their prefill join the decode groups, each group runs once, then chunks of
waiting prefills run one by one, so that a sequence's prefill does not depend on what else is there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import StageError
from headrace.core.types import Key
from headrace.engines.artifacts import cache_root
from headrace.engines.base import Emitted, KvManifest, KvMismatch, ModelSpec, Prefilled, SequenceInput, StepResult
from headrace.engines.batch import Batch, Chunk, Live, check_embeddings, check_manifest
from headrace.engines.families.llama import Checkpoint
from headrace.engines.kvcache import Group, Kv, KvCache, new_kv
from headrace.engines.onnx_model import Llama, graph_folder
from headrace.engines.sampling import Draw, Logits, sample


def load(
    spec: ModelSpec, checkpoint: Checkpoint, *, threads: int, slots: int, blocks: int, chunk_tokens: int
) -> "OnnxEngine":
    """An engine on the checkpoint's graph, which is written to the cache directory at the first start.

    Raises:
        Unavailable: onnxruntime is not installed.
    """
    folder = graph_folder(checkpoint, cache_root())
    return OnnxEngine(
        spec,
        checkpoint,
        Llama(folder, checkpoint.shape, threads),
        slots=slots,
        blocks=blocks,
        chunk_tokens=chunk_tokens,
    )


@dataclass(slots=True, eq=False)
class Held:
    """Where a sequence's KV is: in `own` while it waits, prefills or is paused, in the cache while it decodes."""

    own: Kv | None


class OnnxEngine:
    """Implements headrace.engines.base.Engine."""

    inline = False

    def __init__(
        self, spec: ModelSpec, checkpoint: Checkpoint, model: Llama, *, slots: int, blocks: int, chunk_tokens: int
    ) -> None:
        assert spec.kv_bytes_per_token == checkpoint.shape.kv_bytes_per_token
        self.spec = spec
        self.slots = slots
        self.blocks = blocks
        self._checkpoint = checkpoint
        self._shape = checkpoint.shape
        self._model = model
        self._layout = f"layers x (k, v), kv_heads, positions, head_width; {checkpoint.fingerprint}"
        self._batch = Batch[Held](slots=slots, blocks=blocks, spec=spec, chunk_tokens=chunk_tokens)
        self._cache = KvCache(self._shape, slots=slots, tokens=blocks * spec.block_tokens)
        self._prefixes: dict[str, Kv] = {}  # at most the names in spec.prefix_tokens

    def blocks_used(self) -> int:
        return self._batch.blocks_used

    def slots_used(self) -> int:
        return len(self._batch)

    def has_work(self) -> bool:
        return self._batch.has_work()

    def check_integrity(self) -> None:
        self._batch.check_integrity()
        self._cache.check_integrity()

    def add(self, sequence: SequenceInput) -> None:
        check_embeddings(sequence)
        prefix = self._prefix(sequence.prefix)
        prefix_len = prefix.shape[2]
        for part, soft in enumerate(sequence.embeddings):
            if not np.isfinite(soft.sum()):  # masked padding would spread them to other sequences
                raise StageError(f"the embeddings of media part {part} are not finite")
        own = new_kv(self._shape, prefix_len + len(sequence.tokens))
        own[:, :, :prefix_len] = prefix
        self._batch.add(sequence, prefix_len, Held(own))

    def step(self) -> StepResult:
        self._join()
        emitted = [token for group in self._cache.groups() for token in self._decode(group)]
        decoded, prefilled, tokens = len(emitted), list[Prefilled](), 0
        for chunk in self._batch.next_chunks():
            logits = self._prefill(chunk)
            tokens += chunk.stop - chunk.start
            if chunk.ends_prefill:
                prefilled.append(Prefilled(chunk.live.key, chunk.live.prefix_len))
                emitted += self._emit([chunk.live], logits)
        return StepResult(tuple(emitted), tuple(prefilled), tokens, decoded)

    def _join(self) -> None:
        """Sequences that were prefilled or imported since the last step enter the decode groups."""
        for live in self._batch.running:
            if live.state.own is not None:
                self._cache.place(live.key, live.state.own[:, :, : live.kv_length])
                live.state.own = None

    def _decode(self, group: Group) -> list[Emitted]:
        rows = [self._batch[key] for key in group.owners]
        logits, new = self._model.decode([live.tokens[-1] for live in rows], group)
        group.write(new)
        for live in rows:
            live.filled += 1
        return self._emit(rows, logits)

    def _prefill(self, chunk: Chunk[Held]) -> Logits:
        live, own = chunk.live, chunk.live.state.own
        assert own is not None
        at = live.kv_length
        logits, new = self._model.prefill([self._rows(live, chunk.start, chunk.stop)], own[:, :, :at])
        for array, values in zip(own, new, strict=True):
            array[:, at : at + chunk.stop - chunk.start] = values[0]
        self._batch.filled(chunk)
        return logits

    def _rows(self, live: Live[Held], start: int, stop: int) -> NDArray[np.float32]:
        """Embeddings of tokens[start:stop], soft tokens at media positions."""
        rows = self._model.embed(live.tokens[start:stop])
        for span in live.input.spans:
            first, end = max(span.offset, start), min(span.offset + span.length, stop)
            if first < end:
                soft = live.input.embeddings[span.part]
                rows[first - start : end - start] = soft[first - span.offset : end - span.offset]
        return rows

    def _emit(self, rows: list[Live[Held]], logits: Logits) -> list[Emitted]:
        draws = [Draw(live.input.sampling, live.next_index, live.tokens) for live in rows]
        emitted = []
        for live, draw, drawn in zip(rows, draws, sample(logits, draws), strict=True):
            assert draw.index < live.input.sampling.max_tokens, "the caller removes a finished sequence"
            live.tokens.append(drawn.token)
            emitted.append(Emitted(live.key, draw.index, drawn.token, drawn.logprobs))
        return emitted

    def remove(self, key: Key) -> None:
        self._batch.remove(key)
        if key in self._cache:
            self._cache.drop(key)

    def pause(self, key: Key) -> None:
        live = self._batch.pause(key)
        if key in self._cache:
            live.state.own = self._cache.lift(key)

    def kv_manifest(self, key: Key) -> KvManifest:
        return self._manifest(self._batch.past_prefill(key).kv_length)

    def export_kv(self, key: Key, into: memoryview) -> None:
        live = self._batch.past_prefill(key)
        manifest = self._manifest(live.kv_length)
        own = self._cache.copy(key) if live.state.own is None else live.state.own[:, :, : live.kv_length]
        np.frombuffer(into, np.float32, manifest.size_bytes // 4).reshape(manifest.shape)[:] = own

    def import_kv(self, sequence: SequenceInput, manifest: KvManifest, source: memoryview) -> None:
        prefix_len = self._prefix(sequence.prefix).shape[2]
        check_manifest(sequence, prefix_len, manifest, self._manifest(prefix_len + len(sequence.tokens) - 1))
        if source.nbytes < manifest.size_bytes:
            raise KvMismatch(f"{source.nbytes} bytes of KV; the manifest says {manifest.size_bytes}")
        kv = np.frombuffer(source, np.float32, manifest.size_bytes // 4).reshape(manifest.shape).copy()
        if not np.isfinite(kv.sum()):
            raise KvMismatch("the KV holds numbers that are not finite")
        self._batch.join(sequence, prefix_len, Held(kv))

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
