"""vLLM behind the engine protocol: its own batching, kernels and KV cache; tokens in, tokens out.

Prefill and decode in one process only: vLLM's KV cache cannot be exported, imported or evicted from outside, which
`refusal` says before anything is loaded. Text models only. A seeded draw is vLLM's own: the same seed gives the same
tokens in an undisturbed run, and other ones behind replayed tokens.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from headrace.core.errors import StageError, Unavailable
from headrace.core.stages.batch import Emitted, Prefilled
from headrace.core.stages.kv import blocks_for
from headrace.core.types import Key, Sampling, TokenLogprobs
from headrace.engines.base import (
    KvManifest,
    KvSink,
    ModelSpec,
    SequenceInput,
    StepResult,
)
from headrace.engines.constrain import lark_of
from headrace.engines.families import family, is_directory
from headrace.engines.grammar import read

# vLLM's kernels want KV blocks of a multiple of this (32 on a CPU, 16 on a GPU); ours are finer where a family says so.
BLOCK_TOKENS = 32
SEED_MAX = 2**63 - 1  # vLLM's seeds are signed
TOP_MAX = 20  # log-probabilities beside the drawn token's: as many as the gateway accepts
WHY_NOT = "vLLM's KV cache does not leave its process"
WHY_NOT_RESUMED = "vLLM cannot go on within a grammar behind tokens that were emitted before"
WHY_NOT_SWAPPED = "vLLM keeps its model for as long as its process lives"


def refusal(model: str, stages: Collection[str]) -> str:
    """Why a worker with these stages cannot run this model on vLLM; empty: it can."""
    if not {"prefill", "decode"} <= set(stages):
        return f"{WHY_NOT}: the vllm engine cannot hand over to another; run with --stages prefill,decode"
    if not is_directory(model):
        return f"the vllm engine loads Hugging Face directories; {model!r} is none"
    if modalities := family(model).spec.modalities:
        return f"the vllm engine serves text models; {model} takes {', '.join(modalities)}: use the torch engine"
    return ""


def load(
    spec: ModelSpec,
    model: str,
    *,
    threads: int,
    slots: int,
    blocks: int,
    chunk_tokens: int,
    prefix_cache: bool,
    device: str,
) -> "VllmEngine":
    """Takes half a minute: vLLM imports, profiles and, on a GPU, compiles.

    Raises:
        Unavailable: vLLM is not installed, is not built for this device, or has no memory for the blocks.
    """
    # In this process: the step loop is ours, and so are its threads.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        import torch
        from vllm import EngineArgs
        from vllm.config import StructuredOutputsConfig
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        raise Unavailable(f"the vllm engine needs vLLM in this environment: {error}") from error
    cuda = current_platform.is_cuda()
    if device != "auto" and cuda != (device == "cuda"):
        raise Unavailable(
            f"this vLLM runs on {current_platform.device_type}: set HEADRACE_DEVICE to that, not {device}"
        )
    torch.set_num_threads(threads)
    block_tokens = max(BLOCK_TOKENS, spec.block_tokens)
    # A sequence wastes at most one of vLLM's larger blocks, and one block is vLLM's own.
    own_blocks = blocks_for(blocks * spec.block_tokens, block_tokens) + slots + 1
    arguments = EngineArgs(
        model=model,
        structured_outputs_config=StructuredOutputsConfig(backend="guidance"),  # ours; it needs vLLM's tokenizer
        dtype="auto" if cuda else "float32",
        enforce_eager=not cuda,  # compiling for a CPU takes minutes at the first start
        max_model_len=min(spec.context_tokens, blocks * spec.block_tokens),
        max_num_seqs=slots,
        max_num_batched_tokens=max(chunk_tokens, slots) if chunk_tokens else None,
        block_size=block_tokens,
        num_gpu_blocks_override=own_blocks,
        kv_cache_memory_bytes=own_blocks * block_tokens * spec.kv_bytes_per_token,
        enable_prefix_caching=prefix_cache,
        max_logprobs=TOP_MAX,
        disable_log_stats=True,
    )
    try:
        engine = LLMEngine.from_engine_args(arguments)
        _try_out(engine)
    except (ValueError, RuntimeError) as error:  # what vLLM raises for models and sizes that it cannot serve
        raise Unavailable(f"vLLM cannot serve {model}: {error}") from error
    return VllmEngine(spec, engine, slots=slots, blocks=blocks)


def _try_out(engine: Any) -> None:
    """Two tokens, a prefill and a decode: kernels that have nothing for a model's shape say so at their first call."""
    engine.add_request("trial", {"prompt_token_ids": [0]}, _parameters(Sampling(2), 0))
    while engine.has_unfinished_requests():
        engine.step()


@dataclass(slots=True, eq=False)
class Running:
    """A sequence in vLLM."""

    input: SequenceInput
    blocks: int
    next_index: int
    prefilled: bool = False


class VllmEngine:
    """Implements headrace.engines.base.Engine, but for what `refusal` has refused: those calls are StageErrors."""

    inline = False

    def __init__(self, spec: ModelSpec, engine: Any, *, slots: int, blocks: int) -> None:
        """engine: a vllm.v1.engine.llm_engine.LLMEngine with room for slots sequences and all blocks."""
        self.spec = replace(spec, modalities=(), max_media=0)
        self.slots = slots
        self.blocks = blocks
        self._vllm = engine
        self._running: dict[str, Running] = {}  # by vLLM's request id

    def blocks_used(self) -> int:
        return sum(running.blocks for running in self._running.values())

    def slots_used(self) -> int:
        return len(self._running)

    def has_work(self) -> bool:
        return bool(self._vllm.has_unfinished_requests())

    def evicted_bytes(self) -> int:
        return 0

    def check_integrity(self) -> None:
        assert self.blocks_used() <= self.blocks
        assert len(self._running) <= self.slots

    def add(self, sequence: SequenceInput, sink: KvSink | None = None) -> None:
        if sink is not None:
            raise StageError(WHY_NOT)
        if sequence.spans or sequence.prefix:
            raise StageError("the vllm engine serves text prompts alone")
        name, sampling = _name(sequence.key), sequence.sampling
        assert name not in self._running, f"{sequence.key} is already here"
        assert len(self._running) < self.slots, "no free slot: the caller ignored the capacity"
        blocks = blocks_for(sequence.prompt_len + sampling.max_tokens, self.spec.block_tokens)
        assert self.blocks_used() + blocks <= self.blocks, "not enough free blocks: the caller ignored the capacity"
        emitted = len(sequence.tokens) - sequence.prompt_len
        assert emitted < sampling.max_tokens, "nothing is left to generate"
        if sampling.grammar and emitted:
            raise StageError(WHY_NOT_RESUMED)
        try:
            self._vllm.add_request(name, {"prompt_token_ids": list(sequence.tokens)}, _parameters(sampling, emitted))
        except ValueError as error:
            raise StageError(f"vLLM refuses the request: {error}") from error
        self._running[name] = Running(sequence, blocks, emitted)

    def step(self) -> StepResult:
        emitted, prefilled, computed, decoded = list[Emitted](), list[Prefilled](), list[tuple[Key, int]](), 0
        for output in self._vllm.step():
            running = self._running.get(output.request_id)
            if running is None or not output.outputs[0].token_ids:
                continue  # it was removed while vLLM had it in flight
            fresh = not running.prefilled
            if fresh:
                running.prefilled, cached = True, output.num_cached_tokens or 0
                prefilled.append(Prefilled(running.input.key, min(cached, running.input.prompt_len)))
                computed.append((running.input.key, len(running.input.tokens) - cached))
            decoded += len(output.outputs[0].token_ids) - fresh
            emitted += _take(running, output.outputs[0])
        tokens = sum([size for _, size in computed])
        return StepResult(tuple(emitted), tuple(prefilled), tokens, decoded, chunks=tuple(computed))

    def feed(self, sequence: SequenceInput) -> None:
        raise StageError("the vllm engine serves text prompts alone")

    def remove(self, key: Key) -> None:
        name = _name(key)
        assert name in self._running, f"unknown sequence {key}"
        del self._running[name]
        self._vllm.abort_request([name])  # nothing happens if it has had all its tokens

    def prefilled_manifest(self, sequence: SequenceInput) -> KvManifest:
        raise StageError(WHY_NOT)

    def kv_manifest(self, key: Key) -> KvManifest:
        raise StageError(WHY_NOT)

    def export_kv(self, key: Key, into: memoryview) -> None:
        raise StageError(WHY_NOT)

    def import_kv(self, sequence: SequenceInput, manifest: KvManifest, source: memoryview) -> None:
        raise StageError(WHY_NOT)

    def pause(self, key: Key) -> None:
        raise StageError(WHY_NOT)

    def evict(self, key: Key) -> None:
        raise StageError(WHY_NOT)

    def restore(self, key: Key) -> None:
        raise StageError(WHY_NOT)

    def park(self) -> None:
        raise StageError(WHY_NOT_SWAPPED)

    def unpark(self) -> None:
        raise StageError(WHY_NOT_SWAPPED)


def _name(key: Key) -> str:
    return f"{key.request_id}.{key.attempt}"


def _parameters(sampling: Sampling, emitted: int) -> Any:
    """emitted: tokens replayed as part of the prompt. vLLM stops at nothing but the length: the caller does."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    warm = sampling.temperature > 0
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p if warm else 1.0,
        top_k=sampling.top_k if warm else 0,
        # Behind replayed tokens another stream of noise: the first tokens' noise has been used.
        seed=(sampling.seed + emitted) & SEED_MAX if warm else None,
        repetition_penalty=sampling.repetition_penalty,
        max_tokens=sampling.max_tokens - emitted,
        logprobs=sampling.logprobs,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        structured_outputs=_structured(sampling.grammar) if sampling.grammar else None,
    )


def _structured(grammar: bytes) -> Any:
    """vLLM's own field for each kind; calls of tools as a Lark grammar, which its guidance backend reads."""
    from vllm.sampling_params import StructuredOutputsParams

    kind, value = read(grammar)
    match kind:
        case "json_schema":
            return StructuredOutputsParams(json=value)
        case "tools":
            return StructuredOutputsParams(grammar=lark_of(grammar))
        case _:
            return StructuredOutputsParams(**{kind: value})


def _take(running: Running, output: Any) -> list[Emitted]:
    """The new tokens of a sequence: one, or several where vLLM speculates."""
    told = output.logprobs or [None] * len(output.token_ids)
    taken = []
    for token, logprobs in zip(output.token_ids, told, strict=True):
        count = running.input.sampling.logprobs
        known = None if logprobs is None or count is None else _logprobs(token, logprobs, count)
        taken.append(Emitted(running.input.key, running.next_index, token, known))
        running.next_index += 1
    return taken


def _logprobs(token: int, told: Any, count: int) -> TokenLogprobs:
    """vLLM tells of the drawn token first, then of the likeliest; ranks begin at 1."""
    ranked = sorted((one.rank, likely, one.logprob) for likely, one in told.items() if one.rank <= count)
    return TokenLogprobs(told[token].logprob, tuple([(likely, logprob) for _, likely, logprob in ranked]))
