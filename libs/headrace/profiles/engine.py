"""What the profile engine sleeps for: a packaged engine profile, or any instance profile (its outputs never end)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.cost import StepCost
from headrace.profiles.instance import InstanceProfile, instance, read_step
from headrace.profiles.reading import ProfileError, Table, is_packaged, packaged, read, read_packaged

_OF_THE_WORKER = ("gpu", "gpus", "models")  # whichever model it serves


@dataclass(frozen=True, slots=True)
class OutputRule:
    mean_tokens: float = 0.0  # of an exponential distribution, drawn from the prompt's hash; 0: it never ends itself

    def __post_init__(self) -> None:
        assert self.mean_tokens >= 0


@dataclass(frozen=True, slots=True)
class EngineProfile:
    name: str
    source: str
    kv_bytes_per_token: int  # size of an exported KV cache beyond its header
    chunk_tokens: int = 8192  # prefill tokens a step: what vLLM's server takes by default on GPUs of the H100's class
    cost: StepCost = field(default_factory=StepCost)
    output: OutputRule = field(default_factory=OutputRule)
    load_cold_s: float = 0.0  # until a model serves whose weights lie on the disk of its machine
    load_warm_s: float = 0.0  # in host memory
    encode_token_s: float = 0.0  # of media, at an encoder
    gpu: str = ""  # kind of its GPUs; empty: of none that is known
    gpus: int = 1  # the degree of tensor parallelism
    # By name, as clients ask for it: a model with a pace of its own. What its table does not say is the file's.
    models: Mapping[str, "EngineProfile"] = field(default_factory=dict)

    def of(self, model: str) -> "EngineProfile":
        """What a worker sleeps for while it serves this one."""
        return self.models.get(model, self)


def engine_profile(name_or_path: str) -> EngineProfile:
    """By name (zero, h100-qwen3-8b, ...), by an instance's name ("a100/llama-2-70b/tp8"), or a TOML file by its path.

    Raises:
        ProfileError: no such profile, or its content is wrong.
    """
    if is_packaged("engine", name_or_path):
        return _engine(read_packaged("engine", name_or_path, "engine profile"), name_or_path)
    if name_or_path.endswith(".toml"):
        top = read(Path(name_or_path), name_or_path)
        if "kind" not in top:
            return _engine(top, Path(name_or_path).stem)
    elif name_or_path.count("/") != 2 and ".toml/" not in name_or_path:
        known = ", ".join(packaged_engine_profiles())
        raise ProfileError(
            f"no profile {name_or_path!r}; packaged: {known}, or <gpu>/<model>/tp<gpus>, or a .toml file"
        )
    return _of_instance(instance(name_or_path))


def packaged_engine_profiles() -> list[str]:
    return packaged("engine")


def _engine(top: Table, name: str) -> EngineProfile:
    cost = top.table("cost")
    output, encode = (top.table(name) if name in top else None for name in ("output", "encode"))
    profile = EngineProfile(
        name=name,
        source=top.source(),
        kv_bytes_per_token=top.whole("kv_bytes_per_token"),
        chunk_tokens=top.whole("chunk_tokens", 8192, least=1),
        cost=read_step(cost),
        output=OutputRule(output.number("mean_tokens") if output else 0.0),
        load_cold_s=top.number("load_cold_s", 0.0),
        load_warm_s=top.number("load_warm_s", 0.0),
        encode_token_s=encode.number("token_s") if encode else 0.0,
        gpu=top.text("gpu") if "gpu" in top else "",
        gpus=top.whole("gpus", 1, least=1),
        models=_models(top, name) if "models" in top else {},
    )
    for table in (top, cost, output, encode):
        if table is not None:
            table.end()
    return profile


def _models(top: Table, name: str) -> dict[str, EngineProfile]:
    """Each is read as a file of its own would be: the file's entries, and the model's in their places."""
    tables, found = top.table("models"), dict[str, EngineProfile]()
    shared = {entry: value for entry, value in top.values.items() if entry not in _OF_THE_WORKER}
    for model in tables.values:
        own = tables.table(model)
        for entry in _OF_THE_WORKER:
            if entry in own:
                raise own.wrong(entry, "is the worker's: it stands at the file's top")
        found[model] = _engine(Table(own.file, own.name, shared | own.values), f"{name}/{model}")
    return found


def _of_instance(profile: InstanceProfile) -> EngineProfile:
    return EngineProfile(
        name=profile.name,
        source=profile.source,
        kv_bytes_per_token=profile.kv_bytes_per_token,
        chunk_tokens=profile.chunk_tokens,
        cost=profile.step,
        load_cold_s=profile.load_cold_s,
        load_warm_s=profile.load_warm_s,
        gpu=profile.gpu,
        gpus=profile.gpus,
    )
