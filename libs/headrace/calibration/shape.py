"""The fleet that a live mesh is, as pools of a scenario: which stages stand together, how many, with how much room."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from headrace.calibration.errors import CalibrationError

STAGES = ("encode", "prefill", "decode")
_NAMES: dict[tuple[str, ...], str] = {("encode",): "encode", ("prefill",): "prefill", ("decode",): "decode"}


class WorkerStatus(Protocol):
    """Of headrace.client.operator.cell_status."""

    @property
    def stages(self) -> Iterable[str]: ...
    @property
    def slots(self) -> int: ...
    @property
    def blocks(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a status does not say of an engine."""

    context_tokens: int
    block_tokens: int
    chunk_tokens: int  # prefilled in one iteration at most
    kv_bytes_per_token: int  # 0: unknown, KV caches weigh nothing
    embed_bytes_per_token: int = 0


@dataclass(frozen=True, slots=True)
class PoolShape:
    name: str
    stages: tuple[str, ...]
    count: int
    slots: int  # of each worker; media parts where it encodes alone
    blocks: int


@dataclass(frozen=True, slots=True)
class Shape:
    model: str
    modalities: tuple[str, ...]
    pools: tuple[PoolShape, ...]
    limits: Limits

    @property
    def takes_images(self) -> bool:
        return "image" in self.modalities and any("encode" in pool.stages for pool in self.pools)

    @property
    def llms(self) -> tuple[PoolShape, ...]:
        return tuple(pool for pool in self.pools if pool.stages != ("encode",))

    @property
    def slots(self) -> int:
        """Sequences that decode at once, all workers together."""
        return sum(pool.slots * pool.count for pool in self.pools if "decode" in pool.stages)

    @property
    def hands_over(self) -> bool:
        """Whether a request that was prefilled may be decoded elsewhere."""
        return any("prefill" in pool.stages and "decode" not in pool.stages for pool in self.pools)

    @property
    def blocks(self) -> int:
        """Of the LLM worker with least room."""
        return min(pool.blocks for pool in self.llms)

    @property
    def prompt_tokens_max(self) -> int:
        """Of a prompt that fits everywhere, with room for an answer."""
        limits = self.limits
        return min(limits.context_tokens, self.blocks * limits.block_tokens) * 3 // 4


def shape_of(model: str, modalities: Iterable[str], workers: Iterable[WorkerStatus], limits: Limits) -> Shape:
    """Raises CalibrationError: nobody prefills or decodes, or like workers have different room."""
    alike: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for worker in workers:
        stages = tuple(sorted(worker.stages, key=STAGES.index))
        alike.setdefault(stages, []).append((worker.slots, worker.blocks))
    pools = []
    for stages, rooms in sorted(alike.items(), key=lambda item: STAGES.index(item[0][0])):
        if len(set(rooms)) > 1:
            raise CalibrationError(f"workers of {'+'.join(stages)} differ in slots or KV blocks: {sorted(set(rooms))}")
        slots, blocks = rooms[0]
        pools.append(PoolShape(_NAMES.get(stages, "worker"), stages, len(rooms), slots, blocks))
    have = {stage for pool in pools for stage in pool.stages}
    if missing := {"prefill", "decode"} - have:
        raise CalibrationError(f"no worker of this mesh has the stage {min(missing)}: see headrace status")
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        raise CalibrationError("workers share stages in more than one way; calibrate a mesh of one layout")
    return Shape(model, tuple(modalities), tuple(pools), limits)
