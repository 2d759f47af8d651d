"""A worker that keeps the contract of the real ones and computes nothing: token i of a request is a function of both.

The newest attempt wins, released attempts are fenced, everything held is listed in heartbeats.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.commands import (
    EncodeCommand,
    Hold,
    JoinCommand,
    MoveCommand,
    PartsCommand,
    PrefillCommand,
    ResendCommand,
)
from headrace.core.instance import Loadable, Pace
from headrace.core.types import End, Failure, Key, TensorHandle

if TYPE_CHECKING:
    from tests.core.queue_world import World

MODEL = "m"
PACE = Pace(0.5, 0.0, 0.0)  # an iteration each half second
LOAD_STEPS = 2


def token(request_id: str, index: int) -> int:
    return int(request_id, 16) * 1000 + index


def handle(kind: str, key: Key, owner: str, incarnation: str) -> TensorHandle:
    return TensorHandle(
        f"{kind}.{key.request_id}.{key.attempt}", owner, incarnation, "", "h", "", "f4", (1,), "", 4, 0, 1
    )


@dataclass
class Held:
    command: PrefillCommand
    state: str  # prefill, handover, joining, decode, evicted, rejoining, ended
    tokens: list[int]
    gateway: str
    end: End | None = None
    kv: TensorHandle | None = None


class Worker:
    """A process with any of the three stages."""

    def __init__(
        self, world: "World", name: str, stages: tuple[str, ...], slots: int = 4, models: tuple[str, ...] = (MODEL,)
    ) -> None:
        self.world = world
        self.name = name
        self.stages = stages
        self.slots = slots
        self.models = models  # that it may load; the first is there at its start
        self.lives = 0
        self.alive = self.stopped = False
        self.epoch = 0
        self.held: dict[str, Held] = {}
        self.parts: dict[tuple[Key, int], TensorHandle | None] = {}
        self.fenced: Counter[str] = Counter()
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.alive, self.stopped = True, False
        self.epoch = 0
        self.held, self.parts, self.fenced = {}, {}, Counter()
        self.model, self.loading, self.load_steps = self.models[0], "", 0

    @property
    def incarnation(self) -> str:
        return f"{self.name}/{self.lives}"

    def take(self, epoch: int, effect: Any) -> None:
        if not self.alive or epoch < self.epoch:
            return
        self.epoch = epoch
        match effect:
            case fx.SendEncode(_, EncodeCommand() as command):
                self.parts.setdefault((command.key, command.part), None)
            case fx.SendPrefill(_, PrefillCommand() as command):
                self.begin(command, "prefill", None)
            case fx.SendParts(_, PartsCommand() as command):
                self.feed(command)
            case JoinCommand(request, kv):
                assert "decode" in self.stages, f"{self.name} does not decode"
                self.begin(request, "joining", kv)
            case fx.SendEvict(_, key):
                self.evict(key)
            case fx.SendResume(_, key):
                held = self.held.get(key.request_id)
                if held is not None and held.command.key == key and held.state == "evicted":
                    held.state = "rejoining"
            case fx.SendMove(_, MoveCommand(key, worker)):
                self.move(key, worker)
            case fx.SendLoad(_, model):
                self.load(model)
            case fx.SendCancel(_, key):
                self.cancel(key)
            case fx.SendRelease(_, key):
                self.release(key)
            case fx.SendResend(_, ResendCommand(key, index, gateway)):
                self.resend(key, index, gateway)

    def begin(self, command: PrefillCommand, state: str, kv: TensorHandle | None) -> None:
        key, known = command.key, self.held.get(command.key.request_id)
        if key.attempt <= max(self.fenced[key.request_id], known.command.key.attempt if known else 0):
            return
        if known is not None:
            del self.held[key.request_id]
        if self.loading or command.model != self.model:
            self.world.send(ev.StageFailed(self.name, key, Failure("stage_error", "another model"), True))
            return
        held = Held(command, state, list(command.emitted), command.gateway, kv=kv)
        self.held[key.request_id] = held
        in_engine = sum(other.state in ("prefill", "decode", "joining") for other in self.held.values())
        assert in_engine <= self.slots + self.world.late_releases, f"{self.name} was sent more than it can take"
        if len(held.tokens) >= command.sampling.max_tokens:
            self.end(held, End("length"))

    def feed(self, command: PartsCommand) -> None:
        held = self.held.get(command.key.request_id)
        if held is None or held.command.key != command.key or held.state != "prefill":
            return
        known = held.command.embeddings
        if command.first <= len(known):
            more = command.embeddings[len(known) - command.first :]
            held.command = replace(held.command, embeddings=known + more)

    def lacks(self, held: Held) -> int:
        return len(held.command.prompt.spans) - len(held.command.embeddings) if held.state == "prefill" else 0

    def evict(self, key: Key) -> None:
        held = self.held.get(key.request_id)
        if held is None or held.command.key != key or self.world.declining:
            return
        if held.state == "decode":
            held.state = "evicted"
            kind = f"evicted{len(held.tokens)}"
            held.kv = handle(kind, key, self.name, self.incarnation)
        if held.state == "evicted":
            assert held.kv is not None
            self.world.send(ev.Evicted(self.name, key, len(held.tokens), held.kv))

    def move(self, key: Key, worker: str) -> None:
        held = self.held.get(key.request_id)
        if held is not None and held.command.key == key and held.state in ("evicted", "handover"):
            held.state = "handover"
            held.command = replace(held.command, decode_worker=worker)
            self.hand_over(held)

    def load(self, model: str) -> None:
        """What still decodes is evicted, what has not begun fails."""
        if model in (self.model, self.loading) or model not in self.models:
            return
        self.loading, self.load_steps = model, LOAD_STEPS
        for held in list(self.held.values()):
            key = held.command.key
            if held.state == "decode":
                self.evict(key)
            if held.state in ("prefill", "joining", "rejoining", "decode"):
                del self.held[key.request_id]
                self.world.send(ev.StageFailed(self.name, key, Failure("stage_error", "another model"), True))

    def cancel(self, key: Key) -> None:
        self.fenced[key.request_id] = max(self.fenced[key.request_id], key.attempt)
        held = self.held.get(key.request_id)
        for part in [part for part in self.parts if part[0] == key]:
            del self.parts[part]
        if held is not None and held.command.key.attempt <= key.attempt and held.state != "ended":
            self.end(held, End("cancelled"))

    def release(self, key: Key) -> None:
        self.fenced[key.request_id] = max(self.fenced[key.request_id], key.attempt)
        held = self.held.get(key.request_id)
        if held is not None and held.command.key.attempt <= key.attempt:
            del self.held[key.request_id]
        for part in [part for part in self.parts if part[0] == key]:
            del self.parts[part]

    def resend(self, key: Key, index: int, gateway: str) -> None:
        held = self.held.get(key.request_id)
        if held is None or held.command.key != key:
            return
        held.gateway = gateway
        for at in range(index, len(held.tokens)):
            self.world.to_gateway(key, at, held.tokens[at])
        if held.end is not None:
            self.world.end_at_gateway(key, len(held.tokens), held.end)

    def end(self, held: Held, end: End) -> None:
        held.state, held.end = "ended", end
        self.world.end_at_gateway(held.command.key, len(held.tokens), end)
        self.say_ended(held)

    def say_ended(self, held: Held) -> None:
        assert held.end is not None
        self.world.send(ev.Ended(self.name, held.command.key, held.end, tuple(held.tokens)))

    def hand_over(self, held: Held) -> None:
        assert held.kv is not None
        join = JoinCommand(replace(held.command, emitted=tuple(held.tokens), gateway=held.gateway), held.kv)
        self.world.post(held.command.decode_worker, join, self.epoch)

    def emit(self, held: Held) -> None:
        key = held.command.key
        held.tokens.append(token(key.request_id, len(held.tokens)))
        self.world.to_gateway(key, len(held.tokens) - 1, held.tokens[-1])
        if self.world.redis_up:
            self.world.token_log[key.request_id] = max(self.world.token_log.get(key.request_id, ()), tuple(held.tokens))
        if len(held.tokens) >= held.command.sampling.max_tokens:
            self.end(held, End("length"))

    def step(self) -> None:
        """One iteration of everything here."""
        if not self.alive or self.stopped:
            return
        if self.loading:
            self.load_steps -= 1
            if not self.load_steps:
                self.model, self.loading = self.loading, ""
            return
        waiting = [place for place, made in self.parts.items() if made is None]
        for key, part in waiting[:1] if self.world.overlaps else waiting:
            embedding = self.parts[key, part] = handle(f"emb{part}", key, self.name, self.incarnation)
            self.world.send(ev.PartEncoded(self.name, key, part, embedding))
        for held in list(self.held.values()):
            self.step_request(held)

    def step_request(self, held: Held) -> None:
        key = held.command.key
        if held.command.key.request_id in self.world.poison and held.state in ("prefill", "decode"):
            self.die()
        elif held.state == "prefill":
            assert self.world.overlaps or not self.lacks(held)
            for part, embedding in enumerate(held.command.embeddings):
                assert embedding.id.startswith(f"emb{part}."), f"{key} has {embedding.id} as part {part}"
            if not all(map(self.world.is_there, held.command.embeddings)):
                del self.held[key.request_id]
                self.world.send(ev.StageFailed(self.name, key, Failure("stage_error", "no embedding"), True))
                return
            if self.lacks(held):
                return
            self.emit(held)
            if held.state == "ended":
                return
            if held.command.decode_worker == self.name:
                held.state = "decode"
                return
            held.state, held.kv = "handover", handle("kv", key, self.name, self.incarnation)
            self.world.send(ev.Prefilled(self.name, key, len(held.tokens), held.kv))
            self.hand_over(held)
        elif held.state == "joining":
            assert held.kv is not None
            if not self.world.is_there(held.kv):
                del self.held[key.request_id]
                self.world.send(ev.StageFailed(self.name, key, Failure("stage_error", "no KV"), True))
                return
            held.state = "decode"
            self.world.send(ev.Joined(self.name, key))
        elif held.state == "rejoining":
            held.state, held.kv = "decode", None
            self.world.send(ev.Joined(self.name, key))
        elif held.state == "decode":
            self.emit(held)

    def listed(self) -> list[Hold]:
        return [
            Hold(
                held.command.key,
                "evicted" if held.state == "rejoining" else held.state,  # type: ignore[arg-type]
                len(held.tokens),
                0,
                held.kv,
                held.command.decode_worker,
                self.lacks(held),
            )
            for held in self.held.values()
            if held.state != "joining"
        ]

    def loadable(self) -> tuple[Loadable, ...]:
        if len(self.models) == 1:
            return ()
        return tuple(
            Loadable(model, 1.0, True, self.slots, 64, 16, PACE) for model in self.models if model != self.model
        )

    def beat(self) -> None:
        if not self.alive or self.stopped:
            return
        holds = self.listed()
        holds += [
            Hold(key, "encoded" if made else "encoding", 0, part, made) for (key, part), made in self.parts.items()
        ]
        self.world.send(
            ev.Heartbeat(
                self.name,
                self.incarnation,
                self.stages,
                self.model,
                slots=self.slots,
                blocks=64,
                block_tokens=16,
                holds=tuple(holds),
                sent_s=self.world.now_s,
                modalities=("image",) if "encode" in self.stages else (),
                epoch=self.epoch,
                pace=self.world.pace,
                kv_bytes_per_token=1,
                host_bytes=self.world.host_bytes,
                loadable=self.loadable(),
                loading=self.loading,
                overlaps=self.world.overlaps,
            )
        )
        for held in self.held.values():
            if held.state == "ended":
                self.say_ended(held)

    def serves(self, tensor: TensorHandle) -> bool:
        return tensor in self.parts.values() or any(held.kv == tensor for held in self.held.values())

    def die(self) -> None:
        self.alive = False
        self.held, self.parts = {}, {}
