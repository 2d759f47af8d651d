"""The world around QueueCore: gateways, a journal, a bus, workers and links, all in simulated time.

What decides is the core's; the world only carries out effects, lets time pass and writes down what happened.
"""

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from headrace.core import effects as fx
from headrace.core.cost import Link
from headrace.core.events import (
    BusDown,
    BusUp,
    CaughtUp,
    Event,
    LengthPredicted,
    PlanSolved,
    Recovered,
    RequestAccepted,
    ResultsFound,
    ResultStored,
    Tick,
    TokensRecovered,
)
from headrace.core.governing import FULL, Speeds
from headrace.core.lengths import Constant, Predictor, of_request
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.types import End, Key, TensorHandle
from headrace.sim.agenda import Agenda
from headrace.sim.asked import Asked, Part
from headrace.sim.kind import Kind
from headrace.sim.ledger import Ledger
from headrace.sim.network import Mesh, Network, left_behind
from headrace.sim.worker import Worker

START_S = 1_000_000.0  # a moment like any other, but that no time is 0


class World:
    def __init__(
        self, config: QueueConfig, mesh: Mesh, link: Link, core: Callable[[QueueConfig], QueueCore] = QueueCore
    ) -> None:
        self.agenda = Agenda(START_S)
        self.config = config
        self.core = core(config)
        self.mesh = mesh
        self.network = Network(link, mesh.byte_s)
        self.ledger = Ledger(START_S)
        self.workers: dict[str, Worker] = {}
        self.gone: list[Worker] = []  # lives that are over: their seconds and joules count
        self.asked: dict[str, Asked] = {}
        self.tensors = 0
        self.bus_up = True
        self.predictor: Predictor = Constant()  # asked where the configuration has one
        self.gateway_off_s = 0.0  # of the gateways' clocks
        self.one_by_one = False  # iterations are never taken together: slower, and the same
        self.ended: Callable[[Asked], None] = _nobody  # told of each end that a client has seen
        self.first_token: Callable[[Asked], None] = _nobody  # ... and of each first token
        self.speeds_of: Callable[[str], Speeds] = _full_speed  # of a worker that starts
        self._lives: dict[str, int] = {}
        self._pending: list[Event] = []  # what storage will say once the bus is back
        self._solving = False
        self.planner_s = 0.0  # of the clock: in which plans were made
        self._to_solve: fx.SolvePlan | None = None
        self._carry: dict[type, Callable[[Any], None]] = {
            fx.SendPrefill: self._send_prefill,
            fx.SendEncode: self._send,
            fx.SendParts: self._send,
            fx.SendRelease: self._send,
            fx.SendCancel: self._send,
            fx.SendResend: self._send,
            fx.SendEvict: self._send,
            fx.SendResume: self._send,
            fx.SendMove: self._send,
            fx.SendLoad: self._send,
            fx.SendDismiss: self._send,
            fx.SolvePlan: self._solve,
            fx.StoreResult: self._store,
            fx.DropState: self._drop,
            fx.RecoverTokens: self._recover,
            fx.GatewayEnded: self._gateway_ended,
            fx.FindResults: self._find_results,
            fx.PredictLength: self._predict_length,
            fx.DeleteRecord: _nothing,
            fx.LookInResults: _nothing,
            fx.Moved: _nothing,
            fx.Traced: _nothing,
        }
        self.handle(CaughtUp())

    @property
    def now_s(self) -> float:
        return self.agenda.now_s

    # --- the queue manager ---

    def handle(self, event: Event) -> None:
        for effect in self.core.handle(event, self.agenda.now_s):
            self._carry[type(effect)](effect)

    def tick(self) -> None:
        self.handle(Tick())
        self.agenda.after(self.mesh.tick_s, self.tick)

    def send(self, event: Event) -> None:
        """A worker's word to the queue manager; lost while the bus is down."""
        if self.bus_up:
            self.agenda.after(self.mesh.event_s, self.handle, event)

    def _send_prefill(self, effect: fx.SendPrefill) -> None:
        command = effect.command
        asked = self.asked[command.key.request_id]
        if len(command.embeddings) < len(asked.parts):
            self.ledger.count("overlaps")
        if command.key.attempt != asked.attempt:  # not one that is said again
            asked.attempt = command.key.attempt
            queued = next(span for span in reversed(command.timeline) if span.stage == "queue")
            self.ledger.dispatched(asked.row, queued.start_s, self.now_s)
        self._send(effect)

    def _send(self, effect: Any) -> None:
        if self.bus_up:
            self.agenda.after(self.mesh.queue_s, self._deliver, effect.worker, self.config.epoch, effect, 0.0)

    def post(self, worker: str, command: Any, about: float, *, delay_s: float) -> None:
        """One worker's word to another; with the queue manager's epoch, as live ones pass it on."""
        if self.bus_up:
            self.agenda.after(delay_s, self._deliver, worker, self.config.epoch, command, about)

    def _deliver(self, worker_id: str, epoch: int, what: Any, about: float) -> None:
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.take(epoch, what, about)

    # --- storage ---

    def _store(self, effect: fx.StoreResult) -> None:
        self._stored(ResultStored(effect.request.id))

    def _find_results(self, effect: fx.FindResults) -> None:
        self._stored(ResultsFound(len(effect.request_ids), ()))

    def _predict_length(self, effect: fx.PredictLength) -> None:
        request = effect.request
        said = self.predictor.predict(request.id, of_request(request))
        self.agenda.after(self.mesh.predict_s, self.handle, LengthPredicted(request.id, said.values))

    # --- the planner's process ---

    def _solve(self, effect: fx.SolvePlan) -> None:
        """One at a time; of those that wait the newest alone is worth its while."""
        if self._solving:
            self._to_solve = effect
        else:
            self._solving = True
            self.agenda.after(self.mesh.plan_s, self._solved, effect)

    def _solved(self, effect: fx.SolvePlan) -> None:
        from headrace.core.planning.answer import answer  # a solver that only planners need

        self.ledger.count("plans")
        began_s = time.perf_counter()
        plan = answer(effect)
        self.planner_s += time.perf_counter() - began_s
        self.handle(PlanSolved(plan))
        self._solving = False
        waiting, self._to_solve = self._to_solve, None
        if waiting is not None:
            self._solve(waiting)

    # --- recovery ---

    def _recover(self, effect: fx.RecoverTokens) -> None:
        """Gateways fence older attempts and say what their clients have seen."""
        self._stored(TokensRecovered(tuple([self._recovered(orphan) for orphan in effect.orphans])))

    def _recovered(self, orphan: fx.Orphan) -> Recovered:
        asked = self.asked[orphan.key.request_id]
        asked.fence = max(asked.fence, orphan.key.attempt)
        end = End(asked.ended) if asked.ended else None  # type: ignore[arg-type]
        return Recovered(orphan.key, self.zeros(asked.shown), end)

    def _stored(self, answer: Event) -> None:
        """What storage is asked is answered, however long the bus is away."""
        if self.bus_up:
            self.agenda.after(2 * self.mesh.event_s, self.handle, answer)
        else:
            self._pending.append(answer)

    def _drop(self, effect: fx.DropState) -> None:
        del self.asked[effect.request_id]

    # --- gateways ---

    def arrive(self, asked: Asked) -> None:
        """A request comes to its gateway; without a bus it is refused."""
        request = asked.request
        if not self.bus_up:
            self.ledger.count("refused_without_a_bus")
            self.refuse(asked)
            return
        self.asked[request.id] = asked
        self.agenda.after(self.admit_s(asked.parts), self._accepted, RequestAccepted(request, asked.row + 1))

    def admit_s(self, parts: tuple[Part, ...]) -> float:
        """From the question to the queue manager."""
        mesh = self.mesh
        if not parts:
            return mesh.admit_s
        pixels = sum([part.pixels for part in parts])
        return mesh.admit_s + len(parts) * mesh.admit_part_s + pixels / 1e6 * mesh.admit_megapixel_s

    def refuse(self, asked: Asked) -> None:
        """It was never accepted: its client is told at once."""
        self._end_seen(asked, "error")

    def _accepted(self, event: RequestAccepted) -> None:
        if self.bus_up:
            self.handle(event)
        else:  # the journal has it: it is read when the bus is back
            self._pending.append(event)

    def told(self, asked: Asked, key: Key, tokens: int) -> None:
        """A worker has said all tokens up to so many."""
        if key.attempt < asked.fence or asked.ended:
            return
        if not asked.shown:
            self.ledger.first_token(asked.row, self.now_s + self.mesh.deliver_s)
            self.first_token(asked)
        asked.shown = max(asked.shown, tokens)

    def end_told(self, asked: Asked, key: Key, end: End, tokens: int) -> None:
        if key.attempt >= asked.fence and not asked.ended and asked.shown >= tokens:
            self._end_seen(asked, end.reason)

    def _gateway_ended(self, effect: fx.GatewayEnded) -> None:
        asked = self.asked[effect.key.request_id]
        if not asked.ended:
            self._end_seen(asked, effect.end.reason)

    def _end_seen(self, asked: Asked, reason: str) -> None:
        asked.ended = reason
        self.ledger.end(asked.row, self.now_s + self.mesh.deliver_s, reason, asked.shown)
        self.ended(asked)

    # --- workers ---

    def launch(self, worker_id: str, kind: Kind) -> Worker:
        """A worker that serves from now on."""
        life = self._lives[worker_id] = self._lives.get(worker_id, 0) + 1
        before = self.workers.get(worker_id)
        assert before is None or not before.alive, f"{worker_id} is there already"
        if before is not None:
            self.gone.append(before)
        worker = self.workers[worker_id] = Worker(self, worker_id, kind, life)
        worker.start()
        if (speeds := self.speeds_of(worker_id)) != FULL:
            worker.run_at(speeds)
        self._beat(worker)
        return worker

    def _beat(self, worker: Worker) -> None:
        if worker.alive:
            if not worker.stopped:
                worker.beat()
            self.agenda.after(self.mesh.heartbeat_s, self._beat, worker)

    def is_there(self, handle: TensorHandle) -> bool:
        owner = self.workers.get(handle.owner)
        return owner is not None and owner.offers(handle)

    def left_behind(self, size_bytes: float, prefill_s: float) -> float:
        """Bytes of a KV cache that are still to come when its prefill ends, if it travels meanwhile."""
        return left_behind(self.network.byte_s, size_bytes, prefill_s, self.mesh.pipeline_bytes)

    # --- the bus ---

    def take_bus_down(self) -> None:
        self.bus_up = False
        self.handle(BusDown())

    def bring_bus_up(self) -> None:
        self.bus_up = True
        self.handle(BusUp())
        pending, self._pending = self._pending, []
        for event in pending:
            self.handle(event)

    # --- small things ---

    @staticmethod
    @lru_cache(maxsize=65_536)
    def zeros(count: int) -> tuple[int, ...]:
        """So many tokens, whose values nobody asks for; shared."""
        return (0,) * count

    def all_workers(self) -> Iterable[Worker]:
        """Every life there was."""
        return (*self.gone, *self.workers.values())

    def check_quiet(self) -> None:
        """Invariants of a run that has come to its end: everything ended once, and nothing is held anywhere."""
        self.core.check()
        view = self.core.view(self.now_s)
        assert not self.asked, f"{len(self.asked)} requests are left, such as {next(iter(self.asked))}"
        assert all(load.queued == load.running == 0 for load in view.classes)
        for shown in view.workers:
            assert (shown.slots_used, shown.blocks_used, shown.pending_media_tokens) == (0, 0, 0), shown
        for worker in self.workers.values():
            if not worker.alive or worker.stopped:
                continue
            assert not worker.held, f"{worker.id} holds {len(worker.held)} requests"
            assert worker.encode is None or not worker.encode.parts, f"{worker.id} keeps {len(worker.encode.parts)}"
            assert not worker.parking.used_bytes, f"{worker.id} keeps {worker.parking.used_bytes} bytes of KV caches"
            if worker.llm is not None:
                worker.llm.batch.check_integrity()


def _nothing(effect: fx.Effect) -> None:
    """Storage forgets, or a gateway looks elsewhere: nothing that takes part in a simulation."""


def _nobody(asked: Asked) -> None:
    pass


def _full_speed(worker_id: str) -> Speeds:
    return FULL
