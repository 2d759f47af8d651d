"""Samples of a running world: what each pool does and how long the queues are, every so many seconds."""

from collections import defaultdict

import numpy as np

from headrace.sim.kind import Kind
from headrace.sim.result import Pool
from headrace.sim.world import START_S, World


class Watch:
    def __init__(self, world: World, kinds: dict[str, Kind], sample_s: float) -> None:
        self.sample_s = sample_s
        self._world = world
        self._kinds = kinds
        self.t_s: list[float] = []
        self.waiting: dict[str, list[float]] = defaultdict(list)
        self._pools: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in kinds}
        self._last: dict[str, tuple[float, float]] = dict.fromkeys(kinds, (0.0, 0.0))  # busy seconds, joules

    def start(self) -> None:
        self._world.agenda.after(self.sample_s, self._sample)

    def _sample(self) -> None:
        world = self._world
        self.t_s.append(world.now_s - START_S)
        for slo_class, queued in world.core.queued().items():
            self.waiting[slo_class].append(queued)
        for name in self._kinds:
            self._sample_pool(name)
        world.agenda.after(self.sample_s, self._sample)

    def _sample_pool(self, name: str) -> None:
        now_s, row = self._world.now_s, self._pools[name]
        lives = [worker for worker in self._world.all_workers() if worker.kind.pool == name]
        up = [worker for worker in lives if worker.alive]
        busy_s = sum(worker.meter.busy_s(now_s) for worker in lives)
        joules = sum(worker.meter.joules(now_s) for worker in lives)
        last_busy_s, last_joules = self._last[name]
        self._last[name] = (busy_s, joules)
        stages = [stage for worker in up for stage in (worker.encode, worker.llm) if stage is not None]
        blocks = sum(worker.kind.blocks for worker in up)
        used = sum(worker.llm.batch.blocks_used for worker in up if worker.llm is not None)
        row["instances"].append(len(up))
        row["busy_share"].append((busy_s - last_busy_s) / (self.sample_s * len(up)) if up else 0.0)
        row["running"].append(sum(stage.running for stage in stages))
        row["waiting"].append(sum(stage.waiting for stage in stages))
        row["kv_share"].append(used / blocks if blocks else 0.0)
        row["power_w"].append((joules - last_joules) / self.sample_s)

    def pools(self) -> tuple[Pool, ...]:
        return tuple(
            Pool(
                name,
                kind.stages,
                kind.gpus,
                **{
                    column: np.array(self._pools[name][column], np.float64)
                    for column in ("instances", "busy_share", "running", "waiting", "kv_share", "power_w")
                },
            )
            for name, kind in self._kinds.items()
        )
