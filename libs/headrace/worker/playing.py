"""What a worker draws while its governor is silent, if a budget policy is published: its own level, never more than its
fallback.

A worker cannot tell a dead governor from one that it does not hear, nor see what limit and loads hold elsewhere: only
below its fallback is the row safe whatever the others do. So the level can save watts here, and not add any.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.control.constants import GPUS
from headrace.core.budget.policy import BadPolicy, Policy
from headrace.core.budget.record import Play, RowPlay
from headrace.core.power.demand import DRAIN_S, SATURATED
from headrace.core.power.law import decode_rate
from headrace.core.power.playing import player_of
from headrace.mesh.errors import StoreDown
from headrace.mesh.logs import get_logger
from headrace.mesh.sensors import DeviceReading
from headrace.mesh.store import Store

log = get_logger("playing")


@dataclass(frozen=True, slots=True)
class Level:
    """Of the worker's own player: watts beside those of full speed, and whose policy says so."""

    share: float
    version: str


def load_of(readings: Sequence[DeviceReading], waiting_s: float, *, decodes: bool) -> float:
    """Work that comes, beside what the worker could do at full speed; 1 where nothing is known."""
    found = 0.0
    for one in readings:
        if one.cap_least_w <= 0.0:
            continue
        kind = GPUS.get(one.kind)
        if one.busy < 0.0 or one.busy >= SATURATED or kind is None:
            return 1.0
        speed = one.speed or 1.0
        found = max(found, one.busy * (float(decode_rate(speed, kind.decode_free_speed)) if decodes else speed))
    return min(1.0, found + waiting_s / DRAIN_S)


def level_of(policy: Policy, row: RowPlay, player: int, load: float, unix_s: float) -> Level:
    """What the player works out alone: others' loads and headroom as they were seen last, its own as it is now.

    Raises BadPolicy: the record is not of this policy.
    """
    facts = policy.facts
    classes = list(row.classes)
    seen = (row.headroom, *classes)
    if len(seen) != len(facts.shape) or len(row.full_w) != len(facts.players) or row.full_w[player] <= 0.0:
        raise BadPolicy("play: it is of another game")
    classes[player] = int(facts.players[player].chain.of(np.array(load)))
    if any(at >= most for at, most in zip((row.headroom, *classes), facts.shape, strict=True)):
        raise BadPolicy("play: a class that the policy has not")
    state = facts.state(row.headroom, tuple(classes))
    full_w = np.array(row.full_w)
    watts = policy.watts(state, policy.epoch(unix_s), full_w, row.limit_w)
    return Level(float(watts[player] / full_w[player]), policy.version)


def under_fallback(level: Level, fallback_w: float, least_w: float, most_w: float) -> float:
    """The cap of a device, 0 where it has no fallback: a row without a limit."""
    return min(fallback_w, max(level.share * most_w, least_w))


class Alone:
    """Reads what was published, and no more often than a level changes."""

    def __init__(
        self, me: str, stages: tuple[str, ...], store: Store, load: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        """clock: Unix time, which all players share."""
        self._me = me
        self._stages = stages
        self._store = store
        self._load = load
        self._clock = clock
        self._policy: Policy | None = None
        self._play: Play | None = None
        self._epoch = -1
        self._why = ""

    async def level(self) -> Level | None:
        """None: nothing is published that it could follow."""
        try:
            found = await self._found()
        except (StoreDown, BadPolicy) as error:
            self._say(error.message)
            return None
        return found

    async def _found(self) -> Level | None:
        now_s = self._clock()
        if self._policy is None or self._policy.epoch(now_s) != self._epoch:
            await self._read(now_s)
        policy, play = self._policy, self._play
        row = play.of(self._me) if play is not None else None
        player = player_of(policy, self._me, self._stages) if policy is not None else -1
        if policy is None or row is None or player < 0:
            self._say("no budget policy is published for it")
            return None
        self._say("")
        return level_of(policy, row, player, self._load(), now_s)

    async def _read(self, now_s: float) -> None:
        told = await self._store.read_play()
        self._play = Play.from_bytes(told) if told is not None else None
        if self._play is None:
            self._policy = None
            return
        if self._policy is None or self._policy.version != self._play.version:
            packed = await self._store.read_policy()
            self._policy = Policy.from_bytes(packed) if packed is not None else None
        if self._policy is not None and self._policy.version != self._play.version:
            self._policy = None
            raise BadPolicy("play: it is of another policy")
        self._epoch = self._policy.epoch(now_s) if self._policy is not None else -1

    def _say(self, why: str) -> None:
        if why != self._why:
            self._why = why
            log.info("policy_not_followed" if why else "policy_followed", why=why)
