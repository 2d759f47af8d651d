"""Effects as messages: per loop tick one WorkBatch for each worker and one GatewayBatch for each gateway.

What is lost here (the bus is down, a message dropped) is repaired by heartbeats and by gateways that ask.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from headrace.core.effects import (
    Effect,
    GatewayEnded,
    LookInResults,
    Moved,
    SendCancel,
    SendDismiss,
    SendEncode,
    SendEvict,
    SendLoad,
    SendMove,
    SendParts,
    SendPrefill,
    SendRelease,
    SendResend,
    SendResume,
    Traced,
)
from headrace.mesh import genai, subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown
from headrace.mesh.faults import reach
from headrace.mesh.telemetry import emit_span, sampled
from headrace.v1 import queue_pb2
from headrace.wire.convert import end_to_proto, key_to_proto
from headrace.wire.work import encode_to_proto, move_to_proto, parts_to_proto, prefill_to_proto, resend_to_proto

# Half of NATS's default limit of 1 MB: a batch is sent when it has grown past this.
BATCH_BYTES_MAX = 512 * 1024
SMALL_BYTES = 64  # a key with its tag


class Outbox:
    def __init__(self, bus: Bus, epoch: int) -> None:
        self._bus = bus
        self._epoch = epoch
        self._loop = asyncio.get_running_loop()
        self._work: dict[str, queue_pb2.WorkBatch] = {}
        self._work_bytes: dict[str, int] = {}
        self._gateways: dict[str, queue_pb2.GatewayBatch] = {}
        self._put: dict[type, Callable[[Any], None]] = {
            SendPrefill: self._prefill,
            SendParts: self._parts,
            SendEncode: self._encode,
            SendCancel: self._cancel,
            SendRelease: self._release,
            SendResend: self._resend,
            SendEvict: self._evict,
            SendResume: self._resume,
            SendMove: self._move,
            SendLoad: self._load,
            SendDismiss: self._dismiss,
            GatewayEnded: self._gateway_ended,
            LookInResults: self._look_in_results,
            Moved: self._moved,
            Traced: _traced,
        }

    def take(self, effect: Effect) -> bool:
        """False: the effect is not a message."""
        put = self._put.get(type(effect))
        if put is None:
            return False
        put(effect)
        return True

    def flush(self) -> None:
        for worker in list(self._work):
            self._send_work(worker)
        for gateway, batch in self._gateways.items():
            self._send(subjects.gateway(gateway), batch.SerializeToString())
        self._gateways.clear()

    # --- to workers ---

    def _prefill(self, effect: SendPrefill) -> None:
        command = effect.command
        message = prefill_to_proto(command)
        self._batch(effect.worker, message.ByteSize()).prefill.append(message)

    def _parts(self, effect: SendParts) -> None:
        message = parts_to_proto(effect.command)
        self._batch(effect.worker, message.ByteSize()).parts.append(message)

    def _encode(self, effect: SendEncode) -> None:
        message = encode_to_proto(effect.command)
        self._batch(effect.worker, message.ByteSize()).encode.append(message)

    def _cancel(self, effect: SendCancel) -> None:
        self._batch(effect.worker, SMALL_BYTES).cancel.append(key_to_proto(effect.key))

    def _release(self, effect: SendRelease) -> None:
        self._batch(effect.worker, SMALL_BYTES).release.append(key_to_proto(effect.key))

    def _resend(self, effect: SendResend) -> None:
        self._batch(effect.worker, SMALL_BYTES).resend.append(resend_to_proto(effect.command))

    def _evict(self, effect: SendEvict) -> None:
        self._batch(effect.worker, SMALL_BYTES).evict.append(key_to_proto(effect.key))

    def _resume(self, effect: SendResume) -> None:
        self._batch(effect.worker, SMALL_BYTES).resume.append(key_to_proto(effect.key))

    def _move(self, effect: SendMove) -> None:
        self._batch(effect.worker, SMALL_BYTES).move.append(move_to_proto(effect.command))

    def _load(self, effect: SendLoad) -> None:
        """Of several in one batch the last counts; the worker carries it out behind all else that the batch says."""
        self._batch(effect.worker, SMALL_BYTES).load = effect.model

    def _dismiss(self, effect: SendDismiss) -> None:
        self._batch(effect.worker, SMALL_BYTES).dismiss = True

    def _batch(self, worker: str, size_bytes: int) -> queue_pb2.WorkBatch:
        batch = self._work.get(worker)
        if batch is None:
            batch = self._work[worker] = queue_pb2.WorkBatch(epoch=self._epoch)
            self._work_bytes[worker] = 0
        elif self._work_bytes[worker] + size_bytes > BATCH_BYTES_MAX:
            self._send_work(worker)
            return self._batch(worker, size_bytes)
        self._work_bytes[worker] += size_bytes
        return batch

    def _send_work(self, worker: str) -> None:
        batch = self._work.pop(worker)
        self._send(subjects.work(worker), batch.SerializeToString())
        if batch.encode or batch.prefill or batch.parts or batch.evict or batch.resume or batch.move or batch.load:
            self._loop.call_soon(_sent, batch)  # behind the bus's own write of this tick

    # --- to gateways ---

    def _gateway_ended(self, effect: GatewayEnded) -> None:
        batch = self._gateway(effect.gateway)
        batch.ended.add(key=key_to_proto(effect.key), end=end_to_proto(effect.end))

    def _look_in_results(self, effect: LookInResults) -> None:
        self._gateway(effect.gateway).look_in_results.append(effect.request_id)

    def _moved(self, effect: Moved) -> None:
        self._gateway(effect.gateway).moved.append(effect.request_id)

    def _gateway(self, gateway: str) -> queue_pb2.GatewayBatch:
        batch = self._gateways.get(gateway)
        if batch is None:
            batch = self._gateways[gateway] = queue_pb2.GatewayBatch(epoch=self._epoch)
        return batch

    def _send(self, subject: str, data: bytes) -> None:
        try:
            self._bus.send(subject, data)
        except BusDown:
            return  # workers list what they hold, gateways ask: what this said is said again


def _sent(batch: queue_pb2.WorkBatch) -> None:
    for encode in batch.encode:
        reach("queue.encode_sent", encode.key.request_id)
    for prefill in batch.prefill:
        reach("queue.prefill_sent", prefill.key.request_id)
    for parts in batch.parts:
        reach("queue.parts_sent", parts.key.request_id)
    for evicted in batch.evict:
        reach("queue.evict_sent", evicted.request_id)
    for resumed in batch.resume:
        reach("queue.resume_sent", resumed.request_id)
    for moved in batch.move:
        reach("queue.move_sent", moved.key.request_id)
    if batch.load:
        reach("queue.load_sent")


def _traced(effect: Traced) -> None:
    if sampled(effect.traceparent):
        key = effect.key
        emit_span(effect.span, effect.traceparent, {genai.REQUEST_ID: key.request_id, genai.ATTEMPT: key.attempt})
