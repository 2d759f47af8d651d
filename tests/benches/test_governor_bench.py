"""The governor bench: what is made of samples, on made-up timelines; and a live mesh that follows its budget."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.cli.rehearse import mesh_config, stage
from headrace.cli.supervisor import Mesh
from headrace.core.types import Media, MediaMeta
from headrace.engines.families import ChatMessage, MediaPart, TextPart, profile_tiny
from headrace.modalities import modality
from headrace.rehearsal import attainable, figures, meter
from headrace.rehearsal.figures import STEP_S, Series
from headrace.rehearsal.load import Asked
from headrace.rehearsal.scene import CLASSES, PICTURE_PX, PICTURES, PROMPT_TOKENS, Scene, picture, words
from headrace.rehearsal.stage import Moment, Stage
from headrace.rehearsal.story import tell
from headrace.rehearsal.watch import Reading
from loadtest.benches.governor_figures import attainment, before_of, figures_of, passed, timeline
from loadtest.benches.governor_run import Run

SCENE = Scene()
DEMAND_W, BUDGET_W = 3_600.0, 2_520.0
BEFORE_S, CUT_S, BACK_S, END_S = 10.0, 20.0, 60.0, 90.0
OFFERED = SCENE.rate_rps * 40.0  # tokens a second
Curve = Callable[[float], float]


# --- overshoot, settling, recovery: one series, one answer ---


def series(of: Curve, to_s: float = 30.0) -> Series:
    at_s = np.arange(0.0, to_s, STEP_S)
    return Series(at_s, np.array([of(float(at)) for at in at_s]))


@pytest.mark.parametrize(
    ("of", "share", "seconds"),
    [
        pytest.param(lambda _: 90.0, 0.0, 0.0, id="below"),
        pytest.param(lambda _: 102.0, 0.02, 0.0, id="above, but tolerated"),
        pytest.param(lambda at: 140.0 if at < 1.5 else 99.0, 0.0, 1.5, id="the fall itself is time, not overshoot"),
        pytest.param(lambda at: 110.0 if 5.0 <= at < 6.0 else 95.0, 0.10, 1.0, id="a second too much"),
        pytest.param(lambda _: 105.0, 0.05, 30.0, id="never within"),
    ],
)
def test_overshoot(of: Curve, share: float, seconds: float) -> None:
    found = figures.overshoot(series(of), 100.0, 0.0, 30.0)
    assert found.share == pytest.approx(share)
    assert found.seconds == pytest.approx(seconds)
    assert found.watts == pytest.approx(100.0 * share)


def low(from_s: float, to_s: float, value: float) -> Curve:
    """100, but for a while."""
    return lambda at: value if from_s <= at < to_s else 100.0


@pytest.mark.parametrize(
    ("power", "goodput", "least", "most"),
    [
        pytest.param(low(0, 0, 0), low(0, 0, 0), 0.0, 0.0, id="at once"),
        pytest.param(low(0, 1.5, 140.0), low(0, 0, 0), 1.0, 1.5, id="power falls late"),
        pytest.param(low(0, 0, 0), low(0, 6.0, 60.0), 5.0, 6.5, id="goodput dips at first"),
        pytest.param(low(0, 1.5, 140.0), low(2.0, 8.0, 140.0), 7.0, 8.5, id="goodput swings upwards, too"),
        pytest.param(low(29.0, 30.0, 120.0), low(0, 0, 0), None, None, id="power rises again at the end"),
    ],
)
def test_settling(power: Curve, goodput: Curve, least: float | None, most: float | None) -> None:
    found = figures.settled_s(series(power), 100.0, series(goodput), 0.0, 30.0)
    if least is None or most is None:
        assert found is None
    else:
        assert found is not None
        assert least <= found <= most


@pytest.mark.parametrize(
    ("goodput", "seconds"),
    [
        pytest.param(low(0, 0, 0), 0.0, id="never away"),
        pytest.param(low(0, 7.0, 80.0), 6.25, id="mostly back is back: 97 % of the mean of five seconds"),
        pytest.param(lambda _: 92.0, None, id="stays at what the cap allows"),
        pytest.param(lambda at: 100.0 if 10.0 <= at < 16.0 else 92.0, None, id="back for a moment only"),
        pytest.param(lambda at: 120.0 if at < 10.0 else 100.0, 0.0, id="what had waited is served first"),
    ],
)
def test_recovery(goodput: Curve, seconds: float | None) -> None:
    found = figures.recovered_s(series(goodput), 100.0, 0.0, 30.0)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_recovery_of_a_phase_too_short_for_any_word() -> None:
    assert figures.recovered_s(series(lambda _: 100.0, STEP_S), 100.0, 0.0, 30.0) is None


# --- whole runs, made up ---


def run_of(watts: Curve, share: Curve) -> Run:
    """watts: of the row at a time; share: of the offered tokens that come at a time. The cut is at CUT_S."""
    energy_j, readings = 0.0, list[Reading]()
    for tenth in range(round(10 * END_S) + 20):
        if tenth % 10 == 3:
            readings.append(Reading(tenth / 10, energy_j, 0.0, 40.0 + tenth / 100, 0.0, 1.0, 0.9, 1))
        energy_j += watts(tenth / 10) / 10
    tokens = [(at, round(OFFERED * STEP_S * share(at))) for at in np.arange(0.0, END_S, STEP_S).tolist()]
    stream = Asked(0.0, "interactive", 0, first_s=0.5, end_s=END_S, tokens=tokens)
    prompt = [Asked(at, name, 0, first_s=at + 1.0, end_s=at + 1.0) for at in (25.0, 50.0) for name in CLASSES]
    late = Asked(40.0, "interactive", 2, first_s=40.0 + CLASSES["interactive"] + 0.1, end_s=50.0)
    lost = Asked(41.0, "batch-1", 2, end_s=50.0, failure="UNAVAILABLE")
    moments = (
        Moment("warm", 0.0, 0.0),
        Moment("before", BEFORE_S, DEMAND_W),
        Moment("cut", CUT_S, BUDGET_W),
        Moment("back", BACK_S, DEMAND_W),
        Moment("end", END_S, 0.0),
    )
    asked = [stream, *prompt, late, lost]
    return Run(DEMAND_W, BUDGET_W, moments, asked, {"decode-0/plant:0": readings}, {"decode-0/plant:0": ("decode",)})


def judged(run: Run) -> dict[str, bool]:
    return passed(figures_of(run, SCENE, before_of(run)))


def under(at: float) -> bool:
    return CUT_S <= at < BACK_S


GOOD_W: Curve = lambda at: 2_500.0 if under(at - 0.4) else DEMAND_W  # noqa: E731
CAPPED_W: Curve = lambda at: 2_500.0 if at >= CUT_S + 0.4 else DEMAND_W  # noqa: E731
FULL: Curve = lambda _: 1.0  # noqa: E731
EVEN = attainable.even(SCENE, BUDGET_W).rate_rps / SCENE.rate_rps


@pytest.mark.parametrize(
    ("watts", "share", "failed"),
    [
        pytest.param(GOOD_W, FULL, set(), id="a good governor"),
        pytest.param(CAPPED_W, lambda at: EVEN if at >= CUT_S else 1.0, {"goodput", "recovers"}, id="a permanent cap"),
        pytest.param(lambda _: DEMAND_W, FULL, {"overshoot", "settles"}, id="nobody governs"),
        pytest.param(GOOD_W, lambda at: 0.9 if under(at) else 1.0, {"goodput"}, id="gives up more than it must"),
        pytest.param(
            lambda at: 2_700.0 if CUT_S + 10 <= at < CUT_S + 13 else GOOD_W(at), FULL, {"overshoot", "settles"},
            id="lets go too early",
        ),
    ],
)  # fmt: skip
def test_who_passes(watts: Curve, share: Curve, failed: set[str]) -> None:
    assert {name for name, good in judged(run_of(watts, share)).items() if not good} == failed


def test_what_follows_a_phase_is_no_overshoot_of_it() -> None:
    """Readings are at .3: the last straight line of the cut ends behind the step back."""
    found = figures_of(run_of(lambda at: 2_520.0 if under(at) else DEMAND_W, FULL), SCENE, OFFERED)
    assert found["overshoot_share"] == pytest.approx(0.0, abs=1e-6)
    assert found["settle_s"] <= 2.0


def test_figures_of_a_good_run() -> None:
    run = run_of(GOOD_W, FULL)
    found = figures_of(run, SCENE, before_of(run))
    assert found["attainable_tok_s"] == pytest.approx(OFFERED)
    assert found["goodput_share_of_attainable"] == pytest.approx(1.0, abs=0.01)
    assert found["settle_s"] <= 2.0
    assert found["recover_s"] == 0.0
    assert found["phases"]["cut"]["power_w"] == pytest.approx(2_500.0, rel=0.02)
    assert attainment(run) == {"interactive": pytest.approx(2 / 3), "batch-1": pytest.approx(2 / 3), "batch-2": 1.0}
    times = timeline(run)
    assert times[0]["t_s"] == -CUT_S
    assert {row["limit_w"] for row in times} == {0.0, DEMAND_W, BUDGET_W}


def test_a_row_of_some_workers_is_measured_alone_beside_what_the_others_can_do() -> None:
    whole = run_of(GOOD_W, FULL)
    mine, other = whole.readings["decode-0/plant:0"], [Reading(at, 1e3 * at, 0, 90.0, 0, 1, 1, 1) for at in (0, 200)]
    run = replace(whole, readings={"decode-0/plant:0": mine, "decode-1/plant:0": other}, workers=("decode-0",))
    found = figures_of(run, SCENE, before_of(run))
    assert found["phases"]["cut"]["power_w"] == pytest.approx(2_500.0, rel=0.02)
    assert found["attainable_tok_s"] == pytest.approx(OFFERED)
    starved = figures_of(replace(run, budget_w=400.0), SCENE, before_of(run))
    assert 0.5 * OFFERED < starved["attainable_tok_s"] < 0.85 * OFFERED


def test_power_comes_from_counters_and_is_unknown_until_all_have_spoken() -> None:
    """100 W and 300 W, each told at its own time; the noise of power readings does not matter."""
    one = [Reading(at, 100.0 * at, 1e6, 40.0, 0.0, 1.0, 1.0, 1) for at in np.arange(0.0, 10.0).tolist()]
    two = [Reading(at + 0.7, 300.0 * at, 0.0, 50.0 + at, 0.0, 1.0, 1.0, 1) for at in np.arange(2.0, 10.0).tolist()]
    both = {"a": one, "b": two}
    found = meter.watts(both, np.array([3.0, 5.0, 9.0, 9.5]))
    assert np.isnan(found[[0, 3]]).all()
    assert found[[1, 2]] == pytest.approx([400.0, 400.0])
    assert meter.told_until_s(both) == 9.0
    assert meter.hottest_c(both, np.array([-1.0, 1.0, 4.7])).tolist() == pytest.approx(
        [math.nan, 40.0, 54.0], nan_ok=True
    )


# --- what a budget allows ---


@given(st.floats(1_200.0, 5_000.0), st.floats(1_200.0, 5_000.0))
@settings(max_examples=60, deadline=None)
def test_the_best_caps_keep_the_budget_and_no_others_serve_more(a_w: float, b_w: float) -> None:
    smaller, larger = (attainable.best(SCENE, watts) for watts in sorted((a_w, b_w)))
    assert smaller.rate_rps <= larger.rate_rps <= SCENE.capacity_rps * (1 + 1e-9)
    if smaller.rate_rps > 0.05:
        assert smaller.row_w(SCENE) <= min(a_w, b_w) + 1e-6
    if min(a_w, b_w) > 2_000.0:
        for other in (attainable.even, attainable.free_decode):
            assert smaller.rate_rps >= other(SCENE, min(a_w, b_w)).rate_rps - 1e-6


def test_seventy_percent_leave_all_of_the_load_but_not_with_one_cap_for_all() -> None:
    assert attainable.best(SCENE, BUDGET_W).rate_rps > SCENE.rate_rps
    assert attainable.even(SCENE, BUDGET_W).rate_rps < 0.95 * SCENE.rate_rps


# --- the scene ---


def test_every_prompt_is_as_long_and_no_two_pictures_are_alike() -> None:
    meta = MediaMeta("image", "image/png", PICTURE_PX, PICTURE_PX, 0)
    tokens = modality("image").token_count(meta)
    media = [Media(meta, "", tokens) for _ in range(PICTURES)]
    for number in (0, 7, 1_234):
        for parts in (0, PICTURES):
            content: list[TextPart | MediaPart] = [*map(MediaPart, range(parts)), TextPart(words(number, parts))]
            prompt = profile_tiny.load().render([ChatMessage("user", tuple(content))], media[:parts])
            assert len(prompt.tokens) == PROMPT_TOKENS
    assert len({picture(number) for number in range(300)}) == 300


def test_every_class_has_as_many_requests_with_pictures_as_without() -> None:
    asked = [SCENE.ask(number) for number in range(16)]
    for name in CLASSES:
        with_pictures = [bool(ask.pictures) for ask in asked if ask.slo_class == name]
        assert sum(with_pictures) * 2 == len(with_pictures)


def test_the_story_says_what_was_found() -> None:
    run = run_of(GOOD_W, FULL)
    moments = [Moment("before", BEFORE_S, 0.0), Moment("during", CUT_S, BUDGET_W), Moment("after", BACK_S, DEMAND_W)]
    story = tell(moments, ("before", "during", "after"), run.readings, run.asked, END_S)
    before, during, after = story.phases
    assert during.power_w == pytest.approx(2_500.0, rel=0.02)
    assert before.joules_per_token == pytest.approx(DEMAND_W / OFFERED, rel=0.02)
    assert during.kept == 6 / 8  # three classes at 25 s and at 50 s; one came late, one was lost
    assert after.from_s == BACK_S - BEFORE_S
    assert story.finding().startswith("Budget cut from 3.60 to 2.52 kW: kept after 1.")
    assert story.finding().endswith("; all of the tokens in the cut, all after it")


# --- alive ---


@pytest.mark.timeout(60)
async def test_a_live_mesh_follows_its_budget_down_and_back(tmp_path: Path) -> None:
    scene = Scene(encoders=1, prefill=1, decode=1, rate_rps=2.0)
    async with Mesh(mesh_config(scene, tmp_path)) as mesh, stage(scene, mesh) as on_stage:
        on_stage.begin_load()
        await on_stage.heard()
        await asyncio.sleep(3.0)
        demand_w = await mean_w(on_stage, 1.5)
        await on_stage.budget("cut", 0.7 * demand_w)
        limit_w = on_stage.moments[-1].limit_w
        assert limit_w == pytest.approx(0.7 * demand_w)
        await asyncio.sleep(1.0)
        assert await mean_w(on_stage, 1.5) <= limit_w * (1.0 + figures.TOLERATED)
        await on_stage.budget("back", 0.0)
        assert on_stage.moments[-1].limit_w == 0.0
        await asyncio.sleep(1.0)
        assert await mean_w(on_stage, 1.5) > 1.1 * limit_w
        asked = await on_stage.end_load(0.0)
        assert any(row.tokens for row in asked)
        assert on_stage.watch.unread == 0


async def mean_w(on_stage: Stage, seconds: float) -> float:
    """Of the next so many."""
    from_s = time.time()
    await asyncio.sleep(seconds + 1.2)  # devices report once a second
    return meter.mean_w(on_stage.watch.readings, from_s, from_s + seconds)
