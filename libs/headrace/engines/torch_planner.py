"""From sequences to rows: how segments of a step are packed for linear layers and padded for attention."""

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.engines.families.decoder import Positions
from headrace.engines.torch_kv import PagedKv, Places
from headrace.engines.torch_rows import Across, Crossing, Group, Index, Plan, Rows, Segment

# Sequences that attend together differ by less than this factor in new rows and in KV: the bound on padding.
_SHAPE_RATIO_BITS = 2
_SMALL_KV_TOKENS = 512  # below this nobody is kept apart


class Planner:
    """Turns segments into rows."""

    def __init__(self, kv: PagedKv, *, crosses: bool, device: torch.device, dtype: torch.dtype) -> None:
        self._kv = kv
        self._crosses = crosses
        self._device = device
        self._dtype = dtype

    def plan(self, segments: Sequence[Segment]) -> Plan:
        groups = by_shape(segments, lambda segment: segment.kv_stop)
        ordered = [segment for group in groups for segment in group]
        starts = _starts(ordered)
        wanted = [(stop - 1, segment) for stop, segment in zip(starts[1:], ordered, strict=True) if segment.is_last]
        tokens = chain.from_iterable(segment.live.tokens[segment.start : segment.stop] for segment in ordered)
        soft_rows, soft = (None, None) if self._crosses else self._soft(ordered, starts)
        rows = Rows(
            tokens=self._put(np.fromiter(tokens, np.int64, starts[-1])),
            positions=self._put(np.concatenate([_positions(segment) for segment in ordered], axis=1)),
            places=self._put(np.concatenate([self._places(segment) for segment in ordered])),
            groups=self._attending(groups),
            wanted=None if len(wanted) == starts[-1] else self._put(np.array([row for row, _ in wanted], np.int64)),
            soft_rows=soft_rows,
            soft=soft,
            across=self._across(ordered, starts) if self._crosses else None,
        )
        return Plan(rows, [segment for _, segment in wanted])

    def _attending(self, groups: list[list[Segment]]) -> tuple[Group, ...]:
        made, start, size = list[Group](), 0, self._kv.block_tokens
        for group in groups:
            blocks = -(-max(segment.kv_stop for segment in group) // size)
            tables = np.full((len(group), blocks), self._kv.padding_block)
            for row, segment in enumerate(group):
                used = segment.live.state.blocks[: -(-segment.kv_stop // size)]
                tables[row, : len(used)] = used
            highs = np.concatenate([_kv_positions(segment) for segment in group]) + 1
            made.append(self._group(group, start, blocks * size, tables, highs))
            start = made[-1].stop
        return tuple(made)

    def _group(
        self, group: list[Segment], start: int, kv: int, tables: Index, highs: Index, lows: Index | None = None
    ) -> Group:
        starts, width = _starts(group), max(segment.rows for segment in group)
        last = starts[1:, None] - 1
        places = np.minimum(starts[:-1, None] + np.arange(width), last)
        even = len(group) * width == starts[-1]
        back = [row * width + np.arange(segment.rows) for row, segment in enumerate(group)]
        return Group(
            start=start,
            stop=start + int(starts[-1]),
            sequences=len(group),
            width=width,
            kv=kv,
            causal=width > 1 and lows is None and all(segment.kv_stop == segment.rows for segment in group),
            padded=None if even else self._put(places.reshape(-1)),
            back=None if even else self._put(np.concatenate(back)),
            highs=self._put(highs[places]),
            lows=None if lows is None else self._put(lows[places]),
            tables=self._put(tables),
        )

    def _soft(self, ordered: list[Segment], starts: Index) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Media rows among the step's rows, and their embeddings."""
        rows, values = list[Index](), list[NDArray[np.float32]]()
        for segment, at in zip(ordered, starts, strict=False):
            for span in segment.live.input.spans:
                first, end = max(span.offset, segment.start), min(span.offset + span.length, segment.stop)
                if first < end:
                    rows.append(np.arange(first, end) - segment.start + at)
                    values.append(segment.live.input.embeddings[span.part][first - span.offset : end - span.offset])
        if not rows:
            return None, None
        return self._put(np.concatenate(rows)), self._put(np.concatenate(values)).to(self._dtype)

    def _across(self, ordered: list[Segment], starts: Index) -> Across | None:
        at = dict(zip((id(segment) for segment in ordered), starts.tolist(), strict=False))
        groups = by_shape([segment for segment in ordered if segment.crossing], lambda segment: segment.crossing_rows)
        members = [segment for group in groups for segment in group]
        if not members:
            return None
        feeds = np.concatenate([_tokens(segment) >= _crossing(segment).first for segment in members])
        return Across(
            rows=self._put(np.concatenate([at[id(segment)] + np.arange(segment.rows) for segment in members])),
            groups=self._attending_across(groups),
            feeds=self._put(feeds[:, None]).to(self._dtype),
            new=self._new_media([segment for segment in members if segment.live.state.media is not None]),
        )

    def _new_media(self, segments: list[Segment]) -> tuple[torch.Tensor, torch.Tensor] | None:
        if not segments:
            return None
        media = torch.cat([_media(segment) for segment in segments]).to(self._device, self._dtype)
        return media, self._put(np.concatenate([_crossing(segment).places for segment in segments], axis=1))

    def _attending_across(self, groups: list[list[Segment]]) -> tuple[Group, ...]:
        made, start = list[Group](), 0
        for group in groups:
            kv = max(segment.crossing_rows for segment in group)
            # Shorter ones repeat their first row, which the mask hides.
            tables = np.stack(
                [
                    np.pad(_crossing(segment).places, ((0, 0), (0, kv - segment.crossing_rows)), "wrap")
                    for segment in group
                ],
                axis=1,
            )
            seen = np.concatenate([_seen(segment) for segment in group])
            made.append(self._group(group, start, kv, tables, seen[:, 1], seen[:, 0]))
            start = made[-1].stop
        return tuple(made)

    def _places(self, segment: Segment) -> Places:
        return self._kv.places(segment.live.state.blocks, segment.kv_stop - segment.rows, segment.kv_stop)

    def _put(self, values: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)


def by_shape(segments: Sequence[Segment], kv: Callable[[Segment], int]) -> list[list[Segment]]:
    """Segments that may attend together: their new rows and their KV differ by less than a factor of four each."""
    found: dict[tuple[int, int], list[Segment]] = {}
    for segment in segments:
        kv_class = max(0, kv(segment) - 1).bit_length() if kv(segment) > _SMALL_KV_TOKENS else 0
        shape = (segment.rows - 1).bit_length(), kv_class
        found.setdefault((-(-shape[0] // _SHAPE_RATIO_BITS), -(-shape[1] // _SHAPE_RATIO_BITS)), []).append(segment)
    return list(found.values())


def _starts(segments: Sequence[Segment]) -> Index:
    """Where each segment's rows start, and where the last one's end."""
    return np.cumsum([0, *(segment.rows for segment in segments)])


def _tokens(segment: Segment) -> Index:
    return np.arange(segment.start, segment.stop)


def _kv_positions(segment: Segment) -> Index:
    return np.arange(segment.kv_stop - segment.rows, segment.kv_stop)


def _positions(segment: Segment) -> Positions:
    """Rope positions: the prompt's as the family lays them out, then one further for each output token."""
    state, prompt = segment.live.state, segment.live.input.prompt_len
    first_output = max(segment.start, prompt) - prompt
    output = np.arange(first_output, segment.stop - prompt) + state.next_position
    laid_out = state.prompt_positions[:, segment.start : segment.stop]
    return np.concatenate([laid_out, np.broadcast_to(output, (len(laid_out), len(output)))], axis=1)


def _crossing(segment: Segment) -> Crossing:
    assert segment.crossing is not None
    return segment.crossing


def _media(segment: Segment) -> torch.Tensor:
    assert segment.live.state.media is not None
    return segment.live.state.media


def _seen(segment: Segment) -> Index:
    """[rows, 2]; output tokens see what the prompt's last token sees."""
    seen = _crossing(segment).seen
    return seen[np.minimum(_tokens(segment), len(seen) - 1)]
