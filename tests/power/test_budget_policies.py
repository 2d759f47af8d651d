"""Budget policies in the governor: shares by the policy, always under the row's limit, and an equal split with a reason
where there is nothing to go by."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.power.fleet import Row
from headrace.core.power.governor import Governor
from headrace.core.power.playing import PlayedSplit, player_of
from headrace.core.power.splitting import EqualSplit
from tests.power.governed import LEAST_W, MOST_W, World, fleet, run
from tests.power.played import STAGES, anything, policy

EPOCH_S = policy().epoch_s


def governed(split: PlayedSplit | EqualSplit, limit_w: float) -> Governor:
    governor = Governor()
    governor.splitter = split
    governor.set_budget("row-0", limit_w)
    return governor


def told(governor: Governor, world: World, seconds: int, start_s: float = 0.0) -> list[str]:
    """Audit lines of the policy."""
    found = []
    for second in range(seconds):
        said = governor.step(world.fleet, world.second(), start_s + second, start_s + second)
        world.obey(said)
        found += [f"{one.subject}: {one.reason}" for one in said.audit if one.action == "policy"]
    return found


@given(
    st.integers(0, 30),
    st.lists(st.sampled_from((*STAGES, "prefill+decode", "tenant")), min_size=3, max_size=8),
    st.floats(0.2, 1.1),
    st.integers(1, 3),
    st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_no_policy_breaks_the_limit(seed: int, stages: list[str], share: float, gpus: int, noise: int) -> None:
    """Whatever it says, whichever epoch it is and although a worker hears a batch or does not."""
    opaque = [at for at, stage in enumerate(stages) if stage == "tenant"]
    named = ["prefill" if stage == "tenant" else stage for stage in stages]
    world = World(fleet(named, gpus=gpus, opaque=opaque), np.linspace(0.1, 2.0, len(stages)), noise=0.03, seed=noise)
    most_w, least_w = world.fleet.by_row(world.fleet.most_w)[0], world.fleet.by_row(world.fleet.least_w)[0]
    limit_w = float(share * most_w)
    governor = governed(PlayedSplit(anything(seed)), limit_w)
    for second in range(12):
        said = governor.step(world.fleet, world.second(), float(second), 1e9 + 7.0 * second)
        kept = np.where(said.cap_w > 0.0, said.cap_w, world.fleet.most_w)
        heard = world.rng.random(len(kept)) < 0.7 if second else np.ones(len(kept), dtype=bool)
        world.cap_w = np.where(heard, np.where(said.cap_w > 0.0, said.cap_w, np.inf), world.cap_w)
        assert world.fleet.by_row(kept)[0] <= max(limit_w, least_w) + 1e-6, "as told"
        assert world.may_draw_w()[0] <= max(limit_w, least_w) + 1e-6, "as they hold"
        assert world.fleet.by_row(said.fallback_w)[0] <= max(limit_w, least_w) + 1e-6


def test_each_pool_has_what_every_player_works_out_and_the_log_says_so() -> None:
    split = PlayedSplit(policy())
    world, governor = World(fleet(STAGES), np.array([0.9, 0.9, 0.9])), governed(split, 1_300.0)
    assert told(governor, world, 9) == [f"row-0: shares by the published policy {policy().version}"]
    played = split.rows["row-0"]
    expected = policy().watts(played.state, 0, np.full(3, MOST_W), 1_300.0)
    assert played.watts == pytest.approx(expected)
    assert world.cap_w == pytest.approx(np.maximum(expected, LEAST_W), abs=15.0), "to the band in which caps stay"
    last = governor.step(world.fleet, world.second(), 9.0, 9.0)
    assert {last.reason(at) for at in range(3)} == {"row-0 keeps to 1300 W: its share by the budget policy"}
    assert last.stages == (), "the stage allocator has nothing to say"


def test_the_state_holds_for_an_epoch() -> None:
    split = PlayedSplit(policy())
    world, governor = World(fleet(STAGES), np.array([0.2, 0.2, 0.2])), governed(split, 1_300.0)
    told(governor, world, 11)
    first = split.rows["row-0"]
    assert first.epoch == 1
    world.load = np.array([1.5, 1.5, 1.5])
    told(governor, world, 9, 11.0)
    assert split.rows["row-0"].state == first.state
    told(governor, world, 1, 2 * EPOCH_S)
    assert (split.rows["row-0"].loads > first.loads).all(), "a new epoch sees the new load"
    assert split.rows["row-0"].state > first.state


def test_a_pool_shares_its_watts_among_its_devices_by_what_they_want() -> None:
    """Of two prefill workers one idles: the other has what it leaves."""
    pools = ("encode", "encode", "prefill", "prefill", "decode", "decode")
    split = PlayedSplit(policy())
    world, governor = World(fleet(pools), np.array([0.9, 0.9, 0.0, 1.5, 0.9, 0.9])), governed(split, 2_600.0)
    told(governor, world, 25)
    own = split.rows["row-0"].watts[1]
    assert world.cap_w[2] < world.cap_w[3]
    assert world.cap_w[2] + world.cap_w[3] <= own + 1.0


@pytest.mark.parametrize(
    ("made", "stages", "word"),
    [
        (PlayedSplit(None), STAGES, "there is no policy"),
        (PlayedSplit(None, "policy: its bytes are damaged"), STAGES, "its bytes are damaged"),
        (PlayedSplit(policy()), ("encode", "prefill", "prefill"), "no devices of decode"),
        (PlayedSplit(policy()), (*STAGES, "prefill+decode"), "w-3/gpu is no player's"),
        (PlayedSplit(policy(), suspended={"row-0": "decode would gain 0.3"}), STAGES, "decode would gain 0.3"),
    ],
)
def test_an_equal_split_says_why(made: PlayedSplit, stages: tuple[str, ...], word: str) -> None:
    world = World(fleet(stages), np.full(len(stages), 0.9))
    limit_w = 433.0 * len(stages)
    governor = governed(made, limit_w)
    lines = told(governor, world, 12)
    assert len(lines) == 1, "once"
    assert lines[0].startswith("row-0: equal split: ")
    assert word in lines[0]
    assert world.cap_w == pytest.approx([433.0] * len(stages), abs=15.0)


def test_a_device_that_is_not_believed_for_a_while_changes_nobody_s_policy() -> None:
    split = PlayedSplit(policy())
    world, governor = World(fleet(STAGES), np.full(3, 0.9)), governed(split, 1_300.0)
    told(governor, world, 5)
    seen = world.second()
    seen.temp_c[1] = np.nan
    said = governor.step(world.fleet, seen, 5.0, 5.0)
    assert said.reason(1) == "its readings are not believed: safe cap"
    assert [entry.action for entry in said.audit if entry.action in ("policy", "distrust")] == ["distrust"]
    assert split.equal == {}


def test_a_suspended_row_plays_again() -> None:
    split = PlayedSplit(policy(), suspended={"row-0": "too much to gain"})
    world, governor = World(fleet(STAGES), np.full(3, 0.9)), governed(split, 1_300.0)
    lines = told(governor, world, 3)
    assert split.rows["row-0"].loads.shape == (3,), "it is watched all the same"
    split.suspended.clear()
    lines += told(governor, world, 3, 3.0)
    assert [line.partition(": ")[2].partition(" ")[0] for line in lines] == ["equal", "shares"]


def test_the_policy_follows_its_row_when_the_limit_goes_and_comes() -> None:
    split = PlayedSplit(policy())
    world, governor = World(fleet(STAGES), np.full(3, 0.9)), governed(split, 1_300.0)
    told(governor, world, 3)
    governor.set_budget("row-0", 0.0)
    assert told(governor, world, 3, 3.0) == []
    assert np.isinf(world.cap_w).all()
    assert split.rows == {}
    governor.set_budget("row-0", 700.0)
    assert "its limit is 33% of full speed" in told(governor, world, 3, 6.0)[0], "none of its classes"
    assert world.may_draw_w()[0] <= 700.0


def test_rows_are_split_each_by_itself() -> None:
    made = fleet((*STAGES, "prefill"), rows=(Row("row-0"), Row("row-1")), of_row=(0, 0, 0, 1))
    world, governor = World(made, np.full(4, 0.9)), governed(PlayedSplit(policy()), 1_300.0)
    governor.set_budget("row-1", 400.0)
    lines = sorted(told(governor, world, 5))
    assert [line.partition(":")[0] for line in lines] == ["row-0", "row-1"]
    assert "no devices of encode, decode" in lines[1]
    assert world.cap_w[3] <= 400.0


def test_opaque_tenants_keep_what_they_want_unless_they_are_players() -> None:
    made = fleet((*STAGES, "prefill"), opaque=(3,))
    world = World(made, np.array([0.9, 0.9, 0.9, 1.5]))
    governor = governed(EqualSplit(), 1_900.0)
    told(governor, world, 20)
    assert world.cap_w[3] > 650.0
    assert world.cap_w[:3] == pytest.approx([400.0] * 3, abs=25.0)
    named = replace(
        policy(),
        facts=replace(
            policy().facts,
            players=tuple(
                replace(one, name=f"{name}-*")
                for one, name in zip(policy().facts.players, ("a", "b", "w"), strict=True)
            ),
        ),
    )
    assert [player_of(named, worker, ("prefill",)) for worker in ("a-0", "b-7", "w-3", "x")] == [0, 1, 2, -1]
    assert player_of(policy(), "any", ("decode",)) == 2
    assert player_of(policy(), "any", ("prefill", "decode")) == -1, "of two stages it is neither's"


def test_without_a_splitter_everything_is_as_it_was() -> None:
    world, governor = World(fleet(STAGES), np.full(3, 0.9)), Governor()
    governor.set_budget("row-0", 1_300.0)
    last = run(governor, world, 20)[-1]
    assert [share.stage for share in last.stages] == list(STAGES)
