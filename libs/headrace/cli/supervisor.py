"""A whole mesh on one machine: starts NATS, Redis and the services, keeps them up, stops them.

`headrace up`, the demo, the benches and the tests all run it: `async with Mesh(MeshConfig(...)) as mesh`.
"""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import grpc

from headrace.cli import credentials, runstate, targets
from headrace.cli.elastic import Elastic
from headrace.cli.environment import Addresses, secrets_dir, service_command, service_environment
from headrace.cli.plan import MeshConfig, ServicePlan, plan_services
from headrace.cli.ports import Ports
from headrace.cli.process import ServiceProcess, started_s_of
from headrace.cli.restarts import Restarts
from headrace.client import operator
from headrace.client.door import Door
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.servers import NatsServer, RedisServer, nats_server, redis_server

_POLL_S = 0.05
# The queue manager tells the gateways four times a second what it has heard.
_STATUS_S = 0.3
# A service that drains gives its streams this long; then it is killed.
STOP_TIMEOUT_S = 10.0

Progress = Callable[[str], None]


class MeshFailed(Exception):
    """The mesh cannot be started or kept up; the message says which process and the end of its log."""


class Mesh:
    """The processes of one mesh. Not thread-safe: one owner drives it."""

    def __init__(self, config: MeshConfig, progress: Progress = lambda _line: None) -> None:
        self.config = config
        self.data_dir = config.data_dir.resolve()
        self.plans = plan_services(config)
        self.addresses: Addresses
        self.nats: NatsServer
        self.redis: RedisServer
        self._services: dict[str, ServiceProcess] = {}
        self._progress = progress
        self._restarts = Restarts()
        self._watcher: asyncio.Task[None] | None = None
        self._ports = Ports()
        self.door: Door | None = None  # how an operator gets in; None: as the environment says
        self.elastic: Elastic | None = None  # carries out what the queue manager's autoscaler orders
        self._held: set[str] = set()  # ids that the watcher leaves alone: being restarted or stopped by the owner

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # --- what a client needs ---

    @property
    def http_url(self) -> str:
        return self.addresses.http_url("gateway-0")

    @property
    def grpc_addr(self) -> str:
        return self.addresses.grpc["gateway-0"]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(plan.id for plan in self.plans)

    @property
    def workers(self) -> tuple[str, ...]:
        return tuple(plan.id for plan in self.plans if plan.stages)

    def http_urls(self) -> list[str]:
        return [self.addresses.http_url(plan.id) for plan in self.plans if plan.serves_http]

    def logs(self, service: str) -> str:
        """Everything that the service has logged, earlier starts included."""
        return self._services[service].log.read_text(errors="replace")

    def events(self, service: str) -> list[dict[str, object]]:
        """The structured lines of the service's present (or last) start."""
        return self._services[service].events()

    def pid(self, service: str) -> int:
        return self._services[service].pid

    # --- start ---

    async def start(self) -> None:
        self._prepare_directories()
        self.addresses = Addresses.choose(self.config, self.plans, self._ports, self.data_dir, self.shm_dir)
        if self.config.secure:
            credentials.prepare(secrets_dir(self.data_dir))
            self.door = credentials.operator_door(secrets_dir(self.data_dir))
        self._write_state("starting", ("nats-server", "redis-server"))
        self.nats, self.redis = self._servers()
        self.nats.start()
        self.redis.start()
        self._progress(f"nats-server at {self.addresses.nats_url}, redis-server at {self.addresses.redis_url}")
        for plan in self.plans:
            self._services[plan.id] = self._process(plan)
            self._services[plan.id].start(self.config.service_environment.get(plan.id))
        await self._wait_ready(self.ids)
        self._watcher = asyncio.create_task(self._watch(), name="mesh-watcher")
        if self.config.autoscale:
            self.elastic = await Elastic.open(self, self._settings())
        await self.until_servable()
        self._write_state("ready", ())

    def _prepare_directories(self) -> None:
        (self.data_dir / "logs").mkdir(parents=True, exist_ok=True)
        old = runstate.read(self.data_dir)
        if old is not None and old.alive():
            raise MeshFailed(f"a mesh is already running in {self.data_dir} (stop it with: headrace down)")
        if old is not None:
            runstate.stop_orphans(old)
        self.shm_dir = runstate.make_shm_dir(self.data_dir)

    def _servers(self) -> tuple[NatsServer, RedisServer]:
        config, tethered, at = self.config, self.config.tethered, self.addresses
        nats_door, redis_door = None, None
        if config.secure:
            held = secrets_dir(self.data_dir)
            nats_door, redis_door = credentials.nats_door(held), credentials.redis_door(held, at.redis_socket)
        directory, always = self.data_dir / "nats", config.sync_always
        nats = nats_server(directory, at.nats_port, sync_always=always, tethered=tethered, door=nats_door)
        return nats, redis_server(self.data_dir / "redis", at.redis_port, tethered=tethered, door=redis_door)

    def _settings(self) -> Settings:
        """Of this process as a member of the mesh's bus."""
        held = secrets_dir(self.data_dir)
        secret = credentials.environment(held, "services.supervisor") if self.config.secure else {}
        return Settings.from_env({"HEADRACE_NATS_URL": self.addresses.nats_url, **secret})

    def _process(self, plan: ServicePlan) -> ServiceProcess:
        environment = service_environment(plan, self.config, self.addresses)
        log = self.data_dir / "logs" / f"{plan.id}.log"
        return ServiceProcess(plan.id, service_command(plan, self.config.tethered), environment, log)

    async def _wait_ready(self, services: tuple[str, ...]) -> None:
        until, waiting = time.monotonic() + self.config.start_timeout_s, set(services)
        while waiting:
            for service in sorted(waiting):
                if self._services[service].ready():
                    waiting.discard(service)
                    self._progress(f"{service} is ready" + (f"; waiting for {_list(waiting)}" if waiting else ""))
                    self._write_state("starting", tuple(sorted(waiting)))
                elif not self._services[service].alive():
                    raise MeshFailed(self._obituary(service))
            if waiting and time.monotonic() > until:
                raise MeshFailed(f"{_list(waiting)} not ready after {self.config.start_timeout_s:.0f} s")
            await asyncio.sleep(_POLL_S)

    async def until_servable(self) -> None:
        """Until the queue manager has heard every worker, and every gateway has heard that from it."""
        until = time.monotonic() + self.config.start_timeout_s
        while missing := await self._unheard():
            if time.monotonic() > until:
                raise MeshFailed(f"{_list(missing)} not serving; see {self.data_dir / 'logs'}")
            await asyncio.sleep(_POLL_S)
        self._progress(f"{self.config.model_name} can be served")

    async def _unheard(self) -> set[str]:
        try:
            cell = await operator.cell_status(self.addresses.grpc["qm-0"], door=self.door)
        except grpc.RpcError as error:
            if operator.refused(error):
                raise MeshFailed("the keys file has scopes: say a key with `operate` as HEADRACE_API_KEY") from error
            return {"qm-0"}
        missing = set(self.workers) - {worker.worker for worker in cell.workers}
        if not missing:
            await asyncio.sleep(_STATUS_S)
            gateways = [plan.id for plan in self.plans if plan.serves_http]
            grpc_of = self.addresses.grpc
            missing = {name for name in gateways if not await operator.servable(grpc_of[name], door=self.door)}
        return missing

    def _obituary(self, service: str) -> str:
        process = self._services[service]
        tail = "\n".join("  " + line for line in process.output().splitlines()[-12:])
        return f"{service} ended with code {process.exit_code()}; the end of {process.log}:\n{tail}"

    # --- keeping it up ---

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            self._watch_servers()
            for service, process in list(self._services.items()):
                if not process.alive() and service not in self._held and self.config.restart:
                    self._revive(service, process)

    def _watch_servers(self) -> None:
        for server in (self.nats, self.redis):
            if server.running() or not self.config.restart or not self._restarts.due(server.name, time.monotonic()):
                continue
            self._progress(f"{server.name} died; starting it again")
            self._restarts.started(server.name, time.monotonic())
            with contextlib.suppress(OSError, BadSetup):  # a later round tries again
                server.start()

    def _revive(self, service: str, process: ServiceProcess) -> None:
        if not self._restarts.due(service, time.monotonic()):
            return
        self._progress(f"{service} ended with code {process.exit_code()}; starting it again")
        process.start()
        self._restarts.started(service, time.monotonic())
        self._write_state("ready", ())

    # --- more and fewer workers ---

    def add_worker(self, plan: ServicePlan) -> None:
        """Starts it; it serves once the queue manager hears it."""
        self.addresses.add(plan.id, self._ports)
        self.plans = (*self.plans, plan)
        self._services[plan.id] = self._process(plan)
        self._services[plan.id].start(self.config.service_environment.get(plan.id))
        self._progress(f"{plan.id} is started")
        self._write_state("ready", ())

    async def drain_worker(self, service: str, drain_s: float) -> None:
        """It takes nothing new and ends what it has; what is left then goes on elsewhere, as after a death."""
        process = self._services[service]
        self._held.add(service)
        process.send(signal.SIGCONT)
        process.send(signal.SIGTERM)
        for _ in range(round(drain_s / _POLL_S)):
            if not process.alive():
                break
            await asyncio.sleep(_POLL_S)
        process.send(signal.SIGKILL)
        await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
        del self._services[service]
        self.addresses.remove(service)
        self.plans = tuple(plan for plan in self.plans if plan.id != service)
        self._held.discard(service)
        self._progress(f"{service} has left")
        self._write_state("ready", ())

    # --- what chaos does to it ---

    def kill(self, service: str, number: signal.Signals = signal.SIGKILL) -> None:
        self._services[service].send(number)

    def alive(self, service: str) -> bool:
        return self._services[service].alive()

    def ready(self, service: str) -> bool:
        return self._services[service].ready()

    async def restart(self, service: str, environment: Mapping[str, str] | None = None) -> None:
        """Stop the service in an orderly way and start it with extra environment, which holds for this start."""
        self._held.add(service)
        process = self._services[service]
        await self._stop_services([service])
        process.start(environment)
        self._held.discard(service)
        await self.until_ready(service)

    async def until_ready(self, service: str, timeout_s: float = 30.0) -> None:
        until = time.monotonic() + timeout_s
        while not self._services[service].ready():
            if time.monotonic() > until:
                raise MeshFailed(f"{service} not ready after {timeout_s:.0f} s; {self._obituary(service)}")
            await asyncio.sleep(_POLL_S)

    def restart_nats(self, *, kill: bool = False) -> None:
        self.nats.restart(kill=kill)

    def restart_redis(self, *, kill: bool = False) -> None:
        self.redis.restart(kill=kill)

    # --- stop ---

    async def stop(self) -> None:
        """Gateways first so that no request comes in, then workers, the managers, the servers."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        if self.elastic is not None:
            await self.elastic.close()
            self.elastic = None
        order = [service for service in reversed(self.ids) if service in self._services]
        gateways = [service for service in order if service.startswith("gateway")]
        workers = [service for service in order if service in self.workers]
        await self._stop_services(gateways)
        await self._stop_services(workers)  # while there is one who stores what they end
        await self._stop_services([service for service in order if service not in {*gateways, *workers}])
        for server in (getattr(self, "nats", None), getattr(self, "redis", None)):
            if server is not None:
                server.stop()
        if hasattr(self, "shm_dir"):
            shutil.rmtree(self.shm_dir, ignore_errors=True)
            runstate.forget(self.data_dir)
            targets.forget(self.data_dir)

    async def _stop_services(self, services: list[str]) -> None:
        processes = [self._services[service] for service in services]
        for process in processes:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
        await asyncio.gather(*(asyncio.to_thread(process.wait, STOP_TIMEOUT_S) for process in processes))
        for process in processes:
            if process.alive():
                self._progress(f"{process.service} did not stop within {STOP_TIMEOUT_S:.0f} s; killing it")
                process.send(signal.SIGKILL)
            process.wait(STOP_TIMEOUT_S)

    def _write_state(self, state: str, waiting_for: tuple[str, ...]) -> None:
        runstate.write(self.data_dir, self._run_state(state, waiting_for))
        targets.write(self.data_dir, self.addresses.metrics)

    def _run_state(self, state: str, waiting_for: tuple[str, ...]) -> runstate.RunState:
        pids = {name: process.pid for name, process in self._services.items()}
        for server in (getattr(self, "nats", None), getattr(self, "redis", None)):
            if server is not None and server.running():
                pids[server.name] = server.pid
        return runstate.for_this_process(
            state,
            waiting_for=waiting_for,
            http_urls=tuple(self.http_urls()),
            grpc_addresses=tuple(self.addresses.grpc[plan.id] for plan in self.plans if plan.serves_http),
            nats_url=self.addresses.nats_url,
            redis_url=self.addresses.redis_url,
            services=dict(self.addresses.grpc),
            processes={name: (pid, started_s_of(pid)) for name, pid in pids.items()},
            shm_dir=str(self.shm_dir),
            engine=self.config.engine,
            model=self.config.model_name,
            secrets_dir=str(secrets_dir(self.data_dir)) if self.config.secure else "",
        )


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
