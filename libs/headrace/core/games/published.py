"""What players are sent: a small table of profiles with the gap of just that table, and how they play it from a shared
seed without asking anybody.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import InvalidInput
from headrace.core.games.certified import pick
from headrace.core.games.drawing import action_share, index_share
from headrace.core.games.game import Floats, Game, normalised
from headrace.core.games.gaps import cce_gap_of_table
from headrace.core.games.learnt import Learnt

CELLS_MOST = 2**22  # of a table: 16 MiB
_MAGIC, _VERSION = b"headrace-policy\0", 1
_HEAD = struct.Struct("<16sI5Id")  # magic, version, shape, gap
_SUM_ERROR = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """table (H, M, N, S, width): at each step all players draw the same index in [0, M) from (seed, epoch, step),
    evenly and independently of other steps; player i in state s then plays table[step, index, i, s] with a draw of its
    own. gap: the most that any player would win by leaving before it knows the index, in rewards of a whole game.

    Whoever holds the seed can work out the index, and everybody's draws: the gap is of players that execute it blindly.
    """

    table: NDArray[np.float32]
    gap: float

    def __post_init__(self) -> None:
        problem = _problem(self.table, self.gap)
        if problem:
            raise InvalidInput(f"published policy: {problem}", field="policy")

    def index(self, seed: int, epoch: int, step: int) -> int:
        return int(index_share(seed, epoch, step) * self.table.shape[1])

    def distribution(self, player: int, step: int, state: int, index: int) -> Floats:
        """(width,): 0 for actions that the player does not have."""
        return exact(self.table[step, index, player, state])

    def action(self, player: int, step: int, state: int, seed: int, epoch: int) -> int:
        mixed = self.distribution(player, step, state, self.index(seed, epoch, step))
        return pick(mixed, action_share(seed, epoch, step, player))

    def to_bytes(self) -> bytes:
        head = _HEAD.pack(_MAGIC, _VERSION, *self.table.shape, self.gap)
        return head + zlib.compress(self.table.astype("<f4").tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Published":
        """Raises InvalidInput for anything that is not a published policy of this version and within bounds."""
        if len(data) < _HEAD.size:
            raise InvalidInput(f"published policy: {len(data)} bytes are too few", field="policy")
        magic, version, *shape, gap = _HEAD.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise InvalidInput(f"published policy: neither magic nor version {_VERSION}", field="policy")
        cells = int(np.prod(shape, dtype=object))
        if not 0 < cells <= CELLS_MOST:
            raise InvalidInput(f"published policy: a table of {cells} cells, at most {CELLS_MOST}", field="policy")
        flat = np.frombuffer(_unpacked(data[_HEAD.size :], 4 * cells), "<f4").astype(np.float32)
        return cls(flat.reshape(shape), gap)


def publish(learnt: Learnt, game: Game, samples: int, rng: np.random.Generator) -> Published:
    """A table of `samples` plays a step, spread evenly over what the certified policy would play there (of a smooth
    chain: over all indices that may have come before, so that steps are independent). The gap is worked out of the
    table as it is, so few samples show.
    """
    drawn = [_spread(learnt.chain.weights(step), samples, rng) for step in range(game.horizon)]
    table = np.stack([learnt.plays[rows, :, step] for step, rows in enumerate(drawn)]).astype(np.float32)
    return Published(table, cce_gap_of_table(game, exact(table)))


def exact(table: NDArray[np.float32]) -> Floats:
    """Distributions in double precision that sum to one: what is played and what the gap is of."""
    return normalised(table.astype(np.float64))


def _spread(weights: Floats, samples: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Systematic sampling: an iteration of weight w comes floor or ceil of w x samples times."""
    upto = np.cumsum(weights)
    places = (np.arange(samples) + rng.random()) / samples * upto[-1]
    found: NDArray[np.intp] = np.searchsorted(upto, places, side="right")
    return np.minimum(found, int(np.flatnonzero(weights)[-1]))


def _unpacked(packed: bytes, size: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise InvalidInput(f"published policy: {error}", field="policy") from error
    if len(found) != size or not unpacker.eof:
        raise InvalidInput(f"published policy: not the {size} bytes that its shape needs", field="policy")
    return found


def _problem(table: NDArray[np.float32], gap: float) -> str:
    if table.dtype != np.float32 or table.ndim != 5 or not 0 < table.size <= CELLS_MOST:
        return f"a table of shape {table.shape}, {table.dtype}"
    if not np.isfinite(table).all() or table.min() < 0.0 or np.abs(table.sum(-1) - 1.0).max() > _SUM_ERROR:
        return "rows that are no distributions"
    return "" if np.isfinite(gap) and gap > -_SUM_ERROR else f"a gap of {gap}"
