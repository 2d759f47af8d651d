"""What every order offers the waiting line."""

from typing import Protocol

from headrace.core.types import Request


class Order(Protocol):
    """Pure: the key depends on the arguments alone."""

    @property
    def name(self) -> str: ...

    def key(self, request: Request, seq: int, ready_s: float, ttft_s: float) -> float:
        """Sort key of a request with journal sequence `seq` that became ready at `ready_s`; ties go by readiness.

        ttft_s: its class's target for the first token, from acceptance on.
        """
        ...
