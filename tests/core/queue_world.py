"""A small world around QueueCore: workers, a gateway, a journal, and a bus that may lose, repeat and reorder."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.planning.heuristic import replan
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.types import End, Key, Media, MediaMeta, MediaSpan, Prompt, Request, Sampling, TensorHandle
from tests.core.queue_worker import MODEL, PACE, Worker, token


def make_request(number: int, now_s: float, *, max_tokens: int = 4, images: int = 0, **changes: Any) -> Request:
    meta = MediaMeta("image", "image/png", 8, 8, 100)
    name = changes.get("id", f"{number:032x}")  # every picture is another one, unless said
    media = tuple([Media(meta, f"{name}{part:032x}", 16) for part in range(images)])
    prompt = Prompt(tuple(range(8 + 16 * images)), tuple(MediaSpan(i, 16 * i, 16) for i in range(images)))
    request = Request(
        id=f"{number:032x}",
        tenant="t",
        model=MODEL,
        slo_class="interactive",
        accepted_s=now_s,
        deadline_s=now_s + 1e6,
        prompt=prompt,
        media=media,
        sampling=Sampling(max_tokens),
        gateway="gw",
    )
    return replace(request, **changes)


@dataclass
class Gateway:
    tokens: dict[str, list[int]] = field(default_factory=dict)
    ends: dict[str, End] = field(default_factory=dict)
    fence: Counter[str] = field(default_factory=Counter)

    def take(self, key: Key, index: int, value: int) -> None:
        if key.attempt < self.fence[key.request_id] or key.request_id in self.ends:
            return
        self.fence[key.request_id] = key.attempt
        tokens = self.tokens.setdefault(key.request_id, [])
        if index == len(tokens):
            tokens.append(value)
        elif index < len(tokens):
            assert tokens[index] == value, f"{key} index {index}: another token"

    def end(self, key: Key, count: int, end: End) -> None:
        if key.attempt < self.fence[key.request_id] or key.request_id in self.ends:
            return
        if len(self.tokens.get(key.request_id, [])) >= count:
            self.ends[key.request_id] = end


class World:
    def __init__(self, config: QueueConfig | None = None) -> None:
        self.now_s = 1000.0
        self.config = config or QueueConfig(epoch=1)
        self.core = QueueCore(self.config)
        self.journal: dict[int, Request] = {}
        self.results: dict[str, fx.StoreResult] = {}
        self.stored: Counter[str] = Counter()
        self.token_log: dict[str, tuple[int, ...]] = {}
        self.gateway = Gateway()
        self.workers: dict[str, Worker] = {}
        self.mail: list[tuple[str, Any, int]] = []  # to, what, epoch; "" is the queue manager
        self.requests: dict[str, Request] = {}
        self.poison: set[str] = set()
        self.seq = 0
        self.redis_up = True
        self.overlaps = False  # workers begin on a request's first parts, and encoders take one at a time
        self.declining = False  # workers decline evictions
        self.host_bytes = 0  # each worker's, for evicted KV caches
        self.pace = PACE  # that each worker tells
        self.late_releases = 64  # a lost or late release leaves a worker fuller than the books say
        self.handle(ev.CaughtUp())

    # --- the shell ---

    def handle(self, event: ev.Event) -> list[fx.Effect]:
        done = self.core.handle(event, self.now_s)
        self.core.check()
        for effect in done:
            self.carry_out(effect)
        return done

    def carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.StoreResult(request=request):
                self.results.setdefault(request.id, effect)
                self.send(ev.ResultStored(request.id), sure=True)
                self.stored[request.id] += 1
            case fx.DeleteRecord(_, seq):
                self.journal.pop(seq, None)
            case fx.DropState(request_id, _):
                self.token_log.pop(request_id, None)
            case fx.FindResults(ids):
                self.send(ev.ResultsFound(len(ids), tuple(i for i in ids if i in self.results)), sure=True)
            case fx.RecoverTokens(orphans):
                self.send(ev.TokensRecovered(tuple(map(self.recover, orphans))), sure=True)
            case fx.GatewayEnded(_, key, end):
                self.end_at_gateway(key, end.usage.completion_tokens, end)
            case fx.LookInResults(_, request_id):
                self.look_in_results(request_id)
            case fx.PredictLength(request):
                values = (1.0,) * 4 + (float(request.sampling.max_tokens),) * 4
                self.send(ev.LengthPredicted(request.id, values))
            case fx.SolvePlan(problem):
                self.send(ev.PlanSolved(replan(problem, 200)))
            case fx.Moved() | fx.Traced():
                pass
            case fx.SendPrefill(worker, command):
                assert command.key.request_id not in self.results, f"{command.key} has ended and runs again"
                self.post(worker, effect, self.config.epoch)
            case _:
                self.post(effect.worker, effect, self.config.epoch)

    def recover(self, orphan: fx.Orphan) -> ev.Recovered:
        request_id = orphan.key.request_id
        self.gateway.fence[request_id] = max(self.gateway.fence[request_id], orphan.key.attempt)
        shown = tuple(self.gateway.tokens.get(request_id, ()))
        end = self.gateway.ends.get(request_id)
        longest = shown if end else max(shown, self.token_log.get(request_id, ()), key=len)
        return ev.Recovered(orphan.key, longest, end)

    def look_in_results(self, request_id: str) -> None:
        result = self.results.get(request_id)
        if result is not None and request_id not in self.gateway.ends:
            shown = self.gateway.tokens.setdefault(request_id, [])
            shown.extend(result.tokens[len(shown) :])
            self.gateway.ends[request_id] = result.end

    def is_there(self, tensor: TensorHandle) -> bool:
        owner = self.workers[tensor.owner]
        return owner.alive and owner.incarnation == tensor.incarnation and owner.serves(tensor)

    # --- the bus ---

    def send(self, event: ev.Event, *, sure: bool = False) -> None:
        self.mail.append(("!" if sure else "", event, self.config.epoch))

    def post(self, worker: str, what: Any, epoch: int) -> None:
        self.mail.append((worker, what, epoch))

    def to_gateway(self, key: Key, index: int, value: int) -> None:
        self.mail.append(("gw", (key, index, value), 0))

    def end_at_gateway(self, key: Key, count: int, end: End) -> None:
        self.mail.append(("gw", (key, count, end), 0))

    def deliver(self, at: int, *, keep: bool = False, lose: bool = False) -> None:
        to, what, epoch = self.mail[at]
        sure = to == "!"
        if not keep or sure:
            del self.mail[at]
        if lose and not sure:
            return
        if to in ("", "!"):
            if not sure or epoch == self.config.epoch:  # answers to a manager that is gone are nobody's
                self.handle(what)
        elif to == "gw":
            key, number, value = what
            self.gateway.end(key, number, value) if isinstance(value, End) else self.gateway.take(key, number, value)
        elif to in self.workers and not self.workers[to].stopped:
            self.workers[to].take(epoch, what)

    def deliver_all(self) -> None:
        while self.mail:
            self.deliver(0)

    # --- what happens ---

    def add_worker(self, name: str, *stages: str, slots: int = 4, models: tuple[str, ...] = (MODEL,)) -> Worker:
        worker = self.workers[name] = Worker(self, name, stages, slots, models)
        return worker

    def submit(self, **about: Any) -> str:
        self.seq += 1
        request = make_request(self.seq, self.now_s, **about)
        self.requests[request.id] = request
        self.journal[self.seq] = request
        self.handle(ev.RequestAccepted(request, self.seq))
        return request.id

    def restart_manager(self) -> None:
        self.config = replace(self.config, epoch=self.config.epoch + 1)
        self.core = QueueCore(self.config)
        for seq, request in sorted(self.journal.items()):
            self.handle(ev.RequestAccepted(request, seq))
        self.handle(ev.CaughtUp())

    def pass_time(self, seconds: float, *, faithful: bool = True) -> None:
        """Half a second at a time: workers beat and step, gateways ask for silent streams, the core ticks."""
        for _ in range(round(seconds / 0.5)):
            self.now_s += 0.5
            for worker in self.workers.values():
                worker.beat()
                worker.step()
            for request_id in self.requests:
                if request_id not in self.gateway.ends:
                    shown = len(self.gateway.tokens.get(request_id, ()))
                    self.send(ev.Stalled(request_id, "gw", 0, shown))
            if faithful:
                self.deliver_all()
            self.handle(ev.Tick())

    def expected(self, request_id: str) -> tuple[int, ...]:
        return tuple(token(request_id, i) for i in range(self.requests[request_id].sampling.max_tokens))

    def calm(self) -> None:
        """The weather clears: everything must end exactly once, whole, and leave nothing behind."""
        self.handle(ev.BusUp())
        for worker in self.workers.values():
            worker.stopped = False
            if not worker.alive:
                worker.start()
        for _ in range(60):
            self.pass_time(2.0)
            if not self.journal and set(self.gateway.ends) == set(self.requests):
                break
        self.pass_time(3.0)
        self.assert_quiet()
        for request_id, end in self.gateway.ends.items():
            self.assert_whole(request_id, end)

    def assert_whole(self, request_id: str, end: End) -> None:
        shown = tuple(self.gateway.tokens.get(request_id, ()))
        whole = self.expected(request_id)
        assert shown == whole[: len(shown)]
        assert end.reason in ("length", "cancelled", "deadline") or self.may_refuse(end), end
        if end.reason == "length":
            assert shown == self.results[request_id].tokens == whole

    def may_refuse(self, end: End) -> bool:
        """Only those who were given back for lack of time may end with an error."""
        return end.failure is not None and end.failure.code in ("deadline_unreachable", "ttl_expired")

    def assert_quiet(self) -> None:
        """Everything ended once, nothing is held anywhere, all books are zero."""
        view = self.core.view(self.now_s)
        assert not self.journal, f"left in the journal: {sorted(self.journal)}"
        assert all(load.queued == load.running == 0 for load in view.classes)
        for shown in view.workers:
            assert (shown.slots_used, shown.blocks_used, shown.pending_media_tokens) == (0, 0, 0), shown
        for worker in self.workers.values():
            assert not worker.held, f"{worker.name} holds {worker.held}"
            assert not worker.parts, f"{worker.name} holds {worker.parts}"
        assert set(self.results) == set(self.requests) == set(self.gateway.ends)
