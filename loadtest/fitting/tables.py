"""The kernel tables of one GPU (aiconfigurator's, measured with vLLM's kernels): seconds of a kernel by its shape.

Between the grid's points seconds are interpolated in logarithms, which is exact where a kernel is bound by its bytes
or by its products alone. Needs pyarrow: the tables are parquet.
"""

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import RegularGridInterpolator

Row = dict[str, Any]
GEMM_COLUMNS_MAX = 65536  # wider ones are cut


class Tables:
    """Kernel seconds on one GPU, or of a collective between several."""

    def __init__(self, folder: Path, gpu: str) -> None:
        def keep(row: Row) -> bool:
            plain = row.get("gemm_dtype", "bfloat16") == "bfloat16" == row.get("kv_cache_dtype", "bfloat16")
            return plain and not row.get("window_size") and row.get("head_dim", 128) == 128

        def rows(kind: str) -> list[Row]:
            return [row for row in _read(folder / f"{gpu}_sxm_{kind}_perf.parquet") if keep(row)]

        self.gpu = gpu
        self._gemm = _grid(rows("gemm"), "m", "n", "k")
        reduces = [row for row in rows("nccl") if row["op_name"] == "all_reduce" and row["nccl_dtype"] == "half"]
        self._reduce = {
            gpus: _grid([row for row in reduces if row["num_gpus"] == gpus], "message_size") for gpus in (2, 4, 8)
        }
        self._context = _by_heads(rows("context_attention"), "isl")
        self._generation = _by_heads(rows("generation_attention"), "step")

    def gemm_s(self, m: float, n: float, k: float) -> float:
        """(m x k) times (k x n)."""
        cuts = max(1, -(-int(n) // GEMM_COLUMNS_MAX))
        return cuts * self._gemm(m, n / cuts, k)

    def reduce_s(self, elements: float, gpus: int) -> float:
        """All-reduce of 16-bit elements; message_size of the table counts elements (66 MB agree with Vidur's row)."""
        return self._reduce[gpus](max(elements, 256)) if gpus > 1 else 0.0

    def context_s(self, batch: int, tokens: int, heads: int, kv_heads: int) -> float:
        """Causal attention of `batch` whole prompts of `tokens`, one layer."""
        if heads == kv_heads:
            return _between_heads(self._context, heads, None, batch, tokens)
        return _between_heads(self._context, heads, kv_heads, batch, tokens)

    def generation_s(self, batch: int, context: int, heads: int, kv_heads: int) -> float:
        """One token of each of `batch` sequences that look back at `context`, one layer.

        KV heads that the table lacks (it has 1, 2, 4 and 8) count as sequences: both are read and computed apart.
        """
        known = max(kv for _, kv in self._generation if kv <= kv_heads)
        fold = kv_heads / known
        return _between_heads(self._generation, heads / fold, known, batch * fold, context - 1)


Kernel = Callable[..., float]
Heads = dict[tuple[int, int], Kernel]


def _read(path: Path) -> list[Row]:
    parquet = importlib.import_module("pyarrow.parquet")  # no dependency of the product
    rows: list[Row] = parquet.read_table(path).to_pylist()
    return rows


def _grid(rows: list[Row], *axes: str) -> Kernel:
    """Log-log interpolation over the largest full grid of the rows; straight on beyond its edges."""
    points = [sorted({float(row[axis]) for row in rows}) for axis in axes]
    values = np.full([len(axis) for axis in points], np.nan)
    at = [{value: index for index, value in enumerate(axis)} for axis in points]
    for row in rows:
        where = tuple(lookup[float(row[axis])] for lookup, axis in zip(at, axes, strict=True))
        values[where] = np.log(max(float(row["latency"]), 1e-6) * 1e-3)
    interpolate = RegularGridInterpolator(
        [np.log(axis) for axis in points], values, bounds_error=False, fill_value=None
    )

    def kernel(*where: float) -> float:
        found = float(np.exp(interpolate(np.log(np.asarray(where, float)))[0]))
        assert np.isfinite(found), f"the table has a gap at {where}"
        return found

    return kernel


def _by_heads(rows: list[Row], length: str) -> Heads:
    pairs = sorted({(row["num_heads"], row["num_key_value_heads"]) for row in rows})
    of = {pair: [row for row in rows if (row["num_heads"], row["num_key_value_heads"]) == pair] for pair in pairs}
    return {pair: _grid(_full(found, length), "batch_size", length) for pair, found in of.items()}


def _full(rows: list[Row], length: str) -> list[Row]:
    """The tables leave out what would not fit into memory: seconds grow there as at the last point in both lengths."""
    known = {(int(row["batch_size"]), int(row[length])): float(row["latency"]) for row in rows}
    batches, lengths = (sorted({pair[axis] for pair in known}) for axis in (0, 1))
    for at, batch in enumerate(batches):
        for place, size in enumerate(lengths):
            if (batch, size) not in known:
                assert at or place, "the first point is always there"
                fewer, shorter = batches[max(at - 1, 0)], lengths[max(place - 1, 0)]
                grown = known[fewer, size] * batch / fewer if at else known[batch, shorter] * size / shorter
                known[batch, size] = grown
    return [
        {"batch_size": batch, length: size, "latency": known[batch, size]}
        for batch, size in itertools.product(batches, lengths)
    ]


def _between_heads(kernels: Heads, heads: float, kv_heads: int | None, *where: float) -> float:
    """Linear between the numbers of heads that the table has; kv_heads None: one for each head."""
    line = {h: kernel for (h, kv), kernel in kernels.items() if kv == (h if kv_heads is None else kv_heads)}
    known = sorted(line)
    above = next((h for h in known if h >= heads), known[-1])
    below = max((h for h in known if h <= heads), default=known[0])
    high = line[above](*where)
    if above == below:
        return high * max(1.0, heads / above)
    low = line[below](*where)
    return low + (high - low) * (heads - below) / (above - below)
