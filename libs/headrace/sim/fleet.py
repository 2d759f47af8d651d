"""From a scenario's fleet and the profiles to kinds of workers."""

from dataclasses import replace

from headrace.core.cost import EncodeCost, Link, Power, pace_of
from headrace.core.types import StageName
from headrace.profiles import (
    EncoderProfile,
    InstanceProfile,
    encoder,
    engine_profile,
    gpu,
    holds_encoder,
    instance,
    packaged_engine_profiles,
)
from headrace.sim.kind import Kind
from headrace.workload.fleet import Fleet, PoolSpec

SLOTS = 128  # sequences of an instance, where a scenario says nothing
ENCODER_BATCH = 8  # parts: what headrace.worker takes
ENGINE_BLOCKS = 1 << 16  # of an engine profile, which says nothing of memory
ENGINE_BLOCK_TOKENS = 16
ENGINE_CONTEXT_TOKENS = 1 << 17
USUAL_TOKENS = 1024  # a sequence's context, for the pace that a worker tells
GB = 1e9


def kind_of(pool: PoolSpec, default_model: str, model: str = "") -> Kind:
    """With all that its workers may load instead. model: instead of the pool's own.

    Raises:
        ProfileError: a model, an encoder or a GPU that no profile knows.
    """
    name = model or pool.model or default_model or next(iter(pool.models), "")
    kind = _kind(pool, name)
    others = [_kind(pool, each) for each in dict.fromkeys(pool.models) if each != name]
    return replace(kind, others=tuple(others), warm_models=pool.warm_models) if others else kind


def _kind(pool: PoolSpec, name: str) -> Kind:
    llm = instance_of(pool, name) if {"prefill", "decode"} & set(pool.stages) else None
    tower = tower_of(pool, name) if "encode" in pool.stages else None
    loads_s = sum(profile.load_cold_s for profile in (llm, tower) if profile is not None)
    start_s = loads_s if pool.start_s is None else pool.start_s
    if llm is None:
        return _encoder_kind(pool, name, tower, start_s)
    beside_bytes = tower.weights_bytes if tower is not None else 0
    block_bytes = max(1, llm.block_tokens * llm.kv_bytes_per_token)
    slots, blocks = pool.slots or SLOTS, max(0, llm.kv_room_bytes - beside_bytes) // block_bytes
    usual_tokens = min(USUAL_TOKENS, llm.context_tokens)
    fitting = max(1, min(slots, blocks * llm.block_tokens // usual_tokens))
    return Kind(
        pool=pool.name,
        stages=_stages(pool),
        model=name,
        gpus=llm.gpus,
        power=llm.power,
        slots=slots,
        blocks=blocks,
        block_tokens=llm.block_tokens,
        context_tokens=llm.context_tokens,
        chunk_tokens=pool.chunk_tokens or llm.chunk_tokens,
        step=llm.step,
        kv_bytes_per_token=llm.kv_bytes_per_token,
        cross_kv_bytes_per_token=llm.cross_kv_bytes_per_token,
        encode=tower.cost if tower is not None else EncodeCost(),
        embed_bytes_per_token=tower.embed_bytes_per_token if tower is not None else 0,
        part_tokens=tower.part_tokens if tower is not None else 0,
        batch_max=pool.batch_max or ENCODER_BATCH,
        batch_whole=pool.batch_max > 0,
        encoder_cache_bytes=pool.encoder_cache_mb << 20,
        start_s=start_s,
        line=pool.line,
        pace=pace_of(llm.step, fitting, usual_tokens),
        host=llm.host,
        host_bytes=int(pool.host_gb * GB) if "decode" in pool.stages else 0,
        load_cold_s=llm.load_cold_s if pool.load_cold_s is None else pool.load_cold_s,
        load_warm_s=llm.load_warm_s if pool.load_warm_s is None else pool.load_warm_s,
    )


def tower_of(pool: PoolSpec, name: str) -> EncoderProfile | None:
    """The one of the pool's own file, or its GPU's. None: neither is said, and encoding costs nothing."""
    if holds_encoder(pool.profile):
        tower = encoder(pool.profile)
    elif pool.gpu:
        tower = encoder(f"{pool.gpu}/{name}/tp{pool.tp}")
    else:
        return None
    tiles_s = tower.cost.tiles_s
    slower = replace(tiles_s, ys=tuple(y * pool.encode_times for y in tiles_s.ys))
    return replace(tower, cost=replace(tower.cost, tiles_s=slower))


def _encoder_kind(pool: PoolSpec, name: str, tower: EncoderProfile | None, start_s: float) -> Kind:
    return Kind(
        pool=pool.name,
        stages=_stages(pool),
        model=name,
        gpus=tower.gpus if tower is not None else pool.tp,
        power=tower.power if tower is not None else Power(),
        encode=tower.cost if tower is not None else EncodeCost(),
        embed_bytes_per_token=tower.embed_bytes_per_token if tower is not None else 0,
        part_tokens=tower.part_tokens if tower is not None else 0,
        batch_max=pool.batch_max or ENCODER_BATCH,
        batch_whole=pool.batch_max > 0,
        encoder_cache_bytes=pool.encoder_cache_mb << 20,
        start_s=start_s,
        line=pool.line,
    )


def _stages(pool: PoolSpec) -> tuple[StageName, ...]:
    return tuple(sorted(pool.stages, key=("encode", "prefill", "decode").index))


def link_of(fleet: Fleet) -> Link:
    """Between two workers: what the fleet names, of its first pool's GPU; none of them says a GPU: no cost."""
    name = next((pool.gpu for pool in fleet.pools if pool.gpu), "")
    return gpu(name).links[fleet.link] if name else Link()


def instance_of(pool: PoolSpec, name: str) -> InstanceProfile:
    """What a worker of the pool that prefills or decodes this model takes."""
    if pool.profile in packaged_engine_profiles():
        return _of_engine(pool)
    return instance(pool.profile or f"{pool.gpu}/{name}/tp{pool.tp}")


def _of_engine(pool: PoolSpec) -> InstanceProfile:
    """What the live profile engine runs on: a pace, without a GPU's memory and watts."""
    engine = engine_profile(pool.profile)
    return InstanceProfile(
        name=engine.name,
        source=engine.source,
        gpu=pool.gpu,
        gpus=pool.tp,
        step=engine.cost,
        power=Power(),
        kv_bytes_per_token=engine.kv_bytes_per_token,
        cross_kv_bytes_per_token=0,
        kv_room_bytes=ENGINE_BLOCKS * ENGINE_BLOCK_TOKENS * max(1, engine.kv_bytes_per_token),
        weights_bytes=0,
        context_tokens=ENGINE_CONTEXT_TOKENS,
        chunk_tokens=engine.chunk_tokens,
        block_tokens=ENGINE_BLOCK_TOKENS,
        load_cold_s=engine.load_cold_s,
        load_warm_s=engine.load_warm_s,
    )
