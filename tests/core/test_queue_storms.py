"""Storms over virtual queues: evictions, moves, model swaps, lost and repeated messages, deaths and restarts."""

import random
from collections import Counter

import pytest

from tests.core.grouped_world import config
from tests.core.queue_weather import Weather
from tests.core.queue_world import World

PLANNED = ("headrace", "headrace", "fcfs", "edf", "shepherd")


class Changeable(Weather):
    def __init__(self, seed: int) -> None:
        world = World(config(planner=PLANNED[seed % len(PLANNED)], pull=seed % 7 != 6))
        super().__init__(world, random.Random(seed), faults=9)
        world.host_bytes = (0, 40, 1 << 20)[seed % 3]
        models = ("m", "n") if seed % 2 else ("m",)
        self.models = models
        if seed % 6 == 4:
            world.add_worker("p", "prefill", slots=2)
            world.add_worker("d", "decode", slots=2)
            world.add_worker("d2", "decode", slots=2)
            self.models = ("m",)
        else:
            world.add_worker("a", "encode", "prefill", "decode", slots=2, models=models)
            world.add_worker("b", "prefill", "decode", slots=2, models=tuple(reversed(models)))
        world.add_worker("e", "encode")
        world.pass_time(0.5)

    def arrive(self) -> None:
        draw = self.draw
        for _ in range(draw.randrange(3)):
            model = draw.choice(self.models)
            self.world.submit(
                images=draw.choice((0, 0, 0, 2)) if model == "m" else 0,
                max_tokens=draw.choice((1, 2, 5, 20)),
                slo_class=draw.choice(("interactive", "batch-2", "batch-2")),
                model=model,
                tenant=draw.choice("xy"),
                priority=draw.choice((0, 0, 0, -1, 2)),
            )


@pytest.mark.parametrize("seed", range(12, 44))
def test_weather_over_virtual_queues(seed: int) -> None:
    weather = Changeable(seed)
    for _ in range(60):
        weather.blow()
    weather.world.declining = False
    weather.world.calm()


def test_the_weather_does_everything() -> None:
    """Else the storms would prove little."""
    done = Counter[str]()
    for seed in (29, 49):
        weather = Changeable(seed)
        for _ in range(60):
            weather.blow()
        done += weather.before + Counter(weather.done())
    assert {"evict", "resume", "move", "load_warm", "balance"} <= done.keys(), done
