"""Workers that come and go on one machine: the supervisor's ear for the queue manager's autoscaler.

An order is a total for a pool, so it may be given twice. A worker that crashed still counts, since it is started again;
one that leaves does not, however long it drains.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.cli.plan import COUNT_MAX, ServicePlan, pool_name, pools, worker_plan
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.lifecycle import DRAIN_WAIT_S
from headrace.v1 import scaling_pb2

if TYPE_CHECKING:
    from headrace.cli.supervisor import Mesh

DRAIN_S = DRAIN_WAIT_S + 2.0  # the worker ends by itself before this


class Elastic:
    def __init__(self, mesh: "Mesh", bus: Bus) -> None:
        self._mesh = mesh
        self._bus = bus
        self._epoch = 0  # newest leadership that asked
        self._leaving: dict[str, asyncio.Task[None]] = {}  # by worker
        self._stages = {pool_name(stages): stages for stages in pools(mesh.config)}

    @staticmethod
    async def open(mesh: "Mesh", settings: Settings) -> "Elastic":
        bus = await Bus.open(settings, "supervisor")
        elastic = Elastic(mesh, bus)
        await bus.respond(subjects.SCALE, elastic.answer)
        return elastic

    async def close(self) -> None:
        """Who still drains is stopped with the others."""
        await self._bus.close()
        for task in self._leaving.values():
            task.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)

    async def answer(self, data: bytes) -> bytes:
        order = scaling_pb2.ScaleOrder.FromString(data)
        if order.epoch >= self._epoch:
            self._epoch = order.epoch
            for pool in order.orders:
                if pool.pool in self._stages:
                    self._keep(self._stages[pool.pool], min(pool.instances, COUNT_MAX), pool.leave_first)
        return self._told().SerializeToString()

    def _told(self) -> scaling_pb2.ScaleReply:
        return scaling_pb2.ScaleReply(
            epoch=self._epoch,
            pools=[
                scaling_pb2.PoolFleet(
                    pool=name,
                    instances=len(self._kept(stages)),
                    leaving=[
                        plan.id for plan in self._mesh.plans if plan.stages == stages and plan.id in self._leaving
                    ],
                )
                for name, stages in self._stages.items()
            ],
        )

    def _kept(self, stages: tuple[str, ...]) -> list[ServicePlan]:
        """Youngest last. Where nothing is started again, a dead one is gone."""
        mesh = self._mesh
        mine = [plan for plan in mesh.plans if plan.stages == stages and plan.id not in self._leaving]
        return [plan for plan in mine if mesh.config.restart or mesh.alive(plan.id)]

    def _keep(self, stages: tuple[str, ...], count: int, leave_first: Sequence[str]) -> None:
        kept = self._kept(stages)
        for _ in range(count - len(kept)):
            self._mesh.add_worker(worker_plan(self._mesh.config, stages, self._free_number(stages)))
        for plan in self._order_to_leave(kept, leave_first)[: len(kept) - count] if count < len(kept) else ():
            task = asyncio.create_task(self._leave(plan.id), name=f"drain-{plan.id}")
            self._leaving[plan.id] = task

    def _order_to_leave(self, kept: list[ServicePlan], leave_first: Sequence[str]) -> list[ServicePlan]:
        """What does not serve yet goes first, the youngest before others; then as the queue manager says."""
        place = {worker: number for number, worker in enumerate(leave_first)}
        ages = {plan.id: -number for number, plan in enumerate(kept)}

        def turn(plan: ServicePlan) -> tuple[bool, int, int]:
            return self._mesh.ready(plan.id), place.get(plan.id, len(place)), ages[plan.id]

        return sorted(kept, key=turn)

    async def _leave(self, worker: str) -> None:
        try:
            await self._mesh.drain_worker(worker, DRAIN_S)
        finally:
            del self._leaving[worker]

    def _free_number(self, stages: tuple[str, ...]) -> int:
        """The lowest: logs are as many as there ever were workers at once."""
        taken = {plan.id for plan in self._mesh.plans}
        numbers = range(len(taken) + 1)
        return next(n for n in numbers if worker_plan(self._mesh.config, stages, n).id not in taken)
