"""From words of the configuration to a running engine; the only place that knows which backends exist.

A backend is imported when it is asked for: the profile engine needs neither onnxruntime nor weights.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from headrace.core.errors import Unavailable
from headrace.engines.base import Engine
from headrace.engines.constrain import Grammars
from headrace.engines.families import checkpoint, family

WEIGHTS = ("fp32", "q4", "int8")
DEVICES = ("cpu", "cuda", "auto")


class EngineConfigError(ValueError):
    """A configuration that no engine can be made of; the message says which word is wrong."""


@dataclass(frozen=True, slots=True)
class EngineSize:
    threads: int  # of the math library; the launcher divides the machine among its workers
    slots: int  # sequences at once
    blocks: int  # of the model's block_tokens each
    chunk_tokens: int  # prefill tokens a step; 0: the engine's own
    prefix_cache_mb: int  # KV of prompts seen before; 0: none, -1: the engine's own
    segments: int = 1  # of the layers: with more, a sink gets the KV of the first ones while later ones compute
    weights: str = "fp32"  # or as blocks: q4, int8
    device: str = "cpu"  # or cuda, auto

    def __post_init__(self) -> None:
        least_of = {"threads": 1, "slots": 1, "blocks": 1, "chunk_tokens": 0, "prefix_cache_mb": -1, "segments": 1}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise EngineConfigError(f"{name} is {getattr(self, name)}; an engine needs at least {least}")
        for name, words in (("weights", WEIGHTS), ("device", DEVICES)):
            if getattr(self, name) not in words:
                raise EngineConfigError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(words)}")

    def prefix_cache_bytes(self, own_mb: int) -> int:
        return (own_mb if self.prefix_cache_mb < 0 else self.prefix_cache_mb) << 20


def load_engine(
    engine: str,
    model: str,
    *,
    threads: int,
    slots: int,
    blocks: int,
    profile: str = "zero",
    chunk_tokens: int = 0,
    prefix_cache_mb: int = -1,
    segments: int = 1,
    weights: str = "fp32",
    device: str = "cpu",
) -> Engine:
    """An engine ready to run. The first onnx engine of a machine writes its graph to the cache directory.

    Raises:
        EngineConfigError: unknown engine, profile, weights or device, or a size below one.
        ModelNotFound: unknown model.
        Unavailable: the model's weights, or a library of the backend, are not installed; the device is not there.
    """
    size = EngineSize(threads, slots, blocks, chunk_tokens, prefix_cache_mb, segments, weights, device)
    if engine not in ENGINES:
        raise EngineConfigError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    if weights != "fp32" and engine not in ("onnx", "profile"):  # a profile has no weights: it wears any
        raise EngineConfigError(f"the {engine} engine has no weights of kind {weights}; the onnx engine has")
    return ENGINES[engine](model, size, profile)


def _onnx(model: str, size: EngineSize, _profile: str) -> Engine:
    from headrace.engines.onnx import load

    return load(
        family(model).spec,
        checkpoint(model),
        threads=size.threads,
        slots=size.slots,
        blocks=size.blocks,
        chunk_tokens=size.chunk_tokens or _ONNX_CHUNK_TOKENS,
        prefix_cache_bytes=size.prefix_cache_bytes(_ONNX_PREFIX_CACHE_MB),
        segments=size.segments,
        weights=size.weights,
        device=size.device,
        grammars=Grammars(family(model)),
    )


def _torch(model: str, size: EngineSize, _profile: str) -> Engine:
    try:
        from headrace.engines.torch_load import load
    except ImportError as error:
        raise Unavailable("the torch engine needs torch: pip install 'headrace[torch]'") from error
    return load(
        family(model).spec,
        model,
        threads=size.threads,
        slots=size.slots,
        blocks=size.blocks,
        chunk_tokens=size.chunk_tokens,
        prefix_cache_bytes=size.prefix_cache_bytes(_TORCH_PREFIX_CACHE_MB),
        device=size.device,
        grammars=Grammars(family(model)),
    )


def _vllm(model: str, size: EngineSize, _profile: str) -> Engine:
    from headrace.engines.vllm import load

    check_stages("vllm", model, ("prefill", "decode"))
    return load(
        family(model).spec,
        model,
        threads=size.threads,
        slots=size.slots,
        blocks=size.blocks,
        chunk_tokens=size.chunk_tokens,
        prefix_cache=bool(size.prefix_cache_mb),
        device=size.device,
    )


def check_stages(engine: str, model: str, stages: Collection[str]) -> None:
    """Before anything is loaded.

    Raises:
        EngineConfigError: a worker with these stages cannot run this model on this engine; says what can.
    """
    if engine == "vllm":
        from headrace.engines.vllm import refusal

        if why := refusal(model, stages):
            raise EngineConfigError(why)


def hands_over(engine: str) -> bool:
    """Whether sequences can leave and enter this engine with their KV cache."""
    return engine != "vllm"


def parks(engine: str) -> bool:
    """Whether a process can serve another model after this engine's: park() and unpark() work."""
    return engine != "vllm"


def _profile(model: str, size: EngineSize, profile: str) -> Engine:
    from headrace.engines.profile import ProfileEngine
    from headrace.profiles import ProfileError, engine_profile

    try:
        known = engine_profile(profile)
    except ProfileError as error:
        raise EngineConfigError(str(error)) from error
    wearing = family(model)
    costs = known.of(wearing.spec.name)
    return ProfileEngine(
        wearing.spec,
        wearing.pieces,
        costs,
        slots=size.slots,
        blocks=size.blocks,
        chunk_tokens=size.chunk_tokens or costs.chunk_tokens,
        prefix_cache_bytes=size.prefix_cache_bytes(0),  # a load test's prompts are often alike: only if asked for
        grammars=Grammars(wearing),
    )


# A chunk on a CPU takes a third of a second at 256 tokens; running sequences wait for it.
_ONNX_CHUNK_TOKENS = 256
_ONNX_PREFIX_CACHE_MB = 512  # 11,000 tokens of the default model
_TORCH_PREFIX_CACHE_MB = 512  # beside the KV cache, in the device's memory

ENGINES: dict[str, Callable[[str, EngineSize, str], Engine]] = {
    "onnx": _onnx,
    "torch": _torch,
    "vllm": _vllm,
    "profile": _profile,
}
