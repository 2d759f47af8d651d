"""The machines of a scenario: pools of like workers, the link between them, and what befalls them when."""

from dataclasses import dataclass
from typing import Literal

from headrace.core.stages.places import Line
from headrace.core.types import StageName
from headrace.workload.tables import Count, CountOrNone, NotNegative, Positive

LinkName = Literal["nvlink", "infiniband", "ethernet", "pcie"]
RolesName = Literal["fixed", "elastic"]
IncidentKind = Literal["kill", "stop", "drain", "start", "swap", "bus_down", "clock", "cap"]


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Workers that are alike. Zeros leave the choice to the GPU's profile."""

    name: str
    stages: tuple[StageName, ...]  # of each worker: one, or several in one process
    gpu: str = ""  # a name of headrace.profiles; may be empty where `profile` says all
    model: str = ""  # the scenario's, unless said
    tp: Count = 1  # GPUs of each worker: its tensor parallelism
    count: Count = 1  # workers at the beginning
    slots: CountOrNone = 0  # sequences that a worker holds at once
    chunk_tokens: CountOrNone = 0  # prefilled in one iteration at most
    batch_max: CountOrNone = 0  # media parts that an encoder takes at once; 0: a quarter of what waits, at most eight
    encoder_cache_mb: CountOrNone = 256  # of an encoder's memory, for embeddings of what is asked about again; 0: none
    line: Line = "mesh"  # in which order a worker takes what waits at it
    encode_times: Positive = 1.0  # its tower's seconds, times the profile's: to see what hangs on them
    start_s: NotNegative | None = None  # from the order to ready; the profile's cold start, unless said
    profile: str = ""  # an instance profile by name or file, instead of the one that gpu, model and tp name
    models: tuple[str, ...] = ()  # that its workers may load instead of their own; `profile` stands for all, where said
    warm_models: CountOrNone = 1  # of those, kept in a worker's host memory
    load_cold_s: NotNegative | None = None  # of a model in the place of another; the profile's, unless said
    load_warm_s: NotNegative | None = None  # ... with its weights in host memory
    host_gb: NotNegative = 80.0  # of each worker's host memory, for evicted KV caches: QLM's for 7B to 13B; 0: none

    def __post_init__(self) -> None:
        if self.models and "encode" in self.stages:
            raise ValueError("models: an encoder serves one model for ever; give the LLM workers a pool of their own")
        if not self.name or "-" in self.name:
            raise ValueError(f"name: must be a word without a hyphen ({self.name!r}): workers are NAME-0, NAME-1 ...")
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise ValueError("stages: must name encode, prefill or decode, each once at most")
        if not self.gpu and not self.profile:
            raise ValueError("gpu: is missing; name a GPU such as a100, or give a profile")

    @property
    def gpus(self) -> int:
        return self.tp * self.count


@dataclass(frozen=True, slots=True)
class Fleet:
    pools: tuple[PoolSpec, ...]
    link: LinkName = "infiniband"  # between two workers
    roles: RolesName = "fixed"  # elastic: workers that prefill and decode do one of both, as the load asks

    def __post_init__(self) -> None:
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise ValueError(f"pools: each needs a name of its own, there are {', '.join(names)}")
        have = {stage for pool in self.pools for stage in pool.stages}
        if missing := [stage for stage in ("prefill", "decode") if stage not in have]:
            raise ValueError(f"pools: no pool has the stage {missing[0]}")

    @property
    def gpus(self) -> int:
        return sum(pool.gpus for pool in self.pools)

    def pool(self, name: str) -> PoolSpec | None:
        return next((pool for pool in self.pools if pool.name == name), None)


_NEEDS_WORKER = ("kill", "stop", "drain", "start", "swap", "clock", "cap")
_NEEDS_SECONDS = ("stop", "bus_down", "clock")


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happens to the fleet.

    kill: a worker dies. stop: a worker hangs for `seconds`, then goes on. drain: a worker takes nothing new, finishes
    what it has and leaves. start: one more worker of a pool. swap: an instance loads `model`. bus_down: no message
    passes for `seconds`. clock: a worker's clock jumps by `seconds`, which may be negative. cap: a worker, or all of a
    pool, computes at `prefill`, `decode` and `encode` of its full speed, for `seconds` or, with none, from then on.
    """

    at_s: NotNegative
    kind: IncidentKind
    worker: str = ""  # "pool-3", or a pool: one of it, the start of a new one
    seconds: float = 0.0
    model: str = ""
    prefill: Positive = 1.0  # speeds under a cap, of full speed
    decode: Positive = 1.0
    encode: Positive = 1.0

    def __post_init__(self) -> None:
        if self.kind in _NEEDS_WORKER and not self.worker:
            raise ValueError(f"worker: is missing; {self.kind} needs a pool or a worker such as llm-0")
        if self.kind in _NEEDS_SECONDS and not self.seconds:
            raise ValueError(f"seconds: is missing; {self.kind} needs it")
        if self.kind != "clock" and self.seconds < 0:
            raise ValueError(f"seconds: must be at least 0, is {self.seconds:g}")
        speeds = {"prefill": self.prefill, "decode": self.decode, "encode": self.encode}
        if wrong := [name for name, speed in speeds.items() if not 0 < speed <= 1]:
            raise ValueError(f"{wrong[0]}: must be above 0 and at most 1, is {speeds[wrong[0]]:g}")
        if self.kind == "cap" and not self.seconds and all(speed == 1 for speed in speeds.values()):
            raise ValueError("prefill, decode, encode: a cap needs a speed below 1 of at least one of them")
        if self.kind == "swap" and not self.model:
            raise ValueError("model: is missing; swap needs the model to load")

    @property
    def pool(self) -> str:
        return self.worker.partition("-")[0]
