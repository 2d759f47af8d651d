"""CUDA graphs of decode iterations: a captured forward costs one launch instead of some twenty for each layer.

Shapes in a graph are fixed, so a batch is padded to a bucket of sequences and of blocks. On a CPU the same padded
forward runs without a capture: that is how the tests run it, and nothing here has run on a GPU but by its types.
"""

from dataclasses import dataclass

import torch

from headrace.engines.torch_decoder import TorchDecoder
from headrace.engines.torch_kv import PagedKv
from headrace.engines.torch_rows import Group, Rows

_GRAPHS_MAX = 32  # captured at most; each holds its activations, and a new shape beyond them runs without a graph


@dataclass(frozen=True, slots=True)
class Captured:
    rows: Rows  # the tensors that the graph reads
    logits: torch.Tensor  # the one that it writes
    graph: "torch.cuda.CUDAGraph | None"


class DecodeGraphs:
    """Runs iterations in which every sequence decodes one token and all attend as one group."""

    def __init__(self, model: TorchDecoder, kv: PagedKv, *, sequences_max: int, context_blocks: int) -> None:
        self._model = model
        self._kv = kv
        self._sequences = _powers(1, sequences_max)
        self._blocks = _powers(8, context_blocks)
        self._captured: dict[tuple[int, int], Captured] = {}
        self._pool = torch.cuda.graph_pool_handle() if model.device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self._captured)

    def takes(self, rows: Rows) -> bool:
        """Whether there is a graph for these decoding rows, or room for one."""
        if len(rows.groups) != 1 or rows.across is not None:
            return False
        return self._bucket(rows) in self._captured or len(self._captured) < _GRAPHS_MAX

    def run(self, rows: Rows) -> torch.Tensor:
        """Logits [sequences, head rows]; good until the next run."""
        bucket, count = self._bucket(rows), rows.groups[0].sequences
        if bucket not in self._captured:
            self._captured[bucket] = self._capture(*bucket)
        captured = self._captured[bucket]
        _copy(rows, captured.rows, self._kv)
        if captured.graph is None:
            return self._model(captured.rows, self._kv)[:count]
        captured.graph.replay()
        return captured.logits[:count]

    def _bucket(self, rows: Rows) -> tuple[int, int]:
        sequences, blocks = rows.groups[0].tables.shape
        return _least(self._sequences, sequences), _least(self._blocks, blocks)

    def _capture(self, sequences: int, blocks: int) -> Captured:
        rows = self._blank(sequences, blocks)
        logits = self._model(rows, self._kv)  # also what libraries do at their first call, outside of the capture
        if self._pool is None:
            return Captured(rows, logits, None)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._model(rows, self._kv)
        return Captured(rows, logits, graph)

    def _blank(self, sequences: int, blocks: int) -> Rows:
        """Rows that write to the padding block and see their own first position."""
        device, size = self._model.device, self._kv.block_tokens

        def integers(*shape: int, value: int = 0) -> torch.Tensor:
            return torch.full(shape, value, dtype=torch.int64, device=device)

        group = Group(
            start=0,
            stop=sequences,
            sequences=sequences,
            width=1,
            kv=blocks * size,
            causal=False,
            padded=None,
            back=None,
            highs=integers(sequences, 1, value=1),
            lows=None,
            tables=integers(sequences, blocks, value=self._kv.padding_block),
        )
        places = integers(sequences, value=self._kv.padding_block * size)
        axes = self._model.decoder.axes
        return Rows(integers(sequences), integers(axes, sequences), places, (group,), wanted=None)


def _copy(rows: Rows, into: Rows, kv: PagedKv) -> None:
    """The rows take the first places; what is left of an earlier batch goes back to the padding block."""
    (group,), (target,) = rows.groups, into.groups
    count, blocks = group.tables.shape
    into.tokens[:count] = rows.tokens
    into.positions[:, :count] = rows.positions
    into.places.fill_(kv.padding_block * kv.block_tokens)[:count] = rows.places
    target.highs.fill_(1)[:count] = group.highs
    target.tables.fill_(kv.padding_block)[:count, :blocks] = group.tables


def _powers(first: int, last: int) -> list[int]:
    """first, twice that, ... up to a number that last fits into."""
    sizes = [first]
    while sizes[-1] < last:
        sizes.append(sizes[-1] * 2)
    return sizes


def _least(sizes: list[int], needed: int) -> int:
    return next(size for size in sizes if size >= needed)
