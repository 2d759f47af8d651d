"""The bench ssjf in a steady state: schedules by hand, what theory says of them, and the simulator's side of it."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.lengths import Prediction
from headrace.core.ordering import ORDERS
from headrace.core.ordering.ssjf import Ssjf
from loadtest.benches import ssjf
from loadtest.benches.ssjf_engine import ROOM_40GB_BYTES, Cell, machine
from loadtest.benches.ssjf_fair import Load, arrivals, capacity_rps, once, policies
from loadtest.benches.ssjf_figures import change, figures, gains, half_width
from loadtest.benches.ssjf_lengths import (
    CLASS_DEVIATIONS,
    CLASS_MEANS,
    LONGEST,
    SHORTEST,
    PairsError,
    find,
    five_classes,
    released,
    tabled,
)
from loadtest.benches.ssjf_serve import batches, keys, slots

# Four jobs: row, arrival, duration. The long one comes first, the shortest last.
ARRIVAL_S = np.array([0.0, 1.0, 2.0, 3.0])
EXEC_S = np.array([6.0, 4.0, 5.0, 1.0])
TOKENS = [600, 400, 500, 100]

FCFS, SJF = ORDERS["fcfs"], Ssjf(ageing_per_s=0.0)
AGED = Ssjf(ageing_per_s=1_000.0)  # a second's waiting is worth more than any job: by arrival
LIVE = ORDERS["ssjf"]  # 10 iterations a second: 400 tokens at 1 s is 410, 500 at 2 s 520, 100 at 3 s 130

# order, places, batch's size (0: no batches), batch's wait: (start, end) of each job
SCHEDULES = [
    (FCFS, 1, 0, 0.0, [(0, 6), (6, 10), (10, 15), (15, 16)]),
    (SJF, 1, 0, 0.0, [(0, 6), (7, 11), (11, 16), (6, 7)]),
    (LIVE, 1, 0, 0.0, [(0, 6), (7, 11), (11, 16), (6, 7)]),
    (AGED, 1, 0, 0.0, [(0, 6), (6, 10), (10, 15), (15, 16)]),
    # two places: rows 0 and 1 at once; place 1 is free at 5, place 0 at 6
    (FCFS, 2, 0, 0.0, [(0, 6), (1, 5), (5, 10), (6, 7)]),
    (SJF, 2, 0, 0.0, [(0, 6), (1, 5), (6, 11), (5, 6)]),
    (SJF, 4, 0, 0.0, [(0, 6), (1, 5), (2, 7), (3, 4)]),  # nobody waits
    # batches of two run for their longest: row 0 alone, then two of three
    (FCFS, 0, 2, 0.0, [(0, 6), (6, 11), (6, 11), (11, 12)]),
    (SJF, 0, 2, 0.0, [(0, 6), (6, 10), (10, 15), (6, 10)]),
    # where everybody waits up to 2 s for a full batch, row 1 makes it full
    (FCFS, 0, 2, 2.0, [(1, 7), (1, 7), (7, 12), (7, 12)]),
    (SJF, 0, 2, 2.0, [(1, 7), (1, 7), (7, 12), (7, 12)]),
    # ... and of three, it is not full before 2 s
    (FCFS, 0, 3, 1.5, [(1.5, 7.5), (1.5, 7.5), (7.5, 12.5), (7.5, 12.5)]),
]


@pytest.mark.parametrize(("order", "places", "size", "wait_s", "expected"), SCHEDULES)
def test_who_starts_and_ends_when(order, places, size, wait_s, expected) -> None:  # type: ignore[no-untyped-def]
    key = keys(order, ARRIVAL_S, [Prediction.exactly(tokens) for tokens in TOKENS])
    served = batches(ARRIVAL_S, EXEC_S, key, size, wait_s) if size else slots(ARRIVAL_S, EXEC_S, key, places)
    assert list(zip(served.start_s.tolist(), served.end_s.tolist(), strict=True)) == expected


def test_the_live_order_lets_nobody_be_overtaken_by_what_comes_much_later() -> None:
    """500 tokens at 0 against 100 at 39 s and at 41 s: 400 iterations are worth 40 s."""
    by = {
        at_s: keys(LIVE, np.array([0.0, at_s]), [Prediction.exactly(500), Prediction.exactly(100)]) for at_s in (39, 41)
    }
    assert by[39][1] < by[39][0]
    assert by[41][1] > by[41][0]


JOBS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 50)), min_size=1, max_size=25)


@settings(deadline=None, max_examples=60)
@given(jobs=JOBS, places=st.integers(1, 5), wait_s=st.sampled_from([0.0, 3.0]))
def test_every_job_ends_once_and_no_place_is_taken_twice(jobs, places, wait_s) -> None:  # type: ignore[no-untyped-def]
    arrival_s = np.sort(np.array([at for at, _ in jobs], np.float64))
    exec_s = np.array([lasts for _, lasts in jobs], np.float64)
    for served in (
        slots(arrival_s, exec_s, exec_s.tolist(), places),
        batches(arrival_s, exec_s, exec_s.tolist(), places, wait_s),
    ):
        assert not np.isnan(served.end_s).any()
        assert (served.start_s >= arrival_s).all()
        assert (served.end_s - served.start_s >= exec_s - 1e-9).all()
        for now_s in served.start_s:
            assert ((served.start_s <= now_s) & (served.end_s > now_s)).sum() <= places
    work_conserving = slots(arrival_s, exec_s, [0.0] * len(exec_s), 1)
    assert work_conserving.end_s.max() == pytest.approx(slots(arrival_s, exec_s, exec_s.tolist(), 1).end_s.max())


@settings(deadline=None, max_examples=60)
@given(
    lasts=st.lists(st.integers(1, 500), min_size=1, max_size=20),
    places=st.integers(1, 4),
    other=st.randoms(use_true_random=False),
)
def test_shortest_first_has_the_least_mean_of_all_orders_when_all_come_at_once(lasts, places, other) -> None:  # type: ignore[no-untyped-def]
    """Smith (1956) for one machine, Conway, Maxwell and Miller (1967) for parallel ones."""
    at_s, exec_s = np.zeros(len(lasts)), np.array(lasts, np.float64)
    shortest = slots(at_s, exec_s, keys(SJF, at_s, [Prediction.exactly(tokens) for tokens in lasts]), places)
    any_order = slots(at_s, exec_s, [other.random() for _ in lasts], places)
    assert shortest.end_s.mean() <= any_order.end_s.mean() + 1e-9


def test_fcfs_waits_as_long_as_pollaczek_and_khinchine_say() -> None:
    """M/G/1: the mean wait is rate E[S^2] / (2 (1 - utilisation)); 200,000 jobs at 0.7."""
    rng = np.random.default_rng(5)
    exec_s = rng.uniform(1.0, 5.0, 200_000)
    rate_rps = 0.7 / 3.0
    arrival_s = arrivals(rng, len(exec_s), rate_rps, 1.0)
    served = slots(arrival_s, exec_s, list(map(float, range(len(exec_s)))), 1)
    expected_s = rate_rps * (9.0 + 16 / 12) / (2 * (1 - 0.7))
    assert (served.start_s - arrival_s).mean() == pytest.approx(expected_s, rel=0.05)


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("none", 4, 1 / 2.0),
        ("continuous", 4, 4 / 2.0),
        ("dynamic", 1, 1 / 2.0),
        ("dynamic", 2, 2 / 2.5),  # of 1 and 3: the longer of two is 3 in three of four pairs
    ],
)
def test_capacity(mode, size, expected) -> None:  # type: ignore[no-untyped-def]
    assert capacity_rps(mode, size, np.array([1.0, 3.0])) == pytest.approx(expected)


def test_a_flood_is_served_at_capacity() -> None:
    rng = np.random.default_rng(1)
    exec_s = rng.choice([1.0, 3.0], 40_000)
    key = list(map(float, range(len(exec_s))))
    served = batches(np.zeros(len(exec_s)), exec_s, key, 4)
    assert len(exec_s) / served.end_s.max() == pytest.approx(capacity_rps("dynamic", 4, np.array([1.0, 3.0])), rel=0.02)


def test_renewal_arrivals_have_their_rate_and_their_variation() -> None:
    gaps = np.diff(arrivals(np.random.default_rng(2), 200_000, 0.5, 2.0))
    assert gaps.mean() == pytest.approx(2.0, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(2.0, rel=0.05)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.01  # not sorted


# --- what is told ---


def test_figures_by_hand() -> None:
    found = figures(np.array([0.0, 1.0, 2.0, 3.0]), np.array([4.0, 3.0, np.nan, 9.0]), np.array([4.0, 1.0, 1.0, 2.0]))
    assert found["jct_mean_s"] == pytest.approx((4 + 2 + 6) / 3)
    assert found["jct_p50_s"] == 4.0
    assert found["wait_max_s"] == 4.0
    assert found["slowdown_mean"] == pytest.approx((1 + 2 + 3) / 3)
    assert found["throughput_rps"] == pytest.approx(3 / 9)
    assert (found["jobs"], found["dropped"]) == (3, 1)


def test_half_width_is_students() -> None:
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert math.isnan(half_width([1.0]))


def test_gains_are_paired_by_seed() -> None:
    def run(jct_s: float) -> dict[str, float]:
        return dict.fromkeys(figures(np.zeros(2), np.ones(2), np.ones(2)), jct_s)

    told = gains({"fcfs": [run(10.0), run(100.0)], "ssjf": [run(9.0), run(90.0)]})
    assert told["ssjf"]["jct_mean_s"] == pytest.approx([-0.1, 0.0])


# --- lengths and predictions ---


def test_the_table_gives_each_class_its_mean_and_deviation() -> None:
    x = np.arange(SHORTEST, LONGEST + 1)
    weights = np.exp(-x / 180.0)
    table = five_classes(weights)
    assert table.sum(axis=1) == pytest.approx(1.0)
    for column, mean, deviation in zip(table.T, CLASS_MEANS, CLASS_DEVIATIONS, strict=True):
        share = weights * column / (weights @ column)
        assert share @ x == pytest.approx(mean, rel=0.35)
        assert math.sqrt(share @ x**2 - (share @ x) ** 2) == pytest.approx(deviation, rel=0.35)


def test_without_the_pairs_ssjf_has_the_five_classes() -> None:
    lengths = tabled()
    drawn = lengths.draw(np.random.default_rng(0), 5_000)
    assert set(drawn.classes) == {"ssjf"} == set(lengths.policies)
    means = [drawn.tokens[drawn.classes["ssjf"] == label].mean() for label in range(4)]
    assert means == sorted(means)
    assert means == pytest.approx(CLASS_MEANS[:4], rel=0.2)


def test_the_released_pairs_are_as_good_as_the_released_predictors() -> None:
    if not find().is_file():
        pytest.skip("the released predictions are not in shared/data")
    told = ssjf.predictors(released(find()))
    for policy, tau in told["kendall_tau"].items():
        assert tau == pytest.approx(told["released_kendall_tau"][policy], abs=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output_token_length,predicted_length\n40,x\n", "line 2, field predicted_length"),
        ("output_token_length\n40\n", "line 2, field predicted_length"),
        ("output_token_length,predicted_length\n1000,0\n", "2 to 511"),
        ("output_token_length,predicted_length\n40,1\n", "without gaps"),
        ("output_token_length,predicted_length\n", "2 to 511"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(text)
    with pytest.raises(PairsError, match=message):
        released(file)


def test_a_missing_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ssjf.main(["--data", str(tmp_path / "none.csv")]) == 1
    assert "give another by --data" in capsys.readouterr().err


# --- policies over whole runs ---


def test_the_policies_are_told_what_they_may_know() -> None:
    lengths = tabled()
    drawn = lengths.draw(np.random.default_rng(3), 2_000)
    told = policies(lengths, drawn, 1)
    assert told["fcfs"][0] is ORDERS["fcfs"]
    assert {told[name][0] for name in ("ssjf", "oracle", "random")} == {ORDERS["ssjf"]}
    means = {name: np.array([said.mean for said in of]) for name, (_, of) in told.items()}
    assert means["oracle"] == pytest.approx(drawn.tokens)
    assert 0.5 < np.corrcoef(means["ssjf"], drawn.tokens)[0, 1] < 0.95
    assert abs(np.corrcoef(means["random"], drawn.tokens)[0, 1]) < 0.1
    assert means["random"].std() == pytest.approx(drawn.tokens.std(), rel=0.1)


@pytest.mark.parametrize("mode", ["none", "continuous"])
def test_ssjf_gains_less_than_the_oracle_and_chance_gains_nothing(mode) -> None:  # type: ignore[no-untyped-def]
    found = once(Load(mode, 0.9), tabled(), 3)
    jct = {policy: change(of, found["fcfs"], "jct_mean_s") for policy, of in found.items()}
    assert jct["oracle"] < jct["ssjf"] < -0.03
    assert abs(jct["random"]) < 0.05
    assert found["ssjf"]["throughput_rps"] == pytest.approx(found["fcfs"]["throughput_rps"], rel=0.02)


def test_with_room_for_all_no_order_matters() -> None:
    found = once(Load("continuous", 0.9, size=100_000), tabled(), 1)
    assert {of["jct_mean_s"] for of in found.values()} == {found["fcfs"]["jct_mean_s"]}
    assert found["fcfs"]["wait_max_s"] == pytest.approx(0.0, abs=1e-9)


def test_in_the_simulator_the_shortest_goes_first_once_memory_is_full(tmp_path: Path) -> None:
    """Places for 22: of 66 that come at once, by predicted lengths, the long ones are last."""
    tight = machine(tmp_path, ROOM_40GB_BYTES)
    tokens = [300, 20, 150] * 22
    at_s = np.linspace(0.0, 0.01, len(tokens))
    said = [Prediction.exactly(length) for length in tokens]
    by_arrival = tight.run(at_s, tokens, "fcfs")
    by_length = tight.run(at_s, tokens, "ssjf+oracle", said)
    short, long = np.array(tokens) == 20, np.array(tokens) == 300
    assert by_length.ttft_s[short].max() < by_arrival.ttft_s[short].max()
    assert by_length.ttft_s[long].max() > by_length.ttft_s[short].max()
    assert np.nanmean(by_length.jct_s) < np.nanmean(by_arrival.jct_s)


def test_in_the_simulator_a_wrong_word_is_believed(tmp_path: Path) -> None:
    """The predictor says the opposite of the truth: the short ones are last."""
    tight = machine(tmp_path, ROOM_40GB_BYTES)
    tokens = [300, 20] * 33
    said = [Prediction.exactly(320 - length) for length in tokens]
    found = tight.run(np.linspace(0.0, 0.01, len(tokens)), tokens, "ssjf+oracle", said)
    rows, short = np.arange(len(tokens)), np.array(tokens) == 20
    waited = rows >= 22  # the others found places free
    assert found.ttft_s[waited & short].mean() > 1.5 * found.ttft_s[waited & ~short].mean()


def test_in_the_simulator_memory_decides_whether_an_order_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.benches.ssjf_engine.WARM", 50)
    monkeypatch.setattr("loadtest.benches.ssjf_engine.MEASURED", 250)
    lengths, rate_rps = tabled(), 8.0  # more than 40 GB serve
    gained = {}
    for name, room_bytes in (("tight", ROOM_40GB_BYTES), ("roomy", 12 * ROOM_40GB_BYTES)):
        found = Cell(machine(tmp_path, room_bytes), rate_rps, only=("fcfs", "oracle")).once(lengths, 1)
        gained[name] = change(found["oracle"], found["fcfs"], "jct_mean_s")
    assert gained["tight"] < -0.1
    assert abs(gained["roomy"]) < 0.01
