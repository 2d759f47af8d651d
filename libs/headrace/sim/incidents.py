"""What befalls a simulated fleet: deaths, hangs, starts, drains, model swaps, a silent bus, jumping clocks, caps."""

from collections.abc import Mapping

from headrace.core.governing import FULL, Speeds
from headrace.sim.fleet import kind_of
from headrace.sim.governor import Governor
from headrace.sim.kind import Kind
from headrace.sim.turnover import Turnover
from headrace.sim.world import World
from headrace.workload.fleet import Incident
from headrace.workload.scenario import Scenario


class Incidents:
    def __init__(
        self, world: World, scenario: Scenario, kinds: Mapping[str, Kind], turnover: Turnover, governor: Governor
    ) -> None:
        self._world = world
        self._scenario = scenario
        self._kinds = kinds
        self._turnover = turnover
        self._governor = governor

    def plan(self) -> None:
        for incident in self._scenario.incidents:
            self._world.agenda.after(incident.at_s, self._happen, incident)

    def _happen(self, incident: Incident) -> None:
        self._world.ledger.count(incident.kind)
        if incident.kind == "bus_down":
            self._world.take_bus_down()
            self._world.agenda.after(incident.seconds, self._world.bring_bus_up)
        elif incident.kind == "start":
            self._turnover.start(self._turnover.new_id(incident.pool), self._kinds[incident.pool])
        elif incident.kind == "cap":
            self._cap(incident)
        elif incident.kind == "clock" and incident.pool == "gateway":
            self._world.gateway_off_s += incident.seconds
        else:
            self._to_worker(incident)

    def _cap(self, incident: Incident) -> None:
        speeds = Speeds(incident.prefill, incident.decode, incident.encode)
        self._governor.cap(incident.worker, speeds)
        if incident.seconds:
            self._world.agenda.after(incident.seconds, self._governor.cap, incident.worker, FULL)

    def _to_worker(self, incident: Incident) -> None:
        worker = self._world.workers.get(_first(incident.worker))
        if worker is None or not worker.alive:
            self._world.ledger.count("missed_incidents")  # it is dead already
            return
        if incident.kind == "kill":
            worker.die()
            self._turnover.restart(worker.id, worker.first)
        elif incident.kind == "stop":
            worker.stop()
            self._world.agenda.after(incident.seconds, worker.go_on)
        elif incident.kind == "clock":
            worker.clock_off_s += incident.seconds
        elif incident.kind == "drain":
            self._turnover.drain(worker.id)
        elif incident.kind == "swap":
            self._world.ledger.count("swaps")
            self._turnover.drain(worker.id, self._other(worker.kind, incident.model))

    def _other(self, kind: Kind, model: str) -> Kind:
        fleet = self._scenario.fleet
        assert fleet is not None
        pool = fleet.pool(kind.pool)
        assert pool is not None
        return kind_of(pool, self._scenario.model, model)


def _first(worker: str) -> str:
    """A pool's name stands for its first worker."""
    return worker if "-" in worker else f"{worker}-0"
