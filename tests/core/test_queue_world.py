"""The queue manager among lost, repeated and reordered messages, dying workers and restarts of its own."""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from headrace.core import events as ev
from headrace.core.governing import Governance, Speeds
from tests.core.queue_weather import Weather
from tests.core.queue_world import World


class Storm(RuleBasedStateMachine):
    """Any order of anything; then calm, and everything must have ended exactly once with nothing left over."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.words = 0

    @initialize(colocated=st.booleans())
    def workers(self, colocated: bool) -> None:
        world = self.world
        if colocated:
            world.add_worker("a", "encode", "prefill", "decode")
            world.add_worker("b", "prefill", "decode", slots=2)
        else:
            world.add_worker("p", "prefill", slots=2)
            world.add_worker("d", "decode")
            world.add_worker("d2", "decode", slots=2)
        world.add_worker("e", "encode")
        world.add_worker("e2", "encode")
        world.pass_time(0.5)

    @rule(images=st.integers(0, 2), max_tokens=st.integers(1, 6))
    def submit(self, images: int, max_tokens: int) -> None:
        if len(self.world.requests) < 12:
            self.world.submit(images=images, max_tokens=max_tokens)

    @rule(data=st.data(), count=st.integers(1, 12))
    def deliver(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.world.mail))):
            at = data.draw(st.integers(0, min(5, len(self.world.mail) - 1)))
            fate = data.draw(st.sampled_from(("arrives", "arrives", "arrives", "arrives", "again", "lost")))
            self.world.deliver(at, keep=fate == "again", lose=fate == "lost")

    @rule()
    def deliver_all(self) -> None:
        self.world.deliver_all()

    @rule(which=st.integers(0, 9))
    def step(self, which: int) -> None:
        workers = list(self.world.workers.values())
        workers[which % len(workers)].step()

    @rule()
    def half_a_second(self) -> None:
        self.world.pass_time(0.5, faithful=False)

    @rule()
    def three_seconds(self) -> None:
        self.world.pass_time(3.0)

    @rule(weight=st.sampled_from((0.0, 1.0)), share=st.sampled_from((0.0, 0.5, 1.0)), speed=st.sampled_from((0.4, 1.0)))
    def govern(self, weight: float, share: float, speed: float) -> None:
        """The first worker alone is governed; calm comes when the lease is over."""
        name = next(iter(self.world.workers))
        said = Governance(name, weight, share, Speeds(speed, speed, speed))
        self.words += 1
        self.world.handle(ev.Governed("gov", 1, self.words, 3.0, (said,)))

    @rule(which=st.integers(0, 9))
    def kill(self, which: int) -> None:
        workers = list(self.world.workers.values())
        workers[which % len(workers)].die()

    @rule(which=st.integers(0, 9))
    def start(self, which: int) -> None:
        workers = list(self.world.workers.values())
        worker = workers[which % len(workers)]
        if not worker.alive:
            worker.start()

    @rule(which=st.integers(0, 9))
    def stop_or_go_on(self, which: int) -> None:
        workers = list(self.world.workers.values())
        workers[which % len(workers)].stopped ^= True

    @rule()
    def restart_manager(self) -> None:
        self.world.restart_manager()

    @rule(number=st.integers(1, 12), deadline=st.booleans())
    def cancel(self, number: int, deadline: bool) -> None:
        self.world.send(ev.Cancel(f"{number:032x}", "gw", deadline))

    @rule(up=st.booleans())
    def bus(self, up: bool) -> None:
        self.world.handle(ev.BusUp() if up else ev.BusDown())

    @rule(up=st.booleans())
    def redis(self, up: bool) -> None:
        self.world.redis_up = up

    def teardown(self) -> None:
        self.world.calm()


Storm.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_storm = Storm.TestCase


class Changeable(Weather):
    def __init__(self, seed: int) -> None:
        world = World()
        super().__init__(world, random.Random(seed))
        if seed % 2:
            world.add_worker("a", "encode", "prefill", "decode")
            world.add_worker("b", "prefill", "decode", slots=2)
        else:
            world.add_worker("p", "prefill", slots=2)
            world.add_worker("d", "decode")
            world.add_worker("d2", "decode", slots=2)
        world.add_worker("e", "encode")
        world.pass_time(0.5)

    def arrive(self) -> None:
        for _ in range(self.draw.randrange(2)):
            self.world.submit(images=self.draw.choice((0, 0, 1, 3)), max_tokens=self.draw.choice((1, 2, 5, 20)))


@pytest.mark.parametrize("seed", range(24))
def test_weather(seed: int) -> None:
    weather = Changeable(seed)
    for _ in range(60):
        weather.blow()
    weather.world.calm()


def test_a_queue_longer_than_every_lease_fails_nobody() -> None:
    """Prefill is sent only what decode has room for, and a deadline begins at admission: nobody's clock is another's
    queue. 40 requests through two slots wait for many leases of 2 s; none is lost, none is tried twice."""
    world = World()
    world.add_worker("p", "prefill", slots=4)
    world.add_worker("d", "decode", slots=2)
    ids = [world.submit(max_tokens=8) for _ in range(40)]
    world.pass_time(10.0)
    waiting = [request_id for request_id in ids if request_id not in world.gateway.ends]
    assert len(waiting) > 20, "they have waited for five leases by now"
    world.calm()
    assert {world.gateway.ends[request_id].reason for request_id in ids} == {"length"}
    assert {world.gateway.fence[request_id] for request_id in ids} == {4096 + 1}, "the first attempt"
