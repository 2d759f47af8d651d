"""Messages of the bus and records of the journal as events of the core, gathered and taken in once per loop tick."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from headrace.core.events import Event, RequestAccepted
from headrace.mesh.faults import reach
from headrace.mesh.journal import Record
from headrace.mesh.logs import get_logger
from headrace.v1 import governor_pb2, queue_pb2
from headrace.wire.convert import request_from_proto
from headrace.wire.governed import governed_from_proto
from headrace.wire.work import control_from_proto, events_from_proto, heartbeat_from_proto

log = get_logger("queue")


class Inbox:
    """Bounded by what one loop tick brings: it is emptied before the next."""

    def __init__(self, on_events: Callable[[list[Event]], None]) -> None:
        self._on_events = on_events
        self._events: list[Event] = []
        self.unreadable = 0  # messages and records that were left out
        self._loop = asyncio.get_running_loop()

    def put(self, event: Event) -> None:
        if not self._events:
            self._loop.call_soon(self._hand_over)
        self._events.append(event)

    def _hand_over(self) -> None:
        events, self._events = self._events, []
        self._on_events(events)

    def handler(self, read: Callable[[bytes], Iterable[Event]]) -> Callable[[bytes, Mapping[str, str]], None]:
        """For bus.subscribe: a message that cannot be read is its sender's fault and is left out."""

        def on_message(data: bytes, _headers: Mapping[str, str]) -> None:
            try:
                for event in read(data):
                    self.put(event)
            except (DecodeError, ValueError) as error:
                self.unreadable += 1
                log.error("unreadable_message", why=str(error))

        return on_message

    def on_records(self, records: list[Record]) -> None:
        for record in records:
            try:
                request = request_from_proto(queue_pb2.RequestRecord.FromString(record.data))
            except DecodeError as error:
                self.unreadable += 1
                log.error(
                    "unreadable_record",
                    seq=record.seq,
                    request_id=record.request_id,
                    traceparent=record.traceparent,
                    why=str(error),
                )
                continue
            reach("queue.read", request.id)
            self.put(RequestAccepted(request, record.seq))


def read_events(data: bytes) -> Iterable[Event]:
    batch = queue_pb2.EventBatch.FromString(data)
    yield from events_from_proto(batch)
    for transition, messages in _reported(batch):
        for message in messages:
            reach(transition, message.key.request_id)


def _reported(batch: queue_pb2.EventBatch) -> Iterator[tuple[str, Iterable[Any]]]:
    yield "queue.prefilled", batch.prefilled
    yield "queue.joined", batch.joined
    yield "queue.evicted", batch.evicted
    yield "queue.ended", batch.ended


def read_heartbeat(data: bytes) -> Iterable[Event]:
    return (heartbeat_from_proto(queue_pb2.Heartbeat.FromString(data)),)


def read_caps(data: bytes) -> Iterable[Event]:
    return (governed_from_proto(governor_pb2.CapBatch.FromString(data)),)


def read_control(data: bytes) -> Iterable[Event]:
    return control_from_proto(queue_pb2.ControlBatch.FromString(data))
