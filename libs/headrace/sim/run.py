"""One simulated run: a scenario, a policy and a seed in, a Result out. The same three give the same result."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from headrace.core.queue import QueueConfig, QueueCore
from headrace.sim.asked import Asked
from headrace.sim.fleet import kind_of, link_of
from headrace.sim.gateway import Gateway
from headrace.sim.governor import Governor, SpeedChange
from headrace.sim.incidents import Incidents
from headrace.sim.network import Mesh
from headrace.sim.policy import Policy
from headrace.sim.result import Result
from headrace.sim.scaling import Autoscaling
from headrace.sim.turnover import Turnover
from headrace.sim.watch import Watch
from headrace.sim.worker import Worker
from headrace.sim.world import START_S, World
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario, ScenarioError, Users
from headrace.workload.users import User

SAMPLES = 600  # of a run: a point of a plot each
SAMPLE_S_MIN = 0.5
# Telling of progress costs little: once in so many arrivals.
PROGRESS_EVERY = 256

Progress = Callable[[float], None]  # the share of the arrivals' time that is over


def simulate(
    scenario: Scenario,
    policy: str,
    seed: int | None = None,
    *,
    arrivals: Iterable[Arrival] | None = None,
    progress: Progress | None = None,
    settings: Mapping[str, Any] | None = None,
    speeds: Iterable[SpeedChange] = (),
) -> Result:
    """Run a scenario under a policy; `arrivals`, in order of time, instead of the scenario's own. `settings`: fields of
    QueueConfig that are to differ. `speeds`: of workers, as they change in time, in order.

    Raises:
        ScenarioError, ProfileError, PolicyError: it cannot be run; the message says what to change.
    """
    chosen = scenario.seed if seed is None else seed
    began_s = time.perf_counter()
    run = Run(scenario, policy, chosen, arrivals, progress, settings, speeds)
    collected = gc.isenabled()
    gc.disable()  # requests come and go without cycles: looking for them takes a tenth of the time
    try:
        run.go()
    finally:
        if collected:
            gc.enable()
    return run.result(time.perf_counter() - began_s)


class Run:
    def __init__(
        self,
        scenario: Scenario,
        policy: str,
        seed: int,
        arrivals: Iterable[Arrival] | None = None,
        progress: Progress | None = None,
        settings: Mapping[str, Any] | None = None,
        speeds: Iterable[SpeedChange] = (),
        core: Callable[[QueueConfig], QueueCore] = QueueCore,
    ) -> None:
        if scenario.fleet is None:
            raise ScenarioError(f"{scenario.name} [fleet]: is missing; a simulation needs at least one [[fleet.pools]]")
        chosen = Policy.of(policy)
        self._scenario = scenario
        self._policy = policy
        self._seed = seed
        self._arrivals = arrivals
        self._progress = progress
        mesh = _mesh(scenario)
        config = replace(_config(scenario, chosen, mesh), **(settings or {}))
        self.world = World(config, mesh, link_of(scenario.fleet), core)
        predictor = chosen.predict(lambda request_id: self.world.asked[request_id].output_tokens)
        self.world.predictor = predictor or self.world.predictor
        self.kinds = {pool.name: kind_of(pool, scenario.model) for pool in scenario.fleet.pools}
        if "warm" in chosen.off:
            self.kinds = {name: replace(kind, warm_models=0) for name, kind in self.kinds.items()}
        for pool in scenario.fleet.pools:
            for number in range(pool.count):
                self.world.launch(f"{pool.name}-{number}", self.kinds[pool.name])
        self._gateway = Gateway(self.world, scenario, self.kinds.values())
        self._watch = Watch(self.world, self.kinds, max(SAMPLE_S_MIN, scenario.duration_s / SAMPLES))
        self.governor = Governor(self.world, speeds, coupled=bool(mesh.coupling))
        self.turnover = Turnover(self.world, scenario.fleet.pools)
        self._autoscaling = (
            Autoscaling(self.world, scenario.fleet, scenario.autoscale, self.kinds, self.turnover)
            if scenario.autoscale is not None
            else None
        )
        self._coming = 1  # arrivals and users' questions that are still to come

    def go(self) -> None:
        """To its end: everybody has been answered, or the scenario's time is over."""
        self.prepare()
        last_s = START_S + self._scenario.duration_s + self._scenario.drain_s
        self.world.agenda.run(last_s, self._over)
        if self._over():
            self.finish()

    def prepare(self) -> None:
        """Everything that happens by itself is on the agenda."""
        world, scenario = self.world, self._scenario
        Incidents(world, scenario, self.kinds, self.turnover, self.governor).plan()
        self.governor.start()
        if self._autoscaling is not None:
            self._autoscaling.start()
            world.ended = self._autoscaling.ended
        world.agenda.after(world.mesh.event_s, self._begin)
        world.agenda.after(world.mesh.tick_s, world.tick)
        self._watch.start()

    def _begin(self) -> None:
        """When the workers have been heard."""
        if self._arrivals is None and isinstance(self._scenario.workload, Users):
            self._coming = self._scenario.workload.users
            asking: dict[int, User] = {}
            self.world.ended = lambda asked: self._answered(asked, asking)
            for number in range(self._coming):
                user = self._scenario.user(number, self._seed)
                self.world.agenda.after(user.start_s, self._question, user, asking)
        else:
            self._coming = 1
            given = self._arrivals
            self._next(self._scenario.arrivals(self._seed) if given is None else iter(given), count(1))

    def _next(self, arrivals: Iterator[Arrival], number: Iterator[int]) -> None:
        arrival = next(arrivals, None)
        if arrival is None:
            self._coming = 0
            return
        at_s = START_S + self.world.mesh.event_s + arrival.at_s
        self.world.agenda.at(max(at_s, self.world.now_s), self._arrive, arrival, arrivals, number)

    def _arrive(self, arrival: Arrival, arrivals: Iterator[Arrival], number: Iterator[int]) -> None:
        self.ask(arrival)
        if self._progress is not None and not next(number) % PROGRESS_EVERY:
            self._progress(min(1.0, arrival.at_s / self._scenario.duration_s))
        self._next(arrivals, number)

    def _question(self, user: User, asking: dict[int, User]) -> None:
        if self.world.now_s - START_S >= self._scenario.duration_s:
            self._coming -= 1
            return
        asked = self.ask(user.question().arrival(0.0))
        if asked.ended:  # refused at once
            self._ask_again(user, asking)
        else:
            asking[asked.row] = user

    def ask(self, arrival: Arrival) -> Asked:
        asked = self._gateway.ask(arrival)
        if self._autoscaling is not None:
            self._autoscaling.asked(asked)
        return asked

    def _answered(self, asked: Asked, asking: dict[int, User]) -> None:
        if self._autoscaling is not None:
            self._autoscaling.ended(asked)
        self._ask_again(asking.pop(asked.row, None), asking)

    def _ask_again(self, user: User | None, asking: dict[int, User]) -> None:
        if user is not None:
            self.world.agenda.after(user.pause_s(), self._question, user, asking)

    def _over(self) -> bool:
        """Everybody has asked, and everything has ended."""
        return not self._coming and not self.world.ledger.open

    def finish(self) -> None:
        """Let the last releases through, then hold the run to its invariants."""
        world = self.world
        quiet_s = 2 * world.mesh.lease_s + 20 * (world.mesh.event_s + world.mesh.queue_s)
        begun = [each for each in self._scenario.incidents if START_S + each.at_s <= world.now_s + quiet_s]
        over_s = max([world.now_s, *(START_S + each.at_s + each.seconds for each in begun)])
        world.agenda.run(over_s + quiet_s, lambda: False)
        world.check_quiet()

    def result(self, wall_s: float) -> Result:
        world, watch = self.world, self._watch
        now_s = world.now_s
        duration_s = max(self._scenario.duration_s, world.ledger.last_end_s())
        lives = list(world.all_workers())
        return Result(
            scenario=self._scenario.name,
            policy=name_of(self._policy, self._scenario),
            seed=self._seed,
            classes=self._scenario.classes,
            requests=world.ledger.requests(),
            tbt=world.ledger.gaps.histogram(),
            t_s=np.array(watch.t_s, np.float64),
            sample_s=watch.sample_s,
            pools=watch.pools(),
            waiting={name: np.array(values, np.float64) for name, values in watch.waiting.items()},
            duration_s=duration_s,
            wall_s=wall_s,
            planner_s=world.planner_s,
            gpu_hours=self._gpu_s(lives) / 3600,
            joules=sum(worker.meter.joules(now_s) for worker in lives),
            utilisation=self._utilisation(lives, START_S + duration_s),
            counters={
                **world.ledger.counters,
                "transferred_bytes": world.network.moved_bytes,
                "role_changes": float(world.core.inspect(now_s, 0).operations.get("role_changed", 0)),
                "events": float(world.agenda.carried_out),
            },
            scalings=tuple(self._autoscaling.done) if self._autoscaling is not None else (),
        )

    def _gpu_s(self, lives: Iterable[Worker]) -> float:
        now_s = self.world.now_s
        up_s = sum(worker.meter.on_s(now_s) * worker.kind.gpus for worker in lives)
        return up_s + self.turnover.start_gpu_s() if self._autoscaling is not None else up_s

    def _utilisation(self, lives: Iterable[Worker], end_s: float) -> float:
        """Loading models and copying KV caches out is not computing. What comes after the last end does not count."""
        now_s = self.world.now_s
        after_s = max(0.0, now_s - end_s)
        llms = [worker for worker in lives if worker.kind.generates]
        up_s = sum(worker.meter.on_s(now_s) - (after_s if worker.alive else 0.0) for worker in llms)
        return sum(worker.meter.busy_s(now_s) for worker in llms) / up_s if up_s > 0 else float("nan")


def name_of(policy: str, scenario: Scenario) -> str:
    """What a run's policies are called: the queue's, and the autoscaler's where there is one."""
    return f"{policy} / {scenario.autoscale.policy}" if scenario.autoscale is not None else policy


def _mesh(scenario: Scenario) -> Mesh:
    try:
        return Mesh.of(dict(scenario.mesh))
    except ValueError as error:
        raise ScenarioError(f"{scenario.name} {error}") from error


def _config(scenario: Scenario, policy: Policy, mesh: Mesh) -> QueueConfig:
    """The live queue manager's, but for clocks that a scenario slows down."""
    plain = QueueConfig(epoch=1)
    slower = mesh.lease_s / plain.lease_s
    off: dict[str, Any] = dict.fromkeys([name for name in policy.off if name != "warm"], False)  # that is the workers'
    return QueueConfig(
        epoch=1,
        **scenario.queue.settings(),
        order=policy.order,
        planner=policy.planner,
        **{"overlap": bool(mesh.overlap), **off},
        predict_lengths=bool(policy.predictor),
        roles=scenario.fleet.roles if scenario.fleet is not None else "fixed",
        classes={slo.name: slo for slo in scenario.classes},
        lease_s=mesh.lease_s,
        tick_gap_s=4 * mesh.tick_s,
        resend_s=plain.resend_s * max(1.0, slower),
        handover_s=plain.handover_s * max(1.0, slower),
    )
