"""What every order offers a waiting line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from headrace.core.lengths.prediction import Prediction
from headrace.core.types import Request


@dataclass(frozen=True, slots=True)
class Standing:
    """A waiting request as an order sees it."""

    request: Request
    seq: int  # of the journal
    ready_s: float  # since when it waits
    ttft_s: float  # its class's target for the first token, from acceptance on
    length: Callable[[], Prediction]  # of what is left of its output; asked only by those who need it


class Order(Protocol):
    """Pure: the key depends on the standing alone. It is asked for when a request joins a line, and again when the
    prediction of its length changes."""

    @property
    def name(self) -> str: ...

    @property
    def needs_lengths(self) -> bool: ...

    def key(self, standing: Standing) -> float:
        """Smaller goes first; ties go by readiness."""
        ...
