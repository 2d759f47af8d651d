"""The encode stage of a simulated worker: parts in, embeddings kept until they are released, and for who asks again."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.core.commands import EncodeCommand
from headrace.core.events import PartEncoded
from headrace.core.stages.content import Content, EncoderCache, content_of
from headrace.core.stages.encoder_batch import EncodeLine, Encoding, batch_of
from headrace.core.stages.places import urgency
from headrace.core.types import Key, TensorHandle
from headrace.sim.asked import Asked, Part
from headrace.sim.places import Places, Turns

if TYPE_CHECKING:
    from headrace.sim.worker import Worker

_LINGER = 1.1  # times the way to the queue manager and back


@dataclass(slots=True, eq=False)
class Keeping:
    """A part at this encoder; its embedding, once there is one."""

    key: Key
    command: EncodeCommand
    part: Part
    modality: str
    place: float
    embedding: TensorHandle | None = None


class EncodeStage:
    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._kind = worker.kind
        self.parts: dict[str, dict[int, Keeping]] = {}  # by request id, by number of the part
        self._cache = EncoderCache[bool](self._kind.encoder_cache_bytes)  # of what the values are nobody asks
        world, kind = worker.world, worker.kind
        self._places = Places(kind, world.config.together and kind.generates, world.ledger.target_s)
        self._line = EncodeLine[Keeping](self._holds_still, _place if kind.line != "fifo" else None)
        self._batch: list[Encoding[Keeping]] = []
        self._end_s = self._tower_s = 0.0  # of the batch: when it is over, and its tower at full speed
        self._slow = 1.0  # times as long as that

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def running(self) -> int:
        return len(self._batch)

    def take(self, command: EncodeCommand, part: Part) -> None:
        parts = self.parts.setdefault(command.key.request_id, {})
        known = parts.get(command.part)
        if known is not None and known.key.attempt >= command.key.attempt:
            return
        asked = self._worker.world.asked[command.key.request_id]
        place = self._place_of(command, asked)
        keeping = parts[command.part] = Keeping(command.key, command, part, command.media.meta.modality, place)
        if self._turns is not None:
            self._turns.encodes(command.key.request_id, place)
        content = self._content(command)
        if content is not None and self._cache.get(content):
            world = self._worker.world
            world.agenda.after(world.mesh.cached_s, self._answer, keeping)
            return
        self._line.add(keeping, content)
        self._worker.wake()

    def _place_of(self, command: EncodeCommand, asked: Asked) -> float:
        if self._kind.line == "mesh" and self._turns is None:
            return urgency(command.due_s, self._worker.world.now_s)
        return self._places.to_encode(asked)

    def _content(self, command: EncodeCommand) -> Content | None:
        return content_of(command.cache_scope, command.model, command.media) if self._cache.limit_bytes else None

    def release(self, key: Key) -> None:
        parts = self.parts.get(key.request_id, {})
        for number in [number for number, keeping in parts.items() if keeping.key.attempt <= key.attempt]:
            del parts[number]
        if not parts:
            self.parts.pop(key.request_id, None)
        if self._turns is not None:
            self._turns.left(key.request_id)

    def begin(self) -> bool:
        """The next batch, if there is one: read one after the other, then through the tower together."""
        self._batch = self._line.next(self._batch_size())
        if not self._batch:
            return False
        cost, world = self._kind.encode, self._worker.world
        parts = [encoding.parts[0].part for encoding in self._batch]
        tiles = sum(part.tiles for part in parts)
        reading_s = sum(cost.preprocess_s(part.pixels) for part in parts)
        self._worker.meter.work(world.now_s, self._kind.power.encode_w)
        self._tower_s, self._slow = cost.tiles_s(tiles), 1.0 / self._worker.speeds.encode
        self._ends(world.now_s + world.mesh.part_s + reading_s + self._tower_s * self._slow)
        return True

    def _ends(self, end_s: float) -> None:
        self._end_s = end_s
        self._worker.world.agenda.at(end_s, self._end, self._batch, end_s)

    def change_speed(self) -> None:
        """The worker's speeds are others from now on: what is left of the tower, which comes last, takes as long."""
        left_s = min(self._end_s - self._worker.world.now_s, self._tower_s * self._slow)
        if self._batch and left_s > 0.0:
            was, self._slow = self._slow, 1.0 / self._worker.speeds.encode
            self._ends(self._end_s + left_s * (self._slow / was - 1.0))

    def _batch_size(self) -> int:
        most = self._kind.batch_max
        return most if self._kind.batch_whole else batch_of(len(self._line), most)

    def interrupt(self) -> None:
        """A batch runs to its end."""

    def _holds_still(self, keeping: Keeping) -> bool:
        return self.parts.get(keeping.key.request_id, {}).get(keeping.command.part) is keeping

    def _answer(self, keeping: Keeping) -> None:
        """It was known."""
        if self._worker.runs(self._answer, keeping) and self._holds_still(keeping):
            self._worker.world.ledger.count("encoder_cache_hits")
            self._tell(keeping)

    def _end(self, batch: list[Encoding[Keeping]], end_s: float) -> None:
        if batch is not self._batch or end_s != self._end_s or not self._worker.runs(self._end, batch, end_s):
            return
        self._batch = []
        worker = self._worker
        for encoding in batch:
            keepings = self._line.end(encoding)
            if encoding.content is not None:
                tokens = encoding.content.media.tokens
                self._cache.put(encoding.content, True, max(1, tokens * self._kind.embed_bytes_per_token))
                worker.world.ledger.count("encoder_cache_misses")
                worker.world.ledger.count("encoder_cache_hits", len(keepings[1:]))
            for keeping in keepings:
                self._tell(keeping)
        worker.world.ledger.count("encoded_parts", len(batch))
        if self._turns is not None:
            mesh = worker.world.mesh
            worker.world.agenda.after(_LINGER * (mesh.event_s + mesh.queue_s), self._let_go)
        else:
            worker.over()

    @property
    def _turns(self) -> Turns | None:
        return self._worker.llm.turns if self._worker.llm is not None else None

    def _let_go(self) -> None:
        """What has been encoded is prefilled before anything else, if it was told in time."""
        if self._worker.runs(self._let_go):
            self._worker.over()

    def _tell(self, keeping: Keeping) -> None:
        worker, tokens = self._worker, keeping.command.media.tokens
        keeping.embedding = worker.tensor(tokens * self._kind.embed_bytes_per_token, tokens)
        worker.send(PartEncoded(worker.id, keeping.key, keeping.command.part, keeping.embedding))


def _place(keeping: Keeping) -> float:
    return keeping.place
