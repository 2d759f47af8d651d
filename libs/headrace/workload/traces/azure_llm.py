"""Azure LLM inference traces of 2023 (Splitwise) and 2024 (DynamoLLM): CSV, gzipped or not.

TIMESTAMP,ContextTokens,GeneratedTokens; a row is one request of text (Azure/AzurePublicDataset, CC-BY).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.workload.arrival import Arrival
from headrace.workload.traces.base import Clock, Place, Tally, answer, csv_rows, opened, whole

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class AzureLlm:
    """An empty prompt is an error, or skipped with `skip_bad`; an empty answer becomes 1 token and is told."""

    skip_bad: bool = False

    def read(self, path: Path, tally: Tally) -> Iterator[Arrival]:
        place, clock = Place(path, tally, self.skip_bad), Clock("TIMESTAMP")

        def parse(cells: list[str]) -> Arrival:
            at_s = clock.seconds(cells[0])
            prompt, output = whole(cells[1], "ContextTokens", least=1), whole(cells[2], "GeneratedTokens")
            return Arrival(at_s, prompt, answer(output, tally))

        with opened(path) as text:
            yield from place.requests(csv_rows(place, text, COLUMNS), parse)
