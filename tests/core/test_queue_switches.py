"""Operations that are turned on and off while the queue manager runs: what they change, and storms over all of them."""

import pytest

from headrace.core import events as ev
from headrace.core.queue.switches import ALWAYS, SWITCHES
from tests.core.grouped_world import config, first_tokens_s, operations, seen, world_of
from tests.core.queue_world import World
from tests.core.test_queue_storms import Changeable


def busy(world: World) -> str:
    """An urgent request behind two patient ones that run."""
    patient = [world.submit(slo_class="batch-2", max_tokens=40) for _ in range(2)]
    world.pass_time(3.0)
    assert all(seen(world, each) > 2 for each in patient)
    return world.submit(max_tokens=4)


def test_without_evict_an_urgent_request_waits_and_with_it_again_it_does_not() -> None:
    world = world_of(slots=2)
    world.handle(ev.Switched("evict", False))
    urgent = busy(world)
    world.pass_time(0.5)  # who is late already has nobody evicted
    assert not seen(world, urgent)
    assert operations(world).get("evict", 0) == 0
    world.handle(ev.Switched("evict", True))
    assert urgent in first_tokens_s(world, [urgent], 3.0)
    assert operations(world)["evict"] == 1
    world.calm()


def test_what_was_evicted_resumes_when_evicting_is_turned_off() -> None:
    world = world_of(slots=2)
    busy(world)
    world.pass_time(2.0)
    assert operations(world)["evict"] == 1
    for name in SWITCHES:
        world.handle(ev.Switched(name, False))
    world.calm()
    assert operations(world)["resume"] == 1


def test_only_what_means_something_is_offered() -> None:
    assert tuple(World(config()).core.switches()) == SWITCHES
    lines = World(config(planner=""))
    assert tuple(lines.core.switches()) == ALWAYS
    lines.handle(ev.Switched("overlap", False))
    assert lines.core.switches() == {"overlap": False, "early_rejection": True}
    for name in ("move", "swap", "pull", "planner"):
        with pytest.raises(AssertionError, match="nobody may switch"):
            lines.handle(ev.Switched(name, False))


@pytest.mark.parametrize("seed", range(100, 116))
def test_storms_while_everything_is_switched(seed: int) -> None:
    weather = Changeable(seed)
    for _ in range(40):
        weather.blow()
        name = weather.draw.choice(SWITCHES)
        weather.world.handle(ev.Switched(name, weather.draw.random() < 0.5))
    weather.world.declining = False
    weather.world.calm()
