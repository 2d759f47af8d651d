"""Workers that come and go while the world runs: ordered, started, drained; for incidents and for an autoscaler."""

from collections.abc import Container, Iterable

from headrace.sim.kind import Kind
from headrace.sim.world import World
from headrace.workload.fleet import PoolSpec

_DRAIN_LOOK_S = 0.05  # as headrace.worker looks whether it is empty
_UNLED_S = 2.0  # ... and leaves without an answer


class Turnover:
    def __init__(self, world: World, pools: Iterable[PoolSpec]) -> None:
        self._world = world
        self._next = {pool.name: pool.count for pool in pools}
        self._orders = 0
        self._starting: dict[int, tuple[str, Kind, float]] = {}  # by order: worker, kind, since when
        self._unheard: dict[str, str] = {}  # worker -> pool: serves, and the queue manager does not know it
        self._start_gpu_s = 0.0  # of starts that are over

    def new_id(self, pool: str) -> str:
        number = self._next[pool]
        self._next[pool] += 1
        return f"{pool}-{number}"

    # --- coming ---

    def start(self, worker_id: str, kind: Kind) -> None:
        """It serves when its model is loaded."""
        self._orders += 1
        self._starting[self._orders] = (worker_id, kind, self._world.now_s)
        self._world.agenda.after(kind.start_s, self._serve, self._orders)

    def restart(self, worker_id: str, kind: Kind) -> None:
        """After its death, when its supervisor has noticed."""
        self._world.agenda.after(self._world.mesh.restart_s, self.start, worker_id, kind)

    def give_up(self, pool: str, count: int) -> int:
        """Starts of this pool that are not over, the latest first. Returns how many there were to give up."""
        mine = [order for order, (_, kind, _) in self._starting.items() if kind.pool == pool]
        for order in reversed(mine[max(0, len(mine) - count) :]):
            self._over(order)
        return min(count, len(mine))

    def starting(self, pool: str, heard: Container[str]) -> int:
        """Ordered, and none of those that the queue manager has heard."""
        workers = self._world.workers
        new = {name: its for name, its in self._unheard.items() if name not in heard and workers[name].alive}
        self._unheard = new
        serving_soon = sum(kind.pool == pool for _, kind, _ in self._starting.values())
        return serving_soon + sum(its == pool for its in self._unheard.values())

    def start_gpu_s(self) -> float:
        """GPU seconds of all starts so far, those of the incidents among them."""
        now_s = self._world.now_s
        return self._start_gpu_s + sum([(now_s - at_s) * kind.gpus for _, kind, at_s in self._starting.values()])

    def _serve(self, order: int) -> None:
        if order not in self._starting:
            return  # given up
        worker_id, kind = self._over(order)
        before = self._world.workers.get(worker_id)
        if before is None or not before.alive:
            self._world.launch(worker_id, kind)
            self._unheard[worker_id] = kind.pool

    def _over(self, order: int) -> tuple[str, Kind]:
        worker_id, kind, at_s = self._starting.pop(order)
        self._start_gpu_s += (self._world.now_s - at_s) * kind.gpus
        return worker_id, kind

    # --- going ---

    def drain(self, worker_id: str, then: Kind | None = None, idle_s: float = 0.0) -> None:
        """It takes nothing new, ends what it has, leaves, and comes back as another kind if it is swapped.

        idle_s: for so long it has held nothing, and not been told that nothing more is on its way.
        """
        worker = self._world.workers[worker_id]
        if not worker.alive:
            return
        holds = bool(worker.held) or (worker.encode is not None and bool(worker.encode.parts))
        if holds or (idle_s < _UNLED_S and not worker.dismissed):
            if not holds or not worker.draining:
                worker.draining = True
                worker.beat()
            idle_s = 0.0 if holds else idle_s + _DRAIN_LOOK_S
            self._world.agenda.after(_DRAIN_LOOK_S, self.drain, worker_id, then, idle_s)
            return
        worker.beat(leaving=True)
        worker.die()
        if then is not None:
            self.start(worker_id, then)
