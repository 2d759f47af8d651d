"""Which processes a mesh on one machine consists of, and how they share its cores.

Pure: a MeshConfig in, a tuple of ServicePlans out; the supervisor starts them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

STAGES = ("encode", "prefill", "decode")
_MODULES = {"encode": "services.encoder", "prefill": "services.prefill", "decode": "services.decode"}
_IDS = {"encode": "encoder", "prefill": "prefill", "decode": "decode"}
# A machine runs few of each; more is a typing error rather than a plan.
COUNT_MAX = 16

LEAST = 1  # workers of a pool that is scaled
MODEL = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """What a user may choose about a mesh on one machine."""

    data_dir: Path = Path(".headrace")
    engine: str = "onnx"
    profile: str = ""  # the profile engine's; empty: its default
    weights: str = "fp32"  # the onnx engine's: fp32, q4 or int8
    model: str = MODEL  # or the path of a Hugging Face directory
    models: tuple[str, ...] = ()  # beside it: workers load them in turn
    encoders: int = 1
    encode: tuple[str, ...] = ()  # modalities (with commas between) of the first encoders, one each; others take all
    prefill: int = 1
    decode: int = 1
    gateways: int = 1
    colocate: tuple[str, ...] = ()  # stages that share one process
    sync_always: bool = False  # the journal survives a crash of the machine, at the price of an fsync each
    restart: bool = True  # start dead processes again
    tethered: bool = True  # everything dies with the process that started it, however that ends
    cores: int = 2
    start_timeout_s: float = 120.0  # the first start builds the graph of the default model (about 10 s a worker)
    environment: Mapping[str, str] = field(default_factory=dict)  # for every service
    service_environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by service id
    autoscale: str = ""  # a policy of headrace.core.scaling; empty: the workers are those that it starts with
    least: Mapping[str, int] = field(default_factory=dict)  # instances by stage, where it is not LEAST
    most: Mapping[str, int] = field(default_factory=dict)  # ... where it is not twice what it starts with
    secure: bool = False  # certificates, credentials, permissions and API keys for all of it
    http_port: int = 0  # 0: any free one
    grpc_port: int = 0

    def count(self, stages: tuple[str, ...]) -> int:
        """Workers with these stages that it starts with."""
        counts = {"encode": max(self.encoders, len(self.encode)), "prefill": self.prefill, "decode": self.decode}
        return max(counts[stage] for stage in stages)

    def limits(self, stages: tuple[str, ...]) -> tuple[int, int]:
        """Least and most workers with these stages, where they are scaled."""
        least = max(self.least.get(stage, LEAST) for stage in stages)
        asked = [self.most[stage] for stage in stages if stage in self.most]
        return least, max(least, *asked) if asked else max(least, 2 * self.count(stages))

    @property
    def model_name(self) -> str:
        """What clients call the model: a directory goes by its own name."""
        return Path(self.model).name


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One process: `python -m <module> --id <id> <arguments>`."""

    id: str
    module: str
    arguments: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()  # of a worker
    threads: int = 1
    serves_http: bool = False


def parse_colocate(text: str) -> tuple[str, ...]:
    """`all`, or stages with commas between.

    Raises:
        ValueError: an unknown stage, or only one.
    """
    if not text:
        return ()
    stages = STAGES if text == "all" else tuple(part.strip() for part in text.split(","))
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise ValueError(f"unknown stage {unknown[0]!r}: choose from {', '.join(STAGES)}, or all")
    if len(set(stages)) < 2:
        raise ValueError("colocation needs two stages or more, such as prefill,decode")
    return tuple(stage for stage in STAGES if stage in stages)


def plan_services(config: MeshConfig) -> tuple[ServicePlan, ...]:
    """Every service of the mesh, in the order in which they start (and, reversed, stop)."""
    return (
        ServicePlan("qm-0", "services.queue_manager"),
        ServicePlan("governor-0", "services.governor"),
        *_workers(config),
        *(ServicePlan(f"gateway-{n}", "services.gateway", serves_http=True) for n in range(config.gateways)),
    )


def _workers(config: MeshConfig) -> list[ServicePlan]:
    return [worker_plan(config, stages, n) for stages in pools(config) for n in range(config.count(stages))]


def pools(config: MeshConfig) -> tuple[tuple[str, ...], ...]:
    """The stages of each kind of worker."""
    apart = [(stage,) for stage in STAGES if stage not in config.colocate]
    return (*apart, config.colocate) if config.colocate else tuple(apart)


def pool_name(stages: tuple[str, ...]) -> str:
    """As the queue manager calls them: prefill+decode."""
    return "+".join(stages)


def worker_plan(config: MeshConfig, stages: tuple[str, ...], n: int) -> ServicePlan:
    """The tower of an encoder is small: one thread is enough for it, the rest goes to the LLM workers."""
    heavy = sum(config.count(each) for each in pools(config) if each != ("encode",))
    threads = max(1, config.cores // max(1, heavy))
    if len(stages) > 1:
        return ServicePlan(f"worker-{n}", "services.prefill", ("--stages", ",".join(stages)), stages, threads)
    (stage,) = stages
    arguments = ("--modalities", config.encode[n]) if stage == "encode" and n < len(config.encode) else ()
    return ServicePlan(f"{_IDS[stage]}-{n}", _MODULES[stage], arguments, stages, 1 if stage == "encode" else threads)
