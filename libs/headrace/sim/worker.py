"""A simulated worker process: commands in, events out, by the contract of the live ones (headrace.worker).

The newest attempt wins, released attempts are fenced, everything held is listed in heartbeats. Its stages share one
device and take turns on it.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace.core import effects as fx
from headrace.core.commands import EncodeCommand, Hold, HoldState, JoinCommand, PrefillCommand
from headrace.core.events import Ended, Event, Heartbeat, StageFailed
from headrace.core.governing import FULL, Speeds
from headrace.core.instance import Done
from headrace.core.stages.kv import blocks_for
from headrace.core.types import End, Failure, FinishReason, Key, TensorHandle
from headrace.sim.asked import Asked
from headrace.sim.embeddings import Embeddings
from headrace.sim.encode import EncodeStage
from headrace.sim.held import ENTERING, LISTED, Counted, Held
from headrace.sim.kind import Kind
from headrace.sim.llm import LlmStage
from headrace.sim.loading import LoadStage, Shelf
from headrace.sim.meter import Meter
from headrace.sim.network import Port
from headrace.sim.parking import Parking

if TYPE_CHECKING:
    from headrace.sim.world import World

Stage = EncodeStage | LlmStage | LoadStage

FENCED_MAX = 4096  # as in headrace.worker


class Worker:
    """One life of it: whoever starts again is another object."""

    def __init__(self, world: "World", worker_id: str, kind: Kind, life: int) -> None:
        self.world = world
        self.id = worker_id
        self.kind = kind  # of the model that it serves
        self.first = kind  # as which it starts, and starts again
        self.life = life
        self.incarnation = f"{worker_id}/{life}"
        self.alive = self.stopped = self.draining = self.dismissed = False
        self.clock_off_s = 0.0
        self.epoch = 0
        self.port = Port()
        self.speeds = FULL  # of its stages, under a power cap
        self.meter = Meter(kind.power, kind.gpus)
        self.held: dict[str, Held] = {}
        self._fenced: OrderedDict[str, int] = OrderedDict()
        self.parking = Parking(self)
        self._embeddings = Embeddings(self)
        self.shelf = Shelf(kind)
        self.loading = self.load_error = ""
        self.encode = EncodeStage(self) if kind.encodes else None
        self.llm = LlmStage(self) if kind.generates else None
        self.loader = LoadStage(self) if kind.others else None
        self._stages: list[Stage] = [stage for stage in (self.encode, self.llm, self.loader) if stage is not None]
        self._busy: Stage | None = None
        self._rising = False  # about to begin, in this moment
        self._late: list[tuple[Callable[..., None], tuple[Any, ...]]] = []  # what falls due while it is stopped

    # --- its device ---

    def wake(self) -> None:
        """There is something to do. An idle device begins once all that comes in this moment is there.

        Commands of one message are taken in together: the pictures of a request become one batch.
        """
        if self._busy is not None:
            self._busy.interrupt()
        elif self.alive and not self.stopped and not self._rising:
            self._rising = True
            self.world.agenda.after(0.0, self._rise)

    def _rise(self) -> None:
        self._rising = False
        if self._busy is None and self.alive and not self.stopped:
            self._next()

    def run_at(self, speeds: Speeds) -> None:
        """From now on, also with what it is at."""
        self.speeds = speeds
        self.meter.run_at(self.world.now_s, speeds.prefill if self.kind.generates else speeds.encode)
        if self._busy is not None:
            self._busy.change_speed()

    def over(self) -> None:
        """The stage on the device has ended its iteration or batch: the others come first."""
        self.meter.rest(self.world.now_s)
        stage, self._busy = self._busy, None
        if stage is not None and len(self._stages) > 1:
            self._stages.remove(stage)
            self._stages.append(stage)
        self._next()

    def _next(self) -> None:
        for stage in self._stages:
            if stage.begin():
                self._busy = stage
                return

    def waits_beside(self, stage: Stage) -> bool:
        """Another stage has something for the device: its turn comes after one iteration."""
        return len(self._stages) > 1 and any(other.waiting for other in self._stages if other is not stage)

    def runs(self, call: Callable[..., None], *args: Any) -> bool:
        """Whether a call that is due may happen now: a stopped process does it when it goes on, a dead one never."""
        if self.alive and self.stopped:
            self._late.append((call, args))
        return self.alive and not self.stopped

    # --- commands ---

    def take(self, epoch: int, what: Any, about: float = 0.0) -> None:
        if not self.runs(self.take, epoch, what, about) or epoch < self.epoch:
            return
        self.epoch = epoch
        kind = type(what)
        if kind is fx.SendRelease:
            self._release(what.key)
        elif kind is fx.SendPrefill:
            self._prefill(what.command)
        elif kind is fx.SendParts:
            self._embeddings.take(what.command)
        elif kind is JoinCommand:
            self._join(what, about)
        elif kind is fx.SendEncode:
            self._encode(what.command)
        elif kind is fx.SendCancel:
            self._cancel(what.key)
        elif kind is fx.SendEvict:
            self.parking.evict(what.key)
        elif kind is fx.SendResume:
            self.parking.resume(what.key)
        elif kind is fx.SendMove:
            self.parking.move(what.command)
        elif kind is fx.SendLoad and self.loader is not None:
            self.loader.load(what.model)
        elif kind is fx.SendDismiss:
            self.dismissed = True
        else:  # its client has seen all that was said: a simulated stream loses nothing
            assert kind in (fx.SendResend, fx.SendLoad), f"a worker knows no {what}"

    def _encode(self, command: EncodeCommand) -> None:
        asked = self.world.asked.get(command.key.request_id)
        if self.encode is not None and asked is not None and not self._is_fenced(command.key):
            self.encode.take(command, asked.parts[command.part])

    def serves(self, model: str) -> bool:
        return self.kind.model == model and not self.loading

    def become(self, kind: Kind) -> None:
        """The model is loaded: batch, room and seconds are its own from now on."""
        assert self.llm is not None
        self.kind, self.loading = kind, ""
        at, self.llm = self._stages.index(self.llm), LlmStage(self)
        self._stages[at] = self.llm
        self.beat()

    def _is_fenced(self, key: Key) -> bool:
        return key.attempt <= self._fenced.get(key.request_id, 0)

    def _is_new(self, key: Key) -> bool:
        known = self.held.get(key.request_id)
        if self._is_fenced(key) or (known is not None and key.attempt <= known.key.attempt):
            return False
        if known is not None:
            self._forget(known)
        return True

    def _prefill(self, command: PrefillCommand) -> None:
        asked = self.world.asked.get(command.key.request_id)
        if asked is None or not self._is_new(command.key) or not self._can(command):
            return
        held = self._admit(command, asked, here=command.decode_worker == self.id)
        if not held.left:  # the earlier attempt died between its last token and its end
            self._end(held)
            return
        if command.embeddings:
            self._embeddings.pull(held)
        else:
            self.ready(held)

    def _join(self, command: JoinCommand, left_bytes: float) -> None:
        """left_bytes: of its KV cache, that were not on their way before the command."""
        request, kv, world = command.request, command.kv, self.world
        asked = world.asked.get(request.key.request_id)
        if asked is None or not self._is_new(request.key) or not self._can(request):
            return
        held = self._admit(request, asked, here=True)
        held.state, held.kv, held.filled = "joining", kv, held.sequence.length - 1
        held.last_s = asked.paused_s or world.now_s - world.mesh.command_s
        asked.paused_s = 0.0
        if not world.is_there(kv):
            self.fail(held, f"no KV cache at {kv.owner}")
            return
        arrived_s = world.network.transfer(world.workers[kv.owner].port, self.port, left_bytes, world.now_s)
        world.agenda.at(arrived_s + world.mesh.handover_s, self._joined, held, kv)

    def _joined(self, held: Held, kv: TensorHandle) -> None:
        if self.runs(self._joined, held, kv) and self.holds(held):
            if self.world.is_there(kv):
                held.kv = None
                self.ready(held)
            else:
                self.fail(held, f"the KV cache at {kv.owner} is gone")

    def _can(self, command: PrefillCommand) -> bool:
        """Whether it serves the request's model; it says if not."""
        if self.serves(command.model):
            return True
        self.send(StageFailed(self.id, command.key, Failure("stage_error", f"{command.model} is not loaded"), True))
        return False

    def _admit(self, command: PrefillCommand, asked: Asked, *, here: bool) -> Held:
        """here: it decodes here, and takes room for all that it may say."""
        emitted, prompt, kind = len(command.emitted), command.prompt, self.kind
        beside = sum(span.kv_tokens for span in prompt.spans)
        most = command.sampling.max_tokens if here else emitted + 1
        length = len(prompt.tokens) + emitted
        sequence = Counted(command.key, length, len(prompt.tokens), most, beside)
        blocks = blocks_for(len(prompt.tokens) + most + beside, kind.block_tokens)
        held = Held(asked, command, "waiting", sequence, blocks, emitted)
        self.held[command.key.request_id] = held
        return held

    def ready(self, held: Held) -> None:
        """Its inputs are here."""
        if self.runs(self.ready, held) and self.holds(held) and held.place == "outside" and held.state in ENTERING:
            assert self.llm is not None, f"{self.id} runs no LLM"
            self.llm.wait(held)
            self.wake()

    def holds(self, held: Held) -> bool:
        return self.held.get(held.key.request_id) is held

    def _cancel(self, key: Key) -> None:
        self._fence(key)
        held = self.held.get(key.request_id)
        if held is not None and held.key.attempt <= key.attempt and held.state != "ended":
            late = self.clock_s >= held.command.deadline_s > 0
            self._end(held, "deadline" if late else "cancelled")

    def _release(self, key: Key) -> None:
        self._fence(key)
        held = self.held.get(key.request_id)
        if held is not None and held.key.attempt <= key.attempt:
            self._forget(held)
        if self.encode is not None:
            self.encode.release(key)

    def _fence(self, key: Key) -> None:
        fenced = self._fenced
        fenced[key.request_id] = max(fenced.pop(key.request_id, 0), key.attempt)
        if len(fenced) > FENCED_MAX:
            fenced.popitem(last=False)

    def _forget(self, held: Held) -> None:
        self.leave(held)
        held.state = "ended"
        del self.held[held.key.request_id]

    def leave(self, held: Held) -> None:
        """Out of the engine and of host memory."""
        if held.parked_bytes:
            self.parking.free(held)
        if held.place != "outside":
            assert self.llm is not None
            self.llm.roster.leave(held)
            self.wake()

    # --- what it says ---

    @property
    def clock_s(self) -> float:
        """Its own clock."""
        return self.world.now_s + self.clock_off_s

    def send(self, event: Event) -> None:
        self.world.send(event)

    def say(self, held: Held, tokens: int) -> None:
        """So many tokens more; at the last one the request ends."""
        world = self.world
        held.emitted += tokens
        held.last_s = world.now_s
        world.told(held.asked, held.key, held.emitted)
        if not held.left:
            self._end(held)

    def _end(self, held: Held, reason: FinishReason | None = None) -> None:
        whole: FinishReason = "length" if held.emitted >= held.command.sampling.max_tokens else "stop"
        end = held.end = End(reason or whole)
        held.state = "ended"
        self.leave(held)
        self.world.end_told(held.asked, held.key, end, held.emitted)
        self._report(held)

    def _report(self, held: Held) -> None:
        assert held.end is not None
        self.send(Ended(self.id, held.key, held.end, self.world.zeros(held.emitted)))

    def fail(self, held: Held, why: str) -> None:
        self._forget(held)
        self.send(StageFailed(self.id, held.key, Failure("stage_error", why), True))

    def tensor(self, size_bytes: int, length: int) -> TensorHandle:
        self.world.tensors += 1
        return TensorHandle(
            f"t{self.world.tensors}", self.id, self.incarnation, "", self.id, "", "", (), "", size_bytes, 0, length
        )

    def beat(self, *, leaving: bool = False) -> None:
        kind, llm = self.kind, self.llm
        ahead = llm.ahead if llm is not None else 0
        self.world.send(
            Heartbeat(
                worker=self.id,
                incarnation=self.incarnation,
                stages=kind.stages,
                model=kind.model,
                host=self.id,
                slots=kind.slots if kind.generates else kind.batch_max,
                blocks=kind.blocks,
                block_tokens=kind.block_tokens,
                draining=self.draining,
                leaving=leaving,
                epoch=self.epoch,
                holds=() if leaving else tuple(self._listed(ahead)),
                sent_s=self.clock_s,
                modalities=kind.modalities if kind.encodes else (),
                pace=kind.pace,
                done=llm.done(ahead) if llm is not None else Done(),
                kv_bytes_per_token=kind.kv_bytes_per_token,
                host_bytes=kind.host_bytes,
                overlaps=kind.overlaps,
                loadable=self.shelf.loadable,
                loading=self.loading,
                load_error=self.load_error,
            )
        )
        for held in self.held.values():
            if held.state == "ended" and held.last_s < self.world.now_s - self.world.mesh.heartbeat_s:
                self._report(held)

    def _listed(self, ahead: int) -> list[Hold]:
        """ahead: tokens of those that decode, beyond what has been said of them."""
        holds = [
            Hold(
                held.key,
                LISTED[held.state],
                held.emitted + ahead if held.state == "running" else held.emitted,
                0,
                held.kv,
                held.command.decode_worker,
                held.lacks,
            )
            for held in self.held.values()
            if held.state != "joining"
        ]
        for parts in self.encode.parts.values() if self.encode is not None else ():
            for number, keeping in parts.items():
                state: HoldState = "encoded" if keeping.embedding is not None else "encoding"
                holds.append(Hold(keeping.key, state, 0, number, keeping.embedding))
        return holds

    # --- its life ---

    def start(self) -> None:
        self.alive = True
        self.meter.up(self.world.now_s)

    def die(self) -> None:
        """Nothing of it is left but what it has said."""
        if self.llm is not None:
            self.llm.settle()
        self.alive = False
        self._busy = None
        self.meter.down(self.world.now_s)

    def stop(self) -> None:
        """It hangs: nothing that falls due happens until it goes on."""
        self.stopped = True

    def go_on(self) -> None:
        self.stopped = False
        late, self._late = self._late, []
        for call, args in late:
            call(*args)
        if self._busy is None and self.alive:
            self._next()

    def offers(self, handle: TensorHandle) -> bool:
        """A worker that hangs is noticed by its lease, not by who asks it for a tensor."""
        return self.alive and handle.incarnation == self.incarnation
