"""An autoscaler at work on a simulated fleet: gateways and queue tell it, its decisions start and drain workers.

It is told what a live mesh knows; only the capacity of an instance comes from the profiles, as its pace does live.
"""

from collections.abc import Mapping

from headrace.core.queue.views import WorkerView
from headrace.core.scaling import SCALERS
from headrace.core.scaling.autoscaler import Autoscaler, Limits, ScaledPool
from headrace.core.scaling.base import Costs
from headrace.core.scaling.events import Answered, Arrived, Ended, Paced, Scale, look
from headrace.core.scaling.pace import slowed
from headrace.profiles import model
from headrace.sim.asked import Asked
from headrace.sim.fleet import USUAL_TOKENS
from headrace.sim.kind import Kind
from headrace.sim.result import Scaling
from headrace.sim.turnover import Turnover
from headrace.sim.world import START_S, World
from headrace.workload.autoscale import Autoscale, PoolLimits
from headrace.workload.fleet import Fleet
from headrace.workload.tables import ScenarioError

WAKE_S = 1.0  # [I] a request that finds nobody is looked at between two looks, but not more often than this
USUAL_PX = 896  # [P] sides of ModServe's example image (Table 1): encoders are as fast as they are with it


class Autoscaling:
    def __init__(
        self, world: World, fleet: Fleet, asked: Autoscale, kinds: Mapping[str, Kind], turnover: Turnover
    ) -> None:
        """Raises ScenarioError: a pool whose capacity nobody knows."""
        self._world = world
        self._look_s = asked.look_s
        self._kinds = kinds
        self._turnover = turnover
        self._last_look_s = world.now_s
        self._woken = False  # a look between two looks is to come
        self.done: list[Scaling] = []
        gpus_max = asked.gpus_max or fleet.gpus
        self._pools = pools = tuple([_pool(kind, asked, gpus_max) for kind in kinds.values()])
        policy = SCALERS[asked.policy](asked.epoch_s)
        self._autoscaler = Autoscaler(policy, pools, Limits(gpus_max, asked.look_s, asked.epoch_s), world.now_s)

    def start(self) -> None:
        self._world.first_token = self._first_token
        self._world.agenda.after(self._look_s, self._look_again)

    # --- what it hears ---

    def asked(self, asked: Asked) -> None:
        """A gateway has admitted it."""
        if asked.ended:
            return  # refused
        request, now_s = asked.request, self._world.now_s
        media = tuple([(each.meta.modality, each.tokens) for each in request.media])
        arrived = Arrived(request.model, len(request.prompt.tokens), media)
        self._autoscaler.handle(arrived, now_s)
        self._world.agenda.after(self._world.ledger.target_s(asked.row), self._time_is_over, asked)
        if not self._woken and self._autoscaler.nobody_for(arrived):
            self._woken = True
            self._world.agenda.at(max(now_s, self._last_look_s + WAKE_S), self._look)

    def ended(self, asked: Asked) -> None:
        self._autoscaler.handle(Ended(asked.request.model, asked.shown), self._world.now_s)

    def _first_token(self, asked: Asked) -> None:
        if self._world.ledger.waited_s(asked.row, self._world.now_s) <= self._world.ledger.target_s(asked.row):
            self._autoscaler.handle(Answered(True), self._world.now_s)

    def _time_is_over(self, asked: Asked) -> None:
        if not asked.shown:
            self._autoscaler.handle(Answered(False), self._world.now_s)

    # --- what it does ---

    def _look_again(self) -> None:
        self._look()
        self._world.agenda.after(self._look_s, self._look_again)

    def _look(self) -> None:
        world = self._world
        self._last_look_s = now_s = world.now_s
        self._woken = False
        view = world.core.view(now_s)
        heard = {worker.worker for worker in view.workers}
        starting = {name: self._turnover.starting(name, heard) for name in self._kinds}
        for pool in self._pools:
            mine = [worker for worker in view.workers if _pool_of(worker) == pool.name]
            self._autoscaler.handle(Paced(pool.name, slowed(pool.costs, mine), pool.costs), now_s)
        seen = look(view, world.config.classes, _pool_of, starting)
        for scale in self._autoscaler.handle(seen, now_s):
            self._carry_out(scale)

    def _carry_out(self, scale: Scale) -> None:
        more = scale.instances - scale.current
        self._world.ledger.count("scalings")
        self._world.ledger.count("instances_started" if more > 0 else "instances_drained", abs(more))
        self.done.append(Scaling(self._world.now_s - START_S, scale.pool, scale.current, scale.instances, scale.reason))
        if more > 0:
            for _ in range(more):
                self._turnover.start(self._turnover.new_id(scale.pool), self._kinds[scale.pool])
        else:
            left = -more - self._turnover.give_up(scale.pool, -more)
            for worker in self._emptiest(scale.pool)[:left]:
                self._turnover.drain(worker)

    def _emptiest(self, pool: str) -> list[str]:
        """Those with least to end first; among equals the youngest."""
        serving = [
            worker
            for worker in self._world.core.view(self._world.now_s).workers
            if _pool_of(worker) == pool and not worker.draining and self._world.workers[worker.worker].alive
        ]
        return [worker.worker for worker in sorted(serving, key=_fullness)]


def _fullness(worker: WorkerView) -> tuple[int, int, int]:
    return worker.slots_used, worker.pending_media_tokens, -int(worker.worker.rpartition("-")[2])


def _pool_of(worker: WorkerView) -> str:
    return worker.worker.rpartition("-")[0]


def _pool(kind: Kind, asked: Autoscale, gpus_max: int) -> ScaledPool:
    limits = asked.limits(kind.pool)
    pool = ScaledPool(
        name=kind.pool,
        stages=kind.stages,
        models=(kind.model, *(each.model for each in kind.others)),
        gpus=kind.gpus,
        start_s=kind.start_s,
        costs=_costs(kind, limits),
        least=limits.min,
        most=min(limits.max or gpus_max, gpus_max // kind.gpus),
        modalities=kind.modalities if kind.encodes else (),
        capacity_per_s=limits.capacity,
    )
    costs = pool.costs
    known = costs.prefill_token_s + costs.decode_token_s if kind.generates else costs.encode_token_s
    if not limits.capacity and not known:
        raise ScenarioError(f"[autoscale.pools.{kind.pool}] capacity: is missing; its profile says nothing of seconds")
    return pool


def _costs(kind: Kind, limits: PoolLimits) -> Costs:
    """Full batches; a decoding sequence's share of its iteration."""
    measured_s = 1.0 / limits.media_capacity if limits.media_capacity else 0.0
    pace = kind.pace
    slots = max(1, min(kind.slots, kind.blocks * kind.block_tokens // USUAL_TOKENS))
    return Costs(
        encode_token_s=(measured_s or _encode_token_s(kind)) if kind.encodes else 0.0,
        prefill_token_s=pace.prefill_token_s,
        cross_token_s=kind.step.cross_token_s,
        decode_token_s=pace.step_s / slots + pace.sequence_s,
    )


def _encode_token_s(kind: Kind) -> float:
    """Of a batch of usual images, read one after the other."""
    card = model(kind.model)
    if card.tiling is None:
        return 0.0
    tokens = kind.part_tokens or card.media_tokens(USUAL_PX, USUAL_PX)
    tiles = 1 if kind.part_tokens else card.tiles(USUAL_PX, USUAL_PX)
    read_s = kind.encode.preprocess_s(USUAL_PX * USUAL_PX)
    return (read_s + kind.encode.tiles_s(tiles * kind.batch_max) / kind.batch_max) / tokens
