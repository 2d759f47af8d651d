"""Measured requests of two vLLM runs, read from a JSON lines file, on one clock that begins with the first arrival."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FILE = "llmservingsim_vllm_measured_requests.jsonl.gz"
_FIELDS = (
    "run",
    "input_toks",
    "output_toks",
    "arrival_time",
    "queued_ts",
    "scheduled_ts",
    "first_token_ts",
    "last_token_ts",
)


class MeasuredError(ValueError):
    """A file of measured requests that cannot be used: which line and field, and what is expected there."""


@dataclass(frozen=True, slots=True)
class Times:
    """What a run did with its requests, measured or simulated: seconds, one row a request, in order of arrival."""

    ttft_s: Floats
    tbt_s: Floats  # mean over the request's gaps
    jct_s: Floats
    end_s: Floats  # since the first arrival

    def part(self, rows: slice) -> "Times":
        return Times(self.ttft_s[rows], self.tbt_s[rows], self.jct_s[rows], self.end_s[rows])


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """Requests in order of arrival; seconds since the first arrival."""

    name: str
    arrival_s: Floats
    scheduled_s: Floats  # the engine first took it up
    first_token_s: Floats
    end_s: Floats
    input_tokens: Ints
    output_tokens: Ints

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def times(self) -> Times:
        gaps = np.maximum(self.output_tokens - 1, 1)
        return Times(
            ttft_s=self.first_token_s - self.arrival_s,
            tbt_s=(self.end_s - self.first_token_s) / gaps,
            jct_s=self.end_s - self.arrival_s,
            end_s=self.end_s,
        )

    @property
    def halves(self) -> tuple[slice, slice]:
        """Rows of the first and of the second half, by arrival."""
        half = len(self) // 2
        return slice(0, half), slice(half, len(self))

    @property
    def concurrent(self) -> int:
        """The most requests between their scheduling and their end at one time."""
        marks = np.concatenate([self.scheduled_s, self.end_s])
        steps = np.repeat([1, -1], len(self))
        return int(np.cumsum(steps[np.lexsort((steps, marks))]).max())

    def first(self, requests: int) -> "MeasuredRun":
        """The run's first requests alone: what they measured still holds the others' presence."""
        return MeasuredRun(
            self.name,
            self.arrival_s[:requests],
            self.scheduled_s[:requests],
            self.first_token_s[:requests],
            self.end_s[:requests],
            self.input_tokens[:requests],
            self.output_tokens[:requests],
        )


def find() -> Path:
    """Beside the checkout, where the project keeps data that it may not carry."""
    return Path(__file__).parents[2].parent / "shared" / "data" / FILE


def load(path: Path) -> dict[str, MeasuredRun]:
    """By the run's name.

    Raises:
        MeasuredError: no file, not the form of it, or times that run backwards.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = _row(line, path, number)
                rows.setdefault(row["run"], []).append(row)
    except OSError as error:
        raise MeasuredError(f"{path}: cannot be read: {error.strerror or error}; give another by --data") from error
    return {name: measured(name, of) for name, of in rows.items()}


def _row(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise MeasuredError(f"{path}, line {number}: is not JSON: {error}") from error
    if not isinstance(row, dict) or (missing := [field for field in _FIELDS if field not in row]):
        name = missing[0] if isinstance(row, dict) else _FIELDS[0]
        raise MeasuredError(f"{path}, line {number}, field {name}: is missing")
    return row


def measured(name: str, rows: list[dict[str, Any]]) -> MeasuredRun:
    """Clients stamp arrivals by the wall clock, the engine all else by a monotonic one.

    The two are aligned by the request that waited least between client and engine, so that what an arrival waits for
    an engine in the middle of an iteration counts as waiting.
    """
    rows = sorted(rows, key=lambda row: float(row["arrival_time"]))
    column = {field: np.array([row[field] for row in rows], np.float64) for field in _FIELDS[1:]}
    apart_s = float((column["queued_ts"] - column["arrival_time"]).min())
    start_s = float(column["arrival_time"].min()) + apart_s
    run = MeasuredRun(
        name=name,
        arrival_s=column["arrival_time"] + apart_s - start_s,
        scheduled_s=column["scheduled_ts"] - start_s,
        first_token_s=column["first_token_ts"] - start_s,
        end_s=column["last_token_ts"] - start_s,
        input_tokens=column["input_toks"].astype(np.int64),
        output_tokens=column["output_toks"].astype(np.int64),
    )
    ordered = (run.arrival_s - 1e-6 <= run.scheduled_s) & (run.scheduled_s <= run.first_token_s)
    ordered &= (run.first_token_s <= run.end_s) & (run.input_tokens >= 1) & (run.output_tokens >= 1)
    if not ordered.all():
        raise MeasuredError(
            f"run {name}, request {int(np.flatnonzero(~ordered)[0])}: times run backwards, or no tokens"
        )
    return run
