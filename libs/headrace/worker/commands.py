"""The worker's subject on the bus: batches of commands, fenced by the epoch of the leadership that sent them."""

from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError

from headrace.core.commands import WorkBatch
from headrace.core.errors import StageError
from headrace.core.types import Key
from headrace.mesh.logs import get_logger
from headrace.v1 import queue_pb2
from headrace.wire.work import work_batch_from_proto
from headrace.worker.encoder import EncodeStage
from headrace.worker.evictions import Evictions
from headrace.worker.outbox import Outbox
from headrace.worker.requests import Requests

log = get_logger("worker")


class Commands:
    def __init__(
        self,
        me: str,
        outbox: Outbox,
        requests: Requests | None,
        evictions: Evictions | None,
        encode: EncodeStage | None,
        load: Callable[[str], None],
    ) -> None:
        """requests, evictions: the LLM stages, encode: the encode stage; None where the process does not have them.

        load is told which model to serve from now on.
        """
        self.epoch = 0  # the newest that was seen
        self.dismissed = False  # the queue manager sends nothing more
        self._me = me
        self._outbox = outbox
        self._requests = requests
        self._evictions = evictions
        self._encode = encode
        self._load = load

    def on_message(self, data: bytes, _headers: Mapping[str, str]) -> None:
        if (batch := _read(data)) is not None:
            self.act(batch)

    def on_peer(self, data: bytes, _headers: Mapping[str, str]) -> None:
        """Another worker offers or hands over. Whatever else it says is not its to say, nor is who leads."""
        batch = _read(data)
        if batch is None or batch.epoch < self.epoch:
            return
        self._begin(WorkBatch(batch.epoch, offer=batch.offer, join=batch.join))
        self._outbox.flush()

    def act(self, batch: WorkBatch) -> None:
        """A batch of an older epoch is refused whole: its sender has been replaced and does not know it yet."""
        if batch.epoch < self.epoch:
            log.warning("older_epoch_refused", epoch=batch.epoch, newest=self.epoch)
            return
        self.epoch = batch.epoch
        self._begin(batch)
        self._change(batch)
        self._place(batch)
        self.dismissed = self.dismissed or batch.dismiss
        self._outbox.flush()

    def _begin(self, batch: WorkBatch) -> None:
        for encode in batch.encode:
            if self._encode is None:
                self._misdirected(encode.key, "encode")
            else:
                self._encode.encode(encode)
        for prefill in batch.prefill:
            if self._requests is None:
                self._misdirected(prefill.key, "prefill")
            else:
                self._requests.prefill(prefill)
        for parts in batch.parts:
            if self._requests is not None:
                self._requests.parts(parts)
        for offer in batch.offer:
            if self._requests is not None:
                self._requests.offer(offer)
        for join in batch.join:
            if self._requests is None:
                self._misdirected(join.request.key, "decode")
            else:
                self._requests.join(join)

    def _change(self, batch: WorkBatch) -> None:
        """After the beginnings: a batch may cancel what it has just begun.

        What is cancelled and released at once has been given to another attempt: its stream must not be told of an end.
        """
        if self._encode is not None:
            for key in (*batch.cancel, *batch.release):
                self._encode.release(key)
        if self._requests is not None:
            for resend in batch.resend:
                self._requests.resend(resend)
            for key in batch.cancel:
                if key not in batch.release:
                    self._requests.cancel(key)
            for key in batch.release:
                self._requests.release(key)

    def _place(self, batch: WorkBatch) -> None:
        """Out of the engine, into it, to another worker; at last the model: what goes with it has been told to."""
        if self._evictions is not None:
            for key in batch.evict:
                self._evictions.evict(key)
            for key in batch.resume:
                self._evictions.resume(key)
            self._evictions.move(batch.move)
        if batch.load:
            self._load(batch.load)

    def _misdirected(self, key: Key, stage: str) -> None:
        self._outbox.failed(key, StageError(f"{self._me} has no {stage} stage").failure(), retryable=True)


def _read(data: bytes) -> WorkBatch | None:
    try:
        return work_batch_from_proto(queue_pb2.WorkBatch.FromString(data))
    except DecodeError as error:
        log.error("bad_work_batch", why=str(error))
        return None
