"""What an instance of an LLM on some GPUs costs and holds: one table of a profile, one degree of tensor parallelism."""

from dataclasses import dataclass, field

from headrace.core.cost import Link, Power, StepCost
from headrace.profiles.gpu import host_link, power_of
from headrace.profiles.model import part_of
from headrace.profiles.reading import Table, parallel, split_name

SOURCES = ("time", "attention", "memory", "load")


@dataclass(frozen=True, slots=True)
class InstanceProfile:
    name: str
    source: str
    gpu: str
    gpus: int  # the degree of tensor parallelism
    step: StepCost
    power: Power  # of each of its GPUs
    kv_bytes_per_token: int
    cross_kv_bytes_per_token: int  # of a media row of a cross-attention model; 0: media join the sequence
    kv_room_bytes: int  # what is left for KV, on all its GPUs together
    weights_bytes: int  # on all its GPUs together
    context_tokens: int
    chunk_tokens: int  # prefill tokens of one iteration
    block_tokens: int
    load_cold_s: float  # weights on the disk of its machine, no engine
    load_warm_s: float  # weights in host memory, the engine initialised
    host: Link = field(default_factory=Link)  # all its GPUs together, to their machine's memory


def instance(name: str) -> InstanceProfile:
    """The profile "a100/llama-2-70b/tp8"; a multimodal model's name stands for its LLM's. Or path/to/own.toml/tp8.

    Raises:
        ProfileError: no such profile, or its content is wrong.
    """
    top, stem, at = split_name(part_of(name, "llm")[0], "instance")
    table = parallel(top, at)
    top.choice("kind", ("llm",))
    gpu, power, power_source = power_of(top)
    sources = top.table("sources")
    model = top.table("model")
    gpus = table.whole("gpus", least=1)
    profile = InstanceProfile(
        name=f"{gpu}/{stem}/{at}",
        source="; ".join([*(f"{entry}: {sources.source(entry)}" for entry in SOURCES), f"power: {power_source}"]),
        gpu=gpu,
        gpus=gpus,
        step=read_step(table),
        power=power,
        kv_bytes_per_token=model.whole("kv_bytes_per_token"),
        cross_kv_bytes_per_token=model.whole("cross_kv_bytes_per_token", 0),
        kv_room_bytes=table.whole("kv_room_bytes", least=1),
        weights_bytes=model.whole("weights_bytes", least=1),
        context_tokens=model.whole("context_tokens", least=1),
        chunk_tokens=table.whole("chunk_tokens", least=1),
        block_tokens=table.whole("block_tokens", least=1),
        load_cold_s=table.number("load_cold_s"),
        load_warm_s=table.number("load_warm_s"),
        host=host_link(gpu, gpus),
    )
    _end(top, table, sources, model)
    return profile


def read_step(table: Table) -> StepCost:
    return StepCost(
        tokens_s=table.curve("tokens", "tokens_s"),
        prefill_pair_s=table.number("prefill_pair_s", 0.0),
        decode_sequence_s=table.number("decode_sequence_s", 0.0),
        decode_context_token_s=table.number("decode_context_token_s", 0.0),
        cross_token_s=table.number("cross_token_s", 0.0),
        cross_pair_s=table.number("cross_pair_s", 0.0),
        decode_cross_token_s=table.number("decode_cross_token_s", 0.0),
    )


def _end(top: Table, table: Table, sources: Table, model: Table) -> None:
    top.pass_over("title", "encoder", "mesh")  # a calibrated mesh's file has them beside its LLM
    model.source()
    model.pass_over("layers", "cross_layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocabulary")
    if "fit" in top:
        top.pass_over("fit")
    for part in (top, table, sources, model):
        part.end()
