"""The profiles of the LLMs: fitted where the kernels were measured, scaled by data sheets where they were not."""

from dataclasses import dataclass, replace

from headrace.core.cost import Curve, StepCost
from headrace.profiles.gpu import GpuCard
from loadtest.fitting.calibrate import Engine
from loadtest.fitting.compose import Composer
from loadtest.fitting.fit import Fit, fit
from loadtest.fitting.shapes import Llm
from loadtest.fitting.tables import Tables

DEGREES = (1, 2, 4, 8)
MEMORY_SHARE = 0.9  # vLLM's gpu_memory_utilization by default
RESERVE_BYTES = 2e9  # of each GPU: activations, CUDA graphs, NCCL
BLOCK_TOKENS = 16
COLD_S, COLD_BYTE_S = 95.5, 2.77e-9  # through (2 GB, 101 s) and (28 GB, 173 s)
WARM_S = 2.0


@dataclass(frozen=True, slots=True)
class Part:
    """One degree of tensor parallelism on one GPU."""

    gpus: int
    step: StepCost
    kv_room_bytes: int
    chunk_tokens: int
    load_cold_s: float
    load_warm_s: float
    errors: dict[str, tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True)
class LlmProfile:
    gpu: str
    llm: Llm
    sources: dict[str, str]
    parts: tuple[Part, ...]


def degrees(llm: Llm, card: GpuCard) -> list[int]:
    """Those that divide its heads and leave room for KV."""
    return [gpus for gpus in DEGREES if llm.splits(gpus) and room_bytes(llm, card, gpus) > 0]


def room_bytes(llm: Llm, card: GpuCard, gpus: int) -> int:
    return int(gpus * (card.memory_bytes * MEMORY_SHARE - RESERVE_BYTES) - llm.weights_bytes)


def fitted(llm: Llm, card: GpuCard, tables: Tables, engine: Engine) -> LlmProfile:
    """From the GPU's own tables."""

    def of(gpus: int) -> Part:
        composer = Composer(tables, card.memory_bytes_per_s, llm, gpus, engine.iteration_s)
        kv_tokens = room_bytes(llm, card, gpus) // llm.kv_bytes_per_token
        return _part(llm, card, gpus, fit(composer, engine.sequence_s, kv_tokens))

    return LlmProfile(
        card.name, llm, _fitted_sources(card.name, engine), tuple(of(gpus) for gpus in degrees(llm, card))
    )


def scaled(
    llm: Llm, card: GpuCard, base: LlmProfile, base_card: GpuCard, only: tuple[int, ...] = DEGREES
) -> LlmProfile:
    """From another GPU's profile, by what the data sheets say; all-reduces go over PCIe."""
    factors = Factors.between(base_card, card)
    sources = _scaled_sources(base_card, card, factors)
    sources["memory"] = _memory_source(card.name)
    sources["load"] = _LOAD
    found = []
    for gpus in degrees(llm, card):
        part = next((part for part in base.parts if part.gpus == gpus), None)
        if part is not None and gpus in only:
            step = _scaled_step(part.step, factors, llm, gpus, card)
            found.append(_part(llm, card, gpus, Fit(step, {})))
    return LlmProfile(card.name, llm, sources, tuple(found))


@dataclass(frozen=True, slots=True)
class Factors:
    """How many times longer: what is bound by memory, and by products."""

    memory: float
    compute: float

    @classmethod
    def between(cls, base: GpuCard, card: GpuCard) -> "Factors":
        return cls(base.memory_bytes_per_s / card.memory_bytes_per_s, base.tensor_flops_per_s / card.tensor_flops_per_s)


def _scaled_step(step: StepCost, factors: Factors, llm: Llm, gpus: int, card: GpuCard) -> StepCost:
    """The curve's floor by memory, what lies above it by products; then the slower all-reduces."""
    curve = step.tokens_s
    floor = curve.ys[0]
    reduce = [2 * llm.layers * _pcie_reduce_s(tokens * llm.hidden * 2, gpus, card) for tokens in curve.xs]
    ys = tuple(
        max(floor * factors.memory, y * factors.compute, floor * factors.memory + (y - floor) * factors.compute) + extra
        for y, extra in zip(curve.ys, reduce, strict=True)
    )
    return replace(
        step,
        tokens_s=Curve(curve.xs, ys),
        prefill_pair_s=step.prefill_pair_s * factors.compute,
        decode_context_token_s=step.decode_context_token_s * factors.memory,
        cross_token_s=step.cross_token_s * factors.compute,
        cross_pair_s=step.cross_pair_s * factors.compute,
        decode_cross_token_s=step.decode_cross_token_s * factors.memory,
    )


def _pcie_reduce_s(size_bytes: float, gpus: int, card: GpuCard) -> float:
    """A ring over PCIe on top of what the base profile pays for NVLink."""
    link = card.links["pcie"]
    if gpus == 1 or "nvlink" in card.links:
        return 0.0
    return 2 * (gpus - 1) * (link.latency_s + size_bytes / gpus / link.bytes_per_s)


def _part(llm: Llm, card: GpuCard, gpus: int, found: Fit) -> Part:
    return Part(
        gpus=gpus,
        step=found.step,
        kv_room_bytes=room_bytes(llm, card, gpus),
        chunk_tokens=8192 if card.memory_bytes > 70 << 30 and card.name != "a100" else 2048,
        load_cold_s=COLD_S + llm.weights_bytes * COLD_BYTE_S,
        load_warm_s=WARM_S + llm.weights_bytes / gpus / card.links["pcie"].bytes_per_s,
        errors=found.errors,
    )


_LOAD = (
    "[T/I] cold 95.5 s + 2.77 s a GB: a line through the 101 s of 1B and 173 s of 14B that SwapServeLLM reports for"
    " vLLM [T]; warm 2 s for the engine [I], between its 0.75 and 4.6 s [T], + the weights' share of each GPU over PCIe"
)


def _memory_source(gpu: str) -> str:
    return (
        f"[I] the weights of the layer shapes at 2 bytes; room for KV: 0.9 of the memory of the {gpu}'s card (vLLM's"
        " default [R]) less weights and 2 GB a GPU for activations; chunk_tokens and block_tokens: defaults of"
        " vLLM's server for such a GPU (EngineArgs.get_batch_defaults [V])"
    )


def _fitted_sources(gpu: str, engine: Engine) -> dict[str, str]:
    version = "0.14.0" if gpu == "a100" else "0.24.0"
    tables = f"aiconfigurator-core 0.12.0, {gpu}_sxm, vLLM {version}"
    return {
        "time": (
            f"[M/I] tokens_s: sum of measured kernels (GEMM and NCCL all-reduce tables of {tables} [M]), element-wise"
            " kernels at 0.8 of the memory's rate + 3 us each (its system file [C]), and prefill attention's share that"
            f" goes with tokens; the engine's own {engine.iteration_s * 1e6:.0f} us an iteration and"
            f" {engine.sequence_s * 1e6:.0f} us a decoding sequence (in decode_sequence_s): {engine.source}"
        ),
        "attention": (
            f"[M/I] context and generation attention tables of {tables} [M], fitted to whole iterations;"
            " cross-attention [I]: the same seconds a pair and a row, by the number of its layers; cross_token_s: the"
            " GEMMs of the projection and of cross K and V"
        ),
        "memory": _memory_source(gpu),
        "load": _LOAD,
    }


def _scaled_sources(base: GpuCard, card: GpuCard, factors: Factors) -> dict[str, str]:
    how = (
        f"[I] the {base.name} profile of the same shapes, scaled by data sheets: {factors.memory:.2f} times longer"
        f" where memory binds, {factors.compute:.2f} times where products do; not measured"
    )
    near = (
        "; QLM's reproduction notes put an A10 at 3.3 times an A100 in small batches [I]" if card.name == "a10" else ""
    )
    return {
        "time": f"{how}{near}; all-reduces as a ring over PCIe, and the host's work unscaled in decode_sequence_s",
        "attention": how,
    }
