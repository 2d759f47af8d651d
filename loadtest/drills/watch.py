"""What a mesh is seen to do while it is drilled: lengths of queues, expected waits, memory and CPU of its processes."""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import psutil

from headrace.client import operator
from loadtest.drills.target import Target

EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    at_s: float
    queued: Mapping[str, int]  # by class
    running: int
    limits: Mapping[str, int]
    expected_s: Mapping[str, float]  # until a first token; negative: no estimate
    memory_mb: Mapping[str, float]  # resident, by process
    slots: int = 0  # of all workers that decode


@dataclass(slots=True)
class Watch:
    """Looks on from `async with` to its end."""

    target: Target
    seen: list[Seen] = field(default_factory=list)
    missed: int = 0  # times that the queue manager did not answer
    cpu_s: dict[str, float] = field(default_factory=dict)  # by process, over the whole time; this one is "load"
    took_s: float = 0.0
    _began_s: float = 0.0
    _task: "asyncio.Task[None] | None" = None

    async def __aenter__(self) -> "Watch":
        self._began_s = time.monotonic()
        self.cpu_s = _cpu_s(self._processes())
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.took_s = time.monotonic() - self._began_s
        after = _cpu_s(self._processes())
        self.cpu_s = {name: spent - self.cpu_s.get(name, 0.0) for name, spent in after.items()}

    async def _look(self) -> None:
        while True:
            try:
                self.seen.append(await self.once())
            except grpc.RpcError:
                self.missed += 1
            await asyncio.sleep(EVERY_S)

    async def once(self) -> Seen:
        """Raises grpc.RpcError: the queue manager does not answer."""
        cell = await operator.cell_status(self.target.state.services["qm-0"], door=self.target.inner)
        return Seen(
            time.monotonic() - self._began_s,
            {told.slo_class: told.queued for told in cell.classes},
            sum(told.running for told in cell.classes),
            {told.slo_class: told.queue_limit for told in cell.classes},
            {told.slo_class: told.estimated_wait_s for told in cell.classes},
            {name: process.memory_info().rss / 1e6 for name, process in self._processes().items()},
            sum(worker.slots for worker in cell.workers if "decode" in worker.stages),
        )

    def _processes(self) -> dict[str, psutil.Process]:
        found = {}
        for name, (pid, _) in self.target.state.processes.items():
            if psutil.pid_exists(pid):
                found[name] = psutil.Process(pid)
        return found


def _cpu_s(of: Mapping[str, psutil.Process]) -> dict[str, float]:
    spent = {name: sum(process.cpu_times()[:2]) for name, process in of.items()}
    return spent | {"load": sum(os.times()[:2])}
