"""A published budget policy as a splitter: each pool or tenant has the watts that it works out for itself, and shares
them among its devices as a row shares its own.

Where the policy is of another row, has been suspended, or there is none, the row is split equally and the log says why.
"""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from headrace.core.budget.facts import Floats, scaled
from headrace.core.budget.policy import Policy
from headrace.core.power.decision import Entry
from headrace.core.power.fleet import STAGES, Mask, Numbers
from headrace.core.power.sharing import Ladder, climb_down
from headrace.core.power.splitting import Ruled, equally


def player_of(policy: Policy, worker: str, stages: tuple[str, ...]) -> int:
    """The first player that the worker belongs to: of the only stage that it has, or by its id. -1: nobody's."""
    for at, name in enumerate(policy.facts.names):
        if (stages == (name,)) if name in STAGES else fnmatchcase(worker, name):
            return at
    return -1


@dataclass(frozen=True, slots=True)
class Played:
    """What holds in a row for one epoch; [player]."""

    epoch: int
    state: int
    levels: Floats
    loads: Floats
    full_w: Floats
    limit_w: float

    @property
    def watts(self) -> Floats:
        return scaled(self.levels * self.full_w, self.limit_w)


@dataclass(slots=True)
class PlayedSplit:
    """problem: why there is no policy at all. Rows that are suspended, with the reason, are watched all the same."""

    policy: Policy | None
    problem: str = ""
    suspended: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Played] = field(default_factory=dict)  # that the policy fits
    equal: dict[str, str] = field(default_factory=dict)  # that are split equally, and why
    _told: list[Entry] = field(default_factory=list)
    _said: dict[str, str] = field(default_factory=dict)

    def told(self) -> list[Entry]:
        entries, self._told = self._told, []
        return entries

    def ceilings(self, ruled: Ruled, ladder: Ladder) -> Floats:
        fleet = ruled.fleet
        player = self._players(ruled)
        found = np.full(len(fleet.keys), np.inf)
        self._forget({fleet.rows[int(row)].name for row in np.unique(fleet.row[ruled.bound])})
        plain = np.zeros(len(fleet.keys), dtype=np.bool_)
        for row in np.unique(fleet.row[ruled.bound]):
            here, name = fleet.row == row, fleet.rows[int(row)].name
            why = self._look(ruled, int(row), here, player) or self.suspended.get(name, "")
            self._say(name, why)
            if why:
                plain |= here
            else:
                self._give(self.rows[name], ruled, here & ruled.capped, player, ladder, found)
        even = equally(ruled, ruled.capped & plain & ~fleet.opaque)
        return np.where(plain, even, found)

    def _forget(self, limited: set[str]) -> None:
        """Rows that have no limit any more."""
        for name in (self.rows.keys() | self.equal.keys()) - limited:
            self.rows.pop(name, None)
            self.equal.pop(name, None)
            self._said.pop(name, None)

    def _players(self, ruled: Ruled) -> Numbers:
        """[device]: whose it is; -1: nobody's."""
        fleet, policy = ruled.fleet, self.policy
        if policy is None:
            return np.full(len(fleet.keys), -1, dtype=np.int64)
        of = np.array([player_of(policy, one.name, one.stages) for one in fleet.members], dtype=np.int64)
        found: Numbers = of[fleet.worker] if len(fleet.keys) else of
        return found

    def _look(self, ruled: Ruled, row: int, here: Mask, player: Numbers) -> str:
        """Why the policy cannot be played there; else what holds for the epoch is in `rows`."""
        name = ruled.fleet.rows[row].name
        why = self.problem or self._misfit(ruled, row, here, player)
        if why:
            self.rows.pop(name, None)
        else:
            self._begin(ruled, row, here, player)
        return why

    def _say(self, name: str, why: str) -> None:
        if why:
            self.equal[name] = why
        else:
            self.equal.pop(name, None)
        version = self.policy.version if self.policy is not None else ""
        said = f"equal split: {why}" if why else f"shares by the published policy {version}"
        if self._said.get(name) != said:
            self._said[name] = said
            self._told.append(Entry("policy", name, said))

    def _misfit(self, ruled: Ruled, row: int, here: Mask, player: Numbers) -> str:
        policy, fleet = self.policy, ruled.fleet
        if policy is None:
            return "there is no policy"
        strangers = here & ruled.capped & ~fleet.opaque & (player < 0)
        if strangers.any():
            return f"{fleet.keys[int(np.flatnonzero(strangers)[0])]} is no player's"
        ours = here & ruled.capped & (player >= 0)
        return policy.misfit(_full(ruled, ours, player, policy), float(ruled.left_w(ours)[row]))

    def _begin(self, ruled: Ruled, row: int, here: Mask, player: Numbers) -> None:
        """A new epoch takes the state that is seen then; within one only the limit moves."""
        policy, fleet = self.policy, ruled.fleet
        assert policy is not None
        ours = here & ruled.capped & (player >= 0)
        full, limit_w = _full(ruled, ours, player, policy), float(ruled.left_w(ours)[row])
        epoch, name = policy.epoch(ruled.unix_s), fleet.rows[row].name
        before = self.rows.get(name)
        if before is not None and before.epoch == epoch:
            self.rows[name] = Played(epoch, before.state, before.levels, before.loads, full, limit_w)
            return
        work = np.where(ours, ruled.need * fleet.most_w * fleet.gpus, 0.0)
        loads = np.bincount(player[ours], work[ours], len(full)) / np.maximum(full, 1e-9)
        state = state_of(policy, loads, limit_w / float(full.sum()))
        self.rows[name] = Played(epoch, state, policy.levels(state, epoch), loads, full, limit_w)

    @staticmethod
    def _give(played: Played, ruled: Ruled, who: Mask, player: Numbers, ladder: Ladder, found: Floats) -> None:
        for at, watts in enumerate(played.watts):
            own = np.flatnonzero(who & (player == at))
            found[own], _ = climb_down(ladder, own, ruled.fleet.gpus[own], float(watts))


def _full(ruled: Ruled, ours: Mask, player: Numbers, policy: Policy) -> Floats:
    """[player]: watts of all its devices at full speed."""
    watts = ruled.fleet.most_w * ruled.fleet.gpus
    found: Floats = np.bincount(player[ours], watts[ours], len(policy.facts.players)).astype(np.float64)
    return found


def state_of(policy: Policy, loads: Floats, limit_share: float) -> int:
    """loads: [player]; limit_share: of the row's limit, beside all players' watts at full speed."""
    chains = [player.chain for player in policy.facts.players]
    classes = tuple(int(chain.of(load)) for chain, load in zip(chains, loads, strict=True))
    return policy.facts.state(policy.headroom(limit_share), classes)
