"""A simulated world whose queue manager does what a test tells it: for what workers do with each command."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.core import effects as fx
from headrace.core.commands import Hold, PrefillCommand
from headrace.core.cost import Link
from headrace.core.events import Event, Heartbeat
from headrace.core.queue import QueueConfig
from headrace.core.types import Key, Prompt, Request, Sampling, StageSpan
from headrace.sim.asked import Asked
from headrace.sim.fleet import kind_of
from headrace.sim.kind import Kind
from headrace.sim.network import Mesh
from headrace.sim.world import START_S, World
from headrace.workload.fleet import PoolSpec

FIRST, SECOND = "llama-3.1-8b", "mistral-7b"
COLD_S, WARM_S = 10.0, 2.0
POOL = PoolSpec(
    "llm",
    ("prefill", "decode"),
    gpu="a100",
    count=2,
    models=(FIRST, SECOND),
    load_cold_s=COLD_S,
    load_warm_s=WARM_S,
)


@dataclass(slots=True)
class Heard:
    """Stands where QueueCore does: hears everything, decides nothing."""

    events: list[tuple[float, Event]] = field(default_factory=list)

    def handle(self, event: Event, now_s: float) -> list[fx.Effect]:
        self.events.append((round(now_s - START_S, 9), event))
        return []


class Stage:
    """Two workers, requests, and a clock that a test turns."""

    def __init__(self, pool: PoolSpec = POOL, *, one_by_one: bool = False, **changes: Any) -> None:
        self.kind: Kind = replace(kind_of(pool, FIRST), **changes)
        self.world = World(QueueConfig(epoch=1), Mesh(), Link(1e-3, 25e9))
        self.heard = Heard()
        self.world.core = self.heard  # type: ignore[assignment]
        self.world.one_by_one = one_by_one
        for number in range(pool.count):
            self.world.launch(f"llm-{number}", self.kind)

    def ask(
        self, *, prompt: int = 1000, output: int = 200, model: str = FIRST, worker: str = "llm-0", decode: str = ""
    ) -> Key:
        """A request is sent to a worker."""
        row = self.world.ledger.arrive(self.world.now_s, prompt, 0, 0, 0, 20.0)
        tokens: Any = range(prompt)
        request = Request(
            f"{row:032x}",
            "",
            model,
            "interactive",
            self.world.now_s,
            self.world.now_s + 1e6,
            Prompt(tokens),
            (),
            Sampling(output),
            "",
        )
        self.world.asked[request.id] = Asked(request, row, output, (), 0)
        key = Key(request.id, 1)
        queued = (StageSpan("queue", self.world.now_s, self.world.now_s, "qm"),)
        command = PrefillCommand(
            key,
            model,
            request.prompt,
            request.sampling,
            "",
            decode or worker,
            request.deadline_s,
            timeline=queued,
        )
        self.tell(fx.SendPrefill(worker, command))
        return key

    def tell(self, effect: Any) -> None:
        self.world._carry[type(effect)](effect)

    def at(self, at_s: float, call: Callable[..., Any], *args: Any) -> None:
        self.world.agenda.at(START_S + at_s, call, *args)

    def until(self, at_s: float) -> "Stage":
        self.world.agenda.run(START_S + at_s, lambda: False)
        return self

    def said(self, *kinds: type) -> list[tuple[float, Any]]:
        """Events of these kinds, or all of them, each with its time."""
        return [(at_s, event) for at_s, event in self.heard.events if not kinds or isinstance(event, kinds)]

    def names(self) -> list[str]:
        """What was said, heartbeats apart, in order."""
        return [type(event).__name__ for _, event in self.heard.events if not isinstance(event, Heartbeat)]

    def beats(self, worker: str = "llm-0") -> list[tuple[float, Heartbeat]]:
        return [(at_s, beat) for at_s, beat in self.said(Heartbeat) if beat.worker == worker]

    def hold(self, key: Key, worker: str = "llm-0") -> Hold | None:
        """In the worker's last heartbeat."""
        return next((hold for hold in self.beats(worker)[-1][1].holds if hold.key == key), None)

    def shown(self, key: Key) -> int:
        """Tokens that its client has seen."""
        return self.world.asked[key.request_id].shown

    def release(self, key: Key) -> None:
        for worker in self.world.workers:
            self.tell(fx.SendRelease(worker, key))

    def quiet(self) -> None:
        """Everything is released: nobody holds anything."""
        for asked in list(self.world.asked.values()):
            self.release(Key(asked.request.id, 4))
        self.until(self.world.now_s - START_S + 2.0)
        for worker in self.world.workers.values():
            assert not worker.held
            assert worker.parking.used_bytes == 0
            assert worker.llm is not None
            worker.llm.batch.check_integrity()
            assert len(worker.llm.batch) == 0
