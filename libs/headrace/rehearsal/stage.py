"""A rehearsal on a running mesh: its load, the watch on its devices, what its governor is asked, moment by moment."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from headrace.client import operator
from headrace.mesh.bus import Bus
from headrace.rehearsal.load import DRAIN_S, Asked, Load
from headrace.rehearsal.scene import Scene
from headrace.rehearsal.watch import Watch
from headrace.v1.governor_pb2 import RowState


@dataclass(frozen=True, slots=True)
class Moment:
    """From here on something else holds."""

    name: str
    at_s: float  # Unix epoch
    limit_w: float  # of the row; 0: none


class Stage:
    """Not thread-safe. Several loads may follow one another; the watch goes on."""

    def __init__(self, scene: Scene, gateway: str, governor: str, nats_url: str) -> None:
        self.scene = scene
        self.watch = Watch()
        self.moments: list[Moment] = []
        self.bus: Bus
        self._gateway = gateway
        self._governor = governor
        self._nats_url = nats_url
        self._load: Load | None = None

    async def __aenter__(self) -> Self:
        self.bus = await Bus.connect(self._nats_url, "rehearsal")
        await self.watch.begin(self.bus)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end_load()
        await self.watch.end()
        await self.bus.close()

    @property
    def asked(self) -> list[Asked]:
        return self._load.asked if self._load is not None else []

    def begin_load(self) -> None:
        self._load = Load(self.scene, self._gateway)
        self._load.start()

    async def end_load(self, drain_s: float = DRAIN_S) -> list[Asked]:
        """What became of all requests; those that run longer than so are cancelled."""
        load, self._load = self._load, None
        if load is None:
            return []
        await load.stop(drain_s)
        return load.asked

    # --- moments: a change's time is when it was asked for ---

    def mark(self, name: str, limit_w: float = 0.0) -> None:
        self.moments.append(Moment(name, time.time(), limit_w))

    async def budget(self, name: str, watts: float, row: str = "") -> None:
        """watts 0: none. row empty: every row."""
        began_s = time.time()
        rows = (await operator.set_budget(self._governor, watts, row)).rows
        self.moments.append(Moment(name, began_s, _limit(one for one in rows if row in ("", one.row))))

    async def emergency(self, name: str, kind: str) -> None:
        began_s = time.time()
        rows = (await operator.declare_emergency(self._governor, kind)).rows
        self.moments.append(Moment(name, began_s, _limit(rows)))

    async def clear(self, name: str) -> None:
        began_s = time.time()
        rows = (await operator.clear_emergency(self._governor)).rows
        self.moments.append(Moment(name, began_s, _limit(rows)))

    async def heard(self, within_s: float = 20.0) -> None:
        """Until every device has been heard twice. Raises TimeoutError: one is silent."""
        async with asyncio.timeout(within_s):
            await self.watch.until_heard(self.scene.workers)


def _limit(rows: Iterable[RowState]) -> float:
    return sum(row.limit_w for row in rows)
