"""The engine on torch: Hugging Face checkpoints of every family, on a CPU or on a GPU.

One iteration is one forward: a row for each running sequence and the rows of waiting prompts, in one matrix. On a GPU
iterations without prefill are CUDA graphs (headrace.engines.torch_graphs).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from headrace.core.errors import Unavailable
from headrace.core.stages.batch import Emitted, Prefilled
from headrace.core.stages.kv import blocks_for
from headrace.core.types import Key
from headrace.engines.base import (
    KvManifest,
    KvMismatch,
    KvSink,
    ModelSpec,
    SequenceInput,
    StepResult,
)
from headrace.engines.batch import Batch, Live, check_embeddings, check_finite, check_manifest, sizes
from headrace.engines.constrain import Grammars, Guides
from headrace.engines.families.crossing import cross_length, cross_rows, first_crossing, seen_rows
from headrace.engines.prefix_cache import Chain, PrefixCache
from headrace.engines.sampling import Draw
from headrace.engines.torch_decoder import TorchDecoder
from headrace.engines.torch_drawing import draw_tokens
from headrace.engines.torch_graphs import DecodeGraphs
from headrace.engines.torch_image import Images
from headrace.engines.torch_kv import PagedKv
from headrace.engines.torch_planner import Planner
from headrace.engines.torch_rows import Crossing, Held, Plan, Segment

_NO_BLOCKS = np.empty(0, np.int64)


class TorchEngine:
    """Implements headrace.engines.base.Engine."""

    inline = False

    def __init__(
        self,
        spec: ModelSpec,
        model: TorchDecoder,
        *,
        slots: int,
        blocks: int,
        chunk_tokens: int,
        prefix_cache_bytes: int = 0,
        grammars: Grammars | None = None,
    ) -> None:
        decoder = model.decoder
        # A family counts KV in float32: what a token takes here depends on the dtype.
        self.spec = replace(spec, kv_bytes_per_token=decoder.kv_values_per_token * model.dtype.itemsize)
        self.slots = slots
        self.blocks = blocks
        self._model = model
        self._decoder = decoder
        self._batch = Batch[Held](
            slots=slots,
            blocks=blocks,
            block_tokens=spec.block_tokens,
            context_tokens=spec.context_tokens,
            chunk_tokens=chunk_tokens,
        )
        self._guides = Guides(grammars)
        self._prefix_cache_bytes = prefix_cache_bytes
        self._prefixes: dict[str, torch.Tensor] = {}  # at most the names in spec.prefix_tokens
        self._uses_graphs = False
        self._make_room()

    def _make_room(self) -> None:
        """For sequences, and for the blocks of those that are over."""
        model, decoder, size = self._model, self._decoder, self.spec.block_tokens
        self._kv = PagedKv(decoder, blocks=self.blocks, block_tokens=size, device=model.device, dtype=model.dtype)
        self._images = Images(decoder, self._kv)
        self._planner = Planner(self._kv, crosses=bool(decoder.cross_layers), device=model.device, dtype=model.dtype)
        block_bytes = size * self.spec.kv_bytes_per_token
        self._seen = PrefixCache[torch.Tensor].of_size(self._prefix_cache_bytes, block_bytes)
        self._graphs: DecodeGraphs | None = None
        if self._uses_graphs:
            self.use_graphs()

    def use_graphs(self) -> None:
        """From now on iterations without prefill run as CUDA graphs; on a CPU padded as those are, without a graph."""
        self._uses_graphs = True
        blocks = blocks_for(self.spec.context_tokens, self.spec.block_tokens)
        self._graphs = DecodeGraphs(self._model, self._kv, sequences_max=self.slots, context_blocks=blocks)

    @property
    def graphs_captured(self) -> int:
        return len(self._graphs) if self._graphs else 0

    def blocks_used(self) -> int:
        return self._batch.blocks_used

    def slots_used(self) -> int:
        return len(self._batch)

    def has_work(self) -> bool:
        return self._batch.has_work()

    def evicted_bytes(self) -> int:
        return sum(live.state.host.nbytes for live in self._batch.evicted if live.state.host is not None)

    def check_integrity(self) -> None:
        self._batch.check_integrity()
        self._seen.check_integrity()
        self._kv.check_integrity([live.state.blocks for live in self._batch])
        assert len(self._kv) == self._batch.blocks_used

    def add(self, sequence: SequenceInput, sink: KvSink | None = None) -> None:
        check_embeddings(sequence)
        check_finite(sequence)
        assert not (sequence.awaits_media and self._crosses(sequence)), "the first token sees all media"
        live = self._enter(sequence, filled=0)
        live.state.sink = sink
        self._fill_prefix(live)
        if self._crosses(sequence):
            live.state.media = torch.from_numpy(cross_rows(sequence.spans, sequence.embeddings))
        elif self._seen.blocks:
            live.state.chain = Chain(self._decoder.fingerprint, self.spec, sequence)

    def feed(self, sequence: SequenceInput) -> None:
        live = self._batch[sequence.key]
        check_embeddings(sequence)
        check_finite(sequence, len(live.input.embeddings))
        if live.state.chain is not None:
            live.state.chain.feed(sequence)
        self._batch.feed(sequence.key, sequence)

    def step(self) -> StepResult:
        decoding = [Segment(live, len(live.tokens) - 1, len(live.tokens)) for live in self._batch.running]
        chunks = self._batch.next_chunks(self._reuse)
        if not decoding and not chunks:
            return StepResult((), (), 0, 0)
        plan = self._planner.plan([*decoding, *(Segment(chunk.live, chunk.start, chunk.stop) for chunk in chunks)])
        logits = self._forward(plan, decodes=not chunks)
        for segment in decoding:
            segment.live.filled += 1
        prefilled = []
        for chunk in chunks:
            chunk.live.state.media = None
            self._batch.filled(chunk)
            if chunk.ends_prefill:
                prefilled.append(self._end_prefill(chunk.live))
        emitted = self._emit([segment.live for segment in plan.wanted], logits)
        computed = sizes(chunks)
        tokens = sum([size for _, size in computed])
        failed = self._guides.take_failed()
        return StepResult(emitted, tuple(prefilled), tokens, len(decoding), chunks=computed, failed=failed)

    def remove(self, key: Key) -> None:
        live = self._batch.remove(key)
        self._guides.drop(key)
        if live.state.host is None:
            self._keep_blocks(live)
        self._give_blocks(live)

    def pause(self, key: Key) -> None:
        self._batch.pause(key)

    def evict(self, key: Key) -> None:
        live = self._batch.evict(key)
        length, across = live.kv_length, _crossed(live)
        live.state.host = torch.empty(
            self._images.numbers(length, across), dtype=self._images.dtype, pin_memory=self._model.device.type == "cuda"
        )
        self._images.save(live.state, length, across, live.state.host)
        self._give_blocks(live)

    def restore(self, key: Key) -> None:
        live = self._batch.restore(key)
        self._take_blocks(live)
        assert live.state.host is not None
        self._images.load(live.state, live.kv_length, _crossed(live), live.state.host)
        live.state.host = None

    def park(self) -> None:
        assert not list(self._batch), "a sequence is left"
        del self._kv, self._images, self._planner, self._seen
        self._graphs = None
        self._model.park()

    def unpark(self) -> None:
        self._model.unpark()
        try:
            self._make_room()
        except torch.OutOfMemoryError as error:
            raise Unavailable(f"no room for {self.blocks} KV blocks of {self.spec.name}: {error}") from error

    def prefilled_manifest(self, sequence: SequenceInput) -> KvManifest:
        return self._manifest(sequence, len(sequence.tokens))

    def kv_manifest(self, key: Key) -> KvManifest:
        live = self._batch[key]
        return self._manifest(live.input, live.filled)

    def export_kv(self, key: Key, into: memoryview) -> None:
        live = self._batch[key]
        image = self._images.tensor(into, live.kv_length, _crossed(live))
        if live.state.host is not None:
            if self._model.device.type == "cuda":
                torch.cuda.synchronize()  # evict may still be writing
            image.copy_(live.state.host)
        else:
            self._images.save(live.state, live.kv_length, _crossed(live), image)

    def import_kv(self, sequence: SequenceInput, manifest: KvManifest, source: memoryview) -> None:
        prefix_len = self._prefix_len(sequence)
        filled = check_manifest(sequence, prefix_len, manifest, lambda filled: self._manifest(sequence, filled))
        if not manifest.cross_length:  # cross-attention KV holds all media at once
            check_embeddings(sequence, filled)
        check_finite(sequence)
        if source.nbytes < manifest.size_bytes:
            raise KvMismatch(f"{source.nbytes} bytes of KV; the manifest says {manifest.size_bytes}")
        image = self._images.tensor(source, manifest.length, manifest.cross_length)
        if not image.sum(dtype=torch.float32).isfinite():
            raise KvMismatch("the KV holds numbers that are not finite")
        live = self._enter(sequence, filled)
        self._images.load(live.state, manifest.length, manifest.cross_length, image)
        if self._crosses(sequence) and not filled:
            live.state.media = torch.from_numpy(cross_rows(sequence.spans, sequence.embeddings))

    def _enter(self, sequence: SequenceInput, filled: int) -> Live[Held]:
        positions, following = self._decoder.positions(sequence.prompt_len, sequence.spans)
        prefix_len = self._prefix_len(sequence)
        assert positions.shape == (self._decoder.axes, sequence.prompt_len)
        held = Held(_NO_BLOCKS, positions + prefix_len, following + prefix_len)
        live = self._batch.add(sequence, prefix_len, held, filled)
        self._guides.expect(sequence.sampling)
        self._take_blocks(live)
        return live

    def _take_blocks(self, live: Live[Held]) -> None:
        state, sequence = live.state, live.input
        state.blocks = self._kv.take(live.blocks)
        if not self._crosses(sequence):
            return
        rows = cross_length(sequence.spans)
        assert self._decoder.cross_kv_tokens(rows) <= sum(span.kv_tokens for span in sequence.spans)
        behind = live.prefix_len + sequence.prompt_len + sequence.sampling.max_tokens
        state.crossing = Crossing(
            self._kv.crossing_places(state.blocks, behind, len(self._decoder.cross_layers), rows),
            seen_rows(sequence.prompt_len, sequence.spans),
            first_crossing(sequence.spans),
        )

    def _give_blocks(self, live: Live[Held]) -> None:
        self._kv.give(live.state.blocks)
        live.state.blocks = _NO_BLOCKS

    def _forward(self, plan: Plan, *, decodes: bool) -> torch.Tensor:
        """Logits of the plan's wanted segments; sinks get each layer as it is there."""
        if decodes and self._graphs is not None and self._graphs.takes(plan.rows):
            return self._graphs.run(plan.rows)
        pouring = [(segment, segment.live.state.sink) for segment in plan.wanted if segment.live.state.sink is not None]

        def pour(layer: int) -> None:
            for segment, sink in pouring:
                self._images.pour_layer(segment.live.state, segment.kv_stop, layer, sink)

        logits = self._model(plan.rows, self._kv, pour if pouring else None)
        for segment, sink in pouring:
            self._images.pour_across(segment.live.state, segment.kv_stop, sink)
        return logits

    def _emit(self, lives: Sequence[Live[Held]], logits: torch.Tensor) -> tuple[Emitted, ...]:
        masks = self._guides.masks(lives)  # while a GPU still computes the logits
        draws = [
            Draw(live.input.sampling, live.next_index, live.tokens, mask)
            for live, mask in zip(lives, masks, strict=True)
        ]
        drawn = draw_tokens(logits, draws)
        return tuple(live.emit(each.token, each.logprobs) for live, each in zip(lives, drawn, strict=True))

    def _reuse(self, live: Live[Held]) -> int:
        """Copy cached blocks that the sequence starts with; the last token is always computed: it has the logits."""
        if live.state.chain is None:
            return 0
        size = self.spec.block_tokens
        found = self._seen.run(live.state.chain.keys(live.tokens)[: (len(live.tokens) - 1) // size])
        if found:
            stop = live.prefix_len + len(found) * size
            self._kv.fill(self._kv.places(live.state.blocks, live.prefix_len, stop), torch.cat(found, dim=2))
        return len(found) * size

    def _end_prefill(self, live: Live[Held]) -> Prefilled:
        live.state.sink = None
        self._keep_blocks(live)
        return live.prefilled()

    def _keep_blocks(self, live: Live[Held]) -> None:
        """The whole blocks of all that was computed may serve a prompt that starts as this sequence does."""
        if live.state.chain is None:
            return
        size = self.spec.block_tokens

        def block(index: int) -> torch.Tensor:
            start = live.prefix_len + index * size
            return self._kv.copy(self._kv.places(live.state.blocks, start, start + size))

        self._seen.put(live.state.chain.keys(live.tokens[: live.filled]), block)

    def _manifest(self, sequence: SequenceInput, filled: int) -> KvManifest:
        """Of a sequence's KV that covers tokens[:filled]; the media's KV is there from the first chunk on."""
        positions, following = self._decoder.positions(sequence.prompt_len, sequence.spans)
        ahead = filled - sequence.prompt_len
        at = int(positions[0, filled]) if ahead < 0 else following + ahead
        across = cross_length(sequence.spans) if filled and self._crosses(sequence) else 0
        prefix_len = self._prefix_len(sequence)
        return self._images.manifest(prefix_len + filled, prefix_len + at, across)

    def _crosses(self, sequence: SequenceInput) -> bool:
        return bool(self._decoder.cross_layers and sequence.spans)

    def _prefix_len(self, sequence: SequenceInput) -> int:
        return self.spec.prefix_tokens[sequence.prefix] if sequence.prefix else 0

    def _fill_prefix(self, live: Live[Held]) -> None:
        name = live.input.prefix
        if not name:
            return
        if name not in self._prefixes:
            assert self._decoder.load_prefix is not None
            self._prefixes[name] = torch.from_numpy(self._decoder.load_prefix(name)).transpose(2, 3)
        self._kv.fill(self._kv.places(live.state.blocks, 0, live.prefix_len), self._prefixes[name])


def _crossed(live: Live[Held]) -> int:
    """Media rows whose cross-attention KV is there: all from the first chunk on."""
    return live.state.crossing.rows if live.state.crossing and live.filled else 0
