"""Roles: which of the workers that can both prefill and decode are sent prompts, which are sent sequences to decode.

Pure: loads in, a role for each worker out. Where the role of one changes it costs nothing but what it ends first, since
both stages live in its process: it is sent nothing new of the one stage and everything of the other, at once. EPD (ICML
2025) and ElasticMM change roles so [A]; the rule and its constants are ours.

Prompts that a worker prefills hold up what it decodes. So nobody does both while whole workers suffice; then one does,
the hinge, which takes sequences up to a share of its room, for prompts need the rest to enter. That everybody does both
is what roles are the alternative to (roles = fixed): `headrace pools` says which costs less.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["both", "prefill", "decode"]

# All [I]; docs/figures.md, "Roles", has what came of others.
HOLD_S = 2.0  # that a change has been wanted before it is made
REST_S = 8.0  # that a worker keeps a role at least
COMFORT = 0.6  # of a stage's workers taken: below, nobody is short
FULL = 0.85  # so loaded, a stage is short: more workers are to do both
BETTER = 0.95  # times the load of the more loaded stage: as much as a change has to gain
DECODE_SHARE = 0.9  # of its room, that the hinge decodes with
LEAST_TIME = 0.01  # of the hinge's, that prompts leave
NEW_S = -math.inf  # since when a worker has its role that was given none yet


@dataclass(frozen=True, slots=True)
class Member:
    """A worker whose role may change, and what it would have to end of its present one."""

    id: str
    role: Role
    since_s: float = NEW_S
    prefill_tokens: int = 0  # of prompts that it has not prefilled
    decoding: int = 0  # sequences


@dataclass(frozen=True, slots=True)
class Split:
    """So many workers of each role."""

    prefill: int
    both: int
    decode: int


@dataclass(frozen=True, slots=True)
class Sight:
    """All that serves one model. Loads are in workers: as many as would be busy, those that wait among them."""

    members: Sequence[Member]
    prefill_load: float
    decode_load: float
    other_prefills: int = 0  # workers that do this alone, whatever comes
    other_decodes: int = 0
    hint: int = 0  # of the governor: positive, workers would better prefill than decode; negative, the other way

    @property
    def now(self) -> Split:
        roles = [member.role for member in self.members if member.since_s != NEW_S]
        return Split(roles.count("prefill"), roles.count("both"), roles.count("decode"))

    def load(self, split: Split) -> float:
        """Of a worker of the more loaded stage; infinite where a stage has none."""
        prefills = self.other_prefills + split.prefill + split.both
        busy = self.prefill_load / prefills if prefills else math.inf
        # The hinge decodes in the time that prompts leave.
        beside = split.both * DECODE_SHARE * max(LEAST_TIME, 1.0 - busy)
        decodes = self.other_decodes + split.decode + beside
        return max(busy, self.decode_load / decodes) if decodes else math.inf

    def splits(self) -> Iterator[Split]:
        count = len(self.members)
        for both in (0, 1):
            for prefill in range(count - both + 1):
                yield Split(prefill, both, count - both - prefill)

    def best(self) -> Split:
        """As few do both as keep the stages from being full; of equals the evenest."""

        def worth(split: Split) -> tuple[float, int, float, int]:
            load = self.load(split)
            return max(load, FULL), split.both, load, abs(split.prefill - split.decode)

        return min(self.splits(), key=worth)


@dataclass(slots=True)
class Elastic:
    """Of one model: remembers since when a change has been wanted."""

    hold_s: float = HOLD_S
    rest_s: float = REST_S
    _since_s: float | None = field(default=None, init=False)

    def choose(self, sight: Sight, now_s: float) -> dict[str, Role]:
        """A role for each member. Who is new gets one at once; of the others one changes at a time."""
        best, now = sight.best(), sight.now
        roles: dict[str, Role] = {member.id: member.role for member in sight.members}
        if any(member.since_s == NEW_S for member in sight.members):
            _give(sight, best, roles)
            return roles
        stuck = math.isinf(sight.load(now))  # a stage has lost its last worker: there is nothing to wait for
        if not self._gains(sight, now, best):
            self._since_s = None
            return roles
        if self._since_s is None:
            self._since_s = now_s
        agreed = sight.hint * (best.prefill - now.prefill) > 0  # what the governor wants too need not be held back
        if stuck or agreed or now_s - self._since_s >= self.hold_s:
            _change(sight, now, best, roles, math.inf if stuck else now_s - self.rest_s)
        return roles

    def _gains(self, sight: Sight, now: Split, best: Split) -> bool:
        load, better = sight.load(now), sight.load(best)
        eased = now.both > best.both and better < BETTER * FULL
        return now != best and (eased or (load > COMFORT and better < BETTER * load))


def _give(sight: Sight, best: Split, roles: dict[str, Role]) -> None:
    """To those that are new, as roles are missing; prefill to those with least to decode."""
    new = [member for member in sight.members if member.since_s == NEW_S]
    missing = _missing(sight.now, best)
    missing["decode"] += len(new) - sum(missing.values())  # of the others too many may have another role
    for member in sorted(new, key=lambda member: (member.decoding, member.id)):
        role = max(missing, key=lambda role: missing[role] > 0)
        missing[role] -= 1
        roles[member.id] = role


def _missing(now: Split, best: Split) -> dict[Role, int]:
    return {
        "prefill": best.prefill - now.prefill,
        "both": best.both - now.both,
        "decode": best.decode - now.decode,
    }


def _change(sight: Sight, now: Split, best: Split, roles: dict[str, Role], since_s: float) -> None:
    """Whoever has least to end of a role that there are too many of, and has had it since then at least."""
    missing = _missing(now, best)
    able = [member for member in sight.members if missing[member.role] < 0 and member.since_s <= since_s]
    if able:
        least = min(able, key=lambda member: (member.decoding, member.prefill_tokens, member.id))
        roles[least.id] = max(missing, key=lambda role: missing[role])
