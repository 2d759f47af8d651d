"""What a replay saw of each request, as the columns and figures of a simulation: the same code computes both."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.client.types import Stage, Usage
from headrace.sim.ledger import Gaps
from headrace.sim.result import OPERATIONS, REASONS, Histogram, Requests, Result
from headrace.workload.scenario import Scenario

LATE_S = 0.1  # a request sent later than this after its time is told of: its TTFT holds the client's own delay


@dataclass(slots=True)
class Row:
    """One request; times are seconds since the replay's beginning, nan: it never came to that."""

    arrival_s: float  # when it was to be sent: all waiting counts from here
    slo_class: str
    media_parts: int
    wanted_tokens: int  # of text in the prompt
    own_target_s: float = 0.0  # for the first token; 0: its class's
    sent_s: float = math.nan
    ready_s: float = math.nan
    dispatch_s: float = math.nan
    first_token_s: float = math.nan
    end_s: float = math.nan
    input_tokens: int = 0  # of text, as the mesh counted
    media_tokens: int = 0
    output_tokens: int = 0
    reason: str = ""  # of headrace.sim.result.REASONS
    failure: str = ""  # a code of headrace.client.errors
    message: str = ""
    gaps_s: list[float] = field(default_factory=list)

    @property
    def late_s(self) -> float:
        return self.sent_s - self.arrival_s

    def take(self, now_s: float, tokens: int) -> None:
        """Tokens have come. Those of one message come at once: the first has the gap, the others none."""
        if not tokens:
            return
        if not self.output_tokens:
            self.first_token_s = now_s
        else:
            self.gaps_s.append(now_s - self.end_s)
        self.gaps_s += [0.0] * (tokens - 1)
        self.output_tokens += tokens
        self.end_s = now_s

    def close(self, now_s: float, reason: str, failure: str = "", message: str = "") -> None:
        self.end_s, self.reason, self.failure, self.message = now_s, reason, failure, message

    def told(self, usage: Usage, timeline: Sequence[Stage], began_s: float) -> None:
        """What the mesh says at the end; began_s is the replay's beginning in the mesh's time, the Unix epoch's."""
        self.media_tokens = usage.image_tokens + usage.audio_tokens + usage.video_tokens
        self.input_tokens = usage.prompt_tokens - self.media_tokens
        encoded = [stage.end_s for stage in timeline if stage.stage == "encode"]
        prefilled = [stage.start_s for stage in timeline if stage.stage == "prefill"]
        self.ready_s = max(encoded) - began_s if encoded else self.sent_s
        self.dispatch_s = max(prefilled) - began_s if prefilled else math.nan


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay's figures, and how well it kept to its clock."""

    result: Result
    rows: tuple[Row, ...]
    in_flight_max: int  # seen

    @property
    def requests(self) -> Requests:
        return self.result.requests

    @property
    def late(self) -> int:
        """Requests sent more than LATE_S after their time."""
        return sum(row.late_s > LATE_S for row in self.rows)

    def summary(self) -> dict[str, Any]:
        """The figures that a simulation prints, but for those that only one knows; and what the client adds."""
        figures = self.result.summary()
        for key in ("sim_requests_per_s", "gpu_hours", "utilisation", *OPERATIONS):
            del figures[key]
        sent = [row.late_s for row in self.rows if not math.isnan(row.sent_s)]
        return figures | {
            "late": self.late,
            "late_max_s": max(sent, default=0.0),
            "in_flight_max": self.in_flight_max,
            "output_tokens": int(self.requests.output_tokens.sum()),
            "failures": dict(Counter(row.failure for row in self.rows if row.failure)),
        }


def replayed(
    scenario: Scenario, rows: Sequence[Row], seed: int, wall_s: float, joules: float, in_flight_max: int
) -> Replayed:
    result = Result(
        scenario=scenario.name,
        policy="live",
        seed=seed,
        classes=scenario.classes,
        requests=requests_of(scenario, rows),
        tbt=histogram(gap for row in rows for gap in row.gaps_s),
        t_s=np.empty(0),
        sample_s=0.0,
        pools=(),
        waiting={},
        duration_s=wall_s,
        wall_s=wall_s,
        gpu_hours=math.nan,
        joules=joules or math.nan,  # a mesh without a governor knows none
    )
    return Replayed(result, tuple(rows), in_flight_max)


def requests_of(scenario: Scenario, rows: Sequence[Row]) -> Requests:
    def floats(name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([getattr(row, name) for row in rows], np.float64)

    def ints(values: Iterable[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.array(list(values), np.int64)

    of_class = {slo.name: slo.ttft_s for slo in scenario.classes}
    return Requests(
        arrival_s=floats("arrival_s"),
        ready_s=floats("ready_s"),
        dispatch_s=floats("dispatch_s"),
        first_token_s=floats("first_token_s"),
        end_s=floats("end_s"),
        input_tokens=ints(row.input_tokens for row in rows),
        media_tokens=ints(row.media_tokens for row in rows),
        media_parts=ints(row.media_parts for row in rows),
        output_tokens=ints(row.output_tokens for row in rows),
        slo_class=ints(scenario.class_index(row.slo_class) for row in rows),
        reason=ints(REASONS.index(row.reason) for row in rows),
        attempts=ints(1 for _ in rows),
        target_s=np.array([row.own_target_s or of_class[row.slo_class] for row in rows], np.float64),
    )


def histogram(gaps_s: Iterable[float]) -> Histogram:
    """In the bins of a simulation."""
    counted = Gaps()
    for gap_s in gaps_s:
        counted.count(gap_s)
    return counted.histogram()


def write(rows: Iterable[Row], path: Path) -> None:
    """One JSON object a line; a time that never was is null."""
    path.write_text("".join(json.dumps(line) + "\n" for line in _plain(rows)))


def _plain(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        facts = asdict(row)
        del facts["gaps_s"]
        yield {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in facts.items()}
