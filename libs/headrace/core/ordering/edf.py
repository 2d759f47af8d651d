"""Earliest deadline first: by when the first token is due (Liu and Layland, JACM 1973, for one machine)."""

from dataclasses import dataclass

from headrace.core.types import Request


@dataclass(frozen=True, slots=True)
class Edf:
    name: str = "edf"

    def key(self, request: Request, seq: int, ready_s: float, ttft_s: float) -> float:
        return request.accepted_s + ttft_s
