"""Cross-attention: in which order the media's rows stand, and which of them each token sees.

The rule is the one of Mllama's reference (get_cross_attention_token_mask and _prepare_cross_attention_mask of
transformers): a picture is seen from its own token up to the next picture's, pictures in a row as one; tokens that
stand before every picture see all rows, padding tiles as well, and skip the layer's feed-forward part.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.core.types import MediaSpan
from headrace.engines.base import Embeddings


def seen_width(span: MediaSpan) -> int:
    """The part's first rows that tokens behind it see; the others are those of padding tiles. grid: (tiles, rows)."""
    return span.grid[0] * span.grid[1] if span.grid else span.embedding_rows


def cross_rows(spans: Sequence[MediaSpan], embeddings: Sequence[Embeddings]) -> Embeddings:
    """The rows of all parts [rows, width] as seen_rows counts them: what is seen, picture by picture; then padding."""
    ordered = _in_order(spans)
    seen = [embeddings[span.part][: seen_width(span)] for span in ordered]
    padding = [embeddings[span.part][seen_width(span) :] for span in ordered]
    return np.concatenate([*seen, *padding])


def cross_length(spans: Sequence[MediaSpan]) -> int:
    return sum(span.embedding_rows for span in spans)


def first_crossing(spans: Sequence[MediaSpan]) -> int:
    """Tokens before this position skip the feed-forward part of cross-attention layers."""
    return min(span.offset for span in spans)


def seen_rows(tokens: int, spans: Sequence[MediaSpan]) -> NDArray[np.int64]:
    """[tokens, 2]: token i of the prompt sees the rows from [i, 0] up to, but not with, [i, 1].

    Output tokens see what the prompt's last token sees. At least one span.
    """
    ordered = _in_order(spans)
    seen = np.empty((tokens, 2), np.int64)
    seen[:] = (0, cross_length(spans))
    first = end = 0
    for number, span in enumerate(ordered):
        follows = number > 0 and ordered[number - 1].offset == span.offset - 1
        first = first if follows else end
        end += seen_width(span)
        seen[span.offset :] = (first, end)
    return seen


def _in_order(spans: Sequence[MediaSpan]) -> list[MediaSpan]:
    assert spans, "a prompt without media has no rows to attend to"
    return sorted(spans, key=lambda span: span.offset)
