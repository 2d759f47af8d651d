"""What a scenario puts a live mesh through beside asking it: `headrace load` runs a drill and judges it."""

from dataclasses import dataclass
from typing import Literal

from headrace.workload.tables import Count, NotNegative, Positive, Share


@dataclass(frozen=True, slots=True)
class Drill:
    """The table [drill]. The workload says what is asked, whatever its rate: a drill sets that itself.

    overload: so many times what the mesh can serve is offered, one level after the other, each for the scenario's
    duration_s. abort-storm: a steady load, beside which many requests are asked and left all at once.
    """

    kind: Literal["overload", "abort-storm"]
    grpc_share: Share = 0.1  # of the requests; the others come over HTTP
    saturation_rps: NotNegative = 0.0  # what the mesh can serve; 0: found first, by asking as fast as it answers
    levels: tuple[Positive, ...] = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)  # of overload, times saturation
    retries: int = 0  # of a refused request, each after the Retry-After that it was told
    steady: Share = 0.5  # of an abort storm: the steady load, times saturation
    aborts: Count = 1_000  # ... and how many requests are left at once
    abort_tokens: Count = 200  # ... each of which wants so many tokens
    abort_class: str = "batch-2"  # ... in a class that lets so many wait
    storms: Count = 3

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError("levels: needs at least one")
