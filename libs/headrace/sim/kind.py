"""A kind of worker: what all workers of a pool are made of."""

from dataclasses import dataclass, field

from headrace.core.cost import EncodeCost, Power, StepCost
from headrace.core.types import StageName


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
    start_s: float = 0.0  # from a process to a worker that serves
    modalities: tuple[str, ...] = ("image", "audio", "video")

    @property
    def encodes(self) -> bool:
        return "encode" in self.stages

    @property
    def generates(self) -> bool:
        return "prefill" in self.stages or "decode" in self.stages
