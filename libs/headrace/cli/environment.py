"""What each service is told: its command line, and HEADRACE_* variables with the chosen addresses.

Everything listens on loopback; a mesh on one machine is nobody else's business.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from headrace.cli import credentials
from headrace.cli.plan import MeshConfig, ServicePlan, pool_name, pools
from headrace.cli.ports import Ports

_HOST = "127.0.0.1"
HTTP_PORT = 8000
GRPC_PORT = 50051


@dataclass(frozen=True, slots=True)
class Addresses:
    nats_port: int
    redis_port: int
    http: dict[str, str]  # gateway id -> host:port
    grpc: dict[str, str]  # service id -> host:port
    metrics: dict[str, str]  # the same
    data_dir: Path
    shm_dir: Path
    secure: bool = False

    @classmethod
    def choose(
        cls, config: MeshConfig, plans: tuple[ServicePlan, ...], ports: Ports, data_dir: Path, shm_dir: Path
    ) -> "Addresses":
        """The wanted ports for the first gateway where they are free, free ones for everything else."""
        gateways = [plan.id for plan in plans if plan.serves_http]
        http_port = {gateways[0]: config.http_port}
        grpc_port = {gateways[0]: config.grpc_port}
        http = {name: f"{_HOST}:{ports.take(http_port.get(name, 0))}" for name in gateways}
        grpc = {plan.id: f"{_HOST}:{ports.take(grpc_port.get(plan.id, 0))}" for plan in plans}
        metrics = {plan.id: f"{_HOST}:{ports.take()}" for plan in plans}
        return cls(ports.take(), ports.take(), http, grpc, metrics, data_dir, shm_dir, config.secure)

    def add(self, service: str, ports: Ports) -> None:
        self.grpc[service] = f"{_HOST}:{ports.take()}"
        self.metrics[service] = f"{_HOST}:{ports.take()}"

    def remove(self, service: str) -> None:
        del self.grpc[service], self.metrics[service]

    @property
    def nats_url(self) -> str:
        return f"{'tls' if self.secure else 'nats'}://{_HOST}:{self.nats_port}"

    @property
    def redis_url(self) -> str:
        return f"unix://{self.redis_socket}?db=0" if self.secure else f"redis://{_HOST}:{self.redis_port}/0"

    @property
    def redis_socket(self) -> Path:
        """In memory, in a directory of this user's alone; a path in the data directory may be too long for a socket."""
        return self.shm_dir / "redis.sock"

    def http_url(self, gateway: str) -> str:
        return f"{'https' if self.secure else 'http'}://{self.http[gateway]}"


def service_command(plan: ServicePlan, tethered: bool) -> list[str]:
    command = [sys.executable, "-m", plan.module, "--id", plan.id, *plan.arguments]
    setpriv = shutil.which("setpriv") if tethered else None
    # setpriv becomes the service itself (exec), so the process id is the service's.
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command


def service_environment(plan: ServicePlan, config: MeshConfig, addresses: Addresses) -> dict[str, str]:
    variables = {
        "HEADRACE_NATS_URL": addresses.nats_url,
        "HEADRACE_REDIS_URL": addresses.redis_url,
        "HEADRACE_DATA_DIR": str(addresses.data_dir / "data"),
        "HEADRACE_SHM_DIR": str(addresses.shm_dir),
        "HEADRACE_MODEL": config.model,
        "HEADRACE_ENGINE": config.engine,
        "HEADRACE_WEIGHTS": config.weights,
        "HEADRACE_THREADS": str(plan.threads),
        "HEADRACE_GRPC_ADDR": addresses.grpc[plan.id],
        "HEADRACE_METRICS_ADDR": addresses.metrics[plan.id],
        "HEADRACE_SYNC_ALWAYS": "1" if config.sync_always else "0",
        # Matrix libraries start a thread per core in every process unless told otherwise.
        "OMP_NUM_THREADS": str(plan.threads),
        "OPENBLAS_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime reports to its maker unless told not to
        "PYTHONUNBUFFERED": "1",
    }
    if config.models:
        variables["HEADRACE_MODELS"] = ",".join(config.models)
    if config.profile:
        variables["HEADRACE_PROFILE"] = config.profile
    if plan.serves_http:
        variables["HEADRACE_HTTP_ADDR"] = addresses.http[plan.id]
        variables["HEADRACE_QUEUE_MANAGER_ADDR"] = addresses.grpc["qm-0"]
        variables["HEADRACE_GOVERNOR_ADDR"] = addresses.grpc["governor-0"]
    if config.autoscale:
        limits = {pool_name(stages): config.limits(stages) for stages in pools(config)}
        variables["HEADRACE_AUTOSCALE"] = config.autoscale
        variables["HEADRACE_AUTOSCALE_POOLS"] = " ".join([f"{name}:{lo}-{hi}" for name, (lo, hi) in limits.items()])
    if config.secure:
        variables |= credentials.environment(secrets_dir(addresses.data_dir), plan.module)
    return {**variables, **config.environment}


def secrets_dir(data_dir: Path) -> Path:
    return data_dir / "secrets"
