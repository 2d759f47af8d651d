"""First come, first served: by the journal's order, so a retry or a restart loses no place."""

from dataclasses import dataclass

from headrace.core.ordering.base import Standing


@dataclass(frozen=True, slots=True)
class Fcfs:
    name: str = "fcfs"
    needs_lengths: bool = False

    def key(self, standing: Standing) -> float:
        return float(standing.seq)
