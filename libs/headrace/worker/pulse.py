"""What a worker says unasked: heartbeats that list all it holds, and telemetry. On the event loop, never in a step."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.core.events import Heartbeat
from headrace.core.instance import Loadable, Pace
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown
from headrace.mesh.sensors import DeviceReading, to_proto
from headrace.v1 import governor_pb2
from headrace.wire.work import heartbeat_to_proto
from headrace.worker.devices import Devices
from headrace.worker.holds import Holds
from headrace.worker.lease import Lease
from headrace.worker.outbox import Outbox
from headrace.worker.tally import Tally

HEARTBEAT_S = 0.5  # a worker counts as dead after 2 s: three may be lost
TELEMETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is, as its peers see it, and what it can take. Changes when another model is loaded."""

    worker: str
    incarnation: str
    stages: tuple[str, ...]
    model: str
    host: str
    grpc_address: str
    modalities: tuple[str, ...]
    slots: int
    blocks: int
    block_tokens: int
    pace: Pace
    kv_bytes_per_token: int
    host_bytes: int  # for KV caches of requests that are out of the engine
    loadable: tuple[Loadable, ...]
    loading: str
    load_error: str
    overlaps: bool  # its prefill may begin on a request's first media parts


@dataclass(frozen=True, slots=True)
class Gauges:
    """What of it is in use right now."""

    slots_used: int
    blocks_used: int
    epoch: int
    waiting_s: float = 0.0  # of work at full speed that waits


class Pulse:
    def __init__(
        self,
        identity: Callable[[], Identity],
        bus: Bus,
        holds: Holds,
        outbox: Outbox,
        tally: Tally,
        lease: Lease,
        devices: Devices,
        gauges: Callable[[], Gauges],
        repeat_ends: Callable[[float], None],
    ) -> None:
        self.draining = False
        self._identity = identity
        self._bus = bus
        self._holds = holds
        self._outbox = outbox
        self._tally = tally
        self._lease = lease
        self._devices = devices
        self._gauges = gauges
        self._repeat_ends = repeat_ends

    async def run(self) -> None:
        """A late beat is not made up for: the next comes half a second after it."""
        while True:
            self.beat()
            await asyncio.sleep(HEARTBEAT_S)

    async def sense(self) -> None:
        """Apart from run(): a driver that hangs must not cost a heartbeat. What is told was read just now."""
        while True:
            readings = await self._devices.read()
            self._send(subjects.TELEMETRY, self._telemetry(readings).SerializeToString())
            await asyncio.sleep(TELEMETRY_S)

    def beat(self, *, leaving: bool = False) -> None:
        self._lease.renew(time.monotonic())
        heartbeat = heartbeat_to_proto(self._heartbeat(leaving=leaving))
        self._send(subjects.HEARTBEAT, heartbeat.SerializeToString())
        self._repeat_ends(time.time() - HEARTBEAT_S)
        self._outbox.flush()

    def _heartbeat(self, *, leaving: bool) -> Heartbeat:
        identity = self._identity()
        return Heartbeat(
            worker=identity.worker,
            incarnation=identity.incarnation,
            stages=identity.stages,
            model=identity.model,
            host=identity.host,
            grpc_address=identity.grpc_address,
            slots=identity.slots,
            blocks=identity.blocks,
            block_tokens=identity.block_tokens,
            draining=self.draining,
            leaving=leaving,
            epoch=self._gauges().epoch,
            holds=() if leaving else tuple(self._holds.listed()),
            sent_s=time.time(),
            modalities=identity.modalities,
            pace=identity.pace,
            done=self._tally.done,
            kv_bytes_per_token=identity.kv_bytes_per_token,
            host_bytes=identity.host_bytes,
            loadable=identity.loadable,
            loading=identity.loading,
            load_error=identity.load_error,
            encoded=self._tally.encoded,
            overlaps=identity.overlaps,
        )

    def _telemetry(self, readings: list[DeviceReading]) -> governor_pb2.Telemetry:
        identity, gauges, tally = self._identity(), self._gauges(), self._tally
        return governor_pb2.Telemetry(
            worker=identity.worker,
            incarnation=identity.incarnation,
            host=identity.host,
            stages=identity.stages,
            sent_s=time.time(),
            slots=identity.slots,
            slots_used=gauges.slots_used,
            blocks=identity.blocks,
            blocks_used=gauges.blocks_used,
            prefill_tokens=tally.prefill_tokens,
            decode_tokens=tally.decode_tokens,
            encoded_parts=tally.encoded_parts,
            encoder_cache_hits=tally.encoder_cache_hits,
            encoder_cache_misses=tally.encoder_cache_misses,
            encoder_cache_bytes=tally.encoder_cache_bytes,
            prefill_busy_s=tally.prefill_busy_s,
            decode_busy_s=tally.decode_busy_s,
            encode_busy_s=tally.encoded.busy_s,
            iterations=tally.iterations,
            evictions=tally.evictions,
            devices=[to_proto(reading) for reading in readings],
            waiting_s=gauges.waiting_s,
        )

    def _send(self, subject: str, message: bytes) -> None:
        try:
            self._bus.send(subject, message)
        except BusDown:
            return  # the queue manager cannot hear anybody then, and nobody's lease runs out
