"""A calibration finds the costs again that made the timelines, and refuses what it cannot foresee."""

from contextlib import nullcontext
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.calibration import CalibrationError, Plan, PoorFit, shape_of
from headrace.calibration.asking import Answer
from headrace.calibration.calibrate import derive
from headrace.calibration.encoder import Batch, Encoded, fit_encoder
from headrace.calibration.engine import Observed, fit_engine
from headrace.calibration.fits import HeldOut, Row, fit
from headrace.calibration.probes import Pictured
from headrace.calibration.shape import Limits, PoolShape
from headrace.calibration.work import prefill_works
from headrace.core.cost import Curve, StepCost, StepWork
from tests.calibration.synthetic import APART, PART_S, PICTURES, Clockwork

PLAN = Plan(rounds=3, lengths=(50, 100, 200, 400, 800, 1600), batches=(2, 4, 8, 16))
GPU = StepCost(Curve((0.0, 8192.0), (7.7e-3, 278e-3)), 1.2e-9, 4.1e-5, 4.4e-8)


def costs() -> st.SearchStrategy[StepCost]:
    """A floor, then a line: tens of microseconds a token on a GPU, milliseconds on a processor."""

    def of(floor_s: float, token_s: float, pair: float, sequence: float, context: float) -> StepCost:
        curve = Curve((1.0, 8192.0), (floor_s, floor_s + 8191 * token_s))
        return StepCost(curve, pair * token_s / 1000, sequence * token_s, context * token_s / 100)

    ratio = st.floats(0.05, 2.0)
    return st.builds(of, st.floats(1e-3, 5e-2), st.floats(1e-5, 2e-3), ratio, ratio, ratio)


WORKS = (
    *(StepWork(tokens, tokens * (tokens + 1) // 2) for tokens in (60, 150, 300, 700, 1500)),
    *(StepWork(0, 0, count, count * context) for count in (1, 3, 6, 12) for context in (60, 900)),
)


@settings(max_examples=40, deadline=None)
@given(cost=costs(), queue_s=st.floats(0, 5e-3))
def test_what_made_the_timelines_is_found_again(cost: StepCost, queue_s: float) -> None:
    found = derive(Clockwork(cost, queue_s=queue_s, deliver_s=0.006).measured(PLAN), APART)
    for work in WORKS:
        assert found.step.step_s(work) == pytest.approx(cost.step_s(work), rel=0.02)
    floor_s = cost.step_s(StepWork(0, 0, 1, 60))
    assert found.mesh["queue_s"].value == pytest.approx(queue_s, abs=0.02 * floor_s + 1e-5)
    assert found.engine is not None
    assert found.engine.worst_error < 0.01
    found.check()
    assert found.mesh["admit_s"].value == pytest.approx(0.002)
    assert found.mesh["deliver_s"].value == pytest.approx(0.006)
    assert found.mesh["handover_s"].value == pytest.approx(0.003 - 0.0004)


def test_answers_that_come_in_one_message_tell_no_pace() -> None:
    """A busy machine, or an engine that is faster than what it says is sent."""
    measured = Clockwork(GPU).measured(PLAN)
    for probe, rounds in measured.answers.items():
        measured.answers[probe] = [[_at_once(answer) for answer in answers] for answers in rounds]
    with pytest.raises(CalibrationError, match="too few messages"):
        derive(measured, APART)


def _at_once(answer: Answer) -> Answer:
    return replace(answer, token_s=(answer.token_s[0], *(answer.token_s[-1] for _ in answer.token_s[1:])))


@pytest.mark.parametrize("noise", [0.05, 0.15])
def test_a_noisy_machine(noise: float) -> None:
    """Medians of rounds: the fit is nearer to the truth than single measurements are."""
    clock = Clockwork(GPU, deliver_s=0.002, noise=noise, rng=Random(3))
    found = derive(clock.measured(PLAN.with_rounds(9)), APART)
    for work in WORKS:
        assert found.step.step_s(work) == pytest.approx(GPU.step_s(work), rel=noise)


def test_a_way_is_no_longer_than_a_message_can_be() -> None:
    """What lone prompts take beyond that is the engine's: it must not delay commands that carry pictures."""
    found = derive(Clockwork(GPU, queue_s=0.040, deliver_s=0.001).measured(PLAN), APART)
    assert found.mesh["queue_s"].value == pytest.approx(0.001)
    long = StepWork(1500, 1500 * 1501 // 2)
    assert found.step.step_s(long) > GPU.step_s(long)


def test_a_known_engine_leaves_the_mesh_its_seconds() -> None:
    found = derive(Clockwork(GPU, queue_s=0.0017).measured(PLAN), APART, GPU)
    assert found.engine is None
    assert found.step == GPU
    assert found.mesh["queue_s"].value == pytest.approx(0.0017, rel=0.02)
    assert found.mesh["iteration_s"].value == pytest.approx(0, abs=1e-5)


def test_pictures() -> None:
    found = derive(Clockwork(GPU).measured(PLAN), APART)
    assert found.encoder is not None
    cost = found.encoder.cost
    assert cost.preprocess_part_s == pytest.approx(PICTURES.preprocess_part_s, rel=0.01)
    assert cost.preprocess_megapixel_s == pytest.approx(PICTURES.preprocess_megapixel_s, rel=0.01)
    for tiles in (1, 2, 3):
        assert cost.tiles_s(tiles) == pytest.approx(PICTURES.tiles_s(tiles), rel=0.01)
    assert found.encoder.fixed_tokens == 6
    assert found.mesh["admit_part_s"].value == pytest.approx(0.001, rel=0.05)
    assert found.mesh["part_s"].value == pytest.approx(PART_S, rel=0.01)


def test_what_reading_is_missed_by_counts_by_the_picture() -> None:
    """A larger one takes 0.8 ms longer than its pixels say, and four of them 3.2 ms."""
    fits = []
    for count in (1, 4):
        sizes = {64: 0.002, 320: 0.0028, 640: 0.002, 1280: 0.002}
        each = [Encoded(str(px), px * px, 6, (Batch(count, count * read_s, 0.01),)) for px, read_s in sizes.items()]
        fits.append(fit_encoder(each).held_out.seconds)
    assert 0.0 < fits[0] <= 0.001
    assert fits[1] == pytest.approx(fits[0])


def test_what_lies_between_is_held_out_in_whatever_order_it_was_measured() -> None:
    sizes = {64: 0.0020, 320: 0.0021, 640: 0.0024, 1280: 0.0036}  # 2 ms and 1 ms a megapixel
    encoded = [Encoded(str(px), px * px, 6, (Batch(1, read_s, 0.01),)) for px, read_s in sizes.items()]
    found = []
    for seed in range(5):
        Random(seed).shuffle(encoded)
        found.append(fit_encoder(encoded).held_out.error)
    assert found == pytest.approx([found[0]] * 5)
    assert found[0] < 0.02


def test_a_batch_is_not_free_where_only_single_pictures_were_seen() -> None:
    alone = [Encoded(str(px), px * px, 6, (Batch(1, 0.002, 0.27),)) for px in (64, 320, 640)]
    assert [fit_encoder(alone).cost.tiles_s(tiles) for tiles in (1, 2, 8)] == pytest.approx([0.27, 0.54, 2.16])


def test_the_curve_never_falls() -> None:
    """More work never takes less, whatever was measured."""
    sizes, seconds = (50, 100, 200, 400), (0.020, 0.025, 0.024, 0.030)
    observed = [
        *(Observed(f"row {n}", s, prefill_works(n, 0, 8192)) for n, s in zip(sizes, seconds, strict=True)),
        Observed("decode 1", 0.01, (StepWork(0, 0, 1, 50),)),
    ]
    ys = fit_engine(observed).step.tokens_s.ys
    assert list(ys) == sorted(ys)


def test_what_cannot_be_foreseen_is_refused() -> None:
    """Every other size takes four times as long: nothing that was left out is where the others say it is."""
    observed = [
        Observed(f"row {tokens}", (0.02 + tokens * 1e-4) * (1 + 3 * (at % 2)), prefill_works(tokens, 0, 8192))
        for at, tokens in enumerate((40, 80, 160, 320, 640, 1280))
    ]
    with pytest.raises(PoorFit, match=r"is missed by \d+%.*while the machine does nothing else"):
        fit_engine(observed).held_out.check("iterations")


@pytest.mark.parametrize(
    ("error", "missed_s", "refused"), [(0.19, 1.0, False), (0.7, 0.9e-3, False), (0.7, 1.1e-3, True)]
)
def test_misses_too_small_to_matter_are_taken(error: float, missed_s: float, refused: bool) -> None:
    with pytest.raises(PoorFit) if refused else nullcontext():
        HeldOut(error, missed_s).check("iterations")


def test_pictures_of_an_earlier_calibration_are_not_taken_for_quick_ones() -> None:
    """The encoders have kept them."""
    measured = Clockwork(GPU).measured(PLAN)
    for probe, rounds in measured.answers.items():
        if isinstance(probe, Pictured):
            measured.answers[probe] = [[_kept(answer) for answer in answers] for answers in rounds]
    with pytest.raises(CalibrationError, match="another seed"):
        derive(measured, APART)


def _kept(answer: Answer) -> Answer:
    return replace(answer, spans=tuple(span for span in answer.spans if span.stage not in ("preprocess", "encode")))


def test_relative_errors_count() -> None:
    """A tenth off on a short row weighs as much as a tenth off on a long one."""
    rows = [Row("a", 0.010, {"x": 1}), Row("b", 0.012, {"x": 1}), Row("c", 10.0, {"y": 1})]
    found = fit(rows)
    assert found.values["x"] == pytest.approx((1 / 0.010 + 1 / 0.012) / (1 / 0.010**2 + 1 / 0.012**2))
    assert found.values["y"] == pytest.approx(10.0)
    assert fit([Row("a", 1.0, {"x": -1.0})]).values["x"] == 0.0, "no term takes less than nothing"


def test_chunks_are_cut_where_the_engines_cut() -> None:
    works = prefill_works(600, 40, 256)
    assert [work.prefill_tokens for work in works] == [216, 256, 88]
    assert sum(work.prefill_pairs for work in works) == sum(range(41, 601))


@pytest.mark.parametrize(
    ("workers", "complaint"),
    [
        ([("prefill",)], "no worker of this mesh has the stage decode"),
        ([("prefill", "decode"), ("encode", "prefill", "decode")], "in more than one way"),
    ],
)
def test_layouts_that_are_none(workers: list[tuple[str, ...]], complaint: str) -> None:
    pools = [PoolShape("x", stages, 1, 4, 64) for stages in workers]
    with pytest.raises(CalibrationError, match=complaint):
        shape_of("toy", (), pools, Limits(1024, 16, 256, 0))


def test_workers_that_differ() -> None:
    pools = [PoolShape("x", ("prefill", "decode"), 1, slots, 64) for slots in (4, 8)]
    with pytest.raises(CalibrationError, match="differ in slots or KV blocks"):
        shape_of("toy", (), pools, Limits(1024, 16, 256, 0))
    alike = [replace(pool, slots=4) for pool in pools]
    shape = shape_of("toy", ("image",), alike, Limits(1024, 16, 256, 0))
    assert [(pool.name, pool.count, pool.slots) for pool in shape.pools] == [("worker", 2, 4)]
    assert not shape.takes_images, "nobody encodes"
    assert not shape.hands_over
