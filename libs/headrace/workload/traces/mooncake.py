"""Mooncake's traces (kvcache-ai/Mooncake, FAST '25): JSON lines with timestamp, input_length, output_length, hash_ids.

Milliseconds; each id stands for 512 tokens of the prompt together with everything before them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace.workload.arrival import Arrival
from headrace.workload.traces.base import Place, Tally, answer, opened
from headrace.workload.traces.lines import count, ids, json_rows, parsed, seconds


@dataclass(frozen=True, slots=True)
class Mooncake:
    """hash_ids become the Arrival's blocks; lines may lack them. An empty prompt is an error, or skipped with
    `skip_bad`; an empty answer becomes 1 token and is told.

    Qwen-Bailian's anonymous usage traces have the same fields with timestamps in seconds and blocks of 16 tokens:
    `unit` "s".
    """

    unit: Literal["ms", "s"] = "ms"
    skip_bad: bool = False

    def read(self, path: Path, tally: Tally) -> Iterator[Arrival]:
        place, unit_s = Place(path, tally, self.skip_bad), 0.001 if self.unit == "ms" else 1.0

        def parse(line: str) -> Arrival:
            raw = parsed(line)
            at_s = seconds(raw, "timestamp") * unit_s
            prompt, output = count(raw, "input_length", least=1), count(raw, "output_length")
            return Arrival(at_s, prompt, answer(output, tally), blocks=ids(raw, "hash_ids"))

        with opened(path) as text:
            yield from place.requests(json_rows(place, text), parse)
