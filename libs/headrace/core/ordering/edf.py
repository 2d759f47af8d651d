"""Earliest deadline first: by when the first token is due (Liu and Layland, JACM 1973, for one machine)."""

from dataclasses import dataclass

from headrace.core.ordering.base import Standing


@dataclass(frozen=True, slots=True)
class Edf:
    name: str = "edf"
    needs_lengths: bool = False

    def key(self, standing: Standing) -> float:
        return standing.request.accepted_s + standing.ttft_s
