"""Where a request stands among those that wait at a worker, and who of them is prefilled after whom.

At a worker with a stage of its own for encoding, a request without media passes those that are still encoded. An engine
with one queue takes its head, encodes it and prefills it: there it waits for them (`together` of a scenario's [queue]).
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass

from headrace.core.cost import StepWork
from headrace.core.stages.places import Waiting, place
from headrace.sim.asked import Asked
from headrace.sim.held import Held
from headrace.sim.kind import Kind


@dataclass(frozen=True, slots=True)
class Places:
    """At one worker. target_s: of a request's row, from its acceptance to its first token."""

    kind: Kind
    together: bool
    target_s: Callable[[int], float]

    def to_encode(self, asked: Asked) -> float:
        """Of each of its parts: where they are at several workers, it takes no longer than one."""
        work_s = encode_s(self.kind, asked)
        if self.together:
            work_s += prefill_s(self.kind, asked)
            return self._place(asked, work_s, work_s)
        return self._place(asked, work_s / max(1, len(asked.parts)), work_s)

    def to_prefill(self, asked: Asked) -> float:
        if self.together and asked.parts and self.kind.encodes:
            return self.to_encode(asked)  # where it has stood since it came
        work_s = prefill_s(self.kind, asked)
        return self._place(asked, work_s, work_s)

    def _place(self, asked: Asked, alone_s: float, work_s: float) -> float:
        request = asked.request
        due_s = request.accepted_s + self.target_s(asked.row)
        return place(self.kind.line, Waiting(request.id, asked.row, due_s, alone_s, work_s))


def encode_s(kind: Kind, asked: Asked) -> float:
    """Of all its parts, one after the other."""
    cost = kind.encode
    return sum([cost.preprocess_s(part.pixels) + cost.tiles_s(part.tiles) for part in asked.parts])


def prefill_s(kind: Kind, asked: Asked) -> float:
    """Of its whole prompt, with nobody else in the batch."""
    tokens, rows = len(asked.request.prompt.tokens), asked.cross_rows
    return kind.step.step_s(StepWork(tokens, tokens * (tokens + 1) // 2, cross_tokens=rows, cross_pairs=tokens * rows))


class Turns:
    """One queue for encoding and prefill: nobody is prefilled before who stands before it and is still encoded here."""

    def __init__(self, let_in: Callable[[Held], None]) -> None:
        self._let_in = let_in
        self._encoding: dict[str, float] = {}  # request id -> its place
        self._ready: list[tuple[float, int, Held]] = []

    def encodes(self, request_id: str, place: float) -> None:
        self._encoding[request_id] = place

    def ready(self, held: Held, place: float) -> None:
        """Its media are here, or it has none."""
        self._encoding.pop(held.key.request_id, None)
        insort(self._ready, (place, held.asked.row, held), key=lambda entry: entry[:2])
        self._go_on()

    def left(self, request_id: str) -> None:
        """It is not to be prefilled here any more, or has been."""
        if self._encoding.pop(request_id, None) is not None:
            self._go_on()

    def _go_on(self) -> None:
        first = min(self._encoding.values(), default=float("inf"))
        while self._ready and self._ready[0][0] <= first:
            self._let_in(self._ready.pop(0)[2])
