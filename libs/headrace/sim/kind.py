"""A kind of worker: what all workers of a pool are made of while they serve one model."""

from dataclasses import dataclass, field

from headrace.core.cost import EncodeCost, Link, Power, StepCost
from headrace.core.instance import NO_PACE, Pace
from headrace.core.stages.places import Line
from headrace.core.types import StageName
from headrace.modalities import REGISTRY


@dataclass(frozen=True, slots=True)
class Kind:
    pool: str
    stages: tuple[StageName, ...]
    model: str
    gpus: int  # of each worker
    power: Power  # of each GPU
    slots: int = 0
    blocks: int = 0
    block_tokens: int = 1
    context_tokens: int = 1
    chunk_tokens: int = 1
    step: StepCost = field(default_factory=StepCost)
    kv_bytes_per_token: int = 0
    cross_kv_bytes_per_token: int = 0
    encode: EncodeCost = field(default_factory=EncodeCost)
    embed_bytes_per_token: int = 0
    part_tokens: int = 0  # of every picture, whatever its size; 0: the model's card counts
    batch_max: int = 8  # media parts that the encoder takes at once
    batch_whole: bool = False  # as many as wait, up to batch_max; else a quarter of those, as live encoders do
    encoder_cache_bytes: int = 0  # of embeddings kept for requests to come
    start_s: float = 0.0  # from a process to a worker that serves
    modalities: tuple[str, ...] = tuple(REGISTRY)
    pace: Pace = NO_PACE
    host: Link = field(default_factory=Link)  # to its machine's memory and back
    host_bytes: int = 0  # of that memory, for the KV caches of evicted requests
    load_cold_s: float = 0.0  # of this model into a worker that serves another
    load_warm_s: float = 0.0  # ... with its weights in host memory
    line: Line = "mesh"  # in which order its workers take what waits at them
    others: tuple["Kind", ...] = ()  # what its workers may become; theirs are empty
    warm_models: int = 0  # beside the loaded one, kept in host memory

    @property
    def overlaps(self) -> bool:
        """Its prefill may begin on the first media parts: with cross-attention the first token sees all of them."""
        return "prefill" in self.stages and not self.cross_kv_bytes_per_token

    @property
    def encodes(self) -> bool:
        return "encode" in self.stages

    @property
    def generates(self) -> bool:
        return "prefill" in self.stages or "decode" in self.stages
