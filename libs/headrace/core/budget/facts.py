"""What a budget game is made of: its players, what their work is worth to them, and what the row may draw.

A player's utility is private to it: a table of the share of its work that is done well, by load and by watts.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headrace.core.budget.loads import Chain
from headrace.core.errors import InvalidInput

Floats = NDArray[np.float64]
Together = Literal["least", "mean"]
PENALTY = 0.9  # of their scaled watts is left to all, when they ask for more than there is
PLAYERS_MAX, LEVELS_MAX = 8, 16


@dataclass(frozen=True, slots=True)
class Utility:
    """[load][watts]: the share of its work that is done well; between the points it is linear, outside constant."""

    loads: tuple[float, ...]
    watts: tuple[float, ...]  # beside the player's own watts at full speed
    done: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        assert len(self.done) == len(self.loads) >= 1
        assert all(len(row) == len(self.watts) >= 1 for row in self.done)
        assert list(self.loads) == sorted(self.loads)
        assert list(self.watts) == sorted(self.watts)

    def of(self, load: Floats, watts: Floats) -> Floats:
        """Arrays that broadcast together; bilinear."""
        table = np.array(self.done, dtype=np.float64)
        row, below = _between(np.array(self.loads), load)
        column, left = _between(np.array(self.watts), watts)
        down, across = np.minimum(row + 1, table.shape[0] - 1), np.minimum(column + 1, table.shape[1] - 1)
        top = (1.0 - left) * table[row, column] + left * table[row, across]
        bottom = (1.0 - left) * table[down, column] + left * table[down, across]
        found: Floats = (1.0 - below) * top + below * bottom
        return found


def _between(points: Floats, values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The point below each value, and how far it is on the way to the next."""
    at = np.clip(np.searchsorted(points, values, side="right") - 1, 0, max(len(points) - 2, 0)).astype(np.int64)
    width = points[np.minimum(at + 1, len(points) - 1)] - points[at]
    share = np.where(width > 0.0, (np.asarray(values) - points[at]) / np.where(width > 0.0, width, 1.0), 0.0)
    return at, np.clip(share, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Player:
    name: str  # of a stage (encode, prefill, decode), or workers' ids with * and ?
    weight: float  # its watts at full speed beside those of all players
    chain: Chain
    utility: Utility


@dataclass(frozen=True, slots=True)
class Facts:
    """A budget game. reward = (1 - kappa) own + kappa of all - price x own level, mapped to [0, 1]."""

    players: tuple[Player, ...]
    levels: tuple[float, ...]  # watts that a player may ask for, beside its own at full speed; low to high
    headroom: tuple[float, ...]  # the row's limit beside all players' watts at full speed, a class each; low to high
    headroom_next_p: tuple[tuple[float, ...], ...]
    kappa: float = 0.5  # of the reward: what all do together
    price: float = 0.1  # of a level of 1
    together: Together = "least"  # stages serve what the narrowest serves; tenants each their own
    horizon: int = 4  # epochs that a player looks ahead
    carry: bool = True  # what was not done comes again in the next epoch

    def __post_init__(self) -> None:
        _check("players", 2 <= len(self.players) <= PLAYERS_MAX, f"from 2 to {PLAYERS_MAX}")
        _check("levels", 1 <= len(self.levels) <= LEVELS_MAX, f"from 1 to {LEVELS_MAX} of them")
        _check("levels", all(0.0 < level <= 1.0 for level in self.levels), "above 0 and at most 1")
        _check("levels", list(self.levels) == sorted(set(self.levels)), "low to high")
        _check("headroom", 1 <= len(self.headroom) <= 4, "from 1 to 4 classes")
        _check("headroom", list(self.headroom) == sorted(set(self.headroom)) and self.headroom[0] > 0.0, "low to high")
        _check("kappa", 0.0 <= self.kappa <= 1.0, "from 0 to 1")
        _check("price", 0.0 <= self.price <= 10.0, "from 0 to 10")
        _check("horizon", 1 <= self.horizon <= 32, "from 1 to 32")
        rows = self.headroom_next_p
        square = len(rows) == len(self.headroom) and all(len(row) == len(rows) for row in rows)
        _check("headroom_next_p", square and all(abs(sum(row) - 1.0) < 1e-6 for row in rows), "rows of probabilities")
        weights = [player.weight for player in self.players]
        _check("weights", min(weights) > 0.0 and abs(sum(weights) - 1.0) < 1e-6, "above 0, 1 together")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(player.name for player in self.players)

    @property
    def weights(self) -> Floats:
        return np.array([player.weight for player in self.players], dtype=np.float64)

    @property
    def shape(self) -> tuple[int, ...]:
        """Classes of headroom, then of each player's load: a state is one of each."""
        return (len(self.headroom), *(player.chain.classes for player in self.players))

    @property
    def states(self) -> int:
        return int(np.prod(self.shape))

    def state(self, headroom: int, classes: tuple[int, ...]) -> int:
        return int(np.ravel_multi_index((headroom, *classes), self.shape))

    def split(self, state: int) -> tuple[int, ...]:
        """The classes of headroom and of each player's load."""
        return tuple(int(each) for each in np.unravel_index(state, self.shape))


def _check(field: str, holds: bool, must: str) -> None:
    if not holds:
        raise InvalidInput(f"budget game: {field} must be {must}", field=field)


def scaled(asked_w: Floats, limit_w: Floats | float) -> Floats:
    """[..., player] watts that players get who ask for so many: all of them if the limit allows it, else all are scaled
    down to the limit, and lose a tenth."""
    whole = asked_w.sum(axis=-1, keepdims=True)
    limit = np.asarray(limit_w, np.float64)[..., None]
    over = whole > limit * (1.0 + 1e-12)
    found: Floats = asked_w * np.where(over, PENALTY * limit / np.maximum(whole, 1e-12), 1.0)
    return found
