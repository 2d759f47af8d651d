"""Speeds of simulated workers that change in time, as under power caps, and the governor's word of them to the core.

With the coupling on the queue manager hears the same event as in a live mesh, at once and then each second; with it off
workers slow down and nobody says so.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from headrace.core.events import Governed
from headrace.core.governing import FULL, Governance, Speeds
from headrace.core.power.governor import LEASE_S
from headrace.sim.world import START_S, World

WORD_S = 1.0  # between two words, as live


@dataclass(frozen=True, slots=True)
class SpeedChange:
    """From then on; what was said before of that worker holds no more."""

    at_s: float  # from the beginning of the scenario
    governance: Governance  # of a worker such as "llm-3", or of all of a pool: "llm"


class Governor:
    def __init__(self, world: World, changes: Iterable[SpeedChange] = (), *, coupled: bool = True) -> None:
        """changes: in order of time; they are read as time passes."""
        self._world = world
        self._coupled = coupled
        self._changes = groupby(changes, key=lambda change: change.at_s)
        self._said: dict[str, Governance] = {}  # by worker or pool
        self._words = 0
        world.speeds_of = self._speeds_of

    def start(self) -> None:
        self._next(self._changes)

    def _next(self, changes: Iterator[tuple[float, Iterator[SpeedChange]]]) -> None:
        found = next(changes, None)
        if found is not None:
            at_s, together = found
            said = [change.governance for change in together]
            self._world.agenda.at(max(START_S + at_s, self._world.now_s), self._changed, said, changes)

    def _changed(self, said: list[Governance], changes: Iterator[tuple[float, Iterator[SpeedChange]]]) -> None:
        self.change(said)
        self._next(changes)

    def change(self, said: Sequence[Governance]) -> None:
        """All of it at this moment."""
        first = not self._said
        for each in said:
            if "-" not in each.worker:
                self._said = {name: old for name, old in self._said.items() if name.partition("-")[0] != each.worker}
            self._said[each.worker] = each
        for worker in self._world.workers.values():
            if worker.alive and (speeds := self._speeds_of(worker.id)) != worker.speeds:
                worker.run_at(speeds)
        if first and self._coupled:
            self._world.agenda.after(WORD_S, self._say_again)
        self._say()

    def cap(self, name: str, speeds: Speeds) -> None:
        """A worker, or all of a pool."""
        self.change([Governance(name, speeds=speeds)])

    def _of(self, worker_id: str) -> Governance:
        own = self._said.get(worker_id) or self._said.get(worker_id.partition("-")[0])
        return replace(own, worker=worker_id) if own is not None else Governance(worker_id)

    def _speeds_of(self, worker_id: str) -> Speeds:
        return self._of(worker_id).speeds if self._said else FULL

    def _say_again(self) -> None:
        self._say()
        self._world.agenda.after(WORD_S, self._say_again)

    def _say(self) -> None:
        if self._coupled:
            self._words += 1
            said = tuple([self._of(worker_id) for worker_id in self._world.workers])
            self._world.send(Governed("sim", 1, self._words, LEASE_S, said))
