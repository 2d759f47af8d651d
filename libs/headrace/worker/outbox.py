"""What a worker has to say, gathered during one iteration and sent at its end.

One TokenBatch per gateway, in columns; one EventBatch for the queue manager. Nothing here is kept: what a lost
message said is in the holds, and heartbeats, resends and repeated ends say it again.
"""

from collections.abc import Callable, Iterable

from headrace.core.types import Failure, Key, StageSpan, TokenLogprobs
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown
from headrace.v1 import queue_pb2
from headrace.wire.convert import (
    failure_to_proto,
    handle_to_proto,
    key_to_proto,
    logprobs_to_proto,
    stage_span_to_proto,
)
from headrace.worker.holds import Held, Part

# A NATS message may have 1 MB. A row takes about 45 bytes; an ended request may have 8,192 tokens of 3 bytes.
ROWS_MAX = 8192
TOLD_ROWS_MAX = 2048  # where log-probabilities come along: with those of 20 tokens a row takes 250 bytes
EVENTS_MAX = 32


class Lane:
    """The columns for one gateway."""

    __slots__ = ("attempt", "ends", "index", "logprobs", "request_id", "token")

    def __init__(self) -> None:
        self.request_id: list[str] = []
        self.attempt: list[int] = []
        self.index: list[int] = []
        self.token: list[int] = []
        self.logprobs: list[tuple[int, TokenLogprobs]] = []  # by row
        self.ends: list[queue_pb2.TokenEnd] = []

    def batches(self, worker: str) -> list[bytes]:
        """At least one message; the ends stand in the last, behind their tokens."""
        step = TOLD_ROWS_MAX if self.logprobs else ROWS_MAX
        starts = range(0, max(1, len(self.token)), step)
        return [self._batch(worker, slice(start, start + step), start == starts[-1]) for start in starts]

    def _batch(self, worker: str, rows: slice, last: bool) -> bytes:
        told = [(row - rows.start, one) for row, one in self.logprobs if rows.start <= row < rows.stop]
        batch = queue_pb2.TokenBatch(
            worker=worker,
            request_id=self.request_id[rows],
            attempt=self.attempt[rows],
            index=self.index[rows],
            token=self.token[rows],
            ends=self.ends if last else (),
            logprobs=logprobs_to_proto(told),
        )
        return batch.SerializeToString()


class Outbox:
    def __init__(self, bus: Bus, worker: str, incarnation: str, in_log: Callable[[str], bool]) -> None:
        """in_log tells whether a request's tokens are being written to the token log at this moment."""
        self._bus = bus
        self._worker = worker
        self._incarnation = incarnation
        self._in_log = in_log
        self._lanes: dict[str, Lane] = {}
        self._ended: list[queue_pb2.Ended] = []
        self._events = queue_pb2.EventBatch()

    def token(self, held: Held, index: int, token: int) -> None:
        lane = self._lanes.get(held.gateway) or self._lane(held.gateway)
        key = held.key
        lane.request_id.append(key.request_id)
        lane.attempt.append(key.attempt)
        lane.index.append(index)
        lane.token.append(token)
        if held.logprobs and (told := held.logprobs.get(index)) is not None:
            lane.logprobs.append((len(lane.token) - 1, told))

    def _lane(self, gateway: str) -> Lane:
        return self._lanes.setdefault(gateway, Lane())

    def end(self, held: Held) -> None:
        """To the gateway and to the queue manager."""
        self._end_of_stream(held)
        self.report_end(held)

    def report_end(self, held: Held) -> None:
        logprobs = logprobs_to_proto(held.logprobs.items())
        self._ended.append(
            queue_pb2.Ended(key=key_to_proto(held.key), end=held.end, tokens=held.tokens, logprobs=logprobs)
        )

    def _end_of_stream(self, held: Held) -> None:
        end = queue_pb2.TokenEnd(key=key_to_proto(held.key), count=len(held.tokens), end=held.end)
        self._lane(held.gateway).ends.append(end)

    def resend(self, held: Held, from_index: int) -> None:
        for index in range(from_index, len(held.tokens)):
            self.token(held, index, held.tokens[index])
        if held.end is not None:
            self._end_of_stream(held)

    def joined(self, key: Key) -> None:
        self._events.joined.add(key=key_to_proto(key))

    def evicted(self, held: Held) -> None:
        assert held.exported_kv is not None
        kv = handle_to_proto(held.exported_kv)
        self._events.evicted.add(
            key=key_to_proto(held.key),
            next_index=len(held.tokens),
            kv=kv,
            timeline=map(stage_span_to_proto, held.spans),
        )

    def prefilled(self, held: Held) -> None:
        assert held.exported_kv is not None
        kv = handle_to_proto(held.exported_kv)
        self._events.prefilled.add(
            key=key_to_proto(held.key),
            next_index=len(held.tokens),
            kv=kv,
            timeline=map(stage_span_to_proto, held.spans),
        )

    def encoded(self, part: Part, spans: Iterable[StageSpan]) -> None:
        assert part.handle is not None
        self._events.encoded.add(
            key=key_to_proto(part.key),
            part=part.command.part,
            embedding=handle_to_proto(part.handle),
            timeline=map(stage_span_to_proto, spans),
        )

    def failed(self, key: Key, failure: Failure, *, retryable: bool, timeline: Iterable[StageSpan] = ()) -> None:
        """timeline: what the attempt has been through."""
        self._events.failed.add(
            key=key_to_proto(key),
            failure=failure_to_proto(failure),
            retryable=retryable,
            timeline=map(stage_span_to_proto, timeline),
        )

    def flush(self) -> None:
        """Send what has gathered. While the bus is down it is dropped: see above."""
        lanes, self._lanes = self._lanes, {}
        try:
            for gateway, lane in lanes.items():
                for message in lane.batches(self._worker):
                    self._bus.send(subjects.tokens(gateway), message)
            for events in self._take_events():
                events.worker, events.incarnation = self._worker, self._incarnation
                self._bus.send(subjects.EVENTS, events.SerializeToString())
        except BusDown:
            return

    def _take_events(self) -> list[queue_pb2.EventBatch]:
        """An end waits for the token log's write in flight: the log is dropped once the end is stored."""
        ready = [ended for ended in self._ended if not self._in_log(ended.key.request_id)]
        self._ended = [ended for ended in self._ended if self._in_log(ended.key.request_id)]
        plain = [ended for ended in ready if not ended.logprobs]
        batches = [queue_pb2.EventBatch(ended=plain[n : n + EVENTS_MAX]) for n in range(0, len(plain), EVENTS_MAX)]
        batches += [queue_pb2.EventBatch(ended=[ended]) for ended in ready if ended.logprobs]  # each up to 600 KB
        if self._events.ListFields():
            batches.append(self._events)
            self._events = queue_pb2.EventBatch()
        return batches
