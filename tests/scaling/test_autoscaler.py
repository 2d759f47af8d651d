"""The autoscaler as a whole: events in, decisions out; what it measures is what arithmetic says."""

import math
from dataclasses import replace

import pytest

from headrace.core.queue.views import CellView, ClassView, ModelView, WorkerView
from headrace.core.scaling import SCALERS
from headrace.core.scaling.autoscaler import OUTPUT_TOKENS, Autoscaler, Limits, ScaledPool
from headrace.core.scaling.base import ClassWait, Costs, Sight, Target
from headrace.core.scaling.events import Answered, Arrived, Count, Ended, Look, Paced, Started, look
from headrace.core.scaling.windows import Window
from headrace.core.slo import CLASSES

ENCODE = ScaledPool("encode", ("encode",), ("vision",), 1, 20.0, Costs(encode_token_s=0.001), 0, 8, ("image",))
LLM = ScaledPool("llm", ("prefill", "decode"), ("vision",), 4, 60.0, Costs(0.0, 1e-4, 0.0, 1e-3), 1, 4)
SPARE = ScaledPool("spare", ("encode",), ("vision",), 1, 20.0, Costs(encode_token_s=0.002), 0, 8, ("image",))


class Seen:
    """Keeps what a policy is shown, and leaves everything as it is."""

    name = "seen"

    def __init__(self) -> None:
        self.sights: list[Sight] = []

    def targets(self, sight: Sight, now_s: float) -> list[Target]:
        self.sights.append(sight)
        return [Target(pool.name, pool.current, "") for pool in sight.pools]


def made(*pools: ScaledPool) -> tuple[Autoscaler, Seen]:
    seen = Seen()
    return Autoscaler(seen, pools, Limits(gpus_max=40), 0.0), seen


def test_each_stage_is_loaded_in_its_own_unit() -> None:
    scaler, seen = made(ENCODE, LLM)
    for at in range(60):
        scaler.handle(Arrived("vision", 100, (("image", 500), ("audio", 70))), float(at))
        scaler.handle(Arrived("another", 999), float(at))
    scaler.handle(Look({"encode": Count(1), "llm": Count(1)}), 60.0)
    encode, llm = seen.sights[0].pools
    assert encode.long.per_s == pytest.approx(500.0), "media of its modalities alone"
    assert llm.long.per_s == pytest.approx(100.0), "positions of the prompt, of its model alone"
    assert encode.capacity_per_s == pytest.approx(1000.0)
    assert llm.capacity_per_s == pytest.approx(100 / (100 * 1e-4 + OUTPUT_TOKENS * 1e-3))


def test_capacity_follows_the_answers() -> None:
    scaler, seen = made(LLM)
    scaler.handle(Arrived("vision", 100), 0.0)
    scaler.handle(Ended("vision", 40), 1.0)
    scaler.handle(Ended("another", 4000), 1.0)
    scaler.handle(Look({"llm": Count(1)}), 2.0)
    assert seen.sights[0].pools[0].capacity_per_s == pytest.approx(100 / (0.01 + 0.04))


def test_pools_alike_share_what_comes_by_their_speed() -> None:
    scaler, seen = made(ENCODE, SPARE)
    scaler.handle(Look({"encode": Count(1), "spare": Count(1)}), 0.0)
    scaler.handle(Arrived("vision", 100, (("image", 3000),)), 5.0)
    scaler.handle(Look({"encode": Count(1), "spare": Count(1)}), 10.0)
    encode, spare = seen.sights[-1].pools
    assert encode.long.per_s == pytest.approx(2 * spare.long.per_s)


def test_attainment_is_of_the_short_window() -> None:
    scaler, seen = made(LLM)
    for at in range(100):
        scaler.handle(Answered(at < 90), float(at))
    for now_s in (100.0, 130.0):
        scaler.handle(Look({"llm": Count(1)}), now_s)
    assert seen.sights[0].attainment == pytest.approx(20 / 30)
    assert (seen.sights[1].attainment, seen.sights[1].answered) == (1.0, 0), "nothing is known: nobody is late"


def test_what_waits_is_counted_in_the_pools_units() -> None:
    scaler, seen = made(ENCODE, LLM)
    scaler.handle(Arrived("vision", 100, (("image", 500),)), 0.0)
    scaler.handle(Arrived("vision", 300), 0.0)
    scaler.handle(Look({}, at_encoders=4, waiting={"vision": 3}), 5.0)
    encode, llm = seen.sights[0].pools
    assert (encode.backlog, llm.backlog) == (4 * 500.0, 3 * 200.0)


def test_somebody_who_finds_nobody_is_known() -> None:
    scaler, _ = made(ENCODE, LLM)
    picture, words = Arrived("vision", 100, (("image", 500),)), Arrived("vision", 100)
    scaler.handle(Look({"llm": Count(1)}), 0.0)
    assert scaler.nobody_for(picture)
    assert not scaler.nobody_for(words)
    scaler.handle(Look({"llm": Count(1), "encode": Count(starting=1)}), 5.0)
    assert not scaler.nobody_for(picture), "somebody is on the way"


def test_only_changes_are_decisions_and_they_say_why() -> None:
    scaler = Autoscaler(SCALERS["published"](300.0), (ENCODE, LLM), Limits(40), 0.0)
    counts = {"encode": Count(3), "llm": Count(1)}
    assert not scaler.handle(Look(counts), 0.0)
    scaler.handle(Arrived("vision", 100, (("image", 500),)), 295.0)
    (scale,) = scaler.handle(Look(counts), 300.0)
    assert (scale.pool, scale.current, scale.instances) == ("encode", 3, 1)
    assert "epoch" in scale.reason


def test_a_look_is_made_of_the_queues_view() -> None:
    classes = (ClassView("interactive", 7, 2, 10, 0.0, 1.5), ClassView("batch-1", 1, 0, 10, 0.0))
    workers = tuple(
        WorkerView(name, "i", ("encode",), "vision", "h", 1, 0, 0, 0, name == "encode-2", 0.0, 0.0, 0)
        for name in ("encode-0", "encode-1", "encode-2", "llm-0")
    )
    view = CellView(1, "", 0.0, classes, workers, (ModelView("vision", True, (), 5),), 0, 0, {}, False)
    seen = look(view, CLASSES, lambda worker: worker.worker.partition("-")[0], {"llm": 2})
    assert dict(seen.pools) == {"encode": Count(2, 0, 1), "llm": Count(1, 2)}
    assert seen.at_encoders == 3, "of eight that wait five wait for LLMs"
    assert seen.waits == (ClassWait("interactive", 20.0, 1.5), ClassWait("batch-1", 60.0, -1.0))


def test_a_window_forgets_and_knows_its_error() -> None:
    window = Window(300.0, 0.0)
    for at in range(600):
        window.add(2.0 if at < 500 else 8.0, float(at))
    assert window.over(30.0, 600.0).per_s == pytest.approx(8.0)
    assert window.over(300.0, 600.0).per_s == pytest.approx((200 * 2 + 100 * 8) / 300)
    assert window.over(30.0, 600.0, 90.0).per_s == pytest.approx((10 * 8 + 20 * 2) / 30), "that ended before"
    assert window.over(30.0, 600.0).sd_per_s == pytest.approx(math.sqrt(30 * 64) / 30)
    assert window.over(300.0, 2000.0).requests == 0


def test_a_young_window_counts_the_time_that_there_was() -> None:
    window = Window(300.0, 100.0)
    for at in range(100, 120):
        window.add(3.0, float(at))
    assert window.over(300.0, 120.0).per_s == pytest.approx(3.0)


def test_starts_and_paces_are_learnt() -> None:
    scaler, seen = made(ENCODE, LLM)
    scaler.handle(Look({}), 1.0)
    scaler.handle(Started("encode", 4.0), 2.0)
    scaler.handle(Started("encode", 8.0), 3.0)
    scaler.handle(Paced("encode", Costs(encode_token_s=0.01)), 3.0)
    scaler.handle(Look({}), 4.0)
    before, after = (sight.pools[0] for sight in seen.sights)
    assert [round(each.start_s, 6) for each in (before, after)] == [20.0, 6.0], "as configured, then as measured"
    assert [round(each.capacity_per_s, 6) for each in (before, after)] == [1000.0, 100.0]


def test_an_instance_that_costs_nothing_is_no_division_by_zero() -> None:
    scaler, seen = made(ENCODE, LLM)
    for name in ("encode", "llm"):
        scaler.handle(Paced(name, Costs()), 0.0)
    scaler.handle(Look({}), 1.0)
    assert all(pool.capacity_per_s > 1e6 for pool in seen.sights[0].pools)


@pytest.mark.parametrize(("long_s", "short_s", "before_s"), [(300.0, 30.0, 60.0), (90.0, 30.0, 60.0), (9.0, 3.0, 6.0)])
def test_windows_shorten_with_a_short_epoch(long_s: float, short_s: float, before_s: float) -> None:
    limits = Limits(4, long_s=long_s)
    assert [round(limits.short_s, 6), round(limits.before_s, 6)] == [short_s, before_s]


def test_a_cap_takes_as_much_of_a_measured_capacity_as_of_a_computed_one() -> None:
    measured = replace(LLM, name="measured", capacity_per_s=80.0)
    scaler, seen = made(LLM, measured)
    capped = Costs(0.0, 2e-4, 0.0, 1e-3)
    scaler.handle(Arrived("vision", 100), 0.0)
    for pool in (LLM, measured):
        scaler.handle(Paced(pool.name, capped, LLM.costs), 0.0)
    scaler.handle(Look({"llm": Count(1), "measured": Count(1)}), 1.0)
    computed, of_measured = (pool.capacity_per_s for pool in seen.sights[0].pools)
    full = 100 / (100 * 1e-4 + OUTPUT_TOKENS * 1e-3)
    assert computed < full
    assert of_measured / 80.0 == pytest.approx(computed / full)
