"""What any player could gain by leaving the published policy, at the loads that are measured: a measure of incentives.

It says nothing of a player that lies about what its work is worth to it. Loads and how they follow one another are
learnt on top of what the policy was made with; utilities are the policy's own.
"""

from dataclasses import dataclass, replace

import numpy as np

from headrace.core.budget.building import game, reward_of
from headrace.core.budget.facts import Facts, Floats
from headrace.core.budget.loads import Chain, posterior
from headrace.core.budget.policy import Policy
from headrace.core.games.gaps import best_response_gain
from headrace.core.games.published import exact

KEEP = 0.95  # of a class's mean load, from epoch to epoch


@dataclass(frozen=True, slots=True)
class Gains:
    """In shares of work done well over a whole horizon, worst state: [player], and the most of all."""

    by_player: tuple[float, ...]

    @property
    def gap(self) -> float:
        return max(self.by_player)


def gains(policy: Policy, facts: Facts) -> Gains:
    """Of the policy's table in the game of these facts, exactly."""
    found = best_response_gain(game(facts), exact(policy.published.table))
    return Gains(tuple(float(value) for value in reward_of(facts, np.maximum(found, 0.0))))


class Monitor:
    """Follows one row's loads, an epoch at a time."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._loads = [np.array(player.chain.loads) for player in policy.facts.players]
        self._counts = [np.zeros((player.chain.classes,) * 2) for player in policy.facts.players]
        self._before: tuple[int, ...] = ()

    def see(self, loads: Floats) -> None:
        """[player] of the epoch that is over."""
        chains = [player.chain for player in self._policy.facts.players]
        classes = tuple(int(chain.of(load)) for chain, load in zip(chains, loads, strict=True))
        for at, (now, load) in enumerate(zip(classes, loads, strict=True)):
            own = self._loads[at]
            own[now] = KEEP * own[now] + (1.0 - KEEP) * load
            if self._before:
                self._counts[at][self._before[at], now] += 1.0
        self._before = classes

    def facts(self) -> Facts:
        """The policy's game at the loads of now."""
        facts = self._policy.facts
        players = []
        for player, loads, counts in zip(facts.players, self._loads, self._counts, strict=True):
            rows = posterior(counts, np.array(player.chain.next_p))
            chain = Chain(player.chain.edges, tuple(loads.tolist()), tuple(tuple(row) for row in rows.tolist()))
            players.append(replace(player, chain=chain))
        return replace(facts, players=tuple(players))

    def gains(self) -> Gains:
        return gains(self._policy, self.facts())
