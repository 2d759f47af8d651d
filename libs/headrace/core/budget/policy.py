"""A policy that players publish: the certified table of a budget game, its game, and the seed that all draw from.

Every player works its watts out alone, from the policy, the time and the state that all see: nobody is asked. What
comes out is a wish; whoever sets caps keeps the row's limit whatever the policy says.
"""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from headrace.core.budget.facts import Facts, Floats, Player, Utility, scaled
from headrace.core.budget.loads import Chain
from headrace.core.errors import HeadraceError, InvalidInput
from headrace.core.games.published import Published

FORMAT = b"HRBG1\n"
BYTES_MAX = 16 << 20
DIGEST_BYTES = 16
WEIGHTS_OFF = 0.1  # [I] that a player's share of a row's watts may differ from what the policy was learnt for
LIMIT_OFF = 0.02  # [I] that a row's limit may be below the policy's lowest class


class BadPolicy(InvalidInput):
    """It is not what it should be; the message says in which way."""


@dataclass(frozen=True, slots=True)
class Policy:
    facts: Facts
    published: Published
    seed: int
    epoch_s: float  # of Unix time
    version: str = ""  # a name of its content, of whoever published it

    def __post_init__(self) -> None:
        facts, shape = self.facts, self.published.table.shape
        wanted = (facts.horizon, len(facts.players), facts.states, len(facts.levels))
        if (shape[0], *shape[2:]) != wanted:
            raise BadPolicy(f"policy: a table {shape} for a game of (steps, players, states, levels) {wanted}")
        if not (math.isfinite(self.epoch_s) and 1.0 <= self.epoch_s <= 3600.0):
            raise BadPolicy(f"policy: epochs of {self.epoch_s!r} s, must be from 1 to 3600")

    @property
    def gap(self) -> float:
        """As published: the most that a player gains by leaving, in shares of its work over a horizon."""
        return self.published.gap * (1.0 + self.facts.price)

    def epoch(self, unix_s: float) -> int:
        return int(unix_s // self.epoch_s)

    def levels(self, state: int, epoch: int) -> Floats:
        """[player] of all players, as each of them works them out: shares of their own watts at full speed."""
        episode, step = divmod(epoch, self.facts.horizon)
        chosen = [
            self.published.action(player, step, state, self.seed, episode) for player in range(len(self.facts.players))
        ]
        found: Floats = np.array(self.facts.levels, dtype=np.float64)[chosen]
        return found

    def watts(self, state: int, epoch: int, full_w: Floats, limit_w: float) -> Floats:
        """[player] watts; full_w: of each at full speed. They add up to the limit at most."""
        return scaled(self.levels(state, epoch) * full_w, limit_w)

    def headroom(self, limit_share: float) -> int:
        """The class of a row's limit beside all players' watts at full speed: the highest that it reaches."""
        reached = np.searchsorted(np.array(self.facts.headroom), limit_share + 1e-9, side="right") - 1
        return max(0, int(reached))

    def misfit(self, full_w: Floats, limit_w: float) -> str:
        """Why the policy is of another row; empty: it fits. full_w: [player] in the policy's order."""
        whole = float(full_w.sum())
        if whole <= 0.0 or (full_w <= 0.0).any():
            missing = [name for name, watts in zip(self.facts.names, full_w, strict=True) if watts <= 0.0]
            return f"no devices of {', '.join(missing) or 'any player'}"
        for player, watts in zip(self.facts.players, full_w, strict=True):
            if abs(watts / whole - player.weight) > WEIGHTS_OFF:
                return f"{player.name} has {watts / whole:.0%} of the watts, {player.weight:.0%} in the policy"
        if limit_w < (self.facts.headroom[0] - LIMIT_OFF) * whole:
            return f"its limit is {limit_w / whole:.0%} of full speed, the policy's lowest {self.facts.headroom[0]:.0%}"
        return ""

    def to_bytes(self) -> bytes:
        head = {"facts": asdict(self.facts), "seed": self.seed, "epoch_s": self.epoch_s}
        packed, table = json.dumps(head).encode(), self.published.to_bytes()
        body = FORMAT + struct.pack("<II", len(packed), len(table)) + packed + table
        return body + blake2b(body, digest_size=DIGEST_BYTES).digest()

    @staticmethod
    def from_bytes(data: bytes) -> "Policy":
        """Raises BadPolicy, whatever the bytes are."""
        start = len(FORMAT) + 8
        if len(data) > BYTES_MAX:
            raise BadPolicy(f"policy: {len(data)} bytes, {BYTES_MAX} are allowed")
        if len(data) < start + DIGEST_BYTES or not data.startswith(FORMAT):
            raise BadPolicy("policy: not a file of a budget policy")
        body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if blake2b(body, digest_size=DIGEST_BYTES).digest() != digest:
            raise BadPolicy("policy: its bytes are damaged")
        packed, table = struct.unpack_from("<II", body, len(FORMAT))
        if start + packed + table != len(body):
            raise BadPolicy("policy: its parts do not fit their lengths")
        try:
            head = json.loads(body[start : start + packed])
            published = Published.from_bytes(body[start + packed :])
            policy = Policy(_facts(head["facts"]), published, int(head["seed"]), float(head["epoch_s"]))
        except BadPolicy:
            raise
        except HeadraceError as error:
            raise BadPolicy(f"policy: {error.message}") from error
        except (ValueError, TypeError, KeyError, AssertionError, UnicodeDecodeError) as error:
            raise BadPolicy(f"policy: {error!r}") from error
        return replace(policy, version=digest.hex()[:12])


def _facts(told: dict[str, Any]) -> Facts:
    told = dict(told)
    told["players"] = tuple(_player(one) for one in told["players"])
    told["levels"], told["headroom"] = _numbers(told["levels"]), _numbers(told["headroom"])
    told["headroom_next_p"] = _rows(told["headroom_next_p"])
    return Facts(**told)


def _player(told: dict[str, Any]) -> Player:
    chain, utility = told["chain"], told["utility"]
    return Player(
        str(told["name"]),
        float(told["weight"]),
        Chain(_numbers(chain["edges"]), _numbers(chain["loads"]), _rows(chain["next_p"])),
        Utility(_numbers(utility["loads"]), _numbers(utility["watts"]), _rows(utility["done"])),
    )


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if not all(math.isfinite(value) for value in found):
        raise BadPolicy("policy: a number that is none")
    return found


def _rows(rows: Sequence[Sequence[Any]]) -> tuple[tuple[float, ...], ...]:
    return tuple(_numbers(row) for row in rows)
