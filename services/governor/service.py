"""What the governor hears and what it answers: telemetry of workers, this machine's own sensors, operators' calls."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias

import grpc.aio
from google.protobuf.message import DecodeError

from headrace.core.errors import HeadraceError
from headrace.mesh import rpc, subjects
from headrace.mesh.bus import Bus
from headrace.mesh.logs import get_logger
from headrace.mesh.sensors import DeviceReading, Sensors, to_proto
from headrace.v1 import governor_pb2, governor_pb2_grpc, queue_pb2
from services.governor.governing import Governing
from services.governor.history import SAMPLES, History
from services.governor.wire import learnt_state

log = get_logger("governor")

NAME = "headrace.v1.GovernorService"
READ_EVERY_S = 1.0


class Governor:
    def __init__(self, bus: Bus, sensors: Sensors, host: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.history = History()
        self.devices: list[DeviceReading] = []
        self.host = host
        self.unread = 0  # messages that were not what they should be
        self._bus = bus
        self._sensors = sensors
        self._clock = clock

    async def listen(self) -> None:
        await self._bus.subscribe(subjects.TELEMETRY, self._on_telemetry)
        await self._bus.subscribe(subjects.HEARTBEAT, self._on_heartbeat)
        await self._bus.flush()

    async def run(self, stopping: asyncio.Event) -> None:
        for note in self._sensors.notes():
            log.info("sensor_missing", why=note)
        while not stopping.is_set():
            self.devices = await asyncio.to_thread(self._sensors.read)
            self.history.forget(self._clock())
            try:
                async with asyncio.timeout(READ_EVERY_S):
                    await stopping.wait()
            except TimeoutError:
                continue

    def _on_telemetry(self, data: bytes, _headers: Mapping[str, str]) -> None:
        try:
            self.history.on_telemetry(governor_pb2.Telemetry.FromString(data), self._clock())
        except DecodeError:
            self.unread += 1

    def _on_heartbeat(self, data: bytes, _headers: Mapping[str, str]) -> None:
        try:
            self.history.on_heartbeat(queue_pb2.Heartbeat.FromString(data), self._clock())
        except DecodeError:
            self.unread += 1

    def state(self, samples: int) -> governor_pb2.GetGovernorStateResponse:
        """samples: per worker, newest last; 0: the latest alone."""
        now_s, count = self._clock(), min(max(samples, 1), SAMPLES)
        return governor_pb2.GetGovernorStateResponse(
            workers=[
                governor_pb2.WorkerTelemetry(worker=name, samples=list(one.samples)[-count:], stale=one.stale(now_s))
                for name, one in self.history
            ],
            devices=[to_proto(reading) for reading in self.devices],
            notes=self._sensors.notes() + [f"{one.device}: {one.unreadable}" for one in self.devices if one.unreadable],
        )


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class GovernorServicer(governor_pb2_grpc.GovernorServiceServicer):
    def __init__(self, governor: Governor, governing: Governing) -> None:
        self._governor = governor
        self._governing = governing

    async def GetState(
        self, request: governor_pb2.GetGovernorStateRequest, context: Context
    ) -> governor_pb2.GetGovernorStateResponse:
        state, governing = self._governor.state(request.history), self._governing
        state.notes.extend(governing.notes())
        state.rows.extend(governing.rows())
        state.audit.extend(governing.audit.latest())
        state.caps.CopyFrom(governing.batch)
        state.mode = governing.mode
        if governing.beside is not None:
            state.learnt.CopyFrom(learnt_state(governing.beside))
        return state

    async def SetBudget(
        self, request: governor_pb2.SetBudgetRequest, context: Context
    ) -> governor_pb2.SetBudgetResponse:
        rows = await _answered(context, self._governing.set_budget(request.row, request.budget_w, request.who))
        return governor_pb2.SetBudgetResponse(rows=rows)

    async def DeclareEmergency(
        self, request: governor_pb2.DeclareEmergencyRequest, context: Context
    ) -> governor_pb2.EmergencyResponse:
        rows = await _answered(context, self._governing.declare(request.kind, request.who))
        return governor_pb2.EmergencyResponse(rows=rows)

    async def ClearEmergency(
        self, request: governor_pb2.ClearEmergencyRequest, context: Context
    ) -> governor_pb2.EmergencyResponse:
        rows = await _answered(context, self._governing.clear(request.kind, request.who))
        return governor_pb2.EmergencyResponse(rows=rows)

    async def SetMode(self, request: governor_pb2.SetModeRequest, context: Context) -> governor_pb2.SetModeResponse:
        try:
            self._governing.set_mode(request.mode, request.who)
        except HeadraceError as error:
            await rpc.abort(context, error)
        return governor_pb2.SetModeResponse(mode=self._governing.mode)


async def _answered(
    context: Context, command: Coroutine[Any, Any, list[governor_pb2.RowState]]
) -> list[governor_pb2.RowState]:
    try:
        return await command
    except HeadraceError as error:
        await rpc.abort(context, error)
