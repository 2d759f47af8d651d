"""The budget policy of a live governor: read and checked once, watched while it is played, published for workers.

Whatever is wrong with it ends in an equal split of the row, with its reason in the audit log: no file, damaged bytes, a
row that it was not learnt for, or players that could gain too much by leaving it at the loads of now.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.budget.monitor import Gains, Monitor, gains
from headrace.core.budget.policy import BYTES_MAX, BadPolicy, Policy
from headrace.core.budget.record import Play, RowPlay
from headrace.core.power.decision import Decision
from headrace.core.power.playing import Played, PlayedSplit
from headrace.core.power.splitting import EqualSplit, Splitter
from headrace.mesh.errors import StoreDown
from headrace.mesh.logs import get_logger
from headrace.mesh.store import Store
from services.governor.options import Options

log = get_logger("governor.budget")

MONITOR_S = 30.0  # between two looks at a row's gap; one row a second, each some milliseconds
RESUME = 0.8  # of the gap that is allowed: below it a suspended row plays again
DROP_S = 5.0  # between two tries to take an old policy back


@dataclass(slots=True)
class Watched:
    """One row."""

    monitor: Monitor
    epoch: int = -1
    looked_s: float = float("-inf")
    gains: Gains | None = None


@dataclass(slots=True)
class Budgeting:
    """Times are of the governor's monotonic clock, but for unix_s."""

    store: Store
    name: str  # of the policy: central, equal, game
    gap_most: float
    publishes: bool  # else nobody is told
    played: PlayedSplit | None = None
    watched: dict[str, Watched] = field(default_factory=dict)
    trouble: str = ""
    _packed: bytes = b""
    _published: tuple[object, ...] = ()
    _dropped_s: float | None = float("-inf")  # None: no old policy is left
    _taking_back: bool = False  # what this governor has published itself

    @classmethod
    def of(cls, options: Options, store: Store) -> "Budgeting":
        made = cls(store, options.budget_policy, options.gap_most, options.mode == "enforce")
        if options.budget_policy == "game":
            made.played = _read(options.policy_file)
            made._packed = made.played.policy.to_bytes() if made.played.policy is not None else b""
        return made

    @property
    def splitter(self) -> Splitter | None:
        if self.name == "equal":
            return EqualSplit()
        return self.played

    async def second(self, decision: Decision | None, now_s: float) -> None:
        """After a step."""
        if self._taking_back:
            await self._take_back()
        played = self.played
        if played is None or played.policy is None:
            await self._drop(now_s)
            return
        self._follow(played)
        await self._look(played, now_s)
        if decision is not None:
            await self._publish(played, decision)

    def _follow(self, played: PlayedSplit) -> None:
        """Loads of the epochs that begin."""
        assert played.policy is not None
        for row, now in played.rows.items():
            known = self.watched.setdefault(row, Watched(Monitor(played.policy)))
            if known.epoch != now.epoch:
                known.epoch = now.epoch
                known.monitor.see(now.loads)
        for row in self.watched.keys() - played.rows.keys():
            del self.watched[row]
            played.suspended.pop(row, None)

    async def _look(self, played: PlayedSplit, now_s: float) -> None:
        """At the row that has waited longest."""
        due = min(self.watched.items(), key=lambda one: one[1].looked_s, default=None)
        if due is None or now_s - due[1].looked_s < MONITOR_S:
            return
        row, known = due
        assert played.policy is not None
        known.looked_s = now_s
        known.gains = await asyncio.to_thread(gains, played.policy, known.monitor.facts())
        gap, most = known.gains.gap, self.gap_most * (RESUME if row in played.suspended else 1.0)
        if gap <= most:
            played.suspended.pop(row, None)
        elif row not in played.suspended:
            player = played.policy.facts.names[known.gains.by_player.index(gap)]
            played.suspended[row] = f"{player} would gain {gap:.3f} by leaving the policy, {self.gap_most:g} is allowed"

    # --- for workers that are without a governor ---

    async def _publish(self, played: PlayedSplit, decision: Decision) -> None:
        assert played.policy is not None
        live = {row: now for row, now in played.rows.items() if row not in played.equal}
        key = (tuple((row, now.epoch, now.limit_w) for row, now in live.items()), decision.fleet.members)
        if not self.publishes or key == self._published:
            return
        play = Play(
            played.policy.version, {row: _record(played.policy, now, row, decision) for row, now in live.items()}
        )
        try:
            await self.store.put_policy(self._packed, play.to_bytes())
        except StoreDown as error:
            self.trouble = f"the budget policy is not published: {error.message}"
            return
        self._published, self.trouble = key, ""

    def switch(self, *, publishes: bool) -> None:
        """The governor begins to enforce, or to observe: then nobody is to follow what it has published before."""
        self.publishes, self._taking_back, self._published = publishes, not publishes, ()

    async def _take_back(self) -> None:
        try:
            await self.store.drop_policy()
        except StoreDown as error:
            self.trouble = f"the budget policy is still published: {error.message}"
            return
        self._taking_back, self.trouble = False, ""

    async def _drop(self, now_s: float) -> None:
        """An older governor's policy is over."""
        if not self.publishes or self._dropped_s is None or now_s - self._dropped_s < DROP_S:
            return
        try:
            await self.store.drop_policy()
        except StoreDown as error:
            self._dropped_s, self.trouble = now_s, f"an older budget policy may still be there: {error.message}"
            return
        self._dropped_s, self.trouble = None, ""

    # --- what operators see ---

    def notes(self) -> list[str]:
        found = [] if self.name == "central" else [f"budget policy: {self.name}"]
        if self.played is not None:
            found += [f"{row}: equal split: {why}" for row, why in sorted(self.played.equal.items())]
            found += [self._line(row, now) for row, now in sorted(self.played.rows.items())]
        return found + ([self.trouble] if self.trouble else [])

    def _line(self, row: str, now: Played) -> str:
        assert self.played is not None
        assert self.played.policy is not None
        policy = self.played.policy
        watts = ", ".join(f"{name} {each:.0f} W" for name, each in zip(policy.facts.names, now.watts, strict=True))
        known = self.watched.get(row)
        if known is None or known.gains is None:
            return f"{row}: policy {policy.version}, gap as published {policy.gap:.4f}; {watts}"
        won = zip(policy.facts.names, known.gains.by_player, strict=True)
        by_player = ", ".join(f"{name} {gain:.4f}" for name, gain in won)
        return (
            f"{row}: policy {policy.version}, gap {known.gains.gap:.4f} at the loads of now "
            f"({policy.gap:.4f} as published); gains by leaving: {by_player}; {watts}"
        )


def _read(path: Path | None) -> PlayedSplit:
    """A problem is told, not raised: rows are split equally then."""
    if path is None:
        return PlayedSplit(None, "HEADRACE_BUDGET_POLICY_FILE names no policy")
    try:
        with path.open("rb") as file:
            policy = Policy.from_bytes(file.read(BYTES_MAX + 1))
    except OSError as error:
        why = f"HEADRACE_BUDGET_POLICY_FILE={str(path)!r}: {error.strerror}"
    except BadPolicy as error:
        why = f"HEADRACE_BUDGET_POLICY_FILE={str(path)!r}: {error.message}"
    else:
        log.info("policy_read", version=policy.version, players=policy.facts.names, gap=policy.gap)
        return PlayedSplit(policy)
    log.error("policy_unreadable", why=why)
    return PlayedSplit(None, why)


def _record(policy: Policy, now: Played, row: str, decision: Decision) -> RowPlay:
    fleet = decision.fleet
    at = next(place for place, one in enumerate(fleet.rows) if one.name == row)
    workers = tuple(one.name for one in fleet.members if one.row == at)
    headroom, *classes = policy.facts.split(now.state)
    return RowPlay(workers, headroom, tuple(classes), tuple(now.full_w.tolist()), now.limit_w)
