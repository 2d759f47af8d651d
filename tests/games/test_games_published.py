"""What players are sent: played alike everywhere, its gap that of the table, and nothing else accepted as one."""

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import InvalidInput
from headrace.core.games import LEARNERS, Published, best_response_gain, cce_gap, publish
from headrace.core.games.drawing import share
from headrace.core.games.published import exact
from loadtest.reproduce.oftrl_games import cyclic_game, random_game

GAME = cyclic_game(1)
LEARNT = LEARNERS["stage_oftrl"](GAME, 300, 0.5)
POLICY = publish(LEARNT, GAME, 24, np.random.default_rng(4))
_ELSEWHERE = """
import sys
from headrace.core.games import Published
policy = Published.from_bytes(sys.stdin.buffer.read())
print([(policy.index(11, e, h), policy.action(i, h, s, 11, e))
       for e in range(20) for h in range(2) for i in range(2) for s in range(2)])
"""


def _played() -> list[tuple[int, int]]:
    places = [(e, h, i, s) for e in range(20) for h in range(2) for i in range(2) for s in range(2)]
    return [(POLICY.index(11, e, h), POLICY.action(i, h, s, 11, e)) for e, h, i, s in places]


def test_shape_and_size() -> None:
    assert POLICY.table.shape == (2, 24, 2, 2, 3)
    assert len(POLICY.to_bytes()) < 4 * POLICY.table.size + 200


def test_two_machines_play_alike() -> None:
    """Another process with other string hashes, from bytes alone."""
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _ELSEWHERE]
    done = subprocess.run(
        command, input=POLICY.to_bytes(), capture_output=True, env=environment, timeout=30, check=True
    )
    assert done.stdout.decode().strip() == str(_played())


def test_shares_are_the_same_for_ever() -> None:
    """Pinned: players of two versions must agree."""
    assert share("index", 1, 2, 3) == pytest.approx(0.3237395980704193, abs=1e-15)
    assert share("action", -5, 10**12, 0, 1) == pytest.approx(0.6644729261443727, abs=1e-15)


def test_mean_of_many_draws_is_the_table() -> None:
    epochs = 6000
    indices = np.array([[POLICY.index(3, epoch, step) for step in range(2)] for epoch in range(epochs)])
    assert np.abs(np.bincount(indices[:, 0], minlength=24) / epochs - 1 / 24).max() < 0.01
    assert abs(np.corrcoef(indices.T)[0, 1]) < 0.05  # steps are independent
    actions = np.bincount([POLICY.action(0, 1, 1, 3, epoch) for epoch in range(epochs)], minlength=3) / epochs
    assert np.abs(actions - POLICY.table[1, :, 0, 1].mean(0)).max() < 0.02


def test_the_shared_index_correlates_and_the_rest_is_private() -> None:
    """In one epoch players share the index but not the draw from their own distribution."""
    even = Published(np.full((1, 1, 2, 1, 2), 0.5, np.float32), 0.0)
    drawn = np.array([[even.action(player, 0, 0, 1, epoch) for player in range(2)] for epoch in range(2000)])
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.06


def test_gap_is_that_of_the_table_as_it_is() -> None:
    assert POLICY.gap == max(0.0, best_response_gain(GAME, exact(POLICY.table)).max())
    whole = publish(LEARNT, GAME, 500, np.random.default_rng(1))
    assert whole.gap == pytest.approx(cce_gap(GAME, LEARNT), abs=2e-3)


def test_stages_are_played_backwards() -> None:
    """Step 0 from the last finished stage, step 1 from the one before."""
    for step in range(2):
        start, end = LEARNT.chain.span(step)  # type: ignore[attr-defined]
        plays = LEARNT.plays[start:end, :, step].astype(np.float32)
        assert all((plays == row).all((1, 2, 3)).any() for row in POLICY.table[step])


def test_more_samples_than_plays_repeat_them_evenly() -> None:
    game = random_game(2, horizon=1)
    learnt = LEARNERS["hedge_current"](game, 5, 0.5)
    policy = publish(learnt, game, 15, np.random.default_rng(0))
    assert policy.gap == pytest.approx(cce_gap(game, learnt), abs=1e-6)


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 5),
    seed=st.integers(0, 2**32),
    gap=st.floats(0, 9),
)
def test_bytes_there_and_back(shape: tuple[int, ...], seed: int, gap: float) -> None:
    table = np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1]).astype(np.float32)
    again = Published.from_bytes(Published(table, gap).to_bytes())
    assert (again.table == table).all()
    assert again.gap == gap


_GOOD = POLICY.to_bytes()
_HEAD = len(_GOOD) - len(zlib.compress(POLICY.table.tobytes()))
SPOILT = {
    "empty": b"",
    "short": _GOOD[:20],
    "another magic": b"x" + _GOOD[1:],
    "another version": _GOOD[:16] + b"\x09" + _GOOD[17:],
    "no steps": _GOOD[:20] + bytes(4) + _GOOD[24:],
    "a huge shape": _GOOD[:20] + b"\xff" * 20 + _GOOD[40:],
    "another shape": _GOOD[:20] + b"\x01" + _GOOD[21:],
    "cut off": _GOOD[:-10],
    "no compression": _GOOD[:_HEAD] + b"abc",
    "a bomb": _GOOD[:_HEAD] + zlib.compress(bytes(10**7)),
    "rows of nothing": _GOOD[:_HEAD] + zlib.compress(bytes(4 * POLICY.table.size)),
    "rows of infinity": _GOOD[:_HEAD] + zlib.compress(b"\x00\x00\x80\x7f" * POLICY.table.size),
    "no gap": _GOOD[: _HEAD - 8] + b"\xff" * 8 + _GOOD[_HEAD:],
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_anything_else_is_refused(spoilt: bytes) -> None:
    with pytest.raises(InvalidInput):
        Published.from_bytes(spoilt)


@given(data=st.binary(max_size=200), at=st.integers(0, 400), bit=st.integers(0, 7))
def test_no_bytes_do_more_than_be_refused(data: bytes, at: int, bit: int) -> None:
    """Random ones, and good ones with a bit turned over."""
    turned = bytearray(_GOOD)
    turned[at % len(turned)] ^= 1 << bit
    for tried in (data, bytes(turned)):
        try:
            policy = Published.from_bytes(tried)
        except InvalidInput:
            continue
        assert np.abs(policy.table.sum(-1) - 1.0).max() < 0.01
