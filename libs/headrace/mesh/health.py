"""What a process knows of those it leans on, as Prometheus readings: NATS, Redis, JetStream's streams, certificates."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.core.errors import Unavailable
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.expiry import expires_s
from headrace.mesh.jetstream import ApiFailure, api
from headrace.mesh.metrics import Reading, Values

LOOK_S = 5.0  # between two looks at the streams: one API call each


def common_readings(bus: Bus, settings: Settings) -> list[Reading]:
    """Of every process."""
    files = {"cert": settings.tls_cert, "ca": settings.tls_ca}
    return [
        Reading("headrace_nats_up", "1 while this process is connected to NATS", lambda: {(): float(bus.up)}),
        Reading(
            "headrace_certificate_expiry_timestamp_seconds",
            "Unix time at which a TLS file of this process runs out; nothing where there is no TLS",
            lambda: _expiries(files),
            ("file",),
        ),
    ]


def redis_reading(up: Callable[[], Values]) -> Reading:
    """Of queue managers: the others' metrics say what they miss."""
    return Reading("headrace_redis_up", "1 while Redis answers the leading queue manager", up)


def _expiries(files: Mapping[str, str]) -> Values:
    """Of those that can be read now: one that cannot is said in the log by who needs it."""
    found: dict[tuple[str, ...], float] = {}
    for name, path in files.items():
        try:
            if path:
                found[(name,)] = expires_s(Path(path))
        except (OSError, ValueError):
            continue
    return found


@dataclass(frozen=True, slots=True)
class StreamState:
    messages: int
    bytes: int
    limit_bytes: int
    consumers: int


class StreamWatch:
    """Looks at streams every LOOK_S, so that a scrape waits for nobody."""

    def __init__(self, bus: Bus, streams: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._streams = streams
        self._clock = clock
        self._answered_s = clock()
        self.states: dict[str, StreamState] = {}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        try:
            states = {name: _state(await api(self._bus, f"STREAM.INFO.{name}", {})) for name in self._streams}
        except (Unavailable, ApiFailure):  # the age says so
            return
        self.states, self._answered_s = states, self._clock()

    def readings(self) -> list[Reading]:
        def of(value: Callable[[StreamState], float]) -> Callable[[], Values]:
            return lambda: {(name,): value(state) for name, state in self.states.items()}

        by_stream = ("stream",)
        return [
            Reading("headrace_stream_messages", "Records in it", of(lambda state: state.messages), by_stream),
            Reading("headrace_stream_bytes", "That they take", of(lambda state: state.bytes), by_stream),
            Reading("headrace_stream_limit_bytes", "That they may", of(lambda state: state.limit_bytes), by_stream),
            Reading("headrace_stream_consumers", "Who read it", of(lambda state: state.consumers), by_stream),
            Reading(
                "headrace_jetstream_age_seconds",
                "Since JetStream has last answered the leading queue manager",
                lambda: {(): self._clock() - self._answered_s},
            ),
        ]


def _state(info: Mapping[str, Any]) -> StreamState:
    state = info["state"]
    return StreamState(state["messages"], state["bytes"], info["config"]["max_bytes"], state["consumer_count"])
