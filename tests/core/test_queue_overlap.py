"""Storms over requests whose prefill begins on their first media parts: they end once and whole, whatever is lost."""

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from headrace.core.queue import QueueConfig
from tests.core.queue_weather import Weather
from tests.core.queue_world import World
from tests.core.test_queue_world import Storm

# Little room, and all of it may be taken early: who is ready comes to want it.
CROWDED = QueueConfig(epoch=1, overlap_share=1.0, overlap_max=2, overlap_patience_s=1.0)
PLANNED = QueueConfig(epoch=1, overlap_share=1.0, overlap_patience_s=1.0, planner="headrace")


class OverlapStorm(Storm):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(CROWDED)

    @initialize(colocated=st.booleans())
    def workers(self, colocated: bool) -> None:
        self.world.overlaps = True
        super().workers(colocated)


OverlapStorm.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_storm = OverlapStorm.TestCase


class Manifold(Weather):
    """Requests of several images, and encoders that take them one by one."""

    def __init__(self, seed: int) -> None:
        world = World(PLANNED if seed % 3 == 2 else CROWDED)
        super().__init__(world, random.Random(seed))
        world.overlaps = True
        if seed % 2:
            world.add_worker("a", "encode", "prefill", "decode")
            world.add_worker("b", "prefill", "decode", slots=3)
        else:
            world.add_worker("p", "prefill", slots=3)
            world.add_worker("p2", "prefill", slots=3)
            world.add_worker("d", "decode", slots=5)
        world.add_worker("e", "encode")
        world.add_worker("e2", "encode", *(("decode",) if seed % 4 == 0 else ()))
        world.pass_time(0.5)

    def arrive(self) -> None:
        for _ in range(self.draw.randrange(2)):
            images = self.draw.choice((0, 1, 2, 4, 6))
            self.world.submit(images=images, max_tokens=self.draw.choice((1, 2, 5, 20)))


@pytest.mark.parametrize("seed", range(36))
def test_weather(seed: int) -> None:
    weather = Manifold(seed)
    for _ in range(60):
        weather.blow()
    weather.world.calm()


def test_the_weather_does_everything() -> None:
    """Else the storms would prove little."""
    done = Counter[str]()
    for seed in (0, 1, 4, 8, 11):
        weather = Manifold(seed)
        for _ in range(60):
            weather.blow()
        done += weather.before + Counter(weather.done())
    assert done["overlap"] > 30, done
    assert done["put_back"] > 0, done


@pytest.mark.parametrize("colocated", [True, False])
def test_overlap_changes_when_prefill_begins_and_nothing_else(colocated: bool) -> None:
    """In fair weather every request begins early, and gets one attempt."""
    for overlap in (True, False):
        world = World(QueueConfig(epoch=1, overlap=overlap))
        world.overlaps = True
        if colocated:
            world.add_worker("w", "prefill", "decode", slots=16)
        else:
            world.add_worker("p", "prefill", slots=16)
            world.add_worker("d", "decode", slots=16)
        world.add_worker("e", "encode")
        world.pass_time(0.5)
        for images in (1, 2, 3, 4):
            world.submit(images=images)
        world.calm()
        operations = world.core.inspect(world.now_s).operations
        assert operations.get("overlap", 0) == (3 if overlap else 0)
        assert all(result.attempt == 4097 for result in world.results.values())
