"""What a run is remembered by: one row a request in flat columns, gaps between tokens, samples of pools and queues."""

import math
from array import array
from typing import Any

import numpy as np

from headrace.sim.result import REASONS, Histogram, Requests

_LEAST_S = 1e-5
_RATIO = 1.02  # a bin is two hundredths wide: percentiles are good to a hundredth
_BINS = math.ceil(math.log(1e5 / _LEAST_S) / math.log(_RATIO))
_LOG_RATIO = math.log(_RATIO)
_NAN = math.nan
_RUNNING = len(REASONS) - 1


class Gaps:
    """Times between two tokens, counted in logarithmic bins."""

    def __init__(self) -> None:
        self._counts = [0] * _BINS

    def count(self, gap_s: float, times: int = 1) -> None:
        at = int(math.log(gap_s / _LEAST_S) / _LOG_RATIO) if gap_s > _LEAST_S else 0
        self._counts[min(at, _BINS - 1)] += times

    def histogram(self) -> Histogram:
        counts = np.array(self._counts, np.int64)
        used = int(counts.nonzero()[0].max()) + 1 if counts.any() else 1
        edges = np.asarray(_LEAST_S * _RATIO ** np.arange(used + 1), np.float64)
        edges[0] = 0.0
        return Histogram(edges, counts[:used])


class Ledger:
    """Rows are numbered in order of arrival; seconds count from the run's beginning."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self.gaps = Gaps()
        self.open = 0  # arrived and not ended
        self.counters: dict[str, float] = {}
        self._seconds = {name: array("d") for name in ("arrival", "ready", "dispatch", "first_token", "end", "target")}
        self._numbers = {
            name: array("q")
            for name in (
                "input_tokens",
                "media_tokens",
                "media_parts",
                "output_tokens",
                "slo_class",
                "reason",
                "attempts",
            )
        }

        self._append_seconds = [column.append for column in self._seconds.values()]
        self._append_numbers = [column.append for column in self._numbers.values()]

    def __len__(self) -> int:
        return len(self._seconds["arrival"])

    def arrive(
        self, now_s: float, input_tokens: int, media_tokens: int, media_parts: int, slo_class: int, target_s: float
    ) -> int:
        """target_s: for its first token, from now on."""
        row = len(self)
        values = (now_s - self._start_s, _NAN, _NAN, _NAN, _NAN, target_s)
        for append, value in zip(self._append_seconds, values, strict=True):
            append(value)
        counts = (input_tokens, media_tokens, media_parts, 0, slo_class, _RUNNING, 0)
        for append_count, count in zip(self._append_numbers, counts, strict=True):
            append_count(count)
        self.open += 1
        return row

    def dispatched(self, row: int, ready_s: float, now_s: float) -> None:
        """ready_s: since when its inputs were complete."""
        if math.isnan(self._seconds["ready"][row]):
            self._seconds["ready"][row] = ready_s - self._start_s
        self._seconds["dispatch"][row] = now_s - self._start_s
        self._numbers["attempts"][row] += 1

    def first_token(self, row: int, at_s: float) -> None:
        if math.isnan(self._seconds["first_token"][row]):
            self._seconds["first_token"][row] = at_s - self._start_s

    def end(self, row: int, at_s: float, reason: str, output_tokens: int) -> None:
        assert self._numbers["reason"][row] == _RUNNING, f"request {row} ends twice"
        self._seconds["end"][row] = at_s - self._start_s
        self._numbers["reason"][row] = REASONS.index(reason)
        self._numbers["output_tokens"][row] = output_tokens
        self.open -= 1

    def target_s(self, row: int) -> float:
        """For its first token, from its arrival on."""
        return self._seconds["target"][row]

    def waited_s(self, row: int, now_s: float) -> float:
        """Since its arrival."""
        return now_s - self._start_s - self._seconds["arrival"][row]

    def count(self, what: str, amount: float = 1.0) -> None:
        self.counters[what] = self.counters.get(what, 0.0) + amount

    def last_end_s(self) -> float:
        """0 when nothing ended."""
        ends = np.frombuffer(self._seconds["end"], np.float64) if len(self) else np.zeros(0)
        return float(np.nanmax(ends)) if (~np.isnan(ends)).any() else 0.0

    def requests(self) -> Requests:
        columns: dict[str, Any] = {f"{name}_s": np.array(column) for name, column in self._seconds.items()}
        columns |= {name: np.array(column) for name, column in self._numbers.items()}
        return Requests(**columns)
