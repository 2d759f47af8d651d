"""The budget game: how loads are estimated, what its tables say, what every player works out alone, what bytes are."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.budget.building import cells, game, reward_of, tables
from headrace.core.budget.facts import Facts, Player, Utility, scaled
from headrace.core.budget.learning import learn
from headrace.core.budget.loads import PSEUDO, Chain, estimate
from headrace.core.budget.monitor import Monitor, gains
from headrace.core.budget.policy import BadPolicy, Policy
from headrace.core.budget.record import Play, RowPlay
from headrace.core.errors import InvalidInput
from headrace.core.games.gaps import best_response_gain
from headrace.core.games.published import exact
from tests.power.played import anything, facts, policy

ONE = Chain((), (1.0,), ((1.0,),))


def two_players(need: float, **more: object) -> Facts:
    """Each has work that is done with `need` of its watts, and not at all with less; one state."""
    step = Utility((1.0,), (need - 1e-6, need), ((0.0, 1.0),))
    players = (Player("a-*", 0.5, ONE, step), Player("b-*", 0.5, ONE, step))
    known = {"headroom": (0.75,), "headroom_next_p": ((1.0,),), "kappa": 0.0, "price": 0.0, "carry": False}
    return Facts(players, (0.5, 1.0), **(known | more))  # type: ignore[arg-type]


def test_transitions_are_counts_with_a_prior_that_counts_as_four() -> None:
    chain = estimate(np.array([0.1, 0.2, 0.9, 0.8, 0.1, 0.2, 0.9, 0.8]), 2)
    assert chain.edges == pytest.approx((0.5,))
    assert chain.loads == pytest.approx((0.15, 0.85))
    low = (2 + PSEUDO * 0.5) / (4 + PSEUDO)
    assert chain.next_p[0] == pytest.approx((low, 1 - low)), "twice it stayed low, twice it rose"
    high = (1 + PSEUDO * 0.5) / (3 + PSEUDO)
    assert chain.next_p[1] == pytest.approx((high, 1 - high)), "once it fell, twice it stayed high"


@pytest.mark.parametrize("loads", [[0.5], [0.5, float("nan")], [0.5, -0.1]])
def test_a_load_that_cannot_be_learnt_from_is_refused(loads: list[float]) -> None:
    with pytest.raises(InvalidInput):
        estimate(np.array(loads), 2)


def test_a_constant_load_is_one_class_that_stays() -> None:
    chain = estimate(np.full(50, 0.7), 3)
    assert chain.loads == pytest.approx((0.7, 0.7, 0.7))
    stays = (49 + PSEUDO * 51 / 53) / (49 + PSEUDO)
    assert chain.next_p[2] == pytest.approx(((1 - stays) / 2, (1 - stays) / 2, stays))


def test_those_who_ask_for_too_much_are_scaled_and_lose_a_tenth() -> None:
    assert scaled(np.array([300.0, 400.0]), 700.0) == pytest.approx([300.0, 400.0])
    assert scaled(np.array([700.0, 700.0]), 700.0) == pytest.approx([315.0, 315.0])


def test_rewards_by_hand() -> None:
    """Levels 0.5 and 1 of half the watts each, a limit of 0.75: only both at 1 is too much, 0.675 is left to each."""
    rewards, following = tables(two_players(0.6))
    assert rewards[0, 0].tolist() == [[0.0, 0.0], [1.0, 1.0]], "of a, by what a asks for: 1 is enough, however b asks"
    assert rewards[1, 0].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert following.tolist() == [[[[1.0], [1.0]], [[1.0], [1.0]]]]
    dear, _ = tables(two_players(0.6, price=0.5))
    assert dear[0, 0] == pytest.approx(np.array([[0.25, 0.25], [1.0, 1.0]]) / 1.5)
    shared, _ = tables(two_players(0.6, kappa=1.0))
    assert shared[0, 0].tolist() == [[0.0, 0.0], [0.0, 1.0]], "the narrowest of both"


def test_what_is_not_done_comes_again() -> None:
    """Half of a load of 1 is done at 0.5: with the next 0.4 that is 0.9, the high class."""
    chain = Chain((0.7,), (0.4, 1.0), ((1.0, 0.0), (1.0, 0.0)))
    half = Utility((0.4, 1.0), (0.5, 1.0), ((1.0, 1.0), (0.5, 1.0)))
    players = (Player("a", 0.5, chain, half), Player("b", 0.5, chain, half))
    made = Facts(players, (0.5, 1.0), (1.0,), ((1.0,),))
    _, following = tables(made)
    both_high, low = made.state(0, (1, 1)), made.state(0, (0, 0))
    assert following[both_high, 0, 0, both_high] == 1.0
    assert following[both_high, 1, 1, low] == 1.0
    _, without = tables(replace(made, carry=False))
    assert without[both_high, 0, 0, low] == 1.0


def test_a_game_that_would_not_fit_into_memory_is_refused() -> None:
    """The tables grow as levels ^ players."""
    four = replace(facts(), players=tuple(replace(one, weight=1 / 6) for one in facts().players * 2))
    assert cells(four) > 100 * cells(facts())
    with pytest.raises(InvalidInput, match="grows as levels"):
        game(four)


def test_a_learnt_policy_leaves_nobody_much_to_gain() -> None:
    learnt = learn(facts(), 3)
    assert learnt.gap < 0.01
    assert gains(learnt, facts()).gap == pytest.approx(learnt.gap, abs=1e-6)


def test_the_monitor_measures_the_gap_at_the_loads_of_now() -> None:
    own, monitor = policy(), Monitor(policy())
    assert monitor.gains().gap == pytest.approx(own.gap, abs=1e-6), "of what it was learnt with"
    for _ in range(60):
        monitor.see(np.array([1.4, 1.4, 0.1]))
    told = monitor.facts()
    assert told.players[0].chain.loads[2] == pytest.approx(1.4, abs=0.05)
    expected = best_response_gain(game(told), exact(own.published.table))
    assert monitor.gains().by_player == pytest.approx(reward_of(told, expected), abs=1e-9)


def test_every_player_works_out_the_same_watts_on_any_machine(tmp_path: Path) -> None:
    path = tmp_path / "policy.bin"
    path.write_bytes(policy().to_bytes())
    program = (
        "import json, sys; import numpy as np; from headrace.core.budget.policy import Policy\n"
        f"policy = Policy.from_bytes(open({str(path)!r}, 'rb').read())\n"
        "full = np.array([700.0, 700.0, 700.0])\n"
        "print(json.dumps([policy.watts(s, e, full, 1300.0).tolist() for s in (0, 7, 53) for e in range(20)]))"
    )
    said = []
    for seed in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        said.append(json.loads(done.stdout))
    assert said[0] == said[1]
    assert all(sum(watts) <= 1300.0 + 1e-6 for watts in said[0])


@given(st.integers(0, 99), st.integers(0, 53), st.integers(0, 10_000), st.floats(0.01, 3.0))
@settings(max_examples=60, deadline=None)
def test_watts_never_add_up_to_more_than_the_limit(seed: int, state: int, epoch: int, share: float) -> None:
    full_w = np.array([1400.0, 700.0, 2100.0])
    limit_w = share * float(full_w.sum())
    assert anything(seed % 5).watts(state, epoch, full_w, limit_w).sum() <= limit_w * (1 + 1e-9)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_bytes_are_never_a_policy(data: st.DataObject) -> None:
    good = policy().to_bytes()
    kind = data.draw(st.sampled_from(("flip", "cut", "more", "noise")))
    at = data.draw(st.integers(0, len(good) - 1))
    bad = {
        "flip": good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :],
        "cut": good[:at],
        "more": good + b"x",
        "noise": data.draw(st.binary(max_size=200)),
    }[kind]
    with pytest.raises(BadPolicy):
        Policy.from_bytes(bad)


def test_a_policy_that_somebody_has_touched_is_refused() -> None:
    """It would be read well: another seed, and players would no longer agree."""
    good = policy().to_bytes()
    assert good.count(b'"seed": 1') == 1
    with pytest.raises(BadPolicy, match="damaged"):
        Policy.from_bytes(good.replace(b'"seed": 1', b'"seed": 2'))


def test_bytes_are_the_policy() -> None:
    again = Policy.from_bytes(policy().to_bytes())
    assert again.facts == policy().facts
    assert (again.published.table == policy().published.table).all()
    assert (again.seed, again.epoch_s, again.version) == (1, 10.0, policy().version)
    assert len(again.version) == 12


@pytest.mark.parametrize(
    ("full_w", "limit_w", "word"),
    [
        ([700.0, 700.0, 700.0], 1_300.0, ""),
        ([700.0, 700.0, 0.0], 1_300.0, "no devices of decode"),
        ([700.0, 700.0, 2800.0], 2_600.0, "encode has 17% of the watts, 33% in the policy"),
        ([700.0, 700.0, 700.0], 800.0, "its limit is 38% of full speed, the policy's lowest 46%"),
    ],
)
def test_a_policy_of_another_row_says_why(full_w: list[float], limit_w: float, word: str) -> None:
    assert policy().misfit(np.array(full_w), limit_w) == word


@pytest.mark.parametrize("bad", [b"", b"[]", b'{"rows": {}}', b'{"version": 1, "rows": {"a": {}}}', b"\xff", b"7"])
def test_a_record_that_makes_no_sense_is_refused(bad: bytes) -> None:
    with pytest.raises(BadPolicy):
        Play.from_bytes(bad)
    told = Play("v", {"a": RowPlay(("w-0",), 1, (0, 2), (700.0, 700.0), 900.0)})
    assert Play.from_bytes(told.to_bytes()) == told
    assert told.of("w-1") is None
