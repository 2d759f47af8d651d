"""The certified policy of a learning run: correlated play whose gap is known, executed by each player on its own from
a shared seed. It holds all plays; what is sent to players is `published.Published`.
"""

from dataclasses import dataclass

import numpy as np

from headrace.core.games.drawing import action_share, index_share
from headrace.core.games.game import Floats
from headrace.core.games.learnt import Learnt


@dataclass(frozen=True, slots=True)
class Certified:
    learnt: Learnt

    def indices(self, seed: int, epoch: int) -> tuple[int, ...]:
        """Of a game's steps: the iteration that each plays. Every player works out the same."""
        found: list[int] = []
        for step in range(self.learnt.plays.shape[2]):
            before = found[-1] if found else 0
            found.append(self.learnt.chain.draw(step, before, index_share(seed, epoch, step)))
        return tuple(found)

    def distribution(self, player: int, step: int, state: int, index: int) -> Floats:
        found: Floats = self.learnt.plays[index, player, step, state]
        return found

    def action(self, player: int, step: int, state: int, seed: int, epoch: int) -> int:
        index = self.indices(seed, epoch)[step]
        return pick(self.distribution(player, step, state, index), action_share(seed, epoch, step, player))


def pick(distribution: Floats, share: float) -> int:
    """The action at a share of the distribution's mass; never one of probability 0."""
    upto = np.cumsum(distribution)
    found = int(np.searchsorted(upto, share * upto[-1], side="right"))
    return min(found, int(np.flatnonzero(distribution)[-1]))
