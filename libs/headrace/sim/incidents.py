"""What befalls a simulated fleet: deaths, hangs, starts, drains, model swaps, a bus that is away, clocks that jump."""

from collections.abc import Mapping

from headrace.sim.fleet import kind_of
from headrace.sim.kind import Kind
from headrace.sim.world import World
from headrace.workload.fleet import Incident
from headrace.workload.scenario import Scenario

_DRAIN_LOOK_S = 0.05  # as headrace.worker looks whether it is empty


class Incidents:
    def __init__(self, world: World, scenario: Scenario, kinds: Mapping[str, Kind]) -> None:
        self._world = world
        self._scenario = scenario
        self._kinds = kinds
        self._next = {pool.name: pool.count for pool in scenario.fleet.pools} if scenario.fleet is not None else {}

    def plan(self) -> None:
        for incident in self._scenario.incidents:
            self._world.agenda.after(incident.at_s, self._happen, incident)

    def _happen(self, incident: Incident) -> None:
        self._world.ledger.count(incident.kind)
        if incident.kind == "bus_down":
            self._world.take_bus_down()
            self._world.agenda.after(incident.seconds, self._world.bring_bus_up)
        elif incident.kind == "start":
            number = self._next[incident.pool]
            self._next[incident.pool] += 1
            self._start(f"{incident.pool}-{number}", self._kinds[incident.pool])
        elif incident.kind == "clock" and incident.pool == "gateway":
            self._world.gateway_off_s += incident.seconds
        else:
            self._to_worker(incident)

    def _to_worker(self, incident: Incident) -> None:
        worker = self._world.workers.get(_first(incident.worker))
        if worker is None or not worker.alive:
            self._world.ledger.count("missed_incidents")  # it is dead already
            return
        if incident.kind == "kill":
            worker.die()
            self._world.agenda.after(self._world.mesh.restart_s, self._start, worker.id, worker.first)
        elif incident.kind == "stop":
            worker.stop()
            self._world.agenda.after(incident.seconds, worker.go_on)
        elif incident.kind == "clock":
            worker.clock_off_s += incident.seconds
        elif incident.kind == "drain":
            self._drain(worker.id, None)
        elif incident.kind == "swap":
            self._world.ledger.count("swaps")
            self._drain(worker.id, self._other(worker.kind, incident.model))

    def _other(self, kind: Kind, model: str) -> Kind:
        fleet = self._scenario.fleet
        assert fleet is not None
        pool = fleet.pool(kind.pool)
        assert pool is not None
        return kind_of(pool, self._scenario.model, model)

    def _start(self, worker_id: str, kind: Kind) -> None:
        self._world.agenda.after(kind.start_s, self._serve, worker_id, kind)

    def _serve(self, worker_id: str, kind: Kind) -> None:
        before = self._world.workers.get(worker_id)
        if before is None or not before.alive:
            self._world.launch(worker_id, kind)

    def _drain(self, worker_id: str, then: Kind | None) -> None:
        """It takes nothing new, ends what it has, leaves, and comes back as another kind if it is swapped."""
        worker = self._world.workers[worker_id]
        if not worker.alive:
            return
        if not worker.draining:
            worker.draining = True
            worker.beat()
        if worker.held or (worker.encode is not None and worker.encode.parts):
            self._world.agenda.after(_DRAIN_LOOK_S, self._drain, worker_id, then)
            return
        worker.beat(leaving=True)
        worker.die()
        if then is not None:
            self._start(worker_id, then)


def _first(worker: str) -> str:
    """A pool's name stands for its first worker."""
    return worker if "-" in worker else f"{worker}-0"
