"""First come, first served: by the journal's order, so a retry or a restart loses no place."""

from dataclasses import dataclass

from headrace.core.types import Request


@dataclass(frozen=True, slots=True)
class Fcfs:
    name: str = "fcfs"

    def key(self, request: Request, seq: int, ready_s: float, ttft_s: float) -> float:
        return float(seq)
