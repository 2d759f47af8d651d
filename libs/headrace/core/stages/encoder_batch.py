"""Which media parts an encoder takes into its next batch: for live encoders and simulated ones."""

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar


class Waiting(Protocol):
    @property
    def modality(self) -> str: ...


P = TypeVar("P", bound=Waiting)


def next_parts(waiting: deque[P], wanted: Callable[[P], bool], limit: int) -> list[P]:
    """The head and what follows of the same modality, at most `limit`; those nobody wants any more are dropped."""
    batch: list[P] = []
    while waiting and len(batch) < limit:
        if not wanted(waiting[0]):
            waiting.popleft()
            continue
        if batch and waiting[0].modality != batch[0].modality:
            break
        batch.append(waiting.popleft())
    return batch
