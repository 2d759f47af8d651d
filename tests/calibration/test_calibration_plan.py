"""Which probes a mesh has room and time for."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import cast

from headrace.calibration.asking import Answer, Asker
from headrace.calibration.probes import (
    PROBE_S_MAX,
    InARow,
    Pictured,
    Plan,
    Steady,
    _answer_tokens,
    _pictures,
    _takes_s,
    _too_long,
)
from headrace.calibration.shape import PoolShape
from headrace.core.cost import Curve, StepCost
from tests.calibration.synthetic import APART, Clockwork

SLOW = StepCost(Curve((1.0, 1001.0), (0.05, 5.05)))  # 50 ms an iteration, 5 ms a token


def test_a_mesh_with_room_is_asked_everything() -> None:
    plan = Plan(lengths=(50, 100, 200, 400), batches=(2, 8))
    probes = plan.probes(APART, 20)
    assert [each.tokens for each in probes if isinstance(each, Steady) and each.count == 1] == [50, 100, 200, 400]
    assert {(each.count, each.tokens) for each in probes if isinstance(each, Steady) and each.count > 1} == {
        *((2, 50), (2, 400), (8, 50), (8, 400))
    }
    assert sum(isinstance(each, InARow) for each in probes) == 4
    assert sum(isinstance(each, Pictured) for each in probes) == len(plan.pictures)


def test_a_small_mesh_is_asked_what_fits() -> None:
    small = [PoolShape("worker", ("prefill", "decode"), 1, 4, 20)]  # 320 tokens of KV
    shape = replace(APART, pools=tuple(small))
    probes = Plan(lengths=(50, 100, 200, 400), batches=(2, 8)).probes(shape, 60)
    assert [str(each) for each in probes] == ["1 x 100 tokens", "1 x 200 tokens"]
    only = Plan(lengths=(10,)).probes(shape, 60)
    assert str(only[0]) == "1 x 68 tokens", "the template alone is longer than what was planned"


@dataclass
class Tiler:
    """Asked for one picture at a time: the first size takes 50 tokens, the next one 200."""

    rng: Random = field(default_factory=lambda: Random(1))
    least_tokens: int = 20
    asked: int = 0

    async def ask(self, text: str, max_tokens: int, pictures: Sequence[bytes]) -> Answer:
        assert len(pictures) == 1
        self.asked += 1
        media_tokens = 50 if self.asked == 1 else 200
        return Answer(0.0, (1.0,), 1.0, (), self.least_tokens + media_tokens, 0, media_tokens)


async def test_more_pictures_than_a_prompt_has_room_for_are_left_out() -> None:
    tiler = Tiler()
    probes = [Pictured(100, 100, 1), Pictured(200, 200, 1), Pictured(200, 200, 2), Pictured(200, 200, 3)]
    pictures = {each: _pictures(each, tiler.rng) for each in probes}
    assert await _too_long(cast(Asker, tiler), pictures, 20 + 400) == [Pictured(200, 200, 3)]
    assert tiler.asked == 2, "one of each size"


def test_what_would_take_too_long_is_known_before_it_is_asked() -> None:
    lone = Clockwork(SLOW).measured(Plan(rounds=1, lengths=(100, 400), batches=(), pictures=())).lone
    assert _takes_s(Steady(100, 2), lone) < PROBE_S_MAX < _takes_s(Steady(400, 8), lone)
    assert _takes_s(InARow(400, 3), lone) < PROBE_S_MAX < _takes_s(InARow(4000, 3), lone), "in proportion"
    assert _takes_s(Pictured(64, 64, 1), lone) == 0


def test_answers_outlast_the_prefills_of_their_batch() -> None:
    lone = Clockwork(SLOW).measured(Plan(rounds=1, lengths=(100,), batches=(), pictures=())).lone
    assert _answer_tokens(Steady(100, 1), lone) == 24
    assert _answer_tokens(Steady(100, 4), lone) * 0.05 > 4 * 0.55
