"""The same of a simulated world: what its queue manager does is on its tape, and replays to every effect."""

from collections import Counter
from typing import Any

import pytest

from headrace.core.effects import Effect
from headrace.core.events import CaughtUp, Event
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.slo import SloClass
from headrace.core.tape import Frame, frame_line, header_line, read_tape
from headrace.sim.held import Held
from headrace.sim.kind import Kind
from headrace.sim.loading import Shelf
from headrace.sim.parking import Parking
from headrace.sim.run import Run
from headrace.sim.world import START_S
from headrace.workload.arrival import Arrival
from headrace.workload.fleet import Incident, PoolSpec
from tests.parity.replaying import (
    OPERATIONS,
    PLANNED_EFFECTS,
    PLANNED_EVENTS,
    SWITCHES,
    differs,
    kinds,
    replayed,
    reverse_victims,
    without,
)
from tests.sim.scenes import HURRIED, OTHER, TEXT, TIGHT, scene, streams

BROKEN = "qwen2-7b"
CLASSES = (
    *HURRIED,
    SloClass("hopeless", 1.0, 2.0, 64),
    SloClass("impatient", 2.0, 600.0, 64, ttl_s=3.0),
)


class Recorded:
    """Stands where QueueCore does, and writes down what that is told and does."""

    def __init__(self, config: QueueConfig) -> None:
        self.core = QueueCore(config)
        self.lines = [header_line(config)]

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        effects = self.core.handle(event, now_s)
        self.lines.append(frame_line(now_s, event, effects))
        return effects

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)


class Watched(Recorded):
    """Somebody looks at it between any two events."""

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        effects = super().handle(event, now_s)
        self.core.view(now_s + 0.01)
        self.core.inspect(now_s + 0.01)
        for request_id in self.core.live_ids() or ():
            self.core.explain(request_id, now_s + 0.01)
        return effects


def recorded(run: Run, kind: type[Recorded] = Recorded) -> Recorded:
    """Its world has begun: the queue manager knows that its journal is empty."""
    tape = kind(run.world.config)
    tape.handle(CaughtUp(), START_S)
    run.world.core = tape  # type: ignore[assignment]
    run.go()
    return tape


def asked(at_s: float, count: int, model: str, slo_class: str, output: int, most: int = 0) -> list[Arrival]:
    return [
        Arrival(at_s + n / 1000, 200, output, max_tokens=most, slo_class=slo_class, model=model) for n in range(count)
    ]


class Spoilt(Shelf):
    """One of the models that it says it has cannot be loaded."""

    def get(self, model: str) -> Kind | None:
        return None if model == BROKEN else super().get(model)


class Reluctant(Parking):
    """It declines the first eviction: its host memory is full, as it says."""

    declined = False

    def take(self, held: Held, size_bytes: int) -> bool:
        first, self.declined = not self.declined, True
        return not first and super().take(held, size_bytes)


# Two workers with two slots each; a token takes 14 ms.
STORY = (
    *asked(0.1, 1, BROKEN, "impatient", 10),  # cannot be loaded anywhere: it expires
    *asked(1.0, 2, TEXT, "batch-1", 600),
    *asked(1.1, 1, OTHER, "hopeless", 10),  # has less time than loading takes: it is refused
    *asked(1.2, 2, TEXT, "batch-1", 20, most=600),  # nobody knows how soon these end
    *asked(1.3, 4, TEXT, "batch-1", 600),  # a group for one worker: the other one helps when it has room
    *asked(4.0, 2, TEXT, "interactive", 30),  # others are evicted for them
    *asked(6.0, 4, OTHER, "interactive", 100),  # the other model, cold; who was evicted goes on elsewhere
    *asked(14.0, 6, TEXT, "interactive", 300),  # and back, warm
    *asked(15.0, 4, OTHER, "batch-1", 100),
    *asked(20.0, 4, TEXT, "batch-1", 300),
    *asked(60.0, 16, OTHER, "interactive", 600),  # more than one worker can do in time: both have it now
    *asked(130.0, 4, TEXT, "interactive", 100),  # out of host memory
)


def told(kind: type[Recorded] = Recorded, *, reluctant: bool = False) -> Recorded:
    models = (TEXT, OTHER, BROKEN)
    pool = PoolSpec(
        "llm",
        ("prefill", "decode"),
        gpu="a100",
        count=2,
        slots=2,
        models=models,
        load_cold_s=4.0,
        load_warm_s=1.0,
    )
    run = Run(scene((pool,), model=TEXT, classes=CLASSES), "headrace", 1, STORY)
    for worker in run.world.workers.values():
        worker.shelf = Spoilt(worker.kind)
        if reluctant:
            worker.parking = Reluctant(worker)
    return recorded(run, kind)


@pytest.fixture(scope="module")
def story() -> tuple[Recorded, Recorded]:
    return told(), told(reluctant=True)


def read(tape: Recorded) -> tuple[QueueConfig, list[Frame]]:
    config, frames = read_tape(tape.lines)
    return config, list(frames)


def test_all_that_the_planner_does_is_on_the_tapes(story: tuple[Recorded, Recorded]) -> None:
    done = Counter[str]()
    for tape in story:
        done.update(tape.core.inspect(0.0).operations)
        events, effects = kinds(read(tape)[1])
        assert events.keys() >= PLANNED_EVENTS
        assert effects.keys() >= PLANNED_EFFECTS
        assert tape.core.inspect(0.0).planner.plans_applied
    assert done.keys() >= OPERATIONS


def test_they_replay_to_every_effect(story: tuple[Recorded, Recorded]) -> None:
    for tape in story:
        core, differing = replayed(*read(tape))
        assert differing == []
        assert core.inspect(0.0) == tape.core.inspect(0.0)


def test_who_looks_on_changes_nothing(story: tuple[Recorded, Recorded]) -> None:
    assert [told(Watched).lines, told(Watched, reluctant=True).lines] == [tape.lines for tape in story]


@pytest.mark.parametrize("off", SWITCHES)
def test_the_comparison_sees_each_operation(story: tuple[Recorded, Recorded], off: str) -> None:
    config, frames = read(story[0])
    assert differs(without(config, off), frames)


def test_it_sees_another_victim(story: tuple[Recorded, Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    reverse_victims(monkeypatch)
    assert differs(*read(story[0]))


@pytest.mark.parametrize("policy", ["headrace+oracle", "headrace-move", "vq-edf", "shepherd", "srpt"])
def test_whatever_befalls_the_fleet_its_tape_replays(policy: str) -> None:
    befalls = (
        Incident(3.0, "kill", "llm-0"),
        Incident(5.0, "bus_down", seconds=1.0),
        Incident(7.0, "stop", "llm-1", seconds=1.5),
        Incident(9.0, "start", "llm"),
        Incident(9.5, "drain", "llm-1"),
    )
    scenario = scene(TIGHT, streams(1.5, 0.8), model=TEXT, duration_s=12.0, classes=HURRIED, incidents=befalls)
    tape = recorded(Run(scenario, policy, 1))
    core, differing = replayed(*read(tape))
    assert differing == []
    assert core.inspect(0.0) == tape.core.inspect(0.0)
