"""What the governor said last, and until when that holds."""

from dataclasses import dataclass, field

from headrace.core.governing import Governance


@dataclass(slots=True)
class GovernorBook:
    word: tuple[int, int] = (-1, -1)  # epoch and sequence of the newest
    until_s: float | None = None  # None: nothing holds
    said: dict[str, Governance] = field(default_factory=dict)  # by worker, also of those that are not there
    moves: dict[str, int] = field(default_factory=dict)  # by stage: instances that would better serve there
    risky: bool = False  # some worker is to be spared

    def of(self, worker: str) -> Governance:
        return self.said.get(worker) or Governance(worker)
