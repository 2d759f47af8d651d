"""The autoscaler of the leading queue manager: told what happens, it looks now and then and orders instances.

It reads the queue's views and changes nothing there. What it ordered is asked of the actuator at every look, never
remembered: a new leadership goes on where the last one stopped.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.core.effects import DeleteRecord, Effect, StoreResult
from headrace.core.errors import HeadraceError
from headrace.core.events import CaughtUp, Event, Governed, Heartbeat, Joined, Prefilled, RequestAccepted
from headrace.core.governing import FULL, Speeds
from headrace.core.queue import QueueCore
from headrace.core.queue.views import CellView, WorkerView
from headrace.core.scaling import SCALERS
from headrace.core.scaling.autoscaler import Autoscaler, Limits, ScaledPool
from headrace.core.scaling.events import Answered, Arrived, Ended, Look, Paced, Scale, Started, look
from headrace.core.scaling.pace import GUESS, EncodePace, costs_of, slowed
from headrace.core.scaling.promises import Promises
from headrace.core.slo import SloClass
from headrace.core.types import Request
from headrace.mesh.logs import get_logger
from services.queue_manager.actuators import Actuator, Fleet
from services.queue_manager.scaling_options import PoolOptions, ScalingOptions

WAKE_S = 1.0  # [I] between two looks at least, though a request finds nobody; as in the simulator
WAKE_CHANGE = 0.1  # [I] of a speed that the governor says: looked at within WAKE_S
SETTLE_S = 1.2  # of a new leadership: by then it has heard every worker that lives, as for adoption
DECISIONS_KEPT = 50
ORDER_STALE_S = 900.0  # a start that takes longer is none, or its heartbeat belonged to another order

log = get_logger("scaling")


@dataclass(frozen=True, slots=True)
class Decision:
    at_s: float
    pool: str
    before: int
    after: int
    reason: str
    error: str  # why it was not carried out


@dataclass(frozen=True, slots=True)
class Served:
    """What the mesh serves, as far as pools depend on it."""

    models: tuple[str, ...]  # the first one is the encoders'
    modalities: tuple[str, ...]  # of the first model
    classes: Mapping[str, SloClass]


class Scaling:
    def __init__(
        self, options: ScalingOptions, served: Served, actuator: Actuator, clock: Callable[[], float] = time.time
    ) -> None:
        self.options = options
        self.trouble = ""  # why nothing can be scaled right now
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS_KEPT)
        self.decided: Counter[tuple[str, str]] = Counter()  # by pool and direction
        self.pools = tuple([_pool(each, options, served) for each in options.pools])
        policy = SCALERS[options.policy](options.epoch_s)
        limits = Limits(options.instances_max, options.look_s, options.epoch_s)
        self.autoscaler = Autoscaler(policy, self.pools, limits, clock())
        self._clock = clock
        self._served = served
        self._actuator = actuator
        self.promises = Promises()  # whose first tokens are waited for
        self._encode = {pool.name: EncodePace() for pool in self.pools}
        self._costs = {pool.name: pool.costs for pool in self.pools}
        self._orders = {pool.name: deque[float](maxlen=pool.most) for pool in self.pools}  # when, not served yet
        self._known: set[str] = set()  # incarnations
        self._speeds: dict[str, Speeds] = {}  # of workers, that the governor says
        self._governed_until_s = 0.0
        self._word = (-1, -1)  # its epoch and sequence
        self._caught_up = False
        self._woken = asyncio.Event()

    def follow(self, policy: str) -> None:
        """policy: a name of SCALERS."""
        self.options = replace(self.options, policy=policy)
        self.autoscaler.follow(SCALERS[policy](self.options.epoch_s))
        self._woken.set()

    # --- what it hears: after the core has ---

    def heard(self, event: Event, effects: Iterable[Effect], now_s: float) -> None:
        if isinstance(event, Heartbeat):
            self._beat(event, now_s)
        elif isinstance(event, RequestAccepted):
            self._accepted(event.request, effects, now_s)
        elif isinstance(event, Prefilled | Joined):
            self._tell(self.promises.first_token(event.key.request_id, now_s), now_s)
        elif isinstance(event, Governed):
            self._governed(event, now_s)
        elif isinstance(event, CaughtUp):
            self._caught_up = True
        for effect in effects:
            if isinstance(effect, StoreResult):
                self._ended(effect, now_s)

    def _governed(self, event: Governed, now_s: float) -> None:
        """An older word is ignored, as in the core."""
        if (event.epoch, event.sequence) <= self._word:
            return
        self._word = event.epoch, event.sequence
        before, self._speeds = self._speeds, {each.worker: each.speeds for each in event.workers}
        self._governed_until_s = now_s + event.lease_s
        if any(
            _differ(before.get(worker, FULL), self._speeds.get(worker, FULL)) for worker in {*before, *self._speeds}
        ):
            self._woken.set()

    def _encode_speed(self, worker: str, now_s: float) -> float:
        return self._speeds.get(worker, FULL).encode if now_s <= self._governed_until_s else 1.0

    def _accepted(self, request: Request, effects: Iterable[Effect], now_s: float) -> None:
        """What the journal held before this leadership has arrived long ago: it only waits."""
        refused = any(isinstance(effect, StoreResult | DeleteRecord) for effect in effects)
        if refused or not self._caught_up:
            return
        media = tuple([(part.meta.modality, part.tokens) for part in request.media])
        arrived = Arrived(request.model, len(request.prompt.tokens), media)
        self.autoscaler.handle(arrived, now_s)
        slo = self._served.classes.get(request.slo_class)
        if target_s := request.ttft_s or (slo.ttft_s if slo is not None else 0.0):
            self.promises.accepted(request.id, request.accepted_s + target_s)
        if self.autoscaler.nobody_for(arrived):
            self._woken.set()

    def _beat(self, event: Heartbeat, now_s: float) -> None:
        """A first one ends a start; holds tell of first tokens whose own word a colocated worker never sends."""
        for hold in event.holds:
            if hold.next_index and hold.state in ("decode", "handover", "ended"):
                self._tell(self.promises.first_token(hold.key.request_id, now_s), now_s)
        pool = self._pool_of(event)
        if not pool:
            return
        if event.leaving:
            return
        speed = self._encode_speed(event.worker, now_s)
        self._encode[pool].observe(event.worker, event.incarnation, event.encoded, speed)
        if event.incarnation in self._known:
            return
        self._known.add(event.incarnation)
        orders = self._orders[pool]
        while orders and now_s - orders[0] > ORDER_STALE_S:
            orders.popleft()
        if orders:
            self.autoscaler.handle(Started(pool, max(0.0, now_s - orders.popleft())), now_s)

    def _ended(self, effect: StoreResult, now_s: float) -> None:
        request = effect.request
        if effect.tokens:
            self._tell(self.promises.first_token(request.id, now_s), now_s)
        elif effect.end.reason == "cancelled":
            self.promises.gone(request.id)
        else:
            self._tell(self.promises.first_token(request.id, float("inf")), now_s)
        self.autoscaler.handle(Ended(request.model, len(effect.tokens)), now_s)

    def _tell(self, answers: Sequence[Answered], now_s: float) -> None:
        for answer in answers:
            self.autoscaler.handle(answer, now_s)

    def _pool_of(self, worker: WorkerView | Heartbeat) -> str:
        """Empty: of none that is scaled."""
        mine = [pool for pool in self.pools if pool.stages == worker.stages and worker.model in pool.models]
        return mine[0].name if mine else ""

    # --- looks ---

    async def run(self, core: QueueCore) -> None:
        await asyncio.sleep(SETTLE_S)
        while True:
            self._woken.clear()
            await self.look(core)
            await self._pause()

    async def _pause(self) -> None:
        """Until the next look: one that is wanted at once waits a second all the same, and so does one that failed."""
        at_least_s = min(WAKE_S, self.options.look_s)
        await asyncio.sleep(at_least_s)
        if self.trouble:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.options.look_s - at_least_s):
                await self._woken.wait()

    async def look(self, core: QueueCore) -> None:
        """Once; says nothing and orders nothing while a new leadership does not know everything."""
        if core.view(self._clock()).replaying:
            return
        try:
            fleets = await self._actuator.fleets()
        except HeadraceError as error:
            self._troubled(error.message)
            return
        if missing := [pool.name for pool in self.pools if pool.name not in fleets]:
            self._troubled(f"nobody starts workers of {', '.join(missing)}; see HEADRACE_AUTOSCALE_POOLS")
            return
        self._troubled("")
        now_s = self._clock()
        view = _with_leaving(core.view(now_s), fleets)
        self._known = {worker.incarnation for worker in view.workers}
        self._tell(self.promises.overdue(now_s), now_s)
        self._tell_paces(view, now_s)
        for scale in self.autoscaler.handle(self._seen(view, fleets), now_s):
            await self._carry_out(scale, fleets[scale.pool], view)

    def _seen(self, view: CellView, fleets: Mapping[str, Fleet]) -> Look:
        serving = Counter(self._pool_of(worker) for worker in view.workers if not worker.draining)
        starting = {name: max(0, fleet.instances - serving[name]) for name, fleet in fleets.items()}
        return look(view, self._served.classes, self._pool_of, starting)

    def _tell_paces(self, view: CellView, now_s: float) -> None:
        for pool in self.pools:
            mine = [worker for worker in view.workers if self._pool_of(worker) == pool.name]
            self._encode[pool.name].keep({worker.worker for worker in mine})
            costs = costs_of(mine, self._encode[pool.name], self._costs[pool.name])
            self._costs[pool.name] = costs
            self.autoscaler.handle(Paced(pool.name, slowed(costs, mine), costs), now_s)

    def _troubled(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("cannot_scale", why=trouble)
        self.trouble = trouble

    async def _carry_out(self, scale: Scale, fleet: Fleet, view: CellView) -> None:
        more = scale.instances - fleet.instances
        if not more:
            return  # ordered already: a pod that is about to leave still says that it serves
        leave_first = self._emptiest(scale.pool, view) if more < 0 else ()
        error = ""
        try:
            await self._actuator.scale(scale.pool, scale.instances, leave_first)
        except HeadraceError as failed:
            error = failed.message
        else:
            orders = self._orders[scale.pool]
            orders.extend([self._clock()] * more)
            if more < 0:
                orders.clear()  # what still started is given up first
            self.decided[scale.pool, "up" if more > 0 else "down"] += 1
        made = Decision(self._clock(), scale.pool, fleet.instances, scale.instances, scale.reason, error)
        self.decisions.append(made)
        log.info("scaled", pool=made.pool, before=made.before, after=made.after, why=made.reason, error=error)

    def _emptiest(self, pool: str, view: CellView) -> tuple[str, ...]:
        """Those with least to end first."""
        serving = [worker for worker in view.workers if self._pool_of(worker) == pool and not worker.draining]
        return tuple([worker.worker for worker in sorted(serving, key=_fullness)])

    # --- what it tells ---

    def startable(self, model: str) -> tuple[str, ...]:
        """Modalities for which an encoder can be started; none while nothing can be."""
        if self.trouble:
            return ()
        return tuple({name for pool in self.pools if model in pool.models for name in pool.modalities})


def _differ(one: Speeds, other: Speeds) -> bool:
    """So much that instances may have to be counted anew, between two looks."""
    pairs = ((one.prefill, other.prefill), (one.decode, other.decode), (one.encode, other.encode))
    return any(abs(a - b) > WAKE_CHANGE * max(a, b) for a, b in pairs)


def _with_leaving(view: CellView, fleets: Mapping[str, Fleet]) -> CellView:
    """Whoever was told to leave drains, though its heartbeat has not said so yet."""
    leaving = {worker for fleet in fleets.values() for worker in fleet.leaving}
    workers = [replace(worker, draining=True) if worker.worker in leaving else worker for worker in view.workers]
    return replace(view, workers=tuple(workers))


def _fullness(worker: WorkerView) -> tuple[int, int, str]:
    return worker.slots_used, worker.pending_media_tokens, worker.worker


def _pool(pool: PoolOptions, options: ScalingOptions, served: Served) -> ScaledPool:
    encodes, generates = "encode" in pool.stages, pool.stages != ("encode",)
    return ScaledPool(
        name=pool.name,
        stages=pool.stages,
        models=served.models if generates else served.models[:1],
        gpus=1,
        start_s=options.start_s,
        costs=GUESS,
        least=pool.least,
        most=pool.most,
        modalities=served.modalities if encodes else (),
        capacity_per_s=pool.capacity_per_s,
    )
