"""BurstGPT (HPMLL/BurstGPT, arXiv 2401.17644): Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type.

Seconds from midnight of the first day; release 2 adds Session ID and Elapsed time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace.workload.arrival import Arrival
from headrace.workload.traces.base import Clock, Place, Tally, answer, csv_rows, opened, whole

COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type")
SPARE = ("Session ID",)


@dataclass(frozen=True, slots=True)
class BurstGpt:
    """The model's name is kept (shape.rename_models gives it the mesh's); a session's id becomes the tenant.

    In the files "with fails" a failed request has 0 response tokens, and many 0 request tokens too. `failures`: "keep"
    counts its answer as 1 token, "skip" leaves it out; both tell. A row with 0 request tokens that is not left out as a
    failure is an error, or skipped with `skip_bad`. Times begin at the first row, unless `from_midnight`.
    """

    failures: Literal["keep", "skip"] = "skip"
    from_midnight: bool = False
    skip_bad: bool = False

    def read(self, path: Path, tally: Tally) -> Iterator[Arrival]:
        place, clock = Place(path, tally, self.skip_bad), Clock("Timestamp")
        if self.from_midnight:
            clock.seconds("0")

        def parse(cells: list[str]) -> Arrival | None:
            at_s, model = clock.seconds(cells[0]), cells[1]
            output = whole(cells[3], "Response tokens")
            if not output and self.failures == "skip":
                tally.skipped["failed request: 0 response tokens"] += 1
                return None
            prompt = whole(cells[2], "Request tokens", least=1)
            return Arrival(at_s, prompt, answer(output, tally), model=model, tenant=cells[5])

        with opened(path) as text:
            yield from place.requests(csv_rows(place, text, COLUMNS, SPARE), parse)
