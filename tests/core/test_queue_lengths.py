"""Predicted lengths in the queue: asked for once, used when they come, learnt from every end, never waited for."""

from dataclasses import replace

import pytest

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.lengths import LEVELS
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.types import End, Key
from tests.core.queue_world import World, make_request

SSJF = QueueConfig(epoch=1, order="ssjf", predict_lengths=True)


def beat(core: QueueCore, now_s: float) -> None:
    core.handle(ev.Heartbeat("w", "w/1", ("prefill", "decode"), "m", slots=1, blocks=256, block_tokens=16), now_s)


def accept(core: QueueCore, number: int, now_s: float, slo_class: str = "interactive") -> list[fx.Effect]:
    request = replace(make_request(number, now_s, max_tokens=500), slo_class=slo_class)
    return core.handle(ev.RequestAccepted(request, number), now_s)


def say(core: QueueCore, number: int, tokens: float, now_s: float) -> list[fx.Effect]:
    return core.handle(ev.LengthPredicted(f"{number:032x}", (tokens,) * len(LEVELS)), now_s)


def end(core: QueueCore, number: int, tokens: int, now_s: float) -> list[fx.Effect]:
    sent = ev.Ended("w", key_of(core, number), End("stop"), (0,) * tokens)
    return core.handle(sent, now_s)


def key_of(core: QueueCore, number: int) -> Key:
    return Key(f"{number:032x}", core._cell.jobs[f"{number:032x}"].attempt)


def started(effects: list[fx.Effect]) -> list[int]:
    return [int(effect.command.key.request_id, 16) for effect in effects if isinstance(effect, fx.SendPrefill)]


def queue_of_three(config: QueueConfig) -> QueueCore:
    """The first runs on the only slot; the others wait."""
    core = QueueCore(config)
    core.handle(ev.CaughtUp(), 1.0)
    beat(core, 1.0)
    assert started(accept(core, 1, 1.0)) == [1], "an idle worker waits for no prediction"
    accept(core, 2, 1.1)
    accept(core, 3, 1.2)
    return core


def test_it_is_asked_for_each_request_and_for_none_without_a_predictor() -> None:
    for predict, asked in ((True, 1), (False, 0)):
        core = QueueCore(replace(SSJF, predict_lengths=predict))
        core.handle(ev.CaughtUp(), 1.0)
        effects = accept(core, 1, 1.0)
        assert sum(isinstance(effect, fx.PredictLength) for effect in effects) == asked


@pytest.mark.parametrize(
    ("order", "lengths", "next_one", "why"),
    [
        ("ssjf", {2: 400.0, 3: 10.0}, 3, "the shorter one"),
        ("ssjf", {3: 10.0}, 3, "nothing is known of the other: as long as answers are"),
        ("ssjf", {}, 2, "nothing is known of either: who came first"),
        ("fcfs", {2: 400.0, 3: 10.0}, 2, "an order that does not ask for lengths"),
    ],
)
def test_a_prediction_moves_who_waits(order: str, lengths: dict[int, float], next_one: int, why: str) -> None:
    core = queue_of_three(replace(SSJF, order=order))
    for number, tokens in lengths.items():
        say(core, number, tokens, 1.3)
    core.check()
    assert started(end(core, 1, 20, 1.5)) == [next_one], why


def test_a_prediction_for_nobody_or_of_another_shape_changes_nothing() -> None:
    core = queue_of_three(SSJF)
    assert say(core, 9, 1.0, 1.3) == []
    assert core.handle(ev.LengthPredicted(f"{3:032x}", (1.0,)), 1.3) == []
    assert started(end(core, 1, 20, 1.5)) == [2]


def test_the_queue_learns_lengths_by_itself() -> None:
    """Without a predictor: batch answers were long, interactive ones short, so an interactive one goes first."""
    core = QueueCore(replace(SSJF, predict_lengths=False))
    core.handle(ev.CaughtUp(), 1.0)
    beat(core, 1.0)
    for number in range(1, 41):
        accept(core, number, 1.0, "batch-1" if number % 2 else "interactive")
        end(core, number, 400 if number % 2 else 5, 1.0)
    accept(core, 50, 2.0)
    accept(core, 51, 2.1, "batch-1")
    accept(core, 52, 2.2)
    assert started(end(core, 50, 5, 2.5)) == [52]


def test_a_whole_world_runs_on_predictions() -> None:
    world = World(SSJF)
    world.add_worker("w", "prefill", "decode", slots=2)
    for _ in range(12):
        world.submit(max_tokens=6)
    world.calm()
