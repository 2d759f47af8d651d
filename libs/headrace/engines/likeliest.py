"""The largest logits of rows, and what is kept of them: top-k, nucleus, log-probabilities.

All batched, and no row is sorted. Every number depends on its own row alone, whatever else is in the batch.
"""

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Ids = NDArray[np.int64]
Rows = NDArray[np.float64]

# Columns are grouped so that groups' maxima tell where the largest logits are: memory is read once, in order.
GROUP = 64
NUCLEUS = 256  # likeliest tokens that hold almost every nucleus; where they do not, more are looked at


def largest(rows: Logits, count: int) -> tuple[Logits, Ids]:
    """Of rows [n, width] the count largest, largest first, and their columns: two [n, min(count, width)].

    The count largest groups by their maxima hold the count largest logits (or some equal to them).
    """
    width = rows.shape[1]
    groups = width // GROUP
    if count * 4 >= groups:
        return _sorted(rows, np.broadcast_to(np.arange(width), rows.shape), min(count, width))
    body = rows[:, : groups * GROUP].reshape(len(rows), GROUP, groups)
    best = np.argpartition(body.max(axis=1), groups - count, axis=1)[:, groups - count :]
    columns = (best[:, None, :] + groups * np.arange(GROUP)[:, None]).reshape(len(rows), -1)
    tail = np.broadcast_to(np.arange(groups * GROUP, width), (len(rows), width - groups * GROUP))
    columns = np.concatenate([columns, tail], axis=1)
    return _sorted(np.take_along_axis(rows, columns, axis=1), columns, count)


def _sorted(values: Logits, columns: Ids, count: int) -> tuple[Logits, Ids]:
    """The lower column first where values are equal."""
    if count < values.shape[1]:
        some = np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]
        values, columns = np.take_along_axis(values, some, axis=1), np.take_along_axis(columns, some, axis=1)
    order = np.lexsort((columns, -values), axis=1)
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(columns, order, axis=1)


def mass(rows: Logits) -> tuple[Logits, Rows]:
    """Of rows [n, width]: the largest logit, and the sum of exp(logit - largest)."""
    top = rows.max(axis=1)
    return top, np.exp(rows - top[:, None]).sum(axis=1).astype(np.float64)


def log_softmax_at(rows: Logits, columns: Ids) -> Rows:
    """Natural log-probabilities of columns [n, k] of rows [n, width], as if all temperatures were 1."""
    top, total = mass(rows)
    return np.take_along_axis(rows, columns, axis=1) - top.astype(np.float64)[:, None] - np.log(total)[:, None]


def least_kept(rows: Logits, top_k: Ids, top_p: Rows) -> Logits:
    """The smallest logit of each row that is among its top_k (0: all) and then in the nucleus of mass top_p of those.

    The nucleus is the smallest set of most likely tokens whose mass reaches top_p (Holtzman et al. 2020,
    section 3.1). Whoever keeps all that is not smaller keeps ties with the last one, too. Rows are logits over
    temperature, or in any other unit if every top_p is 1.
    """
    width = rows.shape[1]
    nuclear = top_p < 1.0
    least = np.full(len(rows), -np.inf, np.float32)
    pending = np.arange(len(rows))
    head = max(int(top_k.max()), NUCLEUS if nuclear.any() else 1)
    while len(pending):
        some = rows[pending] if len(pending) < len(rows) else rows
        values = largest(some, head)[0]
        found, whole = _cut(some, values, top_k[pending], top_p[pending], nuclear[pending])
        least[pending[whole]] = found[whole]
        pending = pending[~whole]
        head = min(width, head * 16)
    return least


def _cut(
    rows: Logits, values: Logits, top_k: Ids, top_p: Rows, nuclear: NDArray[np.bool_]
) -> tuple[Logits, NDArray[np.bool_]]:
    """The least kept logit of each row as far as its largest values tell, and whether they tell all."""
    width, head = rows.shape[1], values.shape[1]
    k = np.where(top_k > 0, np.minimum(top_k, width), width)
    kept = np.minimum(k, head)
    whole = kept == k
    if nuclear.any():
        rank = np.arange(head)
        weight = np.where(rank < k[:, None], np.exp((values - values[:, :1]).astype(np.float64)), 0.0)
        total = weight.sum(axis=1)
        beyond = nuclear & (k > head)
        if beyond.any():
            total[beyond] = mass(rows[beyond])[1]
        before = np.cumsum(weight, axis=1) - weight
        inside = (rank < k[:, None]) & ((before < (top_p * total)[:, None]) | (rank == 0))
        kept = np.where(nuclear, inside.sum(axis=1), kept)
        whole |= nuclear & (kept < head)
    return values[np.arange(len(rows)), kept - 1], whole
