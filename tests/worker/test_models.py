"""Which models stay in host memory, what a load is said to take, and what a pace is measured from."""

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace.core.cost import Curve, StepCost, StepWork, pace_of
from headrace.core.errors import Unavailable
from headrace.core.instance import Done, Pace
from headrace.engines.base import StepResult
from headrace.worker.measured import STEPS_MIN, pace_of_steps
from headrace.worker.models import GUESS_S, Models
from headrace.worker.outfit import Outfit
from headrace.worker.tally import Tally
from tests.worker.kit import at_once, card, outfit

NAMES = ("profile-tiny", "profile-tiny-b", "profile-tiny-c", "profile-tiny-d")
SLOW = Pace(0.1, 0.01, 0.001)


def opened(name: str) -> Outfit:
    return outfit(("prefill", "decode"), model=name)


def models(warm_max: int, **known: object) -> Models:
    cards = [card(lambda name=name: opened(name), name, **known) for name in NAMES]  # type: ignore[misc]
    return Models(opened(NAMES[0]), cards, at_once, warm_max, first_load_s=7.0)


@pytest.mark.parametrize(
    ("warm_max", "turns", "warm"),
    [
        (0, "b", ""),
        (1, "b", "a"),
        (1, "bc", "b"),
        (2, "bc", "ab"),
        (2, "bcd", "bc"),
        (2, "bcac", "ab"),
        (3, "bcdb", "acd"),
    ],
)
async def test_those_used_last_stay_warm(warm_max: int, turns: str, warm: str) -> None:
    by_letter = dict(zip("abcd", NAMES, strict=True))
    shelf = models(warm_max)
    for letter in turns:
        assert await shelf.change(by_letter[letter], Pace()) == ""
        assert shelf.loaded.spec.name == by_letter[letter]
    assert {each.model for each in shelf.loadable() if each.warm} == {by_letter[letter] for letter in warm}
    assert by_letter[turns[-1]] not in {each.model for each in shelf.loadable()}


async def test_what_a_load_is_said_to_take() -> None:
    shelf = models(1)
    assert {each.load_s for each in shelf.loadable()} == {7.0}, "as long as the first one took"
    await shelf.change(NAMES[1], SLOW)
    said = {each.model: each for each in shelf.loadable()}
    assert (said[NAMES[0]].warm, said[NAMES[0]].load_s) == (True, GUESS_S[True])
    assert said[NAMES[0]].pace == SLOW, "as it was measured"
    assert said[NAMES[2]].pace == Pace()
    await shelf.change(NAMES[0], Pace())
    assert {each.model: each.load_s for each in shelf.loadable()}[NAMES[1]] < GUESS_S[True], "guesses give way"


async def test_a_profile_knows_better_than_a_measurement_of_its_pace() -> None:
    shelf = models(1, pace=SLOW, modelled_s={False: 0.02, True: 0.01})
    assert {(each.load_s, each.pace) for each in shelf.loadable()} == {(0.02, SLOW)}
    await shelf.change(NAMES[1], Pace(1.0, 1.0, 1.0))
    assert shelf.loaded.pace == SLOW
    assert {each.pace for each in shelf.loadable()} == {SLOW}


async def test_a_load_that_fails_leaves_the_old_model() -> None:
    def broken() -> Outfit:
        raise Unavailable("no weights")

    for warm_max in (0, 1):
        cards = [card(lambda: opened(NAMES[0]), NAMES[0]), card(broken, NAMES[1])]
        shelf = Models(opened(NAMES[0]), cards, at_once, warm_max)
        assert await shelf.change(NAMES[1], Pace()) == f"{NAMES[1]}: no weights"
        assert shelf.loaded.spec.name == NAMES[0]
        assert shelf.loaded.engine is not None
        assert {each.model for each in shelf.loadable()} == {NAMES[1]}


async def test_a_load_that_fails_leaves_no_memory_behind() -> None:
    """What it had read is free before the old model takes its place again: there may be no room for both."""
    thread = ThreadPoolExecutor(1)  # as a worker has

    async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)

    half: list[weakref.ref[Outfit]] = []
    seen: list[bool] = []

    def breaks() -> Outfit:
        read = opened(NAMES[1])
        half.append(weakref.ref(read.engine))  # type: ignore[arg-type]
        raise Unavailable("no room")

    def again() -> Outfit:
        seen.append(half[-1]() is None)
        return opened(NAMES[0])

    shelf = Models(opened(NAMES[0]), [card(again, NAMES[0]), card(breaks, NAMES[1])], in_thread, 0)
    assert await shelf.change(NAMES[1], Pace())
    assert seen == [True]
    thread.shutdown()


def test_a_pace_from_iterations() -> None:
    steps = [(n, p, 0.02 + 0.001 * n + 0.0005 * p) for n in range(1, 33) for p in (0, 0, 64)]
    pace = pace_of_steps(steps)
    assert (pace.step_s, pace.sequence_s, pace.prefill_token_s) == pytest.approx((0.02, 0.001, 0.0005), rel=1e-6)
    assert pace_of_steps(steps[: STEPS_MIN - 1]) == Pace(), "too few to tell"
    falling = [(n, 0, 0.1 - 0.001 * n) for n in range(1, 65)]
    assert min(vars_of(pace_of_steps(falling))) >= 0, "no coefficient is negative"


def vars_of(pace: Pace) -> tuple[float, float, float]:
    return pace.step_s, pace.sequence_s, pace.prefill_token_s


def test_what_was_done_since_the_load() -> None:
    tally = Tally()
    for _ in range(3):
        tally.step(StepResult((), (), 10, 2), 0.4, 0.1)
    assert tally.done == Done(1.5, 3, 30, 6)
    tally.loaded()
    assert (tally.done, tally.iterations) == (Done(), 3), "telemetry counts on"
    tally.step(StepResult((), (), 0, 4), 0.0, 0.25)
    assert tally.done == Done(0.25, 1, 0, 4)


FLAT = StepCost(Curve((0.0, 64.0, 8192.0), (0.02, 0.02, 2.0)), decode_sequence_s=0.001, decode_context_token_s=1e-6)
STEEP = StepCost(Curve((0.0, 4.0, 64.0), (0.001, 0.001, 1.0)))


@pytest.mark.parametrize("slots", [1, 2, 64])
@pytest.mark.parametrize("cost", [FLAT, STEEP, StepCost()], ids=["flat", "steep", "nothing"])
def test_the_line_meets_the_costs_where_it_is_used(cost: StepCost, slots: int) -> None:
    pace = pace_of(cost, slots, 1000)

    def exact_s(sequences: int) -> float:
        return cost.step_s(StepWork(decode_sequences=sequences, decode_context_tokens=1000 * sequences))

    assert min(vars_of(pace)) >= 0
    assert pace.step_s + slots * pace.sequence_s == pytest.approx(exact_s(slots))
    if cost is FLAT:
        assert pace.step_s + pace.sequence_s == pytest.approx(exact_s(1))
        assert pace.sequence_s == pytest.approx(0.002)


def test_a_prefilled_token_costs_what_it_adds_to_a_full_batch() -> None:
    pace = pace_of(StepCost(Curve((0.0, 8192.0), (0.0, 8.192)), prefill_pair_s=2e-6), 64, 999)
    assert pace.prefill_token_s == pytest.approx(0.001 + 500 * 2e-6)
