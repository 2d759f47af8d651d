"""Who carries out what the autoscaler decides: the supervisor of a mesh on one machine, or Kubernetes.

Orders are totals, so that one may be given twice; who is told so many makes it so many, drains included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import DecodeError

from headrace.core.errors import Conflict, StageError
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.kubernetes import Kubernetes
from headrace.v1 import scaling_pb2

ANSWER_S = 2.0  # the supervisor only starts and signals processes


@dataclass(frozen=True, slots=True)
class Fleet:
    """What there is of a pool, by the word of who starts it."""

    instances: int  # kept: serving, starting, or to be started again
    leaving: frozenset[str] = frozenset()  # workers; empty too where nobody can tell


class Actuator(Protocol):
    async def fleets(self) -> Mapping[str, Fleet]:
        """By pool; those that it does not know are missing. Raises HeadraceError."""
        ...

    async def scale(self, pool: str, instances: int, leave_first: Sequence[str]) -> None:
        """So many are to be kept; leave_first: workers with least to end. Raises HeadraceError."""
        ...


class Supervisor:
    """Implements Actuator: `headrace up`, asked over the bus."""

    def __init__(self, bus: Bus, epoch: int) -> None:
        self._bus = bus
        self._epoch = epoch

    async def fleets(self) -> Mapping[str, Fleet]:
        return await self._ask(scaling_pb2.ScaleOrder(epoch=self._epoch))

    async def scale(self, pool: str, instances: int, leave_first: Sequence[str]) -> None:
        order = scaling_pb2.PoolOrder(pool=pool, instances=instances, leave_first=leave_first)
        await self._ask(scaling_pb2.ScaleOrder(epoch=self._epoch, orders=[order]))

    async def _ask(self, order: scaling_pb2.ScaleOrder) -> Mapping[str, Fleet]:
        data = await self._bus.request(subjects.SCALE, order.SerializeToString(), ANSWER_S)
        try:
            reply = scaling_pb2.ScaleReply.FromString(data)
        except DecodeError as error:
            raise StageError("the supervisor's answer cannot be read") from error
        if reply.epoch > self._epoch:
            raise Conflict(f"a queue manager of epoch {reply.epoch} gives the orders now")
        return {told.pool: Fleet(told.instances, frozenset(told.leaving)) for told in reply.pools}


class Deployments:
    """Implements Actuator: a Kubernetes Deployment for each pool. Which pod leaves is Kubernetes' choice."""

    def __init__(self, kubernetes: Kubernetes, names: Mapping[str, str]) -> None:
        """names: of Deployments, by pool."""
        self._kubernetes = kubernetes
        self._names = names

    async def fleets(self) -> Mapping[str, Fleet]:
        return {pool: Fleet(await self._kubernetes.replicas(name)) for pool, name in self._names.items()}

    async def scale(self, pool: str, instances: int, leave_first: Sequence[str]) -> None:
        await self._kubernetes.scale(self._names[pool], instances)
