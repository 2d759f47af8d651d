"""The encode stage of a simulated worker: parts in, embeddings kept until they are released."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.core.commands import EncodeCommand
from headrace.core.events import PartEncoded
from headrace.core.stages.encoder_batch import next_parts
from headrace.core.types import Key, TensorHandle
from headrace.sim.asked import Part

if TYPE_CHECKING:
    from headrace.sim.worker import Worker


@dataclass(slots=True, eq=False)
class Keeping:
    """A part at this encoder; its embedding, once there is one."""

    key: Key
    command: EncodeCommand
    part: Part
    modality: str
    embedding: TensorHandle | None = None


class EncodeStage:
    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._kind = worker.kind
        self.parts: dict[str, dict[int, Keeping]] = {}  # by request id, by number of the part
        self._waiting: deque[Keeping] = deque()
        self._batch: list[Keeping] = []

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._batch)

    def take(self, command: EncodeCommand, part: Part) -> None:
        parts = self.parts.setdefault(command.key.request_id, {})
        known = parts.get(command.part)
        if known is not None and known.key.attempt >= command.key.attempt:
            return
        keeping = parts[command.part] = Keeping(command.key, command, part, command.media.meta.modality)
        self._waiting.append(keeping)
        self._worker.wake()

    def release(self, key: Key) -> None:
        parts = self.parts.get(key.request_id, {})
        for number in [number for number, keeping in parts.items() if keeping.key.attempt <= key.attempt]:
            del parts[number]
        if not parts:
            self.parts.pop(key.request_id, None)

    def begin(self) -> bool:
        """The next batch, if there is one: read one after the other, then through the tower together."""
        self._batch = next_parts(self._waiting, self._holds_still, self._kind.batch_max)
        if not self._batch:
            return False
        cost, world = self._kind.encode, self._worker.world
        tiles = sum(keeping.part.tiles for keeping in self._batch)
        reading_s = sum(cost.preprocess_s(keeping.part.pixels) for keeping in self._batch)
        self._worker.meter.work(world.now_s, self._kind.power.encode_w)
        world.agenda.after(world.mesh.part_s + reading_s + cost.tiles_s(tiles), self._end, self._batch)
        return True

    def interrupt(self) -> None:
        """A batch runs to its end."""

    def _holds_still(self, keeping: Keeping) -> bool:
        return self.parts.get(keeping.key.request_id, {}).get(keeping.command.part) is keeping

    def _end(self, batch: list[Keeping]) -> None:
        if batch is not self._batch or not self._worker.runs(self._end, batch):
            return
        self._batch = []
        worker = self._worker
        for keeping in batch:
            if not self._holds_still(keeping):
                continue
            tokens = keeping.command.media.tokens
            keeping.embedding = worker.tensor(tokens * self._kind.embed_bytes_per_token, tokens)
            worker.send(PartEncoded(worker.id, keeping.key, keeping.command.part, keeping.embedding))
        worker.world.ledger.count("encoded_parts", len(batch))
        worker.over()
