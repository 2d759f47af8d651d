"""What one step of the torch backend computes: rows of several sequences in one matrix, prefill and decode alike.

Linear layers see one row a token. Attention sees groups of sequences of similar size, padded to one shape. The
planner (headrace.engines.torch_planner) makes them, the decoder (headrace.engines.torch_decoder) computes them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.engines.base import KvSink
from headrace.engines.batch import Live
from headrace.engines.families.decoder import Positions
from headrace.engines.prefix_cache import Chain
from headrace.engines.torch_kv import Places

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where a sequence's cross-attention KV lies, and which of its rows each token sees."""

    places: Places  # [cross-attention layers, rows]
    seen: Index  # [prompt, 2]: token i sees the rows from [i, 0] up to, but not with, [i, 1]
    first: int  # tokens before this one skip the feed-forward part

    @property
    def rows(self) -> int:
        return len(self.places[0])


@dataclass(slots=True, eq=False)
class Held:
    """A sequence's share of the cache; of an evicted one, its KV in host memory."""

    blocks: Places
    prompt_positions: Positions  # [axes, prompt]
    next_position: int  # of the first output token
    crossing: Crossing | None = None
    media: torch.Tensor | None = None  # cross-attention: the media's rows, until their KV is there
    host: torch.Tensor | None = None
    chain: Chain | None = None  # of those whose blocks the prefix cache may hold
    sink: KvSink | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """tokens[start:stop] of a sequence, to be computed in this step."""

    live: Live[Held]
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def kv_stop(self) -> int:
        stop: int = self.live.prefix_len + self.stop
        return stop

    @property
    def is_last(self) -> bool:
        """Whether its last row has the logits of the sequence's next token."""
        return self.stop == len(self.live.tokens)

    @property
    def crossing(self) -> Crossing | None:
        return self.live.state.crossing

    @property
    def crossing_rows(self) -> int:
        return self.crossing.rows if self.crossing else 0


@dataclass(frozen=True, slots=True)
class Group:
    """rows[start:stop] of a step, which attend as [sequences, width]."""

    start: int
    stop: int
    sequences: int
    width: int  # new rows of a sequence; shorter ones repeat their last
    kv: int  # columns of the attention
    causal: bool  # nothing stands before the rows: each sees those up to itself, and no mask need be made
    padded: torch.Tensor | None  # [sequences * width] row of each place; None where nothing is padded
    back: torch.Tensor | None  # [stop - start] place of each row
    highs: torch.Tensor  # [sequences, width] a row sees the columns before this one
    lows: torch.Tensor | None  # and from this one on; None: from the first
    tables: torch.Tensor  # block tables [sequences, blocks]; across: places [layers, sequences, kv]


@dataclass(frozen=True, slots=True)
class Across:
    """The rows of a step that belong to sequences with media, for cross-attention layers; groups count in these."""

    rows: torch.Tensor
    groups: tuple[Group, ...]
    feeds: torch.Tensor  # [rows, 1]: 0 where the feed-forward part is skipped
    # Of sequences that start: their media's rows [new rows, width], and where its KV goes [layers, new rows].
    new: tuple[torch.Tensor, torch.Tensor] | None


@dataclass(frozen=True, slots=True)
class Rows:
    tokens: torch.Tensor  # [n]
    positions: torch.Tensor  # [axes, n]
    places: torch.Tensor  # [n] where their KV goes
    groups: tuple[Group, ...]
    wanted: torch.Tensor | None  # rows whose logits are wanted; None: all
    soft_rows: torch.Tensor | None = None  # rows that are media's
    soft: torch.Tensor | None = None  # [media rows, (1 + deepstack) * width]
    across: Across | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    rows: Rows
    wanted: list[Segment]  # in the order of the logits
