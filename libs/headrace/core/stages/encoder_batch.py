"""What an encoder takes into its next batch, each content once: for live encoders and simulated ones."""

from bisect import insort
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from headrace.core.stages.content import Content


class Waiting(Protocol):
    @property
    def modality(self) -> str: ...


P = TypeVar("P", bound=Waiting)
BATCH_SHARE = 4


def batch_of(waiting: int, most: int) -> int:
    """How many to take at once: a quarter of what waits.

    Towers take about as long for a part in a batch as alone (ModServe, arXiv 2502.00937, insight 2), and prefill can
    begin on a request's first parts. Whoever has a backlog takes full batches.
    """
    return min(most, -(-waiting // BATCH_SHARE))


class Encoding(Generic[P]):
    """One content on its way through the tower, and all parts that wait for its embedding, in order of their coming."""

    __slots__ = ("content", "modality", "parts", "place")

    def __init__(self, part: P, content: Content | None, place: float = 0.0) -> None:
        self.place = place  # in line, where that is not the order of coming
        self.content = content  # None: nobody else's
        self.modality = part.modality
        self.parts = [part]


class EncodeLine(Generic[P]):
    """In order of arrival. A part whose content waits or is being encoded already joins it, and takes no turn."""

    def __init__(self, wanted: Callable[[P], bool], place: Callable[[P], float] | None = None) -> None:
        """wanted: whether anybody still waits for a part. place: smaller goes first, instead of who came first."""
        self._wanted = wanted
        self._place = place
        self._waiting: deque[Encoding[P]] = deque()
        self._open: dict[Content, Encoding[P]] = {}  # waiting, or in the tower
        self.parts = 0  # of all these

    def __len__(self) -> int:
        """Encodings that wait."""
        return len(self._waiting)

    def add(self, part: P, content: Content | None) -> None:
        """content: None for one that must be computed for this part alone."""
        self.parts += 1
        known = self._open.get(content) if content is not None else None
        if known is not None:
            known.parts.append(part)
            return
        if self._place is None:
            encoding = Encoding(part, content)
            self._waiting.append(encoding)
        else:
            encoding = Encoding(part, content, self._place(part))
            insort(self._waiting, encoding, key=_place_of)
        if content is not None:
            self._open[content] = encoding

    def next(self, limit: int) -> list[Encoding[P]]:
        """The head and what follows of the same modality, at most `limit`; what nobody wants any more is dropped.

        Each goes back through `end` when it has been encoded, or has failed: until then others may join it.
        """
        batch: list[Encoding[P]] = []
        while self._waiting and len(batch) < limit:
            head = self._waiting[0]
            if not self.prune(head):
                self._waiting.popleft()
                self.end(head)
                continue
            if batch and head.modality != batch[0].modality:
                break
            batch.append(self._waiting.popleft())
        return batch

    def prune(self, encoding: Encoding[P]) -> list[P]:
        """Its parts that are still wanted."""
        before = len(encoding.parts)
        encoding.parts = [part for part in encoding.parts if self._wanted(part)]
        self.parts -= before - len(encoding.parts)
        return encoding.parts

    def end(self, encoding: Encoding[P]) -> list[P]:
        """Nobody joins it any more. Returns the parts that still want what came of it."""
        if encoding.content is not None:
            del self._open[encoding.content]
        wanted = self.prune(encoding)
        self.parts -= len(wanted)
        return wanted


def _place_of(encoding: Encoding[P]) -> float:
    return encoding.place
